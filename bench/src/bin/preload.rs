//! Loads an input topic of the engine protocol, or finds it loaded, and prints its name.

use clap::Parser;
use headwater_bench::Result;
use headwater_bench::preload::{self, Loaded};
use headwater_bench::records::Spec;
use headwater_bench::topics::Topics;
use std::process::ExitCode;

/// Loads an input topic, unless it is there already, and prints its name.
#[derive(Debug, Parser)]
struct Args {
    /// Where the broker is; otherwise KAFKA_BOOTSTRAP_SERVERS says it.
    #[arg(long)]
    bootstrap: Option<String>,
    /// Number of records.
    #[arg(long, default_value_t = 2_000_000)]
    records: u64,
    /// Number of distinct keys.
    #[arg(long, default_value_t = 10_000)]
    keys: u64,
    /// Size of a value in bytes: 100 or 1024 in published figures.
    #[arg(long, default_value_t = 100)]
    value_bytes: usize,
    /// Seed of keys and contents.
    #[arg(long, default_value_t = 1)]
    seed: u64,
}

fn run(args: Args) -> Result<()> {
    let bootstrap = args
        .bootstrap
        .or_else(|| std::env::var("KAFKA_BOOTSTRAP_SERVERS").ok())
        .ok_or("no broker: give --bootstrap HOST:PORT or set KAFKA_BOOTSTRAP_SERVERS")?;
    let spec = Spec { records: args.records, keys: args.keys, value_bytes: args.value_bytes, seed: args.seed };
    let topics = Topics::new(&bootstrap)?;
    match preload::load(&topics, &bootstrap, &spec)? {
        Loaded::Already => eprintln!("already loaded"),
        Loaded::Now => eprintln!("loaded {} records", spec.records),
    }
    println!("{}", spec.topic());
    Ok(())
}

fn main() -> ExitCode {
    match run(Args::parse()) {
        Ok(()) => ExitCode::SUCCESS,
        Err(error) => {
            eprintln!("preload: {error}");
            ExitCode::FAILURE
        }
    }
}
