//! A running process: its threads, its start and its end.

mod crew;
mod engine;
mod mailbox;
mod placement;
mod prepare;

use std::collections::BTreeMap;
use std::fmt;
use std::panic::{AssertUnwindSafe, catch_unwind};
use std::sync::atomic::{AtomicBool, Ordering};
use std::sync::{Arc, Mutex, PoisonError};
use std::thread::JoinHandle;
use std::time::{Duration, Instant};

pub(crate) use crew::{Crew, Report};
pub(crate) use engine::{Engine, count};
pub use engine::{Figures, TaskStatus};
pub(crate) use mailbox::Mailbox;

use crate::broker::Broker;
use crate::broker::kafka::Kafka;
use crate::config::StreamsConfig;
use crate::error::{Error, Result};
use crate::group::TaskId;
use crate::record::Timestamp;
use crate::restore::{RestoreOrder, Restorer};
use crate::time::{Clock, SystemClock};
use crate::topology::Topology;
use crate::wake::Waker;
use crate::worker::{Worker, WorkerOrder};

/// A thread sleeps no longer than this, so that it notices a clock that jumped with the machine asleep.
const LONGEST_SLEEP: Duration = Duration::from_secs(1);

/// Where a process stands.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
#[non_exhaustive]
pub enum StreamsState {
    /// It has no lease yet, or some of its tasks do not run yet.
    Rebalancing,
    /// All its tasks run.
    Running,
    /// It commits and releases its tasks.
    PendingShutdown,
    /// It has ended.
    NotRunning,
    /// It has ended because of an error.
    Error,
}

/// A running process of an application.
///
/// Start the same program any number of times: the processes share the partitions among them. Each needs a state
/// directory of its own. Start and shutdown block, also inside an async runtime: use `spawn_blocking` where that matters.
pub struct KafkaStreams {
    engine: Arc<Engine>,
    crew: Mailbox<Report>,
    shared: Arc<Shared>,
    threads: Vec<JoinHandle<()>>,
}

/// What the crew's thread tells the handle.
#[derive(Debug, Default)]
struct Shared {
    member: AtomicBool,
    leaving: AtomicBool,
    done: AtomicBool,
    ended: Waker,
    failure: Mutex<Option<Error>>,
}

impl KafkaStreams {
    /// Starts a process on the Kafka cluster that the settings name.
    pub fn start(topology: &Topology, config: StreamsConfig) -> Result<Self> {
        config.check()?;
        let broker: Arc<dyn Broker> = Arc::new(Kafka::connect(config.connection())?);
        Self::start_on(topology, config, broker)
    }

    /// Starts a process on a broker that is at hand: the embedded one, or a Kafka connection that is shared.
    pub fn start_on(topology: &Topology, config: StreamsConfig, broker: Arc<dyn Broker>) -> Result<Self> {
        let engine = Arc::new(prepare::prepare(topology, config, broker)?);
        let process_id = engine.directory.instance().to_string();
        let instance = engine.config.instance_id.clone().unwrap_or_else(|| process_id.clone());
        let crew = Mailbox::new(Waker::new());
        let workers: Vec<_> = (0..engine.config.threads).map(|_| Mailbox::new(Waker::new())).collect();
        let orders = Mailbox::new(Waker::new());
        let shared = Arc::new(Shared::default());
        let restorer = Restorer::new(Arc::clone(&engine), orders.clone(), workers.clone())?;
        let member = Crew::new(Arc::clone(&engine), crew.clone(), workers.clone(), process_id)?;

        let spawn_all = || {
            let mut threads = Vec::with_capacity(workers.len().saturating_add(2));
            threads.push(spawn("headwater-restore", &crew, || run_restorer(restorer))?);
            for (inbox, index) in workers.iter().zip(0..) {
                let transactional_id = format!("{}-{instance}-{index}", engine.config.application_id);
                let (engine, inbox, reports, orders) =
                    (Arc::clone(&engine), inbox.clone(), crew.clone(), orders.clone());
                let run = move || run_worker(engine, index, inbox, &reports, orders, &transactional_id);
                threads.push(spawn(&format!("headwater-worker-{index}"), &crew, run)?);
            }
            let (waker, told) = (crew.waker().clone(), Arc::clone(&shared));
            let (workers, orders) = (workers.clone(), orders.clone());
            threads.push(spawn("headwater-member", &crew, move || {
                run_crew(member, &waker, &told, &workers, &orders);
                Ok(())
            })?);
            Ok(threads)
        };
        match spawn_all() {
            Ok(threads) => Ok(Self { engine, crew, shared, threads }),
            Err(error) => {
                stop_all(&workers, &orders);
                Err(error)
            }
        }
    }

    /// Where the process stands.
    #[must_use]
    pub fn state(&self) -> StreamsState {
        if self.shared.done.load(Ordering::SeqCst) {
            let failed = self.shared.failure.lock().unwrap_or_else(PoisonError::into_inner).is_some();
            return if failed { StreamsState::Error } else { StreamsState::NotRunning };
        }
        if self.shared.leaving.load(Ordering::SeqCst) {
            return StreamsState::PendingShutdown;
        }
        let running = self.tasks().values().all(|status| *status == TaskStatus::Running);
        if running && self.shared.member.load(Ordering::SeqCst) {
            StreamsState::Running
        } else {
            StreamsState::Rebalancing
        }
    }

    /// The tasks of this process and where each stands.
    #[must_use]
    pub fn tasks(&self) -> BTreeMap<TaskId, TaskStatus> {
        self.engine.board.tasks()
    }

    /// The figures of this process.
    #[must_use]
    pub fn figures(&self) -> Figures {
        self.engine.board.figures()
    }

    /// Commits, releases all tasks, leaves the group and ends, inside the deadline.
    pub fn shutdown(mut self, deadline: Duration) -> Result<()> {
        self.shared.leaving.store(true, Ordering::SeqCst);
        self.crew.send(Report::Shutdown);
        self.end(deadline)
    }

    /// Runs until SIGTERM or ctrl-c, then shuts down inside the deadline; or until the process fails.
    pub fn run_until_signal(self, deadline: Duration) -> Result<()> {
        let signalled = Arc::new(AtomicBool::new(false));
        let (told, waker) = (Arc::clone(&signalled), self.shared.ended.clone());
        // A runtime of its own on a thread of its own: the caller may be inside one already.
        std::thread::Builder::new()
            .name("headwater-signals".to_owned())
            .spawn(move || {
                if let Err(error) = wait_for_signal() {
                    tracing::error!(event = "signals.unavailable", %error, "the process stops");
                }
                told.store(true, Ordering::SeqCst);
                waker.wake();
            })
            .map_err(|error| Error::Engine(format!("no thread could be made: {error}")))?;
        while !signalled.load(Ordering::SeqCst) && !self.shared.done.load(Ordering::SeqCst) {
            self.shared.ended.wait(LONGEST_SLEEP);
        }
        self.shutdown(deadline)
    }

    fn end(&mut self, deadline: Duration) -> Result<()> {
        let until = Instant::now() + deadline;
        while !self.shared.done.load(Ordering::SeqCst) {
            let left = until.saturating_duration_since(Instant::now());
            if left.is_zero() {
                self.threads.clear();
                return Err(Error::Deadline(format!(
                    "the process did not end within {} ms: its last transaction will be aborted by the broker, its \
                     last records processed again",
                    deadline.as_millis()
                )));
            }
            self.shared.ended.wait(left.min(LONGEST_SLEEP));
        }
        // A thread that is stuck, in user code for instance, is left behind: the process is to end all the same.
        while !self.threads.iter().all(JoinHandle::is_finished) && Instant::now() < until {
            std::thread::sleep(Duration::from_millis(1));
        }
        self.threads.clear();
        self.shared.failure.lock().unwrap_or_else(PoisonError::into_inner).take().map_or(Ok(()), Err)
    }
}

impl Drop for KafkaStreams {
    /// Ends without a last commit, as a crash would, should nobody have called [`shutdown`](Self::shutdown).
    fn drop(&mut self) {
        if !self.threads.is_empty() {
            self.crew.send(Report::Abandon);
            if let Err(error) = self.end(Duration::from_secs(10)) {
                tracing::error!(event = "process.abandoned", %error);
            }
        }
    }
}

impl fmt::Debug for KafkaStreams {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        f.debug_struct("KafkaStreams").field("state", &self.state()).finish_non_exhaustive()
    }
}

/// Runs a step whenever it is due or woken, until it answers `None`.
fn drive(clock: &dyn Clock, waker: &Waker, mut step: impl FnMut(Timestamp) -> Result<Option<Timestamp>>) -> Result<()> {
    loop {
        let now = clock.now();
        let Some(due) = step(now)? else { return Ok(()) };
        if due > now {
            let wait = u64::try_from(due.saturating_sub(now)).unwrap_or_default();
            waker.wait(Duration::from_millis(wait).min(LONGEST_SLEEP));
        }
    }
}

fn run_restorer(mut restorer: Restorer) -> Result<()> {
    let waker = restorer.waker();
    drive(&SystemClock::new(), &waker, |now| {
        let due = restorer.step(now)?;
        Ok((!restorer.is_stopped()).then_some(due))
    })
}

/// Runs a worker to its end; the crew is told of it, and why first.
fn run_worker(
    engine: Arc<Engine>,
    index: usize,
    inbox: Mailbox<WorkerOrder>,
    reports: &Mailbox<Report>,
    orders: Mailbox<RestoreOrder>,
    transactional_id: &str,
) -> Result<()> {
    let run = || {
        let (waker, clock) = (inbox.waker().clone(), SystemClock::new());
        let mut worker = Worker::new(engine, index, inbox, reports.clone(), orders, transactional_id, clock.now())?;
        drive(&clock, &waker, |now| {
            let due = worker.step(now)?;
            Ok((!worker.is_stopped()).then_some(due))
        })
    };
    let ran = catch_unwind(AssertUnwindSafe(run)).unwrap_or_else(|panic| Err(panicked(&*panic)));
    if let Err(error) = ran {
        reports.send(Report::Failed { error });
    }
    reports.send(Report::Ended { worker: index });
    Ok(())
}

fn run_crew(
    mut crew: Crew,
    waker: &Waker,
    told: &Shared,
    workers: &[Mailbox<WorkerOrder>],
    orders: &Mailbox<RestoreOrder>,
) {
    let run = || {
        drive(&SystemClock::new(), waker, |now| {
            let due = crew.step(now);
            told.member.store(crew.is_member(), Ordering::SeqCst);
            Ok((!crew.is_done()).then_some(due))
        })
    };
    let ran = catch_unwind(AssertUnwindSafe(run)).unwrap_or_else(|panic| Err(panicked(&*panic)));
    stop_all(workers, orders);
    *told.failure.lock().unwrap_or_else(PoisonError::into_inner) = crew.failure().or(ran.err());
    told.done.store(true, Ordering::SeqCst);
    told.ended.wake();
}

/// Ends the threads of workers and restorer; the restorer last, so that it closes the stores that come back.
fn stop_all(workers: &[Mailbox<WorkerOrder>], orders: &Mailbox<RestoreOrder>) {
    workers.iter().for_each(|worker| worker.send(WorkerOrder::Stop));
    orders.send(RestoreOrder::Stop);
}

/// A named thread whose error or panic is reported to the crew.
fn spawn(
    name: &str,
    crew: &Mailbox<Report>,
    run: impl FnOnce() -> Result<()> + Send + 'static,
) -> Result<JoinHandle<()>> {
    let crew = crew.clone();
    let run = move || {
        let ran = catch_unwind(AssertUnwindSafe(run)).unwrap_or_else(|panic| Err(panicked(&*panic)));
        if let Err(error) = ran {
            crew.send(Report::Failed { error });
        }
    };
    let spawned = std::thread::Builder::new().name(name.to_owned()).spawn(run);
    spawned.map_err(|error| Error::Engine(format!("thread {name} could not be made: {error}")))
}

fn panicked(panic: &(dyn std::any::Any + Send)) -> Error {
    let text = panic.downcast_ref::<&str>().copied().or_else(|| panic.downcast_ref::<String>().map(String::as_str));
    Error::Engine(format!("a thread panicked: {}", text.unwrap_or("without a message")))
}

/// Blocks until SIGTERM or ctrl-c comes. Not to be called from inside an async runtime: give it a thread.
pub fn wait_for_signal() -> std::io::Result<()> {
    let runtime = tokio::runtime::Builder::new_current_thread().enable_io().build()?;
    runtime.block_on(async {
        #[cfg(unix)]
        {
            let mut terminate = tokio::signal::unix::signal(tokio::signal::unix::SignalKind::terminate())?;
            tokio::select! {
                _ = terminate.recv() => Ok(()),
                interrupted = tokio::signal::ctrl_c() => interrupted,
            }
        }
        #[cfg(not(unix))]
        tokio::signal::ctrl_c().await
    })
}
