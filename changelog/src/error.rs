//! What can go wrong, told apart by what the caller can do about it.

use std::error::Error as StdError;
use std::io;
use std::path::{Path, PathBuf};

/// The result of every fallible call of this crate.
pub type Result<T, E = Error> = std::result::Result<T, E>;

/// A failure of the state layer.
///
/// The variants differ in what a caller can do: wait for another process ([`Error::Locked`]), point the process
/// elsewhere ([`Error::Foreign`], [`Error::Name`]), rebuild from the log ([`Error::Corrupt`]), look for the store
/// elsewhere ([`Error::Closed`]), or repair the machine ([`Error::Io`], [`Error::Backend`]).
#[derive(Debug, thiserror::Error)]
#[non_exhaustive]
pub enum Error {
    /// Another process, or another instance inside this one, uses the state directory.
    #[error(
        "state directory {} is locked by {}; stop it, or give this process a directory of its own",
        path.display(),
        holder.map_or_else(|| "another process".to_owned(), |pid| format!("process {pid}"))
    )]
    Locked {
        /// The lock file.
        path: PathBuf,
        /// The process id that the holder wrote into the lock file, where it could be read.
        holder: Option<u32>,
    },

    /// The bytes on disk belong to something else and must not be touched.
    #[error("{subject} belongs to something else: {differs}")]
    Foreign {
        /// What was found, such as a store or a directory.
        subject: String,
        /// Which property differs, with the value found and the value expected.
        differs: String,
    },

    /// The bytes on disk cannot be understood. State can be deleted and rebuilt from its log.
    #[error("{subject} is corrupt: {reason}")]
    Corrupt {
        /// What was read, such as a file or a value.
        subject: String,
        /// What is wrong with it, and what was expected.
        reason: String,
    },

    /// The operating system refused an operation on a file or directory.
    #[error("cannot {action} {}", path.display())]
    Io {
        /// What was attempted, as a verb: "create", "lock".
        action: &'static str,
        /// The file or directory.
        path: PathBuf,
        /// The refusal.
        source: io::Error,
    },

    /// A name cannot be used for a directory, a store or an application.
    #[error("{what} {name:?} is not usable: {reason}; a name has 1 to 249 of the characters a-z A-Z 0-9 . _ -")]
    Name {
        /// What the name is for: "application id", "store".
        what: &'static str,
        /// The name as given.
        name: String,
        /// What is wrong with it.
        reason: &'static str,
    },

    /// A store was asked for that the task does not have.
    #[error("store {index} does not exist: the task has {stores} stores")]
    UnknownStore {
        /// The index asked for.
        index: u16,
        /// How many stores there are.
        stores: usize,
    },

    /// A key or value is longer than a store can hold.
    #[error("a {what} of {bytes} bytes is too large: the limit is {limit} bytes")]
    TooLarge {
        /// "key" or "value".
        what: &'static str,
        /// Its length.
        bytes: usize,
        /// The longest that is accepted.
        limit: usize,
    },

    /// The store behind a reader was closed: its task has moved away or is being restarted.
    #[error("the store is closed: its task has moved or is restarting")]
    Closed,

    /// The storage engine failed. After a failed write it accepts no more: close and reopen, or rebuild.
    #[error("cannot {action} the store")]
    Backend {
        /// What was attempted, as a verb: "read", "write", "flush".
        action: &'static str,
        /// The engine's own error.
        source: Box<dyn StdError + Send + Sync>,
    },
}

impl Error {
    /// For `map_err`: an [`Error::Io`] of `action` on `path`.
    pub(crate) fn io(action: &'static str, path: &Path) -> impl FnOnce(io::Error) -> Self {
        let path = path.to_owned();
        move |source| Self::Io { action, path, source }
    }
}
