//! Runs a program record by record, without a broker, threads or clock.

use std::collections::{HashMap, VecDeque};
use std::fmt;
use std::sync::{Arc, PoisonError};

use headwater_changelog::layout::Timestamped;
use headwater_changelog::{Memory, State, StoreId};

use super::recorder::{Recorded, Recorder, Written};
use crate::broker::Slot;
use crate::error::{Error, Result};
use crate::group::TaskId;
use crate::record::{Headers, Record, Timestamp, TopicPartition};
use crate::serde::{Encoded, Serde, SerdeError};
use crate::task::{Dropped, Input, OutgoingTopic, Outlet, Task};
use crate::topic::{Store, Topic};
use crate::topology::Topology;

/// The application id that internal topics are named with here.
const APPLICATION: &str = "app";

/// Runs the whole program as one task with one partition per topic, on the code that runs on a broker.
///
/// Piped records are processed at once, with everything that follows from them, repartition topics included; a commit
/// follows each record. Stores are in memory. What it does not show: several partitions and members, restarts,
/// transactions, and timing.
///
/// ```
/// use headwater::prelude::*;
///
/// let (lines, words) = (Topic::new("lines", Nullable(Utf8), Utf8), Topic::new("words", Nullable(Utf8), Utf8));
/// let builder = StreamsBuilder::new();
/// builder.stream(&lines).to(&words);
/// let mut driver = TopologyTestDriver::new(&builder.build()?)?;
/// driver.pipe(&lines, None, "to be".into(), 5)?;
/// assert_eq!(driver.read(&words)?, Some((None, "to be".into())));
/// assert_eq!(driver.read(&words)?, None);
/// # Ok::<(), headwater::Error>(())
/// ```
pub struct TopologyTestDriver {
    task: Task,
    outlet: Outlet,
    written: Written,
    stores: Vec<Arc<str>>,
    // Topics that the task writes, in the order of their handles.
    outputs: Vec<Arc<str>>,
    // For each input of the task: what waits for it, and its next offset.
    queues: Vec<(VecDeque<Recorded>, i64)>,
    read: HashMap<Arc<str>, VecDeque<Recorded>>,
    dropped: Dropped,
}

impl TopologyTestDriver {
    /// A driver for a program.
    pub fn new(topology: &Topology) -> Result<Self> {
        let whole = topology.whole();
        let plan = topology.plan();
        let outputs: Vec<Arc<str>> = plan.outputs.iter().map(|topic| topic.resolve(APPLICATION)).collect();
        let topics: Vec<_> =
            outputs.iter().map(|name| OutgoingTopic { name: Arc::clone(name), partitions: 1 }).collect();
        let (recorder, written) = Recorder::new();
        let outlet = Outlet::new(Box::new(recorder), &topics)?;
        let sources = plan.sources.iter().zip(0..);
        let inputs: Vec<_> = sources
            .map(|(source, slot)| Input::new(TopicPartition::new(source.topic.resolve(APPLICATION), 0), Slot(slot), 0))
            .collect();
        let queues = inputs.iter().map(|_| (VecDeque::new(), 0)).collect();
        let stores: Vec<_> = plan.stores.iter().map(|store| Arc::clone(&store.name)).collect();
        let names: Vec<&str> = stores.iter().map(|name| &**name).collect();
        let state = State::new(Box::new(Memory::new(&names)), 0);
        let task = Task::new(TaskId { subtopology: 0, partition: 0 }, topology, &whole, inputs, state)?;
        Ok(Self { task, outlet, written, stores, outputs, queues, read: HashMap::new(), dropped: Dropped::default() })
    }

    /// Pipes a record into a topic that the program reads, and processes everything that follows.
    pub fn pipe<K, V>(&mut self, topic: &Topic<K, V>, key: K, value: V, timestamp: Timestamp) -> Result<()> {
        self.pipe_with_headers(topic, key, value, timestamp, &Headers::new())
    }

    /// The same, with headers.
    #[expect(clippy::needless_pass_by_value, reason = "as `pipe`: a test writes its values in place")]
    pub fn pipe_with_headers<K, V>(
        &mut self,
        topic: &Topic<K, V>,
        key: K,
        value: V,
        timestamp: Timestamp,
        headers: &Headers,
    ) -> Result<()> {
        let refuse = |error: SerdeError| Error::Topology(format!("piped into {}: {error}", topic.name()));
        let key = encode(&*topic.key, &key).map_err(refuse)?;
        let value = encode(&*topic.value, &value).map_err(refuse)?;
        let record = Recorded { offset: 0, timestamp, key, value, headers: headers.clone() };
        if !self.enqueue(topic.name(), record) {
            return Err(Error::Topology(format!("topic {} is not read by this program", topic.name())));
        }
        self.run()
    }

    /// The next record that was written to a topic and not read yet: key and value.
    pub fn read<K, V>(&mut self, topic: &Topic<K, V>) -> Result<Option<(K, V)>> {
        Ok(self.read_record(topic)?.map(|(record, _)| (record.key, record.value)))
    }

    /// The same, with its time and headers.
    pub fn read_record<K, V>(&mut self, topic: &Topic<K, V>) -> Result<Option<(Record<K, V>, Headers)>> {
        let refuse = |error: SerdeError| Error::Topology(format!("read from {}: {error}", topic.name()));
        let Some(found) = self.read.get_mut(topic.name()).and_then(VecDeque::pop_front) else {
            return Ok(None);
        };
        let key = topic.key.decode(found.key.as_deref()).map_err(refuse)?;
        let value = topic.value.decode(found.value.as_deref()).map_err(refuse)?;
        Ok(Some((Record { key, value, timestamp: found.timestamp }, found.headers)))
    }

    /// All records that were written to a topic and not read yet.
    pub fn drain<K, V>(&mut self, topic: &Topic<K, V>) -> Result<Vec<(K, V)>> {
        let mut drained = Vec::new();
        while let Some(record) = self.read(topic)? {
            drained.push(record);
        }
        Ok(drained)
    }

    /// The value of a key in a store of the program.
    pub fn get<K, V>(&mut self, store: &Store<K, V>, key: &K) -> Result<Option<V>> {
        let refuse = |error: SerdeError| Error::Topology(format!("store {}: {error}", store.name()));
        let position = self.stores.iter().position(|name| **name == *store.name());
        let id = position.and_then(|position| u16::try_from(position).ok()).map(StoreId);
        let id = id.ok_or_else(|| Error::Topology(format!("store {} is not in this program", store.name())))?;
        let Some(key) = encode(&*store.key, key).map_err(refuse)? else {
            return Ok(None);
        };
        let Some(found) = self.task.state().get(id, &key)? else {
            return Ok(None);
        };
        let (_, value) = Timestamped::decode(found)?;
        store.value.decode(Some(value)).map(Some).map_err(refuse)
    }

    /// Records that went no further, by reason.
    #[must_use]
    pub fn dropped(&self) -> Dropped {
        self.dropped
    }

    fn enqueue(&mut self, topic: &str, mut record: Recorded) -> bool {
        let inputs = self.task.inputs().iter().zip(&mut self.queues);
        let Some((_, (queue, next))) = { inputs }.find(|(input, _)| *input.partition().topic == *topic) else {
            return false;
        };
        record.offset = *next;
        *next = next.saturating_add(1);
        queue.push_back(record);
        true
    }

    /// Processes until nothing waits: the lowest timestamp first, and after each record what it has written.
    fn run(&mut self) -> Result<()> {
        loop {
            for (input, (queue, _)) in self.task.inputs_mut().iter_mut().zip(&mut self.queues) {
                if input.is_empty()
                    && let Some(record) = queue.pop_front()
                {
                    input.feed(Box::new(record));
                }
            }
            if self.task.process(&mut self.outlet, 1)? == 0 {
                return Ok(());
            }
            self.dropped.null_key += self.task.take_dropped().null_key;
            self.task.commit(&self.outlet)?;
            let written = std::mem::take(&mut *self.written.lock().unwrap_or_else(PoisonError::into_inner));
            for (handle, record) in written {
                let name = usize::try_from(handle.0).ok().and_then(|index| self.outputs.get(index)).cloned();
                let name = name.ok_or_else(|| Error::Engine(format!("output {} is not in the plan", handle.0)))?;
                self.enqueue(&name, record.clone());
                self.read.entry(name).or_default().push_back(record);
            }
        }
    }
}

impl fmt::Debug for TopologyTestDriver {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        f.debug_struct("TopologyTestDriver").field("stores", &self.stores).finish_non_exhaustive()
    }
}

fn encode<T>(serde: &dyn Serde<T>, value: &T) -> Result<Option<Vec<u8>>, SerdeError> {
    let mut bytes = Vec::new();
    Ok(match serde.encode(value, &mut bytes)? {
        Encoded::Bytes => Some(bytes),
        Encoded::Null => None,
    })
}
