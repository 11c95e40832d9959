//! The Kafka back end on a real broker: what is written is read, positions are right, transactions hold.

mod backend;

use std::net::TcpListener;
use std::time::{Duration, Instant};

use backend::{Member, Outcome, Reader, Writer, admin, connect, new_topic, offset, settings};
use headwater::broker::kafka::{Kafka, KafkaSettings};
use headwater::broker::{
    BEGINNING, Broker as _, Edge, ErrorClass, GroupError, GroupRequest, Isolation, Lease, NewTopic, OutRecord,
    TransactionCall,
};
use headwater::record::{Headers, TopicPartition};
use headwater_integration_tests::{Broker, Settings, Topics, unique};

#[test]
fn records_come_back_with_headers_nulls_and_times() -> Outcome {
    let kafka = connect()?;
    let topic = new_topic(&kafka, "whole", 2)?;
    let mut writer = Writer::new(&kafka, &topic, None)?;
    let mut headers = Headers::new();
    headers.push("trace", Some(b"a"));
    headers.push("trace", None);
    headers.push("", Some(b""));
    let none = Headers::new();
    let sent = [
        (42, Some(&b"key"[..]), Some(&b"value"[..]), &headers),
        (43, None, Some(&b""[..]), &none),
        (1_700_000_000_000, Some(&b""[..]), None, &none),
    ];
    for (timestamp, key, value, headers) in sent {
        let record = OutRecord { timestamp, key, value, headers };
        writer.producer.send(writer.topic, 1, &record)?;
    }
    assert_eq!(writer.producer.backlog(), 3);
    writer.drain()?;
    assert_eq!(writer.producer.acknowledged(writer.topic, 1), Some(3));
    assert_eq!(writer.producer.acknowledged(writer.topic, 0), None);

    let mut reader = Reader::new(&kafka, Isolation::ReadCommitted)?;
    let slot = reader.assign(&topic, 1, 0)?;
    let mut read = 0;
    while read < sent.len() {
        let batch = reader.batch(slot)?;
        for index in 0..batch.len() {
            let record = batch.record(index).ok_or("a record short")?;
            let (timestamp, key, value, headers) = sent[read];
            assert_eq!((record.timestamp, record.key, record.value), (timestamp, key, value));
            assert_eq!(record.offset, i64::try_from(read)?);
            let mut found = Headers::new();
            batch.headers(index, &mut found);
            assert_eq!(&found, headers);
            read += 1;
        }
        assert!(batch.record(batch.len()).is_none());
    }
    Ok(())
}

#[test]
fn partitions_are_added_taken_and_sought_while_others_are_read() -> Outcome {
    const RECORDS: i64 = 20_000;
    let kafka = connect()?;
    let topic = new_topic(&kafka, "moves", 3)?;
    let mut writer = Writer::new(&kafka, &topic, None)?;
    for index in 0..RECORDS {
        for partition in 0..3 {
            writer.send(partition, &index.to_string())?;
        }
    }
    writer.drain()?;

    let mut reader = Reader::new(&kafka, Isolation::ReadCommitted)?;
    let kept = reader.assign(&topic, 0, 0)?;
    let mut position = 0;
    let mut moves = 0_i64;
    while position < RECORDS {
        let batch = reader.batch(kept)?;
        for record in (0..batch.len()).filter_map(|index| batch.record(index)) {
            assert_eq!(record.offset, position, "no gap and no repetition in the partition that is kept");
            position += 1;
        }
        // Another partition comes, is read, is sought forth and back, and goes.
        let start = moves * 97 % RECORDS;
        let moved = reader.assign(&topic, 1, start)?;
        assert_eq!(reader.batch(moved)?.record(0).ok_or("empty")?.offset, start);
        for target in [RECORDS - 1, start / 2, 7] {
            reader.consumer.seek(moved, target)?;
        }
        assert_eq!(reader.batch(moved)?.record(0).ok_or("empty")?.offset, 7);
        let lent = reader.batch(moved)?;
        reader.consumer.unassign(&[moved])?;
        assert!(reader.consumer.fetch(moved, 1).is_err(), "a slot that was given back");
        assert!(lent.record(0).is_some(), "a batch stays valid");
        moves += 1;
    }
    assert!(moves > 5, "{moves} moves in {RECORDS} records");
    // The end is told, also the second time.
    for _ in 0..2 {
        reader.consumer.seek(kept, RECORDS)?;
        let end = reader.batch(kept)?;
        assert!(end.is_empty() && end.at_end());
        assert_eq!(end.next_offset(), RECORDS);
    }
    Ok(())
}

#[test]
fn a_consumer_takes_more_partitions_than_it_was_made_for() -> Outcome {
    const PARTITIONS: i32 = 40;
    const RECORDS: i64 = 300;
    let kafka = connect()?;
    let topic = new_topic(&kafka, "many", PARTITIONS)?;
    let mut writer = Writer::new(&kafka, &topic, None)?;
    for index in 0..RECORDS {
        for partition in 0..PARTITIONS {
            writer.send(partition, &index.to_string())?;
        }
    }
    writer.drain()?;

    let mut reader = Reader::new(&kafka, Isolation::ReadCommitted)?;
    let first = reader.assign(&topic, 0, 0)?;
    let mut read = Vec::new();
    let lent = reader.some(first, 100)?;
    read.extend(lent.iter().cloned());
    for partition in 1..PARTITIONS {
        let slot = reader.assign(&topic, partition, RECORDS - 1)?;
        let end = reader.read_to(slot, RECORDS)?;
        assert_eq!(end, [(RECORDS - 1, (RECORDS - 1).to_string())], "partition {partition}");
    }
    // The first was interrupted in the middle and goes on there.
    read.extend(reader.read_to(first, RECORDS)?);
    let expected: Vec<_> = (0..RECORDS).map(|offset| (offset, offset.to_string())).collect();
    assert_eq!(read, expected);
    Ok(())
}

#[test]
fn an_offset_outside_the_log_is_an_error_and_no_jump() -> Outcome {
    let kafka = connect()?;
    let topic = new_topic(&kafka, "range", 1)?;
    let mut writer = Writer::new(&kafka, &topic, None)?;
    writer.send(0, "only")?;
    writer.drain()?;
    let mut reader = Reader::new(&kafka, Isolation::ReadCommitted)?;
    let slot = reader.assign(&topic, 0, 1000)?;
    let error = reader.failure(slot)?;
    assert_eq!(error.class, ErrorClass::OutOfRange, "{error}");
    assert!(error.message.contains(&format!("{topic}-0")) && error.message.contains("1000"), "{error}");
    // From there the caller can go on where the log is.
    reader.consumer.seek(slot, 0)?;
    assert_eq!(reader.read_to(slot, 1)?, [(0, "only".to_owned())]);
    let negative = reader.consumer.seek(slot, -3).unwrap_err();
    assert_eq!(negative.class, ErrorClass::OutOfRange);
    Ok(())
}

#[test]
fn the_beginning_is_where_the_log_begins() -> Outcome {
    let kafka = connect()?;
    let topic = new_topic(&kafka, "beginning", 1)?;
    let mut writer = Writer::new(&kafka, &topic, None)?;
    for value in ["0", "1", "2", "3", "4"] {
        writer.send(0, value)?;
    }
    writer.drain()?;
    Topics::new(Broker::shared()?.bootstrap())?.delete_records(&topic, 0, 3)?;
    assert_eq!(admin(&kafka)?.offsets(&[TopicPartition::new(&*topic, 0)], Edge::Start)?, [3]);

    let mut reader = Reader::new(&kafka, Isolation::ReadCommitted)?;
    let slot = reader.assign(&topic, 0, BEGINNING)?;
    assert_eq!(reader.read_to(slot, 5)?, [(3, "3".to_owned()), (4, "4".to_owned())]);
    reader.consumer.seek(slot, 1)?;
    assert_eq!(reader.failure(slot)?.class, ErrorClass::OutOfRange);
    reader.consumer.seek(slot, BEGINNING)?;
    assert_eq!(reader.read_to(slot, 5)?.len(), 2);
    Ok(())
}

#[test]
fn a_topic_that_does_not_exist_is_told() -> Outcome {
    let mut settings = settings()?;
    // How long a topic may be missing from the brokers' answers before the client believes it.
    settings.client.insert("consumer.topic.metadata.propagation.max.ms".into(), "200".into());
    let kafka = Kafka::connect(settings)?;
    let mut reader = Reader::new(&kafka, Isolation::ReadCommitted)?;
    let topic = unique("nowhere");
    let slot = reader.assign(&topic, 0, 0)?;
    let error = reader.failure(slot)?;
    assert_eq!(error.class, ErrorClass::UnknownTopic, "{error}");
    assert!(error.message.contains(&topic), "{error}");
    Ok(())
}

#[test]
fn only_committed_records_are_seen_and_the_position_passes_control_records() -> Outcome {
    let kafka = connect()?;
    let topic = new_topic(&kafka, "tx", 1)?;
    let mut writer = Writer::new(&kafka, &topic, Some(&unique("tx")))?;
    writer.calls([TransactionCall::Init, TransactionCall::Begin])?;
    writer.send(0, "first")?;
    writer.drain()?;
    writer.calls([TransactionCall::Commit, TransactionCall::Begin])?;
    for _ in 0..1000 {
        writer.send(0, "aborted")?;
    }
    writer.drain()?;
    writer.send(0, "aborted before it was sent")?;
    writer.calls([TransactionCall::Abort])?;
    assert_eq!(writer.producer.backlog(), 0);
    writer.calls([TransactionCall::Begin])?;
    writer.send(0, "last")?;
    writer.drain()?;
    let last = writer.producer.acknowledged(writer.topic, 0).ok_or("nothing acknowledged")?;

    // Open: the end is beyond it, the stable offset before it.
    let partition = [TopicPartition::new(&*topic, 0)];
    let mut admin = admin(&kafka)?;
    assert_eq!(admin.offsets(&partition, Edge::End)?, [last]);
    assert_eq!(admin.offsets(&partition, Edge::Stable)?, [last - 1]);
    let mut reader = Reader::new(&kafka, Isolation::ReadCommitted)?;
    let slot = reader.assign(&topic, 0, 0)?;
    assert_eq!(reader.read_to(slot, last - 1)?, [(0, "first".to_owned())]);

    writer.calls([TransactionCall::Commit])?;
    assert!(!writer.producer.tainted());
    // One past the record is the commit marker; the position must not stay before it.
    assert_eq!(reader.read_to(slot, last + 1)?, [(last - 1, "last".to_owned())]);

    let mut all = Reader::new(&kafka, Isolation::ReadUncommitted)?;
    let slot = all.assign(&topic, 0, 0)?;
    let seen = all.read_to(slot, last + 1)?;
    assert_eq!(seen.iter().filter(|(_, value)| value == "aborted").count(), 1000);
    Ok(())
}

#[test]
fn offsets_go_into_a_transaction_only_under_the_lease() -> Outcome {
    let kafka = connect()?;
    let topic = new_topic(&kafka, "lease", 1)?;
    let group = unique("lease");
    let mut member = Member::new(&kafka, &group)?;
    let lease = member.join_alone()?;
    let partition = TopicPartition::new(&*topic, 0);
    let send = |lease: Lease, position| TransactionCall::SendOffsets {
        group: group.clone(),
        lease,
        offsets: vec![(partition.clone(), offset(position))],
    };
    let fetch = || GroupRequest::FetchOffsets { partitions: vec![partition.clone()] };
    let stale = Lease { generation: lease.generation - 1, ..lease.clone() };

    let mut writer = Writer::new(&kafka, &topic, Some(&unique("lease")))?;
    writer.calls([TransactionCall::Init, TransactionCall::Begin])?;
    writer.send(0, "refused")?;
    let refusal = writer.call(send(stale, 5))?.unwrap_err();
    assert_eq!(refusal.class, ErrorClass::LeaseVoid, "{refusal}");
    // The producer stays good.
    writer.calls([TransactionCall::Abort, TransactionCall::Begin])?;
    writer.send(0, "taken")?;
    writer.drain()?;
    writer.calls([send(lease, 7)])?;
    assert_eq!(member.ask(fetch())?, Err(GroupError::UnstableOffsets));
    writer.calls([TransactionCall::Commit])?;
    let stable = backend::until(&Default::default(), "stable offsets", || match member.ask(fetch())? {
        Err(GroupError::UnstableOffsets) => Ok(None),
        other => Ok(Some(other?)),
    })?;
    let expected = headwater::broker::GroupAnswer::Offsets(vec![(partition.clone(), Some(offset(7)))]);
    assert_eq!(stable, expected);
    Ok(())
}

#[test]
fn a_second_producer_with_the_same_id_fences_the_first() -> Outcome {
    let kafka = connect()?;
    let topic = new_topic(&kafka, "fence", 1)?;
    let id = unique("fence");
    let mut first = Writer::new(&kafka, &topic, Some(&id))?;
    first.calls([TransactionCall::Init, TransactionCall::Begin])?;
    first.send(0, "lost")?;
    first.drain()?;
    let mut second = Writer::new(&kafka, &topic, Some(&id))?;
    second.calls([TransactionCall::Init, TransactionCall::Begin])?;
    second.send(0, "kept")?;
    second.drain()?;
    second.calls([TransactionCall::Commit])?;
    let fenced = first.call(TransactionCall::Commit)?.unwrap_err();
    assert_eq!(fenced.class, ErrorClass::Fenced, "{fenced}");
    assert_eq!(first.producer.poll().unwrap_err().class, ErrorClass::Fenced);

    let mut reader = Reader::new(&kafka, Isolation::ReadCommitted)?;
    let slot = reader.assign(&topic, 0, 0)?;
    // Record and marker of each.
    let values: Vec<_> = reader.read_to(slot, 4)?.into_iter().map(|(_, value)| value).collect();
    assert_eq!(values, ["kept"]);
    Ok(())
}

#[test]
fn a_closed_connection_taints_the_transaction() -> Outcome {
    let mut settings = settings()?;
    // The client itself closes connections that have been idle for so long.
    settings.client.insert("producer.connections.max.idle.ms".into(), "500".into());
    let kafka = Kafka::connect(settings)?;
    let topic = new_topic(&kafka, "taint", 1)?;
    let mut writer = Writer::new(&kafka, &topic, Some(&unique("taint")))?;
    writer.calls([TransactionCall::Init, TransactionCall::Begin])?;
    let producer = &writer.producer;
    backend::until(&Default::default(), "the taint", || Ok(producer.tainted().then_some(())))
}

#[test]
fn reading_and_writing_go_on_after_a_restart_of_the_broker() -> Outcome {
    let broker = Broker::start(&Settings::default())?;
    let kafka = Kafka::connect(KafkaSettings::new(broker.bootstrap()))?;
    let topic = new_topic(&kafka, "restart", 1)?;
    let mut plain = Writer::new(&kafka, &topic, None)?;
    plain.send(0, "before")?;
    plain.drain()?;
    let mut transactional = Writer::new(&kafka, &topic, Some(&unique("restart")))?;
    transactional.calls([TransactionCall::Init, TransactionCall::Begin])?;
    transactional.send(0, "in a transaction")?;
    transactional.drain()?;
    let mut reader = Reader::new(&kafka, Isolation::ReadUncommitted)?;
    let slot = reader.assign(&topic, 0, 0)?;
    reader.read_to(slot, 2)?;

    broker.stop()?;
    plain.send(0, "while it is down")?;
    broker.restart()?;
    plain.drain()?;
    assert_eq!(reader.read_to(slot, 3)?, [(2, "while it is down".to_owned())]);
    // The connection broke inside the transaction: whatever becomes of it, the producer is not to be trusted.
    transactional.call(TransactionCall::Commit)??;
    assert!(transactional.producer.tainted());
    Ok(())
}

#[test]
fn calls_about_transactions_need_an_id() -> Outcome {
    let kafka = connect()?;
    let topic = new_topic(&kafka, "plain", 1)?;
    let mut writer = Writer::new(&kafka, &topic, None)?;
    let refusal = writer.call(TransactionCall::Begin)?.unwrap_err();
    assert_eq!(refusal.class, ErrorClass::Configuration, "{refusal}");
    Ok(())
}

#[test]
fn a_record_that_cannot_be_written_is_told_by_class() -> Outcome {
    let kafka = connect()?;
    let topic = unique("refused");
    kafka.admin()?.create_topics(&[NewTopic {
        name: topic.clone(),
        partitions: 1,
        replication: -1,
        settings: vec![("cleanup.policy".into(), "compact".into())],
    }])?;
    let mut writer = Writer::new(&kafka, &topic, None)?;
    let large = "x".repeat(2_000_000);
    assert_eq!(writer.send(0, &large).unwrap_err().class, ErrorClass::TooLarge);
    let keyless = OutRecord { timestamp: 1, key: None, value: Some(b"v"), headers: &Headers::new() };
    writer.producer.send(writer.topic, 0, &keyless)?;
    let refusal = writer.failure()?;
    assert_eq!(refusal.class, ErrorClass::Rejected, "{refusal}");
    assert!(refusal.message.contains(&topic), "{refusal}");
    assert_eq!(writer.producer.backlog(), 0);
    let nowhere = writer.send(1, "v").unwrap_err();
    assert_eq!(nowhere.class, ErrorClass::UnknownTopic, "{nowhere}");
    Ok(())
}

#[test]
fn topics_are_described_created_once_and_refused_with_the_reason() -> Outcome {
    let kafka = connect()?;
    let mut admin = admin(&kafka)?;
    assert!(!admin.cluster_id()?.is_empty());
    let name = new_topic(&kafka, "described", 3)?;
    let described = admin.topics(&["no-such-topic", &name])?;
    assert_eq!(described.first(), Some(&None));
    let info = described.into_iter().flatten().next().ok_or("the topic is not described")?;
    assert_eq!((info.partitions, info.id.len()), (3, 22));

    let mut topic = NewTopic { name, partitions: 3, replication: 1, settings: Vec::new() };
    admin.create_topics(std::slice::from_ref(&topic))?;
    topic.name = unique("refused");
    topic.settings = vec![("cleanup.polizy".into(), "compact".into())];
    let refusal = admin.create_topics(std::slice::from_ref(&topic)).unwrap_err();
    assert_eq!(refusal.class, ErrorClass::Configuration);
    assert!(refusal.message.contains("cleanup.polizy"), "{refusal}");

    let missing = admin.offsets(&[TopicPartition::new("no-such-topic", 0)], Edge::End).unwrap_err();
    assert_eq!(missing.class, ErrorClass::UnknownTopic, "{missing}");
    Ok(())
}

#[test]
fn a_broker_that_is_down_is_named_in_time() -> Outcome {
    let closed = TcpListener::bind("127.0.0.1:0")?;
    let address = closed.local_addr()?.to_string();
    drop(closed);
    let mut settings = KafkaSettings::new(&*address);
    settings.request_timeout = Duration::from_secs(2);
    let started = Instant::now();
    let error = Kafka::connect(settings).unwrap_err();
    assert_eq!(error.class, ErrorClass::Unavailable);
    assert!(error.message.contains(&address) && error.message.contains("2000 ms"), "{error}");
    assert!(started.elapsed() < Duration::from_secs(30), "{:?}", started.elapsed());
    Ok(())
}
