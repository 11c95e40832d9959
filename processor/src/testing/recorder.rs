//! The test driver's ends of a task: a producer that keeps what is written, a batch of one record.

use std::sync::{Arc, Mutex, PoisonError};

use crate::broker::{
    Batch, BrokerError, ErrorClass, OutRecord, Producer, RecordView, Result, TopicHandle, TransactionCall,
};
use crate::record::{Headers, Timestamp};

/// A record with bytes of its own.
#[derive(Clone, Debug)]
pub(super) struct Recorded {
    pub(super) offset: i64,
    pub(super) timestamp: Timestamp,
    pub(super) key: Option<Vec<u8>>,
    pub(super) value: Option<Vec<u8>>,
    pub(super) headers: Headers,
}

impl Batch for Recorded {
    fn len(&self) -> usize {
        1
    }

    fn record(&self, index: usize) -> Option<RecordView<'_>> {
        let Self { offset, timestamp, key, value, .. } = self;
        let view = RecordView { offset: *offset, timestamp: *timestamp, key: key.as_deref(), value: value.as_deref() };
        (index == 0).then_some(view)
    }

    fn headers(&self, _index: usize, into: &mut Headers) {
        for (name, value) in self.headers.iter() {
            into.push(name, value);
        }
    }

    fn next_offset(&self) -> i64 {
        self.offset.saturating_add(1)
    }

    fn at_end(&self) -> bool {
        true
    }
}

/// What was written and not yet looked at, in the order of all topics together.
pub(super) type Written = Arc<Mutex<Vec<(TopicHandle, Recorded)>>>;

/// A producer whose topics have one partition each; every record is acknowledged at once.
#[derive(Debug, Default)]
pub(super) struct Recorder {
    ends: Vec<i64>,
    written: Written,
}

impl Recorder {
    /// A producer, and what it writes.
    pub(super) fn new() -> (Self, Written) {
        let recorder = Self::default();
        let written = Arc::clone(&recorder.written);
        (recorder, written)
    }
}

impl Producer for Recorder {
    fn topic(&mut self, _name: &str) -> Result<TopicHandle> {
        let handle = u32::try_from(self.ends.len()).map_err(|_| refused("more than 4 billion topics"))?;
        self.ends.push(0);
        Ok(TopicHandle(handle))
    }

    fn send(&mut self, topic: TopicHandle, _partition: i32, record: &OutRecord<'_>) -> Result<()> {
        let end = usize::try_from(topic.0).ok().and_then(|index| self.ends.get_mut(index));
        let end = end.ok_or_else(|| refused("a topic that was not registered"))?;
        let recorded = Recorded {
            offset: *end,
            timestamp: record.timestamp,
            key: record.key.map(<[u8]>::to_vec),
            value: record.value.map(<[u8]>::to_vec),
            headers: record.headers.clone(),
        };
        *end = end.saturating_add(1);
        self.written.lock().unwrap_or_else(PoisonError::into_inner).push((topic, recorded));
        Ok(())
    }

    fn poll(&mut self) -> Result<()> {
        Ok(())
    }

    fn backlog(&self) -> usize {
        0
    }

    fn acknowledged(&self, topic: TopicHandle, _partition: i32) -> Option<i64> {
        let end = usize::try_from(topic.0).ok().and_then(|index| self.ends.get(index)).copied();
        end.filter(|end| *end > 0)
    }

    fn start(&mut self, _call: TransactionCall) {}

    fn outcome(&mut self) -> Option<Result<()>> {
        // The driver commits without transactions, so none was started.
        None
    }

    fn tainted(&self) -> bool {
        false
    }
}

fn refused(what: &str) -> BrokerError {
    BrokerError::new(ErrorClass::Fatal, format!("the test driver was given {what}"))
}
