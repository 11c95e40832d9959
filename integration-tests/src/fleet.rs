use std::path::Path;
use std::time::Duration;

use tempfile::TempDir;

use crate::{Failure, Process, Program};

/// Identical processes, each with its own home folder, killed and started again one by one.
///
/// The homes are removed with the fleet, except when the test fails by a panic or [`keep`](Self::keep) was called: then
/// they stay for a look.
#[derive(Debug)]
pub struct Fleet {
    // Declared first, so that processes are gone before their homes are.
    processes: Vec<Process>,
    homes: Option<TempDir>,
    kept: bool,
}

impl Fleet {
    /// Starts `count` processes. `program` is asked once per process, with its number and its state directory.
    ///
    /// # Errors
    /// When one cannot be started; those started before are killed.
    pub fn start(count: usize, mut program: impl FnMut(usize, &Path) -> Program) -> Result<Self, Failure> {
        let homes = tempfile::Builder::new().prefix("headwater-fleet-").tempdir()?;
        let mut fleet = Self { processes: Vec::new(), homes: Some(homes), kept: false };
        for _ in 0..count {
            fleet.add(&mut program)?;
        }
        Ok(fleet)
    }

    /// Starts one more process.
    ///
    /// # Errors
    /// When it cannot be started.
    pub fn add(&mut self, mut program: impl FnMut(usize, &Path) -> Program) -> Result<(), Failure> {
        let Some(homes) = &self.homes else {
            return Err(Failure::new("the fleet's folder is gone"));
        };
        let number = self.processes.len();
        let home = homes.path().join(format!("process-{number}"));
        let process = Process::spawn(&format!("#{number}"), &home, program(number, &home.join("state")))?;
        self.processes.push(process);
        Ok(())
    }

    /// How many processes were started, running or not.
    #[must_use]
    pub fn len(&self) -> usize {
        self.processes.len()
    }

    /// Whether none was started.
    #[must_use]
    pub fn is_empty(&self) -> bool {
        self.processes.is_empty()
    }

    /// The process with this number.
    ///
    /// # Errors
    /// When there is none.
    pub fn process(&mut self, number: usize) -> Result<&mut Process, Failure> {
        let count = self.processes.len();
        self.processes
            .get_mut(number)
            .ok_or_else(|| Failure::new(format!("no process #{number} in a fleet of {count}")))
    }

    /// Lets the homes outlive the fleet.
    pub fn keep(&mut self) {
        self.kept = true;
    }

    /// Fails with the output of the first process that is not running.
    ///
    /// # Errors
    /// When one has ended.
    pub fn expect_running(&mut self) -> Result<(), Failure> {
        for process in &mut self.processes {
            if !process.is_running()? {
                return Err(process.failure("has ended by itself"));
            }
        }
        Ok(())
    }

    /// SIGTERM to every process still running, then waits until each has ended with exit code 0.
    ///
    /// # Errors
    /// When one has not within `deadline`, or ends otherwise.
    pub fn shut_down(&mut self, deadline: Duration) -> Result<(), Failure> {
        let mut asked = Vec::new();
        for process in &mut self.processes {
            if process.is_running()? {
                process.terminate()?;
                asked.push(process);
            }
        }
        for process in asked {
            let status = process.wait(deadline)?;
            if !status.success() {
                return Err(process.failure(&format!("ended with {status} after SIGTERM")));
            }
        }
        Ok(())
    }
}

impl Drop for Fleet {
    fn drop(&mut self) {
        if (self.kept || std::thread::panicking())
            && let Some(homes) = self.homes.take()
        {
            eprintln!("state and output of the processes are kept in {}", homes.keep().display());
        }
    }
}
