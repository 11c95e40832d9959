use std::mem::size_of;

/// What the overlay knows of one key: where its bytes lie in the arena, the key first, then room for the value.
#[derive(Debug, Default)]
pub(super) struct Slot {
    /// Kept so that neither the growth of the index nor a removal reads key bytes.
    pub(super) hash: u64,
    pub(super) start: usize,
    pub(super) key_len: u32,
    pub(super) value_len: u32,
    /// Room for the value. Nothing else uses it, so a value that fits is overwritten in place.
    pub(super) capacity: u32,
    /// Neither evicted nor dropped.
    pub(super) live: bool,
    /// Whether the key has a value; if not, the entry remembers that it has none.
    pub(super) present: bool,
    /// Written since the last commit.
    pub(super) staged: bool,
    /// Used since the eviction's hand last passed.
    pub(super) touched: bool,
}

/// Room given to the smallest value: a timestamp and a counter, so that a key first found absent need not move when
/// it is counted.
const MIN_CAPACITY: usize = 16;

/// What an entry costs beside its bytes: the slot, its place in the index (5 bytes at a load of 7/8 at most) and in
/// the list of staged writes.
const OVERHEAD: usize = size_of::<Slot>() + 16;

impl Slot {
    /// Room to give to a value of `len` bytes: a multiple of 8, so that most values can grow a little in place.
    pub(super) fn capacity_for(len: usize) -> usize {
        len.next_multiple_of(8).max(MIN_CAPACITY)
    }

    /// What an entry will weigh once it is inserted.
    pub(super) fn weight_of(key: &[u8], value: Option<&[u8]>) -> usize {
        OVERHEAD + key.len() + Self::capacity_for(value.map_or(0, <[u8]>::len))
    }

    /// The memory it takes, in bytes.
    pub(super) fn weight(&self) -> usize {
        OVERHEAD + self.footprint()
    }

    /// The bytes it takes in the arena.
    pub(super) fn footprint(&self) -> usize {
        self.key_len as usize + self.capacity as usize
    }

    /// Where the value begins in the arena.
    pub(super) fn value_start(&self) -> usize {
        self.start + self.key_len as usize
    }
}
