use std::fs::{self, File, OpenOptions};
use std::os::unix::process::CommandExt;
use std::path::{Path, PathBuf};
use std::process::{Child, Command, ExitStatus, Stdio};
use std::thread;
use std::time::{Duration, Instant};

use crate::watchdog::Watchdog;
use crate::{Failure, Program, eventually};

/// Lines of output shown in a failure.
const TAIL: usize = 30;

/// One run of a program as a process of its own: killed, paused and waited for by its own id.
///
/// It lives in a home folder: `state/` is its state directory, `stdout.log` and `stderr.log` take its output. The
/// folder outlives the process, so that [`restart`](Self::restart) finds the state as the last run left it. A process
/// still running when this value is dropped, or when the test process dies, is killed with SIGKILL.
#[derive(Debug)]
pub struct Process {
    name: String,
    program: Program,
    home: PathBuf,
    child: Child,
    /// `None` once the child has been waited for.
    watchdog: Option<Watchdog>,
    /// Removed by the watchdog if the test process dies.
    doomed_folder: Option<PathBuf>,
    /// Length of each output file when this run began: what came before is of earlier runs.
    output_start: [usize; 2],
}

impl Process {
    /// Starts `program` in the folder `home`, which is created if missing. `name` is for messages.
    ///
    /// # Errors
    /// When the folder cannot be written or the program cannot be started.
    pub fn spawn(name: &str, home: &Path, program: Program) -> Result<Self, Failure> {
        Self::spawn_with(name, home, program, None)
    }

    /// As [`spawn`](Self::spawn); should the test process die, the folder `doomed` is removed after the kill.
    pub(crate) fn spawn_with(
        name: &str,
        home: &Path,
        program: Program,
        doomed: Option<&Path>,
    ) -> Result<Self, Failure> {
        fs::create_dir_all(home.join("state"))
            .map_err(|error| Failure::new(format!("cannot create the folder {}: {error}", home.display())))?;
        let doomed_folder = doomed.map(Path::to_path_buf);
        let output_start = output_files(home).map(|file| fs::metadata(file).map_or(0, |found| length(found.len())));
        let (child, watchdog) = launch(&program, home, doomed)?;
        Ok(Self {
            name: name.to_owned(),
            program,
            home: home.to_path_buf(),
            child,
            watchdog: Some(watchdog),
            doomed_folder,
            output_start,
        })
    }

    /// The name given, for messages.
    #[must_use]
    pub fn name(&self) -> &str {
        &self.name
    }

    /// The id of the process, valid while it runs.
    #[must_use]
    pub fn id(&self) -> u32 {
        self.child.id()
    }

    /// The state directory, the same for every run in this home.
    #[must_use]
    pub fn state_dir(&self) -> PathBuf {
        self.home.join("state")
    }

    /// Whether the process has not ended yet. A paused process runs.
    ///
    /// # Errors
    /// When the system refuses to tell.
    pub fn is_running(&mut self) -> Result<bool, Failure> {
        Ok(self.try_wait()?.is_none())
    }

    /// SIGKILL, and waits until the process is gone.
    ///
    /// # Errors
    /// When it has ended by itself before, or the signal cannot be sent.
    pub fn kill9(&mut self) -> Result<(), Failure> {
        self.signal("KILL")?;
        self.wait(Duration::from_secs(30)).map(|_| ())
    }

    /// SIGSTOP: pauses the whole process until [`cont`](Self::cont).
    ///
    /// # Errors
    /// When it has ended, or the signal cannot be sent.
    pub fn stop(&mut self) -> Result<(), Failure> {
        self.signal("STOP")
    }

    /// SIGCONT: lets a paused process go on.
    ///
    /// # Errors
    /// When it has ended, or the signal cannot be sent.
    pub fn cont(&mut self) -> Result<(), Failure> {
        self.signal("CONT")
    }

    /// SIGTERM: asks the process to end; it does not wait.
    ///
    /// # Errors
    /// When it has ended, or the signal cannot be sent.
    pub fn terminate(&mut self) -> Result<(), Failure> {
        self.signal("TERM")
    }

    /// Waits for the end of the process.
    ///
    /// # Errors
    /// After `deadline`, with the tail of the output.
    pub fn wait(&mut self, deadline: Duration) -> Result<ExitStatus, Failure> {
        let start = Instant::now();
        loop {
            if let Some(status) = self.try_wait()? {
                return Ok(status);
            }
            if start.elapsed() >= deadline {
                let seconds = deadline.as_secs_f64();
                return Err(self.failure(&format!("still runs after {seconds:.1} s")));
            }
            thread::sleep(Duration::from_millis(5));
        }
    }

    /// Starts the program again in the same home, after it has ended.
    ///
    /// # Errors
    /// When it still runs, or cannot be started.
    pub fn restart(&mut self) -> Result<(), Failure> {
        if self.is_running()? {
            return Err(self.failure("still runs, so it cannot be started again"));
        }
        self.output_start = self.output_lengths();
        let (child, watchdog) = launch(&self.program, &self.home, self.doomed_folder.as_deref())?;
        self.child = child;
        self.watchdog = Some(watchdog);
        Ok(())
    }

    /// Waits for a whole line of this run's output, standard or error, that `matches`, and returns it.
    ///
    /// # Errors
    /// After `deadline`, or when the process has ended without such a line; with the tail of the output.
    pub fn wait_for_line(&mut self, deadline: Duration, matches: impl Fn(&str) -> bool) -> Result<String, Failure> {
        let start = Instant::now();
        loop {
            // Asked before the look: what a process wrote before its end is then seen.
            let running = self.is_running()?;
            if let Some(line) = self.lines().into_iter().find(|line| matches(line)) {
                return Ok(line);
            }
            if !running {
                return Err(self.failure("ended without the line waited for"));
            }
            if start.elapsed() >= deadline {
                let seconds = deadline.as_secs_f64();
                return Err(self.failure(&format!("no such line within {seconds:.1} s")));
            }
            thread::sleep(Duration::from_millis(10));
        }
    }

    /// The whole lines of this run so far: standard output, then standard error.
    #[must_use]
    pub fn lines(&self) -> Vec<String> {
        let mut lines = Vec::new();
        for (file, start) in output_files(&self.home).iter().zip(self.output_start) {
            let bytes = fs::read(file).unwrap_or_default();
            let text = String::from_utf8_lossy(bytes.get(start..).unwrap_or_default()).into_owned();
            lines.extend(text.split_inclusive('\n').filter_map(|line| line.strip_suffix('\n')).map(str::to_owned));
        }
        lines
    }

    /// A failure about this process: name, program, what is wrong, where the output is and how it ends.
    #[must_use]
    pub fn failure(&self, wrong: &str) -> Failure {
        let lines = self.lines();
        let tail = lines.get(lines.len().saturating_sub(TAIL)..).unwrap_or_default().join("\n  ");
        Failure::new(format!(
            "process {} ({}) {wrong}; output in {}, last lines:\n  {tail}",
            self.name,
            self.program.path().display(),
            self.home.display(),
        ))
    }

    fn try_wait(&mut self) -> Result<Option<ExitStatus>, Failure> {
        let status = self.child.try_wait()?;
        if status.is_some() {
            // The id may be given to another process from here on, so the watch ends at once.
            if let Some(watchdog) = self.watchdog.take() {
                watchdog.dismiss();
            }
        }
        Ok(status)
    }

    fn signal(&mut self, signal: &str) -> Result<(), Failure> {
        if let Some(status) = self.try_wait()? {
            return Err(self.failure(&format!("has ended ({status}), so SIG{signal} cannot be sent")));
        }
        // The child has not been waited for, so the id is still its own. `kill` is built into every shell; the program
        // of that name is not installed everywhere.
        let sent = Command::new("sh")
            .args(["-c", "kill -s \"$1\" \"$2\"", "kill", signal, &self.child.id().to_string()])
            .status()?;
        if sent.success() { Ok(()) } else { Err(self.failure(&format!("could not be sent SIG{signal}"))) }
    }

    fn output_lengths(&self) -> [usize; 2] {
        output_files(&self.home).map(|file| fs::metadata(file).map_or(0, |found| length(found.len())))
    }
}

impl Drop for Process {
    fn drop(&mut self) {
        if let Some(watchdog) = self.watchdog.take() {
            // Nothing can be reported from here; a child that has ended meanwhile makes `kill` do nothing.
            let _ = self.child.kill();
            let _ = self.child.wait();
            watchdog.dismiss();
        }
    }
}

fn output_files(home: &Path) -> [PathBuf; 2] {
    [home.join("stdout.log"), home.join("stderr.log")]
}

fn length(bytes: u64) -> usize {
    usize::try_from(bytes).unwrap_or(usize::MAX)
}

fn launch(program: &Program, home: &Path, doomed: Option<&Path>) -> Result<(Child, Watchdog), Failure> {
    let [stdout, stderr] = output_files(home).map(|file| append(&file));
    let mut child = program
        .command()
        .stdin(Stdio::null())
        .stdout(stdout?)
        .stderr(stderr?)
        // Out of reach of the terminal's ctrl-c, which ends the test process; the watchdog follows.
        .process_group(0)
        .spawn()
        .map_err(|error| Failure::new(format!("cannot start {}: {error}", program.path().display())))?;
    match Watchdog::over(child.id(), doomed) {
        Ok(watchdog) => Ok((child, watchdog)),
        Err(failure) => {
            let _ = child.kill();
            let _ = child.wait();
            Err(failure)
        }
    }
}

fn append(file: &Path) -> Result<File, Failure> {
    OpenOptions::new()
        .create(true)
        .append(true)
        .open(file)
        .map_err(|error| Failure::new(format!("cannot write {}: {error}", file.display())))
}

/// Waits until the process `id` is paused or no longer so, as `/proc` tells.
///
/// # Errors
/// After `deadline`, with the state seen last.
pub fn wait_for_pause(id: u32, paused: bool, deadline: Duration) -> Result<(), Failure> {
    eventually(deadline, &format!("process {id} to be {}", if paused { "paused" } else { "running" }), || {
        let status = fs::read_to_string(format!("/proc/{id}/status")).map_err(|error| error.to_string())?;
        let state = status.lines().find(|line| line.starts_with("State:")).unwrap_or("no state").to_owned();
        if state.contains("(stopped)") == paused { Ok(()) } else { Err(state) }
    })
}
