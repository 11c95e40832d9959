//! A consumer group: the state machine of Kafka's classic group coordinator, for one protocol.
//!
//! It knows no connections. Every call is told the time and appends answers to an [`Outbox`]; a request that has
//! to wait (JoinGroup until all have joined, SyncGroup until the leader has spoken) is kept as its return address.

use std::collections::BTreeSet;

use super::member::{Answer, Join, Member, Outbox, ReturnAddress};
use super::offsets::Offsets;
use crate::broker::{GroupAnswer, GroupError, Joined, Lease, MemberAssignment, MemberMetadata};
use crate::record::Timestamp;

/// Kafka's default of `group.max.session.timeout.ms`.
const MAX_SESSION_TIMEOUT_MS: i32 = 1_800_000;

/// Where a group is in a rebalance; Kafka's names.
#[derive(Clone, Copy, Debug, Default, PartialEq, Eq)]
#[non_exhaustive]
pub enum GroupState {
    /// No members.
    #[default]
    Empty,
    /// Waiting for the members to join.
    PreparingRebalance,
    /// All have joined; waiting for the leader's assignment.
    CompletingRebalance,
    /// Everybody has an assignment.
    Stable,
}

/// One group.
#[derive(Debug, Default)]
pub(super) struct Group {
    pub(super) offsets: Offsets,
    state: GroupState,
    generation: i32,
    leader: Option<String>,
    // In order of joining, which is the order the leader sees.
    members: Vec<Member>,
    // Newcomers that were told their id and have not joined with it yet; with their deadlines.
    pending: Vec<(String, Timestamp)>,
    awaiting_sync: BTreeSet<String>,
    join_deadline: Option<Timestamp>,
    sync_deadline: Option<Timestamp>,
}

impl Group {
    pub(super) fn state(&self) -> GroupState {
        self.state
    }

    pub(super) fn generation(&self) -> i32 {
        self.generation
    }

    /// JoinGroup. `fresh_id` makes an id for a newcomer.
    pub(super) fn join(
        &mut self,
        join: Join,
        to: ReturnAddress,
        now: Timestamp,
        fresh_id: impl FnOnce(Option<&str>) -> String,
        out: &mut Outbox,
    ) {
        if !(1..=MAX_SESSION_TIMEOUT_MS).contains(&join.session_timeout_ms) {
            out.push((to, Err(GroupError::InvalidSessionTimeout)));
        } else if join.member_id.is_empty() {
            let id = fresh_id(join.instance_id.as_deref());
            match &join.instance_id {
                None => {
                    let deadline = now.saturating_add(i64::from(join.session_timeout_ms));
                    self.pending.push((id.clone(), deadline));
                    out.push((to, Err(GroupError::MemberIdRequired(id))));
                }
                Some(instance) => match self.static_member(instance) {
                    Some(place) => self.replace_static(place, id, join, to, now, out),
                    None => self.add(id, join, to, now, out),
                },
            }
        } else if let Some(place) = self.pending.iter().position(|(id, _)| *id == join.member_id) {
            let (id, _) = self.pending.remove(place);
            self.add(id, join, to, now, out);
        } else {
            self.rejoin(join, to, now, out);
        }
    }

    fn rejoin(&mut self, join: Join, to: ReturnAddress, now: Timestamp, out: &mut Outbox) {
        let place = match self.find(&join.member_id, join.instance_id.as_deref()) {
            Ok(place) => place,
            Err(error) => return out.push((to, Err(error))),
        };
        let leads = self.leader.as_deref() == Some(join.member_id.as_str());
        let same = self.members.get(place).is_some_and(|member| member.says_the_same(&join));
        let at_once = match self.state {
            GroupState::Empty => return out.push((to, Err(GroupError::UnknownMember))),
            GroupState::PreparingRebalance => false,
            // The answer may have been lost: give it again.
            GroupState::CompletingRebalance => same,
            GroupState::Stable => same && !leads,
        };
        if at_once {
            let members = if leads { self.metadata() } else { Vec::new() };
            let joined = self.joined(join.member_id, members, false);
            out.push((to, Ok(joined)));
            return;
        }
        if let Some(member) = self.members.get_mut(place) {
            member.update(join, to, out);
        }
        self.rebalance_or_complete(now, out);
    }

    fn add(&mut self, id: String, join: Join, to: ReturnAddress, now: Timestamp, out: &mut Outbox) {
        self.leader.get_or_insert_with(|| id.clone());
        self.members.push(Member::new(id, join, to, now));
        self.rebalance_or_complete(now, out);
    }

    /// A static member came back: it takes the place, and the assignment, of its earlier self.
    fn replace_static(
        &mut self,
        place: usize,
        id: String,
        join: Join,
        to: ReturnAddress,
        now: Timestamp,
        out: &mut Outbox,
    ) {
        let Some(member) = self.members.get_mut(place) else {
            return;
        };
        member.answer_all(&GroupError::FencedInstance, out);
        let earlier = std::mem::replace(&mut member.id, id.clone());
        member.is_new = false;
        member.update(join, to, out);
        member.heard(now);
        if self.leader.as_ref() == Some(&earlier) {
            self.leader = Some(id.clone());
        }
        if self.awaiting_sync.remove(&earlier) {
            self.awaiting_sync.insert(id.clone());
        }
        match self.state {
            GroupState::Stable => {
                if let Some(member) = self.members.get_mut(place) {
                    member.joining = None;
                }
                let leads = self.leader.as_ref() == Some(&id);
                let members = if leads { self.metadata() } else { Vec::new() };
                let joined = self.joined(id, members, leads);
                out.push((to, Ok(joined)));
            }
            GroupState::CompletingRebalance => self.prepare(now, out),
            GroupState::Empty | GroupState::PreparingRebalance => self.complete_if_all_joined(now, out),
        }
    }

    /// SyncGroup: parks until the leader's has come.
    pub(super) fn sync(
        &mut self,
        lease: &Lease,
        assignments: &[MemberAssignment],
        to: ReturnAddress,
        now: Timestamp,
        out: &mut Outbox,
    ) {
        let place = match self.check(lease) {
            Ok(place) => place,
            Err(error) => return out.push((to, Err(error))),
        };
        match self.state {
            GroupState::Empty => out.push((to, Err(GroupError::UnknownMember))),
            GroupState::PreparingRebalance => out.push((to, Err(GroupError::RebalanceInProgress))),
            GroupState::Stable => {
                self.awaiting_sync.remove(&lease.member_id);
                let assignment = self.members.get(place).map(|member| member.assignment.clone());
                out.push((to, Ok(GroupAnswer::Synced(assignment.unwrap_or_default()))));
            }
            GroupState::CompletingRebalance => {
                self.awaiting_sync.remove(&lease.member_id);
                if let Some(member) = self.members.get_mut(place)
                    && let Some(earlier) = member.syncing.replace(to)
                {
                    let why = "the member asked for its assignment again meanwhile".to_owned();
                    out.push((earlier, Err(GroupError::Unavailable(why))));
                }
                if self.leader.as_ref() == Some(&lease.member_id) {
                    self.spread(assignments, now, out);
                }
            }
        }
        if self.awaiting_sync.is_empty() {
            self.sync_deadline = None;
        }
    }

    /// Gives everybody what the leader has decided.
    fn spread(&mut self, assignments: &[MemberAssignment], now: Timestamp, out: &mut Outbox) {
        for member in &mut self.members {
            member.assignment = assignments
                .iter()
                .find(|assignment| assignment.member_id == member.id)
                .map(|assignment| assignment.user_data.clone())
                .unwrap_or_default();
            if let Some(parked) = member.syncing.take() {
                member.heard(now);
                out.push((parked, Ok(GroupAnswer::Synced(member.assignment.clone()))));
            }
        }
        self.state = GroupState::Stable;
    }

    /// Heartbeat.
    pub(super) fn heartbeat(&mut self, lease: &Lease, now: Timestamp) -> Answer {
        let place = self.check(lease)?;
        if let Some(member) = self.members.get_mut(place) {
            member.heard(now);
        }
        match self.state {
            GroupState::Empty => Err(GroupError::UnknownMember),
            GroupState::PreparingRebalance => Err(GroupError::RebalanceInProgress),
            GroupState::CompletingRebalance | GroupState::Stable => Ok(GroupAnswer::Done),
        }
    }

    /// LeaveGroup.
    pub(super) fn leave(
        &mut self,
        member_id: &str,
        instance_id: Option<&str>,
        now: Timestamp,
        out: &mut Outbox,
    ) -> Answer {
        if let Some(place) = self.pending.iter().position(|(id, _)| id == member_id) {
            self.pending.remove(place);
        } else {
            let place = self.find(member_id, instance_id)?;
            self.remove(place, out);
        }
        self.rebalance_or_complete(now, out);
        Ok(GroupAnswer::Done)
    }

    /// Whether positions may be committed under this lease. A transaction may carry those of a generation that has
    /// joined and not yet synced; a plain commit may not.
    pub(super) fn check_commit(&self, lease: &Lease, transactional: bool) -> Result<(), GroupError> {
        let no_member = lease.generation < 0 && lease.member_id.is_empty() && lease.instance_id.is_none();
        if no_member {
            // As Kafka: accepted, and not fenced, from those that take no part in a group.
            if transactional || self.state == GroupState::Empty {
                return Ok(());
            }
            return Err(GroupError::UnknownMember);
        }
        self.check(lease)?;
        if !transactional && self.state == GroupState::CompletingRebalance {
            return Err(GroupError::RebalanceInProgress);
        }
        Ok(())
    }

    /// When something happens by time alone.
    pub(super) fn due(&self) -> Option<Timestamp> {
        let alive = self.members.iter().filter(|member| member.can_expire());
        [self.join_deadline, self.sync_deadline]
            .into_iter()
            .flatten()
            .chain(self.pending.iter().map(|(_, deadline)| *deadline))
            .chain(alive.map(|member| member.deadline))
            .min()
    }

    /// Lets time act: drops members that have been silent for too long, ends rounds that have lasted too long.
    pub(super) fn advance(&mut self, now: Timestamp, out: &mut Outbox) {
        let pending = self.pending.len();
        self.pending.retain(|(_, deadline)| *deadline > now);
        if self.pending.len() != pending {
            self.complete_if_all_joined(now, out);
        }
        while let Some(place) = self.members.iter().position(|member| member.can_expire() && member.deadline <= now) {
            self.remove(place, out);
            self.rebalance_or_complete(now, out);
        }
        if self.sync_deadline.is_some_and(|deadline| deadline <= now) {
            self.sync_deadline = None;
            let silent = std::mem::take(&mut self.awaiting_sync);
            while let Some(place) = self.members.iter().position(|member| silent.contains(&member.id)) {
                self.remove(place, out);
            }
            if !silent.is_empty() {
                self.prepare(now, out);
            }
        }
        if self.join_deadline.is_some_and(|deadline| deadline <= now) {
            self.complete(now, out);
        }
    }

    fn rebalance_or_complete(&mut self, now: Timestamp, out: &mut Outbox) {
        if self.state == GroupState::PreparingRebalance {
            self.complete_if_all_joined(now, out);
        } else {
            self.prepare(now, out);
        }
    }

    fn prepare(&mut self, now: Timestamp, out: &mut Outbox) {
        if self.state == GroupState::Empty && self.members.is_empty() {
            return;
        }
        for member in &mut self.members {
            if let Some(parked) = member.syncing.take() {
                member.heard(now);
                out.push((parked, Err(GroupError::RebalanceInProgress)));
            }
            if self.state == GroupState::CompletingRebalance {
                member.assignment = Vec::new();
            }
        }
        self.awaiting_sync.clear();
        self.sync_deadline = None;
        let first_round = self.state == GroupState::Empty;
        self.state = GroupState::PreparingRebalance;
        if first_round || self.all_joined() {
            // The first round waits for nobody: newcomers start another one.
            self.complete(now, out);
        } else {
            self.join_deadline = Some(now.saturating_add(self.rebalance_timeout()));
        }
    }

    fn complete_if_all_joined(&mut self, now: Timestamp, out: &mut Outbox) {
        if self.state == GroupState::PreparingRebalance && self.all_joined() {
            self.complete(now, out);
        }
    }

    /// Ends the joining: the silent dynamic members are out, a new generation begins.
    fn complete(&mut self, now: Timestamp, out: &mut Outbox) {
        self.join_deadline = None;
        while let Some(place) =
            self.members.iter().position(|member| member.joining.is_none() && member.instance_id.is_none())
        {
            self.remove(place, out);
        }
        let joined = |member: &Member| member.joining.is_some();
        let leader_joined =
            self.members.iter().any(|member| joined(member) && self.leader.as_ref() == Some(&member.id));
        if !leader_joined {
            match self.members.iter().find(|member| joined(member)) {
                Some(first) => self.leader = Some(first.id.clone()),
                // Only silent static members are left: wait for them as long again.
                None if !self.members.is_empty() => {
                    self.join_deadline = Some(now.saturating_add(self.rebalance_timeout().max(1)));
                    return;
                }
                None => self.leader = None,
            }
        }
        self.generation = self.generation.saturating_add(1);
        if self.members.is_empty() {
            self.state = GroupState::Empty;
            return;
        }
        self.state = GroupState::CompletingRebalance;
        self.sync_deadline = Some(now.saturating_add(self.rebalance_timeout()));
        self.awaiting_sync = self.members.iter().map(|member| member.id.clone()).collect();
        let mut ready = Vec::new();
        for member in &mut self.members {
            member.is_new = false;
            member.heard(now);
            if let Some(parked) = member.joining.take() {
                ready.push((parked, member.id.clone()));
            }
        }
        for (parked, id) in ready {
            let leads = self.leader.as_ref() == Some(&id);
            let members = if leads { self.metadata() } else { Vec::new() };
            out.push((parked, Ok(self.joined(id, members, false))));
        }
    }

    fn joined(&self, member_id: String, members: Vec<MemberMetadata>, skip_assignment: bool) -> GroupAnswer {
        GroupAnswer::Joined(Joined {
            generation: self.generation,
            member_id,
            leader_id: self.leader.clone().unwrap_or_default(),
            members,
            skip_assignment,
        })
    }

    fn metadata(&self) -> Vec<MemberMetadata> {
        self.members
            .iter()
            .map(|member| MemberMetadata {
                member_id: member.id.clone(),
                instance_id: member.instance_id.clone(),
                user_data: member.user_data.clone(),
            })
            .collect()
    }

    /// Takes a member out and answers what it had parked. The caller goes on with the rebalance.
    fn remove(&mut self, place: usize, out: &mut Outbox) {
        let mut member = self.members.remove(place);
        member.answer_all(&GroupError::UnknownMember, out);
        self.awaiting_sync.remove(&member.id);
        if self.leader.as_ref() == Some(&member.id) {
            self.leader = self.members.first().map(|member| member.id.clone());
        }
    }

    /// The member that holds this lease.
    fn check(&self, lease: &Lease) -> Result<usize, GroupError> {
        let place = self.find(&lease.member_id, lease.instance_id.as_deref())?;
        if lease.generation != self.generation {
            return Err(GroupError::IllegalGeneration);
        }
        Ok(place)
    }

    fn find(&self, member_id: &str, instance_id: Option<&str>) -> Result<usize, GroupError> {
        if let Some(instance) = instance_id {
            let place = self.static_member(instance).ok_or(GroupError::UnknownMember)?;
            return match self.members.get(place) {
                Some(member) if member.id == member_id => Ok(place),
                _ => Err(GroupError::FencedInstance),
            };
        }
        self.members.iter().position(|member| member.id == member_id).ok_or(GroupError::UnknownMember)
    }

    fn static_member(&self, instance: &str) -> Option<usize> {
        self.members.iter().position(|member| member.instance_id.as_deref() == Some(instance))
    }

    fn all_joined(&self) -> bool {
        self.pending.is_empty() && self.members.iter().all(|member| member.joining.is_some())
    }

    fn rebalance_timeout(&self) -> i64 {
        self.members.iter().map(|member| member.rebalance_timeout).max().unwrap_or_default()
    }
}
