//! The raw loop: librdkafka called by hand, which every figure of the engine is divided by.
//!
//! All of it is C, in `raw/raw.c`, which `build.rs` links into this binary together with its `main`.
#![no_main]

// Brings the static library that the C code calls.
use rdkafka_sys as _;
