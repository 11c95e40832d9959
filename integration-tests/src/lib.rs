//! Harness for tests on a real Kafka: a broker, separate processes with faults, a steady producer, an independent
//! judge.
//!
//! A test takes the shared [`Broker`] (or one of its own, to stop it), creates [`Topics`] under [`unique`] names, feeds
//! them with a [`Feeder`], runs the program under test as a [`Fleet`] of processes that it kills, pauses and restarts,
//! and lets a [`Judge`] read the topics and the [`oracle`] say what had to come out. Nothing here uses the engine, so
//! that a mistake of the engine cannot hide itself.
//!
//! Where no broker can be had every call that needs one fails and says what to install: a test never passes unrun.

mod broker;
mod dump;
mod failure;
mod fleet;
mod judge;
mod kafka;
mod ports;
mod process;
mod producer;
mod program;
mod record;
mod settings;
mod status;
mod stream;
mod topics;
mod wait;
mod watch;
mod watchdog;

pub mod counting;
pub mod oracle;

pub use broker::Broker;
pub use dump::{StoreDump, StoreEntry, Stores, check_stores_exact, check_stores_last};
pub use failure::Failure;
pub use fleet::Fleet;
pub use judge::{Isolation, Judge};
pub use process::{Process, wait_for_pause};
pub use producer::{Feeder, Sent, produce_all};
pub use program::Program;
pub use record::Record;
pub use settings::Settings;
pub use status::Status;
pub use stream::{Outgoing, Stream};
pub use topics::{Topics, unique};
pub use wait::eventually;
pub use watch::Watch;
