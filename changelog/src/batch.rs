//! One atomic unit of change.

use crate::StoreId;

/// Changes to the stores of one task that take effect together: puts, deletes, changelog offsets and origins.
///
/// The bytes lie in one buffer that [`clear`](Self::clear) keeps, so that a batch that is reused allocates nothing
/// once it has seen its largest commit. Later changes to a key win over earlier ones.
#[derive(Debug, Default)]
pub struct Batch {
    bytes: Vec<u8>,
    changes: Vec<Placed>,
    offsets: Vec<(StoreId, i64)>,
    origins: Vec<(StoreId, Vec<u8>)>,
}

/// A change of one key, lent by [`Batch::changes`].
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub struct Change<'a> {
    /// The store it belongs to.
    pub store: StoreId,
    /// The key.
    pub key: &'a [u8],
    /// The new value; `None` deletes the key.
    pub value: Option<&'a [u8]>,
}

/// Where a change's key and value lie in the batch's buffer: the key at `start`, the value right behind it.
#[derive(Clone, Copy, Debug)]
struct Placed {
    store: StoreId,
    deletes: bool,
    start: usize,
    key_end: usize,
    end: usize,
}

impl Batch {
    /// An empty batch. Allocates nothing.
    #[must_use]
    pub fn new() -> Self {
        Self::default()
    }

    /// Sets `key` to `value`.
    pub fn put(&mut self, store: StoreId, key: &[u8], value: &[u8]) {
        self.put_parts(store, key, &[value]);
    }

    /// Sets `key` to the concatenation of `parts`, for values that carry a prefix.
    pub fn put_parts(&mut self, store: StoreId, key: &[u8], parts: &[&[u8]]) {
        let (start, key_end) = self.push_key(key);
        for part in parts {
            self.bytes.extend_from_slice(part);
        }
        self.changes.push(Placed { store, deletes: false, start, key_end, end: self.bytes.len() });
    }

    /// Removes `key`.
    pub fn delete(&mut self, store: StoreId, key: &[u8]) {
        let (start, key_end) = self.push_key(key);
        self.changes.push(Placed { store, deletes: true, start, key_end, end: key_end });
    }

    /// Records that every changelog record of `store` before `next` has been applied.
    pub fn offset(&mut self, store: StoreId, next: i64) {
        self.offsets.push((store, next));
    }

    /// Records where the data of `store` come from; see [`verify`](crate::verify).
    pub fn origin(&mut self, store: StoreId, origin: &[u8]) {
        self.origins.push((store, origin.to_vec()));
    }

    /// The changes of keys, in the order they were made.
    pub fn changes(&self) -> impl Iterator<Item = Change<'_>> {
        self.changes.iter().filter_map(|placed| {
            // Never `None`: places are made from this buffer, which only `clear` shortens, together with them.
            let key = self.bytes.get(placed.start..placed.key_end)?;
            let value = self.bytes.get(placed.key_end..placed.end)?;
            Some(Change { store: placed.store, key, value: (!placed.deletes).then_some(value) })
        })
    }

    /// The offsets, in the order they were set.
    #[must_use]
    pub fn offsets(&self) -> &[(StoreId, i64)] {
        &self.offsets
    }

    /// The origins, in the order they were set.
    pub fn origins(&self) -> impl Iterator<Item = (StoreId, &[u8])> {
        self.origins.iter().map(|(store, origin)| (*store, origin.as_slice()))
    }

    /// The number of puts and deletes.
    #[must_use]
    pub fn len(&self) -> usize {
        self.changes.len()
    }

    /// Whether writing the batch would change nothing.
    #[must_use]
    pub fn is_empty(&self) -> bool {
        self.changes.is_empty() && self.offsets.is_empty() && self.origins.is_empty()
    }

    /// The bytes of keys and values.
    #[must_use]
    pub fn bytes(&self) -> usize {
        self.bytes.len()
    }

    /// Empties the batch and keeps its buffers.
    pub fn clear(&mut self) {
        self.bytes.clear();
        self.changes.clear();
        self.offsets.clear();
        self.origins.clear();
    }

    /// The stores that the batch touches, with repetitions.
    pub(crate) fn stores(&self) -> impl Iterator<Item = StoreId> {
        let changes = self.changes.iter().map(|placed| placed.store);
        let offsets = self.offsets.iter().map(|(store, _)| *store);
        changes.chain(offsets).chain(self.origins.iter().map(|(store, _)| *store))
    }

    fn push_key(&mut self, key: &[u8]) -> (usize, usize) {
        let start = self.bytes.len();
        self.bytes.extend_from_slice(key);
        (start, self.bytes.len())
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    const A: StoreId = StoreId(0);
    const B: StoreId = StoreId(1);

    #[test]
    fn keeps_order_and_bytes() {
        let mut batch = Batch::new();
        batch.put(A, b"k", b"v");
        batch.delete(B, b"gone");
        batch.put_parts(A, b"", &[b"12", b"", b"345"]);
        batch.put(B, b"empty", b"");
        batch.offset(A, 7);
        let changes: Vec<_> = batch.changes().map(|c| (c.store, c.key, c.value)).collect();
        assert_eq!(
            changes,
            [
                (A, b"k".as_slice(), Some(b"v".as_slice())),
                (B, b"gone", None),
                (A, b"", Some(b"12345")),
                (B, b"empty", Some(b""))
            ]
        );
        assert_eq!((batch.len(), batch.bytes(), batch.offsets()), (4, 16, [(A, 7)].as_slice()));
    }

    #[test]
    fn clear_keeps_the_buffer() {
        let mut batch = Batch::new();
        batch.put(A, b"key", &[1; 1000]);
        batch.origin(A, b"here");
        let capacity = batch.bytes.capacity();
        batch.clear();
        assert!(batch.is_empty());
        assert_eq!(batch.changes().count(), 0);
        assert_eq!(batch.bytes.capacity(), capacity);
    }
}
