use std::time::Duration;

use rdkafka::admin::{AdminClient, AdminOptions, NewTopic, TopicReplication};
use rdkafka::client::DefaultClientContext;
use rdkafka::consumer::{BaseConsumer, Consumer};
use rdkafka::{ClientConfig, Offset, TopicPartitionList};
use tokio::runtime::Runtime;

use crate::ports::random;
use crate::{Failure, eventually};

/// Time for one request of administration.
const TIMEOUT: Duration = Duration::from_secs(30);

/// A name no other test uses, also not one of another test process or of an earlier run on the same cluster: `prefix`
/// and 16 hexadecimal digits.
#[must_use]
pub fn unique(prefix: &str) -> String {
    format!("{prefix}-{:016x}", random())
}

/// Creates, deletes and empties topics.
pub struct Topics {
    admin: AdminClient<DefaultClientContext>,
    reader: BaseConsumer,
    runtime: Runtime,
}

impl std::fmt::Debug for Topics {
    fn fmt(&self, f: &mut std::fmt::Formatter<'_>) -> std::fmt::Result {
        f.debug_struct("Topics").finish_non_exhaustive()
    }
}

impl Topics {
    /// A client of the cluster at `bootstrap`.
    ///
    /// # Errors
    /// When no client can be made.
    pub fn new(bootstrap: &str) -> Result<Self, Failure> {
        let mut config = ClientConfig::new();
        config.set("bootstrap.servers", bootstrap);
        Ok(Self {
            admin: config.create()?,
            reader: config.create()?,
            runtime: tokio::runtime::Builder::new_current_thread().enable_time().build()?,
        })
    }

    /// Creates a topic of `partitions` partitions, one replica each, with these settings, and waits until every
    /// partition has a leader.
    ///
    /// Unless a setting says otherwise its records are kept for ever: retention goes by their timestamps, and those of
    /// a [`Stream`](crate::Stream) are of the past.
    ///
    /// # Errors
    /// When the broker refuses, or a leader is missing after 30 s.
    pub fn create(&self, name: &str, partitions: i32, settings: &[(&str, &str)]) -> Result<(), Failure> {
        let mut topic = NewTopic::new(name, partitions, TopicReplication::Fixed(1));
        if !settings.iter().any(|(key, _)| *key == "retention.ms") {
            topic = topic.set("retention.ms", "-1");
        }
        let topic = settings.iter().fold(topic, |topic, (key, value)| topic.set(key, value));
        let results = self.runtime.block_on(self.admin.create_topics([&topic], &options()))?;
        for result in results {
            result.map_err(|(topic, code)| Failure::new(format!("cannot create topic {topic}: {code}")))?;
        }
        self.await_leaders(name, partitions)
    }

    /// Deletes a topic and waits until the cluster no longer names it.
    ///
    /// # Errors
    /// When the broker refuses, or still names it after 30 s.
    pub fn delete(&self, name: &str) -> Result<(), Failure> {
        for result in self.runtime.block_on(self.admin.delete_topics(&[name], &options()))? {
            result.map_err(|(topic, code)| Failure::new(format!("cannot delete topic {topic}: {code}")))?;
        }
        eventually(TIMEOUT, &format!("topic {name} to be gone"), || match self.partitions(name) {
            Ok(count) => Err(format!("{count} partitions")),
            Err(_) => Ok(()),
        })
    }

    /// Deletes the records of one partition below `before`, so that its log starts there.
    ///
    /// # Errors
    /// When the broker refuses, as for an offset beyond the end.
    pub fn delete_records(&self, topic: &str, partition: i32, before: i64) -> Result<(), Failure> {
        let mut offsets = TopicPartitionList::new();
        offsets.add_partition_offset(topic, partition, Offset::Offset(before))?;
        let outcome = self.runtime.block_on(self.admin.delete_records(&offsets, &options()))?;
        for element in outcome.elements() {
            element.error().map_err(|error| {
                Failure::new(format!("cannot delete the records of {topic}/{partition} below {before}: {error}"))
            })?;
        }
        Ok(())
    }

    /// How many partitions a topic has.
    ///
    /// # Errors
    /// When there is no such topic or the cluster does not answer.
    pub fn partitions(&self, topic: &str) -> Result<i32, Failure> {
        let leaders = self.leaders(topic)?;
        i32::try_from(leaders.len())
            .map_err(|_| Failure::new(format!("topic {topic} has {} partitions", leaders.len())))
    }

    fn await_leaders(&self, topic: &str, partitions: i32) -> Result<(), Failure> {
        eventually(TIMEOUT, &format!("leaders of the {partitions} partitions of {topic}"), || {
            let leaders = self.leaders(topic).map_err(|failure| failure.to_string())?;
            let led = leaders.iter().filter(|leader| **leader >= 0).count();
            if usize::try_from(partitions).is_ok_and(|wanted| wanted == led) {
                Ok(())
            } else {
                Err(format!("{led} with a leader"))
            }
        })
    }

    /// The leader of each partition, negative where there is none.
    fn leaders(&self, topic: &str) -> Result<Vec<i32>, Failure> {
        let metadata = self.reader.fetch_metadata(Some(topic), TIMEOUT)?;
        let found = metadata.topics().iter().find(|found| found.name() == topic);
        match found {
            Some(found) if found.error().is_none() && !found.partitions().is_empty() => {
                Ok(found.partitions().iter().map(rdkafka::metadata::MetadataPartition::leader).collect())
            }
            _ => Err(Failure::new(format!("no topic {topic}"))),
        }
    }
}

fn options() -> AdminOptions {
    AdminOptions::new().operation_timeout(Some(TIMEOUT)).request_timeout(Some(TIMEOUT))
}
