//! Groups of members on the embedded broker in virtual time, by seed: they join, leave, die in silence, stop and go on, and their
//! requests are late, lost, or take effect though the answer is lost.
//!
//! What is checked all the time: within the group's current generation no two processes have the same task, dead and stopped ones
//! included; and every commit that is accepted continues from the one before, whoever made it. In the end, when all is
//! calm: every task runs once, and the numbers differ by one at most.

mod process;
mod wire;

use std::collections::BTreeMap;
use std::sync::atomic::{AtomicBool, AtomicU64, Ordering};
use std::sync::{Arc, Mutex};

use self::process::Process;
use super::{SubtopologyTasks, TaskId, TaskPlan};
use crate::broker::embedded::{Embedded, GroupState};
use crate::record::Timestamp;
use crate::time::{Clock, ManualClock};

const GROUP: &str = "g";
const SESSION_MS: i64 = 1000;
const HEARTBEAT_MS: i64 = 300;
const REBALANCE_MS: i64 = 2000;
const CHAOS_MS: i64 = 15_000;
const CALM_MS: i64 = 12_000;

/// Numbers by seed (Steele, Lea and Flood's SplitMix64). Clones go on with the same sequence.
#[derive(Clone, Debug)]
struct Dice(Arc<AtomicU64>);

impl Dice {
    fn new(seed: u64) -> Self {
        Self(Arc::new(AtomicU64::new(seed)))
    }

    /// One of 0 to `sides` − 1.
    fn roll(&self, sides: u64) -> u64 {
        const STEP: u64 = 0x9E37_79B9_7F4A_7C15;
        let mut z = self.0.fetch_add(STEP, Ordering::Relaxed).wrapping_add(STEP);
        z = (z ^ (z >> 30)).wrapping_mul(0xBF58_476D_1CE4_E5B9);
        z = (z ^ (z >> 27)).wrapping_mul(0x94D0_49BB_1331_11EB);
        (z ^ (z >> 31)) % sides
    }

    fn ms(&self, below: u64) -> i64 {
        i64::try_from(self.roll(below)).unwrap()
    }
}

/// What all processes of one run share.
#[derive(Clone)]
struct Shared {
    broker: Embedded,
    plan: Arc<TaskPlan>,
    dice: Dice,
    /// By task: the last position whose commit was accepted.
    committed: Arc<Mutex<BTreeMap<TaskId, i64>>>,
    /// Whether requests get lost.
    rough: Arc<AtomicBool>,
}

struct World {
    shared: Shared,
    clock: ManualClock,
    processes: Vec<Process>,
    born: u64,
    /// Counts what happened, so that a test can tell that it happened at all.
    counts: BTreeMap<&'static str, u32>,
}

impl World {
    fn new(seed: u64) -> Self {
        let clock = ManualClock::new(1_000_000);
        let dice = Dice::new(seed);
        let subtopology = |number: u64| SubtopologyTasks {
            topics: vec![format!("in-{number}").into()],
            partitions: i32::try_from(1 + dice.roll(6)).unwrap(),
            stateful: dice.roll(2) == 0,
        };
        let plan = TaskPlan { subtopologies: (0..1 + dice.roll(3)).map(subtopology).collect(), fingerprint: 5 };
        let shared = Shared {
            broker: Embedded::new(Arc::new(clock.clone())),
            plan: Arc::new(plan),
            dice,
            committed: Arc::default(),
            rough: Arc::new(AtomicBool::new(true)),
        };
        Self { shared, clock, processes: Vec::new(), born: 0, counts: BTreeMap::new() }
    }

    fn count(&mut self, what: &'static str) {
        *self.counts.entry(what).or_default() += 1;
    }

    fn start(&mut self, instance: Option<String>) {
        self.born += 1;
        self.processes.push(Process::new(&self.shared, self.born, instance, self.clock.now()));
        self.count("start");
    }

    /// Something happens to somebody.
    fn disturb(&mut self) {
        let now = self.clock.now();
        let alive: Vec<usize> = (0..self.processes.len()).filter(|&p| self.processes[p].alive()).collect();
        let dice = self.shared.dice.clone();
        let pick = |dice: &Dice| alive.get(usize::try_from(dice.roll(8)).unwrap() % alive.len().max(1)).copied();
        let Some(which) = pick(&dice) else { return self.start(None) };
        match dice.roll(10) {
            0..4 if alive.len() < 6 => {
                let instance = (dice.roll(3) == 0).then(|| format!("pod-{}", dice.roll(3)));
                self.start(instance);
            }
            0..6 => {
                self.processes[which].leave();
                self.count("leave");
            }
            6..8 => {
                let instance = self.processes[which].kill();
                self.count("kill");
                // A static member is often started again at once.
                if instance.is_some() && dice.roll(2) == 0 {
                    self.start(instance);
                    self.count("static restart");
                }
            }
            _ => {
                self.processes[which].stop_until(now + dice.ms(4000));
                self.count("stop");
            }
        }
    }

    /// Lets this much time pass, with something happening now and then if `rough`.
    fn run(&mut self, ms: i64, rough: bool) {
        self.shared.rough.store(rough, Ordering::Relaxed);
        let end = self.clock.now() + ms;
        let mut next_disturbance = self.clock.now();
        while self.clock.now() < end {
            if rough && self.clock.now() >= next_disturbance {
                self.disturb();
                next_disturbance = self.clock.now() + 50 + self.shared.dice.ms(1200);
            }
            self.shared.broker.tick();
            for process in 0..self.processes.len() {
                self.processes[process].run(self.clock.now());
                self.check();
            }
            let due = self.processes.iter().map(Process::due).chain(self.shared.broker.next_deadline());
            let due = due.min().unwrap_or(Timestamp::MAX).min(if rough { next_disturbance } else { end });
            self.clock.advance((due - self.clock.now()).max(1));
        }
    }

    /// No two processes have one task in the current generation.
    fn check(&self) {
        let (_, generation) = self.shared.broker.group(GROUP);
        let mut holders = BTreeMap::new();
        for (number, process) in self.processes.iter().enumerate() {
            let Some(lease) = process.lease().filter(|lease| lease.generation == generation) else { continue };
            // A static member's generation goes on with its next incarnation, and the earlier one is fenced by its member id.
            let succeeded = lease.instance_id.is_some()
                && self.processes[number + 1..].iter().any(|later| later.has_joined_as(&lease.instance_id));
            if succeeded {
                continue;
            }
            for task in process.held() {
                if let Some(other) = holders.insert(task, number) {
                    panic!("task {task} is with process {other} and with {number} in generation {generation}");
                }
            }
        }
    }
}

fn run(seed: u64) -> BTreeMap<&'static str, u32> {
    let mut world = World::new(seed);
    world.start(None);
    world.run(CHAOS_MS, true);
    for process in &mut world.processes {
        process.stop_until(0);
    }
    if !world.processes.iter().any(Process::stays) {
        world.start(None);
    }
    world.run(CALM_MS, false);

    let (state, generation) = world.shared.broker.group(GROUP);
    assert_eq!(state, GroupState::Stable);
    let alive: Vec<&Process> = world.processes.iter().filter(|process| process.stays()).collect();
    let mut running: Vec<TaskId> = Vec::new();
    let mut numbers = Vec::new();
    for process in alive {
        assert_eq!(process.lease().map(|lease| lease.generation), Some(generation), "{:?}", process.member.state());
        assert_eq!(process.member.state().releasing.len(), 0);
        let held = process.held();
        numbers.push(held.len());
        running.extend(held);
    }
    running.sort();
    let plan = world.shared.plan.subtopologies.iter().zip(0..);
    let all =
        plan.flat_map(|(s, subtopology)| (0..s.partitions).map(move |partition| TaskId { subtopology, partition }));
    assert_eq!(running, all.collect::<Vec<_>>());
    assert!(numbers.iter().max().unwrap() - numbers.iter().min().unwrap() <= 1, "{numbers:?}");
    for (task, position) in world.shared.committed.lock().unwrap().iter() {
        assert!(*position > 0, "{task} never went on");
    }
    for process in &world.processes {
        for (what, count) in &process.counts {
            *world.counts.entry(what).or_default() += count;
        }
    }
    world.counts
}

#[test]
fn whatever_happens_no_task_is_with_two_and_calm_brings_balance() {
    let mut counts: BTreeMap<&str, u32> = BTreeMap::new();
    for seed in 0..300 {
        let outcome = std::panic::catch_unwind(|| run(seed));
        for (what, count) in outcome.unwrap_or_else(|_| panic!("seed {seed} broke a rule; see above")) {
            *counts.entry(what).or_default() += count;
        }
    }
    // A simulation in which nothing goes wrong proves nothing.
    for what in [
        "start",
        "leave",
        "kill",
        "stop",
        "static restart",
        "granted",
        "lost",
        "released",
        "refused",
        "accepted",
        "failed",
    ] {
        assert!(counts.get(what).is_some_and(|&count| count > 20), "{what} did not happen: {counts:?}");
    }
}
