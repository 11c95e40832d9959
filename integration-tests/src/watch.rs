use std::time::{Duration, Instant};

use rdkafka::consumer::Consumer;

use crate::judge::Reader;
use crate::{Failure, Isolation, Judge, unique};

/// Time for one request.
const TIMEOUT: Duration = Duration::from_secs(30);
/// Longest wait for a moment without a transaction.
const PAUSE: Duration = Duration::from_secs(5);
/// Longest wait for a transaction.
const BEGIN: Duration = Duration::from_secs(60);

/// Sees the transactions of a topic come and go: its clients stay connected, so that a look takes a millisecond.
pub struct Watch {
    topic: String,
    stable: Reader,
    all: Reader,
}

impl std::fmt::Debug for Watch {
    fn fmt(&self, f: &mut std::fmt::Formatter<'_>) -> std::fmt::Result {
        f.debug_struct("Watch").field("topic", &self.topic).finish_non_exhaustive()
    }
}

impl Watch {
    /// A watch over `topic`.
    ///
    /// # Errors
    /// When no client can be made.
    pub fn new(judge: &Judge, topic: &str) -> Result<Self, Failure> {
        let reader = |isolation| judge.reader(&unique("watch"), isolation);
        let (stable, all) = (reader(Isolation::Committed)?, reader(Isolation::Uncommitted)?);
        Ok(Self { topic: topic.to_owned(), stable, all })
    }

    /// Waits until a transaction with records in a partition has just begun: none is open, then one is. Where one
    /// follows the other without a pause that shows for five seconds, any one will do.
    ///
    /// # Errors
    /// When none begins for a minute, or the broker does not answer.
    pub fn await_begin(&self, partition: i32) -> Result<(), Failure> {
        self.await_open(partition, false, PAUSE)?;
        if self.await_open(partition, true, BEGIN)? {
            return Ok(());
        }
        Err(Failure::new(format!("no transaction in {}/{partition} for a minute", self.topic)))
    }

    /// Whether that was seen in time.
    fn await_open(&self, partition: i32, wanted: bool, patience: Duration) -> Result<bool, Failure> {
        let start = Instant::now();
        while start.elapsed() < patience {
            let end = |reader: &Reader| {
                Ok::<_, Failure>(reader.consumer()?.fetch_watermarks(&self.topic, partition, TIMEOUT)?.1)
            };
            if (end(&self.stable)? < end(&self.all)?) == wanted {
                return Ok(true);
            }
        }
        Ok(false)
    }
}
