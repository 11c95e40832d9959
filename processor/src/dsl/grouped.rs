//! Records brought together by key, to be aggregated.

use std::fmt;
use std::sync::Arc;

use super::{KStream, KTable};
use crate::node::{Aggregate, Change, Children, Factory, output, port};
use crate::serde::Serde;
use crate::topic::{SharedSerde, Store};
use crate::topology::TopicName;

/// How a grouping writes its repartition topic: serdes, and a name if it is given one.
pub struct Grouped<K, V> {
    pub(crate) key: SharedSerde<K>,
    pub(crate) value: SharedSerde<V>,
    pub(crate) name: Option<Arc<str>>,
}

impl<K, V> Grouped<K, V> {
    /// Serdes for the repartition topic.
    pub fn with(key: impl Serde<K> + 'static, value: impl Serde<V> + 'static) -> Self {
        Self { key: Arc::new(key), value: Arc::new(value), name: None }
    }

    /// Names the repartition topic `<application id>-<name>-repartition`. Without a name it has the store's.
    #[must_use]
    pub fn named(mut self, name: impl Into<Arc<str>>) -> Self {
        self.name = Some(name.into());
        self
    }
}

impl<K, V> fmt::Debug for Grouped<K, V> {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        f.debug_struct("Grouped").field("name", &self.name).finish_non_exhaustive()
    }
}

/// A grouped stream.
#[must_use = "a grouping does nothing until it is aggregated"]
pub struct KGroupedStream<K, V> {
    stream: KStream<K, V>,
    name: Option<Arc<str>>,
}

impl<K, V> Clone for KGroupedStream<K, V> {
    fn clone(&self) -> Self {
        Self { stream: self.stream.clone(), name: self.name.clone() }
    }
}

impl<K, V> fmt::Debug for KGroupedStream<K, V> {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        f.debug_struct("KGroupedStream").field("name", &self.name).finish_non_exhaustive()
    }
}

impl<K: 'static, V: Clone + 'static> KGroupedStream<K, V> {
    pub(crate) fn new(stream: KStream<K, V>, name: Option<Arc<str>>) -> Self {
        Self { stream, name }
    }

    /// Counts the records of each key. Every record updates the table, the store and its changelog
    /// (`<application id>-<store>-changelog`: key, 8 bytes big-endian, the highest timestamp counted).
    ///
    /// ```
    /// # use headwater::prelude::*;
    /// # let (words, out) = (Topic::new("words", Utf8, Utf8), Topic::new("out", Utf8, I64));
    /// # let counts = Store::new("counts", Utf8, I64);
    /// # let builder = StreamsBuilder::new();
    /// builder.stream(&words).group_by_key().count(&counts).to_stream().to(&out);
    /// # let mut driver = TopologyTestDriver::new(&builder.build()?)?;
    /// driver.pipe(&words, "be".into(), "".into(), 0)?;
    /// driver.pipe(&words, "be".into(), "".into(), 1)?;
    /// assert_eq!(driver.drain(&out)?, [("be".into(), 1), ("be".into(), 2)]);
    /// assert_eq!(driver.get(&counts, &"be".into())?, Some(2));
    /// # Ok::<(), headwater::Error>(())
    /// ```
    pub fn count(&self, store: &Store<K, i64>) -> KTable<K, i64> {
        self.fold("count", store, |_, _, count| count.unwrap_or(0).saturating_add(1))
    }

    fn fold<A: Clone + 'static>(
        &self,
        kind: &str,
        store: &Store<K, A>,
        fold: impl Fn(&K, V, Option<A>) -> A + Send + Sync + 'static,
    ) -> KTable<K, A> {
        let stream = self.together(store.name());
        let mut plan = stream.at.plan.lock();
        let node = plan.node(kind, store.name(), Some(stream.at.node));
        let (index, changelog) = plan.store(node, &store.name().into());
        drop(plan);
        let (store, fold) = (store.clone(), Arc::new(fold));
        let at = stream.at.operator_as(node, move |below: Children<K, Change<A>>| -> Factory<K, V> {
            Arc::new(move |arena| {
                let fold = Arc::clone(&fold);
                Ok(port(Aggregate {
                    store: arena.store(index)?,
                    changelog,
                    key: Arc::clone(&store.key),
                    value: Arc::clone(&store.value),
                    fold: Arc::new(move |key: &K, value, old| fold(key, value, old)),
                    output: output(arena, &below)?,
                    key_bytes: Vec::new(),
                    value_bytes: Vec::new(),
                }))
            })
        });
        KTable { at }
    }

    /// The stream with all records of a key in one partition: through a repartition topic if the key has changed.
    fn together(&self, store: &str) -> KStream<K, V> {
        if !self.stream.rekeyed {
            return self.stream.clone();
        }
        let name = self.name.clone().unwrap_or_else(|| store.into());
        let topic = TopicName::Repartition(name);
        match (&self.stream.key_serde, &self.stream.value_serde) {
            (Some(key), Some(value)) => {
                self.stream.write(&topic, key, value);
                self.stream.at.plan.source(topic, key, value)
            }
            _ => {
                self.stream.at.plan.lock().refuse(format!(
                    "store {store}: the key was changed before group_by_key, so records must be repartitioned, and their \
                     serdes are not known: use group_by_key_with(Grouped::with(key serde, value serde))"
                ));
                self.stream.clone()
            }
        }
    }
}
