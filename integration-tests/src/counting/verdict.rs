//! What came out in the end.

use std::fs;
use std::time::Duration;

use super::{Counting, PATIENCE};
use crate::{
    Failure, Isolation, Process, Program, Record, StoreDump, Stores, check_stores_exact, check_stores_last, eventually,
    oracle,
};

/// Time for a dump of one state directory.
const DUMP_TIME: Duration = Duration::from_secs(60);

impl Counting {
    /// SIGTERM to all processes; then nothing that was written may still be open.
    ///
    /// # Errors
    /// When one does not end in time or not with exit code 0, or a transaction is left open.
    pub fn shut_down(&mut self) -> Result<(), Failure> {
        self.timed("to end", |counting| counting.fleet.shut_down(PATIENCE))?;
        for topic in [self.launch.repartition(), self.launch.changelog(), self.launch.output.clone()] {
            // The broker answers a commit before it has written the markers.
            eventually(PATIENCE, &format!("no open transaction in {topic}"), || {
                let ends = |isolation| self.judge.ends(&topic, isolation).map_err(|failure| failure.to_string());
                let (stable, all) = (ends(Isolation::Committed)?, ends(Isolation::Uncommitted)?);
                if stable == all { Ok(()) } else { Err(format!("{stable:?} stable of {all:?}")) }
            })?;
        }
        Ok(())
    }

    /// Deletes what a process that has ended keeps on disk.
    ///
    /// # Errors
    /// When it cannot be deleted.
    pub fn forget(&mut self, number: usize) -> Result<(), Failure> {
        let state = self.fleet.process(number)?.state_dir();
        Ok(fs::remove_dir_all(state)?)
    }

    /// What the stores hold; all processes must have ended.
    ///
    /// # Errors
    /// When a state directory cannot be read.
    pub fn dump(&mut self) -> Result<Stores, Failure> {
        let mut dumps = Vec::new();
        for number in 0..self.fleet.len() {
            let home = tempfile::tempdir()?;
            let state = self.fleet.process(number)?.state_dir().display().to_string();
            let program = Program::new(&self.launch.program)
                .args(["dump", "--application", &self.launch.application, "--state-dir", &state])
                .env("RUST_LOG", "error");
            let mut process = Process::spawn(&format!("dump of #{number}"), home.path(), program)?;
            let status = process.wait(DUMP_TIME)?;
            if !status.success() {
                return Err(process.failure(&format!("ended with {status}")));
            }
            dumps.extend(process.lines().iter().filter_map(|line| StoreDump::parse(line)));
        }
        Ok(Stores::newest(dumps))
    }

    /// Checks what came out: for each key the outputs are 1, 2, …, n, the stores hold n under the highest timestamp,
    /// and what they hold is what was written last. All processes must have ended.
    ///
    /// # Errors
    /// When it is not so.
    pub fn check_exact(&mut self) -> Result<(), Failure> {
        let (outputs, stores) = (self.outputs()?, self.dump()?);
        oracle::check_counts_exact(&self.expected(), &outputs, oracle::big_endian)?;
        check_stores_exact(&self.sent, &stores)?;
        check_stores_last(&outputs, &stores)
    }

    /// Checks what came out: each key has at least n outputs, the last at least n, and the stores hold what was written
    /// last. All processes must have ended. Answers how many records were counted more than once.
    ///
    /// More cannot be asked. Numbers repeat where outputs had been written and their changelog records had not, and are
    /// left out in the opposite case: a record counted again continues from a state that holds it already.
    ///
    /// # Errors
    /// When it is not so.
    pub fn check_at_least_once(&mut self) -> Result<u64, Failure> {
        let (outputs, stores) = (self.outputs()?, self.dump()?);
        oracle::check_at_least_once(&self.expected(), &outputs, oracle::big_endian)?;
        check_stores_last(&outputs, &stores)?;
        let counts = stores.by_key()?.into_values().filter_map(|(_, _, count)| oracle::big_endian(count));
        let sent = u64::try_from(self.sent.len()).unwrap_or(u64::MAX);
        Ok(counts.sum::<u64>().saturating_sub(sent))
    }

    fn outputs(&self) -> Result<Vec<Vec<Record>>, Failure> {
        self.judge.read_topic(&self.launch.output, Isolation::Committed)
    }

    fn expected(&self) -> oracle::Counts {
        oracle::count_per_key(self.sent.iter().map(|sent| sent.record.key.clone()))
    }
}
