//! Tests of a program without a broker.

mod driver;
mod recorder;

pub use driver::TopologyTestDriver;
