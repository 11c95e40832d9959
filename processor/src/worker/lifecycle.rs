//! How tasks come to a worker and go: orders, committed positions, restored stores.

use std::collections::BTreeSet;

use headwater_changelog::{Backend, State};

use super::{Stage, Worker, WorkerOrder};
use crate::broker::{BEGINNING, FetchedOffset, GroupAnswer, GroupError, GroupRequest};
use crate::error::{Error, Result};
use crate::group::TaskId;
use crate::record::{Timestamp, TopicPartition};
use crate::restore::{Request, RestoreOrder};
use crate::runtime::TaskStatus;
use crate::task::{Input, Task};
use crate::worker::commit::Phase;

/// Pause while an open transaction holds positions, ms: markers usually follow within a few.
const UNSTABLE_MS: i64 = 5;
/// Pause after any other refusal, ms.
const RETRY_MS: i64 = 200;

impl Worker {
    /// Hears what the crew and the restorer have to say.
    pub(super) fn take_orders(&mut self, now: Timestamp) -> Result<()> {
        while let Some(order) = self.inbox.take() {
            match order {
                WorkerOrder::Granted { order, lease, tasks } => {
                    self.lease = Some(lease);
                    self.held = false;
                    // What was open under a lost lease is aborted first, whatever the group says since.
                    let lost_before = self.voided && !self.tasks.is_empty();
                    self.voided = lost_before && !self.failpoints.fresh_lease();
                    self.unsettled = Some(order);
                    self.keep_only(&tasks)?;
                    for task in tasks {
                        if !self.tasks.contains_key(&task) {
                            self.enter(task, Stage::Created { backend: None, due: now });
                        }
                    }
                }
                WorkerOrder::Hold => self.held = true,
                WorkerOrder::Lost { order } => {
                    self.lease = None;
                    self.voided = true;
                    self.unsettled = Some(order);
                    self.keep_only(&BTreeSet::new())?;
                }
                WorkerOrder::Release { order } => {
                    self.unsettled = Some(order);
                    self.keep_only(&BTreeSet::new())?;
                }
                WorkerOrder::Restored { task, attempt, backend } => self.restored(task, attempt, backend)?,
                WorkerOrder::Stop => self.stopped = true,
            }
        }
        Ok(())
    }

    /// Suspends the running tasks that are not among `kept`, and drops those that have not begun.
    fn keep_only(&mut self, kept: &BTreeSet<TaskId>) -> Result<()> {
        let ids: Vec<TaskId> = self.tasks.keys().copied().collect();
        for id in ids {
            let Some(stage) = self.tasks.remove(&id) else { continue };
            match (stage, kept.contains(&id)) {
                (Stage::Suspended(task), true) => self.enter(id, Stage::Running(task)),
                (Stage::Running(task) | Stage::Suspended(task), false) => self.enter(id, Stage::Suspended(task)),
                (stage, true) => {
                    self.tasks.insert(id, stage);
                }
                (stage, false) => self.close(id, stage)?,
            }
        }
        Ok(())
    }

    /// Puts a task into a stage.
    pub(super) fn enter(&mut self, id: TaskId, stage: Stage) {
        let status = match &stage {
            Stage::Created { .. } | Stage::Fetching { .. } => TaskStatus::Created,
            Stage::Restoring { .. } => TaskStatus::Restoring,
            Stage::Running(_) => TaskStatus::Running,
            Stage::Suspended(_) => TaskStatus::Suspended,
        };
        self.status(id, Some(status));
        self.tasks.insert(id, stage);
    }

    /// Asks for the committed positions of new tasks.
    pub(super) fn start_tasks(&mut self, now: Timestamp) -> Result<()> {
        let due = |stage: &Stage| matches!(stage, Stage::Created { due, .. } if *due <= now);
        let ids: Vec<_> = self.tasks.iter().filter(|(_, stage)| due(stage)).map(|(id, _)| *id).collect();
        for id in ids {
            if let Some(Stage::Created { backend, .. }) = self.tasks.remove(&id) {
                let partitions = self.engine.inputs(id);
                if partitions.is_empty() {
                    return Err(Self::missing(id));
                }
                let ticket = self.coordinator.request(GroupRequest::FetchOffsets { partitions });
                self.enter(id, Stage::Fetching { backend, ticket });
            }
        }
        Ok(())
    }

    /// Takes the coordinator's answers.
    pub(super) fn take_answers(&mut self, now: Timestamp) -> Result<()> {
        while let Some((ticket, answer)) = self.coordinator.answer() {
            if matches!(&self.phase, Phase::CommittingOffsets(sent) if *sent == ticket) {
                self.offsets_committed(now, answer.map(|_| ()))?;
                continue;
            }
            let asked = self
                .tasks
                .iter()
                .find(|(_, stage)| matches!(stage, Stage::Fetching { ticket: sent, .. } if *sent == ticket));
            let Some(id) = asked.map(|(id, _)| *id) else { continue };
            let Some(Stage::Fetching { backend, .. }) = self.tasks.remove(&id) else { continue };
            self.positions_fetched(now, id, backend, answer)?;
        }
        Ok(())
    }

    fn positions_fetched(
        &mut self,
        now: Timestamp,
        id: TaskId,
        backend: Option<Box<dyn Backend>>,
        answer: Result<GroupAnswer, GroupError>,
    ) -> Result<()> {
        match answer {
            Ok(GroupAnswer::Offsets(offsets)) => {
                let starts = self.engine.inputs(id).iter().map(|partition| start_of(partition, &offsets)).collect();
                // The stores come after the positions: no transaction that is still open can then hold a change
                // of the changelog below the end that the restorer sees.
                self.attempts = self.attempts.saturating_add(1);
                let attempt = self.attempts;
                self.restorer.send(RestoreOrder::Restore(Request { task: id, worker: self.index, attempt, backend }));
                self.enter(id, Stage::Restoring { starts, attempt });
            }
            Ok(answer) => return Err(Error::Engine(format!("asked for positions, got {answer:?}"))),
            Err(GroupError::NotAuthorised) => return Err(Error::Group(GroupError::NotAuthorised.to_string())),
            Err(error) => {
                let pause = if error == GroupError::UnstableOffsets { UNSTABLE_MS } else { RETRY_MS };
                tracing::debug!(event = "task.positions_postponed", task = %id, %error);
                self.enter(id, Stage::Created { backend, due: now.saturating_add(pause) });
            }
        }
        Ok(())
    }

    /// A task's stores are up to date: it can run.
    fn restored(&mut self, id: TaskId, attempt: u64, backend: Result<Box<dyn Backend>>) -> Result<()> {
        let starts = match self.tasks.remove(&id) {
            Some(Stage::Restoring { starts, attempt: current }) if current == attempt => starts,
            other => {
                // It was given up meanwhile, and may have been given back since: the restorer closes it in turn.
                if let Some(stage) = other {
                    self.tasks.insert(id, stage);
                }
                if let Ok(backend) = backend {
                    self.restorer.send(RestoreOrder::Close { task: id, backend });
                }
                return Ok(());
            }
        };
        let backend = backend?;
        let assigned: Vec<_> = self.engine.inputs(id).into_iter().zip(starts).collect();
        let slots = self.consumer.assign(&assigned)?;
        let inputs = assigned.into_iter().zip(slots);
        let inputs = inputs.map(|((partition, start), slot)| Input::new(partition, slot, start)).collect();
        let subtopology = self.engine.subtopology(id).ok_or_else(|| Self::missing(id))?;
        let state = State::new(backend, self.engine.config.cache_bytes);
        let task = Task::new(id, &self.engine.topology, subtopology, inputs, state)?;
        tracing::info!(event = "task.running", worker = self.index, task = %id);
        self.enter(id, Stage::Running(Box::new(task)));
        Ok(())
    }
}

/// Where to begin: at the committed position, or at the first record.
fn start_of(partition: &TopicPartition, offsets: &[FetchedOffset]) -> i64 {
    let found = offsets.iter().find(|(fetched, _)| fetched == partition);
    found.and_then(|(_, offset)| offset.as_ref()).map_or(BEGINNING, |offset| offset.offset)
}
