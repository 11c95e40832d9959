use super::*;
use crate::Memory;

const A: StoreId = StoreId(0);
const B: StoreId = StoreId(1);

fn state(cache_bytes: usize) -> State {
    State::new(Box::new(Memory::new(&["a", "b"])), cache_bytes)
}

fn dump(state: &mut State, store: StoreId) -> Vec<(String, String)> {
    let mut seen = Vec::new();
    let text = |bytes: &[u8]| String::from_utf8_lossy(bytes).into_owned();
    state
        .scan(store, Bound::Unbounded, Bound::Unbounded, &mut |key, value| {
            seen.push((text(key), text(value)));
            ControlFlow::Continue(())
        })
        .unwrap();
    seen
}

fn pairs(expected: &[(&str, &str)]) -> Vec<(String, String)> {
    expected.iter().map(|(key, value)| ((*key).to_owned(), (*value).to_owned())).collect()
}

#[test]
fn staged_writes_are_seen_and_reach_the_back_end_at_commit_only() {
    let mut state = state(1 << 20);
    let reader = state.reader();
    let mut value = Vec::new();
    state.put(A, b"k", b"1").unwrap();
    assert_eq!(state.get(A, b"k").unwrap(), Some(b"1".as_slice()));
    assert_eq!(state.get(B, b"k").unwrap(), None);
    assert!(!reader.get(A, b"k", &mut value).unwrap());
    state.commit(&[(A, 5)]).unwrap();
    assert!(reader.get(A, b"k", &mut value).unwrap());
    assert_eq!(
        (value.as_slice(), reader.offset(A).unwrap(), reader.offset(B).unwrap()),
        (b"1".as_slice(), Some(5), None)
    );
    assert_eq!((state.staged_len(), state.staged_bytes()), (0, 0));
}

#[test]
fn abort_returns_to_the_last_commit() {
    let mut state = state(1 << 20);
    state.put(A, b"kept", b"old").unwrap();
    state.put(A, b"removed", b"old").unwrap();
    state.commit(&[(A, 1)]).unwrap();
    state.put(A, b"kept", b"a value that needs more room than the old one").unwrap();
    state.delete(A, b"removed").unwrap();
    state.put(A, b"new", b"x").unwrap();
    assert_eq!(state.staged_len(), 3);
    state.abort();
    assert_eq!((state.staged_len(), state.staged_bytes()), (0, 0));
    assert_eq!(state.get(A, b"kept").unwrap(), Some(b"old".as_slice()));
    assert_eq!(state.get(A, b"removed").unwrap(), Some(b"old".as_slice()));
    assert_eq!(state.get(A, b"new").unwrap(), None);
    state.commit(&[]).unwrap();
    assert_eq!(dump(&mut state, A), pairs(&[("kept", "old"), ("removed", "old")]));
}

#[test]
fn an_entry_is_read_and_changed_in_one_look_up() {
    let mut state = state(1 << 20);
    for expected in 0..300_u64 {
        let mut entry = state.entry(A, b"count").unwrap();
        let count = entry.value().map_or(0, |bytes| u64::from_be_bytes(bytes.try_into().unwrap()));
        assert_eq!(count, expected);
        entry.set(&(count + 1).to_be_bytes()).unwrap();
    }
    state.commit(&[]).unwrap();
    state.entry(A, b"count").unwrap().delete();
    assert_eq!(state.get(A, b"count").unwrap(), None);
    state.commit(&[]).unwrap();
    assert_eq!(dump(&mut state, A), []);
}

#[test]
fn scan_merges_staged_and_committed_in_order() {
    let mut state = state(1 << 20);
    for key in ["b", "d", "f", "h"] {
        state.put(A, key.as_bytes(), b"old").unwrap();
    }
    state.commit(&[]).unwrap();
    state.put(A, b"a", b"new").unwrap();
    state.delete(A, b"d").unwrap();
    state.put(A, b"f", b"new").unwrap();
    state.put(A, b"z", b"new").unwrap();
    state.delete(A, b"never there").unwrap();
    assert_eq!(dump(&mut state, A), pairs(&[("a", "new"), ("b", "old"), ("f", "new"), ("h", "old"), ("z", "new")]));
    let mut first_two = Vec::new();
    state
        .scan(A, Bound::Excluded(b"a"), Bound::Included(b"h"), &mut |key, _| {
            first_two.push(key.to_vec());
            if first_two.len() == 2 { ControlFlow::Break(()) } else { ControlFlow::Continue(()) }
        })
        .unwrap();
    assert_eq!(first_two, [b"b", b"f"]);
}

#[test]
fn the_cache_keeps_its_bound_and_never_evicts_staged_writes() {
    let limit = 100_000;
    let mut state = state(limit);
    for number in 0..10_000_u32 {
        state.put(A, &number.to_be_bytes(), &[1; 40]).unwrap();
    }
    assert!(state.staged_bytes() > limit && state.cached_bytes() == 0);
    state.commit(&[]).unwrap();
    assert!(state.cached_bytes() <= limit, "{}", state.cached_bytes());
    for number in 0..10_000_u32 {
        state.put(B, &number.to_be_bytes(), b"staged").unwrap();
        assert_eq!(state.get(A, &number.to_be_bytes()).unwrap(), Some([1; 40].as_slice()));
        assert!(state.cached_bytes() <= limit, "{}", state.cached_bytes());
    }
    assert_eq!(state.staged_len(), 10_000);
    for number in 0..10_000_u32 {
        assert_eq!(state.get(B, &number.to_be_bytes()).unwrap(), Some(b"staged".as_slice()));
    }
}

#[test]
fn without_a_cache_every_read_still_answers() {
    let mut state = state(0);
    state.put(A, b"k", b"v").unwrap();
    state.commit(&[]).unwrap();
    assert_eq!(state.cached_bytes(), 0);
    for key in [b"k", b"x", b"k"] {
        assert_eq!(state.get(A, key).unwrap().is_some(), key == b"k");
    }
}

#[test]
fn what_is_not_there_is_refused() {
    let mut state = state(0);
    let error = state.put(StoreId(2), b"k", b"v").unwrap_err();
    assert!(matches!(error, Error::UnknownStore { index: 2, stores: 2 }), "{error}");
    let error = state.commit(&[(StoreId(9), 1)]).unwrap_err();
    assert!(matches!(error, Error::UnknownStore { index: 9, .. }), "{error}");
}
