//! What the Kafka back end leans on and librdkafka's manual leaves open: partitions come and go on a consumer that only
//! assigns, each with a queue of its own, while the other partitions are read without a gap.

use std::sync::Arc;
use std::time::{Duration, Instant};

use headwater_integration_tests::{Broker, Failure, Feeder, Stream, Topics, eventually, unique};
use rdkafka::consumer::base_consumer::PartitionQueue;
use rdkafka::consumer::{BaseConsumer, Consumer, DefaultConsumerContext};
use rdkafka::{ClientConfig, Message, Offset, TopicPartitionList};

const PATIENCE: Duration = Duration::from_secs(120);
const PARTITIONS: i32 = 4;
/// Partitions below this number stay assigned throughout; the others come and go.
const KEPT: usize = 2;
const CHANGES: usize = 40;

struct Reading {
    queue: PartitionQueue<DefaultConsumerContext>,
    /// The offset due next; `None` while the partition is not assigned.
    next: Option<i64>,
    read: u64,
}

/// Reads what is queued, and checks that it continues where the last read ended.
fn read(partition: usize, reading: &mut Reading) -> Result<(), Failure> {
    while let Some(message) = reading.queue.poll(Duration::ZERO) {
        let offset = message?.offset();
        if reading.next != Some(offset) {
            let due = reading.next;
            return Err(Failure::new(format!("partition {partition}: offset {offset} where {due:?} was due")));
        }
        reading.next = offset.checked_add(1);
        reading.read += 1;
    }
    Ok(())
}

fn one(topic: &str, partition: usize, offset: i64) -> Result<TopicPartitionList, Failure> {
    let mut list = TopicPartitionList::new();
    let partition = i32::try_from(partition).map_err(|error| Failure::new(error.to_string()))?;
    list.add_partition_offset(topic, partition, Offset::Offset(offset))?;
    Ok(list)
}

#[test]
fn kept_partitions_are_undisturbed_and_others_start_where_asked() -> Result<(), Failure> {
    let broker = Broker::shared()?;
    let topic = unique("incremental");
    Topics::new(broker.bootstrap())?.create(&topic, PARTITIONS, &[])?;
    let stream = Stream::new(4, 10, PARTITIONS);
    let feeder = Feeder::start(broker.bootstrap(), &topic, 4000, move |index| stream.record(index))?;
    eventually(PATIENCE, "the feeder to advance", || match feeder.acknowledged() {
        count if count > 2000 => Ok(()),
        count => Err(count.to_string()),
    })?;

    let consumer: BaseConsumer = ClientConfig::new()
        .set("bootstrap.servers", broker.bootstrap())
        .set("group.id", unique("proof"))
        .set("enable.auto.commit", "false")
        .set("auto.offset.reset", "error")
        .set("fetch.wait.max.ms", "20")
        .create()?;
    let consumer = Arc::new(consumer);
    // Queues are taken off the consumer's own before the first assignment, and serve every later one.
    let mut readings = Vec::new();
    for partition in 0..PARTITIONS {
        let queue = consumer.split_partition_queue(&topic, partition);
        let queue = queue.ok_or_else(|| Failure::new(format!("no queue of partition {partition}")))?;
        readings.push(Reading { queue, next: None, read: 0 });
    }
    for (partition, reading) in readings.iter_mut().enumerate().take(KEPT) {
        reading.next = Some(0);
        consumer.incremental_assign(&one(&topic, partition, 0)?)?;
    }

    let mut started = 0;
    for change in 0..CHANGES {
        let moving = KEPT + change % (readings.len() - KEPT);
        for (partition, reading) in readings.iter_mut().enumerate() {
            if partition == moving {
                if reading.next.take().is_some() {
                    // Left unread on purpose: what is queued now must not come out under the next assignment.
                    consumer.incremental_unassign(&one(&topic, partition, 0)?)?;
                } else {
                    let start = i64::try_from(change * 7).unwrap_or(0);
                    reading.next = Some(start);
                    consumer.incremental_assign(&one(&topic, partition, start)?)?;
                    started += 1;
                }
            }
        }
        let until = Instant::now() + Duration::from_millis(50);
        while Instant::now() < until {
            for (partition, reading) in readings.iter_mut().enumerate() {
                read(partition, reading)?;
            }
            if let Some(stray) = consumer.poll(Duration::from_millis(1)) {
                return Err(Failure::new(format!("the consumer's own queue got {:?}", stray?.offset())));
            }
        }
    }
    assert_eq!(started, CHANGES / 2);
    assert!(readings.iter().skip(KEPT).all(|reading| reading.read > 0), "every moving partition was read");

    let sent = feeder.stop()?;
    for (partition, reading) in readings.iter_mut().enumerate().take(KEPT) {
        let count = sent.iter().filter(|sent| usize::try_from(sent.record.partition) == Ok(partition)).count();
        eventually(PATIENCE, &format!("the {count} records of partition {partition}"), || {
            read(partition, reading).map_err(|failure| failure.to_string())?;
            if u64::try_from(count) == Ok(reading.read) { Ok(()) } else { Err(format!("{} read", reading.read)) }
        })?;
    }
    Ok(())
}
