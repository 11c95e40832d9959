//! Runs the harness's broker by itself: a Kafka of one node for trying things out.
//!
//! Prints its address and runs until it is stopped (ctrl-c or any signal); the node and its data go with it.

use std::io::Write;
use std::process::ExitCode;
use std::thread;

use clap::Parser;
use headwater_integration_tests::{Broker, Failure, Settings};

/// Starts one Kafka node from its jars and runs until stopped. Its data is removed then.
#[derive(Debug, Parser)]
struct Arguments {
    /// A broker property, over the harness's own value; may be repeated.
    #[arg(long = "property", value_name = "NAME=VALUE", value_parser = property)]
    properties: Vec<(String, String)>,
}

fn main() -> ExitCode {
    match run(Arguments::parse()) {
        Ok(()) => ExitCode::SUCCESS,
        Err(failure) => {
            eprintln!("{failure}");
            ExitCode::FAILURE
        }
    }
}

fn run(arguments: Arguments) -> Result<(), Failure> {
    let settings = arguments
        .properties
        .into_iter()
        .fold(Settings::default(), |settings, (name, value)| settings.property(name, value));
    let broker = Broker::start(&settings)?;
    println!("Kafka listens on {} (process {})", broker.bootstrap(), broker.process_id()?);
    std::io::stdout().flush()?;
    loop {
        thread::park();
    }
}

fn property(text: &str) -> Result<(String, String), String> {
    match text.split_once('=') {
        Some((name, value)) if !name.is_empty() => Ok((name.to_owned(), value.to_owned())),
        _ => Err(format!("`{text}` is not of the form NAME=VALUE")),
    }
}
