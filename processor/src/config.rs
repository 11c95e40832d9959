//! Settings of a process, checked before anything is connected.

use std::path::PathBuf;
use std::time::Duration;

use crate::broker::kafka::KafkaSettings;
use crate::error::{Error, Result};

/// What holds whatever crashes.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub enum Guarantee {
    /// No record is lost; after a crash some may be processed again.
    AtLeastOnce,
    /// Each record's effects on outputs, state and positions appear once, together, for readers of committed data.
    ExactlyOnce,
}

/// Where stores live. Either way they are rebuilt from their changelogs.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub enum StoreKind {
    /// On disk, in RocksDB.
    #[cfg(feature = "rocksdb")]
    RocksDb,
    /// In memory: rebuilt from the changelog at every start.
    Memory,
}

/// Settings of one process. All processes of an application are given the same, but for the state directory.
///
/// Defaults are Kafka Streams' where it has the setting. [`set`](Self::set) takes settings by Kafka Streams' names,
/// for files and command lines.
///
/// ```
/// use headwater::{Guarantee, StreamsConfig};
///
/// let config = StreamsConfig::new("shop", "localhost:9092").guarantee(Guarantee::ExactlyOnce).threads(4);
/// let config = config.set("commit.interval.ms", "250")?;
/// let error = config.set("comit.interval.ms", "250").unwrap_err();
/// assert!(error.to_string().contains("comit.interval.ms"));
/// # Ok::<(), headwater::Error>(())
/// ```
#[derive(Clone, Debug)]
#[must_use = "settings do nothing until a process is started with them"]
pub struct StreamsConfig {
    pub(crate) application_id: String,
    pub(crate) bootstrap: String,
    pub(crate) guarantee: Guarantee,
    pub(crate) threads: usize,
    pub(crate) commit_interval: Option<Duration>,
    pub(crate) state_dir: PathBuf,
    pub(crate) store: StoreKind,
    pub(crate) cache_bytes: usize,
    pub(crate) session_timeout: Duration,
    pub(crate) heartbeat_interval: Duration,
    pub(crate) rebalance_timeout: Duration,
    pub(crate) transaction_timeout: Duration,
    pub(crate) request_timeout: Duration,
    pub(crate) replication_factor: i16,
    pub(crate) instance_id: Option<String>,
    pub(crate) linger: Duration,
    pub(crate) queued_bytes: usize,
    pub(crate) client: Vec<(String, String)>,
}

impl StreamsConfig {
    /// Settings for an application: its id names the group, internal topics and local state.
    pub fn new(application_id: impl Into<String>, bootstrap: impl Into<String>) -> Self {
        Self {
            application_id: application_id.into(),
            bootstrap: bootstrap.into(),
            guarantee: Guarantee::AtLeastOnce,
            threads: 1,
            commit_interval: None,
            state_dir: std::env::temp_dir().join("headwater"),
            #[cfg(feature = "rocksdb")]
            store: StoreKind::RocksDb,
            #[cfg(not(feature = "rocksdb"))]
            store: StoreKind::Memory,
            cache_bytes: 10 * 1024 * 1024,
            session_timeout: Duration::from_secs(45),
            heartbeat_interval: Duration::from_secs(3),
            rebalance_timeout: Duration::from_secs(300),
            transaction_timeout: Duration::from_secs(10),
            request_timeout: Duration::from_secs(30),
            replication_factor: -1,
            instance_id: None,
            linger: Duration::from_millis(5),
            queued_bytes: 64 * 1024 * 1024,
            client: Vec::new(),
        }
    }

    /// What holds whatever crashes; at-least-once if nothing is said.
    pub fn guarantee(mut self, guarantee: Guarantee) -> Self {
        self.guarantee = guarantee;
        self
    }

    /// Workers of this process, each with a thread, a consumer and a producer of its own.
    pub fn threads(mut self, threads: usize) -> Self {
        self.threads = threads;
        self
    }

    /// Longest time between two commits; 30 s at-least-once, 100 ms exactly-once.
    pub fn commit_interval(mut self, interval: Duration) -> Self {
        self.commit_interval = Some(interval);
        self
    }

    /// Where this process keeps its stores. One process per directory and application.
    pub fn state_dir(mut self, directory: impl Into<PathBuf>) -> Self {
        self.state_dir = directory.into();
        self
    }

    /// Where stores live.
    pub fn store(mut self, store: StoreKind) -> Self {
        self.store = store;
        self
    }

    /// Bytes of committed entries that each task keeps at hand. A read cache: it changes no output.
    pub fn read_cache_bytes(mut self, bytes: usize) -> Self {
        self.cache_bytes = bytes;
        self
    }

    /// Silence after which the group takes a process for dead.
    pub fn session_timeout(mut self, timeout: Duration) -> Self {
        self.session_timeout = timeout;
        self
    }

    /// Time between two signs of life, at most a third of the session timeout.
    pub fn heartbeat_interval(mut self, interval: Duration) -> Self {
        self.heartbeat_interval = interval;
        self
    }

    /// After this time without an end the broker aborts a transaction.
    pub fn transaction_timeout(mut self, timeout: Duration) -> Self {
        self.transaction_timeout = timeout;
        self
    }

    /// How long a question to the broker may take; also how long a start waits for a broker that is down.
    pub fn request_timeout(mut self, timeout: Duration) -> Self {
        self.request_timeout = timeout;
        self
    }

    /// Replicas of internal topics; -1 leaves it to the broker.
    pub fn replication_factor(mut self, replicas: i16) -> Self {
        self.replication_factor = replicas;
        self
    }

    /// Makes the process a static member: a restart under the same id inside the session timeout moves nothing.
    pub fn instance_id(mut self, id: impl Into<String>) -> Self {
        self.instance_id = Some(id.into());
        self
    }

    /// Sets one by name. Accepts the settings above under Kafka Streams' names, and `consumer.` or `producer.`
    /// in front of any setting of librdkafka.
    pub fn set(mut self, name: &str, value: &str) -> Result<Self> {
        let ms = |accepted| number(name, value, accepted).map(Duration::from_millis);
        match name {
            "application.id" => value.clone_into(&mut self.application_id),
            "bootstrap.servers" => value.clone_into(&mut self.bootstrap),
            "processing.guarantee" => {
                self.guarantee = match value {
                    "at_least_once" => Guarantee::AtLeastOnce,
                    "exactly_once_v2" | "exactly_once" => Guarantee::ExactlyOnce,
                    _ => return Err(refused(name, value, "at_least_once or exactly_once_v2")),
                }
            }
            "num.stream.threads" => self.threads = number(name, value, "a number from 1")?,
            "commit.interval.ms" => self.commit_interval = Some(ms("milliseconds")?),
            "state.dir" => self.state_dir = value.into(),
            "session.timeout.ms" => self.session_timeout = ms("milliseconds")?,
            "heartbeat.interval.ms" => self.heartbeat_interval = ms("milliseconds")?,
            "max.poll.interval.ms" => self.rebalance_timeout = ms("milliseconds")?,
            "transaction.timeout.ms" => self.transaction_timeout = ms("milliseconds")?,
            "request.timeout.ms" => self.request_timeout = ms("milliseconds")?,
            "replication.factor" => self.replication_factor = number(name, value, "-1 or a number from 1")?,
            "group.instance.id" => self.instance_id = Some(value.to_owned()),
            "linger.ms" => self.linger = ms("milliseconds")?,
            _ if name.starts_with("consumer.") || name.starts_with("producer.") => {
                self.client.push((name.to_owned(), value.to_owned()));
            }
            _ => {
                return Err(Error::Configuration(format!(
                    "unknown setting {name} = {value}: accepted are application.id, bootstrap.servers, \
                     processing.guarantee, num.stream.threads, commit.interval.ms, state.dir, session.timeout.ms, \
                     heartbeat.interval.ms, max.poll.interval.ms, transaction.timeout.ms, request.timeout.ms, \
                     replication.factor, group.instance.id, linger.ms, and consumer. or producer. in front of a \
                     setting of librdkafka"
                )));
            }
        }
        Ok(self)
    }

    /// The connection that these settings describe, for a program that shares it with its process: see
    /// [`KafkaStreams::start_on`](crate::KafkaStreams::start_on).
    #[must_use]
    pub fn connection(&self) -> KafkaSettings {
        let mut settings = KafkaSettings::new(&self.bootstrap);
        settings.client_id.clone_from(&self.application_id);
        settings.request_timeout = self.request_timeout;
        settings.client = self.client.iter().cloned().collect();
        settings
    }

    /// The commit interval in force.
    pub(crate) fn commit_every(&self) -> Duration {
        self.commit_interval.unwrap_or(match self.guarantee {
            Guarantee::AtLeastOnce => Duration::from_secs(30),
            Guarantee::ExactlyOnce => Duration::from_millis(100),
        })
    }

    /// Refuses contradictions, naming them.
    pub(crate) fn check(&self) -> Result<()> {
        if self.application_id.is_empty() {
            return Err(refused("application.id", "", "a name; it becomes part of topic names"));
        }
        if self.threads == 0 {
            return Err(refused("num.stream.threads", "0", "a number from 1"));
        }
        if self.heartbeat_interval.is_zero() || self.heartbeat_interval.saturating_mul(3) > self.session_timeout {
            return Err(Error::Configuration(format!(
                "heartbeat.interval.ms = {} with session.timeout.ms = {}: it must be above 0 and at most a third",
                self.heartbeat_interval.as_millis(),
                self.session_timeout.as_millis()
            )));
        }
        if self.guarantee == Guarantee::ExactlyOnce && self.commit_every() >= self.transaction_timeout {
            return Err(Error::Configuration(format!(
                "commit.interval.ms = {} with transaction.timeout.ms = {}: a transaction must be committed before the \
                 broker aborts it, so the interval must be shorter",
                self.commit_every().as_millis(),
                self.transaction_timeout.as_millis()
            )));
        }
        Ok(())
    }
}

fn refused(name: &str, value: &str, accepted: &str) -> Error {
    Error::Configuration(format!("{name} = {value:?} is not accepted: {accepted}"))
}

fn number<T: std::str::FromStr>(name: &str, value: &str, accepted: &str) -> Result<T> {
    value.parse().map_err(|_| refused(name, value, accepted))
}

/// A duration for the protocol, where milliseconds are 32 bits.
pub(crate) fn millis_i32(duration: Duration) -> i32 {
    i32::try_from(duration.as_millis()).unwrap_or(i32::MAX)
}

/// A duration beside timestamps.
pub(crate) fn millis(duration: Duration) -> i64 {
    i64::try_from(duration.as_millis()).unwrap_or(i64::MAX)
}

#[cfg(test)]
mod tests {
    use super::*;

    fn config() -> StreamsConfig {
        StreamsConfig::new("shop", "localhost:9092")
    }

    #[test]
    fn wrong_values_are_named_with_what_is_accepted() {
        for (name, value, part) in [
            ("num.stream.threads", "many", "a number from 1"),
            ("processing.guarantee", "twice", "exactly_once_v2"),
            ("no.such.thing", "1", "unknown setting no.such.thing = 1"),
        ] {
            let message = config().set(name, value).unwrap_err().to_string();
            assert!(message.contains(name) && message.contains(value) && message.contains(part), "{message}");
        }
    }

    #[test]
    fn contradictions_are_refused() {
        assert!(config().check().is_ok());
        assert!(config().threads(0).check().is_err());
        assert!(config().session_timeout(Duration::from_secs(5)).check().is_err());
        let slow = config().guarantee(Guarantee::ExactlyOnce).commit_interval(Duration::from_secs(10));
        assert!(slow.check().unwrap_err().to_string().contains("transaction.timeout.ms"));
    }
}
