//! A member of a group as its coordinator knows it, and the requests it has parked.

use crate::broker::{GroupAnswer, GroupError, Ticket};
use crate::record::Timestamp;

/// A member that was added and has never been in a complete round may be silent this long while its JoinGroup is
/// parked (Kafka: five minutes).
const NEW_MEMBER_TIMEOUT_MS: i64 = 300_000;

/// Where an answer goes.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub(super) struct ReturnAddress {
    pub(super) line: u64,
    pub(super) ticket: Ticket,
}

/// What a request is answered.
pub(super) type Answer = Result<GroupAnswer, GroupError>;

/// Answers that are ready.
pub(super) type Outbox = Vec<(ReturnAddress, Answer)>;

/// A JoinGroup request.
#[derive(Debug)]
pub(super) struct Join {
    pub(super) member_id: String,
    pub(super) instance_id: Option<String>,
    pub(super) session_timeout_ms: i32,
    pub(super) rebalance_timeout_ms: i32,
    pub(super) topics: Vec<String>,
    pub(super) user_data: Vec<u8>,
}

#[derive(Debug)]
pub(super) struct Member {
    pub(super) id: String,
    pub(super) instance_id: Option<String>,
    pub(super) session_timeout: i64,
    pub(super) rebalance_timeout: i64,
    pub(super) topics: Vec<String>,
    pub(super) user_data: Vec<u8>,
    pub(super) assignment: Vec<u8>,
    /// Dead from here on, unless it is heard of.
    pub(super) deadline: Timestamp,
    pub(super) is_new: bool,
    pub(super) joining: Option<ReturnAddress>,
    pub(super) syncing: Option<ReturnAddress>,
}

impl Member {
    /// A member that waits for its first round.
    pub(super) fn new(id: String, join: Join, to: ReturnAddress, now: Timestamp) -> Self {
        Self {
            id,
            instance_id: join.instance_id,
            session_timeout: i64::from(join.session_timeout_ms),
            rebalance_timeout: i64::from(join.rebalance_timeout_ms),
            topics: join.topics,
            user_data: join.user_data,
            assignment: Vec::new(),
            deadline: now.saturating_add(NEW_MEMBER_TIMEOUT_MS),
            is_new: true,
            joining: Some(to),
            syncing: None,
        }
    }

    /// Counts the silence from now on.
    pub(super) fn heard(&mut self, now: Timestamp) {
        self.deadline = now.saturating_add(self.session_timeout);
    }

    /// Takes over what the member says of itself, and parks its request.
    pub(super) fn update(&mut self, join: Join, to: ReturnAddress, out: &mut Outbox) {
        self.session_timeout = i64::from(join.session_timeout_ms);
        self.rebalance_timeout = i64::from(join.rebalance_timeout_ms);
        self.topics = join.topics;
        self.user_data = join.user_data;
        if let Some(earlier) = self.joining.replace(to) {
            let why = "the member joined again meanwhile".to_owned();
            out.push((earlier, Err(GroupError::Unavailable(why))));
        }
    }

    pub(super) fn says_the_same(&self, join: &Join) -> bool {
        self.topics == join.topics && self.user_data == join.user_data
    }

    pub(super) fn answer_all(&mut self, error: &GroupError, out: &mut Outbox) {
        for parked in [self.joining.take(), self.syncing.take()].into_iter().flatten() {
            out.push((parked, Err(error.clone())));
        }
    }

    /// A member that waits for an answer is alive, except that a new one is not waited for without end.
    pub(super) fn can_expire(&self) -> bool {
        self.is_new || (self.joining.is_none() && self.syncing.is_none())
    }
}
