//! A process with one member and workers that count, per task, from the last committed position on.

use std::collections::{BTreeMap, BTreeSet, VecDeque};
use std::sync::Arc;

use super::wire::Wire;
use super::{GROUP, HEARTBEAT_MS, REBALANCE_MS, SESSION_MS, Shared};
use crate::broker::{Broker, Coordinator, GroupRequest, Lease, OffsetAndMetadata};
use crate::group::{Member, MemberEvent, MemberSettings, TaskId};
use crate::record::{Timestamp, TopicPartition};
use crate::wake::Waker;

/// Between two commits of a worker, ms.
const COMMIT_MS: i64 = 60;

#[derive(Clone, Copy, Debug, PartialEq, Eq)]
enum Life {
    Running,
    Leaving,
    /// Killed, left or failed.
    Over,
}

pub(super) struct Process {
    pub(super) member: Member,
    pub(super) counts: BTreeMap<&'static str, u32>,
    shared: Shared,
    wire: Wire,
    /// Commits go straight to the coordinator: what is checked is whom it accepts.
    commits: Box<dyn Coordinator>,
    instance: Option<String>,
    life: Life,
    /// As by SIGSTOP: nothing runs before.
    stopped_until: Timestamp,
    next_step: Timestamp,
    next_commit: Timestamp,
    lease: Option<Lease>,
    hold: bool,
    /// Position reached, by task.
    running: BTreeMap<TaskId, i64>,
    /// And when they will be closed.
    releasing: BTreeMap<TaskId, (i64, Timestamp)>,
    /// On their way from the member to the workers.
    inbox: VecDeque<(Timestamp, MemberEvent)>,
}

impl Process {
    pub(super) fn new(shared: &Shared, number: u64, instance: Option<String>, now: Timestamp) -> Self {
        let settings = MemberSettings {
            session_timeout_ms: i32::try_from(SESSION_MS).unwrap(),
            heartbeat_interval_ms: i32::try_from(HEARTBEAT_MS).unwrap(),
            rebalance_timeout_ms: i32::try_from(REBALANCE_MS).unwrap(),
            instance_id: instance.clone(),
            capacity: 1,
            process_id: format!("process-{number}"),
        };
        Self {
            member: Member::new(settings, Arc::clone(&shared.plan)),
            counts: BTreeMap::new(),
            wire: Wire::new(shared, now),
            commits: shared.broker.coordinator(GROUP, Waker::new()).unwrap(),
            shared: shared.clone(),
            instance,
            life: Life::Running,
            stopped_until: now,
            next_step: now,
            next_commit: now,
            lease: None,
            hold: false,
            running: BTreeMap::new(),
            releasing: BTreeMap::new(),
            inbox: VecDeque::new(),
        }
    }

    pub(super) fn alive(&self) -> bool {
        self.life != Life::Over
    }

    /// Whether it will be there in the end.
    pub(super) fn stays(&self) -> bool {
        self.life == Life::Running
    }

    /// What the workers commit under, however void it is by now.
    pub(super) fn lease(&self) -> Option<&Lease> {
        self.lease.as_ref()
    }

    pub(super) fn held(&self) -> Vec<TaskId> {
        self.running.keys().chain(self.releasing.keys()).copied().collect()
    }

    pub(super) fn has_joined_as(&self, instance: &Option<String>) -> bool {
        self.instance == *instance && !self.member.state().member_id.is_empty()
    }

    pub(super) fn leave(&mut self) {
        if self.life == Life::Running {
            self.life = Life::Leaving;
            self.next_step = Timestamp::MIN;
        }
    }

    /// Ends it at once, with everything in its hands. Gives its static id.
    pub(super) fn kill(&mut self) -> Option<String> {
        self.life = Life::Over;
        self.instance.clone()
    }

    pub(super) fn stop_until(&mut self, until: Timestamp) {
        self.stopped_until = until;
    }

    pub(super) fn due(&self) -> Timestamp {
        if self.life == Life::Over {
            return self.wire.due_outbound();
        }
        let inbox = self.inbox.front().map(|(at, _)| *at);
        let closing = self.releasing.values().map(|(_, at)| *at).min().filter(|_| !self.hold);
        let own = [Some(self.next_step), Some(self.next_commit), inbox, closing];
        let own = own.into_iter().flatten().min().unwrap_or(Timestamp::MAX).min(self.wire.due());
        own.max(self.stopped_until).min(self.wire.due_outbound())
    }

    pub(super) fn run(&mut self, now: Timestamp) {
        self.wire.pump(now);
        if self.life == Life::Over || now < self.stopped_until {
            return;
        }
        // After a stop the workers may come first, with a lease that is long void.
        if self.shared.dice.roll(2) == 0 {
            self.work(now);
            self.step(now);
        } else {
            self.step(now);
            self.work(now);
        }
    }

    fn step(&mut self, now: Timestamp) {
        self.next_step = self.member.step(now, &mut self.wire);
        self.wire.pump(now);
        let events: Vec<MemberEvent> = self.member.events().collect();
        for event in events {
            // In order, though each may take its time.
            let not_before = self.inbox.back().map_or(now, |(at, _)| *at);
            self.inbox.push_back((not_before.max(now + self.shared.dice.ms(40)), event));
        }
    }

    fn work(&mut self, now: Timestamp) {
        while self.inbox.front().is_some_and(|(at, _)| *at <= now) {
            if let Some((_, event)) = self.inbox.pop_front() {
                self.carry_out(now, event);
            }
        }
        if self.life == Life::Leaving && !self.hold && !self.running.is_empty() {
            self.release(now, |_| true);
        }
        if !self.hold {
            self.close(now);
            if self.next_commit <= now {
                self.next_commit = now + COMMIT_MS;
                for (task, position) in std::mem::take(&mut self.running) {
                    let position = if self.commit(task, position + 1) { position + 1 } else { self.committed(task) };
                    self.running.insert(task, position);
                }
            }
        } else {
            self.next_commit = self.next_commit.max(now + 1);
        }
        if self.life == Life::Leaving && self.all_held().is_empty() {
            self.acknowledge();
            self.member.leave();
        }
    }

    fn carry_out(&mut self, now: Timestamp, event: MemberEvent) {
        match event {
            MemberEvent::Granted { lease, tasks } => {
                self.count("granted");
                self.lease = Some(lease);
                self.hold = false;
                self.release(now, |task| !tasks.contains(task));
                for task in tasks {
                    let position = match self.releasing.remove(&task) {
                        Some((position, _)) => position,
                        None => self.running.get(&task).copied().unwrap_or_else(|| self.committed(task)),
                    };
                    self.running.insert(task, position);
                }
            }
            MemberEvent::Hold => self.hold = true,
            MemberEvent::Lost { reason } => {
                self.count("lost");
                if reason.contains("in between") {
                    self.count("gap");
                }
                (self.lease, self.hold) = (None, false);
                self.running.clear();
                self.releasing.clear();
            }
            MemberEvent::Left => self.life = Life::Over,
            MemberEvent::Failed { .. } => {
                self.count("failed");
                self.life = Life::Over;
            }
        }
        self.acknowledge();
    }

    fn release(&mut self, now: Timestamp, which: impl Fn(&TaskId) -> bool) {
        let tasks: Vec<TaskId> = self.running.keys().copied().filter(which).collect();
        for task in tasks {
            if let Some(position) = self.running.remove(&task) {
                self.releasing.insert(task, (position, now + self.shared.dice.ms(200)));
            }
        }
    }

    /// The last commit of what is released, accepted or not.
    fn close(&mut self, now: Timestamp) {
        let ready: Vec<TaskId> =
            self.releasing.iter().filter(|(_, (_, at))| *at <= now).map(|(task, _)| *task).collect();
        for task in &ready {
            if let Some((position, _)) = self.releasing.remove(task) {
                self.commit(*task, position + 1);
                self.count("released");
            }
        }
        if !ready.is_empty() {
            self.acknowledge();
        }
    }

    /// What the workers have, and what they have been told to start.
    fn all_held(&self) -> BTreeSet<TaskId> {
        let mut held: BTreeSet<TaskId> = self.held().into_iter().collect();
        for (_, event) in &self.inbox {
            if let MemberEvent::Granted { tasks, .. } = event {
                held.extend(tasks);
            }
        }
        held
    }

    fn acknowledge(&mut self) {
        self.member.acknowledge(&self.all_held());
        self.next_step = Timestamp::MIN;
    }

    fn committed(&self, task: TaskId) -> i64 {
        self.shared.broker.committed(GROUP, &partition(task)).map_or(0, |found| found.offset)
    }

    /// Commits a position; if it is accepted nobody else may have committed since the position before.
    fn commit(&mut self, task: TaskId, position: i64) -> bool {
        let Some(lease) = self.lease.clone() else { return false };
        let offset = OffsetAndMetadata { offset: position, metadata: String::new() };
        self.commits.request(GroupRequest::CommitOffsets { lease, offsets: vec![(partition(task), offset)] });
        let accepted = matches!(self.commits.answer(), Some((_, Ok(_))));
        if accepted {
            let before = self.shared.committed.lock().unwrap().insert(task, position).unwrap_or(0);
            assert_eq!(position, before + 1, "a commit of {task} was accepted on top of somebody else's");
        }
        self.count(if accepted { "accepted" } else { "refused" });
        accepted
    }

    fn count(&mut self, what: &'static str) {
        *self.counts.entry(what).or_default() += 1;
    }
}

fn partition(task: TaskId) -> TopicPartition {
    TopicPartition::new(format!("in-{}", task.subtopology), task.partition)
}
