//! The commit: drain the producer, send the positions under the lease, end the transaction, and only then write the
//! staged entries into the stores.

use super::{Stage, Worker};
use crate::broker::{BrokerError, ErrorClass, GroupError, GroupRequest, OffsetAndMetadata, Ticket, TransactionCall};
use crate::config::millis;
use crate::error::{Error, Result};
use crate::record::{Timestamp, TopicPartition};
use crate::restore::RestoreOrder;
use crate::runtime::count;

/// Staged bytes of a worker's tasks above which it commits early.
pub(super) const STAGED_BYTES_LIMIT: usize = 64 * 1024 * 1024;
/// Pause after the group has said "not now", ms.
const RETRY_MS: i64 = 20;

/// Where a worker stands in its round of processing and committing.
#[derive(Debug)]
pub(super) enum Phase {
    /// A new transactional producer takes over its id.
    Initialising,
    /// It opens a transaction. Costs the broker nothing until something is written.
    Beginning,
    /// Records are processed.
    Processing,
    /// A commit is due: everything written is to be acknowledged first.
    Draining,
    /// At-least-once: the group is storing the positions.
    CommittingOffsets(Ticket),
    /// Exactly-once: the positions are being added to the transaction.
    SendingOffsets,
    /// Exactly-once: the transaction is being committed.
    CommittingTransaction,
    /// Exactly-once: the transaction is being aborted.
    Aborting,
}

impl Phase {
    pub(super) fn may_process(&self) -> bool {
        matches!(self, Self::Processing)
    }

    pub(super) fn waits_for_acknowledgements(&self) -> bool {
        matches!(self, Self::Draining)
    }
}

impl Worker {
    /// When the next commit is due by the clock.
    pub(super) fn commit_due(&self) -> Timestamp {
        self.last_commit.saturating_add(millis(self.engine.config.commit_every()))
    }

    /// Starts a commit if it is time, or if tasks wait to be closed.
    pub(super) fn begin_commit_if_due(&mut self, now: Timestamp) -> Result<()> {
        if !self.may_commit() {
            return Ok(());
        }
        let suspended = self.tasks.values().any(|stage| matches!(stage, Stage::Suspended(_)));
        if !suspended && now < self.commit_due() && self.staged_bytes() < STAGED_BYTES_LIMIT {
            return Ok(());
        }
        if self.is_dirty() {
            self.phase = Phase::Draining;
            return self.advance_commit(now);
        }
        self.last_commit = now;
        self.close_suspended()
    }

    pub(super) fn staged_bytes(&mut self) -> usize {
        let running = self.tasks.values_mut().map(|stage| match stage {
            Stage::Running(task) | Stage::Suspended(task) => task.state().staged_bytes(),
            _ => 0,
        });
        running.sum()
    }

    /// Moves the commit on as far as it goes without waiting.
    pub(super) fn advance_commit(&mut self, now: Timestamp) -> Result<()> {
        if self.voided && matches!(self.phase, Phase::Processing | Phase::Draining) && !self.tasks.is_empty() {
            return self.abort(now, abortable("the membership is lost"));
        }
        match self.phase {
            Phase::Processing | Phase::CommittingOffsets(_) => Ok(()),
            Phase::Draining => self.send_offsets(now),
            Phase::Initialising
            | Phase::Beginning
            | Phase::SendingOffsets
            | Phase::CommittingTransaction
            | Phase::Aborting => match self.outlet.producer().outcome() {
                Some(outcome) => self.transaction_moved(now, outcome),
                None => Ok(()),
            },
        }
    }

    /// The positions of everything processed, once all of it is acknowledged.
    fn send_offsets(&mut self, now: Timestamp) -> Result<()> {
        if self.outlet.producer().backlog() > 0 || self.held || now < self.not_before {
            return Ok(());
        }
        let Some(lease) = self.lease.clone() else { return Ok(()) };
        self.failpoints.before_offsets();
        #[cfg(feature = "failpoints")]
        let lease = if self.failpoints.fresh_lease() { self.engine.board.lease().unwrap_or(lease) } else { lease };
        let offsets = self.positions();
        if self.transactional_id.is_some() {
            let group = self.engine.config.application_id.clone();
            self.outlet.producer().start(TransactionCall::SendOffsets { group, lease, offsets });
            self.phase = Phase::SendingOffsets;
        } else {
            let ticket = self.coordinator.request(GroupRequest::CommitOffsets { lease, offsets });
            self.phase = Phase::CommittingOffsets(ticket);
        }
        Ok(())
    }

    /// At least one position for every task that did anything: the broker fences a transaction by its offsets.
    fn positions(&self) -> Vec<(TopicPartition, OffsetAndMetadata)> {
        let mut positions = Vec::new();
        for stage in self.tasks.values() {
            let (Stage::Running(task) | Stage::Suspended(task)) = stage else { continue };
            if !task.is_dirty() {
                continue;
            }
            for input in task.inputs().iter().filter(|input| input.position() >= 0) {
                let offset = OffsetAndMetadata { offset: input.position(), metadata: String::new() };
                positions.push((input.partition().clone(), offset));
            }
        }
        positions
    }

    /// A transactional call has ended.
    fn transaction_moved(&mut self, now: Timestamp, outcome: crate::broker::Result<()>) -> Result<()> {
        match (&self.phase, outcome) {
            (Phase::Initialising, Ok(())) => self.begin(),
            (Phase::Initialising, Err(error)) if error.is_passing() => {
                tracing::warn!(event = "producer.waiting", worker = self.index, %error, "asking again");
                self.outlet.producer().start(TransactionCall::Init);
                Ok(())
            }
            (Phase::Initialising, Err(error)) => Err(error.into()),
            (Phase::Beginning, Ok(())) => {
                self.phase = Phase::Processing;
                Ok(())
            }
            (Phase::SendingOffsets, Ok(())) if self.voided => {
                self.abort(now, abortable("the membership was lost while positions were sent"))
            }
            (Phase::SendingOffsets, Ok(())) => {
                self.outlet.producer().start(TransactionCall::Commit);
                self.phase = Phase::CommittingTransaction;
                Ok(())
            }
            (Phase::CommittingTransaction, Ok(())) => {
                self.finish_commit(now)?;
                self.begin()
            }
            (Phase::Aborting, Ok(())) => {
                self.restart_tasks(now)?;
                self.begin()
            }
            (Phase::Aborting | Phase::Beginning, Err(error)) => {
                self.abort(now, BrokerError::new(ErrorClass::Fatal, error.message))
            }
            (_, Err(error)) => self.abort(now, error),
            (_, Ok(())) => Ok(()),
        }
    }

    /// The group has answered to the positions (at-least-once).
    pub(super) fn offsets_committed(&mut self, now: Timestamp, answer: Result<(), GroupError>) -> Result<()> {
        match answer {
            Ok(()) => {
                self.phase = Phase::Processing;
                self.finish_commit(now)
            }
            Err(GroupError::NotAuthorised) => Err(Error::Group(GroupError::NotAuthorised.to_string())),
            Err(error) => {
                // The next lease makes the same positions good; a lost membership comes as an order of its own.
                tracing::info!(event = "commit.postponed", worker = self.index, %error, "positions are sent again");
                self.phase = Phase::Draining;
                self.not_before = now.saturating_add(RETRY_MS);
                Ok(())
            }
        }
    }

    /// Positions are committed: the staged entries follow, with the changelog offsets that they correspond to.
    fn finish_commit(&mut self, now: Timestamp) -> Result<()> {
        count(&self.engine.board.commits, 1);
        for stage in self.tasks.values_mut() {
            if let Stage::Running(task) | Stage::Suspended(task) = stage {
                task.commit(&self.outlet)?;
            }
        }
        self.last_commit = now;
        self.close_suspended()
    }

    /// Opens the next transaction, with another producer if a request of this one may still be under way.
    fn begin(&mut self) -> Result<()> {
        if self.outlet.producer().tainted() {
            return self.recycle("a request of its last transaction may still be under way");
        }
        self.outlet.producer().start(TransactionCall::Begin);
        self.phase = Phase::Beginning;
        Ok(())
    }

    /// Gives up everything since the last commit; the tasks that stay begin again from what is committed.
    ///
    /// An error that would come again is the process's end: to try the same records for ever would hide it.
    pub(super) fn abort(&mut self, now: Timestamp, error: BrokerError) -> Result<()> {
        if error.is_permanent() {
            return Err(error.into());
        }
        let class = error.class;
        let producer_is_gone = matches!(class, ErrorClass::Fatal | ErrorClass::Fenced);
        if matches!(self.phase, Phase::Aborting) && !producer_is_gone {
            return Ok(());
        }
        tracing::warn!(event = "commit.aborted", worker = self.index, %error, "processing again from the last commit");
        count(&self.engine.board.aborts, 1);
        if class == ErrorClass::LeaseVoid {
            count(&self.engine.board.fenced, 1);
        }
        if self.transactional_id.is_some() && !producer_is_gone {
            self.outlet.producer().start(TransactionCall::Abort);
            self.phase = Phase::Aborting;
            return Ok(());
        }
        self.restart_tasks(now)?;
        if class == ErrorClass::Abortable && self.transactional_id.is_none() {
            self.phase = Phase::Processing;
            return Ok(());
        }
        self.recycle(&error.message)
    }

    /// Replaces the producer; for a transactional one the take-over of its id fences what the old one left.
    fn recycle(&mut self, reason: &str) -> Result<()> {
        tracing::warn!(event = "producer.recycled", worker = self.index, reason, "a new producer takes over");
        count(&self.engine.board.recycled, 1);
        let waker = self.inbox.waker();
        let (outlet, phase) = Self::outlet(&self.engine, self.index, self.transactional_id.as_deref(), waker)?;
        self.outlet = outlet;
        self.phase = phase;
        Ok(())
    }

    /// Hands the stores of suspended tasks over to be closed.
    fn close_suspended(&mut self) -> Result<()> {
        let closed = self.tasks.extract_if(.., |_, stage| matches!(stage, Stage::Suspended(_)));
        for (id, stage) in closed.collect::<Vec<_>>() {
            self.close(id, stage)?;
        }
        Ok(())
    }

    /// Takes every running task back to its last commit: it asks for its positions again, since what the broker
    /// made of the last transaction may be unknown here.
    fn restart_tasks(&mut self, now: Timestamp) -> Result<()> {
        self.voided = false;
        self.last_commit = now;
        self.close_suspended()?;
        let running = self.tasks.extract_if(.., |_, stage| matches!(stage, Stage::Running(_)));
        for (id, stage) in running.collect::<Vec<_>>() {
            let Stage::Running(task) = stage else { continue };
            let slots: Vec<_> = task.inputs().iter().map(|input| input.slot()).collect();
            self.consumer.unassign(&slots)?;
            let backend = Some(task.into_state().into_backend());
            self.enter(id, Stage::Created { backend, due: now });
        }
        Ok(())
    }

    pub(super) fn close(&mut self, id: crate::group::TaskId, stage: Stage) -> Result<()> {
        match stage {
            Stage::Running(task) | Stage::Suspended(task) => {
                let slots: Vec<_> = task.inputs().iter().map(|input| input.slot()).collect();
                self.consumer.unassign(&slots)?;
                let backend = task.into_state().into_backend();
                self.restorer.send(RestoreOrder::Close { task: id, backend });
            }
            Stage::Created { backend: Some(backend), .. } | Stage::Fetching { backend: Some(backend), .. } => {
                self.restorer.send(RestoreOrder::Close { task: id, backend });
            }
            Stage::Restoring { .. } => self.restorer.send(RestoreOrder::Cancel { task: id }),
            Stage::Created { backend: None, .. } | Stage::Fetching { backend: None, .. } => {}
        }
        self.status(id, None);
        Ok(())
    }
}

fn abortable(reason: &str) -> BrokerError {
    BrokerError::new(ErrorClass::Abortable, reason)
}
