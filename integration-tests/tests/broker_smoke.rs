//! The harness itself on a real broker: start, restart, production, transactions, and what the judge sees of them.

use std::time::Duration;

use headwater_integration_tests::oracle::{check_kept, check_produced};
use headwater_integration_tests::{
    Broker, Failure, Feeder, Isolation, Judge, Process, Program, Record, Settings, Stream, Topics, eventually,
    produce_all, unique,
};
use rdkafka::consumer::{BaseConsumer, CommitMode, Consumer};
use rdkafka::message::{Header, OwnedHeaders};
use rdkafka::producer::{BaseProducer, BaseRecord, Producer};
use rdkafka::{ClientConfig, Offset, TopicPartitionList};

const TIMEOUT: Duration = Duration::from_secs(30);
/// For what waits on a broker that has just been started, on a machine that may be compiling.
const PATIENCE: Duration = Duration::from_secs(180);

fn transactional(bootstrap: &str) -> Result<BaseProducer, Failure> {
    let producer: BaseProducer = ClientConfig::new()
        .set("bootstrap.servers", bootstrap)
        .set("transactional.id", unique("smoke"))
        .set("retry.backoff.ms", "5")
        .create()?;
    producer.init_transactions(TIMEOUT)?;
    Ok(producer)
}

fn send(producer: &BaseProducer, topic: &str, value: &str) -> Result<(), Failure> {
    producer.send(BaseRecord::to(topic).partition(0).key("k").payload(value)).map_err(|(error, _)| Failure::from(error))
}

fn values(records: &[Vec<Record>]) -> Vec<String> {
    records.iter().flatten().map(Record::value_text).collect()
}

#[test]
fn what_is_produced_is_read_back_whole() -> Result<(), Failure> {
    let broker = Broker::shared()?;
    let topic = unique("whole");
    Topics::new(broker.bootstrap())?.create(&topic, 4, &[])?;
    let stream = Stream::new(1, 50, 4);
    let sent = produce_all(broker.bootstrap(), &topic, (0..5000).map(|index| stream.record(index)))?;
    let read = Judge::new(broker.bootstrap()).read_topic(&topic, Isolation::Committed)?;
    assert_eq!(read.len(), 4);
    check_produced(&sent, &read)
}

#[test]
fn nulls_and_headers_are_read_as_they_are() -> Result<(), Failure> {
    let broker = Broker::shared()?;
    let topic = unique("nulls");
    Topics::new(broker.bootstrap())?.create(&topic, 1, &[])?;
    let producer: BaseProducer = ClientConfig::new().set("bootstrap.servers", broker.bootstrap()).create()?;
    let headers = OwnedHeaders::new()
        .insert(Header { key: "trace", value: Some("a") })
        .insert(Header { key: "trace", value: None::<&str> });
    producer
        .send(BaseRecord::<(), ()>::to(&topic).partition(0).timestamp(42).headers(headers))
        .map_err(|(error, _)| error)?;
    producer.flush(TIMEOUT)?;
    let read = Judge::new(broker.bootstrap()).read_topic(&topic, Isolation::Committed)?;
    let wanted = Record {
        partition: 0,
        offset: 0,
        timestamp: 42,
        key: None,
        value: None,
        headers: vec![("trace".to_owned(), Some(b"a".to_vec())), ("trace".to_owned(), None)],
    };
    assert_eq!(read, [[wanted]]);
    Ok(())
}

#[test]
fn aborted_records_are_invisible_and_counted() -> Result<(), Failure> {
    let broker = Broker::shared()?;
    let topic = unique("aborted");
    Topics::new(broker.bootstrap())?.create(&topic, 1, &[])?;
    let judge = Judge::new(broker.bootstrap());
    let producer = transactional(broker.bootstrap())?;
    for (value, commit) in [("one", true), ("two", false), ("three", true), ("four", false)] {
        producer.begin_transaction()?;
        send(&producer, &topic, value)?;
        producer.flush(TIMEOUT)?;
        if commit { producer.commit_transaction(TIMEOUT)? } else { producer.abort_transaction(TIMEOUT)? }
    }
    // Four records and four markers: the last marker is what makes the topic's end stable.
    eventually(TIMEOUT, "the last marker", || match judge.ends(&topic, Isolation::Committed) {
        Ok(ends) if ends == [(0, 8)] => Ok(()),
        seen => Err(format!("{seen:?}")),
    })?;
    assert_eq!(values(&judge.read_topic(&topic, Isolation::Committed)?), ["one", "three"]);
    assert_eq!(values(&judge.read_topic(&topic, Isolation::Uncommitted)?), ["one", "two", "three", "four"]);
    assert_eq!(values(&[judge.aborted(&topic)?]), ["two", "four"]);
    Ok(())
}

#[test]
fn an_open_transaction_ends_a_committed_read() -> Result<(), Failure> {
    let broker = Broker::shared()?;
    let topic = unique("open");
    Topics::new(broker.bootstrap())?.create(&topic, 1, &[])?;
    let judge = Judge::new(broker.bootstrap());
    let producer = transactional(broker.bootstrap())?;
    producer.begin_transaction()?;
    send(&producer, &topic, "held")?;
    producer.flush(TIMEOUT)?;
    let other: BaseProducer = ClientConfig::new().set("bootstrap.servers", broker.bootstrap()).create()?;
    send(&other, &topic, "behind")?;
    other.flush(TIMEOUT)?;
    assert_eq!(judge.ends(&topic, Isolation::Committed)?, [(0, 0)]);
    assert_eq!(judge.ends(&topic, Isolation::Uncommitted)?, [(0, 2)]);
    assert!(values(&judge.read_topic(&topic, Isolation::Committed)?).is_empty());
    assert_eq!(values(&judge.read_topic(&topic, Isolation::Uncommitted)?), ["held", "behind"]);
    assert!(judge.aborted(&topic)?.is_empty(), "an open transaction is not an aborted one");
    producer.commit_transaction(TIMEOUT)?;
    eventually(TIMEOUT, "both records", || match judge.read_topic(&topic, Isolation::Committed) {
        Ok(read) if values(&read) == ["held", "behind"] => Ok(()),
        seen => Err(format!("{seen:?}")),
    })
}

#[test]
fn committed_offsets_are_told_per_partition() -> Result<(), Failure> {
    let broker = Broker::shared()?;
    let (topic, group) = (unique("offsets"), unique("group"));
    Topics::new(broker.bootstrap())?.create(&topic, 3, &[])?;
    let judge = Judge::new(broker.bootstrap());
    assert_eq!(judge.committed(&group, &topic)?, [None, None, None]);
    let consumer: BaseConsumer =
        ClientConfig::new().set("bootstrap.servers", broker.bootstrap()).set("group.id", &group).create()?;
    let mut offsets = TopicPartitionList::new();
    offsets.add_partition_offset(&topic, 1, Offset::Offset(17))?;
    consumer.commit(&offsets, CommitMode::Sync)?;
    assert_eq!(judge.committed(&group, &topic)?, [None, Some(17), None]);
    Ok(())
}

#[test]
fn deleted_records_and_topics_are_gone() -> Result<(), Failure> {
    let broker = Broker::shared()?;
    let topic = unique("deleted");
    let topics = Topics::new(broker.bootstrap())?;
    topics.create(&topic, 1, &[("segment.bytes", "1048576")])?;
    let stream = Stream::new(3, 5, 1);
    produce_all(broker.bootstrap(), &topic, (0..10).map(|index| stream.record(index)))?;
    topics.delete_records(&topic, 0, 7)?;
    let judge = Judge::new(broker.bootstrap());
    assert_eq!(values(&judge.read_topic(&topic, Isolation::Committed)?), ["7", "8", "9"]);
    assert_eq!(judge.ends(&topic, Isolation::Committed)?, [(7, 10)]);
    topics.delete(&topic)?;
    let failure = judge.read_topic(&topic, Isolation::Committed).unwrap_err().to_string();
    assert!(failure.contains(&topic), "{failure}");
    Ok(())
}

#[test]
fn a_restart_keeps_data_and_a_feeder_goes_on() -> Result<(), Failure> {
    let broker = Broker::start(&Settings::default().property("num.io.threads", "2"))?;
    let topic = unique("restart");
    Topics::new(broker.bootstrap())?.create(&topic, 2, &[])?;
    let judge = Judge::new(broker.bootstrap());
    let stream = Stream::new(2, 10, 2);
    let feeder = Feeder::start(broker.bootstrap(), &topic, 1000, move |index| stream.record(index))?;
    for kill in [false, true] {
        let before = feeder.acknowledged();
        eventually(PATIENCE, "the feeder to advance", || {
            let now = feeder.acknowledged();
            if now >= before.saturating_add(500) { Ok(()) } else { Err(now.to_string()) }
        })?;
        if kill {
            broker.kill9()?
        } else {
            broker.stop()?
        }
        broker.restart()?;
    }
    let before = feeder.acknowledged();
    eventually(PATIENCE, "the feeder to advance after the restarts", || {
        let now = feeder.acknowledged();
        if now >= before.saturating_add(500) { Ok(()) } else { Err(now.to_string()) }
    })?;
    let sent = feeder.stop()?;
    assert!(sent.len() > 1500, "{} records", sent.len());
    check_kept(&sent, &judge.read_topic(&topic, Isolation::Committed)?)
}

#[test]
fn a_broker_does_not_outlive_the_test_process() -> Result<(), Failure> {
    let home = tempfile::tempdir()?;
    let mut owner = Process::spawn("owner", home.path(), Program::new(env!("CARGO_BIN_EXE_kafka")))?;
    let line = owner.wait_for_line(Duration::from_secs(120), |line| line.starts_with("Kafka listens on "))?;
    let id = line.rsplit_once("(process ").and_then(|(_, id)| id.strip_suffix(')')).unwrap_or("none").to_owned();
    let entry = std::path::Path::new("/proc").join(&id);
    let command = std::fs::read_to_string(entry.join("cmdline"))?;
    assert!(command.contains("kafka.Kafka"), "{command}");
    let folder = command.split('\0').find_map(|part| part.strip_suffix("/server.properties")).unwrap_or("none");
    assert!(std::path::Path::new(folder).is_dir(), "{folder}");
    owner.kill9()?;
    eventually(Duration::from_secs(60), "the broker and its folder to be gone", || {
        // A zombie that nobody waits for has no command line.
        let gone = std::fs::read(entry.join("cmdline")).is_ok_and(|text| text.is_empty()) || !entry.exists();
        let removed = !std::path::Path::new(folder).exists();
        if gone && removed { Ok(()) } else { Err(format!("process gone: {gone}, folder gone: {removed}")) }
    })
}

#[test]
fn without_jars_the_failure_says_what_to_install() -> Result<(), Failure> {
    let home = tempfile::tempdir()?;
    let empty = home.path().join("libs");
    std::fs::create_dir(&empty)?;
    let program = Program::new(env!("CARGO_BIN_EXE_kafka")).env("HEADWATER_KAFKA_LIBS", empty.display().to_string());
    let mut process = Process::spawn("no jars", home.path(), program)?;
    let status = process.wait(Duration::from_secs(60))?;
    assert_eq!(status.code(), Some(1));
    let text = process.lines().join("\n");
    assert!(text.contains(&empty.display().to_string()), "{text}");
    assert!(text.contains("KAFKA_BOOTSTRAP_SERVERS") && text.contains("scripts/setup.sh"), "{text}");
    Ok(())
}
