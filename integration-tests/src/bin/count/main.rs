//! The program under test: counts records per key over a repartition, as one of any number of identical processes.
//!
//! `count run` runs until SIGTERM or ctrl-c and tells its [`Status`] several times a second; `count dump` prints what
//! is in a state directory that no process uses.

mod dump;

use std::io::Write;
use std::path::PathBuf;
use std::process::ExitCode;
use std::sync::Arc;
use std::sync::atomic::{AtomicBool, Ordering};
use std::thread;
use std::time::Duration;

use clap::{Args, Parser, Subcommand};
use headwater::prelude::*;
use headwater::{StreamsState, wait_for_signal};
use headwater_integration_tests::Status;
use tracing_subscriber::EnvFilter;

/// The store, which also names the repartition topic.
const STORE: &str = "counts";
/// Time between two lines of status.
const INTERVAL: Duration = Duration::from_millis(250);
/// Time for an orderly end.
const DRAIN: Duration = Duration::from_secs(30);

#[derive(Debug, Parser)]
struct Arguments {
    #[command(subcommand)]
    command: Command,
}

#[derive(Debug, Subcommand)]
enum Command {
    /// Counts the records of each key.
    Run(Run),
    /// Prints every store in a closed state directory, one line of JSON each.
    Dump {
        /// Where the process kept its state.
        #[arg(long)]
        state_dir: PathBuf,
        /// The application's id.
        #[arg(long)]
        application: String,
    },
}

#[derive(Debug, Args)]
struct Run {
    /// The cluster, HOST:PORT.
    #[arg(long)]
    bootstrap: String,
    /// The application's id.
    #[arg(long)]
    application: String,
    /// The topic to count.
    #[arg(long)]
    input: String,
    /// The topic that takes the counts.
    #[arg(long)]
    output: String,
    /// Where this process keeps its state.
    #[arg(long)]
    state_dir: PathBuf,
    /// A name that makes the process a static member.
    #[arg(long)]
    static_id: Option<String>,
    /// A setting by its name, NAME=VALUE. May be repeated.
    #[arg(long = "set", value_name = "NAME=VALUE")]
    settings: Vec<String>,
}

fn main() -> ExitCode {
    let filter = EnvFilter::try_from_default_env().unwrap_or_else(|_| EnvFilter::new("info"));
    tracing_subscriber::fmt().with_env_filter(filter).with_ansi(false).with_writer(std::io::stderr).init();
    let done = match Arguments::parse().command {
        Command::Run(run) => count(&run),
        Command::Dump { state_dir, application } => dump::dump(&state_dir, &application),
    };
    match done {
        Ok(()) => ExitCode::SUCCESS,
        Err(error) => {
            eprintln!("error: {error}");
            ExitCode::FAILURE
        }
    }
}

/// Every record is given its own key again: the engine cannot know that the key stays, so it repartitions.
fn topology(input: &str, output: &str) -> Result<Topology> {
    let builder = StreamsBuilder::new();
    builder
        .stream(&Topic::new(input, Bytes, Bytes))
        .select_key(|key, _| key.clone())
        .group_by_key_with(Grouped::with(Bytes, Bytes))
        .count(&Store::new(STORE, Bytes, I64))
        .to_stream()
        .to(&Topic::new(output, Bytes, I64));
    builder.build()
}

fn settings(run: &Run) -> Result<StreamsConfig> {
    let mut config = StreamsConfig::new(&run.application, &run.bootstrap).state_dir(&run.state_dir);
    if let Some(id) = &run.static_id {
        config = config.instance_id(id);
    }
    for setting in &run.settings {
        let Some((name, value)) = setting.split_once('=') else {
            return Err(Error::Configuration(format!("--set {setting}: the form is NAME=VALUE")));
        };
        config = config.set(name, value)?;
    }
    Ok(config)
}

fn count(run: &Run) -> Result<()> {
    let signalled = Arc::new(AtomicBool::new(false));
    let told = Arc::clone(&signalled);
    thread::spawn(move || {
        if let Err(error) = wait_for_signal() {
            eprintln!("signals cannot be heard: {error}");
        }
        told.store(true, Ordering::SeqCst);
    });
    let streams = KafkaStreams::start(&topology(&run.input, &run.output)?, settings(run)?)?;
    while !signalled.load(Ordering::SeqCst) && streams.state() != StreamsState::Error {
        say(&status(&streams).line());
        thread::sleep(INTERVAL);
    }
    say(&status(&streams).line());
    streams.shutdown(DRAIN)?;
    say("ended");
    Ok(())
}

fn status(streams: &KafkaStreams) -> Status {
    let figures = streams.figures();
    let tasks = streams.tasks();
    Status {
        state: format!("{:?}", streams.state()),
        tasks: tasks.iter().map(|(task, status)| (task.to_string(), format!("{status:?}"))).collect(),
        processed: figures.processed,
        commits: figures.commits,
        aborts: figures.aborts,
        fenced: figures.fenced,
        recycled: figures.recycled,
        restored: figures.restored,
    }
}

/// Writes a line at once: standard output to a file would keep it back.
fn say(line: &str) {
    let mut out = std::io::stdout().lock();
    // Without a reader there is nobody to tell.
    let _ = writeln!(out, "{line}").and_then(|()| out.flush());
}
