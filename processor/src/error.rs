//! Errors of the engine, by what the caller can do about them.

use crate::broker::BrokerError;

/// What a call of this crate may answer.
pub type Result<T, E = Error> = std::result::Result<T, E>;

/// Any error of user code.
pub type BoxError = Box<dyn std::error::Error + Send + Sync>;

/// An error of the engine.
#[derive(Debug, thiserror::Error)]
#[non_exhaustive]
pub enum Error {
    /// The topology cannot be built as written: change the program.
    #[error("topology: {0}")]
    Topology(String),
    /// A setting is unknown, malformed or contradicts another: change the configuration.
    #[error("configuration: {0}")]
    Configuration(String),
    /// A topic is missing or has the wrong number of partitions: create or fix it.
    #[error("topic: {0}")]
    Topic(String),
    /// A record cannot be processed under the policy in force.
    #[error("{0}")]
    Record(Box<RecordError>),
    /// The broker refused or did not answer.
    #[error("broker: {0}")]
    Broker(#[from] BrokerError),
    /// Local state is locked, foreign, or cannot be read or written.
    #[error("state: {0}")]
    State(#[from] headwater_changelog::Error),
    /// The process cannot be a member of its group.
    #[error("group: {0}")]
    Group(String),
    /// Something did not end inside the time allowed for it.
    #[error("deadline: {0}")]
    Deadline(String),
    /// The engine itself failed, for example a thread of it panicked.
    #[error("engine: {0}")]
    Engine(String),
}

/// A record that cannot be processed, and where it was.
#[derive(Debug, thiserror::Error)]
#[error("record at {topic}-{partition}, offset {offset}: {reason}")]
pub struct RecordError {
    /// Topic it was read from.
    pub topic: String,
    /// Partition.
    pub partition: i32,
    /// Offset.
    pub offset: i64,
    /// What is wrong, and what would be right.
    pub reason: String,
}
