//! What operators write down while a program is declared.

use std::collections::HashSet;
use std::sync::Arc;

use crate::error::{Error, Result};
use crate::node::{Arena, SourceNode};

/// An operator of the plan; ids ascend in the order of declaration, parents first.
#[derive(Clone, Copy, Debug, PartialEq, Eq, Hash, PartialOrd, Ord)]
pub(crate) struct NodeId(pub(crate) usize);

/// A store of the plan.
#[derive(Clone, Copy, Debug, PartialEq, Eq, Hash, PartialOrd, Ord)]
pub(crate) struct StoreIndex(pub(crate) usize);

/// A topic that the plan writes.
#[derive(Clone, Copy, Debug, PartialEq, Eq, Hash, PartialOrd, Ord)]
pub(crate) struct OutputIndex(pub(crate) usize);

/// A topic, as far as it is known before the application id is.
#[derive(Clone, Debug, PartialEq, Eq, Hash)]
pub(crate) enum TopicName {
    /// The user's.
    External(Arc<str>),
    /// Ours: `<application id>-<name>-repartition`.
    Repartition(Arc<str>),
    /// Ours: `<application id>-<name>-changelog`.
    Changelog(Arc<str>),
}

impl TopicName {
    /// The name in the cluster.
    pub(crate) fn resolve(&self, application: &str) -> Arc<str> {
        match self {
            Self::External(name) => Arc::clone(name),
            Self::Repartition(name) => format!("{application}-{name}-repartition").into(),
            Self::Changelog(name) => format!("{application}-{name}-changelog").into(),
        }
    }
}

/// An operator: its name, for people, and what feeds it.
#[derive(Clone, Debug)]
pub(crate) struct PlanNode {
    pub(crate) name: String,
    pub(crate) parent: Option<NodeId>,
}

/// Makes a source of a task with everything below it.
pub(crate) type SourceFactory = Arc<dyn Fn(&mut Arena<'_>) -> Result<Box<dyn SourceNode>> + Send + Sync>;

/// A topic that is read.
#[derive(Clone)]
pub(crate) struct PlanSource {
    pub(crate) node: NodeId,
    pub(crate) topic: TopicName,
    pub(crate) make: SourceFactory,
}

/// A store, the node that writes it, and its changelog.
#[derive(Clone, Debug)]
pub(crate) struct PlanStore {
    pub(crate) name: Arc<str>,
    pub(crate) node: NodeId,
    pub(crate) changelog: OutputIndex,
}

/// A node that writes a topic.
#[derive(Clone, Copy, Debug)]
pub(crate) struct PlanSink {
    pub(crate) node: NodeId,
    pub(crate) output: OutputIndex,
}

/// The program as declared so far.
#[derive(Clone, Default)]
pub(crate) struct Plan {
    pub(crate) nodes: Vec<PlanNode>,
    pub(crate) sources: Vec<PlanSource>,
    pub(crate) stores: Vec<PlanStore>,
    pub(crate) sinks: Vec<PlanSink>,
    /// Every topic that is written, once.
    pub(crate) outputs: Vec<TopicName>,
    /// What was declared and cannot run; told by `build`, where an error can be answered.
    refused: Vec<String>,
}

impl Plan {
    /// Adds an operator.
    pub(crate) fn node(&mut self, kind: &str, detail: &str, parent: Option<NodeId>) -> NodeId {
        let id = NodeId(self.nodes.len());
        let name = if detail.is_empty() { format!("{kind}-{}", id.0) } else { format!("{kind}({detail})-{}", id.0) };
        self.nodes.push(PlanNode { name, parent });
        id
    }

    /// Adds a topic that `node` reads.
    pub(crate) fn source(&mut self, node: NodeId, topic: TopicName, make: SourceFactory) {
        self.sources.push(PlanSource { node, topic, make });
    }

    /// Adds a topic that `node` writes.
    pub(crate) fn sink(&mut self, node: NodeId, topic: &TopicName) -> OutputIndex {
        let output = self.output(topic);
        self.sinks.push(PlanSink { node, output });
        output
    }

    /// Adds a store that `node` writes, and its changelog.
    pub(crate) fn store(&mut self, node: NodeId, name: &Arc<str>) -> (StoreIndex, OutputIndex) {
        let changelog = self.output(&TopicName::Changelog(Arc::clone(name)));
        self.stores.push(PlanStore { name: Arc::clone(name), node, changelog });
        (StoreIndex(self.stores.len() - 1), changelog)
    }

    /// Notes something that cannot run.
    pub(crate) fn refuse(&mut self, reason: String) {
        self.refused.push(reason);
    }

    fn output(&mut self, topic: &TopicName) -> OutputIndex {
        let known = self.outputs.iter().position(|output| output == topic);
        OutputIndex(known.unwrap_or_else(|| {
            self.outputs.push(topic.clone());
            self.outputs.len() - 1
        }))
    }

    /// For each node the root of what it hangs together with.
    pub(crate) fn roots(&self) -> Vec<NodeId> {
        let mut roots: Vec<NodeId> = Vec::with_capacity(self.nodes.len());
        for (index, node) in self.nodes.iter().enumerate() {
            // Parents come first, so theirs is known.
            let root = node.parent.and_then(|parent| roots.get(parent.0).copied());
            roots.push(root.unwrap_or(NodeId(index)));
        }
        roots
    }

    /// Refuses what cannot run, naming it.
    pub(crate) fn check(&self) -> Result<()> {
        if let Some(reason) = self.refused.first() {
            return Err(Error::Topology(reason.clone()));
        }
        if self.sources.is_empty() {
            return Err(Error::Topology("it reads no topic: begin with StreamsBuilder::stream".to_owned()));
        }
        let mut read = HashSet::new();
        for source in &self.sources {
            if !read.insert(&source.topic) {
                let (name, kind) = match &source.topic {
                    TopicName::External(name) => (name, "topic"),
                    TopicName::Repartition(name) | TopicName::Changelog(name) => (name, "repartition topic"),
                };
                return Err(Error::Topology(format!(
                    "{kind} {name} is read by two sources: keep the stream of the first and use it twice (repartitions \
                     get names of their own with Grouped::named)"
                )));
            }
        }
        let mut stores = HashSet::new();
        for store in &self.stores {
            check_name("store", &store.name)?;
            if !stores.insert(&store.name) {
                return Err(Error::Topology(format!("store {} is declared by two operators", store.name)));
            }
        }
        for topic in &self.outputs {
            if let TopicName::Repartition(name) | TopicName::External(name) = topic {
                check_name("topic", name)?;
            }
        }
        Ok(())
    }
}

/// Kafka's rule for topic names, which store names become part of.
pub(crate) fn check_name(kind: &str, name: &str) -> Result<()> {
    let legal = |byte: u8| byte.is_ascii_alphanumeric() || matches!(byte, b'.' | b'_' | b'-');
    if name.is_empty() || name.len() > 200 || matches!(name, "." | "..") || !name.bytes().all(legal) {
        return Err(Error::Topology(format!(
            "{kind} name {name:?} is not accepted: 1 to 200 of a-z, A-Z, 0-9, '.', '_' and '-'"
        )));
    }
    Ok(())
}
