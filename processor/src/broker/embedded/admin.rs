//! Questions and orders about topics; and those only an embedded broker takes, for tests and tools.

use std::collections::BTreeMap;
use std::sync::Arc;

use super::Embedded;
use super::chunk::Kind;
use super::group::GroupState;
use super::log::NotInLog;
use super::state::{Shared, State};
use super::topic::{Topic, unknown};
use crate::broker::{Admin, BrokerError, Edge, ErrorClass, NewTopic, OffsetAndMetadata, Result, TopicInfo};
use crate::record::{Headers, Timestamp, TopicPartition};

#[derive(Debug)]
pub(super) struct EmbeddedAdmin {
    pub(super) shared: Arc<Shared>,
}

impl Admin for EmbeddedAdmin {
    fn cluster_id(&mut self) -> Result<String> {
        // Its log begins with the process: state that an earlier run left on disk must not look as if it were ours.
        Ok(format!("embedded-{}", self.shared.started))
    }

    fn topics(&mut self, names: &[&str]) -> Result<Vec<Option<TopicInfo>>> {
        let state = self.shared.lock();
        let info = |topic: &Topic| TopicInfo { partitions: topic.count(), id: topic.id.clone() };
        Ok(names.iter().map(|name| state.topics.get(*name).map(info)).collect())
    }

    fn create_topics(&mut self, topics: &[NewTopic]) -> Result<()> {
        let mut state = self.shared.lock();
        topics.iter().try_for_each(|topic| create(&mut state, topic))
    }

    fn offsets(&mut self, partitions: &[TopicPartition], edge: Edge) -> Result<Vec<i64>> {
        let state = self.shared.lock();
        partitions
            .iter()
            .map(|at| {
                let log = &state.partition(at)?.log;
                Ok(match edge {
                    Edge::Start => log.start(),
                    Edge::End => log.end(),
                    Edge::Stable => log.stable(),
                })
            })
            .collect()
    }
}

fn create(state: &mut State, wanted: &NewTopic) -> Result<()> {
    if !state.topics.contains_key(wanted.name.as_str()) {
        let number = state.fresh();
        let topic = Topic::new(wanted, format!("00000000-0000-4000-8000-{number:012x}"))?;
        state.topics.insert(Arc::from(wanted.name.as_str()), topic);
    }
    Ok(())
}

/// An entry of a partition as the log holds it, whoever may see it.
#[derive(Clone, Debug, PartialEq, Eq)]
pub struct LogEntry {
    /// Its offset.
    pub offset: i64,
    /// Event time of a record, the broker's time for a marker; ms.
    pub timestamp: Timestamp,
    /// Key; `None` is null.
    pub key: Option<Vec<u8>>,
    /// Value; `None` is null.
    pub value: Option<Vec<u8>>,
    /// Headers.
    pub headers: Headers,
    /// Who wrote it.
    pub producer_id: i64,
    /// The producer's epoch then.
    pub producer_epoch: i16,
    /// What it is to transactions.
    pub kind: EntryKind,
}

/// What an entry of the log is to transactions.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub enum EntryKind {
    /// A record outside transactions.
    Plain,
    /// A record of a transaction.
    Transactional,
    /// The marker of a commit.
    CommitMarker,
    /// The marker of an abort.
    AbortMarker,
}

/// Orders and questions that go beyond what the engine needs of a log.
impl Embedded {
    /// A topic's settings as they were given.
    #[must_use]
    pub fn topic_settings(&self, topic: &str) -> Option<BTreeMap<String, String>> {
        self.shared.lock().topics.get(topic).map(|topic| topic.settings.clone())
    }

    /// All topics, by name.
    #[must_use]
    pub fn topic_names(&self) -> Vec<Arc<str>> {
        self.shared.lock().topics.keys().cloned().collect()
    }

    /// Deletes a topic with its records; one that does not exist is no error. Consumers and producers that know it
    /// get errors of class [`ErrorClass::UnknownTopic`].
    pub fn delete_topic(&self, topic: &str) {
        let removed = self.shared.lock().topics.remove(topic);
        for reader in removed.iter().flat_map(|topic| &topic.partitions).flat_map(|one| &one.readers) {
            reader.waker.wake();
        }
    }

    /// Adds empty partitions until a topic has `partitions` of them; it never gets fewer.
    ///
    /// # Errors
    /// The topic does not exist.
    pub fn grow_topic(&self, topic: &str, partitions: i32) -> Result<()> {
        let mut state = self.shared.lock();
        let found = state.topics.get_mut(topic).ok_or_else(|| unknown(&TopicPartition::new(topic, 0)))?;
        while found.count() < partitions {
            found.partitions.push(super::topic::Partition::default());
        }
        Ok(())
    }

    /// Deletes a partition's records before an offset, which becomes its start.
    ///
    /// # Errors
    /// The partition does not exist, or the offset is negative or past its end.
    pub fn delete_records(&self, at: &TopicPartition, before: i64) -> Result<()> {
        let mut state = self.shared.lock();
        let deleted = state.partition_mut(at)?.change(|log| log.delete_before(before));
        deleted.map_err(|held| out_of_range(at, before, held))
    }

    /// Compacts every partition of a topic now: of what is stable, the last record of each key stays, tombstones
    /// too. Offsets stay as they are. Nothing is compacted unless this is called.
    ///
    /// # Errors
    /// The topic does not exist, or its `cleanup.policy` has no `compact`.
    pub fn compact(&self, topic: &str) -> Result<()> {
        let mut state = self.shared.lock();
        let found = state.topics.get_mut(topic).ok_or_else(|| unknown(&TopicPartition::new(topic, 0)))?;
        if !found.compacted {
            return Err(BrokerError::new(
                ErrorClass::Configuration,
                format!("topic {topic} is not compacted: its cleanup.policy must contain \"compact\""),
            ));
        }
        found.partitions.iter_mut().for_each(|one| one.log.compact());
        Ok(())
    }

    /// All that a partition's log holds, markers and aborted records too.
    ///
    /// # Errors
    /// The partition does not exist.
    pub fn log(&self, at: &TopicPartition) -> Result<Vec<LogEntry>> {
        let state = self.shared.lock();
        let log = &state.partition(at)?.log;
        Ok(log
            .raw()
            .filter_map(|(chunk, index)| {
                let (entry, view) = (chunk.entries().get(index)?, chunk.view(index)?);
                Some(LogEntry {
                    offset: entry.offset,
                    timestamp: entry.timestamp,
                    key: view.key.map(<[u8]>::to_vec),
                    value: view.value.map(<[u8]>::to_vec),
                    headers: chunk.headers_of(index).cloned().unwrap_or_default(),
                    producer_id: entry.stamp.producer_id,
                    producer_epoch: entry.stamp.epoch,
                    kind: match entry.stamp.kind {
                        Kind::Plain => EntryKind::Plain,
                        Kind::Transactional => EntryKind::Transactional,
                        Kind::Commit => EntryKind::CommitMarker,
                        Kind::Abort => EntryKind::AbortMarker,
                    },
                })
            })
            .collect())
    }

    /// What a group has committed for a partition, open transactions left aside.
    #[must_use]
    pub fn committed(&self, group: &str, at: &TopicPartition) -> Option<OffsetAndMetadata> {
        let state = self.shared.lock();
        state.groups.get(group)?.offsets.committed(at).cloned()
    }

    /// Where a group is in a rebalance, and its generation. A group nobody has joined is empty, generation 0.
    #[must_use]
    pub fn group(&self, group: &str) -> (GroupState, i32) {
        let state = self.shared.lock();
        state.groups.get(group).map_or((GroupState::Empty, 0), |group| (group.state(), group.generation()))
    }
}

/// The error for an offset that a partition does not hold.
pub(super) fn out_of_range(at: &TopicPartition, offset: i64, held: NotInLog) -> BrokerError {
    let NotInLog { start, end } = held;
    BrokerError::new(
        ErrorClass::OutOfRange,
        format!("partition {at} does not hold offset {offset}: it has {start} to {end}"),
    )
}
