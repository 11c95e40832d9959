//! Errors of the log, by what the engine can do about them.

/// What can be done about an error of the log.
#[derive(Clone, Copy, Debug, PartialEq, Eq, Hash)]
#[non_exhaustive]
pub enum ErrorClass {
    /// The same call may work later.
    Retriable,
    /// The transaction must be aborted; then work goes on from the committed offsets.
    Abortable,
    /// Somebody else holds the transactional id now: drop the producer.
    Fenced,
    /// The group refused the lease that offsets were sent under (codes 22, 25, 27, 82): abort the
    /// transaction and go on under a new lease. The producer stays good.
    LeaseVoid,
    /// The offset asked for is not in the log (any more).
    OutOfRange,
    /// A topic or partition does not exist.
    UnknownTopic,
    /// The record is larger than broker or client allow.
    TooLarge,
    /// The broker refuses the record for what it is: no key in a compacted topic, a time outside the topic's limits.
    Rejected,
    /// The principal lacks a right.
    NotAuthorised,
    /// No broker could be reached in the time allowed.
    Unavailable,
    /// A setting is unknown or out of its range.
    Configuration,
    /// This client object is of no more use.
    Fatal,
}

/// An error of the log: its class, and a sentence that names the call, the thing and the cause.
#[derive(Clone, Debug, PartialEq, Eq, thiserror::Error)]
#[error("{message}")]
pub struct BrokerError {
    /// What can be done.
    pub class: ErrorClass,
    /// What happened, for people.
    pub message: String,
}

impl BrokerError {
    /// An error of a class, with its sentence.
    pub fn new(class: ErrorClass, message: impl Into<String>) -> Self {
        Self { class, message: message.into() }
    }

    /// Whether the same call would fail in the same way again: for a record too large, a right that is lacking.
    #[must_use]
    pub fn is_permanent(&self) -> bool {
        use ErrorClass::{Configuration, NotAuthorised, OutOfRange, Rejected, TooLarge, UnknownTopic};
        matches!(self.class, TooLarge | Rejected | NotAuthorised | UnknownTopic | Configuration | OutOfRange)
    }

    /// Whether it may pass by itself, so that the same call is worth another try.
    #[must_use]
    pub fn is_passing(&self) -> bool {
        matches!(self.class, ErrorClass::Retriable | ErrorClass::Unavailable)
    }
}

/// For a call that is made again at the next step anyway: `None` for an error that may pass by itself.
pub(crate) fn ride_out<T>(answer: Result<T, BrokerError>) -> Result<Option<T>, BrokerError> {
    match answer {
        Ok(answer) => Ok(Some(answer)),
        Err(error) if error.is_passing() => {
            tracing::warn!(event = "broker.interrupted", %error, "going on");
            Ok(None)
        }
        Err(error) => Err(error),
    }
}
