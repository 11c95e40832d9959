//! Headwater: a Kafka-native, log-centric stream processor.

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
