//! Harness for tests on a real broker.
