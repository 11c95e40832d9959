//! Loading an input topic, unless it is there already.

use crate::Result;
use crate::records::{HEADER_BYTES, Record, Spec};
use crate::topics::Topics;
use rdkafka::ClientContext;
use rdkafka::config::ClientConfig;
use rdkafka::error::{KafkaError, RDKafkaErrorCode};
use rdkafka::message::{DeliveryResult, Message};
use rdkafka::producer::{BaseProducer, BaseRecord, Producer, ProducerContext};
use std::sync::atomic::{AtomicU64, Ordering};
use std::thread;
use std::time::Duration;

/// How long the broker may take to acknowledge what is left at the end.
const FLUSH: Duration = Duration::from_secs(60);

/// What was found or done.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub enum Loaded {
    /// The topic was there, complete.
    Already,
    /// The topic was made and filled.
    Now,
}

/// Sees to it that the topic of `spec` exists and holds exactly its records. An incomplete or foreign topic of that name
/// is deleted and loaded anew.
///
/// # Errors
/// When the specification makes no sense, or the broker refuses or does not answer.
pub fn load(topics: &Topics, bootstrap: &str, spec: &Spec) -> Result<Loaded> {
    if spec.records < 10 || spec.keys == 0 || spec.value_bytes < HEADER_BYTES {
        return Err(format!(
            "{spec:?}: accepted are 10 records or more, 1 key or more and values of {HEADER_BYTES} bytes or more"
        )
        .into());
    }
    let topic = spec.topic();
    if topics.with_prefix(&topic)?.contains(&topic) {
        if is_complete(topics, spec)? {
            return Ok(Loaded::Already);
        }
        topics.delete(&[&topic])?;
        // The name is free only once the broker has dropped the old partitions.
        while topics.with_prefix(&topic)?.contains(&topic) {
            thread::sleep(Duration::from_millis(50));
        }
    }
    topics.create(&topic)?;
    produce(bootstrap, spec)?;
    if !is_complete(topics, spec)? {
        return Err(
            format!("topic {topic} was loaded but does not hold the {} records of {spec:?}", spec.records).into()
        );
    }
    Ok(Loaded::Now)
}

/// Whether the topic holds as many records as `spec` says, and each partition ends with a record that `spec` makes.
/// Together with the name, which spells `spec` out, and an idempotent producer, that is the right content.
fn is_complete(topics: &Topics, spec: &Spec) -> Result<bool> {
    let topic = spec.topic();
    let records: i64 = topics.ends(&topic)?.iter().map(|(first, end)| end - first).sum();
    if u64::try_from(records)? != spec.records {
        return Ok(false);
    }
    let (mut right, mut expected) = (true, Record::default());
    topics.read(
        &topic,
        |_, end| end - 1,
        |message| {
            let value = message.payload().unwrap_or_default();
            let Some(seq) = value.first_chunk() else {
                right = false;
                return Ok(());
            };
            spec.write(u64::from_be_bytes(*seq), &mut expected);
            right &= message.key() == Some(&expected.key)
                && value == expected.value
                && message.timestamp().to_millis() == Some(expected.event_time);
            Ok(())
        },
    )?;
    Ok(right)
}

/// Counts deliveries that failed.
#[derive(Debug, Default)]
struct Failures(AtomicU64);

impl ClientContext for Failures {}

impl ProducerContext for Failures {
    type DeliveryOpaque = ();

    fn delivery(&self, result: &DeliveryResult<'_>, (): ()) {
        if result.is_err() {
            self.0.fetch_add(1, Ordering::Relaxed);
        }
    }
}

fn produce(bootstrap: &str, spec: &Spec) -> Result<()> {
    let producer: BaseProducer<Failures> = ClientConfig::new()
        .set("bootstrap.servers", bootstrap)
        .set("enable.idempotence", "true")
        .set("acks", "all")
        .set("linger.ms", "20")
        .set("batch.size", "1000000")
        .set("queue.buffering.max.messages", "100000")
        .set("delivery.report.only.error", "true")
        // The partition that Java's default partitioner chooses.
        .set("partitioner", "murmur2")
        .create_with_context(Failures::default())?;
    let (topic, mut record) = (spec.topic(), Record::default());
    for seq in 0..spec.records {
        spec.write(seq, &mut record);
        let mut message = BaseRecord::to(&topic).key(&record.key).payload(&record.value).timestamp(record.event_time);
        loop {
            match producer.send(message) {
                Ok(()) => break,
                Err((KafkaError::MessageProduction(RDKafkaErrorCode::QueueFull), refused)) => {
                    message = refused;
                    producer.poll(Duration::from_millis(1));
                }
                Err((error, _)) => return Err(format!("load topic {topic}, record {seq}: {error}").into()),
            }
        }
    }
    producer.flush(FLUSH)?;
    match producer.context().0.load(Ordering::Relaxed) {
        0 => Ok(()),
        failed => Err(format!("load topic {topic}: {failed} records were not delivered").into()),
    }
}
