//! What a user may say about the connection to Kafka, and what that means to each client.

use std::collections::BTreeMap;
use std::time::Duration;

use super::client::{Conf, millis};
use crate::broker::{BrokerError, ConsumerOptions, ErrorClass, Isolation, ProducerOptions, Result};

/// How long a record of a producer without transactions may be on its way before it counts as lost.
const DELIVERY_TIMEOUT: Duration = Duration::from_secs(120);
/// What librdkafka allocates for a queued record beside its bytes (`rd_kafka_op_t`, 300 to 400 bytes with the allocator's
/// share).
const RECORD_OVERHEAD: usize = 384;
/// Bounds of what one fetch may bring for one partition, bytes. Below, small fetches would cost more than they save.
const FETCH_BYTES: (usize, usize) = (16 << 10, 1 << 20);
/// Bounds of the request timeout: a consumer's long poll must fit in, and librdkafka takes no more.
const REQUEST_TIMEOUT: (Duration, Duration) = (Duration::from_secs(2), Duration::from_secs(300));

/// Properties that the engine's guarantees rest on, with what decides them.
const OWN: &[(&str, &str)] = &[
    ("bootstrap.servers", "the bootstrap addresses"),
    ("metadata.broker.list", "the bootstrap addresses"),
    ("group.id", "the application id"),
    ("group.instance.id", "the instance id"),
    ("group.protocol", "Headwater's own membership"),
    ("partition.assignment.strategy", "Headwater's own membership"),
    ("enable.auto.commit", "the processing guarantee"),
    ("enable.auto.offset.store", "the processing guarantee"),
    ("auto.offset.reset", "each source"),
    ("enable.partition.eof", "the engine"),
    ("isolation.level", "the processing guarantee"),
    ("queued.max.messages.kbytes", "the memory budget"),
    ("queued.min.messages", "the memory budget"),
    ("fetch.message.max.bytes", "the memory budget"),
    ("max.partition.fetch.bytes", "the memory budget"),
    ("enable.idempotence", "the processing guarantee"),
    ("acks", "the processing guarantee"),
    ("request.required.acks", "the processing guarantee"),
    ("transactional.id", "the processing guarantee"),
    ("transaction.timeout.ms", "the transaction timeout"),
    ("delivery.report.only.error", "the engine"),
    ("queue.buffering.max.messages", "the memory budget"),
    ("queue.buffering.max.kbytes", "the memory budget"),
    ("socket.timeout.ms", "the request timeout"),
];

/// The connection to a cluster.
#[derive(Clone, Debug)]
pub struct KafkaSettings {
    /// Addresses to begin with: `host:port`, separated by commas.
    pub bootstrap: String,
    /// Name of clients that are not named elsewhere: the group connection and the questions about topics.
    pub client_id: String,
    /// How long one request may take, 2 s to 300 s, and how long [`super::Kafka::connect`] waits for a first answer.
    pub request_timeout: Duration,
    /// Further properties of librdkafka, applied to every client; those that begin with `consumer.`, `producer.` or
    /// `admin.` only to clients of that kind, without the prefix.
    pub client: BTreeMap<String, String>,
}

impl KafkaSettings {
    /// Settings for a cluster, with everything else at its default: requests of at most 30 s.
    #[must_use]
    pub fn new(bootstrap: impl Into<String>) -> Self {
        Self {
            bootstrap: bootstrap.into(),
            client_id: "headwater".into(),
            request_timeout: Duration::from_secs(30),
            client: BTreeMap::new(),
        }
    }

    /// The bootstrap addresses, each `host:port`.
    pub(super) fn addresses(&self) -> Result<Vec<String>> {
        let refused = |address: &str| {
            BrokerError::new(
                ErrorClass::Configuration,
                format!(
                    "bootstrap address {address:?} in {:?} is not of the form host:port, for example 127.0.0.1:9092",
                    self.bootstrap
                ),
            )
        };
        self.bootstrap
            .split(',')
            .map(|address| {
                let address = address.trim();
                let (host, port) = address.rsplit_once(':').ok_or_else(|| refused(address))?;
                match port.parse::<u16>() {
                    Ok(port) if port > 0 && !host.is_empty() => Ok(address.to_owned()),
                    _ => Err(refused(address)),
                }
            })
            .collect()
    }

    /// Refuses, before any connection, what can be refused.
    pub(super) fn check(&self) -> Result<()> {
        self.addresses()?;
        if !(REQUEST_TIMEOUT.0..=REQUEST_TIMEOUT.1).contains(&self.request_timeout) {
            return Err(BrokerError::new(
                ErrorClass::Configuration,
                format!("the request timeout cannot be {:?}: 2 s to 300 s are accepted", self.request_timeout),
            ));
        }
        for (key, value) in &self.client {
            let name = [PREFIX_CONSUMER, PREFIX_PRODUCER, PREFIX_ADMIN]
                .iter()
                .find_map(|prefix| key.strip_prefix(prefix))
                .unwrap_or(key);
            if let Some((_, decided_by)) = OWN.iter().find(|(own, _)| *own == name) {
                return Err(BrokerError::new(
                    ErrorClass::Configuration,
                    format!("client setting {key:?} (value {value:?}) cannot be given: {decided_by} decides it"),
                ));
            }
            if name == "security.protocol" && !value.eq_ignore_ascii_case("plaintext") {
                return Err(BrokerError::new(
                    ErrorClass::Configuration,
                    format!(
                        "client setting {key:?} cannot be {value:?}: the group connection speaks \"plaintext\" only"
                    ),
                ));
            }
        }
        // Every client's settings are tried now, not when the first task starts.
        self.admin_conf()?;
        self.consumer_conf(
            &ConsumerOptions {
                client_id: self.client_id.clone(),
                isolation: Isolation::ReadCommitted,
                queued_bytes: 1 << 20,
            },
            1,
        )?;
        self.producer_conf(&ProducerOptions {
            client_id: self.client_id.clone(),
            transactional_id: None,
            transaction_timeout: Duration::from_secs(10),
            linger: Duration::ZERO,
        })?;
        Ok(())
    }

    pub(super) fn admin_conf(&self) -> Result<Conf> {
        let mut conf = self.common_conf(&self.client_id, PREFIX_ADMIN)?;
        conf.set("topic.metadata.refresh.interval.ms", "-1")?;
        Ok(conf)
    }

    /// Settings of a consumer that is to read `partitions` partitions.
    pub(super) fn consumer_conf(&self, options: &ConsumerOptions, partitions: usize) -> Result<Conf> {
        let mut conf = self.base_conf(&options.client_id)?;
        // Start values that may be overridden.
        conf.set("fetch.queue.backoff.ms", "10")?;
        // All partitions of a broker share one fetch under way, so a partition that is added or sought waits for it: up to
        // this long on an idle system. Records of partitions already being read do not wait.
        conf.set("fetch.wait.max.ms", "50")?;
        conf.set("check.crcs", "true")?;
        self.pass_through(&mut conf, PREFIX_CONSUMER)?;
        // `assign` wants a group id. Nothing is ever joined or committed under it.
        conf.set("group.id", &options.client_id)?;
        conf.set("enable.auto.commit", "false")?;
        conf.set("enable.auto.offset.store", "false")?;
        conf.set("auto.offset.reset", "error")?;
        conf.set("enable.partition.eof", "true")?;
        let isolation = match options.isolation {
            Isolation::ReadCommitted => "read_committed",
            Isolation::ReadUncommitted => "read_uncommitted",
        };
        conf.set("isolation.level", isolation)?;
        let room = Room::of(options.queued_bytes, partitions);
        conf.set("queued.min.messages", &room.records.to_string())?;
        conf.set("queued.max.messages.kbytes", &(room.bytes / 1024).max(1).to_string())?;
        conf.set("fetch.message.max.bytes", &room.fetch.to_string())?;
        Ok(conf)
    }

    pub(super) fn producer_conf(&self, options: &ProducerOptions) -> Result<Conf> {
        let mut conf = self.base_conf(&options.client_id)?;
        conf.set("batch.size", "1000000")?;
        // While a transaction's first partitions are being added, the coordinator answers "again": at 100 ms, the
        // default, that alone would dominate a short transaction.
        conf.set("retry.backoff.ms", "5")?;
        self.pass_through(&mut conf, PREFIX_PRODUCER)?;
        conf.set("linger.ms", &options.linger.as_millis().to_string())?;
        conf.set("enable.idempotence", "true")?;
        conf.set("acks", "all")?;
        // The engine bounds its backlog itself, in records of all its producers.
        conf.set("queue.buffering.max.messages", "0")?;
        conf.set("queue.buffering.max.kbytes", &i32::MAX.to_string())?;
        let delivery = if let Some(id) = &options.transactional_id {
            conf.set("transactional.id", id)?;
            conf.set("transaction.timeout.ms", &millis(options.transaction_timeout).to_string())?;
            // librdkafka wants both of them no longer than the transaction.
            let socket = options.transaction_timeout.saturating_sub(Duration::from_millis(100));
            conf.set("socket.timeout.ms", &millis(self.request_timeout.min(socket)).to_string())?;
            options.transaction_timeout
        } else {
            DELIVERY_TIMEOUT
        };
        conf.set("message.timeout.ms", &millis(delivery).to_string())?;
        Ok(conf)
    }

    fn common_conf(&self, client_id: &str, prefix: &str) -> Result<Conf> {
        let mut conf = self.base_conf(client_id)?;
        self.pass_through(&mut conf, prefix)?;
        Ok(conf)
    }

    fn base_conf(&self, client_id: &str) -> Result<Conf> {
        let mut conf = Conf::new();
        conf.set("bootstrap.servers", &self.bootstrap)?;
        conf.set("client.id", client_id)?;
        conf.set("socket.timeout.ms", &millis(self.request_timeout).to_string())?;
        Ok(conf)
    }

    /// Sets the user's properties: first those for all clients, then those for this kind.
    fn pass_through(&self, conf: &mut Conf, prefix: &str) -> Result<()> {
        let prefixed =
            |key: &str| [PREFIX_CONSUMER, PREFIX_PRODUCER, PREFIX_ADMIN].iter().any(|prefix| key.starts_with(prefix));
        for (key, value) in self.client.iter().filter(|(key, _)| !prefixed(key)) {
            conf.set(key, value)?;
        }
        for (key, value) in &self.client {
            if let Some(name) = key.strip_prefix(prefix) {
                conf.set(name, value)?;
            }
        }
        Ok(())
    }
}

/// What one partition may hold that has been fetched and not read. librdkafka bounds each queue of its own, so the
/// bound of all is parted; and it counts the bytes of records without what holds them, which for small ones is more.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
struct Room {
    // No fetch above so many records.
    records: usize,
    // No fetch above so many bytes.
    bytes: usize,
    // What one fetch may add to that.
    fetch: usize,
}

impl Room {
    fn of(queued_bytes: usize, partitions: usize) -> Self {
        // Half for the bytes, half for what holds them.
        let half = queued_bytes / partitions.max(1) / 2;
        let fetch = (half / 2).clamp(FETCH_BYTES.0, FETCH_BYTES.1);
        Self {
            records: (half / RECORD_OVERHEAD).clamp(100, 100_000),
            bytes: half.saturating_sub(fetch).clamp(FETCH_BYTES.0, i32::MAX as usize / 2),
            fetch,
        }
    }
}

const PREFIX_CONSUMER: &str = "consumer.";
const PREFIX_PRODUCER: &str = "producer.";
const PREFIX_ADMIN: &str = "admin.";

#[cfg(test)]
mod tests {
    use super::*;

    fn with(key: &str, value: &str) -> KafkaSettings {
        let mut settings = KafkaSettings::new("127.0.0.1:9092");
        settings.client.insert(key.into(), value.into());
        settings
    }

    fn refusal(settings: &KafkaSettings) -> String {
        let error = settings.check().unwrap_err();
        assert_eq!(error.class, ErrorClass::Configuration);
        error.message
    }

    #[test]
    fn an_unknown_setting_is_refused_by_name_and_value() {
        let message = refusal(&with("fetch.min.byte", "7"));
        assert!(message.contains("\"fetch.min.byte\"") && message.contains("\"7\""), "{message}");
        let message = refusal(&with("producer.lingr.ms", "3"));
        assert!(message.contains("\"lingr.ms\"") && message.contains("\"3\""), "{message}");
    }

    #[test]
    fn a_value_out_of_range_is_refused_by_name_and_value() {
        let message = refusal(&with("consumer.fetch.wait.max.ms", "-4"));
        assert!(message.contains("\"fetch.wait.max.ms\"") && message.contains("\"-4\""), "{message}");
    }

    #[test]
    fn what_the_guarantees_rest_on_cannot_be_given() {
        for key in ["acks", "producer.acks", "isolation.level", "consumer.enable.auto.commit"] {
            let message = refusal(&with(key, "1"));
            assert!(message.contains(key) && message.contains("decides it"), "{message}");
        }
        let message = refusal(&with("security.protocol", "SSL"));
        assert!(message.contains("\"SSL\"") && message.contains("\"plaintext\""), "{message}");
    }

    #[test]
    fn settings_for_one_kind_reach_only_that_kind() {
        assert!(with("producer.compression.type", "zstd").check().is_ok());
        assert!(with("consumer.fetch.min.bytes", "1000").check().is_ok());
        assert!(with("debug", "broker").check().is_ok());
    }

    #[test]
    fn a_request_timeout_out_of_range_is_refused() {
        for wrong in [Duration::ZERO, Duration::from_millis(1999), Duration::from_secs(301), Duration::MAX] {
            let mut settings = KafkaSettings::new("127.0.0.1:9092");
            settings.request_timeout = wrong;
            let message = refusal(&settings);
            assert!(message.contains("2 s to 300 s"), "{message}");
        }
    }

    #[test]
    fn the_bound_of_queued_bytes_is_parted_among_the_partitions() {
        for (budget, partitions) in [(64 << 20, 1), (64 << 20, 8), (64 << 20, 64), (256 << 20, 400)] {
            let room = Room::of(budget, partitions);
            let most = partitions * (room.bytes + room.fetch + room.records * RECORD_OVERHEAD);
            assert!(most <= budget, "{most} of {budget} with {partitions}");
            assert!(most > budget / 4, "{most} of {budget} with {partitions}");
        }
        // Less than the least that works is rounded up to it.
        assert_eq!(Room::of(1, 100), Room { records: 100, bytes: 16 << 10, fetch: 16 << 10 });
    }

    #[test]
    fn bootstrap_addresses_need_host_and_port() {
        assert_eq!(KafkaSettings::new("a:1, [::1]:2").addresses().unwrap(), ["a:1", "[::1]:2"]);
        for wrong in ["", "localhost", "a:1,,b:2", "a:0", "a:port", ":9092"] {
            let message = refusal(&KafkaSettings::new(wrong));
            assert!(message.contains("host:port"), "{message}");
        }
    }
}
