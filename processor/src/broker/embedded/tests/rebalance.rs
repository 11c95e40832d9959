//! Rounds: who waits for whom, and what ends the waiting.

use super::*;
use crate::broker::embedded::GroupState;

#[test]
fn a_parked_join_is_answered_when_all_have_joined() {
    let (broker, _) = broker_with_topic();
    let mut first = group_of_one(&broker);
    let mut second = Peer::new(&broker, "b");
    second.ask_id();
    second.woken();
    let ticket = second.start_join();
    assert!(!second.woken());
    assert_eq!(first.heartbeat(), Err(GroupError::RebalanceInProgress));
    first.start_join();
    assert!(second.woken());
    let joined = first.joined();
    let ids: Vec<_> = joined.members.iter().map(|member| member.member_id.clone()).collect();
    assert_eq!(ids, [first.lease.member_id.clone(), second.lease.member_id.clone()]);
    assert_eq!((joined.generation, &joined.leader_id), (2, &first.lease.member_id));
    match second.line.answer() {
        Some((answered, Ok(GroupAnswer::Joined(joined)))) => {
            assert_eq!((answered, joined.members.len(), joined.generation), (ticket, 0, 2));
        }
        other => panic!("{other:?}"),
    }
}

#[test]
fn heartbeats_pass_a_parked_join_on_the_same_line() {
    let (broker, _) = broker_with_topic();
    let (mut first, _second) = group_of_two(&broker);
    first.start_join();
    assert_eq!(first.heartbeat(), Err(GroupError::RebalanceInProgress));
    assert_eq!(first.line.answer(), None);
}

#[test]
fn sync_waits_for_the_leader() {
    let (broker, _) = broker_with_topic();
    let (mut first, mut second) = group_of_two(&broker);
    second.user_data.push(1);
    second.start_join();
    first.start_join();
    first.joined();
    second.joined();
    second.woken();
    second.start_sync(&[]);
    assert_eq!(second.line.answer(), None);
    assert_eq!(second.heartbeat(), Ok(GroupAnswer::Done));
    second.woken();
    let id = second.lease.member_id.clone();
    first.start_sync(&[&id]);
    assert!(second.woken());
    assert_eq!(second.synced(), Ok(GroupAnswer::Synced(id.into())));
    // The leader forgot itself: an empty assignment.
    assert_eq!(first.synced(), Ok(GroupAnswer::Synced(Vec::new())));
}

#[test]
fn a_newcomer_during_the_sync_sends_everybody_back_to_join() {
    let (broker, _) = broker_with_topic();
    let (mut first, mut second) = group_of_two(&broker);
    first.start_join();
    second.start_join();
    first.joined();
    second.joined();
    second.start_sync(&[]);
    let mut third = Peer::new(&broker, "c");
    third.ask_id();
    third.start_join();
    assert_eq!(second.synced(), Err(GroupError::RebalanceInProgress));
    first.start_sync(&[]);
    assert_eq!(first.synced(), Err(GroupError::RebalanceInProgress));
    assert_eq!(broker.group("g").0, GroupState::PreparingRebalance);
}

#[test]
fn a_join_repeated_before_the_sync_is_answered_at_once() {
    let (broker, _) = broker_with_topic();
    let mut peer = Peer::new(&broker, "a");
    let first = peer.join();
    assert_eq!(peer.join(), first);
    peer.user_data = b"other".to_vec();
    let again = peer.join();
    assert_eq!(again.generation, first.generation + 1);
}

#[test]
fn a_join_that_replaces_a_parked_one_answers_the_earlier() {
    let (broker, _) = broker_with_topic();
    let (mut first, mut second) = group_of_two(&broker);
    let earlier = first.start_join();
    let later = first.start_join();
    assert!(matches!(first.line.answer(), Some((ticket, Err(GroupError::Unavailable(_)))) if ticket == earlier));
    second.start_join();
    assert!(matches!(first.line.answer(), Some((ticket, Ok(GroupAnswer::Joined(_)))) if ticket == later));
}

#[test]
fn offsets_may_be_committed_until_all_have_joined_and_again_after_the_sync() {
    let (broker, _) = broker_with_topic();
    let (mut first, mut second) = group_of_two(&broker);
    first.start_join();
    assert_eq!(second.commit(1), Ok(GroupAnswer::Done));
    let old = second.lease.clone();
    second.start_join();
    first.joined();
    second.joined();
    assert_eq!(second.commit(2), Err(GroupError::RebalanceInProgress));
    let new = std::mem::replace(&mut second.lease, old);
    assert_eq!(second.commit(2), Err(GroupError::IllegalGeneration));
    second.lease = new;
    let ids = [first.lease.member_id.clone(), second.lease.member_id.clone()];
    first.start_sync(&[&ids[0], &ids[1]]);
    assert_eq!(second.commit(3), Ok(GroupAnswer::Done));
    assert_eq!(second.fetch_offset(), Ok(Some(3)));
}

#[test]
fn a_silent_member_is_dropped_after_its_session_and_the_rest_rebalances() {
    let (broker, clock) = broker_with_topic();
    let (mut first, mut second) = group_of_two(&broker);
    clock.advance(4_000);
    assert!(second.heartbeat().is_ok());
    assert_eq!(broker.next_deadline(), Some(7_000));
    clock.advance(1_999);
    assert!(second.heartbeat().is_ok());
    clock.advance(1);
    assert_eq!(second.heartbeat(), Err(GroupError::RebalanceInProgress));
    assert_eq!(first.heartbeat(), Err(GroupError::UnknownMember));
    let joined = second.join();
    // The leader is gone: the next member leads.
    assert_eq!((joined.leader_id, joined.members.len()), (second.lease.member_id.clone(), 1));
}

#[test]
fn a_member_that_does_not_rejoin_is_dropped_after_the_rebalance_timeout() {
    let (broker, clock) = broker_with_topic();
    let (mut first, mut second) = group_of_two(&broker);
    second.user_data.push(1);
    second.start_join();
    second.woken();
    for _ in 0..5 {
        clock.advance(5_000);
        assert_eq!(first.heartbeat(), Err(GroupError::RebalanceInProgress));
    }
    clock.advance(4_999);
    broker.tick();
    assert!(!second.woken());
    clock.advance(1);
    broker.tick();
    assert!(second.woken());
    let joined = second.joined();
    assert_eq!((joined.leader_id, joined.members.len()), (joined.member_id, 1));
    assert_eq!(first.heartbeat(), Err(GroupError::UnknownMember));
}

#[test]
fn a_parked_member_needs_no_heartbeats() {
    let (broker, clock) = broker_with_topic();
    let (mut first, mut second) = group_of_two(&broker);
    second.user_data.push(1);
    second.start_join();
    for _ in 0..4 {
        clock.advance(5_000);
        assert_eq!(first.heartbeat(), Err(GroupError::RebalanceInProgress));
    }
    first.start_join();
    settle(&mut first, &mut second);
    // Its session starts with the answer.
    clock.advance(5_999);
    assert!(second.heartbeat().is_ok());
}

#[test]
fn a_member_that_never_syncs_is_dropped_after_the_rebalance_timeout() {
    let (broker, clock) = broker_with_topic();
    let (mut first, mut second) = group_of_two(&broker);
    second.user_data.push(1);
    second.start_join();
    first.start_join();
    first.joined();
    second.joined();
    let id = first.lease.member_id.clone();
    first.start_sync(&[&id]);
    first.synced().unwrap();
    for _ in 0..5 {
        clock.advance(5_000);
        assert!(first.heartbeat().is_ok());
        assert!(second.heartbeat().is_ok());
    }
    clock.advance(5_000);
    assert_eq!(first.heartbeat(), Err(GroupError::RebalanceInProgress));
    assert_eq!(second.heartbeat(), Err(GroupError::UnknownMember));
    assert_eq!(first.join().members.len(), 1);
}

#[test]
fn a_newcomer_that_does_not_come_back_with_its_id_holds_a_round_for_its_session_only() {
    let (broker, clock) = broker_with_topic();
    let mut first = group_of_one(&broker);
    Peer::new(&broker, "b").ask_id();
    first.woken();
    first.start_join();
    assert_eq!(first.line.answer(), None);
    clock.advance(6_000);
    broker.tick();
    assert!(first.woken());
    assert_eq!(first.joined().members.len(), 1);
}

#[test]
fn leaving_starts_a_rebalance_and_takes_the_parked_requests_along() {
    let (broker, _) = broker_with_topic();
    let (mut first, mut second) = group_of_two(&broker);
    let ticket = first.start_join();
    let left = first.line.request(GroupRequest::Leave { member_id: first.lease.member_id.clone(), instance_id: None });
    assert_eq!(first.line.answer(), Some((ticket, Err(GroupError::UnknownMember))));
    assert_eq!(first.line.answer(), Some((left, Ok(GroupAnswer::Done))));
    assert_eq!(second.heartbeat(), Err(GroupError::RebalanceInProgress));
    assert_eq!(second.join().leader_id, second.lease.member_id);
}

#[test]
fn a_static_member_that_returns_while_its_old_self_is_parked_fences_it() {
    let (broker, _) = broker_with_topic();
    let mut leader = group_of_one(&broker);
    let mut old = Peer::with_instance(&broker, "one");
    let ticket = old.start_join();
    let mut new = Peer::with_instance(&broker, "one");
    new.start_join();
    assert_eq!(old.line.answer(), Some((ticket, Err(GroupError::FencedInstance))));
    leader.start_join();
    settle(&mut leader, &mut new);
}

#[test]
fn a_silent_static_member_keeps_its_place_past_the_rebalance_timeout() {
    let (broker, clock) = broker_with_topic();
    let mut leader = Peer::with_instance(&broker, "one");
    let id = leader.join().member_id;
    leader.start_sync(&[&id]);
    leader.synced().unwrap();
    let mut second = Peer::new(&broker, "b");
    second.ask_id();
    second.start_join();
    for _ in 0..6 {
        clock.advance(5_000);
        leader.lease.generation = broker.group("g").1;
        leader.ask(GroupRequest::Heartbeat { lease: leader.lease.clone() }).ok();
    }
    // The round went on without it: another leads, and it is still a member.
    let joined = second.joined();
    assert_eq!((joined.leader_id.clone(), joined.members.len()), (joined.member_id, 2));
}

#[test]
fn a_line_that_is_dropped_leaves_its_member_to_the_session_timeout() {
    let (broker, clock) = broker_with_topic();
    let (first, mut second) = group_of_two(&broker);
    drop(first);
    clock.advance(3_000);
    assert!(second.heartbeat().is_ok());
    clock.advance(3_000);
    assert_eq!(second.heartbeat(), Err(GroupError::RebalanceInProgress));
}
