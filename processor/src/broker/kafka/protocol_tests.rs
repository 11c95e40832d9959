use kafka_protocol::messages::join_group_response::JoinGroupResponseMember;
use kafka_protocol::messages::leave_group_response::MemberResponse;
use kafka_protocol::messages::offset_commit_response::{OffsetCommitResponsePartition, OffsetCommitResponseTopic};
use kafka_protocol::messages::offset_fetch_response::{
    OffsetFetchResponseGroup, OffsetFetchResponsePartitions, OffsetFetchResponseTopics,
};

use super::*;

fn lease() -> Lease {
    Lease { member_id: "m-1".into(), generation: 4, instance_id: None }
}

fn refused(verdict: Verdict) -> GroupError {
    match verdict {
        Verdict::Refused(error) => error,
        other => panic!("{other:?} is no refusal"),
    }
}

#[test]
fn a_subscription_has_kafkas_standard_bytes() {
    let request = join(
        "g",
        Membership {
            member_id: "",
            instance_id: Some("host-1"),
            session_timeout_ms: 6000,
            rebalance_timeout_ms: 9000,
            topics: &["in".into()],
            user_data: b"\x01\x02",
        },
    )
    .unwrap();
    assert_eq!(request.protocol_type.as_str(), "consumer");
    assert_eq!(request.group_instance_id.as_deref(), Some("host-1"));
    let [protocol] = &request.protocols[..] else {
        panic!("one protocol is offered");
    };
    assert_eq!(protocol.name.as_str(), "headwater");
    // Version 1; one topic "in"; two bytes of user data; no owned partitions.
    let expected = b"\x00\x01\x00\x00\x00\x01\x00\x02in\x00\x00\x00\x02\x01\x02\x00\x00\x00\x00";
    assert_eq!(protocol.metadata[..], expected[..]);
}

#[test]
fn an_assignment_has_kafkas_standard_bytes_and_comes_back() {
    let assignment = MemberAssignment {
        member_id: "m-2".into(),
        partitions: vec![TopicPartition::new("b", 3), TopicPartition::new("a", 0), TopicPartition::new("b", 1)],
        user_data: b"tasks".to_vec(),
    };
    let request = sync("g", &lease(), &[assignment]).unwrap();
    let [sent] = &request.assignments[..] else {
        panic!("one member is assigned");
    };
    let expected = b"\x00\x01\x00\x00\x00\x02\
        \x00\x01a\x00\x00\x00\x01\x00\x00\x00\x00\
        \x00\x01b\x00\x00\x00\x02\x00\x00\x00\x03\x00\x00\x00\x01\
        \x00\x00\x00\x05tasks";
    assert_eq!(sent.assignment[..], expected[..]);
    let answer = SyncGroupResponse::default().with_assignment(sent.assignment.clone());
    assert_eq!(synced(&answer), Verdict::Done(GroupAnswer::Synced(b"tasks".to_vec())));
}

#[test]
fn an_assignment_without_our_data_belongs_to_another_protocol() {
    let foreign = ConsumerProtocolAssignment::default();
    for bytes in [Vec::new(), vec![0], versioned(&foreign, 1).unwrap()] {
        let answer = SyncGroupResponse::default().with_assignment(bytes.into());
        assert_eq!(refused(synced(&answer)), GroupError::InconsistentProtocol);
    }
}

fn join_answer() -> JoinGroupResponse {
    let metadata =
        versioned(&ConsumerProtocolSubscription::default().with_user_data(Some(b"who".to_vec().into())), 3).unwrap();
    JoinGroupResponse::default()
        .with_generation_id(4)
        .with_protocol_name(Some("headwater".into()))
        .with_leader("m-1".into())
        .with_member_id("m-1".into())
        .with_members(vec![
            JoinGroupResponseMember::default()
                .with_member_id("m-1".into())
                .with_group_instance_id(Some("host-1".into()))
                .with_metadata(metadata.into()),
        ])
}

#[test]
fn the_leader_learns_of_the_members() {
    let Verdict::Done(GroupAnswer::Joined(joined)) = joined(&join_answer()) else {
        panic!("joined");
    };
    assert_eq!((joined.generation, joined.leader_id.as_str()), (4, "m-1"));
    let member =
        MemberMetadata { member_id: "m-1".into(), instance_id: Some("host-1".into()), user_data: b"who".to_vec() };
    assert_eq!(joined.members, [member]);
}

#[test]
fn a_join_into_a_group_of_another_protocol_is_no_membership() {
    let no_leader = join_answer().with_leader(StrBytes::default());
    let nobody = join_answer().with_members(Vec::new());
    let stream = join_answer().with_protocol_name(Some("stream".into()));
    for answer in [no_leader, nobody.clone(), stream] {
        assert_eq!(refused(joined(&answer)), GroupError::InconsistentProtocol);
    }
    // A follower gets no list, and a static leader that comes back none that it needs.
    for answer in [nobody.clone().with_leader("m-2".into()), nobody.with_skip_assignment(true)] {
        assert!(matches!(joined(&answer), Verdict::Done(_)), "{answer:?}");
    }
}

#[test]
fn codes_say_whether_to_ask_again() {
    for code in [7, 14, 15, 16] {
        assert_eq!(refuse(code), Verdict::Later(code));
    }
    let cases = [
        (22, GroupError::IllegalGeneration),
        (23, GroupError::InconsistentProtocol),
        (25, GroupError::UnknownMember),
        (26, GroupError::InvalidSessionTimeout),
        (27, GroupError::RebalanceInProgress),
        (30, GroupError::NotAuthorised),
        (81, GroupError::GroupFull),
        (82, GroupError::FencedInstance),
        (88, GroupError::UnstableOffsets),
        (-1, GroupError::Other(-1)),
    ];
    for (code, error) in cases {
        assert_eq!(refused(refuse(code)), error);
    }
    let named = JoinGroupResponse::default().with_error_code(79).with_member_id("m-9".into());
    assert_eq!(refused(joined(&named)), GroupError::MemberIdRequired("m-9".into()));
}

#[test]
fn the_code_of_every_partition_counts() {
    let partition = |code| OffsetCommitResponsePartition::default().with_error_code(code);
    let answer = OffsetCommitResponse::default().with_topics(vec![
        OffsetCommitResponseTopic::default().with_partitions(vec![partition(0)]),
        OffsetCommitResponseTopic::default().with_partitions(vec![partition(0), partition(22)]),
    ]);
    assert_eq!(refused(committed(&answer)), GroupError::IllegalGeneration);

    let answer = LeaveGroupResponse::default().with_members(vec![MemberResponse::default().with_error_code(25)]);
    assert_eq!(refused(left(&answer)), GroupError::UnknownMember);
}

#[test]
fn fetched_offsets_come_in_the_order_asked() {
    let partition = |index, offset, code| {
        OffsetFetchResponsePartitions::default()
            .with_partition_index(index)
            .with_committed_offset(offset)
            .with_metadata(Some("AQ==".into()))
            .with_error_code(code)
    };
    let answer = |partitions| {
        OffsetFetchResponse::default().with_groups(vec![OffsetFetchResponseGroup::default().with_topics(vec![
            OffsetFetchResponseTopics::default().with_name(TopicName("t".into())).with_partitions(partitions),
        ])])
    };
    let asked = [TopicPartition::new("t", 1), TopicPartition::new("t", 0)];
    let committed = OffsetAndMetadata { offset: 12, metadata: "AQ==".into() };
    assert_eq!(
        fetched(&answer(vec![partition(0, 12, 0), partition(1, -1, 0)]), &asked),
        Verdict::Done(GroupAnswer::Offsets(vec![(asked[0].clone(), None), (asked[1].clone(), Some(committed)),]))
    );
    let unstable = answer(vec![partition(0, 12, 0), partition(1, -1, 88)]);
    assert_eq!(refused(fetched(&unstable, &asked)), GroupError::UnstableOffsets);
    let short = answer(vec![partition(0, 12, 0)]);
    assert!(matches!(refused(fetched(&short, &asked)), GroupError::Unavailable(text) if text.contains("t-1")));
}

#[test]
fn offsets_are_asked_for_stable() {
    let request = fetch("g", &[TopicPartition::new("t", 1)]);
    assert!(request.require_stable);
    let mut bytes = Vec::new();
    request.encode(&mut bytes, 9).unwrap();
    assert!(!bytes.is_empty());
}
