//! Measurements: what the engine costs per record, beside a loop on the bare client.
//!
//! The binary `supervise` is the entry: it starts a broker, loads the input ([`preload`]), runs configurations in turn
//! ([`configuration`], [`run`]), checks their outputs ([`check`]) and reports ([`report`]). `README.md` says how to read
//! the result.

pub mod broker;
pub mod check;
pub mod configuration;
pub mod preload;
pub mod process;
pub mod records;
pub mod report;
pub mod run;
pub mod topics;

/// What can go wrong here is told to a person and ends the program, so that every error is a sentence.
pub type Result<T, E = Box<dyn std::error::Error + Send + Sync>> = std::result::Result<T, E>;
