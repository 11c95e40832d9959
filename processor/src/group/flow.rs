//! The cheapest full flow through a small network: what the balance of tasks comes down to.

use std::collections::VecDeque;

/// A network with capacities and costs. Nodes are numbered from 0.
#[derive(Debug)]
pub(super) struct Network {
    /// By node: its edges, as indexes into `edges`.
    outgoing: Vec<Vec<usize>>,
    /// An edge and its reverse lie side by side: one is the other's index with the lowest bit flipped.
    edges: Vec<Edge>,
}

/// Names an edge.
#[derive(Clone, Copy, Debug)]
pub(super) struct EdgeId(usize);

#[derive(Debug)]
struct Edge {
    to: usize,
    room: u64,
    cost: i64,
}

impl Network {
    /// A network of nodes without edges.
    pub(super) fn new(nodes: usize) -> Self {
        Self { outgoing: vec![Vec::new(); nodes], edges: Vec::new() }
    }

    /// Adds an edge. A negative cost is a reward; the edges must form no cycle.
    pub(super) fn connect(&mut self, from: usize, to: usize, room: u64, cost: i64) -> EdgeId {
        let id = self.edges.len();
        self.edges.push(Edge { to, room, cost });
        self.edges.push(Edge { to: from, room: 0, cost: -cost });
        self.outgoing[from].push(id);
        self.outgoing[to].push(id + 1);
        EdgeId(id)
    }

    /// What flows through an edge.
    pub(super) fn flow(&self, edge: EdgeId) -> u64 {
        self.edges[edge.0 ^ 1].room
    }

    /// Sends as much as fits from `source` to `sink`, as cheaply as that amount can go.
    pub(super) fn fill(&mut self, source: usize, sink: usize) {
        while let Some(path) = self.cheapest_path(source, sink) {
            let amount = path.iter().map(|&edge| self.edges[edge].room).min().unwrap_or(0);
            for edge in path {
                self.edges[edge].room -= amount;
                self.edges[edge ^ 1].room += amount;
            }
        }
    }

    /// Bellman and Ford's search with a queue. Flow is only ever added along cheapest paths, so no cycle of negative cost
    /// arises and the search ends.
    fn cheapest_path(&self, source: usize, sink: usize) -> Option<Vec<usize>> {
        let nodes = self.outgoing.len();
        let mut cost = vec![None; nodes];
        let mut by = vec![usize::MAX; nodes];
        let mut queued = vec![false; nodes];
        let mut queue = VecDeque::from([source]);
        cost[source] = Some(0_i64);
        while let Some(node) = queue.pop_front() {
            queued[node] = false;
            let Some(so_far) = cost[node] else { continue };
            for &id in &self.outgoing[node] {
                let edge = &self.edges[id];
                let total = so_far + edge.cost;
                if edge.room > 0 && cost[edge.to].is_none_or(|known| total < known) {
                    cost[edge.to] = Some(total);
                    by[edge.to] = id;
                    if !queued[edge.to] {
                        queued[edge.to] = true;
                        queue.push_back(edge.to);
                    }
                }
            }
        }
        cost[sink]?;
        let mut path = Vec::new();
        let mut node = sink;
        while node != source {
            path.push(by[node]);
            node = self.edges[by[node] ^ 1].to;
        }
        Some(path)
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn all_flows_and_the_dear_edge_is_used_only_where_it_must_be() {
        // 0 -> {1, 2} -> 3, where 1 can reach 3 only through one unit or through 2.
        let mut network = Network::new(4);
        network.connect(0, 1, 2, 0);
        network.connect(0, 2, 1, 0);
        let cheap = network.connect(1, 3, 1, 1);
        let over = network.connect(1, 2, 5, 10);
        let last = network.connect(2, 3, 2, 1);
        network.fill(0, 3);
        assert_eq!((network.flow(cheap), network.flow(over), network.flow(last)), (1, 1, 2));
    }

    #[test]
    fn a_choice_made_early_is_taken_back_for_a_cheaper_whole() {
        // Both sources like node 3; only one may have it, and the second pays dearly for node 4.
        let mut network = Network::new(6);
        network.connect(0, 1, 1, 0);
        network.connect(0, 2, 1, 0);
        let one_three = network.connect(1, 3, 1, -9);
        let one_four = network.connect(1, 4, 1, -8);
        let two_three = network.connect(2, 3, 1, -8);
        network.connect(2, 4, 1, 0);
        network.connect(3, 5, 1, 0);
        network.connect(4, 5, 1, 0);
        network.fill(0, 5);
        assert_eq!((network.flow(one_three), network.flow(one_four), network.flow(two_three)), (0, 1, 1));
    }
}
