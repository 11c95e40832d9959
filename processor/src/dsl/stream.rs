//! `KStream`: records, each an event of its own.

use std::fmt;
use std::sync::Arc;

use super::{Grouped, KGroupedStream, Place};
use crate::node::{Children, Factory, Filter, FlatMapValues, Map, MapValues, Payload, Sink, output, port};
use crate::topic::{SharedSerde, Topic};
use crate::topology::TopicName;

/// A stream of records with keys of type `K` and values of type `V`.
#[must_use = "a stream does nothing until something is attached to it"]
pub struct KStream<K, V> {
    pub(crate) at: Place<K, V>,
    // Known as long as no operator has changed the type.
    pub(crate) key_serde: Option<SharedSerde<K>>,
    pub(crate) value_serde: Option<SharedSerde<V>>,
    // Whether the key may differ from the one that the record's partition was chosen by.
    pub(crate) rekeyed: bool,
}

impl<K, V> Clone for KStream<K, V> {
    fn clone(&self) -> Self {
        Self {
            at: self.at.clone(),
            key_serde: self.key_serde.clone(),
            value_serde: self.value_serde.clone(),
            rekeyed: self.rekeyed,
        }
    }
}

impl<K, V> fmt::Debug for KStream<K, V> {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        f.debug_struct("KStream").field("node", &self.at.node).field("rekeyed", &self.rekeyed).finish_non_exhaustive()
    }
}

impl<K: 'static, V: Clone + 'static> KStream<K, V> {
    /// Keeps the records for which `keep` answers true.
    ///
    /// ```
    /// # use headwater::prelude::*;
    /// # let (numbers, out) = (Topic::new("numbers", Utf8, I64), Topic::new("out", Utf8, I64));
    /// # let builder = StreamsBuilder::new();
    /// builder.stream(&numbers).filter(|_, number| *number > 1).to(&out);
    /// # let mut driver = TopologyTestDriver::new(&builder.build()?)?;
    /// driver.pipe(&numbers, "a".into(), 1, 0)?;
    /// driver.pipe(&numbers, "b".into(), 2, 0)?;
    /// assert_eq!(driver.drain(&out)?, [("b".into(), 2)]);
    /// # Ok::<(), headwater::Error>(())
    /// ```
    pub fn filter(&self, keep: impl Fn(&K, &V) -> bool + Send + Sync + 'static) -> Self {
        let keep = Arc::new(keep);
        let at = self.at.operator("filter", move |below: Children<K, V>| -> Factory<K, V> {
            Arc::new(move |arena| Ok(port(Filter { keep: Arc::clone(&keep), output: output(arena, &below)? })))
        });
        Self { at, ..self.clone() }
    }

    /// Makes one record of each, with another key and value. A later grouping repartitions.
    ///
    /// ```
    /// # use headwater::prelude::*;
    /// # let (numbers, out) = (Topic::new("numbers", Utf8, I64), Topic::new("out", I64, Utf8));
    /// # let builder = StreamsBuilder::new();
    /// builder.stream(&numbers).map(|name, number| (number, name.clone())).to(&out);
    /// # let mut driver = TopologyTestDriver::new(&builder.build()?)?;
    /// driver.pipe(&numbers, "a".into(), 7, 0)?;
    /// assert_eq!(driver.read(&out)?, Some((7, "a".into())));
    /// # Ok::<(), headwater::Error>(())
    /// ```
    pub fn map<K2: 'static, V2: Clone + 'static>(
        &self,
        map: impl Fn(&K, V) -> (K2, V2) + Send + Sync + 'static,
    ) -> KStream<K2, V2> {
        let map = Arc::new(map);
        let at = self.at.operator("map", move |below: Children<K2, V2>| -> Factory<K, V> {
            Arc::new(move |arena| Ok(port(Map { map: Arc::clone(&map), output: output(arena, &below)? })))
        });
        KStream { at, key_serde: None, value_serde: None, rekeyed: true }
    }

    /// Makes another value of each record. The key stays, so nothing is repartitioned.
    ///
    /// ```
    /// # use headwater::prelude::*;
    /// # let (numbers, out) = (Topic::new("numbers", Utf8, I64), Topic::new("out", Utf8, I64));
    /// # let builder = StreamsBuilder::new();
    /// builder.stream(&numbers).map_values(|number| number * 2).to(&out);
    /// # let mut driver = TopologyTestDriver::new(&builder.build()?)?;
    /// driver.pipe(&numbers, "a".into(), 7, 0)?;
    /// assert_eq!(driver.read(&out)?, Some(("a".into(), 14)));
    /// # Ok::<(), headwater::Error>(())
    /// ```
    pub fn map_values<V2: Clone + 'static>(&self, map: impl Fn(V) -> V2 + Send + Sync + 'static) -> KStream<K, V2> {
        let map = Arc::new(map);
        let at = self.at.operator("map_values", move |below: Children<K, V2>| -> Factory<K, V> {
            Arc::new(move |arena| Ok(port(MapValues { map: Arc::clone(&map), output: output(arena, &below)? })))
        });
        KStream { at, key_serde: self.key_serde.clone(), value_serde: None, rekeyed: self.rekeyed }
    }

    /// Makes any number of values of each record, in order. The key stays, so nothing is repartitioned.
    ///
    /// ```
    /// # use headwater::prelude::*;
    /// # let (lines, out) = (Topic::new("lines", Utf8, Utf8), Topic::new("out", Utf8, Utf8));
    /// # let builder = StreamsBuilder::new();
    /// builder
    ///     .stream(&lines)
    ///     .flat_map_values(|line| line.split_whitespace().map(str::to_lowercase).collect::<Vec<_>>())
    ///     .to(&out);
    /// # let mut driver = TopologyTestDriver::new(&builder.build()?)?;
    /// driver.pipe(&lines, "k".into(), "To be".into(), 0)?;
    /// assert_eq!(driver.drain(&out)?, [("k".into(), "to".into()), ("k".into(), "be".into())]);
    /// # Ok::<(), headwater::Error>(())
    /// ```
    pub fn flat_map_values<V2: Clone + 'static, I: IntoIterator<Item = V2> + 'static>(
        &self,
        map: impl Fn(V) -> I + Send + Sync + 'static,
    ) -> KStream<K, V2> {
        let map = Arc::new(map);
        let at = self.at.operator("flat_map_values", move |below: Children<K, V2>| -> Factory<K, V> {
            Arc::new(move |arena| Ok(port(FlatMapValues { map: Arc::clone(&map), output: output(arena, &below)? })))
        });
        KStream { at, key_serde: self.key_serde.clone(), value_serde: None, rekeyed: self.rekeyed }
    }

    /// Gives each record another key. A later grouping repartitions.
    ///
    /// ```
    /// # use headwater::prelude::*;
    /// # let (lines, out) = (Topic::new("lines", Utf8, Utf8), Topic::new("out", I64, Utf8));
    /// # let builder = StreamsBuilder::new();
    /// builder.stream(&lines).select_key(|_, line| line.len() as i64).to(&out);
    /// # let mut driver = TopologyTestDriver::new(&builder.build()?)?;
    /// driver.pipe(&lines, "k".into(), "be".into(), 0)?;
    /// assert_eq!(driver.read(&out)?, Some((2, "be".into())));
    /// # Ok::<(), headwater::Error>(())
    /// ```
    pub fn select_key<K2: 'static>(&self, select: impl Fn(&K, &V) -> K2 + Send + Sync + 'static) -> KStream<K2, V> {
        let select = move |key: &K, value: V| (select(key, &value), value);
        KStream { value_serde: self.value_serde.clone(), ..self.map(select) }
    }

    /// Groups by a key made of each record: a repartition topic brings the records of one key together.
    /// `grouped` says how key and value are written there, and may give the topic its name.
    ///
    /// ```
    /// # use headwater::prelude::*;
    /// # let (lines, counts) = (Topic::new("lines", Utf8, Utf8), Store::new("counts", Utf8, I64));
    /// # let builder = StreamsBuilder::new();
    /// builder.stream(&lines).group_by(|_, line| line.clone(), Grouped::with(Utf8, Utf8)).count(&counts);
    /// # let mut driver = TopologyTestDriver::new(&builder.build()?)?;
    /// driver.pipe(&lines, "k".into(), "be".into(), 0)?;
    /// assert_eq!(driver.get(&counts, &"be".into())?, Some(1));
    /// # Ok::<(), headwater::Error>(())
    /// ```
    pub fn group_by<K2: 'static>(
        &self,
        select: impl Fn(&K, &V) -> K2 + Send + Sync + 'static,
        grouped: Grouped<K2, V>,
    ) -> KGroupedStream<K2, V> {
        self.select_key(select).group_by_key_with(grouped)
    }

    /// Groups by the key that is there. Repartitions only if an operator has changed it; then the serdes must still
    /// be known (`build` refuses otherwise): see [`group_by_key_with`](Self::group_by_key_with).
    ///
    /// ```
    /// # use headwater::prelude::*;
    /// # let (lines, counts) = (Topic::new("lines", Utf8, Utf8), Store::new("counts", Utf8, I64));
    /// # let builder = StreamsBuilder::new();
    /// builder.stream(&lines).group_by_key().count(&counts);
    /// # let mut driver = TopologyTestDriver::new(&builder.build()?)?;
    /// driver.pipe(&lines, "k".into(), "be".into(), 0)?;
    /// assert_eq!(driver.get(&counts, &"k".into())?, Some(1));
    /// # Ok::<(), headwater::Error>(())
    /// ```
    pub fn group_by_key(&self) -> KGroupedStream<K, V> {
        KGroupedStream::new(self.clone(), None)
    }

    /// Groups by the key that is there, and says how key and value are written should a repartition be needed.
    pub fn group_by_key_with(&self, grouped: Grouped<K, V>) -> KGroupedStream<K, V> {
        let Grouped { key, value, name } = grouped;
        KGroupedStream::new(Self { key_serde: Some(key), value_serde: Some(value), ..self.clone() }, name)
    }

    /// Writes the stream to a topic, partitioned by key as Kafka's own clients do. A stream of `Option<V>` fits a topic
    /// of `V`: `None` is written as null. Headers of the record that caused the output go with it.
    pub fn to<W: 'static>(&self, topic: &Topic<K, W>)
    where
        V: Payload<W>,
    {
        self.write(&TopicName::External(topic.name().into()), &topic.key, &topic.value);
    }

    /// A sink, whichever kind of topic it writes.
    pub(crate) fn write<W: 'static>(&self, topic: &TopicName, key: &SharedSerde<K>, value: &SharedSerde<W>)
    where
        V: Payload<W>,
    {
        let needs_key = matches!(topic, TopicName::Repartition(_));
        let mut plan = self.at.plan.lock();
        let node = plan.node("sink", &topic.resolve("app"), Some(self.at.node));
        let written = plan.sink(node, topic);
        drop(plan);
        let (key, value) = (Arc::clone(key), Arc::clone(value));
        self.at.attach(
            node,
            Arc::new(move |_| Ok(port(Sink::new(Arc::clone(&key), Arc::clone(&value), written, needs_key)))),
        );
    }
}
