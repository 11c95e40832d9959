//! The program under test for zombies and for errors at the start: counts the records of each key, or passes them on.
//!
//! Neither form repartitions, so that a task reads, changes and writes in one transaction. It runs until SIGTERM or ctrl-c and says
//! several times a second where it stands: `status tasks=4 running=4 other=0 processed=1200 aborts=0 fenced=0 recycled=0`.

use std::io::Write;
use std::path::PathBuf;
use std::process::ExitCode;
use std::sync::Arc;
use std::sync::atomic::{AtomicBool, Ordering};
use std::thread;
use std::time::Duration;

use clap::Parser;
use headwater::prelude::*;
use headwater::{StreamsState, TaskStatus, wait_for_signal};
use tracing_subscriber::EnvFilter;

/// Time between two lines of status.
const INTERVAL: Duration = Duration::from_millis(100);
/// Time for an orderly end.
const DRAIN: Duration = Duration::from_secs(30);

#[derive(Debug, Parser)]
struct Arguments {
    /// The cluster, HOST:PORT.
    #[arg(long)]
    bootstrap: String,
    /// The application's id.
    #[arg(long)]
    application: String,
    /// The topic to read.
    #[arg(long)]
    input: String,
    /// The topic to write.
    #[arg(long)]
    output: String,
    /// Where this process keeps its state.
    #[arg(long)]
    state_dir: PathBuf,
    /// Pass records on instead of counting them: no store, no changelog.
    #[arg(long)]
    stateless: bool,
    /// A setting by its name, NAME=VALUE. May be repeated.
    #[arg(long = "set", value_name = "NAME=VALUE")]
    settings: Vec<String>,
}

fn main() -> ExitCode {
    let filter = EnvFilter::try_from_default_env().unwrap_or_else(|_| EnvFilter::new("info"));
    tracing_subscriber::fmt().with_env_filter(filter).with_ansi(false).with_writer(std::io::stderr).init();
    match run(&Arguments::parse()) {
        Ok(()) => ExitCode::SUCCESS,
        Err(error) => {
            eprintln!("error: {error}");
            ExitCode::FAILURE
        }
    }
}

fn topology(arguments: &Arguments) -> Result<Topology> {
    let builder = StreamsBuilder::new();
    let records = builder.stream(&Topic::new(arguments.input.as_str(), Bytes, Bytes));
    if arguments.stateless {
        records.to(&Topic::new(arguments.output.as_str(), Bytes, Bytes));
    } else {
        let counts = records.group_by_key().count(&Store::new("counts", Bytes, I64));
        counts.to_stream().to(&Topic::new(arguments.output.as_str(), Bytes, I64));
    }
    builder.build()
}

fn run(arguments: &Arguments) -> Result<()> {
    let mut config = StreamsConfig::new(&arguments.application, &arguments.bootstrap)
        .guarantee(Guarantee::ExactlyOnce)
        .state_dir(&arguments.state_dir);
    for setting in &arguments.settings {
        let Some((name, value)) = setting.split_once('=') else {
            return Err(Error::Configuration(format!("--set {setting}: the form is NAME=VALUE")));
        };
        config = config.set(name, value)?;
    }
    let signalled = Arc::new(AtomicBool::new(false));
    let told = Arc::clone(&signalled);
    thread::spawn(move || {
        if let Err(error) = wait_for_signal() {
            eprintln!("signals cannot be heard: {error}");
        }
        told.store(true, Ordering::SeqCst);
    });
    let streams = KafkaStreams::start(&topology(arguments)?, config)?;
    while !signalled.load(Ordering::SeqCst) && streams.state() != StreamsState::Error {
        say(&status(&streams));
        thread::sleep(INTERVAL);
    }
    streams.shutdown(DRAIN)
}

fn status(streams: &KafkaStreams) -> String {
    let (tasks, figures) = (streams.tasks(), streams.figures());
    let running = tasks.values().filter(|status| **status == TaskStatus::Running).count();
    format!(
        "status tasks={} running={running} other={} processed={} aborts={} fenced={} recycled={}",
        tasks.len(),
        tasks.len().saturating_sub(running),
        figures.processed,
        figures.aborts,
        figures.fenced,
        figures.recycled
    )
}

/// Writes a line at once: standard output to a file would keep it back.
fn say(line: &str) {
    let mut out = std::io::stdout().lock();
    // Without a reader there is nobody to tell.
    let _ = writeln!(out, "{line}").and_then(|()| out.flush());
}
