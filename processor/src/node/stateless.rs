//! Operators that remember nothing.

use std::sync::Arc;

use super::{Key, Node, Output};
use crate::error::Result;
use crate::record::Timestamp;
use crate::task::TaskContext;

/// Passes on the records for which `keep` says so.
pub(crate) struct Filter<K, V, F> {
    pub(crate) keep: Arc<F>,
    pub(crate) output: Output<K, V>,
}

impl<K, V: Clone, F: Fn(&K, &V) -> bool> Node<K, V> for Filter<K, V, F> {
    fn push(&mut self, cx: &mut TaskContext<'_>, key: Key<'_, K>, value: V, at: Timestamp) -> Result<()> {
        if (self.keep)(key.typed, &value) { self.output.forward(cx, key, value, at) } else { Ok(()) }
    }
}

/// Makes one record of another type of each.
pub(crate) struct Map<K2, V2, F> {
    pub(crate) map: Arc<F>,
    pub(crate) output: Output<K2, V2>,
}

impl<K, V, K2, V2: Clone, F: Fn(&K, V) -> (K2, V2)> Node<K, V> for Map<K2, V2, F> {
    fn push(&mut self, cx: &mut TaskContext<'_>, key: Key<'_, K>, value: V, at: Timestamp) -> Result<()> {
        let (key, value) = (self.map)(key.typed, value);
        self.output.forward(cx, Key::new(&key), value, at)
    }
}

/// Makes another value of each; key, and with it the partition, stays.
pub(crate) struct MapValues<K, V2, F> {
    pub(crate) map: Arc<F>,
    pub(crate) output: Output<K, V2>,
}

impl<K, V, V2: Clone, F: Fn(V) -> V2> Node<K, V> for MapValues<K, V2, F> {
    fn push(&mut self, cx: &mut TaskContext<'_>, key: Key<'_, K>, value: V, at: Timestamp) -> Result<()> {
        self.output.forward(cx, key, (self.map)(value), at)
    }
}

/// Makes any number of values of each; the key stays.
pub(crate) struct FlatMapValues<K, V2, F> {
    pub(crate) map: Arc<F>,
    pub(crate) output: Output<K, V2>,
}

impl<K, V, V2: Clone, I: IntoIterator<Item = V2>, F: Fn(V) -> I> Node<K, V> for FlatMapValues<K, V2, F> {
    fn push(&mut self, cx: &mut TaskContext<'_>, key: Key<'_, K>, value: V, at: Timestamp) -> Result<()> {
        for value in (self.map)(value) {
            self.output.forward(cx, key, value, at)?;
        }
        Ok(())
    }
}
