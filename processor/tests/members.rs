//! Several members on the embedded broker, in one process: they come, go and vanish, and every count stays exact.

#![expect(clippy::unwrap_used, reason = "a test fails by panicking")]

use std::collections::BTreeMap;
use std::path::Path;
use std::sync::Arc;
use std::time::{Duration, Instant};

use headwater::broker::embedded::Embedded;
use headwater::broker::{
    BEGINNING, Broker, ConsumerOptions, Edge, Isolation, NewTopic, OutRecord, Producer, ProducerOptions, TopicHandle,
};
use headwater::prelude::*;
use headwater::record::TopicPartition;
use headwater::time::SystemClock;
use headwater::wake::Waker;
use headwater::{StoreKind, StreamsState};

const PARTITIONS: i32 = 8;
const DEADLINE: Duration = Duration::from_secs(60);

fn topology() -> Topology {
    let builder = StreamsBuilder::new();
    builder
        .stream(&Topic::new("lines", Nullable(Utf8), Utf8))
        .flat_map_values(|line| line.split_whitespace().map(str::to_owned).collect::<Vec<_>>())
        .group_by(|_, word| word.clone(), Grouped::with(Utf8, Utf8))
        .count(&Store::new("counts", Utf8, I64))
        .to_stream()
        .to(&Topic::new("out", Utf8, I64));
    builder.build().unwrap()
}

struct Cluster {
    broker: Arc<dyn Broker>,
    state: tempfile::TempDir,
    feeder: Box<dyn Producer>,
    lines: TopicHandle,
    expected: BTreeMap<String, i64>,
    fed: u64,
}

impl Cluster {
    fn new() -> Self {
        let broker: Arc<dyn Broker> = Arc::new(Embedded::new(Arc::new(SystemClock::new())));
        let new = |name: &str| NewTopic {
            name: name.to_owned(),
            partitions: PARTITIONS,
            replication: -1,
            settings: Vec::new(),
        };
        broker.admin().unwrap().create_topics(&[new("lines"), new("out")]).unwrap();
        let options = ProducerOptions {
            client_id: "feeder".to_owned(),
            transactional_id: None,
            transaction_timeout: Duration::from_secs(10),
            linger: Duration::ZERO,
        };
        let mut feeder = broker.producer(&options, Waker::new()).unwrap();
        let lines = feeder.topic("lines").unwrap();
        let state = tempfile::tempdir().unwrap();
        Self { broker, state, feeder, lines, expected: BTreeMap::new(), fed: 0 }
    }

    fn member(&self, directory: &str, guarantee: Guarantee) -> KafkaStreams {
        let config = StreamsConfig::new("app", "embedded")
            .guarantee(guarantee)
            .threads(2)
            .commit_interval(Duration::from_millis(20))
            .session_timeout(Duration::from_secs(3))
            .heartbeat_interval(Duration::from_millis(50))
            .store(StoreKind::Memory)
            .state_dir(Path::new(self.state.path()).join(directory));
        KafkaStreams::start_on(&topology(), config, Arc::clone(&self.broker)).unwrap()
    }

    fn feed(&mut self, lines: u64) {
        let headers = Headers::new();
        for _ in 0..lines {
            let line = format!("w{} w{} all", self.fed % 17, self.fed % 5);
            for word in line.split(' ') {
                *self.expected.entry(word.to_owned()).or_default() += 1;
            }
            let record =
                OutRecord { timestamp: self.fed as i64, key: None, value: Some(line.as_bytes()), headers: &headers };
            self.feeder.send(self.lines, (self.fed % PARTITIONS as u64) as i32, &record).unwrap();
            self.fed += 1;
        }
        while self.feeder.backlog() > 0 {
            self.feeder.poll().unwrap();
        }
    }

    /// All committed outputs, per word in the order of its partition.
    fn outputs(&self) -> BTreeMap<String, Vec<i64>> {
        let partitions: Vec<_> = (0..PARTITIONS).map(|partition| TopicPartition::new("out", partition)).collect();
        let ends = self.broker.admin().unwrap().offsets(&partitions, Edge::Stable).unwrap();
        let options = ConsumerOptions {
            client_id: "judge".to_owned(),
            isolation: Isolation::ReadCommitted,
            queued_bytes: 1 << 24,
        };
        let mut consumer = self.broker.consumer(&options, Waker::new()).unwrap();
        let starts: Vec<_> = partitions.into_iter().map(|partition| (partition, BEGINNING)).collect();
        let mut outputs: BTreeMap<String, Vec<i64>> = BTreeMap::new();
        for (slot, end) in consumer.assign(&starts).unwrap().into_iter().zip(ends) {
            let mut position = 0;
            while position < end {
                let Some(batch) = consumer.fetch(slot, 1000).unwrap() else { continue };
                for record in (0..batch.len()).filter_map(|index| batch.record(index)) {
                    let word = String::from_utf8(record.key.unwrap().to_vec()).unwrap();
                    let count = i64::from_be_bytes(record.value.unwrap().try_into().unwrap());
                    outputs.entry(word).or_default().push(count);
                }
                position = batch.next_offset();
            }
        }
        outputs
    }

    /// Waits until every word has been counted to its end.
    fn wait(&self) -> BTreeMap<String, Vec<i64>> {
        let until = Instant::now() + DEADLINE;
        loop {
            let outputs = self.outputs();
            let last: BTreeMap<_, _> =
                outputs.iter().filter_map(|(word, counts)| Some((word.clone(), *counts.iter().max()?))).collect();
            if last.iter().all(|(word, count)| self.expected.get(word) <= Some(count))
                && last.len() == self.expected.len()
            {
                return outputs;
            }
            assert!(Instant::now() < until, "counted {last:?} of {:?}", self.expected);
            std::thread::sleep(Duration::from_millis(20));
        }
    }
}

fn until_running(member: &KafkaStreams) {
    let until = Instant::now() + DEADLINE;
    while member.state() != StreamsState::Running || member.tasks().is_empty() {
        assert!(Instant::now() < until, "{:?} with {:?}", member.state(), member.tasks());
        std::thread::sleep(Duration::from_millis(5));
    }
}

#[test]
fn members_that_come_go_and_vanish_leave_every_count_exact() {
    let mut cluster = Cluster::new();
    let mut members: Vec<_> =
        (0..3).map(|index| Some(cluster.member(&index.to_string(), Guarantee::ExactlyOnce))).collect();
    for round in 0..8 {
        cluster.feed(500);
        let member = &mut members[round % 3];
        until_running(member.as_ref().unwrap());
        cluster.feed(500);
        if round % 2 == 0 {
            // Without a last commit: what was open is aborted when its successor takes the transactional id over.
            drop(member.take());
        } else {
            member.take().unwrap().shutdown(DEADLINE).unwrap();
        }
        cluster.feed(500);
        *member = Some(cluster.member(&(round % 3).to_string(), Guarantee::ExactlyOnce));
    }
    for (word, counts) in cluster.wait() {
        let exact: Vec<i64> = (1..=cluster.expected[&word]).collect();
        assert_eq!(counts, exact, "{word}");
    }
    for member in members.into_iter().flatten() {
        member.shutdown(DEADLINE).unwrap();
    }
}

#[test]
fn at_least_once_loses_nothing_when_a_member_vanishes() {
    let mut cluster = Cluster::new();
    let first = cluster.member("a", Guarantee::AtLeastOnce);
    let second = cluster.member("b", Guarantee::AtLeastOnce);
    until_running(&first);
    cluster.feed(2000);
    drop(first);
    cluster.feed(2000);
    for (word, counts) in cluster.wait() {
        // A replay may repeat and overshoot; no count may be left out.
        let mut seen = 0;
        for count in counts {
            assert!(count <= seen + 1, "{word}: {count} after {seen}");
            seen = seen.max(count);
        }
        assert!(seen >= cluster.expected[&word], "{word}");
    }
    second.shutdown(DEADLINE).unwrap();
}

#[test]
fn it_starts_and_stops_from_inside_an_async_runtime() {
    let mut cluster = Cluster::new();
    cluster.feed(100);
    let runtime = tokio::runtime::Builder::new_current_thread().build().unwrap();
    runtime.block_on(async {
        let member = cluster.member("a", Guarantee::ExactlyOnce);
        until_running(&member);
        member.shutdown(DEADLINE).unwrap();
    });
    let member = cluster.member("a", Guarantee::ExactlyOnce);
    cluster.wait();
    assert_eq!(member.figures().aborts, 0);
    member.shutdown(DEADLINE).unwrap();
}

#[test]
fn a_topic_that_is_missing_or_has_other_partitions_is_named() {
    let cluster = Cluster::new();
    let config = |directory: &str| {
        StreamsConfig::new("app", "embedded").store(StoreKind::Memory).state_dir(cluster.state.path().join(directory))
    };
    let builder = StreamsBuilder::new();
    builder.stream(&Topic::new("nowhere", Utf8, Utf8)).to(&Topic::new("out", Utf8, Utf8));
    let missing = KafkaStreams::start_on(&builder.build().unwrap(), config("a"), Arc::clone(&cluster.broker));
    assert!(missing.unwrap_err().to_string().contains("topic nowhere, which does not exist"));

    let wrong =
        NewTopic { name: "app-counts-changelog".to_owned(), partitions: 3, replication: -1, settings: Vec::new() };
    cluster.broker.admin().unwrap().create_topics(&[wrong]).unwrap();
    let wrong = KafkaStreams::start_on(&topology(), config("b"), Arc::clone(&cluster.broker)).unwrap_err().to_string();
    assert!(wrong.contains("app-counts-changelog has 3 partitions where 8 are needed"), "{wrong}");
}
