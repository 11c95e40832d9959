//! Topics of a broker: made, deleted, listed, measured and read from start to end.

use crate::Result;
use rdkafka::admin::{AdminClient, AdminOptions, NewTopic, TopicReplication};
use rdkafka::client::DefaultClientContext;
use rdkafka::config::ClientConfig;
use rdkafka::consumer::{BaseConsumer, Consumer};
use rdkafka::error::{KafkaError, RDKafkaErrorCode};
use rdkafka::message::BorrowedMessage;
use rdkafka::topic_partition_list::{Offset, TopicPartitionList};
use std::future::Future;
use std::pin::pin;
use std::sync::Arc;
use std::task::{Context, Poll, Wake};
use std::thread::{self, Thread};
use std::time::{Duration, Instant};

/// Partitions of every topic of a measurement.
pub const PARTITIONS: i32 = 4;
/// How long one request, or the wait for the next record, may take.
const TIMEOUT: Duration = Duration::from_secs(60);
/// How long one look for the next record takes.
const LOOK: Duration = Duration::from_secs(1);

/// Administration and reading of one cluster's topics.
pub struct Topics {
    bootstrap: String,
    admin: AdminClient<DefaultClientContext>,
    consumer: BaseConsumer,
}

impl std::fmt::Debug for Topics {
    fn fmt(&self, f: &mut std::fmt::Formatter<'_>) -> std::fmt::Result {
        f.debug_struct("Topics").field("bootstrap", &self.bootstrap).finish_non_exhaustive()
    }
}

impl Topics {
    /// Makes clients for the cluster at `bootstrap`; connects later.
    ///
    /// # Errors
    /// When the client cannot be made.
    pub fn new(bootstrap: &str) -> Result<Self> {
        let admin = ClientConfig::new().set("bootstrap.servers", bootstrap).create()?;
        Ok(Self { bootstrap: bootstrap.to_owned(), admin, consumer: reader(bootstrap, "headwater-bench")? })
    }

    /// Creates `topic` with [`PARTITIONS`] partitions. Nothing in it ever expires: event times lie in the past.
    ///
    /// # Errors
    /// When the broker refuses, for instance because the topic exists.
    pub fn create(&self, topic: &str) -> Result<()> {
        let topics = [NewTopic::new(topic, PARTITIONS, TopicReplication::Fixed(1)).set("retention.ms", "-1")];
        for result in wait(self.admin.create_topics(&topics, &options()))? {
            result.map_err(|(topic, code)| format!("create topic {topic}: {code}"))?;
        }
        let deadline = Instant::now() + TIMEOUT;
        while self.ends(topic).is_err() {
            if Instant::now() > deadline {
                return Err(format!("topic {topic} was created but has no leaders after {TIMEOUT:?}").into());
            }
            thread::sleep(Duration::from_millis(20));
        }
        Ok(())
    }

    /// Deletes `topics`.
    ///
    /// # Errors
    /// When the broker refuses.
    pub fn delete(&self, topics: &[&str]) -> Result<()> {
        if topics.is_empty() {
            return Ok(());
        }
        for result in wait(self.admin.delete_topics(topics, &options()))? {
            result.map_err(|(topic, code)| format!("delete topic {topic}: {code}"))?;
        }
        Ok(())
    }

    /// The names of all topics that begin with `prefix`.
    ///
    /// # Errors
    /// When the broker does not answer.
    pub fn with_prefix(&self, prefix: &str) -> Result<Vec<String>> {
        let metadata = self.consumer.fetch_metadata(None, TIMEOUT)?;
        Ok(metadata
            .topics()
            .iter()
            .map(|topic| topic.name())
            .filter(|name| name.starts_with(prefix))
            .map(str::to_owned)
            .collect())
    }

    /// First offset and next offset of each partition of `topic`.
    ///
    /// # Errors
    /// When the topic does not exist or a partition has no leader.
    pub fn ends(&self, topic: &str) -> Result<Vec<(i64, i64)>> {
        let metadata = self.consumer.fetch_metadata(Some(topic), TIMEOUT)?;
        let partitions =
            metadata.topics().iter().find(|found| found.name() == topic).map_or(0, |found| found.partitions().len());
        if partitions == 0 {
            return Err(format!("topic {topic} does not exist").into());
        }
        let mut ends = Vec::with_capacity(partitions);
        for partition in 0..i32::try_from(partitions)? {
            ends.push(self.consumer.fetch_watermarks(topic, partition, TIMEOUT)?);
        }
        Ok(ends)
    }

    /// The offsets that `group` has committed in `topic`, one per partition, `None` where nothing is committed.
    ///
    /// # Errors
    /// When the group's coordinator does not answer.
    pub fn committed(&self, group: &str, topic: &str) -> Result<Vec<Option<i64>>> {
        let consumer = reader(&self.bootstrap, group)?;
        let mut list = TopicPartitionList::new();
        list.add_partition_range(topic, 0, PARTITIONS - 1);
        let committed = consumer.committed_offsets(list, TIMEOUT)?;
        let offset = |offset| {
            if let Offset::Offset(offset) = offset { Some(offset) } else { None }
        };
        Ok(committed.elements().iter().map(|element| offset(element.offset())).collect())
    }

    /// Reads `topic` with isolation `read_committed`, each partition from `from(first, end)` on to its end.
    ///
    /// # Errors
    /// When a fetch fails or stalls, or `each` answers an error.
    pub fn read(
        &self,
        topic: &str,
        from: impl Fn(i64, i64) -> i64,
        mut each: impl FnMut(&BorrowedMessage<'_>) -> Result<()>,
    ) -> Result<()> {
        let mut list = TopicPartitionList::new();
        let mut open = 0;
        for (partition, (first, end)) in (0..).zip(self.ends(topic)?) {
            let start = from(first, end);
            if start < end {
                list.add_partition_offset(topic, partition, Offset::Offset(start))?;
                open += 1;
            }
        }
        self.consumer.assign(&list)?;
        let mut heard = Instant::now();
        while open > 0 {
            match self.consumer.poll(LOOK) {
                Some(Ok(message)) => {
                    each(&message)?;
                    heard = Instant::now();
                }
                Some(Err(KafkaError::PartitionEOF(_))) => open -= 1,
                // The client connects again by itself; what counts is whether records come.
                Some(Err(KafkaError::MessageConsumption(
                    RDKafkaErrorCode::AllBrokersDown | RDKafkaErrorCode::BrokerTransportFailure,
                )))
                | None => {}
                Some(Err(error)) => return Err(format!("read topic {topic}: {error}").into()),
            }
            if heard.elapsed() > TIMEOUT {
                return Err(
                    format!("read topic {topic}: no record within {TIMEOUT:?}, and its end is not reached").into()
                );
            }
        }
        self.consumer.unassign()?;
        Ok(())
    }
}

fn reader(bootstrap: &str, group: &str) -> Result<BaseConsumer> {
    Ok(ClientConfig::new()
        .set("bootstrap.servers", bootstrap)
        .set("group.id", group)
        .set("enable.auto.commit", "false")
        .set("enable.partition.eof", "true")
        .set("isolation.level", "read_committed")
        .set("fetch.queue.backoff.ms", "10")
        .create()?)
}

fn options() -> AdminOptions {
    AdminOptions::new().request_timeout(Some(TIMEOUT)).operation_timeout(Some(TIMEOUT))
}

/// Wakes the thread that waits.
struct Unpark(Thread);

impl Wake for Unpark {
    fn wake(self: Arc<Self>) {
        self.0.unpark();
    }
}

/// Waits for a future of the client, whose own threads complete it.
fn wait<F: Future>(future: F) -> F::Output {
    let waker = Arc::new(Unpark(thread::current())).into();
    let mut context = Context::from_waker(&waker);
    let mut future = pin!(future);
    loop {
        match future.as_mut().poll(&mut context) {
            Poll::Ready(output) => return output,
            Poll::Pending => thread::park(),
        }
    }
}
