//! What tests of the Kafka back end share: waiting for answers, writing, reading, and a group member.

#![allow(dead_code, reason = "each test file uses a part")]

use std::error::Error;
use std::time::{Duration, Instant};

use headwater::broker::kafka::{Kafka, KafkaSettings};
use headwater::broker::{
    Admin, Batch, Broker as _, BrokerError, Consumer, ConsumerOptions, Coordinator, GroupAnswer, GroupError,
    GroupRequest, Isolation, Joined, Lease, MemberAssignment, NewTopic, OffsetAndMetadata, OutRecord, Producer,
    ProducerOptions, Slot, Ticket, TopicHandle, TransactionCall,
};
use headwater::record::{Headers, TopicPartition};
use headwater::wake::Waker;
use headwater_integration_tests::{Broker, unique};

pub(crate) type Outcome<T = ()> = Result<T, Box<dyn Error>>;

/// Longer than anything takes on a busy machine; only a failing test waits for it.
const PATIENCE: Duration = Duration::from_secs(60);

/// Looks whenever the signal is raised until there is an answer.
pub(crate) fn until<T>(waker: &Waker, what: &str, mut look: impl FnMut() -> Outcome<Option<T>>) -> Outcome<T> {
    let deadline = Instant::now() + PATIENCE;
    loop {
        if let Some(answer) = look()? {
            return Ok(answer);
        }
        if Instant::now() > deadline {
            return Err(format!("{what}: nothing within {} s", PATIENCE.as_secs()).into());
        }
        waker.wait(Duration::from_secs(1));
    }
}

pub(crate) fn settings() -> Outcome<KafkaSettings> {
    Ok(KafkaSettings::new(Broker::shared()?.bootstrap()))
}

pub(crate) fn connect() -> Outcome<Kafka> {
    Ok(Kafka::connect(settings()?)?)
}

/// A topic of one's own.
pub(crate) fn new_topic(kafka: &Kafka, prefix: &str, partitions: i32) -> Outcome<String> {
    let name = unique(prefix);
    kafka.admin()?.create_topics(&[NewTopic {
        name: name.clone(),
        partitions,
        replication: -1,
        // Records carry times of years ago, which the broker's retention would delete within a minute.
        settings: vec![("retention.ms".into(), "-1".into())],
    }])?;
    Ok(name)
}

pub(crate) fn offset(offset: i64) -> OffsetAndMetadata {
    OffsetAndMetadata { offset, metadata: "note".into() }
}

/// A producer that is waited for.
pub(crate) struct Writer {
    pub(crate) producer: Box<dyn Producer>,
    pub(crate) topic: TopicHandle,
    waker: Waker,
}

impl Writer {
    pub(crate) fn new(kafka: &Kafka, topic: &str, transactional_id: Option<&str>) -> Outcome<Self> {
        let waker = Waker::new();
        let options = ProducerOptions {
            client_id: "backend-test".into(),
            transactional_id: transactional_id.map(Into::into),
            transaction_timeout: Duration::from_secs(30),
            linger: Duration::from_millis(5),
        };
        let mut producer = kafka.producer(&options, waker.clone())?;
        let topic = producer.topic(topic)?;
        Ok(Self { producer, topic, waker })
    }

    pub(crate) fn send(&mut self, partition: i32, value: &str) -> Result<(), BrokerError> {
        let record = OutRecord {
            timestamp: 1_700_000_000_000,
            key: Some(b"k"),
            value: Some(value.as_bytes()),
            headers: &Headers::new(),
        };
        self.producer.send(self.topic, partition, &record)
    }

    /// Waits until all is acknowledged.
    pub(crate) fn drain(&mut self) -> Outcome {
        let producer = &mut self.producer;
        until(&self.waker, "acknowledgements", || {
            producer.poll()?;
            Ok((producer.backlog() == 0).then_some(()))
        })
    }

    /// Waits for the first failed delivery.
    pub(crate) fn failure(&mut self) -> Outcome<BrokerError> {
        let producer = &mut self.producer;
        until(&self.waker, "a failed delivery", || Ok(producer.poll().err()))
    }

    /// Makes a transactional call; the inner result is its own.
    pub(crate) fn call(&mut self, call: TransactionCall) -> Outcome<Result<(), BrokerError>> {
        let what = format!("{call:?}");
        self.producer.start(call);
        let producer = &mut self.producer;
        until(&self.waker, &what, || Ok(producer.outcome()))
    }

    /// Makes transactional calls that must succeed.
    pub(crate) fn calls(&mut self, calls: impl IntoIterator<Item = TransactionCall>) -> Outcome {
        for call in calls {
            self.call(call)??;
        }
        Ok(())
    }
}

/// A consumer that is waited for.
pub(crate) struct Reader {
    pub(crate) consumer: Box<dyn Consumer>,
    waker: Waker,
}

impl Reader {
    pub(crate) fn new(kafka: &Kafka, isolation: Isolation) -> Outcome<Self> {
        let waker = Waker::new();
        let options = ConsumerOptions { client_id: "backend-test".into(), isolation, queued_bytes: 8 << 20 };
        Ok(Self { consumer: kafka.consumer(&options, waker.clone())?, waker })
    }

    pub(crate) fn assign(&mut self, topic: &str, partition: i32, offset: i64) -> Outcome<Slot> {
        let slots = self.consumer.assign(&[(TopicPartition::new(topic, partition), offset)])?;
        slots.first().copied().ok_or_else(|| "no slot".into())
    }

    pub(crate) fn batch(&mut self, slot: Slot) -> Outcome<Box<dyn Batch>> {
        let consumer = &mut self.consumer;
        until(&self.waker, "a batch", || Ok(consumer.fetch(slot, 500)?))
    }

    /// The next records, at most `max`: offsets and values, as text.
    pub(crate) fn some(&mut self, slot: Slot, max: usize) -> Outcome<Vec<(i64, String)>> {
        let consumer = &mut self.consumer;
        let batch = until(&self.waker, "a batch", || Ok(consumer.fetch(slot, max)?))?;
        Ok(texts(&*batch))
    }

    /// Reads until the position is `end`: offsets and values, as text.
    pub(crate) fn read_to(&mut self, slot: Slot, end: i64) -> Outcome<Vec<(i64, String)>> {
        let mut read = Vec::new();
        loop {
            let batch = self.batch(slot)?;
            read.extend(texts(&*batch));
            if batch.next_offset() >= end {
                assert_eq!(batch.next_offset(), end, "the position after the last record");
                return Ok(read);
            }
        }
    }

    /// Waits for the error of a partition.
    pub(crate) fn failure(&mut self, slot: Slot) -> Outcome<BrokerError> {
        let consumer = &mut self.consumer;
        until(&self.waker, "an error", || Ok(consumer.fetch(slot, 500).err()))
    }
}

fn texts(batch: &dyn Batch) -> Vec<(i64, String)> {
    (0..batch.len())
        .filter_map(|index| batch.record(index))
        .map(|record| (record.offset, String::from_utf8_lossy(record.value.unwrap_or_default()).into_owned()))
        .collect()
}

/// A group member that is waited for.
pub(crate) struct Member {
    pub(crate) coordinator: Box<dyn Coordinator>,
    pub(crate) id: String,
    waker: Waker,
}

impl Member {
    pub(crate) fn new(kafka: &Kafka, group: &str) -> Outcome<Self> {
        let waker = Waker::new();
        Ok(Self { coordinator: kafka.coordinator(group, waker.clone())?, id: String::new(), waker })
    }

    pub(crate) fn wait(&mut self, ticket: Ticket) -> Outcome<Result<GroupAnswer, GroupError>> {
        let coordinator = &mut self.coordinator;
        let (answered, answer) = until(&self.waker, "an answer of the group", || Ok(coordinator.answer()))?;
        assert_eq!(answered, ticket);
        Ok(answer)
    }

    pub(crate) fn ask(&mut self, request: GroupRequest) -> Outcome<Result<GroupAnswer, GroupError>> {
        let ticket = self.coordinator.request(request);
        self.wait(ticket)
    }

    fn join_request(&self) -> GroupRequest {
        GroupRequest::Join {
            member_id: self.id.clone(),
            instance_id: None,
            session_timeout_ms: 30_000,
            rebalance_timeout_ms: 30_000,
            topics: vec!["orders".into()],
            user_data: b"about me".to_vec(),
        }
    }

    /// Gets a member id and asks to join; the answer comes when all have joined.
    pub(crate) fn start_join(&mut self) -> Outcome<Ticket> {
        if self.id.is_empty() {
            match self.ask(self.join_request())? {
                Err(GroupError::MemberIdRequired(id)) => self.id = id,
                other => return Err(format!("a newcomer is told its id, not {other:?}").into()),
            }
        }
        Ok(self.coordinator.request(self.join_request()))
    }

    pub(crate) fn joined(&mut self, ticket: Ticket) -> Outcome<Joined> {
        match self.wait(ticket)?? {
            GroupAnswer::Joined(joined) => Ok(joined),
            other => Err(format!("{other:?} is no answer to a join").into()),
        }
    }

    pub(crate) fn lease(&self, joined: &Joined) -> Lease {
        Lease { member_id: self.id.clone(), generation: joined.generation, instance_id: None }
    }

    /// Joins a group that has no other member, and brings its assignment.
    pub(crate) fn join_alone(&mut self) -> Outcome<Lease> {
        let ticket = self.start_join()?;
        let joined = self.joined(ticket)?;
        let lease = self.lease(&joined);
        let assignments = vec![assignment(&self.id, &[])];
        self.ask(GroupRequest::Sync { lease: lease.clone(), assignments })??;
        Ok(lease)
    }
}

/// An assignment whose user data is the member's id.
pub(crate) fn assignment(member_id: &str, partitions: &[TopicPartition]) -> MemberAssignment {
    MemberAssignment {
        member_id: member_id.into(),
        partitions: partitions.to_vec(),
        user_data: member_id.as_bytes().to_vec(),
    }
}

/// Topics, offsets and ids.
pub(crate) fn admin(kafka: &Kafka) -> Outcome<Box<dyn Admin>> {
    Ok(kafka.admin()?)
}
