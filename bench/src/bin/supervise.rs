//! Runs configurations in turn on one broker, checks what they wrote, and compares them.

use clap::Parser;
use headwater_bench::Result;
use headwater_bench::broker::Broker;
use headwater_bench::check::Expected;
use headwater_bench::configuration::{self, Configuration};
use headwater_bench::preload;
use headwater_bench::records::Spec;
use headwater_bench::report::{self, Figures};
use headwater_bench::run::{self, Job, Place};
use headwater_bench::topics::Topics;
use serde::Serialize;
use std::env;
use std::fs::{File, OpenOptions};
use std::io::Write;
use std::path::{Path, PathBuf};
use std::process::{Command, ExitCode};
use std::time::{Duration, SystemTime, UNIX_EPOCH};

/// Measures configurations side by side, checks their outputs, and holds the engine to its floors.
///
/// Starts a broker of its own, unless KAFKA_BOOTSTRAP_SERVERS names one. Ends with 0 when every output is right and no
/// floor that was measured is missed, with 1 otherwise.
#[derive(Debug, Parser)]
struct Args {
    /// What is run, comma-separated, for instance raw-p1,engine-p2-eos-100; README.md has the grammar.
    #[arg(long, value_delimiter = ',', default_values_t = configuration::ALL.map(str::to_owned))]
    configurations: Vec<String>,
    /// How often each configuration runs, in turn with the others.
    #[arg(long, default_value_t = 5)]
    rounds: usize,
    /// Records of the input of consume and p1.
    #[arg(long, default_value_t = 8_000_000)]
    long_records: u64,
    /// Records of the input of p2.
    #[arg(long, default_value_t = 2_000_000)]
    short_records: u64,
    /// Distinct keys of both inputs.
    #[arg(long, default_value_t = 10_000)]
    keys: u64,
    /// Size of the inputs' values in bytes: 100 or 1024 in published figures.
    #[arg(long, default_value_t = 100)]
    value_bytes: usize,
    /// Seed of the inputs.
    #[arg(long, default_value_t = 1)]
    seed: u64,
    /// CPUs of the broker, as taskset takes them.
    #[arg(long, default_value = "0")]
    broker_cpus: String,
    /// CPUs of the process that is measured, as taskset takes them.
    #[arg(long, default_value = "1")]
    engine_cpus: String,
    /// Pin nothing.
    #[arg(long)]
    unpinned: bool,
    /// Longest time of one run, in seconds.
    #[arg(long, default_value_t = 300)]
    timeout: u64,
    /// File that figures are added to, one JSON object a line; without it headwater-bench.jsonl in the target folder.
    #[arg(long)]
    json: Option<PathBuf>,
    /// Take the binaries as they are instead of building them first.
    #[arg(long)]
    no_build: bool,
}

/// A line of the JSON file.
#[derive(Serialize)]
#[serde(tag = "kind", rename_all = "snake_case")]
enum Line<'a> {
    /// How all lines up to the next of this kind came about.
    Invocation { at: u64, arguments: Vec<String>, bootstrap: &'a str, own_broker: bool },
    /// One run.
    Run(&'a Figures),
    /// One floor, over all rounds.
    Verdict(&'a report::Verdict),
}

fn add_line(file: &mut File, line: &Line<'_>) -> Result<()> {
    let mut text = serde_json::to_string(line)?;
    text.push('\n');
    file.write_all(text.as_bytes())?;
    Ok(())
}

/// Builds the other binaries of this package beside this one, so that none of them is older than its source.
fn build(binaries: &Path) -> Result<()> {
    // Set by `cargo run`; a binary that is started by hand measures what lies beside it.
    let Some(cargo) = env::var_os("CARGO") else {
        return Ok(());
    };
    let mut command = Command::new(cargo);
    command.args(["build", "--package", "headwater-bench", "--bins"]);
    if !cfg!(feature = "engine") {
        command.arg("--no-default-features");
    }
    match binaries.file_name().and_then(|profile| profile.to_str()) {
        Some("release") => command.arg("--release"),
        _ => return Err("the figures of an unoptimised build mean nothing: use cargo run --release".into()),
    };
    match command.status()? {
        status if status.success() => Ok(()),
        status => Err(format!("building the binaries ended with {status}").into()),
    }
}

fn measure(args: &Args) -> Result<bool> {
    let configurations = args.configurations.iter().map(|name| name.parse()).collect::<Result<Vec<Configuration>>>()?;
    let binaries = env::current_exe()?.parent().map(Path::to_owned).unwrap_or_default();
    if !args.no_build {
        build(&binaries)?;
    }

    let own = match env::var("KAFKA_BOOTSTRAP_SERVERS") {
        Ok(_) => None,
        Err(_) => Some(Broker::start((!args.unpinned).then_some(&args.broker_cpus))?),
    };
    let bootstrap = match &own {
        Some(broker) => broker.bootstrap().to_owned(),
        None => env::var("KAFKA_BOOTSTRAP_SERVERS")?,
    };
    let place = Place {
        bootstrap,
        broker_pid: own.as_ref().map(Broker::pid),
        cpus: (!args.unpinned).then(|| args.engine_cpus.clone()),
        timeout: Duration::from_secs(args.timeout),
        binaries,
    };
    let now = SystemTime::now().duration_since(UNIX_EPOCH)?.as_secs();
    let json = args.json.clone().unwrap_or_else(|| place.binaries.with_file_name("headwater-bench.jsonl"));
    let mut file = OpenOptions::new()
        .create(true)
        .append(true)
        .open(&json)
        .map_err(|error| format!("{}: {error}", json.display()))?;
    let arguments = env::args().skip(1).collect();
    add_line(
        &mut file,
        &Line::Invocation { at: now, arguments, bootstrap: &place.bootstrap, own_broker: own.is_some() },
    )?;

    let inputs = Inputs::load(args, &configurations, &place.bootstrap)?;
    let runs = rounds(args, &configurations, &place, &inputs, now, &mut file)?;
    let verdicts = report::judge(&runs);
    for verdict in &verdicts {
        add_line(&mut file, &Line::Verdict(verdict))?;
    }
    println!("{}", report::tables(&args.configurations, &runs, &verdicts));
    println!("Outputs of all {} runs are right. Every run is in {}.", runs.len(), json.display());
    Ok(!verdicts.iter().any(report::Verdict::is_missed))
}

/// The inputs, loaded, and what must come of them.
struct Inputs {
    topics: Topics,
    long: Spec,
    short: Spec,
    expected_long: Expected,
    expected_short: Expected,
}

impl Inputs {
    fn load(args: &Args, configurations: &[Configuration], bootstrap: &str) -> Result<Self> {
        let topics = Topics::new(bootstrap)?;
        let spec = |records| Spec { records, keys: args.keys, value_bytes: args.value_bytes, seed: args.seed };
        let (long, short) = (spec(args.long_records), spec(args.short_records));
        for (spec, reads_long) in [(&long, true), (&short, false)] {
            if configurations.iter().any(|configuration| configuration.reads_long_input() == reads_long) {
                eprintln!("input {}: {:?}", spec.topic(), preload::load(&topics, bootstrap, spec)?);
            }
        }
        Ok(Self { topics, long, short, expected_long: Expected::new(long), expected_short: Expected::new(short) })
    }

    fn of(&self, configuration: &Configuration) -> (&Spec, &Expected) {
        if configuration.reads_long_input() {
            (&self.long, &self.expected_long)
        } else {
            (&self.short, &self.expected_short)
        }
    }
}

fn rounds(
    args: &Args,
    configurations: &[Configuration],
    place: &Place,
    inputs: &Inputs,
    now: u64,
    file: &mut File,
) -> Result<Vec<Figures>> {
    let mut runs = Vec::new();
    // The broker's code is compiled while it serves; one run that is not counted comes before all others.
    if let Some(configuration) =
        configurations.iter().find(|configuration| configuration.name == "raw-p1").or(configurations.first())
    {
        one(configuration, place, inputs, &format!("bench-{now}-warm-up"))?;
    }
    for round in 0..args.rounds {
        // Every other round runs backwards, so that what comes before what evens out.
        let mut turn: Vec<_> = configurations.iter().collect();
        if round % 2 == 1 {
            turn.reverse();
        }
        for configuration in turn {
            let app_id = format!("bench-{now}-{round}-{}", configuration.slug());
            let samples = one(configuration, place, inputs, &app_id)?;
            let figures = Figures::new(&configuration.name, round, &samples)?;
            eprintln!(
                "round {round} {configuration:24} {:9.0} records per CPU-second, {:9.0} records/s",
                figures.steady_per_cpu_second, figures.per_second
            );
            add_line(file, &Line::Run(&figures))?;
            runs.push(figures);
        }
    }
    Ok(runs)
}

/// Runs and checks one configuration, and removes what it made.
fn one(configuration: &Configuration, place: &Place, inputs: &Inputs, app_id: &str) -> Result<Vec<run::Sample>> {
    let (spec, expected) = inputs.of(configuration);
    let output = format!("{app_id}-out");
    let directory = tempfile::Builder::new().prefix("headwater-bench-run-").tempdir()?;
    inputs.topics.create(&output)?;
    let job = Job { configuration, app_id, input: &spec.topic(), output: &output, directory: directory.path() };
    let samples = run::run(place, &job)?;
    expected
        .check(&inputs.topics, configuration.workload, app_id, &output)
        .map_err(|error| format!("{configuration}: {error}"))?;
    let made = inputs.topics.with_prefix(app_id)?;
    inputs.topics.delete(&made.iter().map(String::as_str).collect::<Vec<_>>())?;
    Ok(samples)
}

fn main() -> ExitCode {
    match measure(&Args::parse()) {
        Ok(true) => ExitCode::SUCCESS,
        Ok(false) => {
            eprintln!("supervise: a floor is missed");
            ExitCode::FAILURE
        }
        Err(error) => {
            eprintln!("supervise: {error}");
            ExitCode::FAILURE
        }
    }
}
