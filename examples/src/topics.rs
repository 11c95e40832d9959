//! Small helpers over [`headwater::broker`], the same for Kafka and for the embedded broker.

use std::collections::HashMap;
use std::time::{Duration, Instant};

use headwater::broker::{
    Broker, Consumer, ConsumerOptions, Edge, GroupAnswer, GroupError, GroupRequest, Isolation, NewTopic, RecordView,
    Slot,
};
use headwater::record::TopicPartition;
use headwater::wake::Waker;
use headwater::{Error, Result};

/// Creates the topics that do not exist yet.
pub fn create(broker: &dyn Broker, names: &[&str], partitions: i32) -> Result<()> {
    let new = |name: &&str| NewTopic { name: (*name).to_owned(), partitions, replication: -1, settings: Vec::new() };
    let mut admin = broker.admin()?;
    let known = admin.topics(names)?;
    let missing: Vec<_> =
        names.iter().zip(known).filter(|(_, known)| known.is_none()).map(|(name, _)| new(name)).collect();
    Ok(admin.create_topics(&missing)?)
}

impl std::fmt::Debug for Follower {
    fn fmt(&self, f: &mut std::fmt::Formatter<'_>) -> std::fmt::Result {
        f.debug_struct("Follower").field("positions", &self.positions).finish_non_exhaustive()
    }
}

/// All partitions of a topic.
pub fn partitions(broker: &dyn Broker, topic: &str) -> Result<Vec<TopicPartition>> {
    let known = broker.admin()?.topics(&[topic])?.pop().flatten();
    let known = known.ok_or_else(|| Error::Topic(format!("topic {topic} does not exist")))?;
    Ok((0..known.partitions).map(|partition| TopicPartition::new(topic, partition)).collect())
}

/// Follows all partitions of a topic from their first records.
pub struct Follower {
    consumer: Box<dyn Consumer>,
    waker: Waker,
    slots: Vec<Slot>,
    positions: HashMap<Slot, i64>,
}

impl Follower {
    /// Begins to read a topic; committed records only.
    pub fn new(broker: &dyn Broker, topic: &str) -> Result<Self> {
        let waker = Waker::new();
        let options = ConsumerOptions {
            client_id: "follower".to_owned(),
            isolation: Isolation::ReadCommitted,
            queued_bytes: 16 * 1024 * 1024,
        };
        let mut consumer = broker.consumer(&options, waker.clone())?;
        let starts: Vec<_> =
            partitions(broker, topic)?.into_iter().map(|partition| (partition, headwater::broker::BEGINNING)).collect();
        let slots = consumer.assign(&starts)?;
        Ok(Self { consumer, waker, slots, positions: HashMap::new() })
    }

    /// Shows every record that has arrived; waits for one if there is none, at most for `wait`.
    pub fn read(&mut self, wait: Duration, mut see: impl FnMut(&RecordView<'_>)) -> Result<bool> {
        self.consumer.poll()?;
        let mut any = false;
        for slot in &self.slots {
            while let Some(batch) = self.consumer.fetch(*slot, 10_000)? {
                any = true;
                (0..batch.len()).filter_map(|index| batch.record(index)).for_each(|record| see(&record));
                self.positions.insert(*slot, batch.next_offset());
            }
        }
        if !any {
            self.waker.wait(wait);
        }
        Ok(any)
    }

    /// Reads up to these offsets, one for each partition.
    pub fn read_to(&mut self, ends: &[i64], deadline: Duration, mut see: impl FnMut(&RecordView<'_>)) -> Result<()> {
        let until = Instant::now() + deadline;
        loop {
            let reached =
                |(slot, end): (&Slot, &i64)| *end == 0 || self.positions.get(slot).is_some_and(|at| at >= end);
            if self.slots.iter().zip(ends).all(reached) {
                return Ok(());
            }
            if Instant::now() > until {
                return Err(Error::Deadline(format!("its end was not reached within {} s", deadline.as_secs())));
            }
            self.read(Duration::from_millis(50), &mut see)?;
        }
    }
}

/// The offsets at which a reader of committed records stops now.
pub fn ends(broker: &dyn Broker, topic: &str) -> Result<Vec<i64>> {
    Ok(broker.admin()?.offsets(&partitions(broker, topic)?, Edge::Stable)?)
}

/// The positions that a group has committed, 0 where there is none.
pub fn committed(broker: &dyn Broker, group: &str, topic: &str) -> Result<Vec<i64>> {
    let waker = Waker::new();
    let mut coordinator = broker.coordinator(group, waker.clone())?;
    let asked = partitions(broker, topic)?;
    let until = Instant::now() + Duration::from_secs(30);
    let mut ticket = coordinator.request(GroupRequest::FetchOffsets { partitions: asked.clone() });
    loop {
        match coordinator.answer() {
            Some((answered, Ok(GroupAnswer::Offsets(offsets)))) if answered == ticket => {
                let of = |partition| offsets.iter().find(|(found, _)| found == partition);
                let of = |partition| of(partition).and_then(|(_, offset)| offset.as_ref()).map_or(0, |at| at.offset);
                return Ok(asked.iter().map(of).collect());
            }
            Some((_, Err(GroupError::UnstableOffsets))) => {
                ticket = coordinator.request(GroupRequest::FetchOffsets { partitions: asked.clone() });
            }
            Some((_, Err(error))) => return Err(Error::Group(error.to_string())),
            Some((_, Ok(_))) => {}
            None if Instant::now() > until => {
                return Err(Error::Deadline("the group's positions cannot be read".into()));
            }
            None => {
                waker.wait(Duration::from_millis(20));
            }
        }
    }
}

/// Waits until a group has processed everything that a topic holds: its positions are at the topic's end.
pub fn wait_for_no_lag(broker: &dyn Broker, group: &str, topic: &str, deadline: Duration) -> Result<()> {
    let until = Instant::now() + deadline;
    loop {
        let (ends, at) = (ends(broker, topic)?, committed(broker, group, topic)?);
        let lag: i64 = ends.iter().zip(&at).map(|(end, at)| (end - at).max(0)).sum();
        if lag == 0 {
            return Ok(());
        }
        if Instant::now() > until {
            return Err(Error::Deadline(format!(
                "group {group} is {lag} records behind the end of topic {topic} after {} s: is it running, and has the \
                 input stopped?",
                deadline.as_secs()
            )));
        }
        std::thread::sleep(Duration::from_millis(100));
    }
}
