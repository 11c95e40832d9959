//! Counts words: the first program to run, and the one that a kill is tried on.
//!
//! Without arguments it runs three members on a broker inside the process and shows how tasks move when one of them
//! stops and comes back. With `--bootstrap` it is one of any number of identical processes on a Kafka cluster.

mod members;
mod recount;
mod table;

use std::path::PathBuf;
use std::process::ExitCode;
use std::sync::Arc;
use std::time::{Duration, Instant};

use clap::Parser;
use headwater::broker::Broker;
use headwater::broker::embedded::Embedded;
use headwater::broker::kafka::{Kafka, KafkaSettings};
use headwater::prelude::*;
use headwater::time::SystemClock;
use headwater_examples::lines::{self, Feeder};
use headwater_examples::topics;
use tracing_subscriber::EnvFilter;

use members::Members;
use table::Table;

const APPLICATION: &str = "word-count";
const LINES: &str = "lines";
const COUNTS: &str = "word-counts";
const PARTITIONS: i32 = 8;
/// How long everything that was fed may take to be processed before a run counts as failed.
const PATIENCE: Duration = Duration::from_secs(120);

#[derive(Debug, Parser)]
#[command(about = "Counts the words of topic `lines` into topic `word-counts`")]
struct Args {
    /// A Kafka cluster, HOST:PORT. Without it a broker inside this process is used.
    #[arg(long, value_name = "HOST:PORT")]
    bootstrap: Option<String>,
    /// Text to count, `-` for standard input. Without it lines are made up.
    #[arg(long, value_name = "FILE")]
    input: Option<PathBuf>,
    /// Feed nothing: only count what others write.
    #[arg(long, conflicts_with = "input")]
    no_input: bool,
    /// Made-up lines a second.
    #[arg(long, default_value_t = 1000)]
    rate: u32,
    /// Where this process keeps its state. By default the first of state/word-count-0, -1, … that no other process uses.
    #[arg(long, value_name = "DIR")]
    state_dir: Option<PathBuf>,
    /// Stop at the input's end, print all counts and compare them with a plain recount; exit 0 only if they are equal.
    #[arg(long, conflicts_with = "no_input")]
    until_end: bool,
    /// Start nothing: wait until the running processes have caught up, and compare their counts with a plain recount.
    #[arg(long, requires = "bootstrap")]
    verify: bool,
    /// A setting by its name, for example processing.guarantee=at_least_once. May be repeated.
    #[arg(long = "set", value_name = "NAME=VALUE")]
    settings: Vec<String>,
}

/// The program itself.
fn word_count() -> Result<Topology> {
    let builder = StreamsBuilder::new();
    builder
        .stream(&Topic::new(LINES, Nullable(Utf8), Utf8))
        .flat_map_values(|line| line.split_whitespace().map(str::to_lowercase).collect::<Vec<_>>())
        .group_by(|_, word| word.clone(), Grouped::with(Utf8, Utf8))
        .count(&Store::new("counts", Utf8, I64))
        .to_stream()
        .to(&Topic::new(COUNTS, Utf8, I64));
    builder.build()
}

fn main() -> ExitCode {
    let args = Args::parse();
    let filter = EnvFilter::try_from_default_env().unwrap_or_else(|_| EnvFilter::new("warn"));
    tracing_subscriber::fmt().with_env_filter(filter).with_writer(std::io::stderr).init();
    match run(&args) {
        Ok(true) => ExitCode::SUCCESS,
        Ok(false) => ExitCode::FAILURE,
        Err(error) => {
            eprintln!("error: {error}");
            ExitCode::FAILURE
        }
    }
}

/// Answers whether the counts are right, as far as that was asked.
fn run(args: &Args) -> Result<bool> {
    let config = settings(args)?;
    let broker: Arc<dyn Broker> = match &args.bootstrap {
        Some(bootstrap) => Arc::new(Kafka::connect(KafkaSettings::new(bootstrap))?),
        None => Arc::new(Embedded::new(Arc::new(SystemClock::new()))),
    };
    if args.verify {
        return verdict(&*broker, PATIENCE, false);
    }
    topics::create(&*broker, &[LINES, COUNTS], PARTITIONS)?;
    let source = match &args.input {
        Some(path) => Some(lines::from_file(path)?),
        None if args.no_input => None,
        None => Some(lines::made_up(7)),
    };
    let source = source.map(|lines| match (&args.input, args.until_end) {
        (None, true) => Box::new(lines.take(20_000)) as lines::Lines,
        _ => lines,
    });
    let rate = (args.input.is_none() && !args.until_end).then_some(args.rate);
    let count = if args.bootstrap.is_some() { 1 } else { 3 };
    let members = Members::start(&word_count()?, config, &broker, count, args.state_dir.as_deref())?;
    let feeder = source.map(|lines| Feeder::start(Arc::clone(&broker), LINES, lines, rate)).transpose()?;
    if args.until_end { run_to_end(&*broker, members, feeder) } else { watch(&*broker, members, feeder).map(|()| true) }
}

fn settings(args: &Args) -> Result<StreamsConfig> {
    let bootstrap = args.bootstrap.as_deref().unwrap_or("embedded");
    let mut config = StreamsConfig::new(APPLICATION, bootstrap)
        .guarantee(Guarantee::ExactlyOnce)
        .session_timeout(Duration::from_secs(6))
        .heartbeat_interval(Duration::from_secs(1));
    for setting in &args.settings {
        let Some((name, value)) = setting.split_once('=') else {
            return Err(Error::Configuration(format!("--set {setting}: the form is NAME=VALUE")));
        };
        config = config.set(name, value)?;
    }
    Ok(config)
}

/// Processes all there is, then compares.
fn run_to_end(broker: &dyn Broker, members: Members, feeder: Option<Feeder>) -> Result<bool> {
    if let Some(feeder) = feeder {
        while !feeder.is_done() {
            members.check()?;
            std::thread::sleep(Duration::from_millis(20));
        }
        feeder.finish(false)?;
    }
    let right = verdict(broker, PATIENCE, true);
    members.shutdown()?;
    right
}

/// Waits until everything is counted, and counts again in the plainest way.
fn verdict(broker: &dyn Broker, patience: Duration, print: bool) -> Result<bool> {
    topics::wait_for_no_lag(broker, APPLICATION, LINES, patience)?;
    topics::wait_for_no_lag(broker, APPLICATION, &format!("{APPLICATION}-counts-repartition"), patience)?;
    let counted = recount::counted(broker, COUNTS)?;
    let recounted = recount::recounted(broker, LINES)?;
    if print {
        let mut sorted: Vec<_> = counted.iter().collect();
        sorted.sort_by(|a, b| b.1.cmp(a.1).then(a.0.cmp(b.0)));
        sorted.iter().for_each(|(word, count)| println!("{count:>10}  {word}"));
    }
    let words: i64 = recounted.values().sum();
    match recount::first_difference(&counted, &recounted) {
        None => {
            println!("verdict: equal: {} distinct words, {words} in all", recounted.len());
            Ok(true)
        }
        Some(difference) => {
            println!("verdict: different: {difference}");
            Ok(false)
        }
    }
}

/// Shows what happens until a signal comes. On the embedded broker member 2 goes away and comes back.
fn watch(broker: &dyn Broker, mut members: Members, feeder: Option<Feeder>) -> Result<()> {
    let mut table = Table::new(broker, COUNTS)?;
    let stop = members::signalled()?;
    let mut shown = Instant::now();
    while !stop.load(std::sync::atomic::Ordering::SeqCst) {
        members.check()?;
        members.play()?;
        table.read(Duration::from_millis(50))?;
        if shown.elapsed() >= Duration::from_secs(1) {
            shown = Instant::now();
            table.show(&members, feeder.as_ref().map(Feeder::written));
        }
    }
    if let Some(feeder) = feeder {
        feeder.finish(true)?;
    }
    members.shutdown()
}
