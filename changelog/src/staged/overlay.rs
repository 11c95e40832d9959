use std::cmp::Ordering;
use std::ops::Bound;

use hashbrown::HashTable;

use super::slot::Slot;
use crate::{Batch, StoreId};

/// The entries of one store that are in memory: staged writes, and committed entries that are cached.
///
/// `index` finds slots by key, `slots` say where the bytes lie in `arena`. Slot numbers in `index`, `staged` and `free`,
/// and positions in `slots`, are made in this file only; that they are in range is its invariant.
#[derive(Debug, Default)]
pub(super) struct Overlay {
    index: HashTable<u32>,
    slots: Vec<Slot>,
    /// Slots that are not live.
    free: Vec<u32>,
    arena: Vec<u8>,
    /// Bytes of the arena that belong to no live slot.
    garbage: usize,
    /// Slots written since the last commit; the first `sorted` of them in the order of their keys.
    staged: Vec<u32>,
    sorted: usize,
    staged_bytes: usize,
    clean_bytes: usize,
    /// Where the next eviction goes on.
    hand: usize,
}

/// Garbage below this is not worth a compaction.
const MIN_GARBAGE: usize = 64 * 1024;

/// Up to this many new staged keys are inserted into the sorted ones; more are merged by a sort.
const MAX_INSERTIONS: usize = 16;

impl Overlay {
    /// The slot of a key. Marks it as used.
    #[inline]
    pub(super) fn find(&mut self, hash: u64, key: &[u8]) -> Option<u32> {
        let (slots, arena) = (&self.slots, &self.arena);
        let found = self.index.find(hash, |&slot| {
            let slot = &slots[slot as usize];
            slot.hash == hash && arena[slot.start..slot.value_start()] == *key
        });
        let slot = *found?;
        self.slots[slot as usize].touched = true;
        Some(slot)
    }

    /// The value in a slot; `None` if the key is known to have none.
    #[inline]
    pub(super) fn value(&self, slot: u32) -> Option<&[u8]> {
        let slot = &self.slots[slot as usize];
        let start = slot.value_start();
        slot.present.then(|| &self.arena[start..start + slot.value_len as usize])
    }

    fn key(&self, slot: u32) -> &[u8] {
        let slot = &self.slots[slot as usize];
        &self.arena[slot.start..slot.value_start()]
    }

    /// Adds an entry as the back end has it. The key must not be here yet.
    pub(super) fn insert_clean(&mut self, hash: u64, key: &[u8], value: Option<&[u8]>) -> u32 {
        let number = self.insert(hash, key, value);
        self.clean_bytes += self.slots[number as usize].weight();
        number
    }

    /// Adds a staged write of a key. The key must not be here yet.
    pub(super) fn insert_staged(&mut self, hash: u64, key: &[u8], value: Option<&[u8]>) {
        let number = self.insert(hash, key, value);
        let slot = &mut self.slots[number as usize];
        slot.staged = true;
        self.staged_bytes += slot.weight();
        self.staged.push(number);
    }

    /// Stages a write of the key in a slot; `None` removes it.
    #[inline]
    pub(super) fn write(&mut self, number: u32, value: Option<&[u8]>) {
        let slot = &mut self.slots[number as usize];
        if !slot.staged {
            slot.staged = true;
            self.clean_bytes -= slot.weight();
            self.staged_bytes += slot.weight();
            self.staged.push(number);
        }
        slot.present = value.is_some();
        let value = value.unwrap_or_default();
        if value.len() <= slot.capacity as usize {
            slot.value_len = value.len() as u32;
            let start = slot.value_start();
            self.arena[start..start + value.len()].copy_from_slice(value);
        } else {
            self.relocate(number, value);
        }
    }

    /// Moves a staged entry to the arena's end, with room for a value that outgrew its place.
    #[cold]
    fn relocate(&mut self, number: u32, value: &[u8]) {
        self.compact_if_worthwhile();
        let slot = &mut self.slots[number as usize];
        let (key, old_weight) = (slot.start..slot.value_start(), slot.weight());
        self.garbage += slot.footprint();
        // Half as much again, so that an aggregate that grows at every update moves a logarithmic number of times.
        let capacity = Slot::capacity_for(value.len().max(slot.capacity as usize * 3 / 2));
        slot.start = self.arena.len();
        slot.capacity = capacity as u32;
        slot.value_len = value.len() as u32;
        self.staged_bytes = self.staged_bytes + slot.weight() - old_weight;
        self.arena.extend_from_within(key);
        push_value(&mut self.arena, value, capacity);
    }

    fn insert(&mut self, hash: u64, key: &[u8], value: Option<&[u8]>) -> u32 {
        self.compact_if_worthwhile();
        let bytes = value.unwrap_or_default();
        let capacity = Slot::capacity_for(bytes.len());
        let slot = Slot {
            hash,
            start: self.arena.len(),
            key_len: key.len() as u32,
            value_len: bytes.len() as u32,
            capacity: capacity as u32,
            live: true,
            present: value.is_some(),
            staged: false,
            touched: true,
        };
        self.arena.extend_from_slice(key);
        push_value(&mut self.arena, bytes, capacity);
        let number = match self.free.pop() {
            Some(number) => {
                self.slots[number as usize] = slot;
                number
            }
            None => {
                self.slots.push(slot);
                (self.slots.len() - 1) as u32
            }
        };
        let slots = &self.slots;
        self.index.insert_unique(hash, number, |&other| slots[other as usize].hash);
        number
    }

    /// Adds every staged write to the batch.
    pub(super) fn fill(&self, store: StoreId, batch: &mut Batch) {
        for &number in &self.staged {
            match self.value(number) {
                Some(value) => batch.put(store, self.key(number), value),
                None => batch.delete(store, self.key(number)),
            }
        }
    }

    /// Turns staged writes into cached committed entries.
    pub(super) fn settle(&mut self) {
        for &number in &self.staged {
            self.slots[number as usize].staged = false;
        }
        self.clean_bytes += self.staged_bytes;
        self.forget_staged();
    }

    /// Drops staged writes. What they overwrote is read from the back end again.
    pub(super) fn abort(&mut self) {
        for number in std::mem::take(&mut self.staged) {
            self.remove(number);
        }
        self.forget_staged();
        self.reset_if_empty();
    }

    fn forget_staged(&mut self) {
        self.staged.clear();
        self.sorted = 0;
        self.staged_bytes = 0;
    }

    /// Removes committed entries that were not used lately until they take `target` bytes at most.
    pub(super) fn evict(&mut self, target: usize) {
        while self.clean_bytes > target {
            // Ends: there is a clean entry, and the second pass over it finds it untouched.
            if self.hand >= self.slots.len() {
                self.hand = 0;
            }
            let slot = &mut self.slots[self.hand];
            if slot.live && !slot.staged {
                if slot.touched {
                    slot.touched = false;
                } else {
                    self.clean_bytes -= slot.weight();
                    self.remove(self.hand as u32);
                }
            }
            self.hand += 1;
        }
        self.reset_if_empty();
    }

    fn remove(&mut self, number: u32) {
        let slot = &mut self.slots[number as usize];
        slot.live = false;
        slot.staged = false;
        self.garbage += slot.footprint();
        if let Ok(indexed) = self.index.find_entry(slot.hash, |&other| other == number) {
            indexed.remove();
        }
        self.free.push(number);
    }

    fn reset_if_empty(&mut self) {
        if self.index.is_empty() {
            self.slots.clear();
            self.free.clear();
            self.arena.clear();
            self.garbage = 0;
            self.hand = 0;
        }
    }

    /// Copies what is live into a new arena, once half of the old one is garbage: a constant cost per byte written.
    fn compact_if_worthwhile(&mut self) {
        if self.garbage < MIN_GARBAGE || self.garbage < self.arena.len() / 2 {
            return;
        }
        let mut arena = Vec::with_capacity(self.arena.len() - self.garbage + MIN_GARBAGE);
        for slot in self.slots.iter_mut().filter(|slot| slot.live) {
            let bytes = slot.start..slot.start + slot.footprint();
            slot.start = arena.len();
            arena.extend_from_slice(&self.arena[bytes]);
        }
        self.arena = arena;
        self.garbage = 0;
    }

    /// Brings the staged writes into the order of their keys.
    pub(super) fn sort_staged(&mut self) {
        let mut staged = std::mem::take(&mut self.staged);
        if staged.len() - self.sorted <= MAX_INSERTIONS {
            for new in self.sorted..staged.len() {
                let key = self.key(staged[new]);
                let place = staged[..new].partition_point(|&slot| self.key(slot) < key);
                staged[place..=new].rotate_right(1);
            }
        } else {
            // The stable sort, which finds the part that is sorted already.
            staged.sort_by(|&a, &b| self.key(a).cmp(self.key(b)));
        }
        self.sorted = staged.len();
        self.staged = staged;
    }

    /// The staged writes between the bounds, after [`sort_staged`](Self::sort_staged). The range must not be empty.
    pub(super) fn staged_range<'a>(
        &'a self,
        from: Bound<&[u8]>,
        to: Bound<&[u8]>,
    ) -> impl Iterator<Item = (&'a [u8], Option<&'a [u8]>)> {
        let start = match from {
            Bound::Unbounded => 0,
            Bound::Included(from) => self.staged_before(from, false),
            Bound::Excluded(from) => self.staged_before(from, true),
        };
        let end = match to {
            Bound::Unbounded => self.staged.len(),
            Bound::Included(to) => self.staged_before(to, true),
            Bound::Excluded(to) => self.staged_before(to, false),
        };
        self.staged[start..end].iter().map(|&slot| (self.key(slot), self.value(slot)))
    }

    /// How many staged keys are below `bound`, or equal to it if `counts_equal`.
    fn staged_before(&self, bound: &[u8], counts_equal: bool) -> usize {
        self.staged.partition_point(|&slot| match self.key(slot).cmp(bound) {
            Ordering::Less => true,
            Ordering::Equal => counts_equal,
            Ordering::Greater => false,
        })
    }

    pub(super) fn staged_bytes(&self) -> usize {
        self.staged_bytes
    }

    pub(super) fn staged_len(&self) -> usize {
        self.staged.len()
    }

    pub(super) fn clean_bytes(&self) -> usize {
        self.clean_bytes
    }
}

fn push_value(arena: &mut Vec<u8>, value: &[u8], capacity: usize) {
    arena.extend_from_slice(value);
    arena.resize(arena.len() + capacity - value.len(), 0);
}
