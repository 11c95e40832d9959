//! Folds the records of each key into one value that is kept in a store.

use std::sync::Arc;

use headwater_changelog::StoreId;

use super::{Change, Key, Node, Output, RawKey};
use crate::error::Result;
use crate::record::Timestamp;
use crate::serde::Encoded;
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
        let mut timestamp = at;
        let mut old = None;
        if let Some(stored) = cx.state().get(self.store, raw)? {
            let Some((stored_at, bytes)) = stored.split_first_chunk::<TIMESTAMP_BYTES>() else {
                let length = stored.len();
                return Err(cx.corrupt(&format!("{length} stored bytes where a timestamp needs {TIMESTAMP_BYTES}")));
            };
            timestamp = at.max(Timestamp::from_be_bytes(*stored_at));
            // The bytes are lent by the store, so the error is kept until the loan has ended.
            match self.value.decode(Some(bytes)) {
                Ok(decoded) => old = Some(decoded),
                Err(error) => return Err(cx.corrupt(&error.0)),
            }
        }
        let new = (self.fold)(key.typed, value, old);
        self.value_bytes.clear();
        self.value_bytes.extend_from_slice(&timestamp.to_be_bytes());
        let encoded = self.value.encode(&new, &mut self.value_bytes).map_err(|error| cx.refuse("aggregate", &error))?;
        let new = match encoded {
            Encoded::Bytes => {
                cx.state().put(self.store, raw, &self.value_bytes)?;
                cx.log(self.changelog, raw, self.value_bytes.get(TIMESTAMP_BYTES..), timestamp)?;
                Some(new)
            }
            Encoded::Null => {
                cx.state().delete(self.store, raw)?;
                cx.log(self.changelog, raw, None, timestamp)?;
                None
            }
        };
        let raw = encoding.map(|encoding| RawKey { bytes: raw, encoding });
        self.output.forward(cx, Key { typed: key.typed, raw }, Change { new }, timestamp)
    }
}
