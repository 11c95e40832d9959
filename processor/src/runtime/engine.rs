//! What all threads of a process share.

use std::collections::{BTreeMap, HashMap};
use std::sync::atomic::{AtomicI64, AtomicU64, Ordering};
use std::sync::{Arc, Mutex, PoisonError};

use headwater_changelog::Directory;
#[cfg(feature = "rocksdb")]
use headwater_changelog::rocks;

use crate::broker::{Broker, TopicInfo};
use crate::config::StreamsConfig;
use crate::group::{TaskId, TaskPlan};
use crate::record::{Timestamp, TopicPartition};
use crate::task::OutgoingTopic;
use crate::topology::{Subtopology, Topology};

/// The fixed part: settings, plan, and what the cluster said about topics at the start.
#[derive(Debug)]
pub(crate) struct Engine {
    pub(crate) config: StreamsConfig,
    pub(crate) topology: Topology,
    pub(crate) broker: Arc<dyn Broker>,
    pub(crate) plan: Arc<TaskPlan>,
    /// Topics that are written, in the order of the plan's outputs.
    pub(crate) outgoing: Vec<OutgoingTopic>,
    pub(crate) cluster_id: String,
    /// Changelogs by name.
    pub(crate) changelogs: HashMap<Arc<str>, TopicInfo>,
    pub(crate) directory: Directory,
    #[cfg(feature = "rocksdb")]
    pub(crate) rocks: rocks::Shared,
    pub(crate) board: Board,
}

impl Engine {
    /// The plan of a task's sub-topology.
    pub(crate) fn subtopology(&self, task: TaskId) -> Option<&Subtopology> {
        self.topology.subtopologies().get(usize::try_from(task.subtopology).ok()?)
    }

    /// A task's input partitions, in the order of its sources.
    pub(crate) fn inputs(&self, task: TaskId) -> Vec<TopicPartition> {
        let topics = usize::try_from(task.subtopology).ok().and_then(|index| self.plan.subtopologies.get(index));
        let topics = topics.map(|subtopology| subtopology.topics.as_slice()).unwrap_or_default();
        topics.iter().map(|topic| TopicPartition::new(Arc::clone(topic), task.partition)).collect()
    }
}

/// Where a task stands.
#[derive(Clone, Copy, Debug, PartialEq, Eq, Hash)]
#[non_exhaustive]
pub enum TaskStatus {
    /// Given to this process; its committed positions are being read.
    Created,
    /// Its stores are being brought up to the end of their changelogs.
    Restoring,
    /// It processes records.
    Running,
    /// It is to be given up once its work is committed.
    Suspended,
}

/// The figures of a process since its start.
#[derive(Clone, Copy, Debug, Default, PartialEq, Eq)]
pub struct Figures {
    /// Records processed, those included that a later abort made undone.
    pub processed: u64,
    /// Commits.
    pub commits: u64,
    /// Commits that were given up: their records are processed again.
    pub aborts: u64,
    /// Commits refused because the lease had run out.
    pub fenced: u64,
    /// Producers replaced since a stray request of theirs might have been under way.
    pub recycled: u64,
    /// Changelog records replayed into stores.
    pub restored: u64,
    /// Records that went no further because a key was null.
    pub dropped_null_key: u64,
}

/// What threads tell the outside. Written per step, commit or change of state, never per record.
#[derive(Debug, Default)]
pub(crate) struct Board {
    tasks: Mutex<BTreeMap<TaskId, TaskStatus>>,
    // When each worker took its last step, ms.
    beats: Vec<AtomicI64>,
    pub(crate) processed: AtomicU64,
    pub(crate) commits: AtomicU64,
    pub(crate) aborts: AtomicU64,
    pub(crate) fenced: AtomicU64,
    pub(crate) recycled: AtomicU64,
    pub(crate) restored: AtomicU64,
    pub(crate) dropped_null_key: AtomicU64,
    #[cfg(feature = "failpoints")]
    lease: Mutex<Option<crate::broker::Lease>>,
}

impl Board {
    /// A board for so many workers.
    pub(crate) fn new(workers: usize) -> Self {
        Self { beats: (0..workers).map(|_| AtomicI64::new(Timestamp::MAX)).collect(), ..Self::default() }
    }

    /// A worker takes a step.
    pub(crate) fn beat(&self, worker: usize, now: Timestamp) {
        if let Some(beat) = self.beats.get(worker) {
            beat.store(now, Ordering::Relaxed);
        }
    }

    /// How long a worker has taken no step, ms; 0 before its first.
    pub(crate) fn silence(&self, worker: usize, now: Timestamp) -> i64 {
        self.beats.get(worker).map_or(0, |beat| now.saturating_sub(beat.load(Ordering::Relaxed)).max(0))
    }

    /// Tells where a task stands; `None`: it is closed.
    pub(crate) fn task(&self, task: TaskId, status: Option<TaskStatus>) {
        let mut tasks = self.tasks.lock().unwrap_or_else(PoisonError::into_inner);
        match status {
            Some(status) => tasks.insert(task, status),
            None => tasks.remove(&task),
        };
    }

    /// What the group's metadata would say now: for the test that shows why it must not be asked.
    #[cfg(feature = "failpoints")]
    pub(crate) fn lease(&self) -> Option<crate::broker::Lease> {
        self.lease.lock().unwrap_or_else(PoisonError::into_inner).clone()
    }

    #[cfg(feature = "failpoints")]
    pub(crate) fn set_lease(&self, lease: &crate::broker::Lease) {
        *self.lease.lock().unwrap_or_else(PoisonError::into_inner) = Some(lease.clone());
    }

    /// The tasks of this process.
    pub(crate) fn tasks(&self) -> BTreeMap<TaskId, TaskStatus> {
        self.tasks.lock().unwrap_or_else(PoisonError::into_inner).clone()
    }

    /// The figures now.
    pub(crate) fn figures(&self) -> Figures {
        let read = |counter: &AtomicU64| counter.load(Ordering::Relaxed);
        Figures {
            processed: read(&self.processed),
            commits: read(&self.commits),
            aborts: read(&self.aborts),
            fenced: read(&self.fenced),
            recycled: read(&self.recycled),
            restored: read(&self.restored),
            dropped_null_key: read(&self.dropped_null_key),
        }
    }
}

/// Adds to a counter of the board.
pub(crate) fn count(counter: &AtomicU64, by: u64) {
    counter.fetch_add(by, Ordering::Relaxed);
}
