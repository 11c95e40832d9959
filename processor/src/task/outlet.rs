//! The way out of a worker: its producer, and the topics of the plan that it writes.

use std::sync::Arc;

use crate::broker::{OutRecord, Producer, TopicHandle};
use crate::error::{Error, Result};
use crate::topology::OutputIndex;

/// A topic that is written: its name and how many partitions it has.
#[derive(Clone, Debug)]
pub(crate) struct OutgoingTopic {
    pub(crate) name: Arc<str>,
    pub(crate) partitions: i32,
}

#[derive(Debug)]
struct Known {
    handle: TopicHandle,
    partitions: i32,
    // Where the next record without a key goes: they are spread evenly.
    next: i32,
}

/// A producer with its topics registered, in the order of the plan.
pub(crate) struct Outlet {
    producer: Box<dyn Producer>,
    topics: Vec<Known>,
}

impl Outlet {
    /// Registers the plan's topics with a producer.
    pub(crate) fn new(mut producer: Box<dyn Producer>, topics: &[OutgoingTopic]) -> Result<Self> {
        let mut known = Vec::with_capacity(topics.len());
        for topic in topics {
            known.push(Known { handle: producer.topic(&topic.name)?, partitions: topic.partitions, next: 0 });
        }
        Ok(Self { producer, topics: known })
    }

    fn known(&self, topic: OutputIndex) -> Result<&Known> {
        self.topics.get(topic.0).ok_or_else(|| Error::Engine(format!("output {} is not in the plan", topic.0)))
    }

    /// How many partitions a topic has.
    #[inline]
    pub(crate) fn partitions(&self, topic: OutputIndex) -> Result<i32> {
        Ok(self.known(topic)?.partitions)
    }

    /// The partition for the next record without a key.
    pub(crate) fn next_partition(&mut self, topic: OutputIndex) -> Result<i32> {
        let partitions = self.partitions(topic)?;
        let Some(known) = self.topics.get_mut(topic.0) else {
            return Ok(0);
        };
        let chosen = known.next;
        known.next = (chosen + 1).checked_rem(partitions).unwrap_or(0);
        Ok(chosen)
    }

    /// Hands a record to the producer.
    #[inline]
    pub(crate) fn send(&mut self, topic: OutputIndex, partition: i32, record: &OutRecord<'_>) -> Result<()> {
        let handle = self.known(topic)?.handle;
        Ok(self.producer.send(handle, partition, record)?)
    }

    /// One past the last acknowledged offset of ours in a partition.
    pub(crate) fn acknowledged(&self, topic: OutputIndex, partition: i32) -> Result<Option<i64>> {
        let handle = self.known(topic)?.handle;
        Ok(self.producer.acknowledged(handle, partition))
    }

    /// The producer itself, for its transactions and its acknowledgements.
    pub(crate) fn producer(&mut self) -> &mut dyn Producer {
        &mut *self.producer
    }
}
