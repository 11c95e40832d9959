//! What the engine needs of a log, and nothing more.
//!
//! Five small traits: a [`Broker`] makes the other four. A [`Consumer`] lends batches of
//! one partition, a [`Producer`] takes bytes and ends transactions, a [`Coordinator`]
//! carries group requests, an [`Admin`] asks about topics. Two implementations exist:
//! `kafka` (a real cluster) and `embedded` (in this process).
//!
//! **No call on the record path waits.** What must wait is a ticket: it is started, and
//! the step that needs the answer asks for it later. The [`Waker`] given to each part is
//! raised whenever an answer, a batch or a delivery has come in where there was none: ask
//! until there is nothing left before waiting.

pub mod embedded;
mod error;
mod group;
pub mod kafka;

use std::fmt::Debug;
use std::time::Duration;

pub(crate) use error::ride_out;
pub use error::{BrokerError, ErrorClass};
pub use group::{
    Coordinator, FetchedOffset, GroupAnswer, GroupError, GroupRequest, Joined, Lease, MemberAssignment, MemberMetadata,
    OffsetAndMetadata, Ticket,
};

use crate::record::{Headers, Timestamp, TopicPartition};
use crate::wake::Waker;

/// What a call to the log may answer.
pub type Result<T, E = BrokerError> = std::result::Result<T, E>;

/// A log with partitions, transactions and groups. One per process; shared by its threads.
pub trait Broker: Send + Sync + Debug {
    /// A consumer that reads what it is assigned; it is in no group.
    fn consumer(&self, options: &ConsumerOptions, waker: Waker) -> Result<Box<dyn Consumer>>;
    /// A producer; with a transactional id if `options` names one.
    fn producer(&self, options: &ProducerOptions, waker: Waker) -> Result<Box<dyn Producer>>;
    /// A line to the coordinator of `group`. Each has its own answers; all share the connections below.
    fn coordinator(&self, group: &str, waker: Waker) -> Result<Box<dyn Coordinator>>;
    /// Questions about topics. Its calls block, with a deadline: never for a step.
    fn admin(&self) -> Result<Box<dyn Admin>>;
}

/// Which records a consumer sees.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub enum Isolation {
    /// All, also those of open and aborted transactions.
    ReadUncommitted,
    /// Committed ones, up to the last stable offset.
    ReadCommitted,
}

/// How to read.
#[derive(Clone, Debug)]
pub struct ConsumerOptions {
    /// Shows in the broker's logs.
    pub client_id: String,
    /// Which records are seen.
    pub isolation: Isolation,
    /// Bound of fetched and not yet lent bytes, all partitions together.
    pub queued_bytes: usize,
}

/// How to write.
#[derive(Clone, Debug)]
pub struct ProducerOptions {
    /// Shows in the broker's logs.
    pub client_id: String,
    /// Makes it a transactional producer.
    pub transactional_id: Option<String>,
    /// After this time without an end the broker aborts a transaction.
    pub transaction_timeout: Duration,
    /// How long a record may wait for company. Zero: send at once.
    pub linger: Duration,
}

/// In place of an offset: the first record that the log holds.
pub const BEGINNING: i64 = -2;

/// An assigned partition of one consumer.
#[derive(Clone, Copy, Debug, PartialEq, Eq, Hash, PartialOrd, Ord)]
pub struct Slot(pub u32);

/// Reads partitions from given offsets.
///
/// Positions are the caller's: a consumer commits nothing and looks up no committed offset.
/// [`BEGINNING`] reads from the first record. Any other offset that the log does not hold is an error of class [`ErrorClass::OutOfRange`]
/// from `fetch`, never a silent jump.
pub trait Consumer: Send {
    /// Adds partitions, each read from an offset; the others go on undisturbed. Slots come in the same order.
    fn assign(&mut self, starts: &[(TopicPartition, i64)]) -> Result<Vec<Slot>>;
    /// Gives partitions back. A batch that was lent before stays valid; nothing more comes from these slots.
    fn unassign(&mut self, slots: &[Slot]) -> Result<()>;
    /// Reads on from `offset`; nothing fetched before is lent after.
    fn seek(&mut self, slot: Slot, offset: i64) -> Result<()>;
    /// The next records of a partition, at most `max`, if any have arrived. A batch without records
    /// says that the position moved past control records or that the end was reached. Does not wait.
    /// Fetch a partition until it answers `None`: more records in a partition that was not emptied raise no signal.
    fn fetch(&mut self, slot: Slot, max: usize) -> Result<Option<Box<dyn Batch>>>;
    /// Serves what is not about one partition: logs, connection errors. Once per step.
    fn poll(&mut self) -> Result<()>;
}

/// One record, lent by its batch.
#[derive(Clone, Copy, Debug)]
pub struct RecordView<'a> {
    /// Position in the partition.
    pub offset: i64,
    /// Event time, ms; negative where the record has none.
    pub timestamp: Timestamp,
    /// Key bytes; `None` is null.
    pub key: Option<&'a [u8]>,
    /// Value bytes; `None` is null.
    pub value: Option<&'a [u8]>,
}

/// Consecutive records of one partition, in the memory they were fetched into.
pub trait Batch {
    /// How many records.
    fn len(&self) -> usize;
    /// Whether it has none: only its position tells something.
    fn is_empty(&self) -> bool {
        self.len() == 0
    }
    /// One record; `None` from [`Batch::len`] on.
    fn record(&self, index: usize) -> Option<RecordView<'_>>;
    /// Appends the record's headers to `into`. Apart from `record`, because few records have any.
    fn headers(&self, index: usize, into: &mut Headers);
    /// The position once all of it is processed: after the last record, or, where the end of the
    /// partition was reached, after the control records that follow it.
    fn next_offset(&self) -> i64;
    /// Whether the end of the partition (for [`Isolation::ReadCommitted`] its last stable offset) came right after it.
    fn at_end(&self) -> bool;
}

/// A topic that a producer knows.
#[derive(Clone, Copy, Debug, PartialEq, Eq, Hash, PartialOrd, Ord)]
pub struct TopicHandle(pub u32);

/// What a producer writes.
#[derive(Clone, Copy, Debug)]
pub struct OutRecord<'a> {
    /// Event time, ms.
    pub timestamp: Timestamp,
    /// Key bytes; `None` is null.
    pub key: Option<&'a [u8]>,
    /// Value bytes; `None` is null.
    pub value: Option<&'a [u8]>,
    /// Headers in order.
    pub headers: &'a Headers,
}

/// Writes records and ends transactions.
///
/// Records of one partition are written in the order of `send`, each once (idempotence).
pub trait Producer: Send {
    /// Makes a topic known, so that the record path needs no name.
    fn topic(&mut self, name: &str) -> Result<TopicHandle>;
    /// Takes a copy of the record into its own buffer. Does not wait: the caller keeps `backlog` bounded.
    fn send(&mut self, topic: TopicHandle, partition: i32, record: &OutRecord<'_>) -> Result<()>;
    /// Serves acknowledgements. An error is the first delivery that failed for good.
    fn poll(&mut self) -> Result<()>;
    /// Records taken and not yet acknowledged. 0 = all are written.
    fn backlog(&self) -> usize;
    /// One past the highest offset at which a record of ours was acknowledged in this partition.
    /// Exact for all records sent before, once `backlog` is 0.
    fn acknowledged(&self, topic: TopicHandle, partition: i32) -> Option<i64>;
    /// Starts a transactional call. One at a time; its end is told by `outcome`.
    fn start(&mut self, call: TransactionCall);
    /// The result of the call that was started, once. `None`: not yet, or none is under way.
    fn outcome(&mut self) -> Option<Result<()>>;
    /// Whether a request of an ended transaction may still be on its way to the broker (a transactional
    /// call outlasted the request timeout, or a connection broke since `begin`). Then this producer must not begin
    /// another transaction: drop it and make a new one, whose `Init` fences the stray.
    fn tainted(&self) -> bool;
}

/// A call about a transaction.
#[derive(Clone, Debug)]
pub enum TransactionCall {
    /// Takes over the transactional id: ends what an earlier holder left open and fences it.
    Init,
    /// Opens a transaction.
    Begin,
    /// Adds offsets to it, valid only under the lease.
    SendOffsets {
        /// The group whose offsets they are.
        group: String,
        /// Member id and generation they are sent under.
        lease: Lease,
        /// Next offset to read, per partition.
        offsets: Vec<(TopicPartition, OffsetAndMetadata)>,
    },
    /// Commits it.
    Commit,
    /// Aborts it.
    Abort,
}

/// A topic as the cluster describes it.
#[derive(Clone, Debug, PartialEq, Eq)]
pub struct TopicInfo {
    /// Number of partitions.
    pub partitions: i32,
    /// The id that changes when a topic is deleted and made anew; text form.
    pub id: String,
}

/// A topic to create.
#[derive(Clone, Debug, PartialEq, Eq)]
pub struct NewTopic {
    /// Its name.
    pub name: String,
    /// Number of partitions.
    pub partitions: i32,
    /// Replicas of each; -1 leaves it to the broker.
    pub replication: i16,
    /// Settings by Kafka's names.
    pub settings: Vec<(String, String)>,
}

/// An edge of a partition.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub enum Edge {
    /// The first offset that is still there.
    Start,
    /// The high watermark.
    End,
    /// The last stable offset: where a read-committed reader stops.
    Stable,
}

/// Questions and orders about topics. Every call blocks, at most for the deadline it was made with.
pub trait Admin: Send {
    /// The cluster's id.
    fn cluster_id(&mut self) -> Result<String>;
    /// The topics by name, in the same order; `None` for one that does not exist.
    fn topics(&mut self, names: &[&str]) -> Result<Vec<Option<TopicInfo>>>;
    /// Creates topics; one that exists already is no error. Returns when each can be written.
    fn create_topics(&mut self, topics: &[NewTopic]) -> Result<()>;
    /// Offsets at an edge, in the same order.
    fn offsets(&mut self, partitions: &[TopicPartition], edge: Edge) -> Result<Vec<i64>>;
}
