use std::env;
use std::fs;
use std::path::{Path, PathBuf};
use std::sync::{Mutex, MutexGuard, OnceLock, PoisonError};
use std::time::{Duration, Instant};

use rdkafka::ClientConfig;
use rdkafka::consumer::{BaseConsumer, Consumer};
use tempfile::TempDir;

use crate::kafka::{Kafka, without};
use crate::ports::FreePort;
use crate::{Failure, Process, Settings};

/// Time for a node to answer after its start: seconds on an idle machine, more on one that is compiling.
const START_TIME: Duration = Duration::from_secs(90);
/// Time for an orderly stop before SIGKILL.
const STOP_TIME: Duration = Duration::from_secs(30);
/// Starts with fresh ports, should another process take one between its choice and its use.
const STARTS: usize = 3;

/// A real Kafka: one KRaft node started from its jars, or the cluster named by `KAFKA_BOOTSTRAP_SERVERS`.
///
/// A node of ours is stopped by its own id when dropped and killed when the test process dies; its folder goes with it,
/// except after a panic or where `HEADWATER_KEEP_BROKER` is set: then `server.log` in it tells the node's side.
#[derive(Debug)]
pub struct Broker {
    bootstrap: String,
    /// `None` for a cluster that is not ours.
    node: Option<Node>,
}

#[derive(Debug)]
struct Node {
    // Declared first, so that the process is gone before its folder is.
    process: Mutex<Process>,
    folder: Mutex<Option<TempDir>>,
    log: PathBuf,
}

impl Broker {
    /// Starts a node for one test alone, which may stop and restart it. Returns once a metadata request answers.
    ///
    /// # Errors
    /// When there is no Java or no jars, saying what to install; when the node does not answer in time, with the path
    /// and the end of its log.
    pub fn start(settings: &Settings) -> Result<Self, Failure> {
        let kafka = Kafka::find()?;
        let mut attempt = 1;
        loop {
            match Self::start_once(&kafka, settings) {
                Err(failure) if attempt < STARTS && failure.to_string().contains("Address already in use") => {
                    attempt += 1;
                }
                outcome => return outcome,
            }
        }
    }

    /// The broker that all tests of a test process share: the cluster named by `KAFKA_BOOTSTRAP_SERVERS`, else a node
    /// started by the first caller. Tests keep apart by the names of topics, groups and transactions
    /// ([`unique`](crate::unique)), and do not stop it.
    ///
    /// # Errors
    /// When there is neither; every caller gets the same failure, which says what to install.
    pub fn shared() -> Result<&'static Self, Failure> {
        static SHARED: OnceLock<Result<Broker, String>> = OnceLock::new();
        let shared = SHARED.get_or_init(|| {
            let broker = match env::var("KAFKA_BOOTSTRAP_SERVERS") {
                Ok(servers) if !servers.is_empty() => Self::outside(servers),
                _ => Self::start(&Settings::default()),
            };
            broker.map_err(|failure| failure.to_string())
        });
        shared.as_ref().map_err(|text| Failure::new(text.as_str()))
    }

    /// The address for `bootstrap.servers`.
    #[must_use]
    pub fn bootstrap(&self) -> &str {
        &self.bootstrap
    }

    /// Stops the node as an operator would: SIGTERM, and SIGKILL if it has not ended in time. Its data stays.
    ///
    /// # Errors
    /// When it is not ours, or has ended already.
    pub fn stop(&self) -> Result<(), Failure> {
        let mut process = self.process()?;
        process.terminate()?;
        if process.wait(STOP_TIME).is_err() {
            process.kill9()?;
        }
        Ok(())
    }

    /// SIGKILL: the node ends in the middle of what it does. Its data stays.
    ///
    /// # Errors
    /// When it is not ours, or has ended already.
    pub fn kill9(&self) -> Result<(), Failure> {
        self.process()?.kill9()
    }

    /// SIGSTOP: connections stay open and nothing answers, until [`cont`](Self::cont).
    ///
    /// # Errors
    /// When it is not ours, or has ended.
    pub fn pause(&self) -> Result<(), Failure> {
        self.process()?.stop()
    }

    /// Ends a [`pause`](Self::pause).
    ///
    /// # Errors
    /// When it is not ours, or has ended.
    pub fn cont(&self) -> Result<(), Failure> {
        self.process()?.cont()
    }

    /// Starts the node again, stopping it first if it runs: same ports, same data. Returns once a metadata request
    /// answers.
    ///
    /// # Errors
    /// When it is not ours, or does not answer in time.
    pub fn restart(&self) -> Result<(), Failure> {
        if self.process()?.is_running()? {
            self.stop()?;
        }
        let mut process = self.process()?;
        process.restart()?;
        await_ready(&mut process, &self.bootstrap, self.node()?.log.as_path())
    }

    /// The id of the node's process.
    ///
    /// # Errors
    /// When it is not ours.
    pub fn process_id(&self) -> Result<u32, Failure> {
        Ok(self.process()?.id())
    }

    /// The node's own log.
    ///
    /// # Errors
    /// When it is not ours.
    pub fn log_path(&self) -> Result<&Path, Failure> {
        Ok(&self.node()?.log)
    }

    fn start_once(kafka: &Kafka, settings: &Settings) -> Result<Self, Failure> {
        let folder = tempfile::Builder::new().prefix("headwater-kafka-").tempdir()?;
        let (client, controller) = (FreePort::take()?, FreePort::take()?);
        let bootstrap = format!("127.0.0.1:{}", client.number());
        let properties = folder.path().join("server.properties");
        let logging = folder.path().join("log4j2.properties");
        let log = folder.path().join("server.log");
        fs::write(&properties, settings.render(client.number(), controller.number(), &folder.path().join("data")))?;
        fs::write(&logging, logging_properties(&log))?;
        kafka.format(&properties)?;
        // Held up to here, so that no other test process of this machine takes them.
        drop((client, controller));
        let doomed = if keeps_folder() { None } else { Some(folder.path()) };
        let mut process =
            Process::spawn_with("Kafka", &folder.path().join("process"), kafka.server(&properties, &logging), doomed)?;
        if let Err(failure) = await_ready(&mut process, &bootstrap, &log) {
            drop(process);
            let kept = folder.keep();
            return Err(failure.during(format!("Kafka in {} (kept)", kept.display())));
        }
        let node = Node { process: Mutex::new(process), folder: Mutex::new(Some(folder)), log };
        Ok(Self { bootstrap, node: Some(node) })
    }

    fn outside(servers: String) -> Result<Self, Failure> {
        match answers(&servers, Duration::from_secs(30), || Ok(true)) {
            Ok(()) => Ok(Self { bootstrap: servers, node: None }),
            Err(failure) => Err(without(&format!("KAFKA_BOOTSTRAP_SERVERS={servers} does not answer: {failure}"))),
        }
    }

    fn node(&self) -> Result<&Node, Failure> {
        self.node.as_ref().ok_or_else(|| {
            Failure::new(format!(
                "the broker at {} is not this harness's, so it is neither stopped nor restarted",
                self.bootstrap
            ))
        })
    }

    fn process(&self) -> Result<MutexGuard<'_, Process>, Failure> {
        // A test that panicked with the lock held leaves a usable process behind.
        Ok(self.node()?.process.lock().unwrap_or_else(PoisonError::into_inner))
    }
}

impl Drop for Broker {
    fn drop(&mut self) {
        let Some(node) = &self.node else { return };
        if !std::thread::panicking() && !keeps_folder() {
            // Nobody will read the data: the process's own drop kills it, which is quicker than an orderly stop.
            return;
        }
        // It may be down already.
        let _ = self.stop();
        if let Some(folder) = node.folder.lock().unwrap_or_else(PoisonError::into_inner).take() {
            eprintln!("the broker's folder is kept: {}", folder.keep().display());
        }
    }
}

/// Waits until the node answers; fails at once if its process ends.
fn await_ready(process: &mut Process, bootstrap: &str, log: &Path) -> Result<(), Failure> {
    answers(bootstrap, START_TIME, || process.is_running()).map_err(|failure| {
        let text = fs::read_to_string(log).unwrap_or_default();
        let lines: Vec<&str> = text.lines().collect();
        let tail = lines.get(lines.len().saturating_sub(30)..).unwrap_or_default().join("\n  ");
        let seen = process.failure(&failure.to_string());
        Failure::new(format!("{seen}\nserver log {}, last lines:\n  {tail}", log.display()))
    })
}

/// Waits until a metadata request answers: an open port is not enough, as the node opens it before it knows itself.
fn answers(bootstrap: &str, time: Duration, mut alive: impl FnMut() -> Result<bool, Failure>) -> Result<(), Failure> {
    let start = Instant::now();
    let client: BaseConsumer = ClientConfig::new()
        .set("bootstrap.servers", bootstrap)
        .set("reconnect.backoff.ms", "20")
        .set("reconnect.backoff.max.ms", "100")
        .create()?;
    loop {
        let seen = match client.fetch_metadata(None, Duration::from_millis(250)) {
            Ok(metadata) if !metadata.brokers().is_empty() => return Ok(()),
            Ok(_) => "metadata without a broker".to_owned(),
            Err(error) => error.to_string(),
        };
        if !alive()? {
            return Err(Failure::new("ended before it answered"));
        }
        if start.elapsed() >= time {
            let seconds = time.as_secs();
            return Err(Failure::new(format!("does not answer a metadata request after {seconds} s: {seen}")));
        }
    }
}

fn keeps_folder() -> bool {
    env::var_os("HEADWATER_KEEP_BROKER").is_some()
}

/// Warnings and errors go to a file: standard output carries only what Java itself says.
fn logging_properties(log: &Path) -> String {
    format!(
        "rootLogger.level = warn\n\
         rootLogger.appenderRef.file.ref = file\n\
         appender.file.type = File\n\
         appender.file.name = file\n\
         appender.file.fileName = {}\n\
         appender.file.layout.type = PatternLayout\n\
         appender.file.layout.pattern = %d{{ISO8601}} %p %m (%c)%n%throwable\n",
        log.display()
    )
}
