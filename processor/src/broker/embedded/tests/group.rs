//! Membership of a stable group: ids, heartbeats, offsets, static members.

use super::*;
use crate::broker::embedded::GroupState;

#[test]
fn a_dynamic_newcomer_is_told_its_id_first() {
    let (broker, _) = broker_with_topic();
    let mut peer = Peer::new(&broker, "a");
    peer.ask_id();
    assert!(peer.woken());
    assert_eq!(broker.group("g"), (GroupState::Empty, 0));
    let joined = peer.join();
    assert_eq!((joined.generation, joined.leader_id), (1, peer.lease.member_id.clone()));
    assert_eq!(joined.members.len(), 1);
    assert_eq!(joined.members[0].user_data, b"a");
    assert!(!joined.skip_assignment);
    assert_eq!(broker.group("g"), (GroupState::CompletingRebalance, 1));
    peer.start_sync(&[&joined.member_id]);
    assert_eq!(peer.synced(), Ok(GroupAnswer::Synced(joined.member_id.into())));
    assert_eq!(broker.group("g"), (GroupState::Stable, 1));
}

#[test]
fn an_id_nobody_gave_is_unknown() {
    let (broker, _) = broker_with_topic();
    let _first = group_of_one(&broker);
    let mut peer = Peer::new(&broker, "b");
    peer.lease.member_id = "invented".into();
    let ticket = peer.start_join();
    assert_eq!(peer.line.answer(), Some((ticket, Err(GroupError::UnknownMember))));
    assert_eq!(peer.heartbeat(), Err(GroupError::UnknownMember));
    assert_eq!(peer.leave(), Err(GroupError::UnknownMember));
    peer.start_sync(&[]);
    assert_eq!(peer.synced(), Err(GroupError::UnknownMember));
}

#[test]
fn heartbeats_are_checked_by_member_and_generation() {
    let (broker, _) = broker_with_topic();
    let mut peer = group_of_one(&broker);
    assert_eq!(peer.heartbeat(), Ok(GroupAnswer::Done));
    peer.lease.generation += 1;
    assert_eq!(peer.heartbeat(), Err(GroupError::IllegalGeneration));
    peer.start_sync(&[]);
    assert_eq!(peer.synced(), Err(GroupError::IllegalGeneration));
}

#[test]
fn a_session_timeout_outside_the_limits_is_refused() {
    let (broker, _) = broker_with_topic();
    let mut peer = Peer::new(&broker, "a");
    for session_timeout_ms in [0, 1_800_001] {
        let answer = peer.ask(GroupRequest::Join {
            member_id: String::new(),
            instance_id: None,
            session_timeout_ms,
            rebalance_timeout_ms: 1,
            topics: Vec::new(),
            user_data: Vec::new(),
        });
        assert_eq!(answer, Err(GroupError::InvalidSessionTimeout));
    }
}

#[test]
fn offsets_are_kept_with_their_metadata_and_outlive_the_members() {
    let (broker, _) = broker_with_topic();
    let mut peer = group_of_one(&broker);
    assert_eq!(peer.fetch_offset(), Ok(None));
    assert_eq!(peer.commit(5), Ok(GroupAnswer::Done));
    peer.leave().unwrap();
    assert_eq!(broker.group("g"), (GroupState::Empty, 2));
    assert_eq!(Peer::new(&broker, "z").fetch_offset(), Ok(Some(5)));
    assert_eq!(broker.committed("g", &at(0)), Some(position(5)));
}

#[test]
fn offsets_of_a_stale_generation_or_of_an_unknown_or_departed_member_are_refused() {
    let (broker, _) = broker_with_topic();
    let mut peer = group_of_one(&broker);
    let current = peer.lease.clone();
    peer.lease.generation -= 1;
    assert_eq!(peer.commit(1), Err(GroupError::IllegalGeneration));
    peer.lease.member_id = "nobody".into();
    peer.lease.generation = current.generation;
    assert_eq!(peer.commit(1), Err(GroupError::UnknownMember));
    peer.lease = current;
    peer.leave().unwrap();
    assert_eq!(peer.commit(1), Err(GroupError::UnknownMember));
    let mut stranger = Peer { line: broker.coordinator("new", Waker::new()).unwrap(), ..peer };
    assert_eq!(stranger.commit(1), Err(GroupError::IllegalGeneration));
    assert_eq!(broker.committed("g", &at(0)), None);
}

#[test]
fn without_membership_offsets_are_accepted_in_an_empty_group_only() {
    let (broker, _) = broker_with_topic();
    let mut tool = Peer::new(&broker, "tool");
    assert_eq!(tool.commit(4), Ok(GroupAnswer::Done));
    let mut peer = group_of_one(&broker);
    assert_eq!(tool.commit(5), Err(GroupError::UnknownMember));
    assert_eq!(peer.fetch_offset(), Ok(Some(4)));
}

#[test]
fn a_static_member_comes_back_to_its_assignment_without_a_rebalance() {
    let (broker, _) = broker_with_topic();
    let mut leader = group_of_one(&broker);
    let mut old = Peer::with_instance(&broker, "one");
    old.start_join();
    leader.start_join();
    settle(&mut leader, &mut old);
    let generation = old.lease.generation;

    let mut new = Peer::with_instance(&broker, "one");
    let joined = new.join();
    assert_eq!(joined.generation, generation);
    assert_ne!(joined.member_id, old.lease.member_id);
    assert_eq!((joined.leader_id, joined.members.len()), (leader.lease.member_id.clone(), 0));
    assert!(!joined.skip_assignment);
    new.start_sync(&[]);
    let assignment = old.lease.member_id.clone();
    assert_eq!(new.synced(), Ok(GroupAnswer::Synced(assignment.into())));
    assert_eq!(leader.heartbeat(), Ok(GroupAnswer::Done));
    assert_eq!(broker.group("g"), (GroupState::Stable, generation));

    assert_eq!(old.heartbeat(), Err(GroupError::FencedInstance));
    assert_eq!(old.commit(1), Err(GroupError::FencedInstance));
    assert_eq!(old.leave(), Err(GroupError::FencedInstance));
    old.start_sync(&[]);
    assert_eq!(old.synced(), Err(GroupError::FencedInstance));
    let ticket = old.start_join();
    assert_eq!(old.line.answer(), Some((ticket, Err(GroupError::FencedInstance))));
    assert_eq!(new.commit(1), Ok(GroupAnswer::Done));
}

#[test]
fn a_static_leader_comes_back_and_is_told_to_bring_no_assignment() {
    let (broker, _) = broker_with_topic();
    let mut old = Peer::with_instance(&broker, "one");
    let id = old.join().member_id;
    old.start_sync(&[&id]);
    let mut new = Peer::with_instance(&broker, "one");
    let joined = new.join();
    assert!(joined.skip_assignment);
    assert_eq!((joined.generation, joined.members.len()), (1, 1));
    assert_eq!(joined.leader_id, joined.member_id);
    new.start_sync(&[]);
    assert_eq!(new.synced(), Ok(GroupAnswer::Synced(id.into())));
    assert_eq!(broker.group("g"), (GroupState::Stable, 1));
}

#[test]
fn a_static_member_that_stays_away_is_dropped_after_its_session() {
    let (broker, clock) = broker_with_topic();
    let mut peer = Peer::with_instance(&broker, "one");
    let id = peer.join().member_id;
    peer.start_sync(&[&id]);
    drop(peer);
    clock.advance(5_999);
    assert_eq!(broker.group("g").0, GroupState::Stable);
    clock.advance(1);
    assert_eq!(broker.group("g").0, GroupState::Empty);
}

#[test]
fn a_follower_that_joins_again_unchanged_is_answered_at_once() {
    let (broker, _) = broker_with_topic();
    let (mut first, mut second) = group_of_two(&broker);
    let generation = second.lease.generation;
    let joined = second.join();
    assert_eq!((joined.generation, joined.members.len()), (generation, 0));
    assert_eq!(broker.group("g"), (GroupState::Stable, generation));
    second.start_sync(&[]);
    assert!(second.synced().is_ok());
    assert_eq!(first.heartbeat(), Ok(GroupAnswer::Done));
}

#[test]
fn a_follower_with_new_metadata_and_a_leader_with_the_same_force_a_rebalance() {
    let (broker, _) = broker_with_topic();
    let (mut first, mut second) = group_of_two(&broker);
    second.user_data = b"changed".to_vec();
    second.start_join();
    assert_eq!(second.line.answer(), None);
    assert_eq!(first.heartbeat(), Err(GroupError::RebalanceInProgress));
    first.start_join();
    let seen: Vec<_> = first.joined().members.into_iter().map(|member| member.user_data).collect();
    assert_eq!(seen, [b"a".to_vec(), b"changed".to_vec()]);
    second.joined();
    let (one, two) = (first.lease.member_id.clone(), second.lease.member_id.clone());
    first.start_sync(&[&one, &two]);
    first.synced().unwrap();
    second.start_sync(&[]);
    second.synced().unwrap();

    first.start_join();
    assert_eq!(first.line.answer(), None);
    assert_eq!(second.heartbeat(), Err(GroupError::RebalanceInProgress));
}
