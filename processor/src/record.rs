//! Records as they travel: headers, and what is known about where a record came from.

use std::sync::Arc;

/// Milliseconds since the Unix epoch; event time, as Kafka carries it.
pub type Timestamp = i64;

/// A partition of a topic.
#[derive(Clone, Debug, PartialEq, Eq, Hash, PartialOrd, Ord)]
pub struct TopicPartition {
    /// The topic's name.
    pub topic: Arc<str>,
    /// Its partition, from 0.
    pub partition: i32,
}

impl TopicPartition {
    /// Names a partition.
    #[must_use]
    pub fn new(topic: impl Into<Arc<str>>, partition: i32) -> Self {
        Self { topic: topic.into(), partition }
    }
}

impl std::fmt::Display for TopicPartition {
    fn fmt(&self, f: &mut std::fmt::Formatter<'_>) -> std::fmt::Result {
        write!(f, "{}-{}", self.topic, self.partition)
    }
}

/// Record headers in order; names may repeat and a value may be null.
///
/// All names and values lie in one buffer that is reused from record to record, so a
/// record without headers costs nothing and one with headers allocates nothing once the
/// buffer has grown.
#[derive(Clone, Debug, Default, PartialEq, Eq)]
pub struct Headers {
    bytes: Vec<u8>,
    // (end of name, end of value or None for a null value); a name starts where the entry before ended.
    entries: Vec<(usize, Option<usize>)>,
}

impl Headers {
    /// No headers.
    #[must_use]
    pub fn new() -> Self {
        Self::default()
    }

    /// Forgets all headers and keeps the memory.
    pub fn clear(&mut self) {
        self.bytes.clear();
        self.entries.clear();
    }

    /// Adds one at the end.
    pub fn push(&mut self, name: &str, value: Option<&[u8]>) {
        self.bytes.extend_from_slice(name.as_bytes());
        let name_end = self.bytes.len();
        let value_end = value.map(|value| {
            self.bytes.extend_from_slice(value);
            self.bytes.len()
        });
        self.entries.push((name_end, value_end));
    }

    /// How many there are.
    #[must_use]
    pub fn len(&self) -> usize {
        self.entries.len()
    }

    /// Whether there are none.
    #[must_use]
    pub fn is_empty(&self) -> bool {
        self.entries.is_empty()
    }

    /// Names and values in order.
    pub fn iter(&self) -> impl Iterator<Item = (&str, Option<&[u8]>)> {
        let mut start = 0;
        self.entries.iter().map(move |&(name_end, value_end)| {
            // The ranges are made by `push` alone, from a `str`, so both always hold.
            let name =
                self.bytes.get(start..name_end).and_then(|name| std::str::from_utf8(name).ok()).unwrap_or_default();
            let value = value_end.and_then(|end| self.bytes.get(name_end..end));
            start = value_end.unwrap_or(name_end);
            (name, value)
        })
    }

    /// The value of the last header with this name.
    #[must_use]
    pub fn last(&self, name: &str) -> Option<Option<&[u8]>> {
        self.iter().filter(|(found, _)| *found == name).last().map(|(_, value)| value)
    }
}

/// A record with its time: what an operator forwards and a test reads.
#[derive(Clone, Debug, PartialEq, Eq)]
pub struct Record<K, V> {
    /// The key.
    pub key: K,
    /// The value.
    pub value: V,
    /// Event time.
    pub timestamp: Timestamp,
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn headers_keep_order_repeats_and_nulls() {
        let mut headers = Headers::new();
        headers.push("a", Some(b"1"));
        headers.push("n", None);
        headers.push("a", Some(b""));
        let seen: Vec<_> = headers.iter().collect();
        assert_eq!(seen, [("a", Some(&b"1"[..])), ("n", None), ("a", Some(&b""[..]))]);
        assert_eq!(headers.last("a"), Some(Some(&b""[..])));
        assert_eq!(headers.last("n"), Some(None));
        assert_eq!(headers.last("x"), None);
        headers.clear();
        assert!(headers.is_empty());
    }
}
