//! The plan of a program: which topics are read and written, which operators stand between them, and how they fall
//! apart into sub-topologies.

mod plan;

use std::collections::BTreeMap;
use std::fmt;
use std::sync::Arc;

pub(crate) use plan::{NodeId, OutputIndex, Plan, SourceFactory, StoreIndex, TopicName};

use crate::error::{Error, Result};
use crate::node::{Arena, SourceNode};

/// A built program. Immutable, shared by all tasks; each task makes its own nodes from it.
#[derive(Clone)]
pub struct Topology {
    plan: Arc<Plan>,
    subtopologies: Arc<[Subtopology]>,
}

/// Nodes that hang together, by edges or by a store: they run in one task.
#[derive(Clone, Debug, PartialEq, Eq)]
pub(crate) struct Subtopology {
    /// Indices of its sources in the plan, in the order in which they were declared.
    pub(crate) sources: Vec<usize>,
    /// Its stores, in the order in which they were declared. A task numbers its stores by their place here.
    pub(crate) stores: Vec<StoreIndex>,
    /// Topics that its sinks write; changelogs not included.
    pub(crate) sinks: Vec<OutputIndex>,
}

impl Topology {
    /// Checks a plan and splits it up.
    pub(crate) fn new(plan: Plan) -> Result<Self> {
        plan.check()?;
        let roots = plan.roots();
        let mut by_root: BTreeMap<NodeId, Subtopology> = BTreeMap::new();
        let root_of = |node: NodeId| roots.get(node.0).copied().unwrap_or(node);
        let empty = || Subtopology { sources: Vec::new(), stores: Vec::new(), sinks: Vec::new() };
        for (index, source) in plan.sources.iter().enumerate() {
            by_root.entry(root_of(source.node)).or_insert_with(empty).sources.push(index);
        }
        for (index, store) in plan.stores.iter().enumerate() {
            by_root.entry(root_of(store.node)).or_insert_with(empty).stores.push(StoreIndex(index));
        }
        for sink in &plan.sinks {
            by_root.entry(root_of(sink.node)).or_insert_with(empty).sinks.push(sink.output);
        }
        Ok(Self { plan: Arc::new(plan), subtopologies: by_root.into_values().collect() })
    }

    pub(crate) fn plan(&self) -> &Plan {
        &self.plan
    }

    pub(crate) fn subtopologies(&self) -> &[Subtopology] {
        &self.subtopologies
    }

    /// Everything in one: how the test driver runs a program.
    pub(crate) fn whole(&self) -> Subtopology {
        Subtopology {
            sources: (0..self.plan.sources.len()).collect(),
            stores: (0..self.plan.stores.len()).map(StoreIndex).collect(),
            sinks: self.plan.sinks.iter().map(|sink| sink.output).collect(),
        }
    }

    /// Makes the nodes of a task: one entry for each of the sub-topology's sources, in their order.
    pub(crate) fn instantiate(&self, subtopology: &Subtopology) -> Result<Vec<Box<dyn SourceNode>>> {
        let mut arena = Arena::new(&subtopology.stores, NodeId(self.plan.nodes.len()));
        let mut made = Vec::with_capacity(subtopology.sources.len());
        for source in &subtopology.sources {
            let source = self.plan.sources.get(*source);
            let source = source.ok_or_else(|| Error::Engine("a source is missing from the plan".to_owned()))?;
            made.push((source.make)(&mut arena)?);
        }
        Ok(made)
    }

    /// Tells programs apart that must not share a group: a hash of the operators, topics and stores in order.
    pub(crate) fn fingerprint(&self) -> u64 {
        // FNV-1a: stable across versions and machines, and nobody attacks it.
        let text = format!("{:?}", self.subtopologies);
        let nodes = self.plan.nodes.iter().map(|node| node.name.as_str()).chain(std::iter::once(text.as_str()));
        nodes
            .flat_map(|name| name.bytes().chain([0]))
            .fold(0xcbf2_9ce4_8422_2325, |hash, byte| (hash ^ u64::from(byte)).wrapping_mul(0x0000_0100_0000_01b3))
    }
}

impl fmt::Debug for Topology {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        f.debug_struct("Topology").field("subtopologies", &self.subtopologies).finish_non_exhaustive()
    }
}
