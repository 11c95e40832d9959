//! What the broker does, in virtual time.

mod consumer;
mod group;
mod model;
mod rebalance;
mod topic;
mod transaction;

use std::sync::Arc;
use std::time::Duration;

use super::Embedded;
use crate::broker::{
    BEGINNING, Batch, Broker, BrokerError, Consumer, ConsumerOptions, Coordinator, Edge, ErrorClass, FetchedOffset,
    GroupAnswer, GroupError, GroupRequest, Isolation, Joined, Lease, MemberAssignment, NewTopic, OffsetAndMetadata,
    OutRecord, Producer, ProducerOptions, Slot, Ticket, TopicHandle, TransactionCall,
};
use crate::record::{Headers, TopicPartition};
use crate::time::ManualClock;
use crate::wake::Waker;

/// A broker at time 1,000, and the clock it lives by.
fn broker() -> (Embedded, ManualClock) {
    let clock = ManualClock::new(1_000);
    (Embedded::new(Arc::new(clock.clone())), clock)
}

/// The same with topic `t` of two partitions.
fn broker_with_topic() -> (Embedded, ManualClock) {
    let (broker, clock) = broker();
    create(&broker, "t", 2, &[]).unwrap();
    (broker, clock)
}

fn create(broker: &Embedded, name: &str, partitions: i32, settings: &[(&str, &str)]) -> Result<(), BrokerError> {
    broker.admin()?.create_topics(&[NewTopic {
        name: name.into(),
        partitions,
        replication: -1,
        settings: settings.iter().map(|(key, value)| ((*key).into(), (*value).into())).collect(),
    }])
}

fn at(partition: i32) -> TopicPartition {
    TopicPartition::new("t", partition)
}

fn edge(broker: &Embedded, edge: Edge) -> i64 {
    broker.admin().unwrap().offsets(&[at(0)], edge).unwrap()[0]
}

/// A producer, its waker and topic `t`.
struct Writer {
    producer: Box<dyn Producer>,
    waker: Waker,
    topic: TopicHandle,
}

impl Writer {
    fn plain(broker: &Embedded) -> Self {
        Self::make(broker, None)
    }

    /// Transactional and initialised; a transaction may last 10 s.
    fn transactional(broker: &Embedded, id: &str) -> Self {
        let mut writer = Self::make(broker, Some(id));
        writer.call(TransactionCall::Init).unwrap();
        writer
    }

    fn make(broker: &Embedded, id: Option<&str>) -> Self {
        let waker = Waker::new();
        let options = ProducerOptions {
            client_id: "test".into(),
            transactional_id: id.map(Into::into),
            transaction_timeout: Duration::from_secs(10),
            linger: Duration::ZERO,
        };
        let mut producer = broker.producer(&options, waker.clone()).unwrap();
        let topic = producer.topic("t").unwrap();
        Self { producer, waker, topic }
    }

    fn call(&mut self, call: TransactionCall) -> Result<(), BrokerError> {
        self.producer.start(call);
        self.producer.outcome().unwrap()
    }

    fn send(&mut self, partition: i32, key: &str, value: &str) -> Result<(), BrokerError> {
        let record = OutRecord {
            timestamp: 5,
            key: Some(key.as_bytes()),
            value: Some(value.as_bytes()),
            headers: &Headers::new(),
        };
        self.producer.send(self.topic, partition, &record)
    }

    /// Writes values under key `k` to partition 0.
    fn write(&mut self, values: &[&str]) {
        for value in values {
            self.send(0, "k", value).unwrap();
        }
        self.producer.poll().unwrap();
        assert_eq!(self.producer.backlog(), 0);
    }

    /// A whole transaction with these values.
    fn transaction(&mut self, values: &[&str], end: TransactionCall) {
        self.call(TransactionCall::Begin).unwrap();
        self.write(values);
        self.call(end).unwrap();
    }

    fn send_offset(&mut self, lease: &Lease, offset: i64) -> Result<(), BrokerError> {
        self.call(TransactionCall::SendOffsets {
            group: "g".into(),
            lease: lease.clone(),
            offsets: vec![(at(0), position(offset))],
        })
    }
}

fn position(offset: i64) -> OffsetAndMetadata {
    OffsetAndMetadata { offset, metadata: "m".into() }
}

/// A consumer of partition 0 of `t`, and its waker.
struct Tail {
    consumer: Box<dyn Consumer>,
    waker: Waker,
    slot: Slot,
}

impl Tail {
    fn new(broker: &Embedded, isolation: Isolation, from: i64) -> Self {
        let waker = Waker::new();
        let options = ConsumerOptions { client_id: "test".into(), isolation, queued_bytes: 1 << 20 };
        let mut consumer = broker.consumer(&options, waker.clone()).unwrap();
        let slot = consumer.assign(&[(at(0), from)]).unwrap()[0];
        waker.wait(Duration::ZERO);
        Self { consumer, waker, slot }
    }

    fn committed(broker: &Embedded) -> Self {
        Self::new(broker, Isolation::ReadCommitted, 0)
    }

    fn fetch(&mut self, max: usize) -> Option<Box<dyn Batch>> {
        self.consumer.fetch(self.slot, max).unwrap()
    }

    /// Values and position of the next batch.
    fn next(&mut self) -> Option<(Vec<String>, i64)> {
        let batch = self.fetch(100)?;
        Some((values(batch.as_ref()), batch.next_offset()))
    }

    fn woken(&self) -> bool {
        self.waker.wait(Duration::ZERO)
    }
}

fn values(batch: &dyn Batch) -> Vec<String> {
    (0..batch.len())
        .filter_map(|index| batch.record(index))
        .map(|record| String::from_utf8_lossy(record.value.unwrap()).into_owned())
        .collect()
}

fn texts(values: &[&str]) -> Vec<String> {
    values.iter().map(|value| (*value).into()).collect()
}

/// A member of group `g`: session 6 s, rebalance 30 s.
struct Peer {
    line: Box<dyn Coordinator>,
    waker: Waker,
    instance: Option<String>,
    user_data: Vec<u8>,
    lease: Lease,
    leader: String,
}

impl Peer {
    fn new(broker: &Embedded, user_data: &str) -> Self {
        let waker = Waker::new();
        Self {
            line: broker.coordinator("g", waker.clone()).unwrap(),
            waker,
            instance: None,
            user_data: user_data.into(),
            lease: Lease { member_id: String::new(), generation: -1, instance_id: None },
            leader: String::new(),
        }
    }

    /// A static member; the instance id is its user data too.
    fn with_instance(broker: &Embedded, instance: &str) -> Self {
        let mut peer = Self::new(broker, instance);
        peer.instance = Some(instance.into());
        peer.lease.instance_id = Some(instance.into());
        peer
    }

    fn ask(&mut self, request: GroupRequest) -> Result<GroupAnswer, GroupError> {
        let ticket = self.line.request(request);
        let (answered, answer) = self.line.answer().expect("an answer at once");
        assert_eq!(answered, ticket);
        answer
    }

    /// Sends JoinGroup with the id it has.
    fn start_join(&mut self) -> Ticket {
        self.line.request(GroupRequest::Join {
            member_id: self.lease.member_id.clone(),
            instance_id: self.instance.clone(),
            session_timeout_ms: 6_000,
            rebalance_timeout_ms: 30_000,
            topics: vec!["t".into()],
            user_data: self.user_data.clone(),
        })
    }

    /// A newcomer asks for its id.
    fn ask_id(&mut self) {
        let ticket = self.start_join();
        match self.line.answer() {
            Some((answered, Err(GroupError::MemberIdRequired(id)))) if answered == ticket => self.lease.member_id = id,
            other => panic!("no member id: {other:?}"),
        }
    }

    /// Joins, as far as that needs nobody else.
    fn join(&mut self) -> Joined {
        if self.lease.member_id.is_empty() && self.instance.is_none() {
            self.ask_id();
        }
        self.start_join();
        self.joined()
    }

    /// The answer to JoinGroup that has come.
    fn joined(&mut self) -> Joined {
        match self.line.answer() {
            Some((_, Ok(GroupAnswer::Joined(joined)))) => {
                self.lease.member_id.clone_from(&joined.member_id);
                self.lease.generation = joined.generation;
                self.leader.clone_from(&joined.leader_id);
                joined
            }
            other => panic!("not joined: {other:?}"),
        }
    }

    /// Sends SyncGroup; the leader gives every member its own id as assignment.
    fn start_sync(&mut self, members: &[&str]) -> Ticket {
        let assignments = members.iter().map(|id| MemberAssignment {
            member_id: (*id).into(),
            partitions: Vec::new(),
            user_data: (*id).into(),
        });
        self.line.request(GroupRequest::Sync { lease: self.lease.clone(), assignments: assignments.collect() })
    }

    fn synced(&mut self) -> Result<GroupAnswer, GroupError> {
        self.line.answer().expect("an answer to SyncGroup").1
    }

    fn heartbeat(&mut self) -> Result<GroupAnswer, GroupError> {
        self.ask(GroupRequest::Heartbeat { lease: self.lease.clone() })
    }

    fn leave(&mut self) -> Result<GroupAnswer, GroupError> {
        self.ask(GroupRequest::Leave { member_id: self.lease.member_id.clone(), instance_id: self.instance.clone() })
    }

    fn commit(&mut self, offset: i64) -> Result<GroupAnswer, GroupError> {
        self.ask(GroupRequest::CommitOffsets { lease: self.lease.clone(), offsets: vec![(at(0), position(offset))] })
    }

    fn fetch_offset(&mut self) -> Result<Option<i64>, GroupError> {
        let request = GroupRequest::FetchOffsets { partitions: vec![at(0)] };
        match self.ask(request)? {
            GroupAnswer::Offsets(found) => {
                let [(partition, offset)]: &[FetchedOffset; 1] = found.as_slice().try_into().unwrap();
                assert_eq!(*partition, at(0));
                Ok(offset.as_ref().map(|offset| offset.offset))
            }
            other => panic!("no offsets: {other:?}"),
        }
    }

    fn woken(&self) -> bool {
        self.waker.wait(Duration::ZERO)
    }
}

/// A group of one, stable.
fn group_of_one(broker: &Embedded) -> Peer {
    let mut peer = Peer::new(broker, "a");
    let id = peer.join().member_id;
    peer.start_sync(&[&id]);
    assert_eq!(peer.synced(), Ok(GroupAnswer::Synced(id.into())));
    peer
}

/// A group of two, stable; the first leads.
fn group_of_two(broker: &Embedded) -> (Peer, Peer) {
    let mut first = group_of_one(broker);
    let mut second = Peer::new(broker, "b");
    second.ask_id();
    second.start_join();
    first.start_join();
    settle(&mut first, &mut second);
    (first, second)
}

/// Both have joined: the leader assigns.
fn settle(leader: &mut Peer, other: &mut Peer) {
    leader.joined();
    other.joined();
    let (one, two) = (leader.lease.member_id.clone(), other.lease.member_id.clone());
    other.start_sync(&[]);
    leader.start_sync(&[&one, &two]);
    assert_eq!(leader.synced(), Ok(GroupAnswer::Synced(one.into())));
    assert_eq!(other.synced(), Ok(GroupAnswer::Synced(two.into())));
}

/// The class of an error that must be there.
fn class<T>(result: Result<T, BrokerError>) -> ErrorClass {
    match result {
        Ok(_) => panic!("no error"),
        Err(error) => error.class,
    }
}
