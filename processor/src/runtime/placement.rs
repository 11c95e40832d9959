//! Which worker of a process has which task.

use std::collections::{BTreeMap, BTreeSet};

use crate::group::TaskId;

/// The spread of a process's tasks over its workers.
///
/// A task that is to be released stays with its worker until that has said so. Should it be given back before, only that
/// worker knows which of its records are committed: another one would read positions that are about to change.
#[derive(Debug)]
pub(super) struct Placement {
    workers: usize,
    placed: BTreeMap<TaskId, usize>,
    assigned: BTreeSet<TaskId>,
}

impl Placement {
    pub(super) fn new(workers: usize) -> Self {
        Self { workers, placed: BTreeMap::new(), assigned: BTreeSet::new() }
    }

    /// These tasks are to run. Those that have a worker stay there; new ones go to the worker with the fewest of their
    /// sub-topology, then with the fewest in all.
    pub(super) fn assign(&mut self, tasks: BTreeSet<TaskId>) {
        for task in &tasks {
            if self.placed.contains_key(task) {
                continue;
            }
            let load = |worker: usize| {
                let own = self.placed.iter().filter(|(other, placed)| **placed == worker && tasks.contains(*other));
                let alike = own.clone().filter(|(other, _)| other.subtopology == task.subtopology).count();
                (alike, own.count(), worker)
            };
            if let Some(worker) = (0..self.workers).min_by_key(|worker| load(*worker)) {
                self.placed.insert(*task, worker);
            }
        }
        self.assigned = tasks;
    }

    /// The tasks that a worker is to run.
    pub(super) fn of(&self, worker: usize) -> BTreeSet<TaskId> {
        let own = self.placed.iter().filter(|(task, placed)| **placed == worker && self.assigned.contains(*task));
        own.map(|(task, _)| *task).collect()
    }

    /// All workers have complied with what was assigned last, and hold these.
    pub(super) fn released(&mut self, held: &BTreeSet<TaskId>) {
        self.placed.retain(|task, _| held.contains(task) || self.assigned.contains(task));
    }

    /// The workers have been told to drop everything.
    pub(super) fn clear(&mut self) {
        self.placed.clear();
        self.assigned.clear();
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    fn tasks<const N: usize>(partitions: [i32; N]) -> BTreeSet<TaskId> {
        partitions.into_iter().map(|partition| TaskId { subtopology: 0, partition }).collect()
    }

    #[test]
    fn a_task_that_comes_back_before_it_is_released_stays_with_its_worker() {
        let mut placement = Placement::new(2);
        placement.assign(tasks([0, 1, 3]));
        placement.assign(tasks([0, 1, 2, 3]));
        let before = [placement.of(0), placement.of(1)];
        placement.assign(tasks([0, 1]));
        assert!(placement.of(0).len() + placement.of(1).len() == 2);
        placement.assign(tasks([0, 1, 2, 3]));
        assert_eq!([placement.of(0), placement.of(1)], before);
    }

    #[test]
    fn a_task_that_was_released_goes_to_whoever_has_least() {
        let mut placement = Placement::new(2);
        placement.assign(tasks([0, 1, 2, 3]));
        assert_eq!([placement.of(0), placement.of(1)], [tasks([0, 2]), tasks([1, 3])]);
        placement.assign(tasks([0, 2]));
        placement.released(&tasks([0, 2]));
        placement.assign(tasks([0, 2, 1]));
        assert_eq!([placement.of(0), placement.of(1)], [tasks([0, 2]), tasks([1])]);
        placement.clear();
        assert!(placement.of(0).is_empty());
    }
}
