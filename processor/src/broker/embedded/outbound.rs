//! What a producer gathers, per partition, until the log takes it; and how far it was taken.

use std::collections::VecDeque;
use std::sync::Arc;

use super::chunk::{CHUNK_BYTES, Chunk};
use super::state::Shared;
use super::topic::unknown;
use crate::broker::{BrokerError, ErrorClass, OutRecord, Result, TopicHandle};
use crate::record::TopicPartition;

/// A partition by the places of its topic and itself in the lists here.
type Place = (usize, usize);

#[derive(Debug, Default)]
struct Outgoing {
    chunk: Chunk,
    // One past the last record that the log has taken, and the same as far as was told.
    written: Option<i64>,
    acknowledged: Option<i64>,
}

#[derive(Debug)]
struct OutTopic {
    name: Arc<str>,
    max_record: usize,
    compacted: bool,
    partitions: Vec<Outgoing>,
}

#[derive(Debug, Default)]
pub(super) struct Outbound {
    topics: Vec<OutTopic>,
    // Partitions with records that the log has not taken, in the order of their first.
    filled: VecDeque<Place>,
    // Partitions with records that were taken and not told of.
    taken: Vec<Place>,
    backlog: usize,
    // Of the backlog: taken or lost, and not told of.
    settled: usize,
}

/// The records of one partition, on their way to the log.
#[derive(Debug)]
pub(super) struct Parcel {
    pub(super) at: TopicPartition,
    pub(super) place: Place,
    pub(super) chunk: Chunk,
}

impl Outbound {
    /// Makes a topic known.
    pub(super) fn topic(&mut self, shared: &Shared, name: &str) -> Result<TopicHandle> {
        let known = self.topics.iter().position(|topic| *topic.name == *name);
        let place = match known {
            Some(place) => place,
            None => {
                let state = shared.lock();
                let topic = state.topics.get(name).ok_or_else(|| unknown(&TopicPartition::new(name, 0)))?;
                self.topics.push(OutTopic {
                    name: Arc::from(name),
                    max_record: topic.max_record,
                    compacted: topic.compacted,
                    partitions: Vec::new(),
                });
                self.topics.len().saturating_sub(1)
            }
        };
        Ok(TopicHandle(u32::try_from(place).unwrap_or(u32::MAX)))
    }

    /// Copies a record. Says whether its partition has enough to be handed over.
    pub(super) fn push(
        &mut self,
        shared: &Shared,
        topic: TopicHandle,
        partition: i32,
        record: &OutRecord<'_>,
    ) -> Result<bool> {
        let place = usize::try_from(topic.0).unwrap_or(usize::MAX);
        let Some(out) = self.topics.get_mut(place) else {
            return Err(BrokerError::new(ErrorClass::UnknownTopic, format!("{topic:?} is no topic of this producer")));
        };
        out.check(record)?;
        let slot = usize::try_from(partition).unwrap_or(usize::MAX);
        let outgoing = out.partition(shared, partition, slot)?;
        let first = outgoing.chunk.is_empty();
        outgoing.chunk.push(record)?;
        let full = outgoing.chunk.bytes() >= CHUNK_BYTES;
        if first {
            self.filled.push_back((place, slot));
        }
        self.backlog = self.backlog.saturating_add(1);
        Ok(full)
    }

    /// Whether nothing waits to be handed over.
    pub(super) fn is_empty(&self) -> bool {
        self.filled.is_empty()
    }

    /// Takes what one partition has. Whatever becomes of it, its records are no longer waited for.
    pub(super) fn take(&mut self) -> Option<Parcel> {
        let place = self.filled.pop_front()?;
        let topic = self.topics.get_mut(place.0)?;
        let outgoing = topic.partitions.get_mut(place.1)?;
        let next = Chunk::sized_like(&outgoing.chunk);
        let chunk = std::mem::replace(&mut outgoing.chunk, next);
        self.settled = self.settled.saturating_add(chunk.len());
        let partition = i32::try_from(place.1).unwrap_or(i32::MAX);
        Some(Parcel { at: TopicPartition::new(Arc::clone(&topic.name), partition), place, chunk })
    }

    /// The log has taken a parcel; `end` is the offset after its last record.
    pub(super) fn taken(&mut self, place: Place, end: i64) {
        if let Some(outgoing) = self.at(place) {
            outgoing.written = Some(end);
            self.taken.push(place);
        }
    }

    /// Forgets what the log has not taken.
    pub(super) fn discard(&mut self) {
        for place in std::mem::take(&mut self.filled) {
            if let Some(outgoing) = self.at(place) {
                let lost = std::mem::take(&mut outgoing.chunk).len();
                self.settled = self.settled.saturating_add(lost);
            }
        }
    }

    /// Tells of what was taken or lost: it is no backlog any more.
    pub(super) fn settle(&mut self) {
        self.backlog = self.backlog.saturating_sub(std::mem::take(&mut self.settled));
        for place in std::mem::take(&mut self.taken) {
            if let Some(outgoing) = self.at(place) {
                outgoing.acknowledged = outgoing.written;
            }
        }
    }

    /// Records that were pushed and not told of.
    pub(super) fn backlog(&self) -> usize {
        self.backlog
    }

    /// One past the last record of a partition that was told of.
    pub(super) fn acknowledged(&self, topic: TopicHandle, partition: i32) -> Option<i64> {
        let topic = self.topics.get(usize::try_from(topic.0).ok()?)?;
        topic.partitions.get(usize::try_from(partition).ok()?)?.acknowledged
    }

    fn at(&mut self, (topic, partition): Place) -> Option<&mut Outgoing> {
        self.topics.get_mut(topic)?.partitions.get_mut(partition)
    }
}

impl OutTopic {
    /// Whether the topic takes such a record.
    fn check(&self, record: &OutRecord<'_>) -> Result<()> {
        let name = &self.name;
        if self.compacted && record.key.is_none() {
            return Err(BrokerError::new(
                ErrorClass::Fatal,
                format!("topic {name} is compacted: a record without a key is not accepted"),
            ));
        }
        let (size, limit) = (size(record), self.max_record);
        if size > limit {
            return Err(BrokerError::new(
                ErrorClass::TooLarge,
                format!("a record of {size} bytes is too large for topic {name}, whose max.message.bytes is {limit}"),
            ));
        }
        Ok(())
    }

    /// A partition; one that was added to the topic since is looked for.
    fn partition(&mut self, shared: &Shared, partition: i32, slot: usize) -> Result<&mut Outgoing> {
        if slot >= self.partitions.len() {
            let state = shared.lock();
            state.partition(&TopicPartition::new(Arc::clone(&self.name), partition))?;
            let count = state.topics.get(&self.name).map_or(0, |topic| topic.partitions.len());
            drop(state);
            self.partitions.resize_with(count, Outgoing::default);
        }
        let name = &self.name;
        self.partitions.get_mut(slot).ok_or_else(|| unknown(&TopicPartition::new(Arc::clone(name), partition)))
    }
}

/// Bytes of key, value and headers.
fn size(record: &OutRecord<'_>) -> usize {
    let length = |part: Option<&[u8]>| part.map_or(0, <[u8]>::len);
    record.headers.iter().fold(length(record.key).saturating_add(length(record.value)), |sum, (name, value)| {
        sum.saturating_add(name.len()).saturating_add(length(value))
    })
}
