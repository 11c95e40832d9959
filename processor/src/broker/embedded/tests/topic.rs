//! Topics: creation, settings, edges, deletion, compaction, retention.

use super::*;
use crate::broker::embedded::EntryKind;

#[test]
fn topics_are_created_once_and_described() {
    let (broker, _) = broker();
    create(&broker, "t", 2, &[("cleanup.policy", "compact,delete"), ("x.y", "z")]).unwrap();
    create(&broker, "t", 5, &[]).unwrap();
    create(&broker, "u", -1, &[]).unwrap();
    let mut admin = broker.admin().unwrap();
    let found = admin.topics(&["u", "none", "t"]).unwrap();
    let counts: Vec<_> = found.iter().map(|topic| topic.as_ref().map(|one| one.partitions)).collect();
    assert_eq!(counts, [Some(1), None, Some(2)]);
    assert_ne!(found[0].as_ref().unwrap().id, found[2].as_ref().unwrap().id);
    assert_eq!(broker.topic_settings("t").unwrap()["x.y"], "z");
    assert_eq!(broker.topic_names().iter().map(|name| &**name).collect::<Vec<_>>(), ["t", "u"]);
}

#[test]
fn a_topic_made_anew_has_another_id_and_an_empty_log() {
    let (broker, _) = broker_with_topic();
    Writer::plain(&broker).write(&["a"]);
    let mut admin = broker.admin().unwrap();
    let before = admin.topics(&["t"]).unwrap();
    broker.delete_topic("t");
    assert_eq!(admin.topics(&["t"]).unwrap(), [None]);
    assert_eq!(class(admin.offsets(&[at(0)], Edge::End)), ErrorClass::UnknownTopic);
    create(&broker, "t", 2, &[]).unwrap();
    assert_ne!(admin.topics(&["t"]).unwrap(), before);
    assert_eq!(edge(&broker, Edge::End), 0);
}

#[test]
fn topics_that_make_no_sense_are_refused_by_name_and_value() {
    let (broker, _) = broker();
    for (name, partitions, setting, told) in [
        ("a/b", 1, ("x", "y"), "a/b"),
        ("", 1, ("x", "y"), "1 to 249"),
        ("t", 0, ("x", "y"), "0 partitions"),
        ("t", 1, ("cleanup.policy", "keep"), "keep"),
        ("t", 1, ("max.message.bytes", "much"), "much"),
    ] {
        let error = create(&broker, name, partitions, &[setting]).unwrap_err();
        assert_eq!(error.class, ErrorClass::Configuration);
        assert!(error.message.contains(told), "{error}");
    }
    assert!(broker.topic_names().is_empty());
}

#[test]
fn a_topic_grows_and_old_handles_reach_the_new_partitions() {
    let (broker, _) = broker_with_topic();
    let mut writer = Writer::plain(&broker);
    assert_eq!(class(writer.send(2, "k", "v")), ErrorClass::UnknownTopic);
    broker.grow_topic("t", 3).unwrap();
    writer.send(2, "k", "v").unwrap();
    writer.producer.poll().unwrap();
    assert_eq!(broker.admin().unwrap().offsets(&[at(2)], Edge::End).unwrap(), [1]);
    assert_eq!(class(broker.grow_topic("none", 3)), ErrorClass::UnknownTopic);
}

#[test]
fn deleted_records_move_the_start() {
    let (broker, _) = broker_with_topic();
    Writer::plain(&broker).write(&["a", "b", "c"]);
    broker.delete_records(&at(0), 2).unwrap();
    assert_eq!(edge(&broker, Edge::Start), 2);
    assert_eq!(edge(&broker, Edge::End), 3);
    assert_eq!(broker.log(&at(0)).unwrap().len(), 1);
    // The start never goes back, and never past the end.
    broker.delete_records(&at(0), 1).unwrap();
    assert_eq!(edge(&broker, Edge::Start), 2);
    assert_eq!(class(broker.delete_records(&at(0), 4)), ErrorClass::OutOfRange);
    broker.delete_records(&at(0), 3).unwrap();
    assert_eq!(edge(&broker, Edge::Start), 3);
    assert!(broker.log(&at(0)).unwrap().is_empty());
}

#[test]
fn compaction_keeps_the_last_of_each_key_with_its_offset_and_tombstones() {
    let (broker, _) = broker();
    create(&broker, "t", 1, &[("cleanup.policy", "compact")]).unwrap();
    let mut writer = Writer::transactional(&broker, "x");
    writer.call(TransactionCall::Begin).unwrap();
    for (key, value) in [("a", "1"), ("b", "1"), ("a", "2")] {
        writer.send(0, key, value).unwrap();
    }
    writer.call(TransactionCall::Commit).unwrap(); // 0 1 2, marker 3
    writer.transaction(&["lost"], TransactionCall::Abort); // 4, marker 5
    writer.call(TransactionCall::Begin).unwrap();
    let tombstone = OutRecord { timestamp: 9, key: Some(b"b"), value: None, headers: &Headers::new() };
    writer.producer.send(writer.topic, 0, &tombstone).unwrap();
    writer.call(TransactionCall::Commit).unwrap(); // 6, marker 7
    writer.call(TransactionCall::Begin).unwrap();
    writer.send(0, "a", "open").unwrap();
    writer.producer.poll().unwrap(); // 8

    broker.compact("t").unwrap();

    let left: Vec<_> = broker.log(&at(0)).unwrap().into_iter().map(|entry| entry.offset).collect();
    assert_eq!(left, [2, 6, 8]);
    assert_eq!((edge(&broker, Edge::Start), edge(&broker, Edge::Stable), edge(&broker, Edge::End)), (0, 8, 9));
    let batch = Tail::committed(&broker).fetch(10).unwrap();
    let seen: Vec<_> = (0..2).filter_map(|index| batch.record(index)).map(|one| (one.offset, one.value)).collect();
    assert_eq!(seen, [(2, Some(&b"2"[..])), (6, None)]);
    assert_eq!((batch.len(), batch.next_offset(), batch.at_end()), (2, 8, true));
    // A position inside a gap reads on after it.
    let mut tail = Tail::new(&broker, Isolation::ReadCommitted, 3);
    assert_eq!(tail.fetch(10).map(|batch| batch.len()), Some(1));

    writer.call(TransactionCall::Abort).unwrap();
    assert_eq!(tail.next(), Some((vec![], 10)));
}

#[test]
fn a_topic_without_the_policy_is_not_compacted() {
    let (broker, _) = broker_with_topic();
    assert_eq!(class(broker.compact("t")), ErrorClass::Configuration);
    assert_eq!(class(broker.compact("none")), ErrorClass::UnknownTopic);
}

#[test]
fn retention_in_bytes_drops_old_chunks_but_nothing_unstable() {
    let (broker, _) = broker();
    create(&broker, "t", 1, &[("retention.bytes", "200000")]).unwrap();
    let mut holder = Writer::transactional(&broker, "x");
    let mut writer = Writer::plain(&broker);
    let long = "x".repeat(1_000);
    let many = vec![long.as_str(); 500];
    writer.write(&many);
    let start = edge(&broker, Edge::Start);
    assert!((1..500).contains(&start), "{start}");
    holder.call(TransactionCall::Begin).unwrap();
    holder.write(&["held"]);
    for _ in 0..3 {
        writer.write(&many);
    }
    assert!(edge(&broker, Edge::Start) <= 500);
    holder.call(TransactionCall::Abort).unwrap();
    writer.write(&many);
    assert!(edge(&broker, Edge::Start) > 1_500);
}

#[test]
fn the_log_shows_who_wrote_what() {
    let (broker, _) = broker_with_topic();
    let mut writer = Writer::transactional(&broker, "x");
    writer.transaction(&["a"], TransactionCall::Commit);
    let mut successor = Writer::transactional(&broker, "x");
    successor.transaction(&["b"], TransactionCall::Abort);
    Writer::plain(&broker).write(&["c"]);
    let log = broker.log(&at(0)).unwrap();
    let kinds: Vec<_> = log.iter().map(|entry| (entry.kind, entry.producer_epoch)).collect();
    assert_eq!(
        kinds,
        [
            (EntryKind::Transactional, 0),
            (EntryKind::CommitMarker, 0),
            (EntryKind::Transactional, 1),
            (EntryKind::AbortMarker, 1),
            (EntryKind::Plain, 0),
        ]
    );
    assert_eq!(log[0].producer_id, log[3].producer_id);
    assert_ne!(log[0].producer_id, log[4].producer_id);
}

#[test]
fn two_brokers_with_the_same_history_are_the_same() {
    let history = || {
        let (broker, clock) = broker_with_topic();
        let (first, second) = group_of_two(&broker);
        let mut writer = Writer::transactional(&broker, "x");
        writer.transaction(&["a"], TransactionCall::Commit);
        clock.advance(7_000);
        let topics = broker.admin().unwrap().topics(&["t"]).unwrap();
        let cluster = broker.admin().unwrap().cluster_id().unwrap();
        (cluster, topics, broker.log(&at(0)).unwrap(), first.lease, second.lease, broker.group("g"))
    };
    assert_eq!(history(), history());
}
