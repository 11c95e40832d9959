//! `KTable`: the latest value of each key.

use std::fmt;
use std::sync::Arc;

use super::{KStream, Place};
use crate::node::{Change, Children, Factory, MapValues, output, port};

/// A table with keys of type `K` and values of type `V`, known by its updates.
#[must_use = "a table does nothing until something is attached to it"]
pub struct KTable<K, V> {
    pub(crate) at: Place<K, Change<V>>,
}

impl<K, V> Clone for KTable<K, V> {
    fn clone(&self) -> Self {
        Self { at: self.at.clone() }
    }
}

impl<K, V> fmt::Debug for KTable<K, V> {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        f.debug_struct("KTable").field("node", &self.at.node).finish_non_exhaustive()
    }
}

impl<K: 'static, V: Clone + 'static> KTable<K, V> {
    /// The updates as a stream: the new value, or `None` where the entry was removed.
    ///
    /// ```
    /// # use headwater::prelude::*;
    /// # let (words, out) = (Topic::new("words", Utf8, Utf8), Topic::new("out", Utf8, I64));
    /// # let builder = StreamsBuilder::new();
    /// # let counts = builder.stream(&words).group_by_key().count(&Store::new("counts", Utf8, I64));
    /// counts.to_stream().filter(|_, count| *count >= Some(2)).to(&out);
    /// # let mut driver = TopologyTestDriver::new(&builder.build()?)?;
    /// driver.pipe(&words, "be".into(), "".into(), 0)?;
    /// driver.pipe(&words, "be".into(), "".into(), 1)?;
    /// assert_eq!(driver.drain(&out)?, [("be".into(), 2)]);
    /// # Ok::<(), headwater::Error>(())
    /// ```
    pub fn to_stream(&self) -> KStream<K, Option<V>> {
        let at = self.at.operator("to_stream", |below: Children<K, Option<V>>| -> Factory<K, Change<V>> {
            let new = Arc::new(|change: Change<V>| change.new);
            Arc::new(move |arena| Ok(port(MapValues { map: Arc::clone(&new), output: output(arena, &below)? })))
        });
        KStream { at, key_serde: None, value_serde: None, rekeyed: false }
    }
}
