//! Topics: their partitions and settings, and who waits for their records.

use std::collections::BTreeMap;

use super::log::Log;
use crate::broker::{BrokerError, ErrorClass, Isolation, NewTopic, Result};
use crate::record::TopicPartition;
use crate::wake::Waker;

/// Kafka's default of `max.message.bytes`.
const MAX_MESSAGE_BYTES: usize = 1_048_588;

/// A consumer that is assigned a partition.
#[derive(Debug)]
pub(super) struct Reader {
    pub(super) consumer: u64,
    pub(super) isolation: Isolation,
    pub(super) waker: Waker,
}

#[derive(Debug, Default)]
pub(super) struct Partition {
    pub(super) log: Log,
    pub(super) readers: Vec<Reader>,
}

impl Partition {
    /// Changes the log and wakes those who can read further than before.
    pub(super) fn change<T>(&mut self, change: impl FnOnce(&mut Log) -> T) -> T {
        let (stable, end) = (self.log.stable(), self.log.end());
        let result = change(&mut self.log);
        let (stable, end) = (self.log.stable() != stable, self.log.end() != end);
        for reader in &self.readers {
            let further = match reader.isolation {
                Isolation::ReadCommitted => stable,
                Isolation::ReadUncommitted => end,
            };
            if further {
                reader.waker.wake();
            }
        }
        result
    }
}

#[derive(Debug)]
pub(super) struct Topic {
    pub(super) id: String,
    pub(super) settings: BTreeMap<String, String>,
    pub(super) partitions: Vec<Partition>,
    /// Largest record, bytes of key, value and headers.
    pub(super) max_record: usize,
    /// Whether every record needs a key.
    pub(super) compacted: bool,
    /// Bytes kept per partition, if bounded.
    pub(super) retention: Option<usize>,
}

impl Topic {
    /// Checks what was asked for and makes the topic.
    pub(super) fn new(wanted: &NewTopic, id: String) -> Result<Self> {
        let bad = |message: String| BrokerError::new(ErrorClass::Configuration, message);
        let name = wanted.name.as_str();
        let legal = |byte: u8| byte.is_ascii_alphanumeric() || b"._-".contains(&byte);
        if name.is_empty() || name.len() > 249 || name == "." || name == ".." || !name.bytes().all(legal) {
            return Err(bad(format!(
                "topic name {name:?}: 1 to 249 of the characters a-z, A-Z, 0-9, '.', '_', '-' are accepted"
            )));
        }
        let count = match wanted.partitions {
            // As Kafka: the broker's default, which is 1.
            -1 => 1,
            count => usize::try_from(count).ok().filter(|count| *count > 0).ok_or_else(|| {
                bad(format!("topic {name}: {count} partitions; 1 or more are accepted, or -1 for the broker's default"))
            })?,
        };
        let settings: BTreeMap<String, String> = wanted.settings.iter().cloned().collect();
        let number = |key: &str| -> Result<Option<i64>> {
            settings
                .get(key)
                .map(|text| {
                    text.parse::<i64>()
                        .map_err(|_| bad(format!("topic {name}: {key}={text:?}; a whole number is accepted")))
                })
                .transpose()
        };
        let policy = settings.get("cleanup.policy").map_or("delete", String::as_str);
        let policies: Vec<&str> = policy.split(',').map(str::trim).collect();
        if let Some(unknown) = policies.iter().find(|policy| !["compact", "delete"].contains(policy)) {
            return Err(bad(format!("topic {name}: cleanup.policy={unknown:?}; compact, delete or both are accepted")));
        }
        let max_record =
            number("max.message.bytes")?.map_or(MAX_MESSAGE_BYTES, |bytes| usize::try_from(bytes).unwrap_or_default());
        let retention = number("retention.bytes")?
            .and_then(|bytes| usize::try_from(bytes).ok())
            .filter(|_| policies.contains(&"delete"));
        Ok(Self {
            id,
            max_record,
            compacted: policies.contains(&"compact"),
            retention,
            settings,
            partitions: std::iter::repeat_with(Partition::default).take(count).collect(),
        })
    }

    /// Number of partitions.
    pub(super) fn count(&self) -> i32 {
        i32::try_from(self.partitions.len()).unwrap_or(i32::MAX)
    }
}

/// The error for a topic or partition that is not there.
pub(super) fn unknown(at: &TopicPartition) -> BrokerError {
    BrokerError::new(
        ErrorClass::UnknownTopic,
        format!("partition {at} does not exist in the embedded broker: create its topic first"),
    )
}
