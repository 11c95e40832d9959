//! The back end that keeps everything in memory.

use std::collections::BTreeMap;
use std::ops::Bound;
use std::sync::{Arc, PoisonError, RwLock, RwLockReadGuard, RwLockWriteGuard, Weak};

use crate::store::is_empty_range;
use crate::{Backend, Batch, Error, Reader, Result, StoreId, Visitor};

/// Stores in memory, ordered by key. What they hold is gone with the process and is rebuilt from the log.
///
/// A scan by a [`reader`](Backend::reader) sees one point in time, so a write waits until it has ended.
#[derive(Debug)]
pub struct Memory {
    names: Arc<[String]>,
    tables: Arc<RwLock<Vec<Table>>>,
}

#[derive(Debug, Default)]
struct Table {
    entries: BTreeMap<Vec<u8>, Vec<u8>>,
    offset: Option<i64>,
    origin: Option<Vec<u8>>,
}

impl Memory {
    /// Empty stores with the given names.
    #[must_use]
    pub fn new<S: AsRef<str>>(stores: &[S]) -> Self {
        let names: Arc<[String]> = stores.iter().map(|name| name.as_ref().to_owned()).collect();
        let tables = names.iter().map(|_| Table::default()).collect();
        Self { names, tables: Arc::new(RwLock::new(tables)) }
    }

    // No code but ours runs under the write lock, and none of it panics, so a poisoned lock cannot guard half a batch.
    fn tables(&self) -> RwLockReadGuard<'_, Vec<Table>> {
        self.tables.read().unwrap_or_else(PoisonError::into_inner)
    }

    fn tables_mut(&self) -> RwLockWriteGuard<'_, Vec<Table>> {
        self.tables.write().unwrap_or_else(PoisonError::into_inner)
    }
}

impl Table {
    fn get(&self, key: &[u8], out: &mut Vec<u8>) -> bool {
        out.clear();
        let value = self.entries.get(key);
        out.extend_from_slice(value.map_or(&[], Vec::as_slice));
        value.is_some()
    }

    fn scan(&self, from: Bound<&[u8]>, to: Bound<&[u8]>, visit: &mut Visitor<'_>) {
        if is_empty_range(from, to) {
            return; // `BTreeMap::range` panics on a reversed range.
        }
        for (key, value) in self.entries.range::<[u8], _>((from, to)) {
            if visit(key, value).is_break() {
                return;
            }
        }
    }

    fn put(&mut self, key: &[u8], value: &[u8]) {
        if let Some(present) = self.entries.get_mut(key) {
            present.clear();
            present.extend_from_slice(value);
        } else {
            self.entries.insert(key.to_vec(), value.to_vec());
        }
    }
}

impl Reader for Memory {
    fn stores(&self) -> &[String] {
        &self.names
    }

    fn get(&self, store: StoreId, key: &[u8], out: &mut Vec<u8>) -> Result<bool> {
        Ok(store.of(&self.tables())?.get(key, out))
    }

    fn scan(&self, store: StoreId, from: Bound<&[u8]>, to: Bound<&[u8]>, visit: &mut Visitor<'_>) -> Result<()> {
        store.of(&self.tables())?.scan(from, to, visit);
        Ok(())
    }

    fn offset(&self, store: StoreId) -> Result<Option<i64>> {
        Ok(store.of(&self.tables())?.offset)
    }
}

impl Backend for Memory {
    fn write(&mut self, batch: &Batch) -> Result<()> {
        let mut tables = self.tables_mut();
        // Before the first change, since a batch takes effect whole or not at all.
        for store in batch.stores() {
            store.of(&tables)?;
        }
        for change in batch.changes() {
            let table = change.store.of_mut(&mut tables)?;
            match change.value {
                Some(value) => table.put(change.key, value),
                None => drop(table.entries.remove(change.key)),
            }
        }
        for &(store, next) in batch.offsets() {
            store.of_mut(&mut tables)?.offset = Some(next);
        }
        for (store, origin) in batch.origins() {
            store.of_mut(&mut tables)?.origin = Some(origin.to_vec());
        }
        Ok(())
    }

    fn flush(&mut self) -> Result<()> {
        Ok(())
    }

    fn clear(&mut self, store: StoreId) -> Result<()> {
        *store.of_mut(&mut self.tables_mut())? = Table::default();
        Ok(())
    }

    fn origin(&self, store: StoreId) -> Result<Option<Vec<u8>>> {
        Ok(store.of(&self.tables())?.origin.clone())
    }

    fn reader(&self) -> Box<dyn Reader + Send + Sync> {
        Box::new(MemoryReader { names: Arc::clone(&self.names), tables: Arc::downgrade(&self.tables) })
    }
}

/// A reader that does not keep the stores alive.
#[derive(Debug)]
struct MemoryReader {
    names: Arc<[String]>,
    tables: Weak<RwLock<Vec<Table>>>,
}

impl MemoryReader {
    fn memory(&self) -> Result<Memory> {
        let tables = self.tables.upgrade().ok_or(Error::Closed)?;
        Ok(Memory { names: Arc::clone(&self.names), tables })
    }
}

impl Reader for MemoryReader {
    fn stores(&self) -> &[String] {
        &self.names
    }

    fn get(&self, store: StoreId, key: &[u8], out: &mut Vec<u8>) -> Result<bool> {
        self.memory()?.get(store, key, out)
    }

    fn scan(&self, store: StoreId, from: Bound<&[u8]>, to: Bound<&[u8]>, visit: &mut Visitor<'_>) -> Result<()> {
        self.memory()?.scan(store, from, to, visit)
    }

    fn offset(&self, store: StoreId) -> Result<Option<i64>> {
        self.memory()?.offset(store)
    }
}
