//! Headwater: a Kafka-native, log-centric stream processor.

pub mod broker;
mod dsl;
mod error;
pub mod group;
mod node;
mod partition;
pub mod record;
pub mod serde;
mod task;
mod testing;
pub mod time;
mod topic;
mod topology;
pub mod wake;

pub use dsl::{Grouped, KGroupedStream, KStream, KTable, StreamsBuilder};
pub use error::{BoxError, Error, RecordError, Result};
pub use node::Payload;
pub use partition::{murmur2, partition_of};
pub use task::Dropped;
pub use testing::TopologyTestDriver;
pub use topic::{Store, Topic};
pub use topology::Topology;

/// What a program usually names.
pub mod prelude {
    pub use crate::record::{Headers, Record, Timestamp};
    pub use crate::serde::{Bytes, I64, Json, Nullable, Serde, Utf8};
    pub use crate::{
        Grouped, KGroupedStream, KStream, KTable, Store, StreamsBuilder, Topic, Topology, TopologyTestDriver,
    };
}
