//! The transaction coordinator: who holds a transactional id, what its transaction has touched, and how it ends.

use std::collections::{BTreeMap, BTreeSet};

use super::state::State;
use crate::broker::{BrokerError, ErrorClass, Result};
use crate::record::{Timestamp, TopicPartition};
use crate::wake::Waker;

/// The holder of a transactional id.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub(super) struct Holder {
    pub(super) producer_id: i64,
    pub(super) epoch: i16,
}

/// Where a transaction stands.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub(super) enum Status {
    /// None has touched anything.
    Idle,
    /// It has records or offsets.
    Ongoing { since: Timestamp },
    /// Its end is decided; the markers are written when this time has come.
    Ending { commit: bool, due: Timestamp },
}

#[derive(Debug)]
struct Transaction {
    holder: Holder,
    timeout: i64,
    status: Status,
    partitions: BTreeSet<TopicPartition>,
    groups: BTreeSet<String>,
    // Of the holder: it may wait for the markers.
    waker: Waker,
    timed_out: bool,
}

/// All transactional ids.
#[derive(Debug, Default)]
pub(super) struct Transactions {
    by_id: BTreeMap<String, Transaction>,
    producers: i64,
}

impl Transactions {
    /// An id for a new producer.
    pub(super) fn producer_id(&mut self) -> i64 {
        self.producers = self.producers.saturating_add(1);
        self.producers
    }

    /// When the next one times out or gets its markers.
    pub(super) fn due(&self) -> Option<Timestamp> {
        self.by_id.values().filter_map(Transaction::due).min()
    }

    /// Where the holder's transaction stands; an error if somebody else holds the id now.
    pub(super) fn status(&self, id: &str, holder: Holder) -> Result<Status> {
        self.by_id
            .get(id)
            .filter(|transaction| transaction.holder == holder)
            .map(|transaction| transaction.status)
            .ok_or_else(|| self.fenced(id))
    }

    fn held_by(&mut self, id: &str, holder: Holder) -> Result<&mut Transaction> {
        let why = self.fenced(id);
        self.by_id.get_mut(id).filter(|transaction| transaction.holder == holder).ok_or(why)
    }

    fn fenced(&self, id: &str) -> BrokerError {
        let timed_out = self.by_id.get(id).is_some_and(|transaction| transaction.timed_out);
        let why = if timed_out {
            "the broker aborted its transaction after the transaction timeout"
        } else {
            "another producer has taken it over"
        };
        BrokerError::new(ErrorClass::Fenced, format!("transactional id {id:?} is fenced: {why}"))
    }
}

impl Transaction {
    fn due(&self) -> Option<Timestamp> {
        match self.status {
            Status::Idle => None,
            Status::Ongoing { since } => Some(since.saturating_add(self.timeout)),
            Status::Ending { due, .. } => Some(due),
        }
    }

    fn touch(&mut self, now: Timestamp) {
        if self.status == Status::Idle {
            self.status = Status::Ongoing { since: now };
        }
    }
}

impl State {
    /// Takes over a transactional id. `None`: the transaction of the holder before has still to end; ask again.
    pub(super) fn init_transactions(&mut self, id: &str, timeout: i64, waker: &Waker) -> Option<Holder> {
        let fresh = Holder { producer_id: self.transactions.producers.saturating_add(1), epoch: 0 };
        if let Some(known) = self.transactions.by_id.get_mut(id) {
            known.waker = waker.clone();
            known.timed_out = false;
            match known.status {
                Status::Idle => {}
                Status::Ending { .. } => return None,
                Status::Ongoing { .. } => {
                    known.holder.epoch = known.holder.epoch.saturating_add(1);
                    self.end_transaction(id, false);
                    self.reschedule();
                }
            }
        }
        let known = self.transactions.by_id.entry(id.to_owned()).or_insert_with(|| Transaction {
            holder: Holder { epoch: -1, ..fresh },
            timeout,
            status: Status::Idle,
            partitions: BTreeSet::new(),
            groups: BTreeSet::new(),
            waker: waker.clone(),
            timed_out: false,
        });
        if known.status != Status::Idle {
            return None;
        }
        known.timeout = timeout;
        // The last epoch is kept for fencing, as Kafka does: a holder never gets it.
        known.holder = if known.holder.epoch < i16::MAX - 1 {
            Holder { epoch: known.holder.epoch.saturating_add(1), ..known.holder }
        } else {
            fresh
        };
        let holder = known.holder;
        self.transactions.producers = self.transactions.producers.max(holder.producer_id);
        Some(holder)
    }

    /// Notes that the transaction writes to a partition.
    pub(super) fn add_partition(&mut self, id: &str, holder: Holder, at: TopicPartition) -> Result<()> {
        let now = self.now;
        let transaction = self.transactions.held_by(id, holder)?;
        transaction.touch(now);
        if transaction.partitions.insert(at) {
            self.reschedule();
        }
        Ok(())
    }

    /// Notes that the transaction carries offsets of a group.
    pub(super) fn add_group(&mut self, id: &str, holder: Holder, group: &str) -> Result<()> {
        let now = self.now;
        let transaction = self.transactions.held_by(id, holder)?;
        transaction.touch(now);
        transaction.groups.insert(group.to_owned());
        self.reschedule();
        Ok(())
    }

    /// Decides the end of the holder's transaction.
    pub(super) fn end_held_transaction(&mut self, id: &str, holder: Holder, commit: bool) -> Result<()> {
        if let Status::Ongoing { .. } = self.transactions.status(id, holder)? {
            self.end_transaction(id, commit);
            self.reschedule();
        }
        Ok(())
    }

    /// Time-outs and markers that are due.
    pub(super) fn advance_transactions(&mut self) {
        let now = self.now;
        let due: Vec<String> = self
            .transactions
            .by_id
            .iter()
            .filter(|(_, transaction)| transaction.due().is_some_and(|due| due <= now))
            .map(|(id, _)| id.clone())
            .collect();
        for id in due {
            let Some(transaction) = self.transactions.by_id.get_mut(&id) else {
                continue;
            };
            if let Status::Ongoing { .. } = transaction.status {
                transaction.holder.epoch = transaction.holder.epoch.saturating_add(1);
                transaction.timed_out = true;
                self.end_transaction(&id, false);
            } else {
                self.write_markers(&id);
            }
        }
    }

    fn end_transaction(&mut self, id: &str, commit: bool) {
        let due = self.now.saturating_add(self.marker_delay);
        if let Some(transaction) = self.transactions.by_id.get_mut(id) {
            transaction.status = Status::Ending { commit, due };
        }
        if self.marker_delay <= 0 {
            self.write_markers(id);
        }
    }

    /// Makes the end visible: markers in every partition, offsets in every group, in one go.
    fn write_markers(&mut self, id: &str) {
        let Some(transaction) = self.transactions.by_id.get_mut(id) else {
            return;
        };
        let Status::Ending { commit, .. } = transaction.status else {
            return;
        };
        transaction.status = Status::Idle;
        transaction.waker.wake();
        let Holder { producer_id, epoch } = transaction.holder;
        let partitions = std::mem::take(&mut transaction.partitions);
        let groups = std::mem::take(&mut transaction.groups);
        let now = self.now;
        for at in partitions {
            // A topic that was deleted meanwhile needs no marker.
            if let Ok(partition) = self.partition_mut(&at) {
                partition.change(|log| log.append_marker(producer_id, epoch, commit, now));
            }
        }
        for group in groups {
            if let Some(group) = self.groups.get_mut(&group) {
                group.offsets.end_transaction(producer_id, commit);
            }
        }
    }
}
