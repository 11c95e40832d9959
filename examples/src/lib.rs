//! Shared pieces of the examples: topics, lines to feed, reading a topic to its end.

pub mod lines;
pub mod topics;
