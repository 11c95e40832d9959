//! Reads partitions, and lends what it reads straight from the log's memory.

use std::sync::Arc;

use super::admin::out_of_range;
use super::log::{Limit, Read};
use super::state::{Shared, State};
use super::topic::{Reader, unknown};
use crate::broker::{
    BEGINNING, Batch, BrokerError, Consumer, ConsumerOptions, ErrorClass, Isolation, RecordView, Result, Slot,
};
use crate::record::{Headers, TopicPartition};
use crate::wake::Waker;

#[derive(Debug)]
struct Assigned {
    at: TopicPartition,
    position: i64,
    // The end that was told last: it is told once.
    told: Option<i64>,
}

#[derive(Debug)]
pub(super) struct EmbeddedConsumer {
    shared: Arc<Shared>,
    waker: Waker,
    id: u64,
    isolation: Isolation,
    batch_bytes: usize,
    // By slot; a slot is not used twice.
    slots: Vec<Option<Assigned>>,
}

impl EmbeddedConsumer {
    pub(super) fn new(shared: Arc<Shared>, options: &ConsumerOptions, waker: Waker) -> Self {
        let id = shared.lock().fresh();
        Self { shared, waker, id, isolation: options.isolation, batch_bytes: options.queued_bytes, slots: Vec::new() }
    }

    fn assigned(&mut self, slot: Slot) -> Result<&mut Assigned> {
        usize::try_from(slot.0).ok().and_then(|place| self.slots.get_mut(place)).and_then(Option::as_mut).ok_or_else(
            || BrokerError::new(ErrorClass::Fatal, format!("{slot:?} is not assigned to this consumer (any more)")),
        )
    }
}

impl Consumer for EmbeddedConsumer {
    fn assign(&mut self, starts: &[(TopicPartition, i64)]) -> Result<Vec<Slot>> {
        let mut state = self.shared.lock();
        // All or none.
        for (at, _) in starts {
            state.partition(at)?;
        }
        let mut slots = Vec::with_capacity(starts.len());
        for (at, offset) in starts {
            state.partition_mut(at)?.readers.push(Reader {
                consumer: self.id,
                isolation: self.isolation,
                waker: self.waker.clone(),
            });
            slots.push(Slot(u32::try_from(self.slots.len()).unwrap_or(u32::MAX)));
            self.slots.push(Some(Assigned { at: at.clone(), position: *offset, told: None }));
        }
        // There may be something to read already.
        self.waker.wake();
        Ok(slots)
    }

    fn unassign(&mut self, slots: &[Slot]) -> Result<()> {
        for slot in slots {
            self.assigned(*slot)?;
        }
        let mut state = self.shared.lock_still();
        for slot in slots {
            let place = usize::try_from(slot.0).unwrap_or(usize::MAX);
            if let Some(gone) = self.slots.get_mut(place).and_then(Option::take) {
                forget_reader(&mut state, &gone.at, self.id);
            }
        }
        Ok(())
    }

    fn seek(&mut self, slot: Slot, offset: i64) -> Result<()> {
        let assigned = self.assigned(slot)?;
        assigned.position = offset;
        assigned.told = None;
        self.waker.wake();
        Ok(())
    }

    fn fetch(&mut self, slot: Slot, max: usize) -> Result<Option<Box<dyn Batch>>> {
        if max == 0 {
            return Ok(None);
        }
        let (isolation, bytes) = (self.isolation, self.batch_bytes);
        let shared = Arc::clone(&self.shared);
        let assigned = self.assigned(slot)?;
        let state = shared.lock();
        let Some(partition) = state.find(&assigned.at.topic, assigned.at.partition) else {
            return Err(unknown(&assigned.at));
        };
        if assigned.position == BEGINNING {
            assigned.position = partition.log.start();
        }
        let limit = Limit { records: max, bytes };
        let read = partition
            .log
            .read(assigned.position, limit, isolation)
            .map_err(|held| out_of_range(&assigned.at, assigned.position, held))?;
        drop(state);
        if read.index.is_empty() && assigned.told == Some(read.next) {
            return Ok(None);
        }
        assigned.position = read.next;
        assigned.told = read.at_end.then_some(read.next);
        if !read.at_end {
            // What is left will not arrive again.
            self.waker.wake();
        }
        Ok(Some(Box::new(LogBatch { read })))
    }

    fn poll(&mut self) -> Result<()> {
        // Time-outs are evaluated by whoever calls.
        drop(self.shared.lock());
        Ok(())
    }
}

impl Drop for EmbeddedConsumer {
    fn drop(&mut self) {
        let mut state = self.shared.lock_still();
        for assigned in self.slots.iter().flatten() {
            forget_reader(&mut state, &assigned.at, self.id);
        }
    }
}

/// Takes one entry of the consumer from the partition's list: it may have the partition twice.
fn forget_reader(state: &mut State, at: &TopicPartition, consumer: u64) {
    if let Ok(partition) = state.partition_mut(at)
        && let Some(place) = partition.readers.iter().position(|reader| reader.consumer == consumer)
    {
        partition.readers.remove(place);
    }
}

/// Records that are read; it shares the log's chunks and holds no lock.
struct LogBatch {
    read: Read,
}

impl LogBatch {
    fn place(&self, index: usize) -> Option<(&super::chunk::Chunk, usize)> {
        let (chunk, at) = self.read.index.get(index)?;
        let chunk = self.read.chunks.get(usize::try_from(*chunk).ok()?)?;
        Some((chunk, usize::try_from(*at).ok()?))
    }
}

impl Batch for LogBatch {
    fn len(&self) -> usize {
        self.read.index.len()
    }

    fn record(&self, index: usize) -> Option<RecordView<'_>> {
        let (chunk, at) = self.place(index)?;
        chunk.view(at)
    }

    fn headers(&self, index: usize, into: &mut Headers) {
        let found = self.place(index).and_then(|(chunk, at)| chunk.headers_of(at));
        for (name, value) in found.iter().flat_map(|headers| headers.iter()) {
            into.push(name, value);
        }
    }

    fn next_offset(&self) -> i64 {
        self.read.next
    }

    fn at_end(&self) -> bool {
        self.read.at_end
    }
}
