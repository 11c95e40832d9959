//! The tasks of this process between what the leader assigned and what the workers have.

use std::collections::BTreeSet;

use super::TaskId;

/// Which tasks this process answers for.
///
/// The rule behind it: **a task is claimed from the moment it is granted until the workers say that they have let go of it**, also
/// when it has long been assigned away. The claim travels with every JoinGroup, and the leader gives nobody a claimed task.
#[derive(Clone, Debug, Default)]
pub(super) struct Holdings {
    /// What the workers have or were told to start, as far as they have not reported otherwise.
    reported: BTreeSet<TaskId>,
    /// Whether that has to be said again before it counts.
    outdated: bool,
    /// What the last grant named.
    target: BTreeSet<TaskId>,
    /// The claim that the last JoinGroup carried.
    claimed: BTreeSet<TaskId>,
    /// What was run last, or is on disk from an earlier run.
    previous: BTreeSet<TaskId>,
}

impl Holdings {
    /// Tasks whose state may be on disk already.
    pub(super) fn remember(&mut self, previous: BTreeSet<TaskId>) {
        self.previous = previous;
    }

    /// What nobody else may start. Taking it notes that JoinGroup tells the leader so.
    pub(super) fn claim(&mut self) -> BTreeSet<TaskId> {
        self.claimed = self.reported.union(&self.target).copied().collect();
        self.claimed.clone()
    }

    /// What was run before and is not claimed.
    pub(super) fn previous(&self) -> BTreeSet<TaskId> {
        self.previous.difference(&self.claimed).copied().collect()
    }

    /// The workers are told to run exactly these.
    pub(super) fn grant(&mut self, tasks: BTreeSet<TaskId>) {
        self.reported.extend(&tasks);
        self.target = tasks;
        if !self.target.is_empty() {
            self.previous.clone_from(&self.target);
        }
    }

    /// The workers have these and no others.
    pub(super) fn acknowledge(&mut self, held: &BTreeSet<TaskId>) {
        self.reported.clone_from(held);
        self.outdated = false;
    }

    /// Nothing is ours any more; the workers have yet to drop what they have.
    pub(super) fn lose(&mut self) {
        self.target.clear();
        self.claimed.clear();
    }

    /// What the workers have said so far does not count any more.
    pub(super) fn await_report(&mut self) {
        self.outdated = true;
    }

    /// Whether the workers have nothing left.
    pub(super) fn empty_handed(&self) -> bool {
        self.reported.is_empty() && !self.outdated
    }

    /// What the last grant named.
    pub(super) fn target(&self) -> &BTreeSet<TaskId> {
        &self.target
    }

    /// Tasks that are assigned away and still with the workers.
    pub(super) fn releasing(&self) -> impl Iterator<Item = &TaskId> {
        self.reported.difference(&self.target)
    }

    /// Whether the leader still believes that we have tasks which we have let go of, and none is left to wait for.
    pub(super) fn released(&self) -> bool {
        !self.claimed.is_subset(&self.target) && self.reported.is_subset(&self.target)
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    fn tasks(partitions: &[i32]) -> BTreeSet<TaskId> {
        let task = |&partition| TaskId { subtopology: 0, partition };
        partitions.iter().map(task).collect()
    }

    #[test]
    fn a_task_that_was_assigned_away_stays_claimed_until_it_is_let_go() {
        let mut holdings = Holdings::default();
        holdings.grant(tasks(&[0, 1]));
        // The workers have not started task 1 yet: it is claimed all the same.
        holdings.acknowledge(&tasks(&[0]));
        assert_eq!(holdings.claim(), tasks(&[0, 1]));
        holdings.acknowledge(&tasks(&[0, 1]));

        holdings.grant(tasks(&[0]));
        assert!(!holdings.released());
        assert_eq!(holdings.claim(), tasks(&[0, 1]));
        holdings.acknowledge(&tasks(&[0]));
        assert!(holdings.released());
        assert_eq!(holdings.claim(), tasks(&[0]));
        assert!(!holdings.released(), "the leader has been told");
    }

    #[test]
    fn nothing_is_claimed_after_a_loss() {
        let mut holdings = Holdings::default();
        holdings.grant(tasks(&[3]));
        holdings.acknowledge(&tasks(&[]));
        holdings.lose();
        holdings.await_report();
        assert!(!holdings.empty_handed(), "said before the loss");
        holdings.acknowledge(&tasks(&[]));
        assert!(holdings.empty_handed());
        assert_eq!(holdings.claim(), tasks(&[]));
        assert_eq!(holdings.previous(), tasks(&[3]));
    }
}
