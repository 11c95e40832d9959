//! Should a task's RocksDB write its own log, or should the changelog be its only log, with a thread that flushes
//! memtables? Measures what a commit costs either way, and how many records must be replayed after SIGKILL.
//!
//! ```sh
//! cargo run --release -p headwater-changelog --example wal_or_flusher -- [rounds]
//! ```
//!
//! Both ways use the options that matter of the RocksDB back end. Cost is processor time of the whole process, which
//! includes RocksDB's threads, per record, and the time that the committing thread waits. The time budget of the
//! flusher is `FLUSH_EVERY`.

use std::env;
use std::error::Error;
use std::fs;
use std::io::{BufRead, BufReader, Write};
use std::path::Path;
use std::process::{Command, Stdio};
use std::sync::Arc;
use std::sync::atomic::{AtomicBool, Ordering};
use std::thread;
use std::time::{Duration, Instant};

use rocksdb::{
    BlockBasedOptions, Cache, ColumnFamilyDescriptor, DB, DBCompressionType, FlushOptions, Options, WriteBatch,
    WriteOptions,
};

type Result<T> = std::result::Result<T, Box<dyn Error + Send + Sync>>;

const STORE: &str = "store";
const OFFSET: &[u8] = b"offset";
const RECORDS: u64 = 1_000_000;
const FLUSH_EVERY: Duration = Duration::from_secs(5);
const KILLS: usize = 10;
const CHILD: &str = "WAL_OR_FLUSHER_CHILD";

#[derive(Clone, Copy, Debug, PartialEq)]
enum Mode {
    /// RocksDB's own log, never synchronised by the commit.
    Log,
    /// The same, and a thread that synchronises it.
    SyncedLog,
    /// No log; a thread flushes memtables.
    Flusher,
}

const MODES: [Mode; 3] = [Mode::Log, Mode::SyncedLog, Mode::Flusher];

struct Store {
    db: Arc<DB>,
    write: WriteOptions,
    stop: Arc<AtomicBool>,
    flusher: Option<thread::JoinHandle<()>>,
}

impl Store {
    fn open(path: &Path, mode: Mode) -> Result<Self> {
        let mut options = Options::default();
        options.create_if_missing(true);
        options.create_missing_column_families(true);
        options.set_atomic_flush(true);
        options.set_max_background_jobs(2);
        options.set_write_buffer_size(16 << 20);
        options.set_max_write_buffer_number(3);
        options.set_compression_type(DBCompressionType::Lz4);
        let mut blocks = BlockBasedOptions::default();
        blocks.set_bloom_filter(10.0, false);
        blocks.set_block_cache(&Cache::new_lru_cache(64 << 20));
        options.set_block_based_table_factory(&blocks);
        let families = ["default", STORE].map(|name| ColumnFamilyDescriptor::new(name, options.clone()));
        let db = Arc::new(DB::open_cf_descriptors(&options, path, families)?);
        let mut write = WriteOptions::default();
        write.disable_wal(mode == Mode::Flusher);
        let stop = Arc::new(AtomicBool::new(false));
        let flusher = (mode != Mode::Log).then(|| {
            let (db, stop) = (Arc::clone(&db), Arc::clone(&stop));
            thread::spawn(move || {
                let mut last = Instant::now();
                while !stop.load(Ordering::Relaxed) {
                    thread::sleep(Duration::from_millis(20));
                    if last.elapsed() >= FLUSH_EVERY {
                        flush(&db, mode).expect("flush");
                        last = Instant::now();
                    }
                }
            })
        });
        Ok(Self { db, write, stop, flusher })
    }

    fn offset(&self) -> Result<u64> {
        let value = self.db.get(OFFSET)?;
        Ok(value.map_or(Ok(0), |bytes| bytes.as_slice().try_into().map(u64::from_be_bytes))?)
    }

    /// Commits `size` puts of 100 bytes from offset `from` on.
    fn commit(&self, from: u64, size: u64, keys: u64) -> Result<()> {
        let family = self.db.cf_handle(STORE).ok_or("no column family")?;
        let mut batch = WriteBatch::default();
        for record in from..from + size {
            batch.put_cf(&family, key(record, keys), value(record));
        }
        batch.put(OFFSET, (from + size).to_be_bytes());
        Ok(self.db.write_opt(batch, &self.write)?)
    }
}

impl Drop for Store {
    fn drop(&mut self) {
        self.stop.store(true, Ordering::Relaxed);
        if let Some(flusher) = self.flusher.take() {
            flusher.join().expect("the flusher ends");
        }
    }
}

fn flush(db: &DB, mode: Mode) -> Result<()> {
    if mode == Mode::Flusher {
        let families = ["default", STORE].map(|name| db.cf_handle(name).expect("opened above"));
        Ok(db.flush_cfs_opt(&families.each_ref(), &FlushOptions::default())?)
    } else {
        Ok(db.flush_wal(true)?)
    }
}

/// A 16-byte key; the multiplication spreads consecutive records over the key space.
fn key(record: u64, keys: u64) -> [u8; 16] {
    let number = record.wrapping_mul(0x9e37_79b9_7f4a_7c15) % keys;
    let mut key = *b"key-000000000000";
    key[8..].copy_from_slice(&number.to_be_bytes());
    key
}

/// 100 bytes of which LZ4 saves about half.
fn value(record: u64) -> [u8; 100] {
    let mut value = [b'v'; 100];
    let mut state = record;
    for chunk in value[..48].chunks_exact_mut(8) {
        state = state.wrapping_mul(6_364_136_223_846_793_005).wrapping_add(1_442_695_040_888_963_407);
        chunk.copy_from_slice(&state.to_le_bytes());
    }
    value
}

struct Cost {
    cpu_per_record: f64,
    wait_per_record: f64,
    slowest: Duration,
    reopen: Duration,
    written: f64,
}

fn measure(mode: Mode, size: u64, keys: u64) -> Result<Cost> {
    let directory = scratch()?;
    let store = Store::open(&directory, mode)?;
    // Fill every key first, so that the measured commits overwrite.
    let first = keys.next_multiple_of(size);
    for from in (0..first).step_by(usize::try_from(size)?) {
        store.commit(from, size, keys)?;
    }
    let (cpu, written, begin) = (process_cpu()?, bytes_written()?, Instant::now());
    let mut slowest = Duration::ZERO;
    for from in (first..first + RECORDS).step_by(usize::try_from(size)?) {
        let begin = Instant::now();
        store.commit(from, size, keys)?;
        slowest = slowest.max(begin.elapsed());
    }
    let wait = begin.elapsed();
    flush(&store.db, mode)?;
    drop(store);
    let (cpu, written) = (process_cpu()? - cpu, bytes_written()? - written);
    let begin = Instant::now();
    drop(Store::open(&directory, mode)?);
    let reopen = begin.elapsed();
    fs::remove_dir_all(&directory)?;
    let records = RECORDS as f64;
    Ok(Cost {
        cpu_per_record: cpu.as_nanos() as f64 / records,
        wait_per_record: wait.as_nanos() as f64 / records,
        slowest,
        reopen,
        written: written as f64 / records,
    })
}

/// Commits until it is killed, and says after each commit how far it has come.
fn child(path: &Path, mode: Mode) -> Result<()> {
    let store = Store::open(path, mode)?;
    let mut out = std::io::stdout().lock();
    let mut offset = store.offset()?;
    loop {
        store.commit(offset, 1_000, 1_000_000)?;
        offset += 1_000;
        writeln!(out, "{offset}")?;
        out.flush()?;
        thread::sleep(Duration::from_millis(10));
    }
}

/// Records to replay after each of `KILLS` kills.
fn kill(mode: Mode) -> Result<Vec<u64>> {
    let directory = scratch()?;
    let mut lost = Vec::new();
    for round in 0..KILLS {
        let mut child = Command::new(env::current_exe()?)
            .env(CHILD, format!("{mode:?}"))
            .arg(&directory)
            .stdout(Stdio::piped())
            .spawn()?;
        let lines = BufReader::new(child.stdout.take().ok_or("no pipe")?).lines();
        let deadline = Instant::now() + Duration::from_millis(1_500 + 700 * round as u64);
        let mut said = 0;
        for line in lines {
            said = line?.parse::<u64>()?;
            if Instant::now() > deadline {
                break;
            }
        }
        child.kill()?;
        child.wait()?;
        let stored = Store::open(&directory, mode)?.offset()?;
        lost.push(said.saturating_sub(stored));
    }
    fs::remove_dir_all(&directory)?;
    Ok(lost)
}

fn scratch() -> Result<std::path::PathBuf> {
    Ok(tempfile::Builder::new().prefix("wal-or-flusher").tempdir()?.keep())
}

fn process_cpu() -> Result<Duration> {
    // The nanoseconds that every thread ever spent would need each thread's file; the ticks of `stat`, 10 ms each, do.
    let stat = fs::read_to_string("/proc/self/stat")?;
    let fields = stat.rsplit(')').next().ok_or("stat without a name")?.split_whitespace();
    let ticks: u64 = fields.skip(11).take(2).map(str::parse::<u64>).sum::<std::result::Result<_, _>>()?;
    Ok(Duration::from_millis(ticks * 10))
}

fn bytes_written() -> Result<u64> {
    let io = fs::read_to_string("/proc/self/io")?;
    let line = io.lines().find_map(|line| line.strip_prefix("wchar: ")).ok_or("no wchar")?;
    Ok(line.parse()?)
}

/// The median, and in brackets the least and the greatest.
fn spread(mut values: Vec<f64>) -> String {
    values.sort_by(f64::total_cmp);
    let last = values.len() - 1;
    format!("{:7.0} [{:6.0} {:6.0}]", values[values.len() / 2], values[0], values[last])
}

fn main() -> Result<()> {
    if let Ok(mode) = env::var(CHILD) {
        let path = env::args().nth(1).ok_or("no path")?;
        let mode = MODES.into_iter().find(|candidate| format!("{candidate:?}") == mode).ok_or("unknown mode")?;
        return child(Path::new(&path), mode);
    }
    let rounds = env::args().nth(1).map_or(Ok(5), |rounds| rounds.parse::<usize>())?;
    println!("{RECORDS} puts of 16 + 100 bytes, median [least greatest] of {rounds} rounds");
    println!(
        "   keys  batch       mode   CPU ns/record           wait ns/record          slowest commit ms       written B/record        reopen ms"
    );
    for keys in [10_000, 1_000_000] {
        for size in [1_000, 10_000] {
            let mut costs = MODES.map(|_| Vec::new());
            for _ in 0..rounds {
                for (mode, costs) in MODES.into_iter().zip(&mut costs) {
                    costs.push(measure(mode, size, keys)?);
                }
            }
            for (mode, costs) in MODES.into_iter().zip(&costs) {
                let column = |of: fn(&Cost) -> f64| spread(costs.iter().map(of).collect());
                println!(
                    "{keys:7} {size:6} {:>10} {} {} {} {} {}",
                    format!("{mode:?}"),
                    column(|cost| cost.cpu_per_record),
                    column(|cost| cost.wait_per_record),
                    column(|cost| cost.slowest.as_secs_f64() * 1e3),
                    column(|cost| cost.written),
                    column(|cost| cost.reopen.as_secs_f64() * 1e3),
                );
            }
        }
    }
    println!("\nrecords to replay after SIGKILL, 1,000 committed every 10 ms, flusher every {FLUSH_EVERY:?}");
    for mode in MODES {
        println!("{:>10} {:?}", format!("{mode:?}"), kill(mode)?);
    }
    Ok(())
}
