//! One partition: its records, what is stable of them, and what was aborted.

use std::collections::{BTreeMap, HashMap, VecDeque};
use std::sync::Arc;

use super::chunk::{CHUNK_BYTES, Chunk, Kind, Stamp};
use crate::broker::Isolation;
use crate::record::Timestamp;

/// A transaction that was aborted: its records lie between these offsets, among those of others.
#[derive(Clone, Copy, Debug)]
struct Aborted {
    producer_id: i64,
    first: i64,
    // The marker's offset. The list is in order of this.
    marker: i64,
}

/// The log of one partition. Everything appended is "replicated" at once, so the high watermark is the end.
#[derive(Debug, Default)]
pub(super) struct Log {
    // None is empty; in order of offsets. A chunk that nobody else holds may still grow at the end.
    chunks: VecDeque<Arc<Chunk>>,
    start: i64,
    end: i64,
    bytes: usize,
    // First offset of each open transaction, by producer.
    open: BTreeMap<i64, i64>,
    aborted: Vec<Aborted>,
}

/// How much to read at most.
#[derive(Clone, Copy, Debug)]
pub(super) struct Limit {
    pub(super) records: usize,
    /// Keys and values; one record is always read, however large.
    pub(super) bytes: usize,
}

/// What was read: records by chunk and index.
#[derive(Debug, Default)]
pub(super) struct Read {
    pub(super) chunks: Vec<Arc<Chunk>>,
    pub(super) index: Vec<(u32, u32)>,
    /// Where to read on.
    pub(super) next: i64,
    /// Whether that is the end of what this reader may see now.
    pub(super) at_end: bool,
}

/// The offset is not in the log: it has these now.
#[derive(Clone, Copy, Debug)]
pub(super) struct NotInLog {
    pub(super) start: i64,
    pub(super) end: i64,
}

impl Log {
    /// The first offset that is still there.
    pub(super) fn start(&self) -> i64 {
        self.start
    }

    /// The high watermark.
    pub(super) fn end(&self) -> i64 {
        self.end
    }

    /// The last stable offset: the first record of the oldest open transaction, or the end.
    pub(super) fn stable(&self) -> i64 {
        self.open.values().copied().fold(self.end, i64::min).max(self.start)
    }

    /// Where a reader of this isolation stops.
    pub(super) fn readable(&self, isolation: Isolation) -> i64 {
        match isolation {
            Isolation::ReadUncommitted => self.end,
            Isolation::ReadCommitted => self.stable(),
        }
    }

    /// Bytes of keys and values that are held.
    pub(super) fn bytes(&self) -> usize {
        self.bytes
    }

    /// Appends records. Returns the offset after the last of them.
    pub(super) fn append(&mut self, mut chunk: Chunk, stamp: Stamp) -> i64 {
        if chunk.is_empty() {
            return self.end;
        }
        if stamp.kind == Kind::Transactional {
            self.open.entry(stamp.producer_id).or_insert(self.end);
        }
        self.end = chunk.stamp(self.end, stamp);
        self.bytes = self.bytes.saturating_add(chunk.bytes());
        if let Some(tail) = self.growable(chunk.bytes()) {
            for index in 0..chunk.len() {
                tail.push_from(&chunk, index);
            }
        } else {
            self.chunks.push_back(Arc::new(chunk));
        }
        self.end
    }

    /// Ends the producer's transaction here with a marker.
    pub(super) fn append_marker(&mut self, producer_id: i64, epoch: i16, commit: bool, now: Timestamp) {
        let offset = self.end;
        if let Some(first) = self.open.remove(&producer_id)
            && !commit
        {
            self.aborted.push(Aborted { producer_id, first, marker: offset });
        }
        let stamp = Stamp { producer_id, epoch, kind: if commit { Kind::Commit } else { Kind::Abort } };
        if let Some(tail) = self.growable(0) {
            tail.push_marker(offset, now, stamp);
        } else {
            let mut chunk = Chunk::default();
            chunk.push_marker(offset, now, stamp);
            self.chunks.push_back(Arc::new(chunk));
        }
        self.end = offset.saturating_add(1);
    }

    /// The last chunk, if no batch lends from it and `more` bytes still fit.
    fn growable(&mut self, more: usize) -> Option<&mut Chunk> {
        let tail = self.chunks.back_mut()?;
        // Bounded in records too, for those without bytes.
        if tail.bytes().saturating_add(more) > CHUNK_BYTES || tail.len() >= CHUNK_BYTES / 16 {
            return None;
        }
        Arc::get_mut(tail)
    }

    /// Reads on from an offset.
    pub(super) fn read(&self, from: i64, limit: Limit, isolation: Isolation) -> Result<Read, NotInLog> {
        if from < self.start || from > self.end {
            return Err(NotInLog { start: self.start, end: self.end });
        }
        let end = self.readable(isolation);
        let aborted = match isolation {
            Isolation::ReadCommitted => self.aborted_from(from),
            Isolation::ReadUncommitted => &[],
        };
        let mut read = Read { next: from.max(end), at_end: true, ..Read::default() };
        let mut bytes = 0_usize;
        let first = self.chunk_at(from);
        for chunk in self.chunks.range(first..) {
            let skip = chunk.entries().partition_point(|entry| entry.offset < from);
            let place = u32::try_from(read.chunks.len()).unwrap_or(u32::MAX);
            let taken = read.index.len();
            for (at, entry) in chunk.entries().iter().enumerate().skip(skip) {
                if entry.offset >= end {
                    break;
                }
                let hidden = entry.stamp.kind.is_control()
                    || (entry.stamp.kind == Kind::Transactional
                        && aborted.iter().any(|range| {
                            range.producer_id == entry.stamp.producer_id
                                && (range.first..=range.marker).contains(&entry.offset)
                        }));
                if hidden {
                    continue;
                }
                bytes = bytes.saturating_add(entry.bytes());
                let full = read.index.len() >= limit.records || (bytes > limit.bytes && !read.index.is_empty());
                if full {
                    read.at_end = false;
                    break;
                }
                read.next = entry.offset.saturating_add(1);
                read.index.push((place, u32::try_from(at).unwrap_or(u32::MAX)));
            }
            if read.index.len() > taken {
                read.chunks.push(Arc::clone(chunk));
            }
            if !read.at_end || chunk.last_offset().is_some_and(|last| last >= end) {
                break;
            }
        }
        if read.at_end {
            read.next = from.max(end);
        }
        Ok(read)
    }

    /// Aborted ranges that end at this offset or later.
    fn aborted_from(&self, offset: i64) -> &[Aborted] {
        let first = self.aborted.partition_point(|range| range.marker < offset);
        self.aborted.get(first..).unwrap_or_default()
    }

    /// The place of the first chunk that holds this offset or a later one.
    fn chunk_at(&self, offset: i64) -> usize {
        self.chunks.partition_point(|chunk| chunk.last_offset().is_some_and(|last| last < offset))
    }

    /// Forgets records before an offset, which becomes the log's start.
    pub(super) fn delete_before(&mut self, offset: i64) -> Result<(), NotInLog> {
        if offset > self.end || offset < 0 {
            return Err(NotInLog { start: self.start, end: self.end });
        }
        self.start = self.start.max(offset);
        while let Some(chunk) = self.chunks.front()
            && chunk.last_offset().is_some_and(|last| last < self.start)
        {
            self.bytes = self.bytes.saturating_sub(chunk.bytes());
            self.chunks.pop_front();
        }
        let start = self.start;
        self.aborted.retain(|range| range.marker >= start);
        Ok(())
    }

    /// Drops the oldest chunks until at most `keep` bytes are held; never the newest chunk, never unstable records.
    pub(super) fn retain_bytes(&mut self, keep: usize) {
        let stable = self.stable();
        while self.bytes > keep
            && let Some(last) = self.chunks.front().and_then(|oldest| oldest.last_offset())
            && last < stable
            && let Some(second) = self.chunks.get(1)
        {
            let next = second.entries().first().map_or(self.end, |entry| entry.offset);
            if self.delete_before(next).is_err() {
                return;
            }
        }
    }

    /// Keeps the last record of each key (tombstones too) in what is stable, and drops markers and aborted
    /// records there. Offsets stay as they are.
    pub(super) fn compact(&mut self) {
        let stable = self.stable();
        let Ok(all) = self.read(self.start, Limit { records: usize::MAX, bytes: usize::MAX }, Isolation::ReadCommitted)
        else {
            return;
        };
        let record = |(chunk, at): (u32, u32)| {
            let (chunk, at) = (usize::try_from(chunk).ok()?, usize::try_from(at).ok()?);
            let chunk = all.chunks.get(chunk)?;
            chunk.view(at).map(|view| (chunk, at, view))
        };
        let mut latest: HashMap<&[u8], i64> = HashMap::new();
        for (_, _, view) in all.index.iter().filter_map(|place| record(*place)) {
            latest.insert(view.key.unwrap_or_default(), view.offset);
        }
        let mut kept = Rewriter::default();
        for (chunk, at, view) in all.index.iter().filter_map(|place| record(*place)) {
            if latest.get(view.key.unwrap_or_default()) == Some(&view.offset) {
                kept.push(chunk, at);
            }
        }
        for chunk in &self.chunks {
            for (at, entry) in chunk.entries().iter().enumerate() {
                if entry.offset >= stable {
                    kept.push(chunk, at);
                }
            }
        }
        self.chunks = kept.finish();
        self.bytes = self.chunks.iter().map(|chunk| chunk.bytes()).sum();
        self.aborted.retain(|range| range.marker >= stable);
    }

    /// All entries as they are, markers and aborted ones too.
    pub(super) fn raw(&self) -> impl Iterator<Item = (&Chunk, usize)> {
        self.chunks
            .iter()
            .flat_map(|chunk| (0..chunk.len()).map(move |at| (chunk.as_ref(), at)))
            .filter(|(chunk, at)| chunk.entries().get(*at).is_some_and(|entry| entry.offset >= self.start))
    }
}

/// Puts records that stay into new chunks.
#[derive(Default)]
struct Rewriter {
    done: VecDeque<Arc<Chunk>>,
    filling: Chunk,
}

impl Rewriter {
    fn push(&mut self, from: &Chunk, at: usize) {
        self.filling.push_from(from, at);
        if self.filling.bytes() >= CHUNK_BYTES {
            self.done.push_back(Arc::new(std::mem::take(&mut self.filling)));
        }
    }

    fn finish(mut self) -> VecDeque<Arc<Chunk>> {
        if !self.filling.is_empty() {
            self.done.push_back(Arc::new(self.filling));
        }
        self.done
    }
}
