use std::ops::{Bound, ControlFlow};

use super::*;
use crate::{Backend, Batch, Reader, StoreId};

const A: StoreId = StoreId(0);
const B: StoreId = StoreId(1);

fn shared() -> Shared {
    Shared::new(Settings::default().with_cache_bytes(8 << 20).with_write_buffer_bytes(4 << 20)).unwrap()
}

fn put(rocks: &mut Rocks, store: StoreId, key: &[u8], value: &[u8], offset: i64) {
    let mut batch = Batch::new();
    batch.put(store, key, value);
    batch.offset(store, offset);
    rocks.write(&batch).unwrap();
}

fn get(reader: &dyn Reader, store: StoreId, key: &[u8]) -> Option<Vec<u8>> {
    let mut out = Vec::new();
    reader.get(store, key, &mut out).unwrap().then_some(out)
}

#[test]
fn a_store_can_be_added_removed_and_brought_back() {
    let directory = tempfile::tempdir().unwrap();
    let shared = shared();
    put(&mut open(directory.path(), &["old"], &shared).unwrap(), A, b"k", b"v", 7);
    let mut rocks = open(directory.path(), &["new", "default"], &shared).unwrap();
    assert_eq!((rocks.offset(A).unwrap(), get(&rocks, A, b"k")), (None, None));
    put(&mut rocks, B, b"k", b"other", 3);
    drop(rocks);
    let rocks = open(directory.path(), &["default", "old"], &shared).unwrap();
    assert_eq!((rocks.offset(A).unwrap(), get(&rocks, A, b"k").unwrap()), (Some(3), b"other".to_vec()));
    assert_eq!((rocks.offset(B).unwrap(), get(&rocks, B, b"k").unwrap()), (Some(7), b"v".to_vec()));
}

#[test]
fn clear_removes_entries_offset_and_origin_of_one_store() {
    let directory = tempfile::tempdir().unwrap();
    let shared = shared();
    let mut rocks = open(directory.path(), &["a", "b"], &shared).unwrap();
    put(&mut rocks, A, b"k", b"v", 1);
    put(&mut rocks, B, b"k", b"v", 2);
    let mut batch = Batch::new();
    batch.origin(A, b"here");
    rocks.write(&batch).unwrap();
    let reader = rocks.reader();
    rocks.clear(A).unwrap();
    for _ in 0..2 {
        assert_eq!((get(&rocks, A, b"k"), rocks.offset(A).unwrap(), rocks.origin(A).unwrap()), (None, None, None));
        assert_eq!((get(&rocks, B, b"k").unwrap(), rocks.offset(B).unwrap()), (b"v".to_vec(), Some(2)));
        drop(rocks);
        rocks = open(directory.path(), &["a", "b"], &shared).unwrap();
    }
    put(&mut rocks, A, b"k", b"again", 5);
    assert_eq!(get(&rocks, A, b"k").unwrap(), b"again");
    assert!(matches!(reader.get(A, b"k", &mut Vec::new()), Err(Error::Closed)));
}

#[test]
fn a_reader_sees_commits_and_does_not_keep_the_database_open() {
    let directory = tempfile::tempdir().unwrap();
    let shared = shared();
    let mut rocks = open(directory.path(), &["a"], &shared).unwrap();
    let reader = rocks.reader();
    put(&mut rocks, A, b"k", b"v", 1);
    let seen = std::thread::scope(|scope| scope.spawn(|| get(&*reader, A, b"k")).join().unwrap());
    assert_eq!(seen.unwrap(), b"v");
    drop(rocks);
    assert!(matches!(reader.offset(A), Err(Error::Closed)));
    assert_eq!(reader.stores(), ["a"]);
    open(directory.path(), &["a"], &shared).unwrap();
}

#[test]
fn scan_honours_every_kind_of_bound() {
    let directory = tempfile::tempdir().unwrap();
    let mut rocks = open(directory.path(), &["a"], &shared()).unwrap();
    for key in [b"".as_slice(), b"a", b"a\0", b"b", b"\xff\xff"] {
        put(&mut rocks, A, key, b"", 0);
    }
    let scan = |from, to| {
        let mut keys = Vec::new();
        rocks
            .scan(A, from, to, &mut |key, _| {
                keys.push(key.to_vec());
                ControlFlow::Continue(())
            })
            .unwrap();
        keys
    };
    let (a, b) = (b"a".as_slice(), b"b".as_slice());
    assert_eq!(scan(Bound::Unbounded, Bound::Unbounded).len(), 5);
    assert_eq!(scan(Bound::Included(a), Bound::Excluded(b)), [a, b"a\0"]);
    assert_eq!(scan(Bound::Excluded(a), Bound::Included(b)), [b"a\0", b]);
    assert_eq!(scan(Bound::Unbounded, Bound::Excluded(a)), [b""]);
    assert_eq!(scan(Bound::Excluded(b), Bound::Unbounded), [b"\xff\xff"]);
    assert!(scan(Bound::Included(b), Bound::Included(a)).is_empty());
}

#[test]
fn names_and_formats_are_checked() {
    let directory = tempfile::tempdir().unwrap();
    let shared = shared();
    for names in [["a", "a"], ["a", "b/c"]] {
        let error = open(directory.path(), &names, &shared).unwrap_err();
        assert!(matches!(error, Error::Name { what: "store", .. }), "{error}");
    }
    {
        let rocks = open(directory.path(), &["a"], &shared).unwrap();
        let error = rocks.offset(B).unwrap_err();
        assert!(matches!(error, Error::UnknownStore { index: 1, stores: 1 }), "{error}");
    }
    let mut options = rocksdb::Options::default();
    options.create_missing_column_families(true);
    rocksdb::DB::open_cf(&options, directory.path(), ["default", "store/a"]).unwrap().put(b"format", b"2").unwrap();
    let error = open(directory.path(), &["a"], &shared).unwrap_err();
    assert!(matches!(error, Error::Foreign { .. }) && error.to_string().contains("format is 2"), "{error}");
}

#[test]
fn damage_is_told_apart_from_failure() {
    let directory = tempfile::tempdir().unwrap();
    let shared = shared();
    put(&mut open(directory.path(), &["a"], &shared).unwrap(), A, b"k", b"v", 1);
    std::fs::write(directory.path().join("CURRENT"), "nonsense").unwrap();
    let error = open(directory.path(), &["a"], &shared).unwrap_err();
    assert!(matches!(error, Error::Corrupt { .. }) && error.to_string().contains("delete the directory"), "{error}");
}
