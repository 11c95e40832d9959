//! What the leader does between JoinGroup and SyncGroup: read the members' data, assign, write theirs.

use std::collections::BTreeSet;
use std::sync::Arc;

use super::assignor::{MemberView, assign};
use super::user_data::{AssignedTasks, Subscription};
use super::{TaskId, TaskPlan};
use crate::broker::{MemberAssignment, MemberMetadata};
use crate::record::TopicPartition;

/// One assignment for every member of the generation.
pub(super) fn lead(plan: &TaskPlan, generation: i32, members: &[MemberMetadata]) -> Vec<MemberAssignment> {
    let views: Vec<MemberView> = members.iter().map(view).collect();
    let assignment = assign(plan, &views);
    for id in &assignment.excluded {
        let fingerprint = views.iter().find(|view| view.id == *id).and_then(|view| view.fingerprint);
        tracing::warn!(
            event = "leader.member_excluded",
            member = %id,
            fingerprint,
            ours = plan.fingerprint,
            "a member has another plan than the leader, or one that cannot be read: it gets no tasks"
        );
    }
    tracing::info!(
        event = "leader.assigned",
        generation,
        members = members.len(),
        tasks = assignment.tasks.values().map(BTreeSet::len).sum::<usize>(),
        follow_up = assignment.follow_up,
        "assigned the tasks of this generation"
    );
    let follow_up = assignment.follow_up;
    assignment
        .tasks
        .into_iter()
        .map(|(member_id, tasks)| MemberAssignment {
            member_id,
            partitions: input_partitions(plan, &tasks),
            user_data: AssignedTasks { fingerprint: plan.fingerprint, tasks, follow_up }.encode(),
        })
        .collect()
}

fn view(member: &MemberMetadata) -> MemberView {
    let mut view = MemberView {
        id: member.member_id.clone(),
        capacity: 1,
        held: BTreeSet::new(),
        previous: BTreeSet::new(),
        fingerprint: None,
    };
    match Subscription::decode(&member.user_data) {
        Ok(subscription) => {
            view.capacity = subscription.capacity;
            view.held = subscription.held;
            view.previous = subscription.previous;
            view.fingerprint = Some(subscription.fingerprint);
        }
        Err(error) => tracing::warn!(
            event = "leader.member_unreadable",
            member = %member.member_id,
            %error,
            "a member's user data was refused"
        ),
    }
    view
}

/// For people and tools that look at the group.
fn input_partitions(plan: &TaskPlan, tasks: &BTreeSet<TaskId>) -> Vec<TopicPartition> {
    let mut partitions = Vec::new();
    for task in tasks {
        let subtopology = usize::try_from(task.subtopology).ok();
        if let Some(subtopology) = subtopology.and_then(|number| plan.subtopologies.get(number)) {
            let of_task = |topic| TopicPartition::new(Arc::clone(topic), task.partition);
            partitions.extend(subtopology.topics.iter().map(of_task));
        }
    }
    partitions
}
