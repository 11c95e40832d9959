//! The operators that run, and how they hold together.
//!
//! A task owns its nodes, each once, made from the plan in topological order; whoever has several parents is shared
//! by them. An edge is a typed [`Port`]: pushing a record through it is one virtual call, without `Any` and without an
//! allocation of ours. Nodes of one task live on one thread; the graph has no cycle, so no node is entered twice.

mod aggregate;
mod arena;
mod endpoint;
mod stateless;

use std::cell::RefCell;
use std::rc::Rc;

pub(crate) use aggregate::Aggregate;
pub(crate) use arena::{Arena, Children, Factory, children, output};
pub use endpoint::Payload;
pub(crate) use endpoint::{Sink, Source, SourceNode};
pub(crate) use stateless::{Filter, FlatMapValues, Map, MapValues};

use crate::error::Result;
use crate::record::Timestamp;
use crate::task::TaskContext;

/// A key on its way: typed, and its bytes as long as an earlier serde's are still right.
#[derive(Debug)]
pub(crate) struct Key<'a, K> {
    pub(crate) typed: &'a K,
    pub(crate) raw: Option<RawKey<'a>>,
}

impl<K> Clone for Key<'_, K> {
    fn clone(&self) -> Self {
        *self
    }
}

impl<K> Copy for Key<'_, K> {}

impl<'a, K> Key<'a, K> {
    /// A key whose bytes nobody has made yet.
    pub(crate) fn new(typed: &'a K) -> Self {
        Self { typed, raw: None }
    }

    /// The bytes, if they were made by the encoding that the caller would use.
    pub(crate) fn raw_as(&self, encoding: Option<&'static str>) -> Option<&'a [u8]> {
        let (raw, encoding) = (self.raw?, encoding?);
        (raw.encoding == encoding).then_some(raw.bytes)
    }
}

/// Key bytes and the canonical encoding that they are in.
#[derive(Clone, Copy, Debug)]
pub(crate) struct RawKey<'a> {
    pub(crate) bytes: &'a [u8],
    pub(crate) encoding: &'static str,
}

/// An operator at work: takes records of one type and pushes what comes of them on to its children.
pub(crate) trait Node<K, V> {
    /// Takes one record at event time `at`.
    fn push(&mut self, cx: &mut TaskContext<'_>, key: Key<'_, K>, value: V, at: Timestamp) -> Result<()>;
}

/// Where a node's output goes in: a child.
pub(crate) type Port<K, V> = Rc<RefCell<dyn Node<K, V>>>;

/// Makes a port of a node.
pub(crate) fn port<K, V>(node: impl Node<K, V> + 'static) -> Port<K, V> {
    Rc::new(RefCell::new(node))
}

/// All children of a node, in the order in which they were attached.
pub(crate) struct Output<K, V> {
    children: Vec<Port<K, V>>,
}

impl<K, V: Clone> Output<K, V> {
    /// Pushes a record to every child; all but the last get a clone of the value.
    #[inline]
    pub(crate) fn forward(&self, cx: &mut TaskContext<'_>, key: Key<'_, K>, value: V, at: Timestamp) -> Result<()> {
        let Some((last, others)) = self.children.split_last() else {
            return Ok(());
        };
        for child in others {
            child.borrow_mut().push(cx, key, value.clone(), at)?;
        }
        last.borrow_mut().push(cx, key, value, at)
    }
}

/// An update of a table: what was there and what is there now. `None` is "no entry".
#[derive(Clone, Debug, PartialEq, Eq)]
pub(crate) struct Change<V> {
    pub(crate) new: Option<V>,
}
