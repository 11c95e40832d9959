use std::collections::HashMap;

use proptest::collection::vec;
use proptest::prelude::*;
use proptest::sample::Index;

use super::*;
use crate::group::SubtopologyTasks;

const FINGERPRINT: u64 = 1;

fn plan(subtopologies: &[(i32, bool)]) -> TaskPlan {
    let subtopology = |&(partitions, stateful)| SubtopologyTasks { topics: vec!["in".into()], partitions, stateful };
    TaskPlan { subtopologies: subtopologies.iter().map(subtopology).collect(), fingerprint: FINGERPRINT }
}

fn task(subtopology: u32, partition: i32) -> TaskId {
    TaskId { subtopology, partition }
}

fn view(id: &str, held: &[TaskId]) -> MemberView {
    MemberView {
        id: id.to_owned(),
        capacity: 1,
        held: held.iter().copied().collect(),
        previous: BTreeSet::new(),
        fingerprint: Some(FINGERPRINT),
    }
}

fn all_tasks(plan: &TaskPlan) -> BTreeSet<TaskId> {
    let numbered = plan.subtopologies.iter().zip(0_u32..);
    numbered
        .flat_map(|(subtopology, number)| (0..subtopology.partitions).map(move |partition| task(number, partition)))
        .collect()
}

/// A group whose members do what they are told: what they are given they hold, what they lose they release, at once or late.
struct World {
    plan: TaskPlan,
    members: Vec<MemberView>,
    born: usize,
}

impl World {
    fn join(&mut self, capacity: u32) {
        // Ids in no order of age, as the coordinator's are.
        let id = format!("{:03}", (self.born * 37) % 101);
        self.born += 1;
        let mut member = view(&id, &[]);
        member.capacity = capacity;
        self.members.push(member);
    }

    /// One round. Whoever is not `late` has released before the next one what it lost in this.
    fn round(&mut self, late: impl Fn(usize) -> bool) -> Assignment {
        let assignment = assign(&self.plan, &self.members);
        let mut seen = BTreeSet::new();
        for (id, tasks) in &assignment.tasks {
            for task in tasks {
                assert!(seen.insert(*task), "{task} was given to two members");
                let holder = self.members.iter().find(|member| member.held.contains(task));
                assert!(holder.is_none_or(|holder| holder.id == *id), "{task} was given away while it is held");
            }
        }
        for (number, member) in self.members.iter_mut().enumerate() {
            let assigned = &assignment.tasks[&member.id];
            if late(number) {
                member.held.extend(assigned);
            } else {
                member.previous = member.held.difference(assigned).copied().collect();
                member.held.clone_from(assigned);
            }
        }
        assignment
    }

    /// Rounds with members that keep up, until none must follow.
    fn settle(&mut self) -> usize {
        let rounds = (1..10).find(|_| !self.round(|_| false).follow_up);
        let rounds = rounds.expect("the group does not come to rest");
        if !self.members.is_empty() {
            let held: BTreeSet<TaskId> = self.members.iter().flat_map(|member| &member.held).copied().collect();
            assert_eq!(held, all_tasks(&self.plan), "a task is with nobody");
        }
        rounds
    }

    fn holders(&self) -> HashMap<TaskId, String> {
        let of = |member: &MemberView| member.held.iter().map(|task| (*task, member.id.clone())).collect::<Vec<_>>();
        self.members.iter().flat_map(of).collect()
    }

    /// Largest and smallest number of tasks that pass `filter`, for members of one capacity.
    fn spread(&self, filter: impl Fn(&TaskId) -> bool) -> usize {
        let counts = || self.members.iter().map(|member| member.held.iter().filter(|task| filter(task)).count());
        counts().max().unwrap_or(0) - counts().min().unwrap_or(0)
    }

    fn assert_balanced(&self) {
        assert!(self.spread(|_| true) <= 1, "total: {:?}", self.members);
        let stateful = |task: &TaskId| self.plan.subtopologies[task.subtopology as usize].stateful;
        assert!(self.spread(stateful) <= 1, "with state: {:?}", self.members);
        for number in 0..self.plan.subtopologies.len() {
            assert!(
                self.spread(|task| task.subtopology as usize == number) <= 1,
                "sub-topology {number}: {:?}",
                self.members
            );
        }
    }
}

#[derive(Clone, Debug)]
enum Change {
    Join,
    Leave(Index),
    /// A round in which one member releases late.
    LateRound(Index),
}

fn changes() -> impl Strategy<Value = Vec<Change>> {
    let change = prop_oneof![
        3 => Just(Change::Join),
        2 => any::<Index>().prop_map(Change::Leave),
        1 => any::<Index>().prop_map(Change::LateRound),
    ];
    vec(change, 1..14)
}

fn plans() -> impl Strategy<Value = TaskPlan> {
    vec((0..11_i32, any::<bool>()), 1..5).prop_map(|subtopologies| plan(&subtopologies))
}

proptest! {
    #![proptest_config(ProptestConfig::with_cases(2000))]

    #[test]
    fn after_any_history_a_group_comes_to_rest_balanced(plan in plans(), changes in changes(), capacity in 1..4_u32) {
        let mut world = World { plan, members: Vec::new(), born: 0 };
        world.join(capacity);
        for change in changes {
            match change {
                Change::Join => world.join(capacity),
                Change::Leave(which) if world.members.len() > 1 => {
                    world.members.remove(which.index(world.members.len()));
                }
                Change::Leave(_) => {}
                Change::LateRound(which) => {
                    let late = which.index(world.members.len());
                    world.round(|number| number == late);
                    continue;
                }
            }
            prop_assert!(world.settle() <= 2);
            world.assert_balanced();
            // At rest another round changes nothing.
            let before = world.holders();
            world.settle();
            prop_assert_eq!(before, world.holders());
        }
    }

    #[test]
    fn members_of_unlike_capacity_converge_as_fast(
        plan in plans(), capacities in vec(0..5_u32, 1..7), leaves: Index,
    ) {
        let mut world = World { plan, members: Vec::new(), born: 0 };
        for capacity in capacities {
            world.join(capacity);
            prop_assert!(world.settle() <= 2);
        }
        if world.members.len() > 1 {
            world.members.remove(leaves.index(world.members.len()));
            prop_assert!(world.settle() <= 2);
        }
    }

    #[test]
    fn the_order_of_the_members_does_not_matter(
        plan in plans(), shares in vec(vec(0..7_usize, 0..40), 3), capacities in vec(1..4_u32, 7), turn in 0..7_usize,
    ) {
        // Any claims at all, contested and unknown tasks among them.
        let mut members: Vec<MemberView> = (0..7).map(|number| view(&format!("m{number}"), &[])).collect();
        for (member, capacity) in members.iter_mut().zip(capacities) {
            member.capacity = capacity;
        }
        for (kind, share) in shares.iter().enumerate() {
            for ((number, member), subtopology) in share.iter().enumerate().zip([0, 1, 2, 3, 4].into_iter().cycle()) {
                let task = task(subtopology, i32::try_from(number / 3).unwrap());
                match kind {
                    0 => members[*member].previous.insert(task),
                    _ => members[*member].held.insert(task),
                };
            }
        }
        let first = assign(&plan, &members);
        members.rotate_left(turn);
        members.swap(0, 3);
        prop_assert_eq!(first, assign(&plan, &members));
    }

    #[test]
    fn of_one_subtopology_only_what_must_move_moves(partitions in 1..40_i32, members in 1..9_usize, leaver: Index) {
        let mut world = World { plan: plan(&[(partitions, true)]), members: Vec::new(), born: 0 };
        for _ in 0..members {
            world.join(1);
            world.settle();
        }
        // A newcomer: tasks move to it alone, and no more than its share.
        let before = world.holders();
        world.join(1);
        let newcomer = world.members[members].id.clone();
        world.settle();
        let moved: Vec<_> = world.holders().into_iter().filter(|(task, holder)| before[task] != *holder).collect();
        prop_assert!(moved.iter().all(|(_, holder)| *holder == newcomer));
        prop_assert!(moved.len() <= usize::try_from(partitions).unwrap().div_ceil(members + 1));

        // One leaves: its tasks move alone.
        let before = world.holders();
        let gone = world.members.remove(leaver.index(members + 1));
        prop_assert_eq!(world.settle(), 1);
        let moved = world.holders().into_iter().filter(|(task, holder)| before[task] != *holder);
        prop_assert!(moved.into_iter().all(|(task, _)| gone.held.contains(&task)));
    }
}

#[test]
fn a_task_that_moves_is_withheld_until_its_holder_has_released_it() {
    let plan = plan(&[(2, true)]);
    let both = [task(0, 0), task(0, 1)];
    let first = assign(&plan, &[view("a", &both), view("b", &[])]);
    assert!(first.follow_up);
    assert_eq!(first.tasks["a"], BTreeSet::from([task(0, 0)]));
    assert_eq!(first.tasks["b"], BTreeSet::new());
    let second = assign(&plan, &[view("a", &both[..1]), view("b", &[])]);
    assert!(!second.follow_up);
    assert_eq!(second.tasks["b"], BTreeSet::from([task(0, 1)]));
}

#[test]
fn free_tasks_go_back_to_who_had_them() {
    let plan = plan(&[(4, true)]);
    let mut members = [view("a", &[]), view("b", &[])];
    members[0].previous = BTreeSet::from([task(0, 2), task(0, 3)]);
    members[1].previous = BTreeSet::from([task(0, 0), task(0, 1), task(0, 2)]);
    let assignment = assign(&plan, &members);
    assert_eq!(assignment.tasks["a"], members[0].previous);
    assert_eq!(assignment.tasks["b"], BTreeSet::from([task(0, 0), task(0, 1)]));
}

#[test]
fn members_with_another_plan_get_nothing_and_hold_up_free_tasks_only_while_they_hold_some() {
    let plan = plan(&[(2, false)]);
    let mut other = view("b", &[task(0, 1)]);
    other.fingerprint = Some(2);
    let assignment = assign(&plan, &[view("a", &[task(0, 0)]), other.clone()]);
    assert_eq!(assignment.tasks["a"], BTreeSet::from([task(0, 0)]));
    assert_eq!(assignment.tasks["b"], BTreeSet::new());
    assert_eq!(assignment.excluded, ["b"]);
    assert!(assignment.follow_up);

    other.held.clear();
    let assignment = assign(&plan, &[view("a", &[task(0, 0)]), other.clone()]);
    assert_eq!(assignment.tasks["a"], BTreeSet::from([task(0, 0), task(0, 1)]));
    assert!(!assignment.follow_up);

    other.fingerprint = None;
    let assignment = assign(&plan, &[view("a", &[task(0, 0)]), other]);
    assert_eq!(assignment.tasks["a"], BTreeSet::from([task(0, 0)]), "what it holds is not known");
}

#[test]
fn a_contested_task_goes_to_nobody() {
    let assignment = assign(&plan(&[(1, false)]), &[view("a", &[task(0, 0)]), view("b", &[task(0, 0)])]);
    assert_eq!(assignment.tasks.values().map(BTreeSet::len).sum::<usize>(), 0);
    assert!(assignment.follow_up);
}

#[test]
fn a_plan_without_tasks_and_a_group_of_strangers_are_assigned_nothing() {
    assert_eq!(assign(&plan(&[]), &[view("a", &[])]).tasks["a"], BTreeSet::new());
    assert_eq!(assign(&plan(&[(3, true)]), &[]), Assignment::default());
}
