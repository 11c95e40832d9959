//! A process killed while it commits must leave data and offset that agree exactly, and lose no commit.
//!
//! The test runs itself again as the child that is killed.

#![cfg(feature = "rocksdb")]
#![expect(clippy::unwrap_used, reason = "a failure is the test's")]

use std::env;
use std::io::{BufRead, BufReader, Write};
use std::ops::{Bound, ControlFlow};
use std::path::Path;
use std::process::{Command, Stdio};

use headwater_changelog::{Reader, State, StoreId, rocks};

const CHILD: &str = "HEADWATER_TEST_COMMIT_IN";
const KILLS: u64 = 10;
const KEYS: i64 = 500;
/// Records per commit; coprime to the number of keys, so that every commit ends elsewhere.
const COMMIT: i64 = 37;
const STORES: [&str; 2] = ["counts", "sums"];
const COUNTS: StoreId = StoreId(0);
const SUMS: StoreId = StoreId(1);

fn open(path: &Path) -> rocks::Rocks {
    // Write buffers so small that kills also hit flushes and compactions.
    let settings = rocks::Settings::default().with_write_buffer_bytes(512 * 1024).with_cache_bytes(1024 * 1024);
    rocks::open(path, &STORES, &rocks::Shared::new(settings).unwrap()).unwrap()
}

/// The number of records before `offset` that have `key`: record n has key n modulo `KEYS`.
fn occurrences(key: i64, offset: i64) -> i64 {
    (offset - key + KEYS - 1).div_euclid(KEYS).max(0)
}

/// Counts records, and says after each commit how far it is.
fn commit_until_killed(path: &Path) {
    let mut state = State::new(Box::new(open(path)), 16 * 1024);
    let mut out = std::io::stdout().lock();
    let mut offset = state.offset(COUNTS).unwrap().unwrap_or(0);
    loop {
        for record in offset..offset + COMMIT {
            let key = (record % KEYS).to_be_bytes();
            for store in [COUNTS, SUMS] {
                let mut entry = state.entry(store, &key).unwrap();
                let old = entry.value().map_or(0, |value| i64::from_be_bytes(*value.first_chunk().unwrap()));
                let new = if store == COUNTS { old + 1 } else { old + record };
                let mut value = vec![b'-'; 100];
                value[..8].copy_from_slice(&new.to_be_bytes());
                entry.set(&value).unwrap();
            }
        }
        offset += COMMIT;
        state.commit(&[(COUNTS, offset), (SUMS, offset)]).unwrap();
        writeln!(out, "committed {offset}").unwrap();
        out.flush().unwrap();
    }
}

/// Checks every value against the offset, which it answers.
fn verify(path: &Path) -> i64 {
    let rocks = open(path);
    let offset = rocks.offset(COUNTS).unwrap().unwrap_or(0);
    assert_eq!(rocks.offset(SUMS).unwrap().unwrap_or(0), offset);
    for store in [COUNTS, SUMS] {
        let mut keys = 0;
        rocks
            .scan(store, Bound::Unbounded, Bound::Unbounded, &mut |key, value| {
                let key = i64::from_be_bytes(key.try_into().unwrap());
                let value = i64::from_be_bytes(*value.first_chunk().unwrap());
                let times = occurrences(key, offset);
                let expected = if store == COUNTS { times } else { times * key + KEYS * times * (times - 1) / 2 };
                assert_eq!(value, expected, "{store}, key {key}, offset {offset}");
                keys += 1;
                ControlFlow::Continue(())
            })
            .unwrap();
        assert_eq!(keys, offset.min(KEYS));
    }
    offset
}

#[test]
fn data_and_offset_agree_after_every_kill() {
    if let Ok(path) = env::var(CHILD) {
        return commit_until_killed(Path::new(&path));
    }
    let directory = tempfile::tempdir().unwrap();
    for kill in 1..=KILLS {
        let mut child = Command::new(env::current_exe().unwrap())
            .args(["--exact", "data_and_offset_agree_after_every_kill", "--nocapture"])
            .env(CHILD, directory.path())
            .stdout(Stdio::piped())
            .spawn()
            .unwrap();
        let lines = BufReader::new(child.stdout.take().unwrap()).lines();
        let commits = lines.filter_map(|line| line.unwrap().strip_prefix("committed ")?.parse::<i64>().ok());
        // Enough commits to fill the write buffers a few times, and other points of them at every kill.
        let reported = commits.take(150 + 61 * kill as usize).last().unwrap();
        child.kill().unwrap();
        child.wait().unwrap();
        let offset = verify(directory.path());
        assert!(offset >= reported, "the commit of {reported} is lost: the store is at {offset}");
        assert_eq!(offset % COMMIT, 0, "a part of a commit is stored");
    }
}
