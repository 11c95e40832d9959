//! One run of one configuration: a child process that is driven by environment variables and watched at its marks.

use crate::Result;
use crate::broker::{pinned, tail};
use crate::configuration::Configuration;
use crate::process;
use std::fs::{self, File};
use std::io::{BufRead, BufReader};
use std::path::{Path, PathBuf};
use std::process::{Child, Stdio};
use std::sync::mpsc::{Receiver, RecvTimeoutError, sync_channel};
use std::thread;
use std::time::{Duration, Instant};

/// What every run of an invocation shares.
#[derive(Clone, Debug)]
pub struct Place {
    /// Where the broker listens.
    pub bootstrap: String,
    /// The broker's process, when it is ours: its CPU time is reported too.
    pub broker_pid: Option<u32>,
    /// List of CPUs for the process that is measured; `None` for no pinning.
    pub cpus: Option<String>,
    /// Folder with the binaries.
    pub binaries: PathBuf,
    /// Longest a run may take.
    pub timeout: Duration,
}

/// What one run reads and writes.
#[derive(Clone, Copy, Debug)]
pub struct Job<'a> {
    /// Who does what.
    pub configuration: &'a Configuration,
    /// Application id, unique to the run.
    pub app_id: &'a str,
    /// Input topic.
    pub input: &'a str,
    /// Output topic.
    pub output: &'a str,
    /// Empty directory for state and the process's standard error.
    pub directory: &'a Path,
}

/// The process as it was at one mark.
#[derive(Clone, Debug, PartialEq, Eq)]
pub struct Sample {
    /// Name of the mark.
    pub mark: String,
    /// Records that the process had gone through.
    pub records: u64,
    /// Time since the process was started.
    pub wall: Duration,
    /// CPU time of the process, all threads, user and system.
    pub cpu: Duration,
    /// CPU time of the broker, when it is ours.
    pub broker_cpu: Option<Duration>,
    /// Peak resident memory so far, KiB; `None` when the process had ended before it was looked at.
    pub peak_rss_kib: Option<u64>,
}

/// Kills the process unless it has ended: a run that fails must not compete with the next.
#[derive(Debug)]
struct Guard(Child);

impl Drop for Guard {
    fn drop(&mut self) {
        // Fails only for a process that has ended.
        let _ended = self.0.kill();
        let _status = self.0.wait();
    }
}

/// Runs `job` to its end and answers what was seen at each mark.
///
/// # Errors
/// When the process cannot be started, fails, takes too long or does not keep to the protocol; with the end of what it
/// wrote to standard error.
pub fn run(place: &Place, job: &Job<'_>) -> Result<Vec<Sample>> {
    let errors = job.directory.join("stderr");
    watch(place, job, &errors).map_err(|error| {
        let said = fs::read_to_string(&errors).unwrap_or_default();
        format!("{}: {error}\n{}", job.configuration, tail(&said, 20)).into()
    })
}

fn watch(place: &Place, job: &Job<'_>, errors: &Path) -> Result<Vec<Sample>> {
    let mut child = Guard(start(place, job, errors)?);
    let started = Instant::now();
    let pid = child.0.id();
    let lines = lines(&mut child.0)?;
    let deadline = started + place.timeout;
    let mut samples = Vec::new();
    loop {
        let line = match lines.recv_timeout(deadline.saturating_duration_since(Instant::now())) {
            Ok(line) => line?,
            Err(RecvTimeoutError::Disconnected) => break,
            Err(RecvTimeoutError::Timeout) => return Err(format!("not done after {:?}", place.timeout).into()),
        };
        let Some((mark, records)) = parse_mark(&line) else {
            continue;
        };
        samples.push(Sample {
            mark: mark.to_owned(),
            records,
            // CPU time first: the process goes on while it is looked at.
            cpu: process::cpu_time(pid)?,
            wall: started.elapsed(),
            broker_cpu: place.broker_pid.map(process::cpu_time).transpose()?,
            peak_rss_kib: process::peak_rss_kib(pid)?,
        });
    }
    let status = child.0.wait()?;
    if !status.success() {
        return Err(format!("ended with {status}").into());
    }
    for expected in ["main", "first", "p10", "p90", "processed", "committed"] {
        if !samples.iter().any(|sample| sample.mark == expected) {
            return Err(format!("ended without 'MARK {expected} N'").into());
        }
    }
    Ok(samples)
}

fn start(place: &Place, job: &Job<'_>, errors: &Path) -> Result<Child> {
    let configuration = job.configuration;
    let binary = place.binaries.join(configuration.program.binary());
    let state = job.directory.join("state");
    fs::create_dir(&state)?;
    // The tools in front would report a missing program as a failure of their own.
    if !binary.exists() {
        return Err(format!("{} does not exist: cargo build --release -p headwater-bench", binary.display()).into());
    }
    let child = pinned(place.cpus.as_deref(), &binary)
        .env("BOOTSTRAP", &place.bootstrap)
        .env("APP_ID", job.app_id)
        .env("WORKLOAD", configuration.workload.name())
        .env("IN", job.input)
        .env("OUT", job.output)
        .env("STATE_DIR", &state)
        .env("EOS", if configuration.exactly_once { "1" } else { "0" })
        .env("COMMIT_MS", configuration.commit_ms.to_string())
        .env("CACHE_BYTES", "0")
        .env("THREADS", "1")
        .env("STORE", "rocksdb")
        .env("RECORDS", "")
        .env("FOLLOW", "0")
        .env("INSTANCE", "")
        .envs(configuration.variables.iter().map(|(name, value)| (name, value)))
        .stdin(Stdio::null())
        .stdout(Stdio::piped())
        .stderr(File::create(errors)?)
        .spawn()
        .map_err(|error| format!("{}: setpriv: {error}; install util-linux", binary.display()))?;
    Ok(child)
}

/// The lines of the child's standard output as they come, from a thread, so that waiting for them can have an end.
fn lines(child: &mut Child) -> Result<Receiver<std::io::Result<String>>> {
    let output = child.stdout.take().ok_or("the process has no standard output")?;
    let (sender, receiver) = sync_channel(64);
    thread::spawn(move || {
        for line in BufReader::new(output).lines() {
            if sender.send(line).is_err() {
                break;
            }
        }
    });
    Ok(receiver)
}

fn parse_mark(line: &str) -> Option<(&str, u64)> {
    let (mark, records) = line.strip_prefix("MARK ")?.split_once(' ')?;
    Some((mark, records.trim().parse().ok()?))
}

#[cfg(test)]
mod tests {
    use super::*;
    use std::os::unix::fs::PermissionsExt;
    use std::sync::{Mutex, PoisonError};

    /// One script at a time: a process that is forked while another test writes its script would hold that file open
    /// for writing, and Linux refuses to run such a file.
    static ONE_SCRIPT: Mutex<()> = Mutex::new(());

    fn run_script(script: &str, timeout: Duration) -> Result<Vec<Sample>> {
        let _alone = ONE_SCRIPT.lock().unwrap_or_else(PoisonError::into_inner);
        let binaries = tempfile::tempdir()?;
        let path = binaries.path().join("raw");
        fs::write(&path, format!("#!/bin/sh\n{script}\n"))?;
        fs::set_permissions(&path, fs::Permissions::from_mode(0o755))?;
        let directory = tempfile::tempdir()?;
        let configuration = "raw-p1-eos-50+EXTRA=more".parse()?;
        let place = Place {
            bootstrap: "127.0.0.1:1".to_owned(),
            broker_pid: None,
            cpus: None,
            binaries: binaries.path().to_owned(),
            timeout,
        };
        let job = Job {
            configuration: &configuration,
            app_id: "app",
            input: "in",
            output: "out",
            directory: directory.path(),
        };
        run(&place, &job)
    }

    const LONG: Duration = Duration::from_secs(60);

    #[test]
    fn every_mark_gives_a_sample() {
        let marks = "for m in main first p10 p90 processed committed; do echo MARK $m 7; done; echo noise";
        let samples = run_script(marks, LONG).unwrap();
        assert_eq!(samples.len(), 6);
        assert!(samples.iter().all(|sample| sample.records == 7));
    }

    #[test]
    fn the_environment_carries_the_configuration() {
        let error = run_script("echo $WORKLOAD $EOS $COMMIT_MS $EXTRA $IN $OUT $APP_ID >&2; exit 3", LONG).unwrap_err();
        let error = error.to_string();
        assert!(error.contains("p1 1 50 more in out app"), "{error}");
        assert!(error.contains("exit status: 3"), "{error}");
    }

    #[test]
    fn a_missing_mark_is_an_error() {
        let error = run_script("echo MARK main 0", LONG).unwrap_err().to_string();
        assert!(error.contains("MARK first"), "{error}");
    }

    #[test]
    fn a_run_that_hangs_is_killed() {
        let error = run_script("exec sleep 1000", Duration::from_millis(100)).unwrap_err().to_string();
        assert!(error.contains("not done after 100ms"), "{error}");
    }
}
