//! How a changelog record becomes local bytes.
//!
//! Changelog bytes are fixed by what other programs read and write; local bytes are ours. A [`Layout`] is the step from
//! one to the other.

mod plain;
mod timestamped;

pub use self::plain::Plain;
pub use self::timestamped::Timestamped;

use crate::restore::Record;
use crate::{Batch, StoreId};

/// The form of a store's local keys and values.
pub trait Layout: Send + Sync {
    /// Names the form and its version. Data of another form are never read as this one: it is part of a store's
    /// [`Identity`](crate::Identity).
    fn version(&self) -> &'static str;

    /// Adds to `batch` what a changelog record does to `store`.
    fn fold(&self, store: StoreId, record: &Record<'_>, batch: &mut Batch);
}
