//! Which member runs which task: a pure function of the plan and of what the members say.

use std::collections::{BTreeMap, BTreeSet};

use super::quota::{Demand, quotas};
use super::{TaskId, TaskPlan};

/// A member as the assignor sees it.
#[derive(Clone, Debug, PartialEq, Eq)]
pub struct MemberView {
    /// Its member id: the order of ids decides where nothing else does.
    pub id: String,
    /// Its share of the work, compared with other members' (number of workers). 0 counts as 1.
    pub capacity: u32,
    /// Tasks its workers have. Nobody else may start them before it has released them.
    pub held: BTreeSet<TaskId>,
    /// Tasks it had before: it gets them back rather than another, if they are free.
    pub previous: BTreeSet<TaskId>,
    /// Of its task plan; `None` if what it sent could not be read.
    pub fingerprint: Option<u64>,
}

/// Who runs what in one generation.
#[derive(Clone, Debug, Default, PartialEq, Eq)]
pub struct Assignment {
    /// By member id: all tasks it runs. Every member is named, those without tasks too.
    pub tasks: BTreeMap<String, BTreeSet<TaskId>>,
    /// Whether tasks are held back until whoever has them has released them, so that another round is needed.
    pub follow_up: bool,
    /// Ids of members that get nothing because their plan is another one, or unreadable.
    pub excluded: Vec<String>,
}

/// Spreads the plan's tasks over the members.
///
/// The same members and plan give the same answer, in whatever order they are listed. With equal capacities the numbers of tasks
/// of two members differ by one at most: in total, among those with state, and within each sub-topology; with others each
/// number is the member's share by capacity, rounded. Among all such spreads it is one that moves the fewest tasks.
///
/// A task that moves is given to nobody in this round (`follow_up`): its holder does not find it in its new set, releases it and joins
/// again, and in that later round it is free. Members with another plan than `plan` get nothing; while one of them holds tasks, whose
/// numbers mean something else, no free task is given out at all, since it might be the same work.
#[must_use]
pub fn assign(plan: &TaskPlan, members: &[MemberView]) -> Assignment {
    let mut sorted: Vec<&MemberView> = members.iter().collect();
    sorted.sort_by(|a, b| a.id.cmp(&b.id));
    let (ours, others): (Vec<_>, Vec<_>) =
        sorted.into_iter().partition(|member| member.fingerprint == Some(plan.fingerprint));

    let mut assignment = Assignment {
        tasks: members.iter().map(|member| (member.id.clone(), BTreeSet::new())).collect(),
        follow_up: false,
        excluded: others.iter().map(|member| member.id.clone()).collect(),
    };
    let frozen = others.iter().any(|member| member.fingerprint.is_none() || !member.held.is_empty());

    let spreads: Vec<Spread> = plan
        .subtopologies
        .iter()
        .zip(0..)
        .map(|(subtopology, number)| Spread::new(number, subtopology.partitions, &ours))
        .collect();
    let demands: Vec<Demand> = std::iter::zip(&spreads, &plan.subtopologies)
        .map(|(spread, subtopology)| spread.demand(subtopology.stateful, &ours))
        .collect();
    let capacities: Vec<u32> = ours.iter().map(|member| member.capacity.max(1)).collect();

    for (spread, room) in std::iter::zip(spreads, quotas(&demands, &capacities)) {
        for (task, holder, target) in spread.settle(room, &ours) {
            let Some(member) = target.and_then(|target| ours.get(target)) else {
                continue;
            };
            let may_start = match holder {
                Holder::Nobody => !frozen,
                Holder::Member(holder) => Some(holder) == target,
                Holder::Several => false,
            };
            if !may_start {
                assignment.follow_up = true;
            } else if let Some(tasks) = assignment.tasks.get_mut(&member.id) {
                tasks.insert(task);
            }
        }
    }
    assignment
}

/// Who has a task now. Members are indexes into those that take part.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
enum Holder {
    Nobody,
    Member(usize),
    /// Cannot happen while members keep the rules; then nobody gets it before all have released it.
    Several,
}

/// The tasks of one sub-topology on their way to members.
struct Spread {
    tasks: Vec<(TaskId, Holder)>,
}

impl Spread {
    fn new(subtopology: u32, partitions: i32, members: &[&MemberView]) -> Self {
        let tasks = (0..partitions)
            .map(|partition| TaskId { subtopology, partition })
            .map(|task| {
                let mut holders = (0..members.len()).filter(|&m| holds(members, m, &task));
                let holder = match (holders.next(), holders.next()) {
                    (None, _) => Holder::Nobody,
                    (Some(member), None) => Holder::Member(member),
                    (Some(_), Some(_)) => Holder::Several,
                };
                (task, holder)
            })
            .collect();
        Self { tasks }
    }

    /// What the members have of it, and what they had of what nobody has.
    fn demand(&self, stateful: bool, members: &[&MemberView]) -> Demand {
        let mut held = vec![0_u64; members.len()];
        let mut wished = vec![0_u64; members.len()];
        for (task, holder) in &self.tasks {
            match holder {
                Holder::Member(member) => held[*member] += 1,
                Holder::Nobody | Holder::Several => {
                    // If several had it, it counts for the one with the fewest: it can come back to one only.
                    let had = (0..members.len()).filter(|&m| had(members, m, task));
                    if let Some(member) = had.min_by_key(|&m| (held[m] + wished[m], m)) {
                        wished[member] += 1;
                    }
                }
            }
        }
        Demand { tasks: u64::try_from(self.tasks.len()).unwrap_or(u64::MAX), stateful, held, wished }
    }

    /// Fills each member's room: with what it holds, then with what it had, then with what is left.
    fn settle(self, mut room: Vec<u64>, members: &[&MemberView]) -> Vec<(TaskId, Holder, Option<usize>)> {
        let mut targets: Vec<Option<usize>> = vec![None; self.tasks.len()];
        for (target, (_, holder)) in targets.iter_mut().zip(&self.tasks) {
            if let Holder::Member(member) = holder
                && room[*member] > 0
            {
                room[*member] -= 1;
                *target = Some(*member);
            }
        }
        for (target, (task, _)) in targets.iter_mut().zip(&self.tasks) {
            if target.is_none() {
                let had = (0..members.len()).filter(|&m| room[m] > 0 && had(members, m, task));
                if let Some(member) = had.max_by_key(|&m| (room[m], usize::MAX - m)) {
                    room[member] -= 1;
                    *target = Some(member);
                }
            }
        }
        for target in targets.iter_mut().filter(|target| target.is_none()) {
            let most = (0..members.len()).filter(|&m| room[m] > 0);
            if let Some(member) = most.max_by_key(|&m| (room[m], usize::MAX - m)) {
                room[member] -= 1;
                *target = Some(member);
            }
        }
        std::iter::zip(self.tasks, targets).map(|((task, holder), target)| (task, holder, target)).collect()
    }
}

fn holds(members: &[&MemberView], member: usize, task: &TaskId) -> bool {
    members.get(member).is_some_and(|member| member.held.contains(task))
}

fn had(members: &[&MemberView], member: usize, task: &TaskId) -> bool {
    members.get(member).is_some_and(|member| member.previous.contains(task))
}

#[cfg(test)]
mod tests;
