//! `State` over each back end against a model of two ordered maps: what is committed, and what is staged over it.

#![expect(clippy::unwrap_used, reason = "a failure is the test's")]

use std::collections::BTreeMap;
use std::ops::{Bound, ControlFlow};

use headwater_changelog::{Backend, Memory, State, StoreId};
use proptest::collection::vec;
use proptest::prelude::*;

const STORES: [&str; 2] = ["a", "b"];

type Key = Vec<u8>;
type Table = BTreeMap<Key, Vec<u8>>;

#[derive(Clone, Debug)]
enum Step {
    Put(u16, Key, Vec<u8>),
    Delete(u16, Key),
    /// Appends to the value through an entry.
    Append(u16, Key, u8),
    Get(u16, Key),
    Scan(u16, Bound<Key>, Bound<Key>, usize),
    Commit,
    Abort,
    Reopen,
}

fn key() -> impl Strategy<Value = Key> {
    // Few keys, so that steps meet; some share a prefix, one is empty.
    vec(prop_oneof![Just(0_u8), Just(b'a'), Just(0xff)], 0..4)
}

fn bound() -> impl Strategy<Value = Bound<Key>> {
    prop_oneof![Just(Bound::Unbounded), key().prop_map(Bound::Included), key().prop_map(Bound::Excluded)]
}

fn step() -> impl Strategy<Value = Step> {
    let store = 0..2_u16;
    prop_oneof![
        8 => (store.clone(), key(), vec(any::<u8>(), 0..60)).prop_map(|(s, k, v)| Step::Put(s, k, v)),
        3 => (store.clone(), key()).prop_map(|(s, k)| Step::Delete(s, k)),
        5 => (store.clone(), key(), any::<u8>()).prop_map(|(s, k, b)| Step::Append(s, k, b)),
        5 => (store.clone(), key()).prop_map(|(s, k)| Step::Get(s, k)),
        3 => (store, bound(), bound(), 0..40_usize).prop_map(|(s, f, t, n)| Step::Scan(s, f, t, n)),
        2 => Just(Step::Commit),
        1 => Just(Step::Abort),
        1 => Just(Step::Reopen),
    ]
}

fn collect(limit: usize, scan: impl FnOnce(&mut dyn FnMut(&[u8], &[u8]) -> ControlFlow<()>)) -> Vec<(Key, Vec<u8>)> {
    let mut seen = Vec::new();
    scan(&mut |key, value| {
        seen.push((key.to_vec(), value.to_vec()));
        if seen.len() > limit { ControlFlow::Break(()) } else { ControlFlow::Continue(()) }
    });
    seen
}

fn as_slice(bound: &Bound<Key>) -> Bound<&[u8]> {
    bound.as_ref().map(Vec::as_slice)
}

fn expected(table: &Table, from: &Bound<Key>, to: &Bound<Key>, limit: usize) -> Vec<(Key, Vec<u8>)> {
    let above = |key: &Key| match from {
        Bound::Unbounded => true,
        Bound::Included(from) => key >= from,
        Bound::Excluded(from) => key > from,
    };
    let below = |key: &Key| match to {
        Bound::Unbounded => true,
        Bound::Included(to) => key <= to,
        Bound::Excluded(to) => key < to,
    };
    let inside = table.iter().filter(|(key, _)| above(key) && below(key));
    inside.take(limit + 1).map(|(key, value)| (key.clone(), value.clone())).collect()
}

/// Runs the steps. `reopen` closes the back end it is given and opens it again, as a restart would.
fn check(
    steps: &[Step],
    cache_bytes: usize,
    backend: Box<dyn Backend>,
    mut reopen: impl FnMut(Box<dyn Backend>) -> Box<dyn Backend>,
) {
    let mut state = State::new(backend, cache_bytes);
    let mut committed: [Table; 2] = Default::default();
    let mut staged = committed.clone();
    let mut offset = 0;
    for step in steps {
        match step {
            Step::Put(store, key, value) => {
                state.put(StoreId(*store), key, value).unwrap();
                staged[usize::from(*store)].insert(key.clone(), value.clone());
            }
            Step::Delete(store, key) => {
                state.delete(StoreId(*store), key).unwrap();
                staged[usize::from(*store)].remove(key);
            }
            Step::Append(store, key, byte) => {
                let mut entry = state.entry(StoreId(*store), key).unwrap();
                let mut value = entry.value().unwrap_or_default().to_vec();
                value.push(*byte);
                entry.set(&value).unwrap();
                assert_eq!(entry.value(), Some(value.as_slice()));
                staged[usize::from(*store)].entry(key.clone()).or_default().push(*byte);
            }
            Step::Get(store, key) => {
                let expected = staged[usize::from(*store)].get(key).map(Vec::as_slice);
                assert_eq!(state.get(StoreId(*store), key).unwrap(), expected);
            }
            Step::Scan(store, from, to, limit) => {
                let seen = collect(*limit, |visit| {
                    state.scan(StoreId(*store), as_slice(from), as_slice(to), visit).unwrap();
                });
                assert_eq!(seen, expected(&staged[usize::from(*store)], from, to, *limit));
            }
            Step::Commit => {
                offset += 1;
                state.commit(&[(StoreId(0), offset), (StoreId(1), offset * 2)]).unwrap();
                committed.clone_from(&staged);
                assert_eq!((state.staged_len(), state.staged_bytes()), (0, 0));
                assert!(state.cached_bytes() <= cache_bytes);
            }
            Step::Abort => {
                state.abort();
                staged.clone_from(&committed);
                assert_eq!((state.staged_len(), state.staged_bytes()), (0, 0));
            }
            Step::Reopen => {
                state = State::new(reopen(state.into_backend()), cache_bytes);
                staged.clone_from(&committed);
            }
        }
        let reader = state.reader();
        for (store, (committed, offset)) in (0..).zip(committed.iter().zip([offset, offset * 2])) {
            let stored = reader.offset(StoreId(store)).unwrap();
            assert_eq!(stored, (offset > 0).then_some(offset));
            let unbounded = &Bound::Unbounded;
            let seen = collect(usize::MAX - 1, |visit| {
                reader.scan(StoreId(store), Bound::Unbounded, Bound::Unbounded, visit).unwrap();
            });
            assert_eq!(seen, expected(committed, unbounded, unbounded, usize::MAX - 1));
        }
    }
}

/// No cache, one that evicts at nearly every step, and one that never does.
fn cache_bytes() -> impl Strategy<Value = usize> {
    prop_oneof![Just(0), Just(400), Just(1 << 20)]
}

proptest! {
    #![proptest_config(ProptestConfig { cases: 256, failure_persistence: None, ..ProptestConfig::default() })]

    #[test]
    fn memory(steps in vec(step(), 1..200), cache_bytes in cache_bytes()) {
        check(&steps, cache_bytes, Box::new(Memory::new(&STORES)), |backend| backend);
    }
}

#[cfg(feature = "rocksdb")]
proptest! {
    #![proptest_config(ProptestConfig { cases: 24, failure_persistence: None, ..ProptestConfig::default() })]

    #[test]
    fn rocks(steps in vec(step(), 1..200), cache_bytes in cache_bytes()) {
        use headwater_changelog::rocks;
        let directory = tempfile::tempdir().unwrap();
        let shared = rocks::Shared::new(rocks::Settings::default()).unwrap();
        let open = || -> Box<dyn Backend> { Box::new(rocks::open(directory.path(), &STORES, &shared).unwrap()) };
        check(&steps, cache_bytes, open(), |backend| {
            drop(backend);
            open()
        });
    }
}

/// Entries that grow, shrink, go and come back, far beyond what one arena holds before it is compacted.
#[test]
fn a_long_life_in_a_small_cache() {
    let mut state = State::new(Box::new(Memory::new(&STORES)), 64 * 1024);
    let mut model = Table::new();
    let mut random = 7_u64;
    for round in 0..60_000_u64 {
        random = random.wrapping_mul(6_364_136_223_846_793_005).wrapping_add(1);
        let key = (random >> 33) % 2_000;
        let key = key.to_be_bytes();
        let value = vec![round as u8; (random >> 50) as usize % 300];
        assert_eq!(state.get(StoreId(0), &key).unwrap(), model.get(key.as_slice()).map(Vec::as_slice));
        if random >> 62 == 0 {
            state.delete(StoreId(0), &key).unwrap();
            model.remove(key.as_slice());
        } else {
            state.put(StoreId(0), &key, &value).unwrap();
            model.insert(key.to_vec(), value);
        }
        if round % 500 == 0 {
            state.commit(&[]).unwrap();
        }
    }
    let seen = collect(usize::MAX - 1, |visit| {
        state.scan(StoreId(0), Bound::Unbounded, Bound::Unbounded, visit).unwrap();
    });
    assert_eq!(seen, model.into_iter().collect::<Vec<_>>());
}
