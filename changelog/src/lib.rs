//! Durable state folded from a log: a table backed by a log you own.
//!
//! # Overview
//!
//! * [`State`] is what operators use: the stores of one task, uncommitted writes over committed bytes.
//! * [`Backend`] keeps the committed bytes, with the changelog offset they go up to: [`Memory`], or `rocks` on disk.
//!   [`Reader`] is its face to other threads.
//! * [`Batch`] is what reaches a back end: changes, offsets and origins that take effect together.
//! * [`Directory`] is where an application's state lies, locked.
//! * [`Identity`] says which log a store was made from; [`prepare`] decides whether its data can be used.
//! * [`restore`] folds a log's records into a store, through the store's [`layout`].
//!
//! ```text
//! operators ──► State (staged │ cache) ──commit: one Batch──► Backend ◄── Reader (other threads)
//!                                                               ▲
//!                             log ── Restorer ── Layout ────────┘
//! ```
//!
//! The crate does no I/O but on the local disk: it knows no broker, no topology and no clock. The README shows it used
//! alone.

mod batch;
mod directory;
mod error;
mod identity;
pub mod layout;
mod memory;
mod name;
pub mod restore;
#[cfg(feature = "rocksdb")]
pub mod rocks;
mod staged;
mod store;

pub use batch::{Batch, Change};
pub use directory::{Directory, TaskId};
pub use error::{Error, Result};
pub use identity::{Identity, Verdict, adopt, prepare, verify};
pub use memory::Memory;
pub use staged::{Entry, State};
pub use store::{Backend, Reader, StoreId, Visitor};

#[doc = include_str!("../README.md")]
#[cfg(doctest)]
struct Readme;
