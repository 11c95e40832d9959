//! The crew of a process: its membership, and the workers that its tasks are spread over.

use std::collections::BTreeSet;
use std::sync::Arc;

use super::engine::Engine;
use super::mailbox::Mailbox;
use super::placement::Placement;
use crate::broker::{Coordinator, Lease};
use crate::config::{millis, millis_i32};
use crate::error::{Error, Result};
use crate::group::{Member, MemberEvent, MemberSettings, TaskId};
use crate::record::Timestamp;
use crate::worker::WorkerOrder;

/// How long a process that has failed may take to leave its group, ms.
const LEAVE_MS: i64 = 5_000;
/// A step so long after the last one, ms, tells that the process was paused: the thread sleeps a second at most.
const PAUSE_MS: i64 = 3_000;

/// What the crew is told.
pub(crate) enum Report {
    /// A worker has complied with an order and holds these tasks.
    Settled { worker: usize, order: u64, held: BTreeSet<TaskId> },
    /// A worker's thread has ended.
    Ended { worker: usize },
    /// A part of the process cannot go on.
    Failed { error: Error },
    /// Commit, release everything, leave.
    Shutdown,
    /// End without committing: what is open is left as a crash would leave it.
    Abandon,
}

/// How far the crew is.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
enum Stage {
    Working,
    /// The workers commit and release all tasks.
    Releasing,
    /// The workers' threads are ending.
    Ending,
    /// The group is told; until this time at the latest.
    Leaving {
        until: Timestamp,
    },
    Done,
}

/// Spreads tasks over workers and speaks for them to the group.
pub(crate) struct Crew {
    engine: Arc<Engine>,
    inbox: Mailbox<Report>,
    workers: Vec<Mailbox<WorkerOrder>>,
    coordinator: Box<dyn Coordinator>,
    member: Member,
    placement: Placement,
    lease: Option<Lease>,
    order: u64,
    // By worker: the last order it has complied with, what it holds, whether its thread has ended.
    settled: Vec<(u64, BTreeSet<TaskId>)>,
    ended: Vec<bool>,
    acknowledged: u64,
    stage: Stage,
    // The member has given up: there is no group to leave.
    expelled: bool,
    failure: Option<Error>,
    // When it took its last step, and when it last came back from a pause of the whole process.
    stepped: Timestamp,
    resumed: Timestamp,
}

impl Crew {
    pub(crate) fn new(
        engine: Arc<Engine>,
        inbox: Mailbox<Report>,
        workers: Vec<Mailbox<WorkerOrder>>,
        process_id: String,
    ) -> Result<Self> {
        let config = &engine.config;
        let settings = MemberSettings {
            session_timeout_ms: millis_i32(config.session_timeout),
            heartbeat_interval_ms: millis_i32(config.heartbeat_interval),
            rebalance_timeout_ms: millis_i32(config.rebalance_timeout),
            instance_id: config.instance_id.clone(),
            capacity: u32::try_from(config.threads).unwrap_or(u32::MAX),
            process_id,
        };
        let coordinator = engine.broker.coordinator(&config.application_id, inbox.waker().clone())?;
        let member = Member::new(settings, Arc::clone(&engine.plan));
        let count = workers.len();
        Ok(Self {
            engine,
            inbox,
            workers,
            coordinator,
            member,
            placement: Placement::new(count),
            lease: None,
            order: 0,
            settled: vec![(0, BTreeSet::new()); count],
            ended: vec![false; count],
            acknowledged: 0,
            stage: Stage::Working,
            expelled: false,
            failure: None,
            stepped: Timestamp::MIN,
            resumed: Timestamp::MIN,
        })
    }

    /// Whether everything has ended.
    pub(crate) fn is_done(&self) -> bool {
        self.stage == Stage::Done
    }

    /// Why it ended, if not because it was told to.
    pub(crate) fn failure(self) -> Option<Error> {
        self.failure
    }

    /// Does what there is to do; answers when it wants to run next, should nothing wake it.
    pub(crate) fn step(&mut self, now: Timestamp) -> Timestamp {
        while let Some(report) = self.inbox.take() {
            self.hear(report);
        }
        self.look_after(now);
        self.acknowledge();
        if self.stage == Stage::Ending && self.ended.iter().all(|ended| *ended) {
            self.member.acknowledge(&BTreeSet::new());
            self.member.leave();
            self.stage =
                if self.expelled { Stage::Done } else { Stage::Leaving { until: now.saturating_add(LEAVE_MS) } };
        }
        let due = self.member.step(now, &mut *self.coordinator);
        let events: Vec<_> = self.member.events().collect();
        for event in events {
            self.follow(event);
        }
        match self.stage {
            Stage::Leaving { until } if now >= until => {
                tracing::warn!(
                    event = "member.left_unheard",
                    "the group was not told; it will notice by the session timeout"
                );
                self.stage = Stage::Done;
                now
            }
            Stage::Leaving { until } => due.min(until),
            _ => due,
        }
    }

    fn hear(&mut self, report: Report) {
        match report {
            Report::Settled { worker, order, held } => {
                if let Some(settled) = self.settled.get_mut(worker) {
                    *settled = (order, held);
                }
            }
            Report::Ended { worker } => {
                if let Some(ended) = self.ended.get_mut(worker) {
                    *ended = true;
                }
            }
            Report::Failed { error } => {
                tracing::error!(event = "process.failed", %error, "the process stops");
                self.failure.get_or_insert(error);
                self.end();
            }
            Report::Shutdown if self.stage == Stage::Working => {
                self.stage = Stage::Releasing;
                self.command(|order| WorkerOrder::Release { order });
            }
            Report::Abandon => self.end(),
            Report::Shutdown => {}
        }
    }

    /// Heartbeats come from this thread and would hide a worker that is stuck, in user code for instance. Its
    /// tasks are somebody else's to run, so the process leaves. A worker is not to blame for the time in which this
    /// thread took no step either: then the whole process stood still.
    fn look_after(&mut self, now: Timestamp) {
        if now.saturating_sub(self.stepped) > PAUSE_MS {
            self.resumed = now;
        }
        self.stepped = now;
        let patience = millis(self.engine.config.rebalance_timeout);
        let awake = now.saturating_sub(self.resumed);
        let silent = |worker: &usize| self.engine.board.silence(*worker, now).min(awake) > patience;
        let ended = |worker: usize| self.ended.get(worker).copied().unwrap_or(true);
        let stuck = (0..self.workers.len()).find(|worker| !ended(*worker) && silent(worker));
        if let Some(worker) = stuck
            && matches!(self.stage, Stage::Working | Stage::Releasing | Stage::Ending)
        {
            let error = Error::Engine(format!(
                "worker {worker} has taken no step for more than max.poll.interval.ms = {patience}: is user code stuck?"
            ));
            self.hear(Report::Failed { error });
            // It cannot be waited for.
            self.hear(Report::Ended { worker });
        }
    }

    fn end(&mut self) {
        if matches!(self.stage, Stage::Working | Stage::Releasing) {
            self.stage = Stage::Ending;
            for worker in &self.workers {
                worker.send(WorkerOrder::Stop);
            }
        }
    }

    /// Gives every worker an order of the same number.
    fn command(&mut self, make: impl Fn(u64) -> WorkerOrder) {
        self.order = self.order.saturating_add(1);
        for worker in &self.workers {
            worker.send(make(self.order));
        }
    }

    /// Once all workers have complied with the newest order, the group may know what is still held.
    fn acknowledge(&mut self) {
        let complied = self.settled.iter().all(|(order, _)| *order == self.order);
        if !complied || self.acknowledged == self.order {
            return;
        }
        self.acknowledged = self.order;
        let held: BTreeSet<TaskId> = self.settled.iter().flat_map(|(_, held)| held).copied().collect();
        self.placement.released(&held);
        self.member.acknowledge(&held);
        if self.stage == Stage::Releasing && held.is_empty() {
            self.end();
        }
    }

    fn follow(&mut self, event: MemberEvent) {
        match event {
            MemberEvent::Granted { lease, tasks } => {
                #[cfg(feature = "failpoints")]
                self.engine.board.set_lease(&lease);
                self.lease = Some(lease.clone());
                let tasks = if self.stage == Stage::Working { tasks } else { BTreeSet::new() };
                self.placement.assign(tasks);
                self.order = self.order.saturating_add(1);
                for (worker, index) in self.workers.iter().zip(0..) {
                    let tasks = self.placement.of(index);
                    worker.send(WorkerOrder::Granted { order: self.order, lease: lease.clone(), tasks });
                }
            }
            MemberEvent::Hold => {
                for worker in &self.workers {
                    worker.send(WorkerOrder::Hold);
                }
            }
            MemberEvent::Lost { reason } => {
                tracing::warn!(event = "member.lost", reason, "every lease is void");
                self.lease = None;
                self.placement.clear();
                self.command(|order| WorkerOrder::Lost { order });
                #[cfg(feature = "failpoints")]
                if crate::worker::setting("member.rejoin").as_deref() == Some("unacknowledged") {
                    self.member.acknowledge(&BTreeSet::new());
                }
            }
            MemberEvent::Left => self.stage = Stage::Done,
            MemberEvent::Failed { reason } => {
                self.expelled = true;
                self.inbox.send(Report::Failed { error: Error::Group(reason) });
            }
        }
    }

    /// Whether the process belongs to its group.
    pub(crate) fn is_member(&self) -> bool {
        self.lease.is_some()
    }
}
