//! What a node sees of its task while a record passes.

use headwater_changelog::State;

use super::outlet::Outlet;
use crate::broker::OutRecord;
use crate::error::{Error, RecordError, Result};
use crate::record::{Headers, Timestamp};
use crate::serde::SerdeError;
use crate::topology::OutputIndex;

/// Where the record that is being processed came from.
#[derive(Clone, Copy, Debug)]
pub(crate) struct Origin<'a> {
    pub(crate) topic: &'a str,
    pub(crate) partition: i32,
    pub(crate) offset: i64,
}

/// Records that were not forwarded, by reason.
#[derive(Clone, Copy, Debug, Default, PartialEq, Eq)]
pub struct Dropped {
    /// A key was null where one is needed.
    pub null_key: u64,
}

/// The surroundings of a record on its way through a task: stores, producer, headers, origin.
pub(crate) struct TaskContext<'a> {
    pub(super) state: &'a mut State,
    pub(super) outlet: &'a mut Outlet,
    pub(super) headers: &'a Headers,
    pub(super) no_headers: &'a Headers,
    pub(super) origin: Origin<'a>,
    pub(super) task_partition: i32,
    pub(super) dropped: &'a mut Dropped,
}

impl<'a> TaskContext<'a> {
    /// The task's stores, uncommitted writes included.
    #[inline]
    pub(crate) fn state(&mut self) -> &mut State {
        self.state
    }

    /// The producer, and the headers that go with what is written.
    #[inline]
    pub(crate) fn outlet(&mut self) -> (&mut Outlet, &'a Headers) {
        (self.outlet, self.headers)
    }

    /// Logs a change of a store: key, value (null for a removal), time; no headers.
    #[inline]
    pub(crate) fn log(&mut self, to: OutputIndex, key: &[u8], value: Option<&[u8]>, at: Timestamp) -> Result<()> {
        let record = OutRecord { timestamp: at, key: Some(key), value, headers: self.no_headers };
        self.outlet.send(to, self.task_partition, &record)
    }

    /// Counts a record that goes no further because its key is null.
    pub(crate) fn drop_null_key(&mut self) {
        self.dropped.null_key = self.dropped.null_key.saturating_add(1);
    }

    /// The error for a part of the current record that cannot be decoded or encoded.
    #[cold]
    pub(crate) fn refuse(&self, part: &str, error: &SerdeError) -> Error {
        let reason = format!("{part}: {error}");
        let Origin { topic, partition, offset } = self.origin;
        Error::Record(Box::new(RecordError { topic: topic.to_owned(), partition, offset, reason }))
    }
}
