use std::collections::BTreeSet;
use std::thread;
use std::time::{Duration, Instant};

use rdkafka::consumer::{BaseConsumer, Consumer};
use rdkafka::error::KafkaError;
use rdkafka::{ClientConfig, Message, Offset, TopicPartitionList};

use crate::{Failure, Record, unique};

/// Time for one request.
const TIMEOUT: Duration = Duration::from_secs(30);
/// Longest time without anything from the broker while a topic is read.
const SILENCE: Duration = Duration::from_secs(60);
/// Longest wait in one poll.
const POLL: Duration = Duration::from_millis(100);

/// Which records of transactions are read, and where a partition ends.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub enum Isolation {
    /// Records outside transactions and of committed ones, up to the last stable offset.
    Committed,
    /// Every record, also of open and aborted transactions, up to the high watermark.
    Uncommitted,
}

impl Isolation {
    fn setting(self) -> &'static str {
        match self {
            Self::Committed => "read_committed",
            Self::Uncommitted => "read_uncommitted",
        }
    }
}

/// Reads topics with a consumer of its own, independent of the engine, and tells what is there.
///
/// It joins no group and commits nothing.
#[derive(Debug, Clone)]
pub struct Judge {
    bootstrap: String,
}

impl Judge {
    /// A judge over the cluster at `bootstrap`.
    pub fn new(bootstrap: impl Into<String>) -> Self {
        Self { bootstrap: bootstrap.into() }
    }

    /// Reads a whole topic, from the start of each partition's log to its end as it is at the call. The outer index is
    /// the partition; records are in the order of their offsets.
    ///
    /// # Errors
    /// When there is no such topic, or the broker stays silent for a minute.
    pub fn read_topic(&self, topic: &str, isolation: Isolation) -> Result<Vec<Vec<Record>>, Failure> {
        self.read_from(topic, &[], isolation)
    }

    /// As [`read_topic`](Self::read_topic), from these offsets on, one for each partition; a partition without one is
    /// read from its start.
    ///
    /// # Errors
    /// As [`read_topic`](Self::read_topic).
    pub fn read_from(&self, topic: &str, from: &[i64], isolation: Isolation) -> Result<Vec<Vec<Record>>, Failure> {
        let reader = self.reader(&unique("judge"), isolation)?;
        let reader = reader.consumer()?;
        let ends = ends_of(reader, topic)?;
        let mut records: Vec<Vec<Record>> = ends.iter().map(|_| Vec::new()).collect();
        let mut open = BTreeSet::new();
        let mut assignment = TopicPartitionList::new();
        for (index, (partition, (start, end))) in (0..).zip(&ends).enumerate() {
            let start = from.get(index).map_or(*start, |from| (*from).max(*start));
            if start < *end {
                open.insert(partition);
                assignment.add_partition_offset(topic, partition, Offset::Offset(start))?;
            }
        }
        reader.assign(&assignment)?;
        let mut heard = Instant::now();
        while !open.is_empty() {
            match reader.poll(POLL) {
                Some(Ok(message)) => {
                    heard = Instant::now();
                    let partition = message.partition();
                    let index = usize::try_from(partition).unwrap_or(usize::MAX);
                    let (Some(read), Some((_, end))) = (records.get_mut(index), ends.get(index)) else {
                        return Err(Failure::new(format!(
                            "{topic} was read from its partition {partition}, which it has not"
                        )));
                    };
                    if message.offset() < *end {
                        read.push(Record::from(&message));
                    }
                    if message.offset().saturating_add(1) >= *end {
                        open.remove(&partition);
                    }
                }
                // The end may be markers of transactions, which no consumer sees: then only this tells that it is
                // reached. It comes at the end as it is now, which is not before the one at the call.
                Some(Err(KafkaError::PartitionEOF(partition))) => {
                    heard = Instant::now();
                    open.remove(&partition);
                }
                Some(Err(error)) if heard.elapsed() > SILENCE => {
                    return Err(Failure::from(error).during(format!("reading {topic}")));
                }
                None if heard.elapsed() > SILENCE => {
                    let seconds = SILENCE.as_secs();
                    return Err(Failure::new(format!(
                        "reading {topic}: nothing for {seconds} s, partitions {open:?} not at their end"
                    )));
                }
                // A lost connection is reported and taken up again by the client itself.
                Some(Err(_)) | None => {}
            }
        }
        Ok(records)
    }

    /// Where each partition starts and ends: first offset kept, and one past the last record or marker that this
    /// isolation may pass.
    ///
    /// Right after a commit the [`Isolation::Committed`] end may still lie before it: the broker answers a commit
    /// before it has written the markers.
    ///
    /// # Errors
    /// When there is no such topic or the broker does not answer.
    pub fn ends(&self, topic: &str, isolation: Isolation) -> Result<Vec<(i64, i64)>, Failure> {
        ends_of(self.reader(&unique("judge"), isolation)?.consumer()?, topic)
    }

    /// The offset committed by `group` for each partition of `topic`, `None` where there is none.
    ///
    /// Offsets that are part of an open transaction are waited for.
    ///
    /// # Errors
    /// When there is no such topic, or such a transaction stays open for 30 s.
    pub fn committed(&self, group: &str, topic: &str) -> Result<Vec<Option<i64>>, Failure> {
        let reader = self.reader(group, Isolation::Committed)?;
        let reader = reader.consumer()?;
        let mut wanted = TopicPartitionList::new();
        let count = partition_count(reader, topic)?;
        for partition in 0..count {
            wanted.add_partition(topic, partition);
        }
        let found = reader
            .committed_offsets(wanted, TIMEOUT)
            .map_err(|error| Failure::from(error).during(format!("offsets of group {group} in {topic}")))?;
        (0..count)
            .map(|partition| {
                let element = found.find_partition(topic, partition);
                match element.map(|element| (element.error(), element.offset())) {
                    Some((Ok(()), Offset::Offset(offset))) => Ok(Some(offset)),
                    Some((Ok(()), _)) => Ok(None),
                    Some((Err(error), _)) => {
                        Err(Failure::from(error).during(format!("offset of group {group} in {topic}/{partition}")))
                    }
                    None => Err(Failure::new(format!("no answer on {topic}/{partition} for group {group}"))),
                }
            })
            .collect()
    }

    /// Records of aborted transactions: those that a read-uncommitted consumer sees and a read-committed one does not,
    /// below the last stable offset. Empty where no transaction with records was ever aborted.
    ///
    /// # Errors
    /// As [`read_topic`](Self::read_topic).
    pub fn aborted(&self, topic: &str) -> Result<Vec<Record>, Failure> {
        self.aborted_from(topic, &[])
    }

    /// As [`aborted`](Self::aborted), from these offsets on, one for each partition.
    ///
    /// # Errors
    /// As [`read_topic`](Self::read_topic).
    pub fn aborted_from(&self, topic: &str, from: &[i64]) -> Result<Vec<Record>, Failure> {
        // Read in this order: what is stable at the first call can only be committed or aborted at the second.
        let stable = self.ends(topic, Isolation::Committed)?;
        let committed: BTreeSet<(i32, i64)> = self
            .read_from(topic, from, Isolation::Committed)?
            .iter()
            .flatten()
            .map(|record| (record.partition, record.offset))
            .collect();
        let all = self.read_from(topic, from, Isolation::Uncommitted)?;
        Ok(all
            .into_iter()
            .zip(stable)
            .flat_map(|(records, (_, end))| records.into_iter().filter(move |record| record.offset < end))
            .filter(|record| !committed.contains(&(record.partition, record.offset)))
            .collect())
    }

    pub(crate) fn reader(&self, group: &str, isolation: Isolation) -> Result<Reader, Failure> {
        let consumer = ClientConfig::new()
            .set("bootstrap.servers", &self.bootstrap)
            .set("group.id", group)
            .set("isolation.level", isolation.setting())
            .set("enable.auto.commit", "false")
            .set("enable.auto.offset.store", "false")
            .set("enable.partition.eof", "true")
            .set("auto.offset.reset", "error")
            .set("check.crcs", "true")
            .set("fetch.wait.max.ms", "50")
            .set("fetch.queue.backoff.ms", "10")
            .create()?;
        Ok(Reader(Some(consumer)))
    }
}

/// A consumer that is closed on a thread of its own: the close waits without a limit, and a test must not hang on it.
pub(crate) struct Reader(Option<BaseConsumer>);

impl Reader {
    pub(crate) fn consumer(&self) -> Result<&BaseConsumer, Failure> {
        self.0.as_ref().ok_or_else(|| Failure::new("the judge's consumer is closed"))
    }
}

impl Drop for Reader {
    fn drop(&mut self) {
        let consumer = self.0.take();
        // Where no thread can be had the consumer is closed here.
        let _ = thread::Builder::new().name("judge-close".to_owned()).spawn(move || drop(consumer));
    }
}

fn ends_of(reader: &BaseConsumer, topic: &str) -> Result<Vec<(i64, i64)>, Failure> {
    (0..partition_count(reader, topic)?)
        .map(|partition| {
            // Asked with the consumer's own isolation level, so that the end is the last stable offset for
            // read_committed.
            reader
                .fetch_watermarks(topic, partition, TIMEOUT)
                .map_err(|error| Failure::from(error).during(format!("end of {topic}/{partition}")))
        })
        .collect()
}

fn partition_count(reader: &BaseConsumer, topic: &str) -> Result<i32, Failure> {
    let metadata = reader.fetch_metadata(Some(topic), TIMEOUT)?;
    let count =
        metadata.topics().iter().find(|found| found.name() == topic).map_or(0, |found| found.partitions().len());
    match i32::try_from(count) {
        Ok(count) if count > 0 => Ok(count),
        _ => Err(Failure::new(format!("no topic {topic} at the broker"))),
    }
}
