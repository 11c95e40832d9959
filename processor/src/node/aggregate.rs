//! Folds the records of each key into one value that is kept in a store.

use std::sync::Arc;

use headwater_changelog::layout::Timestamped;
use headwater_changelog::{Entry, StoreId};

use super::{Change, Key, Node, Output, RawKey};
use crate::error::Result;
use crate::record::Timestamp;
use crate::serde::{Encoded, Serde, SerdeError};
use crate::task::TaskContext;
use crate::topic::SharedSerde;
use crate::topology::OutputIndex;

/// Length of the timestamp in front of a value in the local store (big-endian, ms).
const TIMESTAMP_BYTES: usize = 8;

/// How an aggregate takes a record in: the old aggregate, if there is one, and the record make the new one.
pub(crate) type Fold<K, V, A> = Arc<dyn Fn(&K, V, Option<A>) -> A + Send + Sync>;

/// An aggregation of a stream by key into a timestamped key-value store with a changelog.
///
/// The local value is `timestamp i64 ‖ value`; the changelog carries the value alone, at the aggregate's timestamp,
/// which is the highest of the records in it. Every update is logged and forwarded, in the order of the records.
pub(crate) struct Aggregate<K, V, A> {
    pub(crate) store: StoreId,
    pub(crate) changelog: OutputIndex,
    pub(crate) key: SharedSerde<K>,
    pub(crate) value: SharedSerde<A>,
    pub(crate) fold: Fold<K, V, A>,
    pub(crate) output: Output<K, Change<A>>,
    pub(crate) key_bytes: Vec<u8>,
    pub(crate) value_bytes: Vec<u8>,
}

/// Why an aggregate could not be brought up to date.
enum Fault {
    State(headwater_changelog::Error),
    Stored(SerdeError),
    Encoded(SerdeError),
}

impl<K, V, A> Aggregate<K, V, A> {
    /// Reads, folds and writes one entry with one look-up. The new local bytes are left in `value_bytes`.
    fn update(
        fold: &Fold<K, V, A>,
        serde: &dyn Serde<A>,
        entry: &mut Entry<'_>,
        bytes: &mut Vec<u8>,
        (key, value, at): (&K, V, Timestamp),
    ) -> Result<(Option<A>, Timestamp), Fault> {
        let (timestamp, old) = match entry.value() {
            None => (at, None),
            Some(stored) => {
                let (stored_at, stored) = Timestamped::decode(stored).map_err(Fault::State)?;
                (at.max(stored_at), Some(serde.decode(Some(stored)).map_err(Fault::Stored)?))
            }
        };
        let new = fold(key, value, old);
        bytes.clear();
        bytes.extend_from_slice(&timestamp.to_be_bytes());
        match serde.encode(&new, bytes).map_err(Fault::Encoded)? {
            Encoded::Bytes => {
                entry.set(bytes).map_err(Fault::State)?;
                Ok((Some(new), timestamp))
            }
            Encoded::Null => {
                entry.delete();
                Ok((None, timestamp))
            }
        }
    }
}

impl<K, V, A: Clone> Node<K, V> for Aggregate<K, V, A> {
    fn push(&mut self, cx: &mut TaskContext<'_>, key: Key<'_, K>, value: V, at: Timestamp) -> Result<()> {
        let encoding = self.key.canonical();
        let raw = match key.raw_as(encoding) {
            Some(raw) => raw,
            None => {
                self.key_bytes.clear();
                match self.key.encode(key.typed, &mut self.key_bytes).map_err(|error| cx.refuse("key", &error))? {
                    Encoded::Bytes => self.key_bytes.as_slice(),
                    Encoded::Null => {
                        cx.drop_null_key();
                        return Ok(());
                    }
                }
            }
        };
        let mut entry = cx.state().entry(self.store, raw)?;
        let record = (key.typed, value, at);
        let updated = Self::update(&self.fold, &*self.value, &mut entry, &mut self.value_bytes, record);
        let (new, timestamp) = updated.map_err(|fault| match fault {
            Fault::State(error) => error.into(),
            Fault::Stored(error) => cx.refuse("the stored aggregate of its key", &error),
            Fault::Encoded(error) => cx.refuse("its aggregate", &error),
        })?;
        let logged = new.is_some().then(|| self.value_bytes.get(TIMESTAMP_BYTES..)).flatten();
        cx.log(self.changelog, raw, logged, timestamp)?;
        let raw = encoding.map(|encoding| RawKey { bytes: raw, encoding });
        self.output.forward(cx, Key { typed: key.typed, raw }, Change { new }, timestamp)
    }
}
