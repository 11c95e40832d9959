//! How a program is declared: typed handles outside, an erased plan inside.
//!
//! A handle is cheap to clone and all methods take `&self`: using a stream twice feeds both.

mod grouped;
mod stream;
mod table;

use std::fmt;
use std::sync::{Arc, Mutex, MutexGuard, PoisonError};

pub use grouped::{Grouped, KGroupedStream};
pub use stream::KStream;
pub use table::KTable;

use crate::error::Result;
use crate::node::{Children, Factory, Source, SourceNode, children, output};
use crate::topic::{SharedSerde, Topic};
use crate::topology::{NodeId, Plan, SourceFactory, TopicName, Topology};

/// Begins a program.
///
/// ```
/// use headwater::prelude::*;
///
/// let builder = StreamsBuilder::new();
/// let lines = Topic::new("lines", Nullable(Utf8), Utf8);
/// builder.stream(&lines).filter(|_, line| !line.is_empty()).to(&Topic::new("full", Nullable(Utf8), Utf8));
/// let topology = builder.build()?;
/// # Ok::<(), headwater::Error>(())
/// ```
#[derive(Clone, Default)]
pub struct StreamsBuilder {
    plan: SharedPlan,
}

impl StreamsBuilder {
    /// An empty program.
    #[must_use]
    pub fn new() -> Self {
        Self::default()
    }

    /// Reads a topic, from the earliest record where nothing is committed.
    ///
    /// ```
    /// use headwater::prelude::*;
    ///
    /// let (numbers, copy) = (Topic::new("numbers", Utf8, I64), Topic::new("copy", Utf8, I64));
    /// let builder = StreamsBuilder::new();
    /// builder.stream(&numbers).to(&copy);
    ///
    /// let mut driver = TopologyTestDriver::new(&builder.build()?)?;
    /// driver.pipe(&numbers, "a".into(), 1, 10)?;
    /// assert_eq!(driver.read(&copy)?, Some(("a".into(), 1)));
    /// # Ok::<(), headwater::Error>(())
    /// ```
    pub fn stream<K: 'static, V: Clone + 'static>(&self, topic: &Topic<K, V>) -> KStream<K, V> {
        let name = TopicName::External(topic.name().into());
        self.plan.source(name, &topic.key, &topic.value)
    }

    /// Checks the program and splits it into sub-topologies. What is declared afterwards is not part of it.
    pub fn build(&self) -> Result<Topology> {
        Topology::new(self.plan.lock().clone())
    }
}

impl fmt::Debug for StreamsBuilder {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        f.debug_struct("StreamsBuilder").finish_non_exhaustive()
    }
}

/// The plan that all handles of one program write into.
#[derive(Clone, Default)]
pub(crate) struct SharedPlan(Arc<Mutex<Plan>>);

impl SharedPlan {
    pub(crate) fn lock(&self) -> MutexGuard<'_, Plan> {
        self.0.lock().unwrap_or_else(PoisonError::into_inner)
    }

    /// A source, whichever kind of topic it reads.
    fn source<K: 'static, V: Clone + 'static>(
        &self,
        topic: TopicName,
        key: &SharedSerde<K>,
        value: &SharedSerde<V>,
    ) -> KStream<K, V> {
        let attached = children();
        let make: SourceFactory = {
            let (key, value, attached) = (Arc::clone(key), Arc::clone(value), Arc::clone(&attached));
            Arc::new(move |arena| {
                let output = output(arena, &attached)?;
                let (key, value) = (Arc::clone(&key), Arc::clone(&value));
                Ok(Box::new(Source { key, value, output }) as Box<dyn SourceNode>)
            })
        };
        let mut plan = self.lock();
        let node = plan.node("source", &topic.resolve("app"), None);
        plan.source(node, topic, make);
        KStream {
            at: Place { plan: self.clone(), node, children: attached },
            key_serde: Some(Arc::clone(key)),
            value_serde: Some(Arc::clone(value)),
            rekeyed: false,
        }
    }
}

/// A place in the plan that operators can be attached to: what every handle has.
pub(crate) struct Place<K, V> {
    pub(crate) plan: SharedPlan,
    pub(crate) node: NodeId,
    pub(crate) children: Children<K, V>,
}

impl<K, V> Clone for Place<K, V> {
    fn clone(&self) -> Self {
        Self { plan: self.plan.clone(), node: self.node, children: Arc::clone(&self.children) }
    }
}

impl<K: 'static, V: 'static> Place<K, V> {
    /// Attaches an operator that is made by `factory`.
    pub(crate) fn attach(&self, node: NodeId, factory: Factory<K, V>) {
        self.children.lock().unwrap_or_else(PoisonError::into_inner).push((node, factory));
    }

    /// Attaches an operator with children of its own; answers where those are attached.
    pub(crate) fn operator<K2, V2>(
        &self,
        kind: &str,
        factory: impl FnOnce(Children<K2, V2>) -> Factory<K, V>,
    ) -> Place<K2, V2> {
        let node = self.plan.lock().node(kind, "", Some(self.node));
        self.operator_as(node, factory)
    }

    /// The same for a node that the plan knows already.
    pub(crate) fn operator_as<K2, V2>(
        &self,
        node: NodeId,
        factory: impl FnOnce(Children<K2, V2>) -> Factory<K, V>,
    ) -> Place<K2, V2> {
        let below = children();
        self.attach(node, factory(Arc::clone(&below)));
        Place { plan: self.plan.clone(), node, children: below }
    }
}
