//! Durable state folded from a log: a table backed by a log you own.

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
