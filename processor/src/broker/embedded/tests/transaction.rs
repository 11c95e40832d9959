//! Transactions: visibility, fencing, time-outs, offsets under a lease.

use super::*;

#[test]
fn an_open_transaction_holds_the_last_stable_offset() {
    let (broker, _) = broker_with_topic();
    let mut writer = Writer::transactional(&broker, "x");
    let mut other = Writer::plain(&broker);
    other.write(&["before"]);
    writer.call(TransactionCall::Begin).unwrap();
    writer.write(&["mine"]);
    other.write(&["after"]);
    assert_eq!((edge(&broker, Edge::Stable), edge(&broker, Edge::End)), (1, 3));
    let mut tail = Tail::committed(&broker);
    let batch = tail.fetch(10).unwrap();
    assert_eq!((values(batch.as_ref()), batch.next_offset(), batch.at_end()), (texts(&["before"]), 1, true));
    assert_eq!(tail.next(), None);
    let mut all = Tail::new(&broker, Isolation::ReadUncommitted, 0);
    assert_eq!(all.next(), Some((texts(&["before", "mine", "after"]), 3)));
    writer.call(TransactionCall::Commit).unwrap();
    assert_eq!((edge(&broker, Edge::Stable), edge(&broker, Edge::End)), (4, 4));
    assert_eq!(tail.next(), Some((texts(&["mine", "after"]), 4)));
    assert_eq!(all.next(), Some((vec![], 4)));
}

#[test]
fn the_oldest_of_several_transactions_holds_the_last_stable_offset() {
    let (broker, _) = broker_with_topic();
    let (mut first, mut second) = (Writer::transactional(&broker, "x"), Writer::transactional(&broker, "y"));
    for writer in [&mut first, &mut second] {
        writer.call(TransactionCall::Begin).unwrap();
        writer.write(&["v"]);
    }
    second.call(TransactionCall::Commit).unwrap();
    assert_eq!(edge(&broker, Edge::Stable), 0);
    first.call(TransactionCall::Commit).unwrap();
    assert_eq!(edge(&broker, Edge::Stable), 4);
}

#[test]
fn abort_hides_records_from_committed_readers_only() {
    let (broker, _) = broker_with_topic();
    let mut writer = Writer::transactional(&broker, "x");
    let mut other = Writer::transactional(&broker, "y");
    other.call(TransactionCall::Begin).unwrap();
    writer.call(TransactionCall::Begin).unwrap();
    writer.write(&["lost"]);
    other.write(&["kept"]);
    writer.write(&["lost too"]);
    writer.call(TransactionCall::Abort).unwrap();
    writer.transaction(&["next"], TransactionCall::Commit);
    other.call(TransactionCall::Commit).unwrap();
    assert_eq!(Tail::committed(&broker).next(), Some((texts(&["kept", "next"]), 7)));
    assert_eq!(
        Tail::new(&broker, Isolation::ReadUncommitted, 0).next(),
        Some((texts(&["lost", "kept", "lost too", "next"]), 7))
    );
    // Reading on from the middle of an aborted transaction hides the rest of it too.
    assert_eq!(Tail::new(&broker, Isolation::ReadCommitted, 2).next(), Some((texts(&["next"]), 7)));
}

#[test]
fn the_position_passes_control_and_aborted_records_at_the_end() {
    let (broker, _) = broker_with_topic();
    let mut writer = Writer::transactional(&broker, "x");
    let mut tail = Tail::committed(&broker);
    writer.transaction(&["a", "b"], TransactionCall::Commit);
    let batch = tail.fetch(2).unwrap();
    assert_eq!((batch.len(), batch.next_offset(), batch.at_end()), (2, 3, true));
    writer.transaction(&["lost"], TransactionCall::Abort);
    assert_eq!(tail.next(), Some((vec![], 5)));
    assert_eq!(tail.next(), None);
    writer.transaction(&["c"], TransactionCall::Commit);
    tail.consumer.seek(tail.slot, 0).unwrap();
    // Not at the end: the position is after the last record, before the marker.
    let batch = tail.fetch(2).unwrap();
    assert_eq!((batch.next_offset(), batch.at_end()), (2, false));
}

#[test]
fn commit_hands_over_and_abort_throws_away_what_is_gathered() {
    let (broker, _) = broker_with_topic();
    let mut writer = Writer::transactional(&broker, "x");
    writer.call(TransactionCall::Begin).unwrap();
    writer.send(0, "k", "a").unwrap();
    writer.call(TransactionCall::Commit).unwrap();
    assert_eq!((writer.producer.backlog(), edge(&broker, Edge::Stable)), (0, 2));
    assert_eq!(writer.producer.acknowledged(writer.topic, 0), Some(1));
    writer.call(TransactionCall::Begin).unwrap();
    writer.send(0, "k", "b").unwrap();
    writer.call(TransactionCall::Abort).unwrap();
    assert_eq!((writer.producer.backlog(), edge(&broker, Edge::End)), (0, 2));
    writer.producer.poll().unwrap();
    assert_eq!(edge(&broker, Edge::End), 2);
}

#[test]
fn init_aborts_what_the_predecessor_left_open_and_fences_it() {
    let (broker, _) = broker_with_topic();
    let peer = group_of_one(&broker);
    let mut old = Writer::transactional(&broker, "x");
    old.call(TransactionCall::Begin).unwrap();
    old.write(&["lost"]);
    old.send_offset(&peer.lease, 7).unwrap();
    let mut new = Writer::transactional(&broker, "x");
    assert_eq!((edge(&broker, Edge::Stable), edge(&broker, Edge::End)), (2, 2));
    assert_eq!(broker.committed("g", &at(0)), None);

    old.send(0, "k", "zombie").unwrap();
    assert_eq!(class(old.producer.poll()), ErrorClass::Fenced);
    assert_eq!(old.producer.backlog(), 0);
    assert_eq!(class(old.send(0, "k", "zombie")), ErrorClass::Fenced);
    assert_eq!(class(old.producer.poll()), ErrorClass::Fenced);
    assert_eq!(class(old.send_offset(&peer.lease, 8)), ErrorClass::Fenced);
    for call in [TransactionCall::Commit, TransactionCall::Abort, TransactionCall::Begin, TransactionCall::Init] {
        assert_eq!(class(old.call(call)), ErrorClass::Fenced);
    }
    assert_eq!(edge(&broker, Edge::End), 2);
    new.transaction(&["new"], TransactionCall::Commit);
    assert_eq!(Tail::committed(&broker).next(), Some((texts(&["new"]), 4)));
}

#[test]
fn each_call_of_a_fenced_producer_finds_out_by_itself() {
    let (broker, _) = broker_with_topic();
    let peer = group_of_one(&broker);
    for call in [
        TransactionCall::Commit,
        TransactionCall::Abort,
        TransactionCall::SendOffsets { group: "g".into(), lease: peer.lease, offsets: vec![(at(0), position(1))] },
    ] {
        let mut old = Writer::transactional(&broker, "x");
        old.call(TransactionCall::Begin).unwrap();
        old.write(&["lost"]);
        Writer::transactional(&broker, "x");
        assert_eq!(class(old.call(call)), ErrorClass::Fenced);
    }
    let mut old = Writer::transactional(&broker, "x");
    Writer::transactional(&broker, "x");
    assert_eq!(class(old.call(TransactionCall::Begin)), ErrorClass::Fenced);
}

#[test]
fn a_transaction_that_outlives_its_timeout_is_aborted_and_its_producer_fenced() {
    let (broker, clock) = broker_with_topic();
    let mut writer = Writer::transactional(&broker, "x");
    writer.call(TransactionCall::Begin).unwrap();
    clock.advance(50_000);
    // Counted from the first record, not from `Begin`.
    writer.write(&["late"]);
    assert_eq!(broker.next_deadline(), Some(61_000));
    clock.advance(9_999);
    broker.tick();
    assert_eq!(edge(&broker, Edge::Stable), 0);
    let tail = Tail::committed(&broker);
    clock.advance(1);
    broker.tick();
    assert!(tail.woken());
    assert_eq!(edge(&broker, Edge::Stable), 2);
    writer.producer.start(TransactionCall::Commit);
    let error = writer.producer.outcome().unwrap().unwrap_err();
    assert_eq!(error.class, ErrorClass::Fenced);
    assert!(error.message.contains("timeout"), "{error}");
    assert_eq!(broker.next_deadline(), None);
    let mut next = Writer::transactional(&broker, "x");
    next.transaction(&["good"], TransactionCall::Commit);
    assert_eq!(Tail::committed(&broker).next(), Some((texts(&["good"]), 4)));
}

#[test]
fn offsets_of_an_open_transaction_are_unstable_and_come_with_the_commit() {
    let (broker, _) = broker_with_topic();
    let mut peer = group_of_one(&broker);
    peer.commit(3).unwrap();
    let mut writer = Writer::transactional(&broker, "x");
    writer.call(TransactionCall::Begin).unwrap();
    writer.send_offset(&peer.lease, 8).unwrap();
    assert_eq!(peer.fetch_offset(), Err(GroupError::UnstableOffsets));
    assert_eq!(broker.committed("g", &at(0)), Some(position(3)));
    writer.call(TransactionCall::Commit).unwrap();
    assert_eq!(peer.fetch_offset(), Ok(Some(8)));
    writer.call(TransactionCall::Begin).unwrap();
    writer.send_offset(&peer.lease, 9).unwrap();
    writer.call(TransactionCall::Abort).unwrap();
    assert_eq!(peer.fetch_offset(), Ok(Some(8)));
}

#[test]
fn offsets_of_other_partitions_stay_stable() {
    let (broker, _) = broker_with_topic();
    let mut peer = group_of_one(&broker);
    let mut writer = Writer::transactional(&broker, "x");
    writer.call(TransactionCall::Begin).unwrap();
    let offsets = vec![(at(1), position(5))];
    let (group, lease) = ("g".to_owned(), peer.lease.clone());
    writer.call(TransactionCall::SendOffsets { group, lease, offsets }).unwrap();
    assert_eq!(peer.fetch_offset(), Ok(None));
}

#[test]
fn a_void_lease_makes_the_transaction_abortable_and_the_next_one_works() {
    let (broker, _) = broker_with_topic();
    let mut peer = group_of_one(&broker);
    let stale = peer.lease.clone();
    peer.join();
    peer.start_sync(&[]);
    peer.synced().unwrap();
    let unknown = Lease { member_id: "nobody".into(), ..peer.lease.clone() };
    let foreign = Lease { instance_id: Some("nowhere".into()), ..peer.lease.clone() };
    let mut writer = Writer::transactional(&broker, "x");
    for (lease, code) in [(stale, "(22)"), (unknown, "(25)"), (foreign, "(25)")] {
        writer.call(TransactionCall::Begin).unwrap();
        writer.write(&["lost"]);
        let error = writer.send_offset(&lease, 1).unwrap_err();
        assert_eq!(error.class, ErrorClass::LeaseVoid);
        assert!(error.message.contains(code), "{error}");
        assert_eq!(class(writer.call(TransactionCall::Commit)), ErrorClass::LeaseVoid);
        assert_eq!(class(writer.send(0, "k", "v")), ErrorClass::LeaseVoid);
        writer.call(TransactionCall::Abort).unwrap();
    }
    writer.call(TransactionCall::Begin).unwrap();
    writer.send_offset(&peer.lease, 1).unwrap();
    writer.call(TransactionCall::Commit).unwrap();
    assert_eq!(peer.fetch_offset(), Ok(Some(1)));
    assert_eq!(Tail::committed(&broker).next().map(|(values, _)| values), Some(vec![]));
}

#[test]
fn offsets_of_a_member_that_departed_or_of_a_group_nobody_joined_are_refused() {
    let (broker, _) = broker_with_topic();
    let mut peer = group_of_one(&broker);
    peer.leave().unwrap();
    let mut writer = Writer::transactional(&broker, "x");
    writer.call(TransactionCall::Begin).unwrap();
    let error = writer.send_offset(&peer.lease, 1).unwrap_err();
    assert!(error.message.contains("(25)"), "{error}");
    writer.call(TransactionCall::Abort).unwrap();
    writer.call(TransactionCall::Begin).unwrap();
    let error = writer
        .call(TransactionCall::SendOffsets {
            group: "other".into(),
            lease: peer.lease.clone(),
            offsets: vec![(at(0), position(1))],
        })
        .unwrap_err();
    assert!(error.message.contains("(22)"), "{error}");
}

#[test]
fn a_static_member_that_was_replaced_commits_no_offsets() {
    let (broker, _) = broker_with_topic();
    let mut old = Peer::with_instance(&broker, "one");
    let id = old.join().member_id;
    old.start_sync(&[&id]);
    let mut new = Peer::with_instance(&broker, "one");
    new.join();
    let mut writer = Writer::transactional(&broker, "x");
    writer.call(TransactionCall::Begin).unwrap();
    let error = writer.send_offset(&old.lease, 1).unwrap_err();
    assert_eq!(error.class, ErrorClass::LeaseVoid);
    assert!(error.message.contains("(82)"), "{error}");
    writer.call(TransactionCall::Abort).unwrap();
    writer.call(TransactionCall::Begin).unwrap();
    writer.send_offset(&new.lease, 1).unwrap();
}

#[test]
fn transactional_offsets_follow_the_generation_through_a_rebalance() {
    let (broker, _) = broker_with_topic();
    let (mut first, mut second) = group_of_two(&broker);
    let before = first.lease.clone();
    let mut writer = Writer::transactional(&broker, "x");
    let mut try_commit = |lease: &Lease| {
        writer.call(TransactionCall::Begin).unwrap();
        let sent = writer.send_offset(lease, 1).map_err(|error| error.class);
        writer.call(TransactionCall::Abort).unwrap();
        sent
    };
    first.start_join();
    // Others have not joined yet: the generation is the old one.
    assert_eq!(try_commit(&second.lease), Ok(()));
    assert_eq!(try_commit(&before), Ok(()));
    second.start_join();
    first.joined();
    second.joined();
    // Joined and not yet synced: the new one counts already, the old one no more.
    assert_eq!(try_commit(&before), Err(ErrorClass::LeaseVoid));
    assert_eq!(try_commit(&second.lease), Ok(()));
}

#[test]
fn markers_may_come_later_than_the_commit() {
    let (broker, clock) = broker_with_topic();
    broker.set_marker_delay(5);
    let mut peer = group_of_one(&broker);
    let mut writer = Writer::transactional(&broker, "x");
    let mut tail = Tail::committed(&broker);
    tail.next();
    writer.call(TransactionCall::Begin).unwrap();
    writer.write(&["a"]);
    writer.send_offset(&peer.lease, 4).unwrap();
    writer.call(TransactionCall::Commit).unwrap();
    assert_eq!(peer.fetch_offset(), Err(GroupError::UnstableOffsets));
    assert_eq!(tail.next(), None);
    // The next transaction's records wait for the end of the one before.
    writer.call(TransactionCall::Begin).unwrap();
    writer.send(0, "k", "b").unwrap();
    writer.producer.poll().unwrap();
    assert_eq!(writer.producer.backlog(), 1);
    writer.producer.start(TransactionCall::Commit);
    assert_eq!(writer.producer.outcome(), None);
    writer.waker.wait(Duration::ZERO);
    assert_eq!(broker.next_deadline(), Some(1_005));
    clock.advance(5);
    broker.tick();
    assert!(writer.waker.wait(Duration::ZERO));
    assert!(tail.woken());
    assert_eq!(peer.fetch_offset(), Ok(Some(4)));
    assert_eq!(tail.next(), Some((texts(&["a"]), 2)));
    assert_eq!(writer.producer.outcome(), Some(Ok(())));
    assert_eq!(writer.producer.outcome(), None);
    clock.advance(5);
    assert_eq!(tail.next(), Some((texts(&["b"]), 4)));
}

#[test]
fn init_waits_for_the_markers_of_the_predecessor() {
    let (broker, clock) = broker_with_topic();
    broker.set_marker_delay(5);
    let mut old = Writer::transactional(&broker, "x");
    old.call(TransactionCall::Begin).unwrap();
    old.write(&["lost"]);
    let mut new = Writer::make(&broker, Some("x"));
    new.producer.start(TransactionCall::Init);
    assert_eq!(new.producer.outcome(), None);
    // Fenced from the first moment, although the end is not there yet.
    assert_eq!(class(old.call(TransactionCall::Commit)), ErrorClass::Fenced);
    new.waker.wait(Duration::ZERO);
    clock.advance(5);
    broker.tick();
    assert!(new.waker.wait(Duration::ZERO));
    assert_eq!(new.producer.outcome(), Some(Ok(())));
    assert_eq!(edge(&broker, Edge::Stable), 2);
}

#[test]
fn calls_out_of_order_are_errors() {
    let (broker, _) = broker_with_topic();
    let mut plain = Writer::plain(&broker);
    assert_eq!(class(plain.call(TransactionCall::Init)), ErrorClass::Configuration);
    let mut writer = Writer::make(&broker, Some("x"));
    assert_eq!(class(writer.call(TransactionCall::Begin)), ErrorClass::Fatal);
    assert_eq!(class(writer.send(0, "k", "v")), ErrorClass::Fatal);
    writer.call(TransactionCall::Init).unwrap();
    assert_eq!(class(writer.call(TransactionCall::Commit)), ErrorClass::Fatal);
    assert_eq!(class(writer.call(TransactionCall::Abort)), ErrorClass::Fatal);
    writer.call(TransactionCall::Begin).unwrap();
    assert_eq!(class(writer.call(TransactionCall::Begin)), ErrorClass::Fatal);
    writer.call(TransactionCall::Abort).unwrap();
    assert_eq!(writer.producer.outcome(), None);
    assert!(!writer.producer.tainted());
}

#[test]
fn a_record_that_is_lost_makes_the_transaction_abortable() {
    let (broker, _) = broker_with_topic();
    create(&broker, "u", 1, &[]).unwrap();
    let mut writer = Writer::transactional(&broker, "x");
    writer.call(TransactionCall::Begin).unwrap();
    writer.send(0, "k", "v").unwrap();
    broker.delete_topic("t");
    assert_eq!(class(writer.producer.poll()), ErrorClass::UnknownTopic);
    assert_eq!(class(writer.call(TransactionCall::Commit)), ErrorClass::Abortable);
    writer.call(TransactionCall::Abort).unwrap();
    writer.call(TransactionCall::Begin).unwrap();
}

#[test]
fn a_transaction_timeout_beyond_the_broker_s_limit_is_refused() {
    let (broker, _) = broker_with_topic();
    for seconds in [0, 901] {
        let options = ProducerOptions {
            client_id: "test".into(),
            transactional_id: Some("x".into()),
            transaction_timeout: Duration::from_secs(seconds),
            linger: Duration::ZERO,
        };
        assert_eq!(class(broker.producer(&options, Waker::new())), ErrorClass::Configuration);
    }
}
