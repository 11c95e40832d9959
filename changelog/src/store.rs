//! The contract between the staged writes and whatever keeps the committed bytes.

use std::fmt;
use std::ops::{Bound, ControlFlow};

use crate::{Batch, Error, Result};

/// A store of a task: its index in the list of names that the back end was opened with.
#[derive(Clone, Copy, Debug, PartialEq, Eq, Hash, PartialOrd, Ord)]
pub struct StoreId(pub u16);

impl StoreId {
    /// The store's place in a slice of per-store things.
    #[must_use]
    pub fn index(self) -> usize {
        usize::from(self.0)
    }

    /// The item of this store in a slice with one item per store.
    pub(crate) fn of<T>(self, stores: &[T]) -> Result<&T> {
        stores.get(self.index()).ok_or(Error::UnknownStore { index: self.0, stores: stores.len() })
    }

    /// Like [`of`](Self::of), to change it.
    pub(crate) fn of_mut<T>(self, stores: &mut [T]) -> Result<&mut T> {
        let count = stores.len();
        stores.get_mut(self.index()).ok_or(Error::UnknownStore { index: self.0, stores: count })
    }
}

impl fmt::Display for StoreId {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        write!(f, "store {}", self.0)
    }
}

/// What a scan calls for each entry; [`ControlFlow::Break`] ends it.
///
/// The slices are lent for the call only. A visitor must not call back into the store it is scanning.
pub type Visitor<'a> = dyn FnMut(&[u8], &[u8]) -> ControlFlow<()> + 'a;

/// Reads of committed data.
pub trait Reader: Send {
    /// The names of the stores, in the order of their [`StoreId`]s.
    fn stores(&self) -> &[String];

    /// Reads the value of `key` into `out`, which is cleared first. Answers whether the key exists.
    fn get(&self, store: StoreId, key: &[u8], out: &mut Vec<u8>) -> Result<bool>;

    /// Visits the entries between the bounds in ascending order of their key bytes, all as of one point in time.
    fn scan(&self, store: StoreId, from: Bound<&[u8]>, to: Bound<&[u8]>, visit: &mut Visitor<'_>) -> Result<()>;

    /// The next changelog offset to read: every record before it has been applied. `None` for a store that has
    /// never been written with an offset.
    fn offset(&self, store: StoreId) -> Result<Option<i64>>;
}

/// The committed bytes of one task: a fixed list of stores that change together.
///
/// One writer (`&mut self`), any number of readers on other threads ([`Backend::reader`]).
pub trait Backend: Reader {
    /// Applies a batch: all of its puts, deletes, offsets and origins, or none of them, for any reader and after
    /// any crash. It need not survive a loss of power before the next [`flush`](Self::flush).
    fn write(&mut self, batch: &Batch) -> Result<()>;

    /// Returns once everything written so far survives a loss of power.
    fn flush(&mut self) -> Result<()>;

    /// Removes a store's entries, offset and origin, durably, so that it can be rebuilt. A crash on the way may
    /// leave entries, but then neither offset nor origin.
    fn clear(&mut self, store: StoreId) -> Result<()>;

    /// The bytes last written by [`Batch::origin`] for a store: where its data came from.
    fn origin(&self, store: StoreId) -> Result<Option<Vec<u8>>>;

    /// A handle for other threads. It never blocks the closing of the back end: once that is gone, its reads
    /// answer [`Error::Closed`].
    fn reader(&self) -> Box<dyn Reader + Send + Sync>;
}

/// Whether nothing can lie between the bounds, which engines differ in how they treat.
pub(crate) fn is_empty_range(from: Bound<&[u8]>, to: Bound<&[u8]>) -> bool {
    match (from, to) {
        (Bound::Unbounded, _) | (_, Bound::Unbounded) => false,
        (Bound::Included(from), Bound::Included(to)) => from > to,
        (Bound::Included(from) | Bound::Excluded(from), Bound::Excluded(to) | Bound::Included(to)) => from >= to,
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn empty_ranges() {
        let (a, b) = (b"a".as_slice(), b"b".as_slice());
        assert!(!is_empty_range(Bound::Unbounded, Bound::Included(a)));
        assert!(!is_empty_range(Bound::Included(a), Bound::Included(a)));
        assert!(is_empty_range(Bound::Included(a), Bound::Excluded(a)));
        assert!(is_empty_range(Bound::Excluded(a), Bound::Excluded(a)));
        assert!(is_empty_range(Bound::Included(b), Bound::Included(a)));
        assert!(!is_empty_range(Bound::Excluded(a), Bound::Excluded(b)));
    }
}
