//! A worker: some tasks of a process, one consumer, one producer, one step function.
//!
//! A step hears orders and answers, moves the commit on, and processes what has been fetched. It never waits: what
//! takes time is a ticket. One transaction spans all tasks of the worker.

mod commit;
mod failpoint;
mod lifecycle;

use std::collections::{BTreeMap, BTreeSet};
use std::sync::Arc;

use headwater_changelog::Backend;

use crate::broker::{
    Consumer, ConsumerOptions, Coordinator, ErrorClass, Isolation, Lease, ProducerOptions, Ticket, TransactionCall,
    ride_out,
};
use crate::config::Guarantee;
use crate::error::{Error, Result};
use crate::group::TaskId;
use crate::record::Timestamp;
use crate::restore::RestoreOrder;
use crate::runtime::{Engine, Mailbox, Report, TaskStatus, count};
use crate::task::{Outlet, Task};
use crate::wake::Waker;
use commit::Phase;
use failpoint::Failpoints;
#[cfg(feature = "failpoints")]
pub(crate) use failpoint::setting;

/// Records that a task processes before the next one has its turn.
const RECORDS_PER_TURN: usize = 1000;
/// Records handed to the producer and not acknowledged, above which nothing more is processed.
const BACKLOG_LIMIT: usize = 30_000;

/// What a worker is told.
pub(crate) enum WorkerOrder {
    /// Commit under this lease, run exactly these tasks; report when the others are released.
    Granted { order: u64, lease: Lease, tasks: BTreeSet<TaskId> },
    /// Make no commit until a lease is granted.
    Hold,
    /// Every lease is void: abort, drop all tasks, report.
    Lost { order: u64 },
    /// Commit, release all tasks, report.
    Release { order: u64 },
    /// End.
    Stop,
    /// A task's stores are up to date, or cannot be.
    Restored { task: TaskId, attempt: u64, backend: Result<Box<dyn Backend>> },
}

/// Where a task stands with its worker.
enum Stage {
    /// Its committed positions are to be asked for, from this time on.
    Created { backend: Option<Box<dyn Backend>>, due: Timestamp },
    /// They have been asked for.
    Fetching { backend: Option<Box<dyn Backend>>, ticket: Ticket },
    /// Its stores are with the restorer; its inputs will be read from here.
    Restoring { starts: Vec<i64>, attempt: u64 },
    /// It processes records.
    Running(Box<Task>),
    /// It does no more, and is closed after the next commit.
    Suspended(Box<Task>),
}

/// One worker of a process.
pub(crate) struct Worker {
    engine: Arc<Engine>,
    index: usize,
    inbox: Mailbox<WorkerOrder>,
    crew: Mailbox<Report>,
    restorer: Mailbox<RestoreOrder>,
    consumer: Box<dyn Consumer>,
    coordinator: Box<dyn Coordinator>,
    outlet: Outlet,
    tasks: BTreeMap<TaskId, Stage>,
    // Who processed last, and room for the order in which tasks have their turns.
    last_turn: Option<TaskId>,
    turns: Vec<TaskId>,
    lease: Option<Lease>,
    held: bool,
    // The order that asks for a report once it is complied with.
    unsettled: Option<u64>,
    // The membership is lost: whatever is open is aborted and every task dropped.
    voided: bool,
    stopped: bool,
    transactional_id: Option<String>,
    phase: Phase,
    last_commit: Timestamp,
    // No commit is tried before this time: the group said "not now".
    not_before: Timestamp,
    attempts: u64,
    failpoints: Failpoints,
}

impl Worker {
    pub(crate) fn new(
        engine: Arc<Engine>,
        index: usize,
        inbox: Mailbox<WorkerOrder>,
        crew: Mailbox<Report>,
        restorer: Mailbox<RestoreOrder>,
        transactional_id: &str,
        now: Timestamp,
    ) -> Result<Self> {
        let config = &engine.config;
        let options = ConsumerOptions {
            client_id: format!("{}-{index}", config.application_id),
            isolation: match config.guarantee {
                Guarantee::AtLeastOnce => Isolation::ReadUncommitted,
                Guarantee::ExactlyOnce => Isolation::ReadCommitted,
            },
            queued_bytes: config.queued_bytes,
        };
        let consumer = engine.broker.consumer(&options, inbox.waker().clone())?;
        let coordinator = engine.broker.coordinator(&config.application_id, inbox.waker().clone())?;
        let transactional_id = (config.guarantee == Guarantee::ExactlyOnce).then(|| transactional_id.to_owned());
        let (outlet, phase) = Self::outlet(&engine, index, transactional_id.as_deref(), inbox.waker())?;
        Ok(Self {
            engine,
            index,
            inbox,
            crew,
            restorer,
            consumer,
            coordinator,
            outlet,
            tasks: BTreeMap::new(),
            last_turn: None,
            turns: Vec::new(),
            lease: None,
            held: false,
            unsettled: None,
            voided: false,
            stopped: false,
            transactional_id,
            phase,
            last_commit: now,
            not_before: Timestamp::MIN,
            attempts: 0,
            failpoints: Failpoints::from_environment(),
        })
    }

    /// A producer with the plan's topics. A transactional one first takes over its id.
    fn outlet(engine: &Engine, index: usize, transactional_id: Option<&str>, waker: &Waker) -> Result<(Outlet, Phase)> {
        let options = ProducerOptions {
            client_id: format!("{}-{index}", engine.config.application_id),
            transactional_id: transactional_id.map(str::to_owned),
            transaction_timeout: engine.config.transaction_timeout,
            linger: engine.config.linger,
        };
        let mut outlet = Outlet::new(engine.broker.producer(&options, waker.clone())?, &engine.outgoing)?;
        if transactional_id.is_none() {
            return Ok((outlet, Phase::Processing));
        }
        outlet.producer().start(TransactionCall::Init);
        Ok((outlet, Phase::Initialising))
    }

    /// Whether it has ended, as ordered.
    pub(crate) fn is_stopped(&self) -> bool {
        self.stopped
    }

    /// Does what there is to do; answers when it wants to run next, should nothing wake it.
    pub(crate) fn step(&mut self, now: Timestamp) -> Result<Timestamp> {
        self.engine.board.beat(self.index, now);
        ride_out(self.consumer.poll())?;
        let delivered = self.outlet.producer().poll();
        self.take_orders(now)?;
        if let Err(error) = delivered {
            // A new producer that is refused its id would be refused it again.
            let refused = matches!(self.phase, Phase::Initialising) && error.class == ErrorClass::Fatal;
            if refused {
                return Err(error.into());
            }
            self.abort(now, error)?;
        }
        self.take_answers(now)?;
        self.advance_commit(now)?;
        let mut busy = false;
        if self.phase.may_process() {
            self.start_tasks(now)?;
            busy = self.process(now)?;
        }
        if self.phase.may_process() {
            self.begin_commit_if_due(now)?;
        }
        self.settle();
        Ok(if busy { now } else { self.next_due(now) })
    }

    /// Lets each running task process what has been fetched for it, beginning after the one that had the last turn:
    /// where the producer is the bottleneck, the first tasks must not have all of it. Says whether there was anything.
    fn process(&mut self, now: Timestamp) -> Result<bool> {
        if !self.may_commit() && self.staged_bytes() >= commit::STAGED_BYTES_LIMIT {
            // Nothing can be made lasting now: more would only be held in memory. A lease wakes this worker.
            return Ok(false);
        }
        let mut busy = false;
        let mut failed = None;
        let last = self.last_turn;
        self.turns.clear();
        self.turns.extend(self.tasks.keys().filter(|id| Some(**id) > last));
        self.turns.extend(self.tasks.keys().filter(|id| Some(**id) <= last));
        for id in &self.turns {
            let Some(Stage::Running(task)) = self.tasks.get_mut(id) else { continue };
            for input in task.inputs_mut() {
                if input.is_empty()
                    && let Some(batch) = ride_out(self.consumer.fetch(input.slot(), RECORDS_PER_TURN))?.flatten()
                {
                    busy = true;
                    input.feed(batch);
                }
            }
            if task.inputs().iter().all(|input| input.is_empty()) {
                continue;
            }
            if self.outlet.producer().backlog() > BACKLOG_LIMIT {
                // Acknowledgements wake this worker.
                return Ok(false);
            }
            let done = match task.process(&mut self.outlet, RECORDS_PER_TURN) {
                Ok(done) => done,
                // The producer has learnt that its transaction, or its id, is lost.
                Err(Error::Broker(error)) if !error.is_permanent() => {
                    failed = Some(error);
                    break;
                }
                Err(error) => return Err(error),
            };
            self.last_turn = Some(*id);
            count(&self.engine.board.processed, done as u64);
            count(&self.engine.board.dropped_null_key, task.take_dropped().null_key);
            busy = true;
        }
        if let Some(error) = failed {
            self.abort(now, error)?;
            return Ok(false);
        }
        Ok(busy)
    }

    fn next_due(&self, now: Timestamp) -> Timestamp {
        let commit = if self.phase.waits_for_acknowledgements() {
            // A pause that the group asked for ends by itself; acknowledgements and leases wake the worker.
            if self.not_before > now { self.not_before } else { Timestamp::MAX }
        } else if self.phase.may_process() && self.voided && !self.tasks.is_empty() {
            now
        } else if self.phase.may_process() && self.may_commit() && self.is_dirty() {
            self.commit_due().max(now.saturating_add(1))
        } else {
            Timestamp::MAX
        };
        let created = self.tasks.values().filter_map(|stage| match stage {
            Stage::Created { due, .. } if self.phase.may_process() => Some(*due),
            _ => None,
        });
        created.min().unwrap_or(Timestamp::MAX).min(commit)
    }

    /// Whether there is a lease to commit under.
    fn may_commit(&self) -> bool {
        self.lease.is_some() && !self.held
    }

    fn is_dirty(&self) -> bool {
        self.tasks
            .values()
            .any(|stage| matches!(stage, Stage::Running(task) | Stage::Suspended(task) if task.is_dirty()))
    }

    /// Tells the crew once the last order is complied with.
    fn settle(&mut self) {
        let releasing = self.tasks.values().any(|stage| matches!(stage, Stage::Suspended(_)));
        if releasing || !self.phase.may_process() {
            return;
        }
        if let Some(order) = self.unsettled.take() {
            let held = self.tasks.keys().copied().collect();
            self.crew.send(Report::Settled { worker: self.index, order, held });
        }
    }

    fn status(&self, task: TaskId, status: Option<TaskStatus>) {
        self.engine.board.task(task, status);
    }

    fn missing(task: TaskId) -> Error {
        Error::Engine(format!("task {task} is not of this plan"))
    }
}
