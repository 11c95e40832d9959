//! Who owns what: the membership of a process and the spread of tasks over members.
//!
//! Everything here is a state machine without I/O, driven by the time and by the answers of a
//! [`Coordinator`](crate::broker::Coordinator), so that the same code runs on Kafka, on the embedded broker and in a simulation.

mod assignor;
mod flow;
mod holdings;
mod leader;
mod member;
mod quota;
#[cfg(test)]
mod simulation;
mod user_data;

use std::collections::BTreeSet;
use std::sync::Arc;

pub use assignor::{Assignment, MemberView, assign};
pub use member::{Member, MemberSettings, MemberState};

use crate::broker::Lease;

/// A unit of work: one partition of one sub-topology.
#[derive(Clone, Copy, Debug, PartialEq, Eq, Hash, PartialOrd, Ord)]
pub struct TaskId {
    /// Index of the sub-topology in the plan.
    pub subtopology: u32,
    /// Partition of its input topics.
    pub partition: i32,
}

impl std::fmt::Display for TaskId {
    /// Kafka Streams' text form, `<sub-topology>_<partition>`.
    fn fmt(&self, f: &mut std::fmt::Formatter<'_>) -> std::fmt::Result {
        write!(f, "{}_{}", self.subtopology, self.partition)
    }
}

/// The tasks that exist: what the leader spreads over the members.
#[derive(Clone, Debug, PartialEq, Eq)]
pub struct TaskPlan {
    /// By sub-topology index.
    pub subtopologies: Vec<SubtopologyTasks>,
    /// Tells plans apart: members that bring another one are never mixed.
    pub fingerprint: u64,
}

/// The tasks of one sub-topology: one for each partition.
#[derive(Clone, Debug, PartialEq, Eq)]
pub struct SubtopologyTasks {
    /// Input topics, repartition topics included; co-partitioned.
    pub topics: Vec<Arc<str>>,
    /// Number of tasks.
    pub partitions: i32,
    /// Whether tasks hold state, which makes them dearer to move.
    pub stateful: bool,
}

/// What a member tells the workers of its process.
#[derive(Clone, Debug, PartialEq, Eq)]
pub enum MemberEvent {
    /// A generation is complete. Commits are made under this lease from now on; tasks that are held and not named are
    /// committed, closed and then acknowledged as released; tasks that are named and not held are started.
    Granted {
        /// Member id and generation.
        lease: Lease,
        /// All tasks this process shall run.
        tasks: BTreeSet<TaskId>,
    },
    /// The next generation is about to begin: hold commits until it is granted.
    Hold,
    /// The membership is lost, so every lease is void: abort, drop all tasks, acknowledge. No rejoin before that.
    Lost {
        /// Why, for people.
        reason: String,
    },
    /// The member has left, as asked.
    Left,
    /// The process cannot be a member of this group; it will not try again.
    Failed {
        /// Why, for people.
        reason: String,
    },
}
