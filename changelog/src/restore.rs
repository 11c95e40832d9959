//! Folds a changelog into a store.

use crate::layout::Layout;
use crate::{Backend, Batch, Result, StoreId};

/// A changelog record, lent by the batch it was fetched in.
#[derive(Clone, Copy, Debug)]
pub struct Record<'a> {
    /// The record's key.
    pub key: &'a [u8],
    /// The record's value; `None` removes the key.
    pub value: Option<&'a [u8]>,
    /// The record's timestamp, in milliseconds.
    pub timestamp: i64,
    /// The record's offset.
    pub offset: i64,
}

/// Bytes of keys and values per write: enough to spread the cost of a write, and little memory.
const BATCH_BYTES: usize = 1024 * 1024;

/// Applies records to stores. Keep it: its buffers are reused.
#[derive(Debug, Default)]
pub struct Restorer {
    batch: Batch,
}

/// What [`Restorer::apply`] did.
#[derive(Clone, Copy, Debug, Default, PartialEq, Eq)]
pub struct Applied {
    /// Records folded into the store.
    pub records: u64,
    /// Records skipped, since the store has them already.
    pub skipped: u64,
}

impl Restorer {
    /// Applies nothing yet.
    #[must_use]
    pub fn new() -> Self {
        Self::default()
    }

    /// Folds `records`, in ascending order of their offsets, into `store`, and leaves its offset at `next`.
    ///
    /// `next` is the next offset to read after them. It can lie beyond the last record, when that is followed by
    /// transaction markers or by records that compaction has removed. Each write is bounded and carries the offset up
    /// to which it goes, so a crash at any time resumes there. Records below the store's offset are skipped.
    pub fn apply<'a>(
        &mut self,
        backend: &mut dyn Backend,
        store: StoreId,
        layout: &dyn Layout,
        records: impl IntoIterator<Item = Record<'a>>,
        next: i64,
    ) -> Result<Applied> {
        let mut done = Applied::default();
        let stored = backend.offset(store)?;
        let mut position = stored.unwrap_or(i64::MIN);
        self.batch.clear();
        for record in records {
            if record.offset < position {
                done.skipped += 1;
                continue;
            }
            layout.fold(store, &record, &mut self.batch);
            position = record.offset.saturating_add(1);
            done.records += 1;
            if self.batch.bytes() >= BATCH_BYTES {
                self.batch.offset(store, position);
                backend.write(&self.batch)?;
                self.batch.clear();
            }
        }
        let position = position.max(next);
        if stored != Some(position) {
            self.batch.offset(store, position);
            backend.write(&self.batch)?;
        }
        Ok(done)
    }
}

#[cfg(test)]
mod tests {
    use super::*;
    use crate::layout::{Plain, Timestamped};
    use crate::store::Reader;
    use crate::{Error, Memory, Visitor};
    use std::ops::Bound;

    const STORE: StoreId = StoreId(0);

    fn record(offset: i64, key: &'static [u8], value: Option<&'static [u8]>) -> Record<'static> {
        Record { key, value, timestamp: offset * 10, offset }
    }

    fn get(backend: &dyn Backend, key: &[u8]) -> Option<Vec<u8>> {
        let mut out = Vec::new();
        backend.get(STORE, key, &mut out).unwrap().then_some(out)
    }

    #[test]
    fn folds_and_keeps_the_position() {
        let mut memory = Memory::new(&["s"]);
        let mut restorer = Restorer::new();
        let records = [record(3, b"a", Some(b"1")), record(4, b"b", Some(b"1")), record(7, b"a", None)];
        let done = restorer.apply(&mut memory, STORE, &Timestamped, records, 9).unwrap();
        assert_eq!(done, Applied { records: 3, skipped: 0 });
        assert_eq!(memory.offset(STORE).unwrap(), Some(9));
        assert_eq!(get(&memory, b"a"), None);
        assert_eq!(get(&memory, b"b").unwrap(), [0, 0, 0, 0, 0, 0, 0, 40, b'1']);
    }

    #[test]
    fn skips_what_the_store_has() {
        let mut memory = Memory::new(&["s"]);
        let mut restorer = Restorer::new();
        restorer.apply(&mut memory, STORE, &Plain, [record(5, b"a", Some(b"new"))], 6).unwrap();
        let again = [record(4, b"a", Some(b"old")), record(5, b"a", Some(b"new")), record(6, b"b", Some(b"1"))];
        let done = restorer.apply(&mut memory, STORE, &Plain, again, 7).unwrap();
        assert_eq!(done, Applied { records: 1, skipped: 2 });
        assert_eq!(get(&memory, b"a").unwrap(), b"new");
        assert_eq!(memory.offset(STORE).unwrap(), Some(7));
    }

    #[test]
    fn an_empty_read_moves_the_position_over_markers() {
        let mut memory = Memory::new(&["s"]);
        Restorer::new().apply(&mut memory, STORE, &Plain, [], 4).unwrap();
        assert_eq!(memory.offset(STORE).unwrap(), Some(4));
    }

    /// Fails every write after the first `good` ones, as a crash would.
    struct Crashing {
        memory: Memory,
        good: usize,
    }

    impl Reader for Crashing {
        fn stores(&self) -> &[String] {
            self.memory.stores()
        }
        fn get(&self, store: StoreId, key: &[u8], out: &mut Vec<u8>) -> Result<bool> {
            self.memory.get(store, key, out)
        }
        fn scan(&self, store: StoreId, from: Bound<&[u8]>, to: Bound<&[u8]>, visit: &mut Visitor<'_>) -> Result<()> {
            self.memory.scan(store, from, to, visit)
        }
        fn offset(&self, store: StoreId) -> Result<Option<i64>> {
            self.memory.offset(store)
        }
    }

    impl Backend for Crashing {
        fn write(&mut self, batch: &Batch) -> Result<()> {
            self.good = self.good.checked_sub(1).ok_or(Error::Closed)?;
            self.memory.write(batch)
        }
        fn flush(&mut self) -> Result<()> {
            self.memory.flush()
        }
        fn clear(&mut self, store: StoreId) -> Result<()> {
            self.memory.clear(store)
        }
        fn origin(&self, store: StoreId) -> Result<Option<Vec<u8>>> {
            self.memory.origin(store)
        }
        fn reader(&self) -> Box<dyn Reader + Send + Sync> {
            self.memory.reader()
        }
    }

    #[test]
    fn resumes_at_the_write_before_the_crash() {
        let value = vec![1; 10_000];
        let keys: Vec<[u8; 8]> = (0..1000_u64).map(u64::to_be_bytes).collect();
        let records = |from: i64| {
            (0..).zip(&keys).filter(move |(offset, _)| *offset >= from).map(|(offset, key)| Record {
                key,
                value: Some(&value),
                timestamp: 0,
                offset,
            })
        };
        let mut crashing = Crashing { memory: Memory::new(&["s"]), good: 3 };
        let mut restorer = Restorer::new();
        restorer.apply(&mut crashing, STORE, &Plain, records(0), 1000).unwrap_err();
        let reached = crashing.memory.offset(STORE).unwrap().unwrap();
        assert!((300..400).contains(&reached), "three writes of about a MiB, reached {reached}");
        for (offset, key) in (0..).zip(&keys) {
            assert_eq!(get(&crashing.memory, key).is_some(), offset < reached);
        }
        let mut memory = crashing.memory;
        let done = restorer.apply(&mut memory, STORE, &Plain, records(reached), 1000).unwrap();
        assert_eq!(done, Applied { records: 1000 - reached as u64, skipped: 0 });
        assert!(keys.iter().all(|key| get(&memory, key).is_some()));
    }
}
