//! A Kafka of our own for the length of a measurement: one node, started from its jars.

use crate::Result;
use rdkafka::config::ClientConfig;
use rdkafka::consumer::{BaseConsumer, Consumer};
use std::env;
use std::fs::{self, File};
use std::net::TcpListener;
use std::path::{Path, PathBuf};
use std::process::{Child, Command, Stdio};
use std::thread;
use std::time::{Duration, Instant};
use tempfile::TempDir;

/// How long a node may take until it answers.
const START: Duration = Duration::from_secs(60);

/// A running broker; killed, and its data deleted, when dropped.
#[derive(Debug)]
pub struct Broker {
    child: Child,
    bootstrap: String,
    // Deleted after the process is gone.
    _data: TempDir,
}

impl Broker {
    /// Starts a node on free ports of the loopback interface and waits until it answers. `cpus` is a list for
    /// `taskset`, or `None` for no pinning.
    ///
    /// # Errors
    /// When the jars or Java are missing, or the node does not answer in time.
    pub fn start(cpus: Option<&str>) -> Result<Self> {
        let classpath = format!("{}/*", libraries()?.display());
        let data = tempfile::Builder::new().prefix("headwater-bench-kafka-").tempdir()?;
        let (port, controller) = free_ports()?;
        let properties = data.path().join("server.properties");
        fs::write(&properties, server_properties(data.path(), port, controller))?;

        let id = storage_tool(&classpath, &["random-uuid"])?;
        storage_tool(&classpath, &["format", "-t", id.trim(), "-c", &properties.to_string_lossy(), "--standalone"])?;

        let log = data.path().join("broker.log");
        let output = File::create(&log)?;
        // The whole JIT, unlike in tests: a slow broker would hold up what is measured.
        let child = pinned(cpus, "java")
            .args(["-Xms1g", "-Xmx1g", "-XX:+UseSerialGC", "-cp", &classpath, "kafka.Kafka"])
            .arg(&properties)
            .stdin(Stdio::null())
            .stdout(output.try_clone()?)
            .stderr(output)
            .spawn()
            .map_err(|error| format!("start Kafka: setpriv: {error}; install util-linux"))?;
        let mut broker = Self { child, bootstrap: format!("127.0.0.1:{port}"), _data: data };
        broker.wait_until_ready().map_err(|error| {
            let log = fs::read_to_string(&log).unwrap_or_default();
            format!("{error}; the end of its log:\n{}", tail(&log, 20))
        })?;
        Ok(broker)
    }

    /// Where the broker listens.
    #[must_use]
    pub fn bootstrap(&self) -> &str {
        &self.bootstrap
    }

    /// The process id.
    #[must_use]
    pub fn pid(&self) -> u32 {
        self.child.id()
    }

    fn wait_until_ready(&mut self) -> Result<()> {
        // Connections are refused at first; what the client says about that interests nobody.
        let client: BaseConsumer =
            ClientConfig::new().set("bootstrap.servers", &self.bootstrap).set("log_level", "0").create()?;
        let deadline = Instant::now() + START;
        loop {
            if let Some(status) = self.child.try_wait()? {
                return Err(format!("Kafka ended at start with {status}").into());
            }
            // An open port is not enough: a metadata request must name the node.
            if client.fetch_metadata(None, Duration::from_millis(500)).is_ok_and(|found| !found.brokers().is_empty()) {
                return Ok(());
            }
            if Instant::now() > deadline {
                return Err(format!("Kafka on {} did not answer within {START:?}", self.bootstrap).into());
            }
            thread::sleep(Duration::from_millis(100));
        }
    }
}

impl Drop for Broker {
    fn drop(&mut self) {
        // The data goes too, so that nothing needs an orderly stop. It fails only for a process that has ended.
        let _ended = self.child.kill();
        let _status = self.child.wait();
    }
}

/// A command, pinned to `cpus` where given, that the kernel kills when the thread that starts it ends, even by SIGKILL: a
/// broker left behind would spoil the next measurement. The tools in front become the command, so that the process id is
/// the command's.
#[must_use]
pub fn pinned(cpus: Option<&str>, program: impl AsRef<std::ffi::OsStr>) -> Command {
    let mut command = Command::new("setpriv");
    command.args(["--pdeathsig", "KILL"]);
    if let Some(cpus) = cpus {
        command.args(["taskset", "-c", cpus]);
    }
    command.arg(program);
    command
}

/// The last `lines` lines of `text`.
#[must_use]
pub fn tail(text: &str, lines: usize) -> String {
    let all: Vec<_> = text.lines().collect();
    all.get(all.len().saturating_sub(lines)..).unwrap_or_default().join("\n")
}

fn libraries() -> Result<PathBuf> {
    let path = match env::var_os("HEADWATER_KAFKA_LIBS") {
        Some(path) => PathBuf::from(path),
        None => PathBuf::from(env::var_os("HOME").unwrap_or_default()).join(".cache/headwater/kafka-4.4.0/libs"),
    };
    let jars = fs::read_dir(&path).map(|entries| {
        entries
            .filter_map(std::result::Result::ok)
            .filter(|entry| entry.path().extension().is_some_and(|is| is == "jar"))
            .count()
    });
    match jars {
        Ok(1..) => Ok(path),
        _ => Err(format!(
            "no Kafka jars in {}: set HEADWATER_KAFKA_LIBS to a folder with Kafka's jars, or KAFKA_BOOTSTRAP_SERVERS to a running broker",
            path.display()
        )
        .into()),
    }
}

fn storage_tool(classpath: &str, args: &[&str]) -> Result<String> {
    let output = Command::new("java")
        .args(["-cp", classpath, "kafka.tools.StorageTool"])
        .args(args)
        .output()
        .map_err(|error| format!("java: {error}; install a JDK 17 or newer"))?;
    if output.status.success() {
        Ok(String::from_utf8(output.stdout)?)
    } else {
        let error = String::from_utf8_lossy(&output.stderr);
        Err(format!("Kafka's StorageTool {args:?} ended with {}: {}", output.status, tail(&error, 10)).into())
    }
}

fn free_ports() -> Result<(u16, u16)> {
    // Both are held at once, so that they differ.
    let (one, other) = (TcpListener::bind("127.0.0.1:0")?, TcpListener::bind("127.0.0.1:0")?);
    Ok((one.local_addr()?.port(), other.local_addr()?.port()))
}

fn server_properties(data: &Path, port: u16, controller: u16) -> String {
    let data = data.display();
    format!(
        "process.roles=broker,controller\n\
         node.id=1\n\
         controller.quorum.bootstrap.servers=127.0.0.1:{controller}\n\
         listeners=PLAINTEXT://127.0.0.1:{port},CONTROLLER://127.0.0.1:{controller}\n\
         advertised.listeners=PLAINTEXT://127.0.0.1:{port},CONTROLLER://127.0.0.1:{controller}\n\
         inter.broker.listener.name=PLAINTEXT\n\
         controller.listener.names=CONTROLLER\n\
         listener.security.protocol.map=CONTROLLER:PLAINTEXT,PLAINTEXT:PLAINTEXT\n\
         log.dirs={data}/log\n\
         auto.create.topics.enable=false\n\
         offsets.topic.replication.factor=1\n\
         offsets.topic.num.partitions=4\n\
         transaction.state.log.replication.factor=1\n\
         transaction.state.log.min.isr=1\n\
         transaction.state.log.num.partitions=4\n\
         group.initial.rebalance.delay.ms=0\n\
         # Outputs of a finished run give their disk space back at once.\n\
         log.segment.delete.delay.ms=1000\n"
    )
}
