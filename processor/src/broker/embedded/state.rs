//! Everything the broker knows, behind one lock; and what time alone does to it.

use std::collections::{BTreeMap, VecDeque};
use std::sync::{Arc, Mutex, MutexGuard, PoisonError};

use super::chunk::{Chunk, Stamp};
use super::group::Group;
use super::member::{Answer, Outbox};
use super::topic::{Partition, Topic, unknown};
use super::transaction::Transactions;
use crate::broker::{GroupError, Lease, Result, Ticket};
use crate::record::{Timestamp, TopicPartition};
use crate::time::Clock;
use crate::wake::Waker;

/// What all clones of the broker and all its clients share.
#[derive(Debug)]
pub(super) struct Shared {
    pub(super) clock: Arc<dyn Clock>,
    /// When the broker was made; part of the cluster's id.
    pub(super) started: Timestamp,
    state: Mutex<State>,
}

impl Shared {
    pub(super) fn new(clock: Arc<dyn Clock>) -> Self {
        Self { started: clock.now(), clock, state: Mutex::new(State::new()) }
    }

    /// The state as it is now: what time-outs have done until this moment is done.
    pub(super) fn lock(&self) -> MutexGuard<'_, State> {
        // A panic in a client leaves no state half changed that another could not go on with: no user code runs
        // under the lock.
        let mut state = self.state.lock().unwrap_or_else(PoisonError::into_inner);
        let now = self.clock.now();
        state.now = now;
        if state.due <= now {
            state.advance();
        }
        state
    }

    /// The state without letting time act: for clients that go away.
    pub(super) fn lock_still(&self) -> MutexGuard<'_, State> {
        self.state.lock().unwrap_or_else(PoisonError::into_inner)
    }
}

/// A client's connection to a group's coordinator.
#[derive(Debug)]
pub(super) struct Line {
    pub(super) waker: Waker,
    pub(super) answers: VecDeque<(Ticket, Answer)>,
}

#[derive(Debug)]
pub(super) struct State {
    /// The time of the call that holds the lock.
    pub(super) now: Timestamp,
    /// Nothing happens by time alone before this.
    due: Timestamp,
    pub(super) topics: BTreeMap<Arc<str>, Topic>,
    pub(super) groups: BTreeMap<String, Group>,
    pub(super) transactions: Transactions,
    pub(super) lines: BTreeMap<u64, Line>,
    pub(super) marker_delay: i64,
    counter: u64,
}

impl State {
    fn new() -> Self {
        Self {
            now: 0,
            due: Timestamp::MAX,
            topics: BTreeMap::new(),
            groups: BTreeMap::new(),
            transactions: Transactions::default(),
            lines: BTreeMap::new(),
            marker_delay: 0,
            counter: 0,
        }
    }

    /// A number that was not used before.
    pub(super) fn fresh(&mut self) -> u64 {
        self.counter = self.counter.saturating_add(1);
        self.counter
    }

    pub(super) fn partition(&self, at: &TopicPartition) -> Result<&Partition> {
        self.find(&at.topic, at.partition).ok_or_else(|| unknown(at))
    }

    pub(super) fn partition_mut(&mut self, at: &TopicPartition) -> Result<&mut Partition> {
        let place = usize::try_from(at.partition).unwrap_or(usize::MAX);
        self.topics.get_mut(&at.topic).and_then(|topic| topic.partitions.get_mut(place)).ok_or_else(|| unknown(at))
    }

    /// The same without an owned name.
    pub(super) fn find(&self, topic: &str, partition: i32) -> Option<&Partition> {
        let place = usize::try_from(partition).ok()?;
        self.topics.get(topic)?.partitions.get(place)
    }

    /// Appends records to a partition. Returns the offset after the last.
    pub(super) fn append(&mut self, at: &TopicPartition, chunk: Chunk, stamp: Stamp) -> Result<i64> {
        let retention = self.topics.get(&at.topic).and_then(|topic| topic.retention);
        let partition = self.partition_mut(at)?;
        Ok(partition.change(|log| {
            let end = log.append(chunk, stamp);
            if let Some(keep) = retention
                && log.bytes() > keep
            {
                log.retain_bytes(keep);
            }
            end
        }))
    }

    /// Whether positions may be committed in a group under a lease.
    pub(super) fn check_commit(&self, group: &str, lease: &Lease, transactional: bool) -> Result<(), GroupError> {
        match self.groups.get(group) {
            Some(group) => group.check_commit(lease, transactional),
            None if lease.generation >= 0 => Err(GroupError::IllegalGeneration),
            None => Ok(()),
        }
    }

    /// A group; one that nobody has named before is empty.
    pub(super) fn group(&mut self, name: &str) -> &mut Group {
        self.groups.entry(name.to_owned()).or_default()
    }

    /// Hands answers to those who asked. An answer for a line that is gone is dropped, as a closed connection would.
    pub(super) fn deliver(&mut self, out: Outbox) {
        for (to, answer) in out {
            if let Some(line) = self.lines.get_mut(&to.line) {
                line.answers.push_back((to.ticket, answer));
                line.waker.wake();
            }
        }
    }

    /// Looks up anew when time must act next. To be called after every change to a group or a transaction.
    pub(super) fn reschedule(&mut self) {
        let groups = self.groups.values().filter_map(Group::due);
        self.due = groups.chain(self.transactions.due()).min().unwrap_or(Timestamp::MAX);
    }

    /// When time must act next.
    pub(super) fn due(&self) -> Option<Timestamp> {
        (self.due != Timestamp::MAX).then_some(self.due)
    }

    fn advance(&mut self) {
        self.advance_transactions();
        let mut out = Outbox::new();
        for group in self.groups.values_mut() {
            group.advance(self.now, &mut out);
        }
        self.deliver(out);
        self.reschedule();
    }
}
