//! Compiles the raw loop (`raw/raw.c`) and links it into the binary `raw`.
//!
//! The loop calls librdkafka by hand. In C it needs no `unsafe` in Rust, and as a binary of this package it is linked
//! with the same static library as the engine, so that both are measured on the same client.

use std::env;
use std::error::Error;

fn main() -> Result<(), Box<dyn Error>> {
    println!("cargo:rerun-if-changed=raw");
    let root = env::var("DEP_RDKAFKA_ROOT").map_err(|_| {
        "DEP_RDKAFKA_ROOT is not set: rdkafka-sys says where its headers are only when it builds librdkafka itself \
         (without its features `dynamic-linking` and `cmake-build`)"
    })?;
    let objects = cc::Build::new()
        .file("raw/raw.c")
        // As a system header: its warnings are not ours.
        .flag("-isystem")
        .flag(format!("{root}/src"))
        .std("c11")
        // The yardstick is always optimised, whatever the profile: it must never look slower than it is.
        .opt_level(3)
        .warnings(true)
        .extra_warnings(true)
        .compile_intermediates();
    for object in objects {
        println!("cargo:rustc-link-arg-bin=raw={}", object.display());
    }
    Ok(())
}
