//! Brings stores up to the end of their changelogs, apart from the workers that run tasks.
//!
//! One restorer per process, with a consumer of its own, so that a restoring partition neither waits for the inputs nor
//! disturbs them. It also opens and closes databases: both write to disk, which no worker waits for.

use std::collections::{BTreeSet, VecDeque};
use std::ops::Range;
use std::sync::Arc;

use headwater_changelog::layout::{Layout, Timestamped};
use headwater_changelog::restore::{Record, Restorer as Folder};
use headwater_changelog::{Backend, Identity, Memory, StoreId, adopt, prepare};

use crate::broker::{Admin, BEGINNING, Batch, Consumer, ConsumerOptions, Edge, ErrorClass, Isolation, Slot, ride_out};
use crate::config::Guarantee;
#[cfg(feature = "rocksdb")]
use crate::config::StoreKind;
use crate::error::{Error, Result};
use crate::group::TaskId;
use crate::record::{Timestamp, TopicPartition};
use crate::runtime::{Engine, Mailbox, count};
use crate::wake::Waker;
use crate::worker::WorkerOrder;

/// Records folded per store and step: a step stays short, so that new orders are heard.
const RECORDS_PER_STEP: usize = 10_000;
/// Pause before the broker is asked again, ms.
const RETRY_MS: i64 = 500;
/// Pause while a task's stores are still with a worker, ms.
const LENT_MS: i64 = 20;

/// What a worker asks of the restorer.
pub(crate) enum RestoreOrder {
    /// Open a task's stores, or go on with those that it has, and bring them up to date.
    Restore(Request),
    /// Give a restore up and close its stores. Should its answer be under way, the worker sends them back.
    Cancel { task: TaskId },
    /// Close a task's stores.
    Close { task: TaskId, backend: Box<dyn Backend> },
    /// End.
    Stop,
}

/// A task whose stores are to be brought up to date.
pub(crate) struct Request {
    pub(crate) task: TaskId,
    pub(crate) worker: usize,
    /// Comes back with the answer, so that a worker can tell an answer to an earlier request.
    pub(crate) attempt: u64,
    /// Its stores, if they are open.
    pub(crate) backend: Option<Box<dyn Backend>>,
}

struct Restoring {
    task: TaskId,
    worker: usize,
    attempt: u64,
    backend: Box<dyn Backend>,
    stores: Vec<RestoringStore>,
}

struct RestoringStore {
    store: StoreId,
    identity: Identity,
    slot: Slot,
    // The high watermark when it began. A transaction that was still open below it must end first: its outcome
    // may be committed already while its markers are under way, so the last stable offset says too little.
    end: i64,
    done: bool,
}

/// Restores the tasks of one process.
pub(crate) struct Restorer {
    engine: Arc<Engine>,
    inbox: Mailbox<RestoreOrder>,
    workers: Vec<Mailbox<WorkerOrder>>,
    consumer: Box<dyn Consumer>,
    admin: Box<dyn Admin>,
    active: Vec<Restoring>,
    // Tasks whose stores are open with a worker: they cannot be opened again before they are back.
    lent: BTreeSet<TaskId>,
    // Requests that cannot be served yet, and when to try again.
    postponed: VecDeque<(Timestamp, Request)>,
    folder: Folder,
    stopped: bool,
}

impl Restorer {
    pub(crate) fn new(
        engine: Arc<Engine>,
        inbox: Mailbox<RestoreOrder>,
        workers: Vec<Mailbox<WorkerOrder>>,
    ) -> Result<Self> {
        let options = ConsumerOptions {
            client_id: format!("{}-restore", engine.config.application_id),
            isolation: match engine.config.guarantee {
                Guarantee::AtLeastOnce => Isolation::ReadUncommitted,
                Guarantee::ExactlyOnce => Isolation::ReadCommitted,
            },
            queued_bytes: engine.config.queued_bytes,
        };
        let consumer = engine.broker.consumer(&options, inbox.waker().clone())?;
        let admin = engine.broker.admin()?;
        Ok(Self {
            engine,
            inbox,
            workers,
            consumer,
            admin,
            active: Vec::new(),
            lent: BTreeSet::new(),
            postponed: VecDeque::new(),
            folder: Folder::new(),
            stopped: false,
        })
    }

    /// The signal that it waits on.
    pub(crate) fn waker(&self) -> Waker {
        self.inbox.waker().clone()
    }

    /// Whether it has ended, as ordered.
    pub(crate) fn is_stopped(&self) -> bool {
        self.stopped
    }

    /// Does what there is to do; answers when it wants to run next, should nothing wake it.
    pub(crate) fn step(&mut self, now: Timestamp) -> Result<Timestamp> {
        ride_out(self.consumer.poll())?;
        while let Some(order) = self.inbox.take() {
            match order {
                RestoreOrder::Restore(request) => self.begin(now, request)?,
                RestoreOrder::Cancel { task } => self.cancel(task)?,
                RestoreOrder::Stop => self.stopped = true,
                RestoreOrder::Close { task, backend } => {
                    self.lent.remove(&task);
                    close(task, backend);
                }
            }
        }
        for _ in 0..self.postponed.len() {
            match self.postponed.pop_front() {
                Some((due, request)) if due <= now => self.begin(now, request)?,
                Some(postponed) => self.postponed.push_back(postponed),
                None => break,
            }
        }
        let mut busy = false;
        for restoring in &mut self.active {
            busy |= advance(&self.engine, &mut *self.consumer, &mut self.folder, restoring)?;
        }
        for restored in self.active.extract_if(.., |restoring| restoring.stores.iter().all(|store| store.done)) {
            let slots: Vec<_> = restored.stores.iter().map(|store| store.slot).collect();
            self.consumer.unassign(&slots)?;
            let Restoring { task, worker, attempt, backend, .. } = restored;
            self.lent.insert(task);
            answer(&self.workers, worker, WorkerOrder::Restored { task, attempt, backend: Ok(backend) });
        }
        let retry = self.postponed.iter().map(|(due, _)| *due).min().unwrap_or(Timestamp::MAX);
        Ok(if busy { now } else { retry })
    }

    fn begin(&mut self, now: Timestamp, request: Request) -> Result<()> {
        let Request { task, worker, attempt, backend } = request;
        if backend.is_none() && self.lent.contains(&task) {
            self.postponed.push_back((now.saturating_add(LENT_MS), Request { task, worker, attempt, backend }));
            return Ok(());
        }
        self.lent.remove(&task);
        let failed = |error| WorkerOrder::Restored { task, attempt, backend: Err(error) };
        let mut backend = match backend.map_or_else(|| self.open(task), Ok) {
            Ok(backend) => backend,
            Err(error) => {
                answer(&self.workers, worker, failed(error));
                return Ok(());
            }
        };
        match self.assign(task, &mut *backend) {
            Ok(stores) => self.active.push(Restoring { task, worker, attempt, backend, stores }),
            Err(Error::Broker(error)) if error.is_passing() => {
                tracing::warn!(event = "restore.postponed", %task, %error, "the changelog cannot be asked about yet");
                let request = Request { task, worker, attempt, backend: Some(backend) };
                self.postponed.push_back((now.saturating_add(RETRY_MS), request));
            }
            Err(error) => answer(&self.workers, worker, failed(error)),
        }
        Ok(())
    }

    /// Opens a task's stores where the settings say.
    fn open(&self, task: TaskId) -> Result<Box<dyn Backend>> {
        let plan = &self.engine.topology.plan().stores;
        let subtopology = self.engine.subtopology(task);
        let stores = subtopology.map(|subtopology| subtopology.stores.as_slice()).unwrap_or_default();
        let names: Vec<&str> = stores.iter().filter_map(|store| plan.get(store.0)).map(|store| &*store.name).collect();
        match self.engine.config.store {
            #[cfg(feature = "rocksdb")]
            StoreKind::RocksDb if !names.is_empty() => {
                let id = headwater_changelog::TaskId {
                    subtopology: task.subtopology,
                    partition: u32::try_from(task.partition).unwrap_or_default(),
                };
                let path = self.engine.directory.task(id)?;
                Ok(Box::new(headwater_changelog::rocks::open(path, &names, &self.engine.rocks)?))
            }
            _ => Ok(Box::new(Memory::new(&names))),
        }
    }

    /// Judges each store against its changelog and begins to read where it left off.
    fn assign(&mut self, task: TaskId, backend: &mut dyn Backend) -> Result<Vec<RestoringStore>> {
        let engine = Arc::clone(&self.engine);
        let plan = engine.topology.plan();
        let stores = engine.subtopology(task).map(|subtopology| subtopology.stores.as_slice()).unwrap_or_default();
        let mut found = Vec::with_capacity(stores.len());
        for (store, index) in stores.iter().zip(0u16..) {
            let changelog = plan.stores.get(store.0).and_then(|store| engine.outgoing.get(store.changelog.0));
            let changelog =
                changelog.ok_or_else(|| Error::Engine(format!("{task} has a store without a changelog")))?;
            let info = engine.changelogs.get(&changelog.name);
            let info = info.ok_or_else(|| Error::Engine(format!("nothing is known of topic {}", changelog.name)))?;
            let identity = Identity {
                cluster: engine.cluster_id.clone(),
                application: engine.config.application_id.clone(),
                topic: changelog.name.to_string(),
                topic_id: info.id.clone(),
                partition: task.partition,
                layout: Timestamped.version().to_owned(),
            };
            found.push((StoreId(index), TopicPartition::new(Arc::clone(&changelog.name), task.partition), identity));
        }
        let partitions: Vec<_> = found.iter().map(|(_, partition, _)| partition.clone()).collect();
        let ranges = self.ranges(&partitions)?;
        let mut starts = Vec::with_capacity(found.len());
        for ((store, partition, identity), range) in found.iter().zip(&ranges) {
            starts.push((partition.clone(), prepare(backend, *store, identity, range)?));
        }
        let slots = self.consumer.assign(&starts)?;
        let mut stores = Vec::with_capacity(found.len());
        for (((store, _, identity), slot), ((_, start), range)) in
            found.into_iter().zip(slots).zip(starts.iter().zip(ranges))
        {
            stores.push(RestoringStore { store, identity, slot, end: range.end, done: *start >= range.end });
        }
        Ok(stores)
    }

    /// First offsets and high watermarks. Not the last stable offsets: right after a commit those lag behind.
    fn ranges(&mut self, partitions: &[TopicPartition]) -> Result<Vec<Range<i64>>> {
        if partitions.is_empty() {
            return Ok(Vec::new());
        }
        let starts = self.admin.offsets(partitions, Edge::Start)?;
        let ends = self.admin.offsets(partitions, Edge::End)?;
        Ok(starts.into_iter().zip(ends).map(|(start, end)| start..end).collect())
    }

    fn cancel(&mut self, task: TaskId) -> Result<()> {
        self.postponed.retain(|(_, request)| request.task != task);
        for cancelled in self.active.extract_if(.., |restoring| restoring.task == task) {
            let slots: Vec<_> = cancelled.stores.iter().map(|store| store.slot).collect();
            self.consumer.unassign(&slots)?;
            close(task, cancelled.backend);
        }
        Ok(())
    }
}

/// Folds what has arrived. Says whether anything had.
fn advance(
    engine: &Engine,
    consumer: &mut dyn Consumer,
    folder: &mut Folder,
    restoring: &mut Restoring,
) -> Result<bool> {
    let mut busy = false;
    for store in restoring.stores.iter_mut().filter(|store| !store.done) {
        let batch = match consumer.fetch(store.slot, RECORDS_PER_STEP) {
            Ok(Some(batch)) => batch,
            Ok(None) => continue,
            Err(error) if error.class == ErrorClass::OutOfRange => {
                // Compaction or retention has passed the store by since it was judged: only the start is sound.
                tracing::warn!(event = "restore.rebuild", task = %restoring.task, %error, "rebuilding the store");
                adopt(&mut *restoring.backend, store.store, &store.identity)?;
                consumer.seek(store.slot, BEGINNING)?;
                continue;
            }
            Err(error) if error.is_passing() => {
                tracing::warn!(event = "restore.interrupted", task = %restoring.task, %error, "reading on");
                continue;
            }
            Err(error) => return Err(error.into()),
        };
        busy = true;
        let records = (0..batch.len()).filter_map(|index| changelog_record(&*batch, index));
        let applied = folder.apply(&mut *restoring.backend, store.store, &Timestamped, records, batch.next_offset())?;
        count(&engine.board.restored, applied.records);
        store.done = batch.next_offset() >= store.end;
    }
    Ok(busy)
}

/// A changelog record; one without a key cannot be of ours and changes nothing.
fn changelog_record(batch: &dyn Batch, index: usize) -> Option<Record<'_>> {
    let record = batch.record(index)?;
    Some(Record { key: record.key?, value: record.value, timestamp: record.timestamp, offset: record.offset })
}

fn close(task: TaskId, mut backend: Box<dyn Backend>) {
    if let Err(error) = backend.flush() {
        tracing::error!(event = "store.flush_failed", %task, %error, "the changelog will be replayed further");
    }
}

fn answer(workers: &[Mailbox<WorkerOrder>], worker: usize, restored: WorkerOrder) {
    if let Some(worker) = workers.get(worker) {
        worker.send(restored);
    }
}
