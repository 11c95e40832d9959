//! Committed positions of a group, and those that open transactions hold.

use std::collections::BTreeMap;

use crate::broker::{FetchedOffset, GroupError, OffsetAndMetadata};
use crate::record::TopicPartition;

/// Positions to commit, per partition.
pub(super) type Positions = Vec<(TopicPartition, OffsetAndMetadata)>;

#[derive(Debug, Default)]
pub(super) struct Offsets {
    committed: BTreeMap<TopicPartition, OffsetAndMetadata>,
    // By producer id: what its transaction would commit.
    pending: BTreeMap<i64, BTreeMap<TopicPartition, OffsetAndMetadata>>,
}

impl Offsets {
    pub(super) fn commit(&mut self, positions: Positions) {
        self.committed.extend(positions);
    }

    /// Holds positions until the producer's transaction ends.
    pub(super) fn hold(&mut self, producer_id: i64, positions: Positions) {
        self.pending.entry(producer_id).or_default().extend(positions);
    }

    /// Ends the producer's transaction: what it held is committed or forgotten.
    pub(super) fn end_transaction(&mut self, producer_id: i64, commit: bool) {
        if let Some(held) = self.pending.remove(&producer_id)
            && commit
        {
            self.committed.extend(held);
        }
    }

    /// What is committed, unless an open transaction may change it.
    pub(super) fn stable(&self, partitions: Vec<TopicPartition>) -> Result<Vec<FetchedOffset>, GroupError> {
        let held = |at: &TopicPartition| self.pending.values().any(|held| held.contains_key(at));
        if partitions.iter().any(held) {
            return Err(GroupError::UnstableOffsets);
        }
        Ok(partitions
            .into_iter()
            .map(|at| {
                let found = self.committed.get(&at).cloned();
                (at, found)
            })
            .collect())
    }

    /// What is committed for one partition, whatever transactions are open.
    pub(super) fn committed(&self, at: &TopicPartition) -> Option<&OffsetAndMetadata> {
        self.committed.get(at)
    }
}
