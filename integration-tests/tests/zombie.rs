//! A process that is paused inside an open transaction, taken for dead, and let go on.
//!
//! One of two processes stands still with its outputs written and acknowledged and its positions not yet sent. It is paused until the
//! other has its tasks, and goes on when the membership has moved past it. Three rules keep its batch out: its member does not rejoin
//! before the worker has dropped the batch; the worker commits under the lease that the batch was made under; and where the
//! transaction has run out meanwhile, the broker refuses the producer. Each is shown by itself, and what happens
//! without the second is shown too.

use std::collections::BTreeMap;
use std::fs;
use std::path::PathBuf;
use std::time::{Duration, Instant};

use headwater_integration_tests::oracle::{big_endian, check_counts_exact, count_per_key};
use headwater_integration_tests::{
    Broker, Failure, Feeder, Fleet, Isolation, Judge, Outgoing, Program, Record, Sent, Topics, eventually, unique,
    wait_for_pause,
};

const PARTITIONS: i32 = 8;
const TASKS: u64 = 8;
/// Records a second while all of this goes on.
const RATE: u32 = 400;
const KEYS: u64 = 96;
/// The session, with room for a machine that is compiling.
const DEADLINE: Duration = Duration::from_secs(60);
/// The zombie is away for at least this long.
const AWAY: Duration = Duration::from_secs(10);

/// Two processes of a program, the first of which can be held in an open transaction.
struct Scene {
    bootstrap: String,
    application: String,
    input: String,
    output: String,
    // Before the folder that they look at.
    fleet: Fleet,
    feeder: Feeder,
    hold: PathBuf,
    _folder: tempfile::TempDir,
}

/// What a run came to.
struct Outcome {
    sent: Vec<Sent>,
    outputs: Vec<Vec<Record>>,
}

impl Scene {
    /// Starts both, and waits until each runs half of the tasks. `points` are further fail points of the first.
    fn start(program: &[&str], points: &str) -> Result<Self, Failure> {
        let bootstrap = Broker::shared()?.bootstrap().to_owned();
        let (application, input, output) = (unique("zombie"), unique("zombie-in"), unique("zombie-out"));
        let topics = Topics::new(&bootstrap)?;
        topics.create(&input, PARTITIONS, &[])?;
        topics.create(&output, PARTITIONS, &[])?;
        let folder = tempfile::tempdir()?;
        let hold = folder.path().join("hold");
        let points = format!("commit.hold={}{points}", hold.display());
        let fleet = Fleet::start(2, |number, state| {
            let run = Program::new(env!("CARGO_BIN_EXE_zombie_count"))
                .args(["--bootstrap", &bootstrap, "--application", &application])
                .args(["--input", &input, "--output", &output])
                .args(["--state-dir".to_owned(), state.display().to_string()])
                .args(["--set", "session.timeout.ms=6000", "--set", "heartbeat.interval.ms=500"])
                .args(program.iter().copied());
            if number == 0 { run.env("HEADWATER_FAILPOINTS", &points) } else { run }
        })?;
        let feeder = Feeder::start(&bootstrap, &input, RATE, record)?;
        let mut scene = Self { bootstrap, application, input, output, fleet, feeder, hold, _folder: folder };
        scene.wait_for_halves()?;
        Ok(scene)
    }

    /// A figure of a process, as it said last.
    fn figure(&mut self, process: usize, name: &str) -> Result<u64, Failure> {
        let process = self.fleet.process(process)?;
        let lines = process.lines();
        let status = lines.iter().rfind(|line| line.starts_with("status ")).map_or("", String::as_str);
        let figure = status.split(' ').find_map(|part| part.strip_prefix(name)?.strip_prefix('=')?.parse().ok());
        figure.ok_or_else(|| process.failure(&format!("has not told its {name} yet")))
    }

    fn wait_for_figure(&mut self, process: usize, name: &str, holds: impl Fn(u64) -> bool) -> Result<u64, Failure> {
        eventually(DEADLINE, &format!("process #{process} to tell another {name}"), || {
            match self.figure(process, name) {
                Ok(figure) if holds(figure) => Ok(figure),
                Ok(figure) => Err(Failure::new(format!("{name}={figure}"))),
                Err(failure) => Err(failure),
            }
        })
        .map_err(|failure| match self.fleet.process(process) {
            Ok(process) => process.failure(&failure.to_string()),
            Err(_) => failure,
        })
    }

    fn wait_for_halves(&mut self) -> Result<(), Failure> {
        for process in [0, 1] {
            self.wait_for_figure(process, "running", |running| running == TASKS / 2)?;
        }
        Ok(())
    }

    /// Holds the first process in an open transaction, and pauses it.
    fn pause_the_first(&mut self) -> Result<Instant, Failure> {
        self.wait_for_figure(0, "processed", |processed| processed > 0)?;
        fs::write(&self.hold, "")?;
        let held = self.hold.with_extension("held");
        eventually(DEADLINE, "a worker to be held", || if held.exists() { Ok(()) } else { Err("none is") })?;
        let process = self.fleet.process(0)?;
        process.stop()?;
        wait_for_pause(process.id(), true, DEADLINE)?;
        Ok(Instant::now())
    }

    /// Ends the pause, at [`AWAY`] after it began at the earliest. The worker is still held.
    fn wake_the_first(&mut self, paused: Instant) -> Result<(), Failure> {
        std::thread::sleep(AWAY.saturating_sub(paused.elapsed()));
        let process = self.fleet.process(0)?;
        process.cont()?;
        process.wait_for_line(DEADLINE, |line| line.contains("member.lost")).map(|_| ())
    }

    fn release(&self) -> Result<(), Failure> {
        Ok(fs::remove_file(&self.hold)?)
    }

    /// Both process new input again; then the input ends, everything is processed, and both leave.
    fn finish(mut self) -> Result<Outcome, Failure> {
        self.wait_for_halves()?;
        let processed = self.figure(0, "processed")?;
        self.wait_for_figure(0, "processed", |now| now > processed.saturating_add(u64::from(RATE)))?;
        let sent = self.feeder.stop()?;
        let judge = Judge::new(&self.bootstrap);
        let ends: Vec<_> = judge.ends(&self.input, Isolation::Committed)?.iter().map(|(_, end)| Some(*end)).collect();
        eventually(DEADLINE, "all input to be processed", || {
            let committed = judge.committed(&self.application, &self.input).map_err(|failure| failure.to_string())?;
            if committed == ends { Ok(()) } else { Err(format!("{committed:?} of {ends:?}")) }
        })?;
        self.fleet.shut_down(DEADLINE)?;
        Ok(Outcome { sent, outputs: judge.read_topic(&self.output, Isolation::Committed)? })
    }

    /// How many records are in the output of the stateless program more than once, aborted and open transactions included.
    fn written_twice(&self) -> Result<usize, Failure> {
        Ok(doubled(&Judge::new(&self.bootstrap).read_topic(&self.output, Isolation::Uncommitted)?))
    }
}

/// Record `index`: a key is always in the same partition, so that it can be counted without a repartition.
fn record(index: u64) -> Outgoing {
    let key = index % KEYS;
    let partition = i32::try_from(key % TASKS).unwrap_or(0);
    let now = std::time::SystemTime::now().duration_since(std::time::UNIX_EPOCH).unwrap_or_default();
    Outgoing {
        partition,
        timestamp: i64::try_from(now.as_millis()).unwrap_or(0),
        key: format!("key-{key}").into_bytes(),
        value: index.to_string().into_bytes(),
    }
}

/// Values that are there more than once.
fn doubled(outputs: &[Vec<Record>]) -> usize {
    let mut seen: BTreeMap<&[u8], usize> = BTreeMap::new();
    for value in outputs.iter().flatten().filter_map(|record| record.value.as_deref()) {
        *seen.entry(value).or_insert(0) += 1;
    }
    seen.values().filter(|times| **times > 1).count()
}

/// Each record that was sent came out, however often.
fn assert_nothing_is_missing(outcome: &Outcome) {
    let out: std::collections::BTreeSet<_> =
        outcome.outputs.iter().flatten().filter_map(|record| record.value.as_ref()).collect();
    let missing = outcome.sent.iter().filter(|sent| !out.contains(&sent.record.value)).count();
    assert_eq!(missing, 0, "of {} records", outcome.sent.len());
    assert_eq!(out.len(), outcome.sent.len(), "nothing but what was sent");
}

fn assert_counts_are_exact(outcome: &Outcome) -> Result<(), Failure> {
    let expected = count_per_key(outcome.sent.iter().map(|sent| sent.record.key.clone()));
    check_counts_exact(&expected, &outcome.outputs, big_endian)
}

const LONG_TRANSACTION: [&str; 2] = ["--set", "transaction.timeout.ms=60000"];
const STATELESS: [&str; 3] = ["--stateless", "--set", "transaction.timeout.ms=60000"];

/// The other member has the zombie's tasks, and has written anew what the zombie has written and not committed.
fn take_over(scene: &mut Scene) -> Result<(), Failure> {
    scene.wait_for_figure(1, "running", |running| running == TASKS)?;
    eventually(DEADLINE, "the other member to have processed the zombie's records", || {
        let twice = scene.written_twice().map_err(|failure| failure.to_string())?;
        if twice > 0 { Ok(()) } else { Err("none is written twice".to_owned()) }
    })
}

#[test]
fn a_zombie_does_not_rejoin_before_its_batch_is_dropped() -> Result<(), Failure> {
    let mut scene = Scene::start(&STATELESS, "")?;
    let paused = scene.pause_the_first()?;
    take_over(&mut scene)?;
    scene.wake_the_first(paused)?;
    // Time for many a rejoin, were it made.
    std::thread::sleep(Duration::from_secs(3));
    assert_eq!(scene.figure(1, "running")?, TASKS, "the zombie's member waits for its worker");
    scene.release()?;
    scene.wait_for_figure(0, "aborts", |aborts| aborts > 0)?;
    let outcome = scene.finish()?;
    assert_nothing_is_missing(&outcome);
    assert_eq!(doubled(&outcome.outputs), 0);
    Ok(())
}

#[test]
fn a_zombie_that_has_rejoined_is_refused_under_its_old_lease() -> Result<(), Failure> {
    let mut scene = Scene::start(&STATELESS, ",member.rejoin=unacknowledged")?;
    let paused = scene.pause_the_first()?;
    take_over(&mut scene)?;
    scene.wake_the_first(paused)?;
    scene.wait_for_figure(1, "running", |running| running == TASKS / 2)?;
    scene.release()?;
    scene.wait_for_figure(0, "fenced", |fenced| fenced > 0)?;
    let outcome = scene.finish()?;
    assert_nothing_is_missing(&outcome);
    assert_eq!(doubled(&outcome.outputs), 0);
    Ok(())
}

#[test]
fn without_the_lease_a_zombie_doubles_records() -> Result<(), Failure> {
    let mut scene = Scene::start(&STATELESS, ",member.rejoin=unacknowledged,commit.lease=fresh")?;
    let paused = scene.pause_the_first()?;
    take_over(&mut scene)?;
    scene.wake_the_first(paused)?;
    scene.wait_for_figure(1, "running", |running| running == TASKS / 2)?;
    scene.release()?;
    let outcome = scene.finish()?;
    assert_nothing_is_missing(&outcome);
    assert!(doubled(&outcome.outputs) > 0, "this test would not see what the lease is for");
    Ok(())
}

/// With a store, the new owner cannot even begin before the zombie's transaction has ended: the changelog has no stable end.
#[test]
fn counts_are_exact_after_a_zombie_under_its_old_lease() -> Result<(), Failure> {
    let mut scene = Scene::start(&LONG_TRANSACTION, ",member.rejoin=unacknowledged")?;
    let paused = scene.pause_the_first()?;
    scene.wait_for_figure(1, "other", |restoring| restoring > 0)?;
    scene.wake_the_first(paused)?;
    assert!(scene.figure(1, "running")? < TASKS, "the changelog of an open transaction has been passed");
    // It has rejoined, and the other has given half of the tasks back.
    scene.wait_for_figure(1, "tasks", |tasks| tasks == TASKS / 2)?;
    scene.release()?;
    scene.wait_for_figure(0, "fenced", |fenced| fenced > 0)?;
    assert_counts_are_exact(&scene.finish()?)
}

#[test]
fn counts_are_exact_when_the_broker_has_aborted_the_zombie() -> Result<(), Failure> {
    let mut scene = Scene::start(&[], "")?;
    let paused = scene.pause_the_first()?;
    // Possible only once the transaction has run out, after ten seconds unless said otherwise.
    scene.wait_for_figure(1, "running", |running| running == TASKS)?;
    scene.wake_the_first(paused)?;
    scene.release()?;
    scene.wait_for_figure(0, "recycled", |recycled| recycled > 0)?;
    assert_counts_are_exact(&scene.finish()?)
}

/// A worker that takes no step for too long makes its process leave; one that could take none, as its process stood still, does not.
#[test]
fn a_pause_is_not_taken_for_a_stuck_worker() -> Result<(), Failure> {
    // Shorter than the pause, longer than the worker is held after it.
    let mut scene = Scene::start(&["--set", "max.poll.interval.ms=9000"], "")?;
    let paused = scene.pause_the_first()?;
    scene.wake_the_first(paused)?;
    std::thread::sleep(Duration::from_secs(1));
    scene.fleet.expect_running()?;
    scene.release()?;
    assert_counts_are_exact(&scene.finish()?)
}
