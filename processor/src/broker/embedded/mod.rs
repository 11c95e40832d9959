//! A log in this process, behind the same traits as Kafka: for the first steps without a cluster, for tests in
//! virtual time, and for simulation. **Never for production**: it keeps nothing.
//!
//! One lock holds everything, and there are no threads, no randomness and no clock but the one given: ids are
//! counted, and what order the calls have, the log has. Time-outs are evaluated whenever anybody calls; whoever
//! drives virtual time moves the clock to [`Embedded::next_deadline`] and calls [`Embedded::tick`]. Those who wait
//! are woken through their [`Waker`]s.
//!
//! What it does as Kafka does: offsets, markers and the last stable offset; transactions with fencing, time-outs and
//! offsets under a lease; the classic group protocol with dynamic and static members.
//!
//! # What differs from Kafka
//!
//! - Nothing is on disk and nothing is replicated: the high watermark is the end of the log, and all ends with the
//!   process. The cluster's id tells when it was started, so that state kept by an earlier run is not taken for valid.
//! - Records wait in the producer until `poll` (or until 64 KiB of a partition have come together, or the commit):
//!   then they are written and acknowledged at once. `linger` is not looked at. A producer that is dropped takes what
//!   it has not handed over with it, as a process that dies does.
//! - No request is lost, delayed or sent twice, so there are no sequence numbers and [`Producer::tainted`] is never
//!   true. Transactional calls and group requests take effect inside `start` and `request`.
//! - Markers are written when the commit returns; [`Embedded::set_marker_delay`] gives Kafka's short delay back. A
//!   transaction that outlives its timeout is aborted to the millisecond and not at the next look.
//! - A producer's epoch changes with `Init` and with time-outs, not with every transaction.
//! - A group speaks one protocol, has no limit of members and waits for nobody in its first round (Kafka:
//!   `group.initial.rebalance.delay.ms=0`). Members are ordered by joining. Offsets do not expire.
//! - Topics are made by [`Admin::create_topics`] alone. Of their settings only `cleanup.policy`, `max.message.bytes`
//!   (key, value and headers) and `retention.bytes` have an effect; all are kept. Nothing expires by time, and
//!   compaction happens only by [`Embedded::compact`], which drops no tombstones.
//! - There are no rights, quotas, leaders or epochs of leaders, no compression, and no time stamps of the broker's own.

mod admin;
mod chunk;
mod consumer;
mod coordinator;
mod group;
mod log;
mod member;
mod offsets;
mod outbound;
mod producer;
mod state;
#[cfg(test)]
mod tests;
mod topic;
mod transaction;

use std::sync::Arc;

pub use admin::{EntryKind, LogEntry};
pub use group::GroupState;

use self::admin::EmbeddedAdmin;
use self::consumer::EmbeddedConsumer;
use self::coordinator::EmbeddedCoordinator;
use self::producer::EmbeddedProducer;
use self::state::Shared;
use super::{Admin, Broker, Consumer, ConsumerOptions, Coordinator, Producer, ProducerOptions, Result};
use crate::record::Timestamp;
use crate::time::Clock;
use crate::wake::Waker;

/// A broker in this process. Clones are the same broker.
///
/// ```
/// use std::sync::Arc;
/// use headwater::broker::embedded::Embedded;
/// use headwater::broker::{Broker, NewTopic};
/// use headwater::time::SystemClock;
///
/// let broker = Embedded::new(Arc::new(SystemClock::new()));
/// let lines = NewTopic { name: "lines".into(), partitions: 2, replication: -1, settings: Vec::new() };
/// broker.admin()?.create_topics(&[lines])?;
/// assert_eq!(broker.admin()?.topics(&["lines"])?.len(), 1);
/// # Ok::<(), headwater::broker::BrokerError>(())
/// ```
#[derive(Clone, Debug)]
pub struct Embedded {
    shared: Arc<Shared>,
}

impl Embedded {
    /// An empty broker that lives by this clock.
    #[must_use]
    pub fn new(clock: Arc<dyn Clock>) -> Self {
        Self { shared: Arc::new(Shared::new(clock)) }
    }

    /// Lets time-outs act that are due: for whoever drives the time. Every other call does it too.
    pub fn tick(&self) {
        drop(self.shared.lock());
    }

    /// When something will happen by time alone (a session, a round, a transaction or a marker's delay runs out);
    /// `None` if nothing will.
    #[must_use]
    pub fn next_deadline(&self) -> Option<Timestamp> {
        self.shared.lock().due()
    }

    /// From now on a transaction's markers, and with them its records and offsets, show this many milliseconds after
    /// its commit or abort. Zero, the default: at once.
    pub fn set_marker_delay(&self, ms: u32) {
        self.shared.lock().marker_delay = i64::from(ms);
    }
}

impl Broker for Embedded {
    fn consumer(&self, options: &ConsumerOptions, waker: Waker) -> Result<Box<dyn Consumer>> {
        Ok(Box::new(EmbeddedConsumer::new(Arc::clone(&self.shared), options, waker)))
    }

    fn producer(&self, options: &ProducerOptions, waker: Waker) -> Result<Box<dyn Producer>> {
        Ok(Box::new(EmbeddedProducer::new(Arc::clone(&self.shared), options, waker)?))
    }

    fn coordinator(&self, group: &str, waker: Waker) -> Result<Box<dyn Coordinator>> {
        Ok(Box::new(EmbeddedCoordinator::new(Arc::clone(&self.shared), group, waker)))
    }

    fn admin(&self) -> Result<Box<dyn Admin>> {
        Ok(Box::new(EmbeddedAdmin { shared: Arc::clone(&self.shared) }))
    }
}
