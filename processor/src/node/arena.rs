//! Makes the nodes of one task from the plan.

use std::any::Any;
use std::collections::HashMap;
use std::sync::{Arc, Mutex, PoisonError};

use headwater_changelog::StoreId;

use super::{Output, Port};
use crate::error::{Error, Result};
use crate::topology::{NodeId, StoreIndex};

/// Makes one node in an arena.
pub(crate) type Factory<K, V> = Arc<dyn Fn(&mut Arena<'_>) -> Result<Port<K, V>> + Send + Sync>;

/// The children that operators have attached to a node so far, shared by all handles of it.
pub(crate) type Children<K, V> = Arc<Mutex<Vec<(NodeId, Factory<K, V>)>>>;

/// A node without children yet.
pub(crate) fn children<K, V>() -> Children<K, V> {
    Arc::new(Mutex::new(Vec::new()))
}

/// The nodes of one task while they are made. `Any` is used here alone, to find a node that
/// another parent has already asked for; no record passes through it.
pub(crate) struct Arena<'t> {
    made: HashMap<NodeId, Box<dyn Any>>,
    stores: &'t [StoreIndex],
    // Nodes from this id on were attached after `build()` and belong to no topology yet.
    limit: NodeId,
}

impl<'t> Arena<'t> {
    /// An arena for a task that holds these stores of the plan.
    pub(crate) fn new(stores: &'t [StoreIndex], limit: NodeId) -> Self {
        Self { made: HashMap::new(), stores, limit }
    }

    /// The task's own number of a store of the plan.
    pub(crate) fn store(&self, store: StoreIndex) -> Result<StoreId> {
        let position = self.stores.iter().position(|held| *held == store);
        position
            .and_then(|position| u16::try_from(position).ok())
            .map(StoreId)
            .ok_or_else(|| Error::Topology(format!("store {} does not belong to this sub-topology", store.0)))
    }

    fn node<K: 'static, V: 'static>(&mut self, id: NodeId, factory: &Factory<K, V>) -> Result<Port<K, V>> {
        if let Some(made) = self.made.get(&id) {
            let port = made.downcast_ref::<Port<K, V>>();
            return port.cloned().ok_or_else(|| Error::Engine(format!("node {} has two types", id.0)));
        }
        let port = factory(self)?;
        self.made.insert(id, Box::new(Port::clone(&port)));
        Ok(port)
    }
}

/// Makes the children of a node, each with everything below it.
pub(crate) fn output<K: 'static, V: 'static>(arena: &mut Arena<'_>, children: &Children<K, V>) -> Result<Output<K, V>> {
    let attached = children.lock().unwrap_or_else(PoisonError::into_inner).clone();
    let mut ports = Vec::with_capacity(attached.len());
    for (id, factory) in &attached {
        if *id < arena.limit {
            ports.push(arena.node(*id, factory)?);
        }
    }
    Ok(Output { children: ports })
}
