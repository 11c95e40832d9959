//! One input partition of a task: the batch that is being processed, and the position.

use crate::broker::{Batch, Slot};
use crate::record::{Timestamp, TopicPartition};

/// An input partition.
pub(crate) struct Input {
    partition: TopicPartition,
    slot: Slot,
    batch: Option<Box<dyn Batch>>,
    next: usize,
    head: Option<Timestamp>,
    position: i64,
    committed: i64,
}

impl Input {
    /// An input that goes on at `position`.
    pub(crate) fn new(partition: TopicPartition, slot: Slot, position: i64) -> Self {
        Self { partition, slot, batch: None, next: 0, head: None, position, committed: position }
    }

    /// What it reads.
    pub(crate) fn partition(&self) -> &TopicPartition {
        &self.partition
    }

    /// The consumer's name for it.
    pub(crate) fn slot(&self) -> Slot {
        self.slot
    }

    /// The next offset to process.
    pub(crate) fn position(&self) -> i64 {
        self.position
    }

    /// Whether the position has moved since the last commit.
    pub(crate) fn is_dirty(&self) -> bool {
        self.position != self.committed
    }

    /// The position is committed.
    pub(crate) fn committed(&mut self) {
        self.committed = self.position;
    }

    /// Whether it needs another batch.
    pub(crate) fn is_empty(&self) -> bool {
        self.head.is_none()
    }

    /// Hands it a batch; only when it is empty. A batch without records moves the position alone.
    pub(crate) fn feed(&mut self, batch: Box<dyn Batch>) {
        self.head = batch.record(0).map(|record| record.timestamp);
        self.next = 0;
        if self.head.is_none() {
            self.position = batch.next_offset();
        } else {
            self.batch = Some(batch);
        }
    }

    /// The timestamp of the next record, if there is one.
    #[inline]
    pub(crate) fn head(&self) -> Option<Timestamp> {
        self.head
    }

    /// The next record: its batch and its place there.
    #[inline]
    pub(crate) fn take(&self) -> Option<(&dyn Batch, usize)> {
        self.batch.as_deref().map(|batch| (batch, self.next))
    }

    /// The record that `take` gave is processed.
    #[inline]
    pub(crate) fn done(&mut self) {
        let Some(batch) = &self.batch else { return };
        let processed = batch.record(self.next).map(|record| record.offset);
        self.next += 1;
        match batch.record(self.next) {
            Some(record) => {
                self.head = Some(record.timestamp);
                self.position = processed.map_or(self.position, |offset| offset.saturating_add(1));
            }
            None => {
                self.head = None;
                self.position = batch.next_offset();
                self.batch = None;
            }
        }
    }
}
