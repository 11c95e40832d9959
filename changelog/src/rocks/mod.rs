//! The durable back end: one RocksDB database per task.
//!
//! A store is a column family; offsets and origins lie in the default one. A commit is one write batch, so they
//! cannot disagree.
//!
//! # Durability
//!
//! RocksDB keeps its own log, which a commit appends to without waiting for the disk. A killed process loses nothing
//! that was committed. A loss of power can lose the latest commits, never a part of one: recovery stops at the last
//! whole batch of the log, and the stored offset says what to read again from the changelog. What can be lost so is
//! bounded by the write buffers ([`Settings::write_buffer_bytes`]): whenever they are written out, the log up to then
//! is synchronised. The kernel is asked to write the log out every MiB, so it is far less in practice, and nothing after
//! a [`flush`](crate::Backend::flush) or an orderly close. The example `wal_or_flusher` measures why a log of RocksDB's
//! own is worth its cost.

mod database;
mod shared;

pub use self::database::Rocks;
pub use self::shared::{Settings, Shared};

use std::path::Path;

use crate::{Error, Result};

/// Opens or creates the database of a task, with the given stores.
///
/// Stores that are new are created empty; stores on disk that are not asked for stay there, closed to all use. `path`
/// is a directory of the database's own.
pub fn open<S: AsRef<str>>(path: impl AsRef<Path>, stores: &[S], shared: &Shared) -> Result<Rocks> {
    Rocks::open(path.as_ref(), stores, shared)
}

/// For `map_err`: damage is told apart, since state can be rebuilt; all else is a failure of the engine.
fn failed(action: &'static str, path: &Path) -> impl Fn(rocksdb::Error) -> Error {
    move |source| match source.kind() {
        rocksdb::ErrorKind::Corruption => Error::Corrupt {
            subject: format!("database {}", path.display()),
            reason: format!("{source}; delete the directory to rebuild it from the changelog"),
        },
        _ => Error::Backend { action, source: Box::new(source) },
    }
}

#[cfg(test)]
mod tests;
