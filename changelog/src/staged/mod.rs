//! A task's stores as its operators see them: uncommitted writes over committed bytes.

mod entry;
mod overlay;
mod slot;

use std::fmt;
use std::hash::{BuildHasher, Hasher};
use std::ops::{Bound, ControlFlow};

use foldhash::fast::RandomState;

pub use self::entry::Entry;
use self::overlay::Overlay;
use crate::store::is_empty_range;
use crate::{Backend, Batch, Error, Reader, Result, StoreId, Visitor};

/// The longest key or value, 1 GiB: lengths are kept in 32 bits, here and in the durable back end.
const MAX_BYTES: usize = 1 << 30;

/// The stores of one task, with the writes of the commit in progress.
///
/// A read sees staged writes first, then a cache of committed entries, then the back end. Writes stay in memory until
/// [`commit`](Self::commit) hands them to the back end in one batch with the changelog offsets they correspond to, so
/// the back end never holds what may yet be rolled back. [`abort`](Self::abort) drops them.
///
/// Memory: staged entries are bounded by the caller, who watches [`staged_bytes`](Self::staged_bytes) and commits;
/// committed entries stay cached within the bound given to [`new`](Self::new). Freed space is reused, but up to as
/// much again can be lost in fragments.
pub struct State {
    backend: Box<dyn Backend>,
    overlays: Vec<Overlay>,
    hasher: RandomState,
    cache_bytes: usize,
    /// Reused by every commit.
    batch: Batch,
    /// Where the back end puts values on their way into the cache.
    value: Vec<u8>,
}

impl State {
    /// Stages writes over `backend` and caches up to `cache_bytes` of committed entries, of all stores together.
    #[must_use]
    pub fn new(backend: Box<dyn Backend>, cache_bytes: usize) -> Self {
        let overlays = backend.stores().iter().map(|_| Overlay::default()).collect();
        let hasher = RandomState::default();
        Self { backend, overlays, hasher, cache_bytes, batch: Batch::new(), value: Vec::new() }
    }

    /// The value of `key`, as the last write left it.
    pub fn get(&mut self, store: StoreId, key: &[u8]) -> Result<Option<&[u8]>> {
        let (overlay, slot) = self.slot(store, key)?;
        Ok(overlay.value(slot))
    }

    /// Looks `key` up once, to read and then change it.
    pub fn entry(&mut self, store: StoreId, key: &[u8]) -> Result<Entry<'_>> {
        let (overlay, slot) = self.slot(store, key)?;
        Ok(Entry::new(overlay, slot))
    }

    /// Sets `key` to `value`, without reading what it was.
    pub fn put(&mut self, store: StoreId, key: &[u8], value: &[u8]) -> Result<()> {
        check_size("value", value)?;
        self.stage(store, key, Some(value))
    }

    /// Removes `key`, without reading what it was.
    pub fn delete(&mut self, store: StoreId, key: &[u8]) -> Result<()> {
        self.stage(store, key, None)
    }

    /// Visits the entries between the bounds in ascending order of their key bytes, staged and committed ones merged.
    ///
    /// The first scan after many writes sorts them; later ones insert what is new.
    pub fn scan(
        &mut self,
        store: StoreId,
        from: Bound<&[u8]>,
        to: Bound<&[u8]>,
        visit: &mut Visitor<'_>,
    ) -> Result<()> {
        let overlay = store.of_mut(&mut self.overlays)?;
        if is_empty_range(from, to) {
            return Ok(());
        }
        overlay.sort_staged();
        let overlay = &*overlay;
        let mut staged = overlay.staged_range(from, to).peekable();
        let mut flow = ControlFlow::Continue(());
        self.backend.scan(store, from, to, &mut |key, value| {
            while flow.is_continue()
                && let Some((staged_key, staged_value)) = staged.next_if(|(staged_key, _)| *staged_key < key)
            {
                flow = visit_present(staged_key, staged_value, visit);
            }
            if flow.is_continue() {
                flow = match staged.next_if(|(staged_key, _)| *staged_key == key) {
                    Some((_, staged_value)) => visit_present(key, staged_value, visit),
                    None => visit(key, value),
                };
            }
            flow
        })?;
        for (key, value) in staged {
            if flow.is_break() {
                break;
            }
            flow = visit_present(key, value, visit);
        }
        Ok(())
    }

    /// Hands every staged write, and the changelog offsets it corresponds to, to the back end in one atomic batch.
    ///
    /// `offsets` are the next changelog offsets to read. After an error nothing is taken as committed: the writes are
    /// still staged, and can be committed again or aborted.
    pub fn commit(&mut self, offsets: &[(StoreId, i64)]) -> Result<()> {
        self.batch.clear();
        for (store, overlay) in stores().zip(&self.overlays) {
            overlay.fill(store, &mut self.batch);
        }
        for &(store, next) in offsets {
            self.batch.offset(store, next);
        }
        if self.batch.is_empty() {
            return Ok(());
        }
        self.backend.write(&self.batch)?;
        self.overlays.iter_mut().for_each(Overlay::settle);
        self.trim(0);
        Ok(())
    }

    /// Drops every staged write: reads see the last commit again.
    pub fn abort(&mut self) {
        self.overlays.iter_mut().for_each(Overlay::abort);
    }

    /// The memory that staged writes take, in bytes: keys, values and their bookkeeping.
    #[must_use]
    pub fn staged_bytes(&self) -> usize {
        self.overlays.iter().map(Overlay::staged_bytes).sum()
    }

    /// The number of keys with a staged write.
    #[must_use]
    pub fn staged_len(&self) -> usize {
        self.overlays.iter().map(Overlay::staged_len).sum()
    }

    /// The memory that cached committed entries take, in bytes.
    #[must_use]
    pub fn cached_bytes(&self) -> usize {
        self.overlays.iter().map(Overlay::clean_bytes).sum()
    }

    /// The next changelog offset to read, as of the last commit.
    pub fn offset(&self, store: StoreId) -> Result<Option<i64>> {
        self.backend.offset(store)
    }

    /// Returns once everything committed so far survives a loss of power.
    pub fn flush(&mut self) -> Result<()> {
        self.backend.flush()
    }

    /// A handle on the committed data for other threads.
    #[must_use]
    pub fn reader(&self) -> Box<dyn Reader + Send + Sync> {
        self.backend.reader()
    }

    /// Gives the back end back, without the staged writes: for a task that becomes a standby.
    #[must_use]
    pub fn into_backend(self) -> Box<dyn Backend> {
        self.backend
    }

    fn stage(&mut self, store: StoreId, key: &[u8], value: Option<&[u8]>) -> Result<()> {
        check_size("key", key)?;
        let hash = hash(&self.hasher, key);
        let overlay = store.of_mut(&mut self.overlays)?;
        match overlay.find(hash, key) {
            Some(slot) => overlay.write(slot, value),
            None => overlay.insert_staged(hash, key, value),
        }
        Ok(())
    }

    /// The overlay's slot of a key, read from the back end if need be.
    fn slot(&mut self, store: StoreId, key: &[u8]) -> Result<(&mut Overlay, u32)> {
        let hash = hash(&self.hasher, key);
        let found = store.of_mut(&mut self.overlays)?.find(hash, key);
        let slot = match found {
            Some(slot) => slot,
            None => self.load(store, hash, key)?,
        };
        Ok((store.of_mut(&mut self.overlays)?, slot))
    }

    #[cold]
    fn load(&mut self, store: StoreId, hash: u64, key: &[u8]) -> Result<u32> {
        check_size("key", key)?;
        let present = self.backend.get(store, key, &mut self.value)?;
        let value = present.then_some(self.value.as_slice());
        let weight = slot::Slot::weight_of(key, value);
        // Before the insertion, so that the entry the caller is about to read is not the one to go.
        self.trim(weight);
        let value = present.then_some(self.value.as_slice());
        Ok(store.of_mut(&mut self.overlays)?.insert_clean(hash, key, value))
    }

    /// Makes room for `more` bytes of committed entries.
    fn trim(&mut self, more: usize) {
        let limit = self.cache_bytes.saturating_sub(more);
        while self.cached_bytes() > limit {
            // An eighth at a time, from the store that holds most, so that a miss seldom pays for a sweep.
            let goal = limit - limit / 8;
            let excess = self.cached_bytes() - goal;
            let Some(largest) = self.overlays.iter_mut().max_by_key(|overlay| overlay.clean_bytes()) else {
                return;
            };
            largest.evict(largest.clean_bytes().saturating_sub(excess));
        }
    }
}

impl fmt::Debug for State {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        f.debug_struct("State")
            .field("stores", &self.backend.stores())
            .field("staged_len", &self.staged_len())
            .field("staged_bytes", &self.staged_bytes())
            .field("cached_bytes", &self.cached_bytes())
            .finish_non_exhaustive()
    }
}

fn stores() -> impl Iterator<Item = StoreId> {
    (0..=u16::MAX).map(StoreId)
}

fn hash(hasher: &RandomState, key: &[u8]) -> u64 {
    // Not `hash_one`, which would also mix in the length as a separate word.
    let mut hasher = hasher.build_hasher();
    hasher.write(key);
    hasher.finish()
}

fn visit_present(key: &[u8], value: Option<&[u8]>, visit: &mut Visitor<'_>) -> ControlFlow<()> {
    value.map_or(ControlFlow::Continue(()), |value| visit(key, value))
}

/// Refuses what the durable back end could not hold, already when it is staged.
pub(crate) fn check_size(what: &'static str, bytes: &[u8]) -> Result<()> {
    if bytes.len() > MAX_BYTES {
        return Err(Error::TooLarge { what, bytes: bytes.len(), limit: MAX_BYTES });
    }
    Ok(())
}

#[cfg(test)]
mod tests;
