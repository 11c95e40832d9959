//! The engine with a named workload of the engine protocol (see `bench/README.md`).

use std::io::Write;
use std::process::ExitCode;
use std::sync::Arc;
use std::time::Duration;

use headwater::broker::kafka::{Kafka, KafkaSettings};
use headwater::broker::{Broker, Edge};
use headwater::prelude::*;
use headwater::record::TopicPartition;
use headwater::{StoreKind, StreamsState};

/// How often the number of processed records is looked at for the marks.
const LOOK: Duration = Duration::from_millis(1);
/// How long the last commit may take.
const DRAIN: Duration = Duration::from_secs(60);

type AnyError = Box<dyn std::error::Error>;

fn main() -> ExitCode {
    tracing_subscriber::fmt()
        .with_env_filter(
            tracing_subscriber::EnvFilter::try_from_default_env()
                .unwrap_or_else(|_| tracing_subscriber::EnvFilter::new("warn")),
        )
        .with_writer(std::io::stderr)
        .init();
    mark("main", 0);
    match run() {
        Ok(()) => ExitCode::SUCCESS,
        Err(error) => {
            eprintln!("error: {error}");
            ExitCode::FAILURE
        }
    }
}

/// One line of the protocol, seen by the supervisor at once.
fn mark(name: &str, records: u64) {
    let mut out = std::io::stdout().lock();
    // A supervisor that has gone away needs no marks.
    let _ = writeln!(out, "MARK {name} {records}").and_then(|()| out.flush());
}

fn run() -> Result<(), AnyError> {
    let variable = |name: &str| std::env::var(name).ok().filter(|value| !value.is_empty());
    let needed = |name: &str| variable(name).ok_or_else(|| format!("variable {name} is not set"));
    let input = needed("IN")?;
    let follow = variable("FOLLOW").as_deref() == Some("1");
    if variable("CACHE_BYTES").is_some_and(|bytes| bytes != "0") {
        return Err("CACHE_BYTES: only 0 is accepted, there is no write-back cache".into());
    }
    let topology = topology(&needed("WORKLOAD")?, &input, variable("OUT"))?;
    let exactly_once = variable("EOS").as_deref() == Some("1");
    let mut config = StreamsConfig::new(needed("APP_ID")?, needed("BOOTSTRAP")?)
        .guarantee(if exactly_once { Guarantee::ExactlyOnce } else { Guarantee::AtLeastOnce })
        .commit_interval(Duration::from_millis(needed("COMMIT_MS")?.parse()?))
        .state_dir(needed("STATE_DIR")?)
        .store(match variable("STORE").as_deref() {
            None | Some("rocksdb") => StoreKind::RocksDb,
            Some("memory") => StoreKind::Memory,
            Some(other) => return Err(format!("STORE = {other}: accepted are rocksdb and memory").into()),
        });
    if let Some(threads) = variable("THREADS") {
        config = config.set("num.stream.threads", &threads)?;
    }
    if let Some(instance) = variable("INSTANCE") {
        config = config.instance_id(instance);
    }
    let broker: Arc<dyn Broker> = Arc::new(Kafka::connect(KafkaSettings::new(needed("BOOTSTRAP")?))?);
    let total = records(&*broker, &input)?;
    let streams = KafkaStreams::start_on(&topology, config, broker)?;
    if follow {
        return Ok(streams.run_until_signal(DRAIN)?);
    }
    let mut tenths = 0;
    loop {
        let processed = streams.figures().processed;
        if tenths == 0 && processed > 0 {
            mark("first", processed);
            tenths = 1;
        }
        while (1..10).contains(&tenths) && processed >= total / 10 * tenths {
            mark(&format!("p{tenths}0"), processed);
            tenths += 1;
        }
        if processed >= total {
            break;
        }
        if streams.state() == StreamsState::Error {
            break;
        }
        std::thread::sleep(LOOK);
    }
    mark("processed", streams.figures().processed);
    let processed = streams.figures().processed;
    streams.shutdown(DRAIN)?;
    mark("committed", processed);
    std::thread::sleep(Duration::from_millis(100));
    Ok(())
}

/// The workload as a program.
fn topology(workload: &str, input: &str, output: Option<String>) -> Result<Topology, AnyError> {
    let builder = StreamsBuilder::new();
    let records = builder.stream(&Topic::new(input, Bytes, Bytes));
    let output = || output.ok_or("variable OUT is not set");
    match workload {
        "consume" => {}
        "p1" => records.to(&Topic::new(output()?, Bytes, Bytes)),
        "p2" => {
            let counts = records.group_by_key().count(&Store::new("count", Bytes, I64));
            counts.to_stream().to(&Topic::new(output()?, Bytes, I64));
        }
        other => return Err(format!("WORKLOAD = {other}: accepted are consume, p1 and p2").into()),
    }
    Ok(builder.build()?)
}

/// Records that the input holds now.
fn records(broker: &dyn Broker, topic: &str) -> Result<u64, AnyError> {
    let mut admin = broker.admin()?;
    let found = admin.topics(&[topic])?.pop().flatten().ok_or_else(|| format!("topic {topic} does not exist"))?;
    let partitions: Vec<_> = (0..found.partitions).map(|partition| TopicPartition::new(topic, partition)).collect();
    let starts: i64 = admin.offsets(&partitions, Edge::Start)?.iter().sum();
    let ends: i64 = admin.offsets(&partitions, Edge::End)?.iter().sum();
    Ok(u64::try_from(ends - starts)?)
}
