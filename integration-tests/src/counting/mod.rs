//! A count per key over a repartition, run by several processes while records keep coming: what the tests of kills,
//! restarts and scaling share.

mod evidence;
mod launch;
mod verdict;

use std::collections::BTreeSet;
use std::time::{Duration, Instant};

pub use launch::{Guarantee, Launch};

use crate::{
    Broker, Failure, Feeder, Fleet, Isolation, Judge, Sent, Status, Stream, Topics, Watch, eventually, unique,
};

/// Partitions of every topic.
pub const PARTITIONS: i32 = 8;
/// Records produced a second.
pub const RATE: u32 = 5000;
/// Different keys.
const KEYS: u32 = 1000;
/// Sub-topologies: before and after the repartition.
const SUBTOPOLOGIES: u32 = 2;
/// Time for the processes to share the tasks again, and for anything else that must go on.
const PATIENCE: Duration = Duration::from_secs(120);

/// A running application with its topics, its input and its processes.
#[derive(Debug)]
pub struct Counting {
    // Declared first, so that nothing more is produced once processes are being ended.
    feeder: Option<Feeder>,
    fleet: Fleet,
    launch: Launch,
    judge: Judge,
    /// Processes that were told to end or killed.
    left: BTreeSet<usize>,
    sent: Vec<Sent>,
}

/// What a kill did.
#[derive(Debug)]
pub struct Kill {
    /// The process.
    pub process: usize,
    /// Records seen to be undone or doubled: those of aborted transactions, or those written to the repartition topic
    /// twice.
    pub undone: usize,
    /// Time from the kill until all tasks ran again, evenly spread.
    pub recovery: Duration,
}

impl Counting {
    /// Starts `processes` processes of `program` (its path) on fresh topics under load, waits until they share the
    /// tasks evenly, and hands them to `test`. Should that fail, what the processes kept and printed stays for a look.
    ///
    /// # Errors
    /// When there is no broker, the processes do not come to share the tasks, or `test` fails.
    pub fn run(
        program: &str,
        guarantee: Guarantee,
        commit_interval_ms: u32,
        processes: usize,
        test: impl FnOnce(&mut Self) -> Result<(), Failure>,
    ) -> Result<(), Failure> {
        let mut counting = Self::start(program, guarantee, commit_interval_ms, processes)?;
        let outcome = counting.timed("to share the tasks", Self::await_balance).and_then(|_| test(&mut counting));
        if outcome.is_err() {
            counting.fleet.keep();
        }
        outcome
    }

    fn start(program: &str, guarantee: Guarantee, commit_interval_ms: u32, processes: usize) -> Result<Self, Failure> {
        let broker = Broker::shared()?;
        let launch = Launch {
            program: program.into(),
            bootstrap: broker.bootstrap().to_owned(),
            application: unique("count"),
            input: unique("input"),
            output: unique("output"),
            guarantee,
            commit_interval_ms,
        };
        let topics = Topics::new(broker.bootstrap())?;
        topics.create(&launch.input, PARTITIONS, &[])?;
        topics.create(&launch.output, PARTITIONS, &[])?;
        let stream = Stream::new(7, KEYS, PARTITIONS);
        let feeder = Feeder::start(broker.bootstrap(), &launch.input, RATE, move |index| stream.record(index))?;
        let fleet = Fleet::start(processes, |_, state| launch.program(state))?;
        let judge = Judge::new(broker.bootstrap());
        Ok(Self { feeder: Some(feeder), fleet, launch, judge, left: BTreeSet::new(), sent: Vec::new() })
    }

    /// The processes.
    pub fn fleet(&mut self) -> &mut Fleet {
        &mut self.fleet
    }

    /// Starts one more process.
    ///
    /// # Errors
    /// When it cannot be started.
    pub fn add(&mut self) -> Result<(), Failure> {
        let launch = self.launch.clone();
        self.fleet.add(|_, state| launch.program(state))
    }

    /// Lets a process leave by SIGTERM and waits for its end.
    ///
    /// # Errors
    /// When it does not end in time, or not with exit code 0.
    pub fn leave(&mut self, number: usize) -> Result<(), Failure> {
        self.left.insert(number);
        let process = self.fleet.process(number)?;
        process.terminate()?;
        let status = process.wait(PATIENCE)?;
        if status.success() { Ok(()) } else { Err(process.failure(&format!("ended with {status} after SIGTERM"))) }
    }

    /// So many [kills](Self::kill), one process after the other, each of which must have hit something but for one.
    ///
    /// # Errors
    /// When a kill fails, or two have left no trace: then the run proves too little.
    pub fn kill_in_turn(&mut self, kills: usize) -> Result<(), Failure> {
        let mut misses = 0;
        for number in (0..self.fleet.len()).cycle().take(kills) {
            let kill = self.kill(number)?;
            println!("{kill:?}");
            misses += usize::from(kill.undone == 0);
        }
        if misses > 1 {
            return Err(Failure::new(format!("{misses} of {kills} kills left no trace: the run proves too little")));
        }
        Ok(())
    }

    /// SIGKILL to a process while records flow through it, and its restart. Answers once all tasks run again.
    ///
    /// # Errors
    /// When the tasks do not come to run again, or nothing flows.
    pub fn kill(&mut self, number: usize) -> Result<Kill, Failure> {
        let before = self.launch.marks(&self.judge)?;
        self.await_flow(u64::from(RATE))?;
        let marks = match self.launch.guarantee {
            Guarantee::AtLeastOnce => before,
            // As late as can be, so that nothing but this kill can have aborted what is found.
            Guarantee::ExactlyOnce => self.launch.marks(&self.judge)?,
        };
        self.fell(number)?;
        let killed = Instant::now();
        self.restart(number)?;
        let undone = match self.launch.guarantee {
            Guarantee::AtLeastOnce => None,
            // Before the session of the killed process ends, so before any other process has had a reason to abort.
            Guarantee::ExactlyOnce => Some(self.launch.await_undone(&self.judge, &marks)?),
        };
        self.await_balance()?;
        let recovery = killed.elapsed();
        let undone = match undone {
            Some(undone) => undone,
            None => self.launch.await_undone(&self.judge, &marks)?,
        };
        Ok(Kill { process: number, undone, recovery })
    }

    /// SIGKILL to a process, if transactions are used right after it has begun one. It stays dead.
    ///
    /// # Errors
    /// When it begins none, or has ended by itself.
    pub fn fell(&mut self, number: usize) -> Result<(), Failure> {
        if self.launch.guarantee == Guarantee::ExactlyOnce {
            let partition = self.counted_partition(number)?;
            Watch::new(&self.judge, &self.launch.changelog())?.await_begin(partition)?;
        }
        self.left.insert(number);
        self.fleet.process(number)?.kill9()
    }

    /// Starts a process again that has ended.
    ///
    /// # Errors
    /// When it cannot be started.
    pub fn restart(&mut self, number: usize) -> Result<(), Failure> {
        self.left.remove(&number);
        self.fleet.process(number)?.restart()
    }

    /// The newest status of each process that was neither told to end nor killed.
    ///
    /// # Errors
    /// When one has ended by itself.
    pub fn statuses(&mut self) -> Result<Vec<Option<Status>>, Failure> {
        let mut statuses = Vec::new();
        for number in (0..self.fleet.len()).filter(|number| !self.left.contains(number)) {
            let process = self.fleet.process(number)?;
            if !process.is_running()? {
                return Err(process.failure("has ended by itself"));
            }
            statuses.push(process.lines().iter().rev().find_map(|line| Status::parse(line)));
        }
        Ok(statuses)
    }

    /// The newest status of a process.
    ///
    /// # Errors
    /// When it has said nothing yet.
    pub fn status(&mut self, number: usize) -> Result<Status, Failure> {
        let process = self.fleet.process(number)?;
        let newest = process.lines().iter().rev().find_map(|line| Status::parse(line));
        newest.ok_or_else(|| process.failure("has not said how it stands"))
    }

    /// A partition of the store's changelog that this process alone writes.
    fn counted_partition(&mut self, number: usize) -> Result<i32, Failure> {
        let status = self.status(number)?;
        let counted = status.tasks.keys().find_map(|task| task.strip_prefix("1_")?.parse().ok());
        counted.ok_or_else(|| Failure::new(format!("process #{number} counts nothing: {status:?}")))
    }

    /// Waits until every task runs in one process, and no process has two tasks more than another, in all and of each
    /// sub-topology. Answers how many tasks each has.
    ///
    /// # Errors
    /// When it does not come to that, or a process has ended by itself.
    pub fn await_balance(&mut self) -> Result<Vec<usize>, Failure> {
        // A process that has ended is no reason to wait: it is the answer.
        eventually(PATIENCE, "all tasks to run, evenly spread", || match self.statuses() {
            Ok(statuses) => balance(&statuses).map(Ok),
            Err(ended) => Ok(Err(ended)),
        })?
    }

    /// Waits until this many more records are committed in the output.
    ///
    /// # Errors
    /// When they do not come.
    pub fn await_flow(&mut self, records: u64) -> Result<(), Failure> {
        let total = |counting: &Self| -> Result<i64, Failure> {
            let ends = counting.judge.ends(&counting.launch.output, Isolation::Committed)?;
            Ok(ends.iter().map(|(_, end)| end).sum())
        };
        let start = total(self)?;
        eventually(PATIENCE, "records to flow", || {
            let passed = total(self).map_err(|failure| failure.to_string())?.saturating_sub(start);
            let passed = u64::try_from(passed).unwrap_or(0);
            if passed >= records { Ok(()) } else { Err(format!("{passed} of {records}")) }
        })
    }

    /// Stops the input and waits until every input partition is committed up to its `read_committed` end.
    ///
    /// # Errors
    /// When a record was not acknowledged, or the positions do not reach the ends.
    pub fn drain(&mut self) -> Result<(), Failure> {
        if let Some(feeder) = self.feeder.take() {
            self.sent.extend(feeder.stop()?);
        }
        self.timed("to reach the ends", |counting| {
            eventually(PATIENCE, "all positions at the ends", || {
                if let Err(ended) = counting.statuses() {
                    return Ok(Err(ended));
                }
                counting.launch.lag(&counting.judge).map_err(|failure| failure.to_string()).map(Ok)
            })?
        })
    }

    /// Prints how long something took.
    fn timed<T>(&mut self, what: &str, work: impl FnOnce(&mut Self) -> Result<T, Failure>) -> Result<T, Failure> {
        let start = Instant::now();
        let done = work(self)?;
        println!("{:.1} s {what}", start.elapsed().as_secs_f64());
        Ok(done)
    }

    /// What was produced: complete after [`drain`](Self::drain).
    #[must_use]
    pub fn sent(&self) -> &[Sent] {
        &self.sent
    }
}

/// Whether all tasks run, each in one process, and evenly spread; tells how many each process has, or what is amiss.
fn balance(statuses: &[Option<Status>]) -> Result<Vec<usize>, String> {
    let all: Option<Vec<&Status>> = statuses.iter().map(Option::as_ref).collect();
    let all = all.ok_or("a process without a status")?;
    let described = || {
        let each = all.iter().map(|status| {
            let tasks: Vec<&str> = status.tasks.keys().map(String::as_str).collect();
            format!("{} {}", status.state, tasks.join(" "))
        });
        each.collect::<Vec<_>>().join(" | ")
    };
    let counts: Vec<usize> = all.iter().map(|status| status.tasks.len()).collect();
    let different: BTreeSet<&String> = all.iter().flat_map(|status| status.tasks.keys()).collect();
    let wanted = usize::try_from(PARTITIONS).unwrap_or(0) * usize::try_from(SUBTOPOLOGIES).unwrap_or(0);
    let whole = different.len() == wanted && counts.iter().sum::<usize>() == wanted;
    let of_each = (0..SUBTOPOLOGIES).map(|subtopology| all.iter().map(|status| status.tasks_of(subtopology)).collect());
    let even = of_each.chain([counts.clone()]).all(|counts: Vec<usize>| {
        let (least, most) = (counts.iter().min().copied(), counts.iter().max().copied());
        most.unwrap_or(0).saturating_sub(least.unwrap_or(0)) <= 1
    });
    if whole && even && all.iter().all(|status| status.runs()) { Ok(counts) } else { Err(described()) }
}

#[cfg(test)]
mod tests {
    use super::*;

    fn status(state: &str, tasks: &[(u32, std::ops::Range<i32>)]) -> Option<Status> {
        let tasks = tasks.iter().cloned().flat_map(|(subtopology, partitions)| {
            partitions.map(move |partition| (format!("{subtopology}_{partition}"), "Running".to_owned()))
        });
        Some(Status { state: state.to_owned(), tasks: tasks.collect(), ..Status::default() })
    }

    #[test]
    fn balance_is_judged_in_all_and_of_each_subtopology() {
        let even = [status("Running", &[(0, 0..4), (1, 0..4)]), status("Running", &[(0, 4..8), (1, 4..8)])];
        assert_eq!(balance(&even), Ok(vec![8, 8]));
        for uneven in [
            // Even in all, not of each.
            [status("Running", &[(0, 0..8)]), status("Running", &[(1, 0..8)])],
            [status("Running", &[(0, 0..5), (1, 0..4)]), status("Running", &[(0, 5..8), (1, 4..8)])],
            [status("Running", &[(0, 0..4), (1, 0..4)]), status("Rebalancing", &[(0, 4..8), (1, 4..8)])],
            [status("Running", &[(0, 0..4), (1, 0..4)]), status("Running", &[(0, 4..8), (1, 4..7)])],
            [status("Running", &[(0, 0..4), (1, 0..4)]), status("Running", &[(0, 4..8), (1, 3..7)])],
            [status("Running", &[(0, 0..8), (1, 0..8)]), None],
        ] {
            balance(&uneven).unwrap_err();
        }
    }
}
