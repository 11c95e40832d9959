use std::sync::atomic::{AtomicBool, AtomicU64, Ordering};
use std::sync::{Arc, Mutex, PoisonError};
use std::thread::{self, JoinHandle};
use std::time::{Duration, Instant};

use rdkafka::ClientConfig;
use rdkafka::client::ClientContext;
use rdkafka::error::{KafkaError, RDKafkaErrorCode};
use rdkafka::message::{DeliveryResult, Message};
use rdkafka::producer::{BaseProducer, BaseRecord, Producer, ProducerContext};

use crate::{Failure, Outgoing};

/// Time for what is still on its way when a producer stops: longer than a broker's restart.
const FLUSH_TIME: Duration = Duration::from_secs(120);

/// A record that the broker has acknowledged.
#[derive(Debug, Clone, PartialEq, Eq)]
pub struct Sent {
    /// Its number in the stream.
    pub index: u64,
    /// The offset it got in its partition.
    pub offset: i64,
    /// What was produced.
    pub record: Outgoing,
}

/// Produces a stream of records at a steady rate from a thread of its own, until stopped.
///
/// The producer is idempotent and waits for all replicas. What it returns is in the topic at the offset told, and the
/// records of a partition are in the order of their numbers. Across a **restart of the broker** a batch that was
/// written and not yet acknowledged has been seen twice in the topic all the same: a test that restarts the broker
/// takes its input from the topic, by [`Judge::read_topic`](crate::Judge::read_topic), and not from here.
#[derive(Debug)]
pub struct Feeder {
    stop: Arc<AtomicBool>,
    acknowledged: Arc<AtomicU64>,
    thread: Option<JoinHandle<Result<Vec<Sent>, Failure>>>,
}

impl Feeder {
    /// Starts producing `record(0)`, `record(1)`, … to `topic`, `rate` per second.
    ///
    /// # Errors
    /// When no client or thread can be made.
    pub fn start(
        bootstrap: &str,
        topic: &str,
        rate: u32,
        mut record: impl FnMut(u64) -> Outgoing + Send + 'static,
    ) -> Result<Self, Failure> {
        let stop = Arc::new(AtomicBool::new(false));
        let acknowledged = Arc::new(AtomicU64::new(0));
        let mut line = Line::new(bootstrap, topic, Arc::clone(&acknowledged))?;
        let stopped = Arc::clone(&stop);
        let thread = thread::Builder::new().name("feeder".to_owned()).spawn(move || {
            let start = Instant::now();
            let mut next = 0;
            while !stopped.load(Ordering::Relaxed) {
                let due = start.elapsed().as_millis() * u128::from(rate) / 1000;
                while u128::from(next) < due {
                    line.send(next, record(next))?;
                    next = next.saturating_add(1);
                }
                // Serves acknowledgements for a millisecond, which is also the step of the rate.
                line.producer.poll(Duration::from_millis(1));
            }
            line.finish()
        })?;
        Ok(Self { stop, acknowledged, thread: Some(thread) })
    }

    /// How many records the broker has acknowledged so far.
    #[must_use]
    pub fn acknowledged(&self) -> u64 {
        self.acknowledged.load(Ordering::Relaxed)
    }

    /// Stops, waits for what is on its way, and returns every record in the order of its number. All of them are
    /// acknowledged.
    ///
    /// # Errors
    /// When a record was refused or is not acknowledged within two minutes.
    pub fn stop(mut self) -> Result<Vec<Sent>, Failure> {
        self.stop.store(true, Ordering::Relaxed);
        let thread = self.thread.take().ok_or_else(|| Failure::new("the feeder has been stopped already"))?;
        thread.join().map_err(|_| Failure::new("the feeder's thread panicked"))?
    }
}

impl Drop for Feeder {
    fn drop(&mut self) {
        // The thread ends by itself; a test that fails does not wait for it.
        self.stop.store(true, Ordering::Relaxed);
    }
}

/// Produces these records as fast as they go, and returns them once all are acknowledged. `index` in the result is the
/// position.
///
/// # Errors
/// As [`Feeder::stop`].
pub fn produce_all(
    bootstrap: &str,
    topic: &str,
    records: impl IntoIterator<Item = Outgoing>,
) -> Result<Vec<Sent>, Failure> {
    let mut line = Line::new(bootstrap, topic, Arc::default())?;
    for (index, record) in (0..).zip(records) {
        line.send(index, record)?;
    }
    line.finish()
}

/// A producer of one topic and what became of its records.
struct Line {
    topic: String,
    producer: BaseProducer<Ledger>,
    outgoing: Vec<Outgoing>,
}

/// Outcome of each record, by its number. Called by the producer's own `poll`, so there is no contention.
struct Ledger {
    outcomes: Mutex<Vec<(usize, Result<i64, String>)>>,
    acknowledged: Arc<AtomicU64>,
}

impl ClientContext for Ledger {}

impl ProducerContext for Ledger {
    type DeliveryOpaque = usize;

    fn delivery(&self, result: &DeliveryResult<'_>, index: usize) {
        let outcome = match result {
            Ok(message) => {
                self.acknowledged.fetch_add(1, Ordering::Relaxed);
                Ok(message.offset())
            }
            Err((error, _)) => Err(error.to_string()),
        };
        self.outcomes.lock().unwrap_or_else(PoisonError::into_inner).push((index, outcome));
    }
}

impl Line {
    fn new(bootstrap: &str, topic: &str, acknowledged: Arc<AtomicU64>) -> Result<Self, Failure> {
        let ledger = Ledger { outcomes: Mutex::default(), acknowledged };
        let producer = ClientConfig::new()
            .set("bootstrap.servers", bootstrap)
            .set("enable.idempotence", "true")
            // The default grows to ten seconds while a broker is down, and each restart would cost that.
            .set("reconnect.backoff.max.ms", "500")
            .set("linger.ms", "2")
            .create_with_context(ledger)?;
        Ok(Self { topic: topic.to_owned(), producer, outgoing: Vec::new() })
    }

    fn send(&mut self, index: u64, outgoing: Outgoing) -> Result<(), Failure> {
        let slot = usize::try_from(index).map_err(|_| Failure::new(format!("record number {index} is too large")))?;
        let mut record = BaseRecord::with_opaque_to(&self.topic, slot)
            .partition(outgoing.partition)
            .timestamp(outgoing.timestamp)
            .key(&outgoing.key)
            .payload(&outgoing.value);
        loop {
            match self.producer.send(record) {
                Ok(()) => break,
                Err((KafkaError::MessageProduction(RDKafkaErrorCode::QueueFull), refused)) => {
                    record = refused;
                    self.producer.poll(Duration::from_millis(10));
                }
                Err((error, _)) => {
                    return Err(Failure::from(error).during(format!("producing record {index} to {}", self.topic)));
                }
            }
        }
        self.outgoing.push(outgoing);
        // Many records a call would wait for their acknowledgements otherwise.
        if index.is_multiple_of(1024) {
            self.producer.poll(Duration::ZERO);
        }
        Ok(())
    }

    fn finish(self) -> Result<Vec<Sent>, Failure> {
        self.producer.flush(FLUSH_TIME).map_err(|error| {
            Failure::from(error).during(format!(
                "{} records to {} not acknowledged",
                self.producer.in_flight_count(),
                self.topic
            ))
        })?;
        let mut outcomes =
            std::mem::take(&mut *self.producer.context().outcomes.lock().unwrap_or_else(PoisonError::into_inner));
        outcomes.sort_unstable_by_key(|(index, _)| *index);
        if outcomes.len() != self.outgoing.len() {
            return Err(Failure::new(format!(
                "{} records were produced to {} and {} outcomes reported",
                self.outgoing.len(),
                self.topic,
                outcomes.len()
            )));
        }
        (0..)
            .zip(self.outgoing)
            .zip(outcomes)
            .map(|((index, record), (_, outcome))| match outcome {
                Ok(offset) => Ok(Sent { index, offset, record }),
                Err(error) => Err(Failure::new(format!("record {index} to {} was refused: {error}", self.topic))),
            })
            .collect()
    }
}
