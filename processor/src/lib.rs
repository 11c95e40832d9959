//! Headwater: a Kafka-native, log-centric stream processor.
//!
//! Declare a program with [`StreamsBuilder`] over typed [`Topic`]s and [`Store`]s, test it with [`TopologyTestDriver`], run it
//! with [`KafkaStreams`] in any number of identical processes. The [`prelude`] has what a program usually names.
//!
//! | to learn about | read |
//! |---|---|
//! | operators | [`KStream`], [`KGroupedStream`], [`KTable`] |
//! | settings | [`StreamsConfig`] |
//! | how values become bytes | [`serde`] |
//! | what the engine needs of a log | [`broker`] |
//! | who owns which task | [`group`] |
//! | state on disk | the crate `headwater-changelog` |

pub mod broker;
mod config;
mod dsl;
mod error;
pub mod group;
mod node;
mod partition;
pub mod record;
mod restore;
mod runtime;
pub mod serde;
mod task;
mod testing;
pub mod time;
mod topic;
mod topology;
pub mod wake;
mod worker;

pub use config::{Guarantee, StoreKind, StreamsConfig};
pub use dsl::{Grouped, KGroupedStream, KStream, KTable, StreamsBuilder};
pub use error::{BoxError, Error, RecordError, Result};
pub use headwater_changelog::Error as StateError;
pub use node::Payload;
pub use partition::{murmur2, partition_of};
pub use runtime::{Figures, KafkaStreams, StreamsState, TaskStatus, wait_for_signal};
pub use task::Dropped;
pub use testing::TopologyTestDriver;
pub use topic::{Store, Topic};
pub use topology::Topology;

/// What a program usually names.
pub mod prelude {
    pub use crate::record::{Headers, Record, Timestamp};
    pub use crate::serde::{Bytes, I64, Json, Nullable, Serde, Utf8};
    pub use crate::{
        Error, Grouped, Guarantee, KGroupedStream, KStream, KTable, KafkaStreams, Result, Store, StreamsBuilder,
        StreamsConfig, Topic, Topology, TopologyTestDriver,
    };
}

/// The README's examples are run as tests.
#[cfg(doctest)]
#[doc = include_str!("../../README.md")]
pub struct ReadmeDoctests;
