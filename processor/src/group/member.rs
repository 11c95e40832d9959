//! The membership of one process: joins, heartbeats, rejoins, leaves.
//!
//! ```text
//!             Joined            Synced (Granted)         27, released, forced
//! Joining ───────────▶ Syncing ────────────────▶ Stable ─────────────────────▶ Joining
//!    ▲ 27, 79             │ 27 ▶ Joining            │
//!    │ nothing held       ▼ 22, 25, silence         ▼ 22, 25, silence
//!    └─────────────────── Void (Lost) ◀─────────────┘
//! ```
//!
//! Exactly-once leans on four rules kept here. A lease is granted only for a generation whose JoinGroup carried everything that the
//! workers have. What is assigned away stays claimed until they have released it. A lost membership is told before anything
//! else, and no JoinGroup follows before the workers hold nothing. No generation may have passed between two of ours: if one
//! did, it may have been formed without our claim, and that counts as a loss.

mod answers;

use std::collections::{BTreeSet, VecDeque};
use std::sync::Arc;

use super::holdings::Holdings;
use super::user_data::Subscription;
use super::{MemberEvent, TaskId, TaskPlan};
use crate::broker::{Coordinator, GroupError, GroupRequest, Lease, MemberAssignment, Ticket};
use crate::record::Timestamp;

/// While another round is expected, heartbeats tell of it this soon, ms.
const FOLLOW_UP_HEARTBEAT_MS: i64 = 5;
/// For this long after the assignment, ms; then at the usual pace again.
const FOLLOW_UP_MS: i64 = 1000;
/// First pause before a request is repeated, ms; doubled each time.
const RETRY_MS: i64 = 50;
/// Longest pause, ms.
const RETRY_AT_MOST_MS: i64 = 1000;

/// How a process takes part in its group.
#[derive(Clone, Debug, PartialEq, Eq)]
pub struct MemberSettings {
    /// Silence after which the coordinator takes the member for dead, ms.
    pub session_timeout_ms: i32,
    /// Between two heartbeats, ms; a third of the session timeout or less.
    pub heartbeat_interval_ms: i32,
    /// How long the others wait for this member to rejoin, ms: longer than the longest time between two steps.
    pub rebalance_timeout_ms: i32,
    /// Makes it a static member: a restart under the same id inside the session timeout moves nothing.
    pub instance_id: Option<String>,
    /// Its share of the work, compared with other members': its number of workers.
    pub capacity: u32,
    /// A UUID that names the process, for people.
    pub process_id: String,
}

/// A membership as people see it.
#[derive(Clone, Debug, PartialEq, Eq)]
pub struct MemberState {
    /// `joining`, `syncing`, `stable`, `lost`, `leaving` or `gone`.
    pub phase: &'static str,
    /// Given by the coordinator; empty before the first answer.
    pub member_id: String,
    /// The generation joined last.
    pub generation: Option<i32>,
    /// Whether this member computes the group's assignment.
    pub leads: bool,
    /// What it shall run.
    pub tasks: BTreeSet<TaskId>,
    /// What it shall not run any more and has not released yet.
    pub releasing: BTreeSet<TaskId>,
}

/// A request that is made again until it succeeds.
#[derive(Clone, Copy, Debug)]
enum Call {
    Due(Timestamp),
    Sent { ticket: Ticket, at: Timestamp },
}

impl Call {
    fn due(self) -> Timestamp {
        match self {
            Self::Due(at) => at,
            Self::Sent { .. } => Timestamp::MAX,
        }
    }

    /// When it was sent, if this is the answer to it.
    fn answered(self, ticket: Ticket) -> Option<Timestamp> {
        match self {
            Self::Sent { ticket: sent, at } if sent == ticket => Some(at),
            _ => None,
        }
    }

    fn send_if_due(&mut self, now: Timestamp, send: impl FnOnce() -> Ticket) {
        if self.due() <= now {
            *self = Self::Sent { ticket: send(), at: now };
        }
    }
}

#[derive(Debug)]
enum Phase {
    Joining(Call),
    Syncing {
        call: Call,
        lease: Lease,
        assignments: Vec<MemberAssignment>,
    },
    Stable {
        lease: Lease,
        since: Timestamp,
        follow_up: bool,
    },
    /// Lost: waits for the workers to drop everything.
    Void,
    Leaving(Call),
    Gone,
}

/// The membership of one process, without I/O: [`step`](Member::step) takes answers and sends what is due.
#[derive(Debug)]
pub struct Member {
    settings: MemberSettings,
    plan: Arc<TaskPlan>,
    /// Time of the last step.
    now: Timestamp,
    phase: Phase,
    heartbeat: Call,
    member_id: String,
    /// Joined last, without a break since. `None`: the next one is the first.
    generation: Option<i32>,
    leads: bool,
    holdings: Holdings,
    /// Whether the workers have a lease that they take for valid.
    leased: bool,
    holding: bool,
    /// When the latest request was sent that proved us alive to the coordinator.
    contact: Timestamp,
    retries: u32,
    /// Since when the coordinator has answered nothing but codes without a meaning here.
    refused_since: Option<Timestamp>,
    nonce: u64,
    leave: bool,
    events: VecDeque<MemberEvent>,
}

impl Member {
    /// A process that is no member yet; the first step joins.
    #[must_use]
    pub fn new(settings: MemberSettings, plan: Arc<TaskPlan>) -> Self {
        Self {
            settings,
            plan,
            now: Timestamp::MIN,
            phase: Phase::Joining(Call::Due(Timestamp::MIN)),
            heartbeat: Call::Due(Timestamp::MAX),
            member_id: String::new(),
            generation: None,
            leads: false,
            holdings: Holdings::default(),
            leased: false,
            holding: false,
            contact: Timestamp::MIN,
            retries: 0,
            refused_since: None,
            nonce: 0,
            leave: false,
            events: VecDeque::new(),
        }
    }

    /// Tells it before the first step which tasks have their state on this machine, so that it gets those again.
    #[must_use]
    pub fn remembering(mut self, tasks: BTreeSet<TaskId>) -> Self {
        self.holdings.remember(tasks);
        self
    }

    /// Takes the answers that have come, sends what is due, and says when to call again at the latest. Call it earlier when an
    /// answer has come and after [`acknowledge`](Self::acknowledge) or [`leave`](Self::leave); then drain [`events`](Self::events).
    pub fn step(&mut self, now: Timestamp, coordinator: &mut dyn Coordinator) -> Timestamp {
        self.now = self.now.max(now);
        while let Some((ticket, answer)) = coordinator.answer() {
            self.take(ticket, answer);
        }
        self.look_at_the_clock();
        self.look_at_the_workers();
        self.send(coordinator);
        self.next_step()
    }

    /// What has happened since the last call, in order. What a later event makes void is left out.
    pub fn events(&mut self) -> impl Iterator<Item = MemberEvent> {
        self.events.drain(..)
    }

    /// Says which tasks the workers hold: every task named by a `Granted` that was drained, until it is closed (committed or aborted).
    /// To be called when a `Granted` or a `Lost` has been carried out: after `Lost` nothing goes on before it is called with
    /// an empty set, and tasks that were assigned away reach their new owner only after it is called without them.
    pub fn acknowledge(&mut self, held: &BTreeSet<TaskId>) {
        self.holdings.acknowledge(held);
    }

    /// Ends the membership as soon as the workers hold nothing: a static member just stops, so that it may come back inside the
    /// session timeout; another leaves, and its tasks move at once. [`MemberEvent::Left`] tells the end.
    pub fn leave(&mut self) {
        self.leave = true;
    }

    /// For people.
    #[must_use]
    pub fn state(&self) -> MemberState {
        MemberState {
            phase: match self.phase {
                Phase::Joining(_) => "joining",
                Phase::Syncing { .. } => "syncing",
                Phase::Stable { .. } => "stable",
                Phase::Void => "lost",
                Phase::Leaving(_) => "leaving",
                Phase::Gone => "gone",
            },
            member_id: self.member_id.clone(),
            generation: self.generation,
            leads: self.leads,
            tasks: self.holdings.target().clone(),
            releasing: self.holdings.releasing().copied().collect(),
        }
    }

    fn look_at_the_clock(&mut self) {
        let silent = match self.phase {
            Phase::Joining(Call::Due(_)) => self.leased,
            Phase::Syncing { .. } | Phase::Stable { .. } => true,
            // A parked JoinGroup keeps the member alive at the coordinator, however long.
            Phase::Joining(Call::Sent { .. }) | Phase::Void | Phase::Leaving(_) | Phase::Gone => false,
        };
        if silent && self.session_end() <= self.now {
            self.lose(format!(
                "no answer to anything sent in the last {} ms (session.timeout.ms): the session has ended",
                self.settings.session_timeout_ms
            ));
        }
    }

    fn look_at_the_workers(&mut self) {
        if matches!(self.phase, Phase::Gone | Phase::Leaving(_)) {
            return;
        }
        if self.holdings.empty_handed() {
            if self.leave {
                return self.begin_to_leave();
            }
            if matches!(self.phase, Phase::Void) {
                self.phase = Phase::Joining(Call::Due(self.now));
            }
        }
        if let Phase::Stable { since, follow_up, .. } = self.phase {
            let overdue = since.saturating_add(self.settings.session_timeout_ms.into()) <= self.now;
            if self.holdings.released() {
                self.rejoin("tasks that were assigned away are released");
            } else if self.leads && follow_up && overdue {
                // Whoever had to release has died in between, or came back as a static member that knows nothing of it.
                self.rejoin("the round that was to follow has not come");
            }
        }
    }

    fn begin_to_leave(&mut self) {
        if self.settings.instance_id.is_some() || self.member_id.is_empty() {
            self.gone();
        } else {
            self.phase = Phase::Leaving(Call::Due(self.now));
        }
    }

    fn gone(&mut self) {
        tracing::info!(event = "member.left", member = %self.member_id, "left the group");
        self.stop(Phase::Gone);
        self.events.push_back(MemberEvent::Left);
    }

    /// Joins again in unbroken membership: what the workers have goes with it as our claim.
    fn rejoin(&mut self, reason: &str) {
        tracing::info!(event = "member.rejoining", member = %self.member_id, generation = self.generation, reason, "joins again");
        self.nonce = self.nonce.wrapping_add(1);
        self.heartbeat = Call::Due(Timestamp::MAX);
        self.phase = Phase::Joining(Call::Due(self.now));
    }

    /// The membership is over. With a lease outstanding nothing goes on before the workers hold nothing.
    fn lose(&mut self, reason: String) {
        tracing::warn!(event = "member.lost", member = %self.member_id, generation = self.generation, reason, "lost the membership");
        if self.leased {
            self.stop(Phase::Void);
            self.holdings.await_report();
            self.events.push_back(MemberEvent::Lost { reason });
        } else {
            let at = self.pause();
            self.stop(Phase::Joining(Call::Due(at)));
        }
    }

    fn fail(&mut self, reason: &str) {
        tracing::error!(event = "member.failed", member = %self.member_id, reason, "cannot be a member of this group");
        let leased = self.leased;
        self.stop(Phase::Gone);
        let reason = reason.to_owned();
        if leased {
            self.events.push_back(MemberEvent::Lost { reason: reason.clone() });
        }
        self.events.push_back(MemberEvent::Failed { reason });
    }

    /// Every lease is void from here on, and so is every event that still waits.
    fn stop(&mut self, phase: Phase) {
        self.phase = phase;
        self.heartbeat = Call::Due(Timestamp::MAX);
        self.generation = None;
        self.leads = false;
        (self.leased, self.holding) = (false, false);
        self.holdings.lose();
        self.nonce = self.nonce.wrapping_add(1);
        self.events.clear();
    }

    fn send(&mut self, coordinator: &mut dyn Coordinator) {
        let now = self.now;
        if let Phase::Joining(call) = self.phase
            && call.due() <= now
        {
            let request = self.join_request();
            self.phase = Phase::Joining(Call::Sent { ticket: coordinator.request(request), at: now });
        }
        match &mut self.phase {
            Phase::Syncing { call, lease, assignments } => {
                call.send_if_due(now, || {
                    coordinator.request(GroupRequest::Sync { lease: lease.clone(), assignments: assignments.clone() })
                });
            }
            Phase::Leaving(call) => call.send_if_due(now, || {
                coordinator.request(GroupRequest::Leave {
                    member_id: self.member_id.clone(),
                    instance_id: self.settings.instance_id.clone(),
                })
            }),
            _ => {}
        }
        if let Phase::Syncing { lease, .. } | Phase::Stable { lease, .. } = &self.phase {
            self.heartbeat.send_if_due(now, || coordinator.request(GroupRequest::Heartbeat { lease: lease.clone() }));
        }
    }

    fn join_request(&mut self) -> GroupRequest {
        let held = self.holdings.claim();
        let topics: BTreeSet<&str> = self.plan.subtopologies.iter().flat_map(|s| &s.topics).map(|t| &**t).collect();
        GroupRequest::Join {
            member_id: self.member_id.clone(),
            instance_id: self.settings.instance_id.clone(),
            session_timeout_ms: self.settings.session_timeout_ms,
            rebalance_timeout_ms: self.settings.rebalance_timeout_ms,
            topics: topics.into_iter().map(str::to_owned).collect(),
            user_data: Subscription {
                fingerprint: self.plan.fingerprint,
                capacity: self.settings.capacity,
                process_id: self.settings.process_id.clone(),
                previous: self.holdings.previous(),
                held,
                nonce: self.nonce,
            }
            .encode(),
        }
    }

    fn next_step(&self) -> Timestamp {
        let session: i64 = self.settings.session_timeout_ms.into();
        let idle = self.now.saturating_add(session);
        let due = match self.phase {
            Phase::Joining(Call::Due(at)) if self.leased => at.min(self.session_end()),
            Phase::Joining(call) | Phase::Leaving(call) => call.due(),
            Phase::Syncing { call, .. } => call.due().min(self.heartbeat.due()).min(self.session_end()),
            Phase::Stable { since, follow_up, .. } => {
                let overdue = if self.leads && follow_up { since.saturating_add(session) } else { idle };
                self.heartbeat.due().min(self.session_end()).min(overdue)
            }
            Phase::Void | Phase::Gone => idle,
        };
        due.min(idle).max(self.now)
    }

    /// When the coordinator may take us for dead, by our own clock.
    fn session_end(&self) -> Timestamp {
        self.contact.saturating_add(self.settings.session_timeout_ms.into())
    }

    fn heartbeat_interval(&self) -> i64 {
        let usual = self.settings.heartbeat_interval_ms.into();
        match self.phase {
            Phase::Stable { since, follow_up: true, .. } if self.now < since.saturating_add(FOLLOW_UP_MS) => {
                FOLLOW_UP_HEARTBEAT_MS.min(usual)
            }
            _ => usual,
        }
    }

    /// When to repeat what failed.
    fn retry_at(&mut self, error: &GroupError) -> Timestamp {
        if self.retries == 0 {
            tracing::warn!(event = "member.retrying", %error, "a group request failed and is made again");
        }
        self.pause()
    }

    fn pause(&mut self) -> Timestamp {
        let pause = RETRY_MS.checked_shl(self.retries.min(16)).unwrap_or(RETRY_AT_MOST_MS);
        self.retries = self.retries.saturating_add(1);
        self.now.saturating_add(pause.min(RETRY_AT_MOST_MS))
    }
}

#[cfg(test)]
mod tests;
