//! A task: one partition of one sub-topology, with its inputs, its nodes and its stores.

mod context;
mod input;
mod outlet;

use headwater_changelog::{State, StoreId};

pub use context::Dropped;
pub(crate) use context::{Origin, TaskContext};
pub(crate) use input::Input;
pub(crate) use outlet::{OutgoingTopic, Outlet};

use crate::error::{Error, Result};
use crate::group::TaskId;
use crate::node::SourceNode;
use crate::record::Headers;
use crate::topology::{OutputIndex, Subtopology, Topology};

/// A task that runs: it takes records from its inputs, lowest head timestamp first, and pushes each through its
/// nodes. It writes nothing for good: its writes are staged until [`Task::commit`].
pub(crate) struct Task {
    id: TaskId,
    inputs: Vec<Input>,
    nodes: Vec<Box<dyn SourceNode>>,
    state: State,
    // For each store: its changelog.
    changelogs: Vec<OutputIndex>,
    headers: Headers,
    no_headers: Headers,
    dropped: Dropped,
}

impl Task {
    /// A task over stores that are as the committed positions of its inputs left them.
    pub(crate) fn new(
        id: TaskId,
        topology: &Topology,
        subtopology: &Subtopology,
        inputs: Vec<Input>,
        state: State,
    ) -> Result<Self> {
        let stores = &topology.plan().stores;
        let changelogs = subtopology.stores.iter().filter_map(|store| stores.get(store.0)).map(|store| store.changelog);
        Ok(Self {
            id,
            inputs,
            nodes: topology.instantiate(subtopology)?,
            state,
            changelogs: changelogs.collect(),
            headers: Headers::new(),
            no_headers: Headers::new(),
            dropped: Dropped::default(),
        })
    }

    /// Its inputs, one for each source.
    pub(crate) fn inputs(&self) -> &[Input] {
        &self.inputs
    }

    /// Its inputs, to be fed.
    pub(crate) fn inputs_mut(&mut self) -> &mut [Input] {
        &mut self.inputs
    }

    /// Its stores.
    pub(crate) fn state(&mut self) -> &mut State {
        &mut self.state
    }

    /// Records that went no further, by reason, since this was asked last.
    pub(crate) fn take_dropped(&mut self) -> Dropped {
        std::mem::take(&mut self.dropped)
    }

    /// Whether there is anything that a commit would make lasting.
    pub(crate) fn is_dirty(&self) -> bool {
        self.inputs.iter().any(Input::is_dirty)
    }

    /// Processes up to `limit` records of what its inputs hold; answers how many it did.
    pub(crate) fn process(&mut self, outlet: &mut Outlet, limit: usize) -> Result<usize> {
        let mut done = 0;
        while done < limit && self.process_one(outlet)? {
            done += 1;
        }
        Ok(done)
    }

    /// Processes the record with the lowest timestamp at the head of any input. False: all inputs are empty.
    fn process_one(&mut self, outlet: &mut Outlet) -> Result<bool> {
        let heads = self.inputs.iter_mut().zip(&mut self.nodes);
        let next = heads.filter(|(input, _)| input.head().is_some()).min_by_key(|(input, _)| input.head());
        let Some((input, node)) = next else { return Ok(false) };
        let Some((batch, index)) = input.take() else {
            return Ok(false);
        };
        let Some(record) = batch.record(index) else {
            return Ok(false);
        };
        self.headers.clear();
        batch.headers(index, &mut self.headers);
        let partition = input.partition();
        let mut cx = TaskContext {
            state: &mut self.state,
            outlet,
            headers: &self.headers,
            no_headers: &self.no_headers,
            origin: Origin { topic: &partition.topic, partition: partition.partition, offset: record.offset },
            task_partition: self.id.partition,
            dropped: &mut self.dropped,
        };
        node.process(&mut cx, &record)?;
        input.done();
        Ok(true)
    }

    /// Makes the staged writes lasting, with the changelog offsets that they correspond to: after the commit of
    /// the input positions, and once every changelog record is acknowledged.
    pub(crate) fn commit(&mut self, outlet: &Outlet) -> Result<()> {
        if !self.is_dirty() {
            return Ok(());
        }
        let mut offsets = Vec::with_capacity(self.changelogs.len());
        for (index, changelog) in self.changelogs.iter().enumerate() {
            let store = StoreId(u16::try_from(index).map_err(|_| Error::Engine("more than 65,535 stores".to_owned()))?);
            // Where this producer wrote for the task in an earlier ownership only, the restored offset is further on.
            let next = outlet.acknowledged(*changelog, self.id.partition)?.max(self.state.offset(store)?);
            if let Some(next) = next {
                offsets.push((store, next));
            }
        }
        self.state.commit(&offsets)?;
        for input in &mut self.inputs {
            input.committed();
        }
        Ok(())
    }

    /// Gives up everything since the last commit and hands the stores back. Nodes and inputs are dropped.
    pub(crate) fn into_state(mut self) -> State {
        self.state.abort();
        self.state
    }
}
