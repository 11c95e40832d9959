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
use headwater::broker::kafka::Kafka;
use headwater::prelude::*;
use headwater::time::SystemClock;
use headwater_examples::lines::{self, Feeder, Lines};
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
    #[arg(long, requires = "bootstrap", conflicts_with_all = ["input", "lines", "rate", "until_end"])]
    no_input: bool,
    /// How many lines to make up; with --until-end 20000, else without end.
    #[arg(long, value_name = "COUNT", conflicts_with = "input")]
    lines: Option<usize>,
    /// Made-up lines a second; with --until-end as fast as they go, else 1000.
    #[arg(long, value_name = "COUNT", conflicts_with = "input", value_parser = clap::value_parser!(u32).range(1..))]
    rate: Option<u32>,
    /// Where this process keeps its state. By default the first of state/word-count-0, -1, … that no other process uses.
    /// On the broker inside this process nothing outlives it.
    #[arg(long, value_name = "DIR", requires = "bootstrap")]
    state_dir: Option<PathBuf>,
    /// Stop at the input's end, print all counts and compare them with a plain recount; exit 0 only if they are equal.
    #[arg(long)]
    until_end: bool,
    /// Start nothing: wait until the running processes have caught up, and compare their counts with a plain recount.
    #[arg(long, requires = "bootstrap", conflicts_with_all = ["input", "no_input", "lines", "rate", "state_dir", "until_end"])]
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
    let source = source(args)?;
    let broker: Arc<dyn Broker> = match args.bootstrap {
        Some(_) => Arc::new(Kafka::connect(config.connection())?),
        None => Arc::new(Embedded::new(Arc::new(SystemClock::new()))),
    };
    if args.verify {
        return verdict(&*broker, PATIENCE, false);
    }
    topics::create(&*broker, &[LINES, COUNTS], PARTITIONS)?;
    let members = if args.bootstrap.is_some() {
        Members::one_of_many(&word_count()?, config, &broker, args.state_dir.as_deref())?
    } else {
        Members::in_one_process(&word_count()?, config, &broker, 3)?
    };
    let feeder = source.map(|(lines, rate)| Feeder::start(Arc::clone(&broker), LINES, lines, rate)).transpose()?;
    if args.until_end { run_to_end(&*broker, members, feeder) } else { watch(&*broker, members, feeder).map(|()| true) }
}

/// The lines to feed, and how many a second.
fn source(args: &Args) -> Result<Option<(Lines, Option<u32>)>> {
    if args.no_input || args.verify {
        return Ok(None);
    }
    if let Some(path) = &args.input {
        return Ok(Some((lines::from_file(path)?, None)));
    }
    let count = args.lines.or(args.until_end.then_some(20_000)).unwrap_or(usize::MAX);
    let rate = args.rate.or((!args.until_end).then_some(1000));
    Ok(Some((Box::new(lines::made_up(7).take(count)), rate)))
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
    let fed = feeder.map_or(Ok(()), |feeder| feed(&members, feeder));
    let right = fed.and_then(|()| verdict(broker, PATIENCE, true));
    members.shutdown()?;
    right
}

/// Waits until all lines are written.
fn feed(members: &Members, feeder: Feeder) -> Result<()> {
    while !feeder.is_done() {
        members.check()?;
        std::thread::sleep(Duration::from_millis(20));
    }
    feeder.finish()
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
    let watched = watch_until_signal(broker, &mut members, feeder);
    members.shutdown().and(watched)
}

fn watch_until_signal(broker: &dyn Broker, members: &mut Members, mut feeder: Option<Feeder>) -> Result<()> {
    let mut table = Table::new(broker, COUNTS)?;
    let stop = members::signalled();
    let mut shown = Instant::now();
    while !stop.load(std::sync::atomic::Ordering::SeqCst) {
        members.check()?;
        members.play()?;
        table.read(Duration::from_millis(50))?;
        if shown.elapsed() >= Duration::from_secs(1) {
            shown = Instant::now();
            table.show(members, feeder.as_ref().map(Feeder::written));
        }
        if let Some(done) = feeder.take_if(|feeder| feeder.is_done()) {
            eprintln!("all {} lines are written", done.written());
            done.finish()?;
        }
    }
    feeder.map_or(Ok(()), Feeder::stop)
}
