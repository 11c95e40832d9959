//! What a counting operator pays per record in the staged writes: processor time of a read and a write of one key.
//!
//! ```sh
//! cargo run --release -p headwater-changelog --example staged_cost -- [rounds]
//! ```
//!
//! Keys are 12 bytes, values a timestamp and a counter; keys are drawn at random. All keys are in the cache before the
//! clock starts. A commit to the memory back end every 100,000 records is timed apart.

use std::env;
use std::error::Error;
use std::fs;
use std::hint::black_box;
use std::time::Duration;

use headwater_changelog::{Memory, State, StoreId};

const STORE: StoreId = StoreId(0);
const RECORDS: usize = 4_000_000;
const COMMIT_EVERY: usize = 100_000;

type Result<T> = std::result::Result<T, Box<dyn Error>>;
type Operator = fn(&mut State, &[u8]) -> Result<()>;

fn get_and_put(state: &mut State, key: &[u8]) -> Result<()> {
    let count = state.get(STORE, key)?.map(count).unwrap_or_default();
    Ok(state.put(STORE, key, &value(count + 1))?)
}

fn entry(state: &mut State, key: &[u8]) -> Result<()> {
    let mut entry = state.entry(STORE, key)?;
    let count = entry.value().map(count).unwrap_or_default();
    Ok(entry.set(&value(count + 1))?)
}

fn get(state: &mut State, key: &[u8]) -> Result<()> {
    black_box(state.get(STORE, key)?);
    Ok(())
}

fn count(value: &[u8]) -> u64 {
    value.last_chunk().copied().map(u64::from_be_bytes).unwrap_or_default()
}

fn key(number: usize) -> [u8; 12] {
    let mut key = *b"key-........";
    key[4..].copy_from_slice(&(number as u64).to_be_bytes());
    key
}

/// The processor time of this thread so far: unlike the clock's, it does not count what other processes take.
fn cpu() -> Result<Duration> {
    let times = fs::read_to_string("/proc/thread-self/schedstat")?;
    let running = times.split_whitespace().next().ok_or("no running time")?;
    Ok(Duration::from_nanos(running.parse()?))
}

fn value(count: u64) -> [u8; 16] {
    let mut value = [0; 16];
    value[8..].copy_from_slice(&count.to_be_bytes());
    value
}

/// Nanoseconds per record of the operator, and per staged key of the commits.
fn measure(keys: usize, operator: Operator) -> Result<(f64, f64)> {
    let mut state = State::new(Box::new(Memory::new(&["counts"])), 1 << 30);
    for number in 0..keys {
        get_and_put(&mut state, &key(number))?;
    }
    state.commit(&[])?;
    let mut random = 1_u64;
    let (mut records, mut commits, mut staged) = (Duration::ZERO, Duration::ZERO, 0);
    for _ in 0..RECORDS / COMMIT_EVERY {
        let begin = cpu()?;
        for _ in 0..COMMIT_EVERY {
            random = random.wrapping_mul(6_364_136_223_846_793_005).wrapping_add(1);
            let index = ((random >> 32) as usize * keys) >> 32;
            operator(&mut state, &key(index))?;
        }
        records += cpu()? - begin;
        staged += state.staged_len();
        let begin = cpu()?;
        state.commit(&[(STORE, 1)])?;
        commits += cpu()? - begin;
    }
    Ok((
        records.as_nanos() as f64 / RECORDS as f64,
        if staged == 0 { 0.0 } else { commits.as_nanos() as f64 / staged as f64 },
    ))
}

fn main() -> Result<()> {
    let rounds = env::args().nth(1).map_or(Ok(5), |rounds| rounds.parse::<usize>())?;
    let operators: [(&str, Operator); 3] = [("get", get), ("get, put", get_and_put), ("entry", entry)];
    println!("   keys operator    ns/record, median [least greatest]    ns/staged key of the commit");
    for keys in [10_000, 100_000, 1_000_000] {
        for (name, operator) in operators {
            let mut costs = (0..rounds).map(|_| measure(keys, operator)).collect::<Result<Vec<_>>>()?;
            costs.sort_by(|a, b| a.0.total_cmp(&b.0));
            let (least, median, greatest) = (costs[0], costs[rounds / 2], costs[rounds - 1]);
            println!("{keys:7} {name:10} {:8.1} [{:.1} {:.1}] {:22.0}", median.0, least.0, greatest.0, median.1);
        }
    }
    Ok(())
}
