//! Reading: batches, positions, ends, wake-ups.

use super::*;

#[test]
fn a_batch_is_bounded_by_max_and_only_the_last_is_at_the_end() {
    let (broker, _) = broker_with_topic();
    Writer::plain(&broker).write(&["a", "b", "c"]);
    let mut tail = Tail::committed(&broker);
    let batch = tail.fetch(2).unwrap();
    assert_eq!((values(batch.as_ref()), batch.next_offset()), (texts(&["a", "b"]), 2));
    assert!(!batch.at_end());
    let batch = tail.fetch(2).unwrap();
    assert_eq!((values(batch.as_ref()), batch.next_offset()), (texts(&["c"]), 3));
    assert!(batch.at_end());
    assert!(tail.fetch(2).is_none());
}

#[test]
fn a_batch_is_bounded_by_bytes_and_holds_one_record_at_least() {
    let (broker, _) = broker_with_topic();
    let long = "x".repeat(300);
    Writer::plain(&broker).write(&[&long, &long, &long]);
    let options = ConsumerOptions { client_id: "test".into(), isolation: Isolation::ReadCommitted, queued_bytes: 10 };
    let mut consumer = broker.consumer(&options, Waker::new()).unwrap();
    let slot = consumer.assign(&[(at(0), 0)]).unwrap()[0];
    let sizes: Vec<_> =
        std::iter::from_fn(|| consumer.fetch(slot, 10).unwrap()).map(|batch| (batch.len(), batch.at_end())).collect();
    assert_eq!(sizes, [(1, false), (1, false), (1, true)]);
}

#[test]
fn the_end_of_an_empty_partition_is_told_once() {
    let (broker, _) = broker_with_topic();
    let mut tail = Tail::committed(&broker);
    let batch = tail.fetch(10).unwrap();
    assert_eq!((batch.len(), batch.next_offset(), batch.at_end()), (0, 0, true));
    assert!(batch.record(0).is_none());
    assert!(tail.fetch(10).is_none());
    tail.consumer.seek(tail.slot, 0).unwrap();
    assert!(tail.fetch(10).is_some_and(|batch| batch.at_end()));
}

#[test]
fn records_come_back_with_time_key_value_and_headers() {
    let (broker, _) = broker_with_topic();
    let mut writer = Writer::plain(&broker);
    let mut headers = Headers::new();
    headers.push("h", None);
    headers.push("h", Some(b"2"));
    for (key, value, headers) in [(None, Some(&b"v"[..]), &headers), (Some(&b"k"[..]), None, &Headers::new())] {
        let record = OutRecord { timestamp: 42, key, value, headers };
        writer.producer.send(writer.topic, 0, &record).unwrap();
    }
    writer.producer.poll().unwrap();
    let batch = Tail::committed(&broker).fetch(10).unwrap();
    let (first, second) = (batch.record(0).unwrap(), batch.record(1).unwrap());
    assert_eq!((first.offset, first.timestamp, first.key, first.value), (0, 42, None, Some(&b"v"[..])));
    assert_eq!((second.offset, second.key, second.value), (1, Some(&b"k"[..]), None));
    let mut seen = Headers::new();
    batch.headers(1, &mut seen);
    assert!(seen.is_empty());
    batch.headers(0, &mut seen);
    assert_eq!(seen, headers);
}

#[test]
fn a_batch_stays_valid_after_unassign_deletion_and_compaction() {
    let (broker, _) = broker();
    create(&broker, "t", 1, &[("cleanup.policy", "compact")]).unwrap();
    let mut writer = Writer::plain(&broker);
    writer.write(&["a", "b"]);
    let mut tail = Tail::committed(&broker);
    let batch = tail.fetch(10).unwrap();
    tail.consumer.unassign(&[tail.slot]).unwrap();
    writer.write(&["c"]);
    broker.compact("t").unwrap();
    broker.delete_records(&at(0), 3).unwrap();
    broker.delete_topic("t");
    drop(tail);
    assert_eq!(values(batch.as_ref()), ["a", "b"]);
}

#[test]
fn a_slot_that_was_given_back_gives_nothing_and_the_others_go_on() {
    let (broker, _) = broker_with_topic();
    let mut writer = Writer::plain(&broker);
    let mut tail = Tail::committed(&broker);
    let other = tail.consumer.assign(&[(at(1), 0)]).unwrap()[0];
    tail.consumer.unassign(&[tail.slot]).unwrap();
    tail.woken();
    writer.write(&["a"]);
    assert!(!tail.woken());
    assert_eq!(class(tail.consumer.fetch(tail.slot, 1)), ErrorClass::Fatal);
    assert_eq!(class(tail.consumer.unassign(&[tail.slot])), ErrorClass::Fatal);
    writer.send(1, "k", "b").unwrap();
    writer.producer.poll().unwrap();
    assert!(tail.woken());
    let batch = tail.consumer.fetch(other, 10).unwrap().unwrap();
    assert_eq!(values(batch.as_ref()), ["b"]);
}

#[test]
fn seek_reads_on_from_its_offset() {
    let (broker, _) = broker_with_topic();
    Writer::plain(&broker).write(&["a", "b", "c"]);
    let mut tail = Tail::committed(&broker);
    tail.next();
    tail.consumer.seek(tail.slot, 1).unwrap();
    assert!(tail.woken());
    assert_eq!(tail.next(), Some((texts(&["b", "c"]), 3)));
}

#[test]
fn an_offset_that_is_not_in_the_log_is_out_of_range_until_a_seek() {
    let (broker, _) = broker_with_topic();
    Writer::plain(&broker).write(&["a", "b", "c"]);
    broker.delete_records(&at(0), 2).unwrap();
    let mut tail = Tail::committed(&broker);
    for _ in 0..2 {
        assert_eq!(class(tail.consumer.fetch(tail.slot, 1)), ErrorClass::OutOfRange);
    }
    tail.consumer.seek(tail.slot, 4).unwrap();
    assert_eq!(class(tail.consumer.fetch(tail.slot, 1)), ErrorClass::OutOfRange);
    tail.consumer.seek(tail.slot, 2).unwrap();
    assert_eq!(tail.next(), Some((texts(&["c"]), 3)));
}

#[test]
fn the_beginning_is_where_the_log_starts_when_it_is_read() {
    let (broker, _) = broker_with_topic();
    Writer::plain(&broker).write(&["a", "b", "c"]);
    let mut tail = Tail::new(&broker, Isolation::ReadCommitted, BEGINNING);
    broker.delete_records(&at(0), 2).unwrap();
    assert_eq!(tail.next(), Some((texts(&["c"]), 3)));
    broker.delete_records(&at(0), 3).unwrap();
    tail.consumer.seek(tail.slot, BEGINNING).unwrap();
    assert_eq!(tail.next(), Some((vec![], 3)));
}

#[test]
fn an_unknown_partition_is_refused_and_nothing_of_the_call_is_assigned() {
    let (broker, _) = broker_with_topic();
    let mut tail = Tail::committed(&broker);
    let starts = [(at(1), 0), (at(2), 0)];
    assert_eq!(class(tail.consumer.assign(&starts)), ErrorClass::UnknownTopic);
    let mut writer = Writer::plain(&broker);
    writer.send(1, "k", "v").unwrap();
    writer.producer.poll().unwrap();
    assert!(!tail.woken());
    broker.delete_topic("t");
    assert!(tail.woken());
    assert_eq!(class(tail.consumer.fetch(tail.slot, 1)), ErrorClass::UnknownTopic);
}

#[test]
fn a_reader_is_woken_only_by_what_it_may_see() {
    let (broker, _) = broker_with_topic();
    let mut writer = Writer::transactional(&broker, "x");
    let committed = Tail::committed(&broker);
    let uncommitted = Tail::new(&broker, Isolation::ReadUncommitted, 0);
    writer.call(TransactionCall::Begin).unwrap();
    writer.write(&["a"]);
    assert!(uncommitted.woken());
    assert!(!committed.woken());
    writer.call(TransactionCall::Commit).unwrap();
    assert!(committed.woken());
}

#[test]
fn what_a_batch_left_behind_wakes_the_reader() {
    let (broker, _) = broker_with_topic();
    Writer::plain(&broker).write(&["a", "b"]);
    let mut tail = Tail::committed(&broker);
    tail.fetch(1);
    assert!(tail.woken());
    tail.fetch(1);
    assert!(!tail.woken());
}

#[test]
fn records_are_there_after_poll_and_are_acknowledged_by_it() {
    let (broker, _) = broker_with_topic();
    let mut writer = Writer::plain(&broker);
    let mut tail = Tail::committed(&broker);
    tail.next();
    writer.send(0, "k", "a").unwrap();
    writer.send(0, "k", "b").unwrap();
    assert!(writer.waker.wait(Duration::ZERO));
    assert_eq!(writer.producer.backlog(), 2);
    assert_eq!(writer.producer.acknowledged(writer.topic, 0), None);
    assert_eq!(tail.next(), None);
    writer.producer.poll().unwrap();
    assert_eq!(writer.producer.backlog(), 0);
    assert_eq!(writer.producer.acknowledged(writer.topic, 0), Some(2));
    assert_eq!(writer.producer.acknowledged(writer.topic, 1), None);
    assert_eq!(tail.next(), Some((texts(&["a", "b"]), 2)));
}

#[test]
fn a_full_chunk_is_handed_over_before_poll_and_counted_by_poll() {
    let (broker, _) = broker_with_topic();
    let mut writer = Writer::plain(&broker);
    let long = "x".repeat(1_000);
    for _ in 0..100 {
        writer.send(0, "k", &long).unwrap();
    }
    let there = edge(&broker, Edge::End);
    assert!(there > 0 && there < 100, "{there}");
    assert_eq!(writer.producer.backlog(), 100);
    assert_eq!(writer.producer.acknowledged(writer.topic, 0), None);
    writer.producer.poll().unwrap();
    assert_eq!(writer.producer.acknowledged(writer.topic, 0), Some(100));
    assert_eq!(edge(&broker, Edge::End), 100);
}

#[test]
fn records_that_cannot_be_written_are_refused_by_class() {
    let (broker, _) = broker();
    create(&broker, "t", 1, &[("max.message.bytes", "10"), ("cleanup.policy", "compact")]).unwrap();
    let mut writer = Writer::plain(&broker);
    assert_eq!(class(writer.producer.topic("nowhere")), ErrorClass::UnknownTopic);
    assert_eq!(class(writer.send(1, "k", "v")), ErrorClass::UnknownTopic);
    assert_eq!(class(writer.send(-1, "k", "v")), ErrorClass::UnknownTopic);
    assert_eq!(class(writer.send(0, "k", "0123456789")), ErrorClass::TooLarge);
    let no_key = OutRecord { timestamp: 0, key: None, value: None, headers: &Headers::new() };
    assert_eq!(class(writer.producer.send(writer.topic, 0, &no_key)), ErrorClass::Fatal);
    assert_eq!(writer.producer.backlog(), 0);
    writer.send(0, "k", "v").unwrap();
    broker.delete_topic("t");
    assert_eq!(class(writer.producer.poll()), ErrorClass::UnknownTopic);
    assert_eq!(writer.producer.backlog(), 0);
    writer.producer.poll().unwrap();
}
