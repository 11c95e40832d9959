//! Where records come in and go out: bytes on the one side, types on the other.

use super::{Key, Node, Output, RawKey};
use crate::broker::{OutRecord, RecordView};
use crate::error::Result;
use crate::partition::partition_of;
use crate::record::Timestamp;
use crate::serde::{Encoded, Serde, SerdeError};
use crate::task::TaskContext;
use crate::topic::SharedSerde;
use crate::topology::OutputIndex;

/// The entry of a task for one topic.
pub(crate) trait SourceNode {
    /// Decodes a record and pushes it into the graph.
    fn process(&mut self, cx: &mut TaskContext<'_>, record: &RecordView<'_>) -> Result<()>;
}

/// Decodes records of one topic.
pub(crate) struct Source<K, V> {
    pub(crate) key: SharedSerde<K>,
    pub(crate) value: SharedSerde<V>,
    pub(crate) output: Output<K, V>,
}

impl<K, V: Clone> SourceNode for Source<K, V> {
    fn process(&mut self, cx: &mut TaskContext<'_>, record: &RecordView<'_>) -> Result<()> {
        let key = self.key.decode(record.key).map_err(|error| cx.refuse("key", &error))?;
        let value = self.value.decode(record.value).map_err(|error| cx.refuse("value", &error))?;
        let raw = match (record.key, self.key.canonical()) {
            (Some(bytes), Some(encoding)) => Some(RawKey { bytes, encoding }),
            _ => None,
        };
        self.output.forward(cx, Key { typed: &key, raw }, value, record.timestamp)
    }
}

/// A value that can be written where values of type `V` are expected: a `V`, or an `Option<V>` whose `None` is null.
#[diagnostic::on_unimplemented(
    message = "a stream of `{Self}` cannot be written to a topic of `{V}`",
    note = "the topic's value type must be the stream's, or `T` for a stream of `Option<T>`; convert with `map_values`"
)]
pub trait Payload<V> {
    /// Encodes with the serde of the topic.
    fn encode_with(&self, serde: &dyn Serde<V>, into: &mut Vec<u8>) -> Result<Encoded, SerdeError>;
}

impl<V> Payload<V> for V {
    fn encode_with(&self, serde: &dyn Serde<V>, into: &mut Vec<u8>) -> Result<Encoded, SerdeError> {
        serde.encode(self, into)
    }
}

impl<V> Payload<V> for Option<V> {
    fn encode_with(&self, serde: &dyn Serde<V>, into: &mut Vec<u8>) -> Result<Encoded, SerdeError> {
        self.as_ref().map_or(Ok(Encoded::Null), |value| serde.encode(value, into))
    }
}

/// Encodes records and hands them to the producer, with the headers of the record that caused them.
pub(crate) struct Sink<K, W> {
    key: SharedSerde<K>,
    value: SharedSerde<W>,
    key_encoding: Option<&'static str>,
    topic: OutputIndex,
    // A repartition topic carries only records that have a key: without one there is no task to send them to.
    needs_key: bool,
    key_bytes: Vec<u8>,
    value_bytes: Vec<u8>,
}

impl<K, W> Sink<K, W> {
    pub(crate) fn new(key: SharedSerde<K>, value: SharedSerde<W>, topic: OutputIndex, needs_key: bool) -> Self {
        let key_encoding = key.canonical();
        Self { key, value, key_encoding, topic, needs_key, key_bytes: Vec::new(), value_bytes: Vec::new() }
    }
}

impl<K, W, V: Payload<W>> Node<K, V> for Sink<K, W> {
    fn push(&mut self, cx: &mut TaskContext<'_>, key: Key<'_, K>, value: V, at: Timestamp) -> Result<()> {
        let key = match key.raw_as(self.key_encoding) {
            Some(raw) => Some(raw),
            None => {
                self.key_bytes.clear();
                let encoded = self.key.encode(key.typed, &mut self.key_bytes).map_err(|e| cx.refuse("key", &e))?;
                (encoded == Encoded::Bytes).then_some(self.key_bytes.as_slice())
            }
        };
        if key.is_none() && self.needs_key {
            cx.drop_null_key();
            return Ok(());
        }
        self.value_bytes.clear();
        let encoded =
            value.encode_with(&*self.value, &mut self.value_bytes).map_err(|error| cx.refuse("value", &error))?;
        let value = (encoded == Encoded::Bytes).then_some(self.value_bytes.as_slice());
        let (outlet, headers) = cx.outlet();
        let partitions = outlet.partitions(self.topic)?;
        let partition = match key {
            Some(key) => partition_of(key, partitions),
            None => outlet.next_partition(self.topic)?,
        };
        outlet.send(self.topic, partition, &OutRecord { timestamp: at, key, value, headers })
    }
}
