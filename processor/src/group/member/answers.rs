//! What the coordinator's answers mean to a member.

use std::collections::BTreeSet;

use super::{Call, Member, Phase};
use crate::broker::{GroupAnswer, GroupError, Joined, Lease, Ticket};
use crate::group::MemberEvent;
use crate::group::leader::lead;
use crate::group::user_data::AssignedTasks;
use crate::record::Timestamp;

impl Member {
    /// Hands an answer to whatever asked for it.
    pub(super) fn take(&mut self, ticket: Ticket, answer: Result<GroupAnswer, GroupError>) {
        if answer.is_ok() {
            self.retries = 0;
            self.refused_since = None;
        }
        if let Some(sent) = self.heartbeat.answered(ticket) {
            return self.on_heartbeat(sent, answer);
        }
        // An answer to a request that was given up finds no taker and is dropped.
        match &self.phase {
            Phase::Joining(call) if call.answered(ticket).is_some() => self.on_join(answer),
            Phase::Syncing { call, lease, .. } => {
                if let Some(sent) = call.answered(ticket) {
                    let lease = lease.clone();
                    self.on_sync(sent, lease, answer);
                }
            }
            Phase::Leaving(call) if call.answered(ticket).is_some() => self.on_leave(answer),
            _ => {}
        }
    }

    fn on_join(&mut self, answer: Result<GroupAnswer, GroupError>) {
        match answer {
            Ok(GroupAnswer::Joined(joined)) => self.joined(joined),
            Ok(other) => self.fail(&format!("the coordinator answered JoinGroup with {other:?}")),
            Err(GroupError::MemberIdRequired(id)) if !self.leased => {
                self.member_id = id;
                self.phase = Phase::Joining(Call::Due(self.now));
            }
            Err(error) => self.refused_call(&error),
        }
    }

    fn joined(&mut self, joined: Joined) {
        let follows = match self.generation {
            // The same again: an unchanged JoinGroup is answered without a round.
            Some(last) => joined.generation == last || Some(joined.generation) == last.checked_add(1),
            None => true,
        };
        if self.leased && !(follows && joined.member_id == self.member_id) {
            let reason = format!(
                "joined generation {} as {}, after generation {:?} as {}: a round in between may have passed without our claim",
                joined.generation, joined.member_id, self.generation, self.member_id
            );
            return self.lose(reason);
        }
        self.contact = self.now;
        self.leads = joined.leader_id == joined.member_id;
        self.member_id = joined.member_id;
        self.generation = Some(joined.generation);
        let assignments = if !self.leads || joined.skip_assignment {
            Vec::new()
        } else if joined.members.is_empty() {
            return self.fail(
                "the group is in use by clients of another protocol: stop them, or choose another application id",
            );
        } else {
            lead(&self.plan, joined.generation, &joined.members)
        };
        if self.leased && !self.holding {
            self.holding = true;
            self.events.push_back(MemberEvent::Hold);
        }
        self.heartbeat = Call::Due(self.now.saturating_add(self.settings.heartbeat_interval_ms.into()));
        self.phase = Phase::Syncing {
            call: Call::Due(self.now),
            lease: Lease {
                member_id: self.member_id.clone(),
                generation: joined.generation,
                instance_id: self.settings.instance_id.clone(),
            },
            assignments,
        };
    }

    fn on_sync(&mut self, sent: Timestamp, lease: Lease, answer: Result<GroupAnswer, GroupError>) {
        match answer {
            Ok(GroupAnswer::Synced(data)) => self.synced(sent, lease, &data),
            Ok(other) => self.fail(&format!("the coordinator answered SyncGroup with {other:?}")),
            Err(GroupError::RebalanceInProgress) => self.rejoin("the group began another round"),
            Err(error) => self.refused_call(&error),
        }
    }

    fn synced(&mut self, sent: Timestamp, lease: Lease, data: &[u8]) {
        self.contact = self.contact.max(sent);
        if self.session_end() <= self.now {
            // The answer lay unread for a whole session: somebody else may have our tasks.
            return self.lose("the assignment came too late".to_owned());
        }
        let assigned = match AssignedTasks::decode(data) {
            Ok(assigned) => assigned,
            Err(error) => return self.fail(&format!("the assignment was refused: {error}")),
        };
        let foreign = assigned.fingerprint != self.plan.fingerprint;
        let stale = foreign && !assigned.tasks.is_empty();
        let tasks = if foreign { BTreeSet::new() } else { assigned.tasks };
        if foreign {
            tracing::warn!(
                event = "member.plan_differs",
                ours = self.plan.fingerprint,
                leaders = assigned.fingerprint,
                "the group's leader has another topology: no tasks before it is gone"
            );
        }
        tracing::info!(
            event = "member.granted",
            member = %lease.member_id,
            generation = lease.generation,
            tasks = tasks.len(),
            leads = self.leads,
            follow_up = assigned.follow_up,
            "the generation is complete"
        );
        self.holdings.grant(tasks.clone());
        (self.leased, self.holding) = (true, false);
        // The workers have not seen what is still here, and need not.
        self.events.retain(|event| !matches!(event, MemberEvent::Granted { .. } | MemberEvent::Hold));
        self.events.push_back(MemberEvent::Granted { lease: lease.clone(), tasks });
        self.phase = Phase::Stable { lease, since: self.now, follow_up: assigned.follow_up };
        self.heartbeat = Call::Due(self.now.saturating_add(self.heartbeat_interval()));
        if stale {
            // A static member that came back with another topology gets what its predecessor had; only a round mends that.
            self.rejoin("the assignment is for another topology");
        }
    }

    fn on_heartbeat(&mut self, sent: Timestamp, answer: Result<GroupAnswer, GroupError>) {
        self.heartbeat = Call::Due(sent.saturating_add(self.heartbeat_interval()).max(self.now));
        match answer {
            Ok(_) => self.contact = self.contact.max(sent),
            Err(GroupError::RebalanceInProgress) => {
                self.contact = self.contact.max(sent);
                self.rejoin("the group began another round");
            }
            Err(error) => {
                if let Some(at) = self.refused(&error) {
                    self.heartbeat = Call::Due(at.min(self.heartbeat.due()));
                }
            }
        }
    }

    fn on_leave(&mut self, answer: Result<GroupAnswer, GroupError>) {
        match answer {
            Err(error @ GroupError::Unavailable(_)) if self.now < self.session_end() => {
                let at = self.retry_at(&error);
                self.phase = Phase::Leaving(Call::Due(at));
            }
            Err(error) if error != GroupError::UnknownMember => {
                tracing::warn!(event = "member.leave_failed", %error, "the group will notice only at the session's end");
                self.gone();
            }
            _ => self.gone(),
        }
    }

    fn refused_call(&mut self, error: &GroupError) {
        if let Some(at) = self.refused(error)
            && let Phase::Joining(call) | Phase::Syncing { call, .. } = &mut self.phase
        {
            *call = Call::Due(at);
        }
    }

    /// What all requests have in common when they fail. Says when to make the same one again, if that is what helps.
    fn refused(&mut self, error: &GroupError) -> Option<Timestamp> {
        match error {
            GroupError::IllegalGeneration => self.lose(error.to_string()),
            GroupError::UnknownMember | GroupError::MemberIdRequired(_) => {
                self.member_id.clear();
                self.lose(error.to_string());
            }
            GroupError::FencedInstance
            | GroupError::InconsistentProtocol
            | GroupError::InvalidSessionTimeout
            | GroupError::NotAuthorised
            | GroupError::GroupFull => self.fail(&error.to_string()),
            GroupError::Unavailable(_) | GroupError::RebalanceInProgress | GroupError::UnstableOffsets => {
                return Some(self.retry_at(error));
            }
            GroupError::Other(_) => {
                let since = *self.refused_since.get_or_insert(self.now);
                if self.now.saturating_sub(since) < self.settings.session_timeout_ms.into() {
                    return Some(self.retry_at(error));
                }
                self.fail(&error.to_string());
            }
        }
        None
    }
}
