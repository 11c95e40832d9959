//! Headwater: a Kafka-native, log-centric stream processor.

pub mod broker;
pub mod group;
pub mod record;
pub mod time;
pub mod wake;
