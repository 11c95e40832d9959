//! Lines of text, from a file or made up, and the thread that writes them to a topic.

use std::io::{BufRead, BufReader};
use std::path::Path;
use std::sync::Arc;
use std::sync::atomic::{AtomicBool, AtomicU64, Ordering};
use std::thread::JoinHandle;
use std::time::{Duration, Instant};

use headwater::broker::{Broker, OutRecord, ProducerOptions};
use headwater::record::Headers;
use headwater::time::{Clock, SystemClock};
use headwater::wake::Waker;
use headwater::{Error, Result};

/// Records handed over and not acknowledged, above which the feeder waits.
const BACKLOG_LIMIT: usize = 10_000;

/// How long a feeder that is stopped may wait for acknowledgements.
const PATIENCE: Duration = Duration::from_secs(2);

/// Where lines come from.
pub type Lines = Box<dyn Iterator<Item = std::io::Result<String>> + Send>;

/// The lines of a file, or of standard input for `-`.
pub fn from_file(path: &Path) -> Result<Lines> {
    if path.as_os_str() == "-" {
        return Ok(Box::new(BufReader::new(std::io::stdin()).lines()));
    }
    let file = std::fs::File::open(path);
    let file = file.map_err(|error| {
        Error::Configuration(format!(
            "--input {}: {error}; accepted: a text file, or - for standard input",
            path.display()
        ))
    })?;
    Ok(Box::new(BufReader::new(file).lines()))
}

/// Endless lines of words whose frequencies differ, the same for the same seed.
#[must_use]
pub fn made_up(seed: u64) -> Lines {
    const WORDS: [&str; 24] = [
        "river", "stone", "water", "spring", "bank", "stream", "rain", "valley", "bridge", "mill", "reed", "trout",
        "ford", "delta", "gorge", "cloud", "snow", "melt", "flood", "drought", "source", "mouth", "current", "pool",
    ];
    // SplitMix64.
    let mut state = seed;
    let mut next = move || {
        state = state.wrapping_add(0x9e37_79b9_7f4a_7c15);
        let mixed = (state ^ (state >> 30)).wrapping_mul(0xbf58_476d_1ce4_e5b9);
        let mixed = (mixed ^ (mixed >> 27)).wrapping_mul(0x94d0_49bb_1331_11eb);
        mixed ^ (mixed >> 31)
    };
    Box::new(std::iter::repeat_with(move || {
        // The smaller of two draws: early words come more often.
        let words = (0..8).map(|_| WORDS[(next() % 24).min(next() % 24) as usize]);
        Ok(words.collect::<Vec<_>>().join(" "))
    }))
}

/// A thread that writes lines to a topic, spread over its partitions, without keys.
#[derive(Debug)]
pub struct Feeder {
    stop: Arc<AtomicBool>,
    written: Arc<AtomicU64>,
    thread: JoinHandle<Result<()>>,
}

impl Feeder {
    /// Begins to write, `rate` lines a second at most.
    pub fn start(broker: Arc<dyn Broker>, topic: &'static str, lines: Lines, rate: Option<u32>) -> Result<Self> {
        let (stop, written) = (Arc::new(AtomicBool::new(false)), Arc::new(AtomicU64::new(0)));
        let thread = {
            let (stop, written) = (Arc::clone(&stop), Arc::clone(&written));
            std::thread::spawn(move || feed(&*broker, topic, lines, rate, &stop, &written))
        };
        Ok(Self { stop, written, thread })
    }

    /// Lines written so far.
    #[must_use]
    pub fn written(&self) -> u64 {
        self.written.load(Ordering::Relaxed)
    }

    /// Whether all lines are written.
    #[must_use]
    pub fn is_done(&self) -> bool {
        self.thread.is_finished()
    }

    /// Waits until all lines are written, and tells what went wrong.
    pub fn finish(self) -> Result<()> {
        self.thread.join().unwrap_or_else(|_| Err(Error::Engine("the feeder panicked".to_owned())))
    }

    /// Ends it after the line that it is at. One that waits for a line, as from a terminal, ends with the process.
    pub fn stop(self) -> Result<()> {
        self.stop.store(true, Ordering::Relaxed);
        let until = Instant::now() + PATIENCE;
        while !self.is_done() {
            if Instant::now() > until {
                return Ok(());
            }
            std::thread::sleep(Duration::from_millis(5));
        }
        self.finish()
    }
}

fn feed(
    broker: &dyn Broker,
    topic: &str,
    lines: Lines,
    rate: Option<u32>,
    stop: &AtomicBool,
    written: &AtomicU64,
) -> Result<()> {
    let partitions = super::topics::partitions(broker, topic)?.len() as i32;
    let waker = Waker::new();
    let options = ProducerOptions {
        client_id: "feeder".to_owned(),
        transactional_id: None,
        transaction_timeout: Duration::from_secs(10),
        linger: Duration::from_millis(5),
    };
    let mut producer = broker.producer(&options, waker.clone())?;
    let handle = producer.topic(topic)?;
    let (clock, headers, started) = (SystemClock::new(), Headers::new(), Instant::now());
    for (line, number) in lines.zip(0u64..) {
        let line = line.map_err(|error| {
            Error::Configuration(format!("line {} of the input: {error}; accepted: text in UTF-8", number + 1))
        })?;
        let ahead = || rate.is_some_and(|rate| number as f64 > started.elapsed().as_secs_f64() * f64::from(rate));
        while producer.backlog() > BACKLOG_LIMIT || ahead() {
            if stop.load(Ordering::Relaxed) {
                break;
            }
            waker.wait(Duration::from_millis(5));
            producer.poll()?;
        }
        if stop.load(Ordering::Relaxed) {
            break;
        }
        let record = OutRecord { timestamp: clock.now(), key: None, value: Some(line.as_bytes()), headers: &headers };
        producer.send(handle, (number % u64::from(partitions.unsigned_abs())) as i32, &record)?;
        written.store(number + 1, Ordering::Relaxed);
    }
    while producer.backlog() > 0 {
        waker.wait(Duration::from_millis(5));
        producer.poll()?;
    }
    Ok(())
}
