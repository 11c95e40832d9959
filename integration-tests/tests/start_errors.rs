//! What a process says when it cannot start: the thing, the value, and what would be accepted; and exit code 1.

use std::path::Path;
use std::time::{Duration, Instant};

use headwater_integration_tests::{Broker, Failure, Process, Program, Topics, unique};

const DEADLINE: Duration = Duration::from_secs(60);

/// A process of the program under test, whose input and output exist or not as the test says.
struct Start<'a> {
    bootstrap: &'a str,
    application: String,
    input: String,
    output: String,
    home: tempfile::TempDir,
}

impl<'a> Start<'a> {
    fn new(bootstrap: &'a str) -> Result<Self, Failure> {
        let (application, input, output) = (unique("start"), unique("start-in"), unique("start-out"));
        Ok(Self { bootstrap, application, input, output, home: tempfile::tempdir()? })
    }

    fn create(&self, topic: &str, partitions: i32) -> Result<(), Failure> {
        Topics::new(self.bootstrap)?.create(topic, partitions, &[])
    }

    fn state(&self) -> String {
        self.home.path().join("state").display().to_string()
    }

    fn spawn(&self, name: &str, settings: &[&str]) -> Result<Process, Failure> {
        let program = Program::new(env!("CARGO_BIN_EXE_zombie_count"))
            .args(["--bootstrap", self.bootstrap, "--application", &self.application])
            .args(["--input", &self.input, "--output", &self.output])
            .args(["--state-dir", &self.state()])
            .args(settings.iter().flat_map(|setting| ["--set", setting]));
        Process::spawn(name, &self.home.path().join(name), program)
    }

    /// Runs it to its end, which has to be a failure, and returns the error it ends with.
    fn refusal(&self, settings: &[&str]) -> Result<String, Failure> {
        let mut process = self.spawn("refused", settings)?;
        let status = process.wait(DEADLINE)?;
        assert_eq!(status.code(), Some(1), "{}", process.lines().join("\n"));
        let lines = process.lines();
        let error = lines.iter().rfind(|line| line.starts_with("error: "));
        error.cloned().ok_or_else(|| process.failure("ended without an error"))
    }
}

fn assert_names(error: &str, parts: &[&str]) {
    for part in parts {
        assert!(error.contains(part), "{part:?} is not in: {error}");
    }
}

#[test]
fn a_broker_that_is_down_is_named_after_the_stated_time() -> Result<(), Failure> {
    // No service listens on the first port.
    let start = Start::new("127.0.0.1:1")?;
    let begun = Instant::now();
    let error = start.refusal(&["request.timeout.ms=3000"])?;
    let took = begun.elapsed();
    assert_names(&error, &["127.0.0.1:1", "3000 ms"]);
    assert!(took >= Duration::from_secs(3), "it waits for the broker for as long as it says: {took:?}");
    Ok(())
}

#[test]
fn a_missing_input_topic_is_named() -> Result<(), Failure> {
    let start = Start::new(Broker::shared()?.bootstrap())?;
    start.create(&start.output, 2)?;
    let error = start.refusal(&[])?;
    assert_names(&error, &["reads topic", &start.input, "does not exist", "create it"]);
    Ok(())
}

#[test]
fn a_missing_output_topic_is_named() -> Result<(), Failure> {
    let start = Start::new(Broker::shared()?.bootstrap())?;
    start.create(&start.input, 2)?;
    let error = start.refusal(&[])?;
    assert_names(&error, &["writes topic", &start.output, "does not exist", "create it"]);
    Ok(())
}

#[test]
fn an_internal_topic_with_other_partitions_is_refused() -> Result<(), Failure> {
    let start = Start::new(Broker::shared()?.bootstrap())?;
    start.create(&start.input, 4)?;
    start.create(&start.output, 4)?;
    let changelog = format!("{}-counts-changelog", start.application);
    start.create(&changelog, 3)?;
    let error = start.refusal(&[])?;
    assert_names(&error, &[&changelog, "has 3 partitions", "4 are needed"]);
    Ok(())
}

#[test]
fn a_state_directory_in_use_is_named_with_its_holder() -> Result<(), Failure> {
    let start = Start::new(Broker::shared()?.bootstrap())?;
    start.create(&start.input, 2)?;
    start.create(&start.output, 2)?;
    let mut holder = start.spawn("holder", &[])?;
    holder.wait_for_line(DEADLINE, |line| line.contains("running=2"))?;
    let error = start.refusal(&[])?;
    assert_names(&error, &["locked by", &format!("process {}", holder.id()), &start.state()]);
    assert!(Path::new(&start.state()).is_dir(), "the directory is left alone");
    holder.terminate()?;
    assert_eq!(holder.wait(DEADLINE)?.code(), Some(0));
    Ok(())
}

#[test]
fn settings_that_do_not_exist_are_named_before_any_connection() -> Result<(), Failure> {
    let start = Start::new("127.0.0.1:1")?;
    let cases: [(&str, &[&str]); 6] = [
        ("comit.interval.ms=5", &["comit.interval.ms", "5", "commit.interval.ms", "unknown setting"]),
        ("consumer.no.such=7", &["no.such", "7", "librdkafka"]),
        ("producer.linger.ms.no=7", &["linger.ms.no", "7", "librdkafka"]),
        ("consumer.isolation.level=read_uncommitted", &["isolation.level", "read_uncommitted", "processing guarantee"]),
        ("num.stream.threads=many", &["num.stream.threads", "many", "a number from 1"]),
        ("heartbeat.interval.ms=40000", &["heartbeat.interval.ms", "40000", "a third"]),
    ];
    for (setting, parts) in cases {
        let begun = Instant::now();
        let error = start.refusal(&[setting])?;
        assert_names(&error, parts);
        // A connection would be waited for as long as a request may take: thirty seconds.
        assert!(begun.elapsed() < Duration::from_secs(20), "{setting} was refused only after a connection was tried");
    }
    assert!(!Path::new(&start.state()).exists(), "nothing is created for a process that does not start");
    Ok(())
}
