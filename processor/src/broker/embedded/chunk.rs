//! Records side by side in one piece of memory, which is what a log is made of and what a batch lends from.

use crate::broker::{BrokerError, ErrorClass, OutRecord, RecordView, Result};
use crate::record::{Headers, Timestamp};

/// Chunks are closed at this size, bytes of keys and values. Large enough that closing one costs nothing per
/// record, small enough that a log gives memory back in useful steps.
pub(super) const CHUNK_BYTES: usize = 64 * 1024;

/// Marks a key or value that is null, and a record without headers.
const NONE: u32 = u32::MAX;

/// Who wrote a record.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub(super) struct Stamp {
    pub(super) producer_id: i64,
    pub(super) epoch: i16,
    pub(super) kind: Kind,
}

/// What a record is to transactions.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub(super) enum Kind {
    /// Written outside a transaction.
    Plain,
    /// Written in one.
    Transactional,
    /// The marker that ends one; it takes an offset and is never shown to a reader.
    Commit,
    /// The same, for one that was aborted.
    Abort,
}

impl Kind {
    /// Whether this is a marker and no record.
    pub(super) fn is_control(self) -> bool {
        matches!(self, Self::Commit | Self::Abort)
    }
}

#[derive(Clone, Copy, Debug)]
pub(super) struct Entry {
    pub(super) offset: i64,
    pub(super) timestamp: Timestamp,
    pub(super) stamp: Stamp,
    // Key bytes start here, value bytes follow at once.
    start: u32,
    key: u32,
    value: u32,
    headers: u32,
}

impl Entry {
    /// Bytes of key and value.
    pub(super) fn bytes(&self) -> usize {
        [self.key, self.value]
            .into_iter()
            .filter(|length| *length != NONE)
            .fold(0, |sum, length| sum.saturating_add(widen(length)))
    }
}

/// Records in order of their offsets.
#[derive(Debug, Default)]
pub(super) struct Chunk {
    entries: Vec<Entry>,
    bytes: Vec<u8>,
    // Few records have any, so they lie apart and an entry names its place.
    headers: Vec<Headers>,
}

impl Chunk {
    /// An empty chunk with room for what `other` holds: the next one is usually about as large.
    pub(super) fn sized_like(other: &Self) -> Self {
        Self {
            entries: Vec::with_capacity(other.entries.len()),
            bytes: Vec::with_capacity(other.bytes.len()),
            headers: Vec::new(),
        }
    }

    /// Copies a record to the end. Offset and writer are set when a log takes the chunk.
    pub(super) fn push(&mut self, record: &OutRecord<'_>) -> Result<()> {
        let start = self.bytes.len();
        let (Ok(at), Ok(key), Ok(value)) = (u32::try_from(start), length(record.key), length(record.value)) else {
            return Err(BrokerError::new(ErrorClass::TooLarge, "a record of 4 GiB or more does not fit the log"));
        };
        self.bytes.extend_from_slice(record.key.unwrap_or_default());
        self.bytes.extend_from_slice(record.value.unwrap_or_default());
        let headers = if record.headers.is_empty() {
            NONE
        } else {
            let index = u32::try_from(self.headers.len()).unwrap_or(NONE);
            self.headers.push(record.headers.clone());
            index
        };
        self.entries.push(Entry {
            offset: 0,
            timestamp: record.timestamp,
            stamp: Stamp { producer_id: -1, epoch: -1, kind: Kind::Plain },
            start: at,
            key,
            value,
            headers,
        });
        Ok(())
    }

    /// Adds a marker.
    pub(super) fn push_marker(&mut self, offset: i64, timestamp: Timestamp, stamp: Stamp) {
        self.entries.push(Entry {
            offset,
            timestamp,
            stamp,
            start: u32::try_from(self.bytes.len()).unwrap_or(NONE),
            key: NONE,
            value: NONE,
            headers: NONE,
        });
    }

    /// Numbers all records from `base` and says who wrote them. Returns the offset after the last.
    pub(super) fn stamp(&mut self, base: i64, stamp: Stamp) -> i64 {
        let mut next = base;
        for entry in &mut self.entries {
            entry.offset = next;
            entry.stamp = stamp;
            next = next.saturating_add(1);
        }
        next
    }

    /// Copies one record of another chunk to the end, offset and writer included.
    pub(super) fn push_from(&mut self, other: &Self, index: usize) {
        let (Some(entry), Some(view)) = (other.entries.get(index), other.view(index)) else {
            return;
        };
        let mut copy = *entry;
        copy.start = u32::try_from(self.bytes.len()).unwrap_or(NONE);
        self.bytes.extend_from_slice(view.key.unwrap_or_default());
        self.bytes.extend_from_slice(view.value.unwrap_or_default());
        if let Some(headers) = other.headers_of(index) {
            copy.headers = u32::try_from(self.headers.len()).unwrap_or(NONE);
            self.headers.push(headers.clone());
        }
        self.entries.push(copy);
    }

    pub(super) fn entries(&self) -> &[Entry] {
        &self.entries
    }

    pub(super) fn len(&self) -> usize {
        self.entries.len()
    }

    pub(super) fn is_empty(&self) -> bool {
        self.entries.is_empty()
    }

    /// Bytes of all keys and values.
    pub(super) fn bytes(&self) -> usize {
        self.bytes.len()
    }

    pub(super) fn last_offset(&self) -> Option<i64> {
        self.entries.last().map(|entry| entry.offset)
    }

    /// Lends a record.
    pub(super) fn view(&self, index: usize) -> Option<RecordView<'_>> {
        let entry = self.entries.get(index)?;
        let (key, after) = self.part(widen(entry.start), entry.key);
        let (value, _) = self.part(after, entry.value);
        Some(RecordView { offset: entry.offset, timestamp: entry.timestamp, key, value })
    }

    /// The record's headers, if it has any.
    pub(super) fn headers_of(&self, index: usize) -> Option<&Headers> {
        let entry = self.entries.get(index)?;
        if entry.headers == NONE {
            return None;
        }
        self.headers.get(widen(entry.headers))
    }

    fn part(&self, start: usize, length: u32) -> (Option<&[u8]>, usize) {
        if length == NONE {
            return (None, start);
        }
        let end = start.saturating_add(widen(length));
        (self.bytes.get(start..end), end)
    }
}

fn length(part: Option<&[u8]>) -> Result<u32, ()> {
    match part {
        None => Ok(NONE),
        Some(bytes) => u32::try_from(bytes.len()).ok().filter(|length| *length != NONE).ok_or(()),
    }
}

fn widen(value: u32) -> usize {
    usize::try_from(value).unwrap_or(usize::MAX)
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn a_chunk_gives_back_nulls_empty_parts_and_headers() {
        let mut headers = Headers::new();
        headers.push("h", Some(b"x"));
        let none = Headers::new();
        let mut chunk = Chunk::default();
        for (key, value, headers) in
            [(Some(&b"k"[..]), None, &none), (None, Some(&b""[..]), &headers), (Some(b""), Some(b"v"), &none)]
        {
            chunk.push(&OutRecord { timestamp: 7, key, value, headers }).unwrap();
        }
        let stamp = Stamp { producer_id: 3, epoch: 1, kind: Kind::Plain };
        assert_eq!(chunk.stamp(10, stamp), 13);
        let seen: Vec<_> = (0..3).filter_map(|index| chunk.view(index)).collect();
        assert_eq!((seen[0].key, seen[0].value, seen[0].offset), (Some(&b"k"[..]), None, 10));
        assert_eq!((seen[1].key, seen[1].value), (None, Some(&b""[..])));
        assert_eq!((seen[2].key, seen[2].value), (Some(&b""[..]), Some(&b"v"[..])));
        assert!(chunk.headers_of(0).is_none());
        assert_eq!(chunk.headers_of(1), Some(&headers));

        let mut copy = Chunk::default();
        copy.push_from(&chunk, 1);
        copy.push_from(&chunk, 2);
        assert_eq!(copy.headers_of(0), Some(&headers));
        assert_eq!(copy.view(1).map(|view| (view.offset, view.value)), Some((12, Some(&b"v"[..]))));
    }
}
