//! Group requests and their answers: Kafka's classic group protocol without its bytes.
//!
//! The member state machine speaks these; an implementation frames them (Kafka: JoinGroup 9, SyncGroup 5,
//! Heartbeat 4, LeaveGroup 5, OffsetCommit 9, OffsetFetch 9 over connections of its own).

use crate::record::TopicPartition;

/// Names a request whose answer has yet to come.
#[derive(Clone, Copy, Debug, PartialEq, Eq, Hash, PartialOrd, Ord)]
pub struct Ticket(pub u64);

/// Carries group requests. Sending never waits; a JoinGroup that the broker parks does not hold up the rest.
pub trait Coordinator: Send {
    /// Sends a request. Finding the coordinator, reconnecting and codes that only say "later" (14, 15, 16)
    /// are dealt with below, inside the request's deadline.
    fn request(&mut self, request: GroupRequest) -> Ticket;
    /// The next answer, in no particular order.
    fn answer(&mut self) -> Option<(Ticket, Result<GroupAnswer, GroupError>)>;
}

/// The right to commit: valid while the group is in this generation and this member belongs to it.
#[derive(Clone, Debug, PartialEq, Eq, Hash)]
pub struct Lease {
    /// Member id given by the coordinator.
    pub member_id: String,
    /// Generation of the group.
    pub generation: i32,
    /// Static instance id, if any.
    pub instance_id: Option<String>,
}

/// A committed position.
#[derive(Clone, Debug, PartialEq, Eq)]
pub struct OffsetAndMetadata {
    /// Next offset to read.
    pub offset: i64,
    /// Text kept beside it (Kafka Streams: base64 of version, partition time and more).
    pub metadata: String,
}

/// What the group has for one partition; `None`: nothing is committed.
pub type FetchedOffset = (TopicPartition, Option<OffsetAndMetadata>);

/// A request to the group's coordinator.
#[derive(Clone, Debug)]
pub enum GroupRequest {
    /// Joins, or joins again. An empty member id asks for a new one.
    Join {
        /// Empty for a newcomer.
        member_id: String,
        /// Static instance id.
        instance_id: Option<String>,
        /// Silence after which the member is dead, ms.
        session_timeout_ms: i32,
        /// How long the others wait for a member to rejoin, ms.
        rebalance_timeout_ms: i32,
        /// Topics this group reads (Kafka's tools and offset protection use them).
        topics: Vec<String>,
        /// Ours: capacity, tasks held, nonce.
        user_data: Vec<u8>,
    },
    /// Fetches the assignment; the leader brings it for all.
    Sync {
        /// Member id and generation.
        lease: Lease,
        /// From the leader: one for every member. Empty from the others.
        assignments: Vec<MemberAssignment>,
    },
    /// Says "alive".
    Heartbeat {
        /// Member id and generation.
        lease: Lease,
    },
    /// Leaves for good. Not sent by static members.
    Leave {
        /// Who leaves.
        member_id: String,
        /// Static instance id.
        instance_id: Option<String>,
    },
    /// Commits positions, valid only under the lease.
    CommitOffsets {
        /// Member id and generation.
        lease: Lease,
        /// Next offset to read, per partition.
        offsets: Vec<(TopicPartition, OffsetAndMetadata)>,
    },
    /// Reads committed positions, and waits until no open transaction holds one for them (`require_stable`):
    /// while one does the answer is [`GroupError::UnstableOffsets`].
    FetchOffsets {
        /// Which.
        partitions: Vec<TopicPartition>,
    },
}

/// A member as the leader sees it.
#[derive(Clone, Debug, PartialEq, Eq)]
pub struct MemberMetadata {
    /// Its id.
    pub member_id: String,
    /// Its static instance id.
    pub instance_id: Option<String>,
    /// What it sent with JoinGroup.
    pub user_data: Vec<u8>,
}

/// What the leader gives one member.
#[derive(Clone, Debug, PartialEq, Eq)]
pub struct MemberAssignment {
    /// Whose.
    pub member_id: String,
    /// Input partitions, for people and tools that look at the group.
    pub partitions: Vec<TopicPartition>,
    /// Ours: tasks, follow-up mark. Never empty, which keeps other protocols from taking the group over.
    pub user_data: Vec<u8>,
}

/// The answer to JoinGroup.
#[derive(Clone, Debug, PartialEq, Eq)]
pub struct Joined {
    /// The new generation.
    pub generation: i32,
    /// Our id.
    pub member_id: String,
    /// The leader's id.
    pub leader_id: String,
    /// All members, if we lead; empty otherwise.
    pub members: Vec<MemberMetadata>,
    /// A static leader came back and must bring no assignment (JoinGroup 9).
    pub skip_assignment: bool,
}

/// An answer.
#[derive(Clone, Debug, PartialEq, Eq)]
pub enum GroupAnswer {
    /// To `Join`.
    Joined(Joined),
    /// To `Sync`: our user data from the leader.
    Synced(Vec<u8>),
    /// To `Heartbeat`, `Leave`, `CommitOffsets`.
    Done,
    /// To `FetchOffsets`.
    Offsets(Vec<FetchedOffset>),
}

/// Why a group request failed. The numbers are Kafka's error codes.
#[derive(Clone, Debug, PartialEq, Eq, thiserror::Error)]
#[non_exhaustive]
pub enum GroupError {
    /// 22: the group has moved on to another generation.
    #[error("the group has moved on to another generation (22)")]
    IllegalGeneration,
    /// 25: the coordinator does not know this member (any more).
    #[error("the coordinator does not know this member (25)")]
    UnknownMember,
    /// 27: a rebalance is under way; join again.
    #[error("a rebalance is under way (27)")]
    RebalanceInProgress,
    /// 79: join again with this member id.
    #[error("join again with member id {0} (79)")]
    MemberIdRequired(String),
    /// 82: another process joined with our static instance id.
    #[error("another process uses our static instance id (82)")]
    FencedInstance,
    /// 88: an open transaction holds an offset for one of the partitions.
    #[error("an open transaction holds offsets of these partitions (88)")]
    UnstableOffsets,
    /// 23: the group is held by members that speak another protocol.
    #[error(
        "the group is in use by members that speak another protocol (23): stop them, or choose another application id"
    )]
    InconsistentProtocol,
    /// 26: the session timeout is outside the broker's limits.
    #[error("the session timeout is outside the broker's limits (26)")]
    InvalidSessionTimeout,
    /// 30: no right to use the group.
    #[error("not authorised to use the group (30)")]
    NotAuthorised,
    /// 81: the group has as many members as it may have.
    #[error("the group is full (81)")]
    GroupFull,
    /// No answer inside the deadline: whether the request took effect is unknown.
    #[error("no answer from the group's coordinator: {0}")]
    Unavailable(String),
    /// Any other code.
    #[error("the group's coordinator answered code {0}")]
    Other(i16),
}
