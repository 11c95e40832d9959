//! The messages of the classic group protocol: requests out of the engine's words, answers into them.
//!
//! Subscriptions and assignments have Kafka's standard form with our user data inside, so that Kafka's tools can
//! read the group.

use std::collections::{BTreeMap, HashMap};

use kafka_protocol::messages::consumer_protocol_assignment::TopicPartition as AssignedTopic;
use kafka_protocol::messages::join_group_request::JoinGroupRequestProtocol;
use kafka_protocol::messages::leave_group_request::MemberIdentity;
use kafka_protocol::messages::offset_commit_request::{OffsetCommitRequestPartition, OffsetCommitRequestTopic};
use kafka_protocol::messages::offset_fetch_request::{OffsetFetchRequestGroup, OffsetFetchRequestTopics};
use kafka_protocol::messages::sync_group_request::SyncGroupRequestAssignment;
use kafka_protocol::messages::{
    ConsumerProtocolAssignment, ConsumerProtocolSubscription, GroupId, HeartbeatRequest, HeartbeatResponse,
    JoinGroupRequest, JoinGroupResponse, LeaveGroupRequest, LeaveGroupResponse, OffsetCommitRequest,
    OffsetCommitResponse, OffsetFetchRequest, OffsetFetchResponse, SyncGroupRequest, SyncGroupResponse, TopicName,
};
use kafka_protocol::protocol::{Decodable, Encodable, StrBytes};

use crate::broker::{
    FetchedOffset, GroupAnswer, GroupError, Joined, Lease, MemberAssignment, MemberMetadata, OffsetAndMetadata,
};
use crate::record::TopicPartition;

/// Members of other types cannot be in the same group.
const PROTOCOL_TYPE: &str = "consumer";
/// The assignor's name: what Kafka's tools show, and what keeps members of other programs out.
pub(super) const PROTOCOL: &str = "headwater";
/// Versions of the embedded forms that are written; what is read may be newer.
const SUBSCRIPTION: i16 = 1;
const ASSIGNMENT: i16 = 1;
/// The newest form that can be read.
const NEWEST_FORM: i16 = 3;

/// What the coordinator made of a request.
#[derive(Debug, PartialEq)]
pub(super) enum Verdict {
    /// It is answered.
    Done(GroupAnswer),
    /// Refused for good.
    Refused(GroupError),
    /// Not now or not here (codes 7, 14, 15, 16): ask again, after finding the coordinator anew.
    Later(i16),
}

/// The verdict of a code that is not 0.
pub(super) fn refuse(code: i16) -> Verdict {
    Verdict::Refused(match code {
        7 | 14 | 15 | 16 => return Verdict::Later(code),
        22 => GroupError::IllegalGeneration,
        23 => GroupError::InconsistentProtocol,
        25 => GroupError::UnknownMember,
        26 => GroupError::InvalidSessionTimeout,
        27 => GroupError::RebalanceInProgress,
        30 => GroupError::NotAuthorised,
        81 => GroupError::GroupFull,
        82 => GroupError::FencedInstance,
        88 => GroupError::UnstableOffsets,
        other => GroupError::Other(other),
    })
}

/// `Done`, unless one of the codes is an error.
fn done(codes: impl IntoIterator<Item = i16>) -> Verdict {
    match codes.into_iter().find(|&code| code != 0) {
        Some(code) => refuse(code),
        None => Verdict::Done(GroupAnswer::Done),
    }
}

fn text(text: &str) -> StrBytes {
    StrBytes::from_string(text.to_owned())
}

fn group_id(group: &str) -> GroupId {
    GroupId(text(group))
}

/// A form with its version in front. Only bytes that a form cannot hold (2 GiB) make it fail.
fn versioned(form: &impl Encodable, version: i16) -> Result<Vec<u8>, GroupError> {
    let mut bytes = version.to_be_bytes().to_vec();
    form.encode(&mut bytes, version)
        .map_err(|error| GroupError::Unavailable(format!("a group message cannot be written: {error}")))?;
    Ok(bytes)
}

/// The form behind its version; `None` where it cannot be read.
fn read_versioned<F: Decodable>(bytes: &[u8]) -> Option<F> {
    let (version, mut form) = bytes.split_first_chunk()?;
    F::decode(&mut form, i16::from_be_bytes(*version).min(NEWEST_FORM)).ok()
}

/// What a member says about itself.
#[derive(Clone, Copy, Debug)]
pub(super) struct Membership<'a> {
    pub(super) member_id: &'a str,
    pub(super) instance_id: Option<&'a str>,
    pub(super) session_timeout_ms: i32,
    pub(super) rebalance_timeout_ms: i32,
    pub(super) topics: &'a [String],
    pub(super) user_data: &'a [u8],
}

pub(super) fn join(group: &str, member: Membership<'_>) -> Result<JoinGroupRequest, GroupError> {
    let subscription = ConsumerProtocolSubscription::default()
        .with_topics(member.topics.iter().map(|topic| text(topic)).collect())
        .with_user_data(Some(member.user_data.to_vec().into()));
    let protocol = JoinGroupRequestProtocol::default()
        .with_name(StrBytes::from_static_str(PROTOCOL))
        .with_metadata(versioned(&subscription, SUBSCRIPTION)?.into());
    Ok(JoinGroupRequest::default()
        .with_group_id(group_id(group))
        .with_session_timeout_ms(member.session_timeout_ms)
        .with_rebalance_timeout_ms(member.rebalance_timeout_ms)
        .with_member_id(text(member.member_id))
        .with_group_instance_id(member.instance_id.map(text))
        .with_protocol_type(StrBytes::from_static_str(PROTOCOL_TYPE))
        .with_protocols(vec![protocol]))
}

pub(super) fn joined(answer: &JoinGroupResponse) -> Verdict {
    match answer.error_code {
        0 => {}
        79 => return Verdict::Refused(GroupError::MemberIdRequired(answer.member_id.to_string())),
        code => return refuse(code),
    }
    // A group of the newer consumer protocol lets a classic member in, without a leader and without members.
    let leads = answer.leader == answer.member_id;
    let ours = answer.protocol_name.as_deref() == Some(PROTOCOL);
    if !ours || answer.leader.is_empty() || (leads && answer.members.is_empty() && !answer.skip_assignment) {
        return Verdict::Refused(GroupError::InconsistentProtocol);
    }
    let mut members = Vec::with_capacity(answer.members.len());
    for member in &answer.members {
        let Some(subscription) = read_versioned::<ConsumerProtocolSubscription>(&member.metadata) else {
            return Verdict::Refused(GroupError::InconsistentProtocol);
        };
        members.push(MemberMetadata {
            member_id: member.member_id.to_string(),
            instance_id: member.group_instance_id.as_ref().map(ToString::to_string),
            user_data: subscription.user_data.map_or_else(Vec::new, |data| data.to_vec()),
        });
    }
    Verdict::Done(GroupAnswer::Joined(Joined {
        generation: answer.generation_id,
        member_id: answer.member_id.to_string(),
        leader_id: answer.leader.to_string(),
        members,
        skip_assignment: answer.skip_assignment,
    }))
}

pub(super) fn sync(
    group: &str,
    lease: &Lease,
    assignments: &[MemberAssignment],
) -> Result<SyncGroupRequest, GroupError> {
    let assignments = assignments
        .iter()
        .map(|assignment| {
            let topics = by_topic(&assignment.partitions, |partition| partition)
                .into_iter()
                .map(|(topic, partitions)| {
                    AssignedTopic::default()
                        .with_topic(TopicName(text(topic)))
                        .with_partitions(partitions.iter().map(|partition| partition.partition).collect())
                })
                .collect();
            let form = ConsumerProtocolAssignment::default()
                .with_assigned_partitions(topics)
                .with_user_data(Some(assignment.user_data.clone().into()));
            Ok(SyncGroupRequestAssignment::default()
                .with_member_id(text(&assignment.member_id))
                .with_assignment(versioned(&form, ASSIGNMENT)?.into()))
        })
        .collect::<Result<Vec<_>, GroupError>>()?;
    Ok(SyncGroupRequest::default()
        .with_group_id(group_id(group))
        .with_generation_id(lease.generation)
        .with_member_id(text(&lease.member_id))
        .with_group_instance_id(lease.instance_id.as_deref().map(text))
        .with_protocol_type(Some(StrBytes::from_static_str(PROTOCOL_TYPE)))
        .with_protocol_name(Some(StrBytes::from_static_str(PROTOCOL)))
        .with_assignments(assignments))
}

pub(super) fn synced(answer: &SyncGroupResponse) -> Verdict {
    if answer.error_code != 0 {
        return refuse(answer.error_code);
    }
    // Our leader gives every member user data. Where there is none, somebody else made the assignment.
    read_versioned::<ConsumerProtocolAssignment>(&answer.assignment)
        .and_then(|assignment| assignment.user_data)
        .filter(|data| !data.is_empty())
        .map_or(Verdict::Refused(GroupError::InconsistentProtocol), |data| {
            Verdict::Done(GroupAnswer::Synced(data.to_vec()))
        })
}

pub(super) fn heartbeat(group: &str, lease: &Lease) -> HeartbeatRequest {
    HeartbeatRequest::default()
        .with_group_id(group_id(group))
        .with_generation_id(lease.generation)
        .with_member_id(text(&lease.member_id))
        .with_group_instance_id(lease.instance_id.as_deref().map(text))
}

pub(super) fn alive(answer: &HeartbeatResponse) -> Verdict {
    done([answer.error_code])
}

pub(super) fn leave(group: &str, member_id: &str, instance_id: Option<&str>) -> LeaveGroupRequest {
    LeaveGroupRequest::default().with_group_id(group_id(group)).with_members(vec![
        MemberIdentity::default().with_member_id(text(member_id)).with_group_instance_id(instance_id.map(text)),
    ])
}

pub(super) fn left(answer: &LeaveGroupResponse) -> Verdict {
    done(std::iter::once(answer.error_code).chain(answer.members.iter().map(|member| member.error_code)))
}

pub(super) fn commit(
    group: &str,
    lease: &Lease,
    offsets: &[(TopicPartition, OffsetAndMetadata)],
) -> OffsetCommitRequest {
    let topics = by_topic(offsets, |(partition, _)| partition)
        .into_iter()
        .map(|(topic, offsets)| {
            let partitions = offsets
                .iter()
                .map(|(partition, committed)| {
                    OffsetCommitRequestPartition::default()
                        .with_partition_index(partition.partition)
                        .with_committed_offset(committed.offset)
                        .with_committed_metadata(Some(text(&committed.metadata)))
                })
                .collect();
            OffsetCommitRequestTopic::default().with_name(TopicName(text(topic))).with_partitions(partitions)
        })
        .collect();
    OffsetCommitRequest::default()
        .with_group_id(group_id(group))
        .with_generation_id_or_member_epoch(lease.generation)
        .with_member_id(text(&lease.member_id))
        .with_group_instance_id(lease.instance_id.as_deref().map(text))
        .with_topics(topics)
}

pub(super) fn committed(answer: &OffsetCommitResponse) -> Verdict {
    done(answer.topics.iter().flat_map(|topic| topic.partitions.iter().map(|partition| partition.error_code)))
}

pub(super) fn fetch(group: &str, partitions: &[TopicPartition]) -> OffsetFetchRequest {
    let topics = by_topic(partitions, |partition| partition)
        .into_iter()
        .map(|(topic, partitions)| {
            OffsetFetchRequestTopics::default()
                .with_name(TopicName(text(topic)))
                .with_partition_indexes(partitions.iter().map(|partition| partition.partition).collect())
        })
        .collect();
    OffsetFetchRequest::default()
        .with_topics(Some(Vec::new()))
        .with_groups(vec![OffsetFetchRequestGroup::default().with_group_id(group_id(group)).with_topics(Some(topics))])
        .with_require_stable(true)
}

pub(super) fn fetched(answer: &OffsetFetchResponse, asked: &[TopicPartition]) -> Verdict {
    let mut offsets = HashMap::new();
    for group in &answer.groups {
        if group.error_code != 0 {
            return refuse(group.error_code);
        }
        for topic in &group.topics {
            for partition in &topic.partitions {
                if partition.error_code != 0 {
                    return refuse(partition.error_code);
                }
                offsets.insert(
                    (topic.name.as_str(), partition.partition_index),
                    (partition.committed_offset >= 0).then(|| OffsetAndMetadata {
                        offset: partition.committed_offset,
                        metadata: partition.metadata.as_deref().unwrap_or_default().to_owned(),
                    }),
                );
            }
        }
    }
    let mut found: Vec<FetchedOffset> = Vec::with_capacity(asked.len());
    for partition in asked {
        let Some(offset) = offsets.remove(&(&*partition.topic, partition.partition)) else {
            return Verdict::Refused(GroupError::Unavailable(format!("the answer leaves out {partition}")));
        };
        found.push((partition.clone(), offset));
    }
    Verdict::Done(GroupAnswer::Offsets(found))
}

/// Entries by their topic, which is how Kafka's messages want them.
fn by_topic<'a, E>(entries: &'a [E], partition: impl Fn(&'a E) -> &'a TopicPartition) -> BTreeMap<&'a str, Vec<&'a E>> {
    let mut topics: BTreeMap<&str, Vec<&E>> = BTreeMap::new();
    for entry in entries {
        topics.entry(&partition(entry).topic).or_default().push(entry);
    }
    topics
}

#[cfg(test)]
#[path = "protocol_tests.rs"]
mod tests;
