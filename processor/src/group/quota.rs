//! How many tasks of each sub-topology each member gets.
//!
//! A member's fair share of a sub-topology is `tasks × capacity ÷ all capacities`, seldom a whole number. Its quota is that
//! share rounded down or up, and so is the sum of its quotas over all sub-topologies, and the one over those with state. Such a
//! rounding always exists (the shares themselves are a flow through a network with whole capacities, and such a network has
//! a whole flow too). Of all of them the one is taken that lets most tasks stay where they are.

use super::flow::Network;

/// One sub-topology, seen from its members. Vectors are by member.
#[derive(Debug)]
pub(super) struct Demand {
    /// Number of tasks.
    pub(super) tasks: u64,
    /// Whether they hold state.
    pub(super) stateful: bool,
    /// How many of them a member holds.
    pub(super) held: Vec<u64>,
    /// How many that nobody holds it had before.
    pub(super) wished: Vec<u64>,
}

/// The quotas, by sub-topology and member. `capacities` are by member, each at least 1.
pub(super) fn quotas(demands: &[Demand], capacities: &[u32]) -> Vec<Vec<u64>> {
    let capacity: u64 = capacities.iter().map(|&c| u64::from(c)).sum();
    if capacity == 0 {
        return vec![Vec::new(); demands.len()];
    }
    let share = |tasks: u64, member: u32| {
        let product = u128::from(tasks) * u128::from(member);
        let whole = u64::try_from(product / u128::from(capacity)).unwrap_or(u64::MAX);
        (whole, product % u128::from(capacity) != 0)
    };

    let mut quotas: Vec<Vec<u64>> =
        demands.iter().map(|demand| capacities.iter().map(|&c| share(demand.tasks, c).0).collect()).collect();
    let left: Vec<u64> =
        std::iter::zip(demands, &quotas).map(|(demand, quotas)| demand.tasks - quotas.iter().sum::<u64>()).collect();

    // Nodes: source, sink, sub-topologies, then for each member itself and its two classes (without and with state).
    let (source, sink, first_member) = (0, 1, 2 + demands.len());
    let member_node = |member: usize| first_member + 3 * member;
    let class_node = |member: usize, stateful: bool| member_node(member) + 1 + usize::from(stateful);
    let mut network = Network::new(member_node(capacities.len()));
    let weights = Weights::new(left.iter().sum());

    for (subtopology, &left) in left.iter().enumerate() {
        network.connect(source, 2 + subtopology, left, 0);
    }
    let mut extras = Vec::new();
    for (member, &c) in capacities.iter().enumerate() {
        for (subtopology, demand) in demands.iter().enumerate() {
            let (whole, rounded) = share(demand.tasks, c);
            if rounded {
                let node = class_node(member, demand.stateful);
                let edge = network.connect(2 + subtopology, node, 1, -weights.gain(demand, member, whole));
                extras.push((subtopology, member, edge));
            }
        }
        // What the sums still lack to be their own share rounded down is rewarded above all; one more brings it to rounded up.
        let bounds = |stateful: Option<bool>| {
            let chosen = || demands.iter().filter(move |d| stateful.is_none_or(|s| d.stateful == s));
            let (whole, rounded) = share(chosen().map(|d| d.tasks).sum(), c);
            let had: u64 = chosen().map(|d| share(d.tasks, c).0).sum();
            (whole - had, u64::from(rounded))
        };
        for (stateful, from, to) in [
            (Some(false), class_node(member, false), member_node(member)),
            (Some(true), class_node(member, true), member_node(member)),
            (None, member_node(member), sink),
        ] {
            let (least, more) = bounds(stateful);
            network.connect(from, to, least, -weights.balance);
            network.connect(from, to, more, 0);
        }
    }

    network.fill(source, sink);
    for (subtopology, member, edge) in extras {
        quotas[subtopology][member] += network.flow(edge);
    }
    quotas
}

/// What counts for more, each by so much that no number of the next ones outweighs it: balance, tasks that stay, tasks with state
/// that stay, tasks that come back to where they were.
struct Weights {
    balance: i64,
    stays: i64,
    stays_with_state: i64,
}

impl Weights {
    fn new(extras: u64) -> Self {
        // The cube times the number of units must fit; beyond 20 000 units the order is kept only nearly.
        let step = i64::try_from(extras).unwrap_or(i64::MAX).clamp(1, 20_000) * 2 + 1;
        Self { balance: step * step * step, stays: step * step, stays_with_state: step }
    }

    /// What it is worth to give this member one task more than `whole`.
    fn gain(&self, demand: &Demand, member: usize, whole: u64) -> i64 {
        let held = demand.held.get(member).copied().unwrap_or(0);
        let wished = demand.wished.get(member).copied().unwrap_or(0);
        match (held > whole, held.saturating_add(wished) > whole) {
            (true, _) if demand.stateful => self.stays + self.stays_with_state,
            (true, _) => self.stays,
            (false, true) => 1 + i64::from(demand.stateful),
            (false, false) => 0,
        }
    }
}

#[cfg(test)]
mod tests {
    use proptest::prelude::*;

    use super::*;

    fn demand(tasks: u64, stateful: bool, held: &[u64]) -> Demand {
        Demand { tasks, stateful, held: held.to_vec(), wished: vec![0; held.len()] }
    }

    #[test]
    fn the_one_too_many_stays_where_it_is() {
        let quotas = quotas(&[demand(3, false, &[1, 2]), demand(3, true, &[2, 1])], &[1, 1]);
        assert_eq!(quotas, [[1, 2], [2, 1]]);
    }

    #[test]
    fn totals_are_balanced_even_where_that_moves_a_task() {
        // Each sub-topology alone is balanced, both extras at the first member; together they are not.
        let quotas = quotas(&[demand(1, false, &[1, 0]), demand(1, true, &[1, 0])], &[1, 1]);
        // The one with state stays.
        assert_eq!(quotas, [[0, 1], [1, 0]]);
    }

    #[test]
    fn shares_follow_capacity() {
        assert_eq!(quotas(&[demand(9, false, &[0, 0])], &[1, 2]), [[3, 6]]);
        assert_eq!(quotas(&[], &[1]), Vec::<Vec<u64>>::new());
        assert_eq!(quotas(&[demand(2, true, &[])], &[]), [Vec::<u64>::new()]);
    }

    /// The most tasks that can stay in any balanced spread, found by trying all of them.
    fn most_that_can_stay(demands: &[Demand], members: u64) -> u64 {
        let total: u64 = demands.iter().map(|d| d.tasks).sum();
        let stateful: u64 = demands.iter().filter(|d| d.stateful).map(|d| d.tasks).sum();
        let fits = |sum: u64, tasks: u64| (tasks / members..=tasks.div_ceil(members)).contains(&sum);
        let masks = 1_u64 << members;
        let mut best = 0;
        for choice in 0..masks.pow(u32::try_from(demands.len()).unwrap()) {
            let quota = |s: usize, m: u64| {
                let mask = choice / masks.pow(u32::try_from(s).unwrap()) % masks;
                demands[s].tasks / members + (mask >> m & 1)
            };
            let sum = |m: u64, class: Option<bool>| {
                let chosen = (0..demands.len()).filter(|&s| class.is_none_or(|c| c == demands[s].stateful));
                chosen.map(|s| quota(s, m)).sum::<u64>()
            };
            let valid = (0..demands.len()).all(|s| (0..members).map(|m| quota(s, m)).sum::<u64>() == demands[s].tasks)
                && (0..members).all(|m| {
                    fits(sum(m, None), total)
                        && fits(sum(m, Some(true)), stateful)
                        && fits(sum(m, Some(false)), total - stateful)
                        && (0..demands.len()).all(|s| fits(quota(s, m), demands[s].tasks))
                });
            if valid {
                best = best.max(stay(demands, &quota, members));
            }
        }
        best
    }

    fn stay(demands: &[Demand], quota: &dyn Fn(usize, u64) -> u64, members: u64) -> u64 {
        let cells = (0..demands.len()).flat_map(|s| (0..members).map(move |m| (s, m)));
        cells.map(|(s, m)| demands[s].held[usize::try_from(m).unwrap()].min(quota(s, m))).sum()
    }

    proptest! {
        #[test]
        fn no_balanced_spread_moves_fewer(
            sizes in prop::collection::vec((0..9_u64, any::<bool>()), 1..4),
            members in 1..4_u64,
            cuts in prop::collection::vec(0..9_u64, 9),
        ) {
            let demands: Vec<Demand> = sizes.iter().enumerate().map(|(s, &(tasks, stateful))| {
                let mut free = tasks;
                let held: Vec<u64> = (0..members).zip(&cuts[s * 3..]).map(|(_, &cut)| {
                    let held = cut.min(free);
                    free -= held;
                    held
                }).collect();
                Demand { tasks, stateful, wished: vec![0; held.len()], held }
            }).collect();
            let quotas = quotas(&demands, &vec![1; usize::try_from(members).unwrap()]);
            let stays = stay(&demands, &|s, m| quotas[s][usize::try_from(m).unwrap()], members);
            prop_assert_eq!(stays, most_that_can_stay(&demands, members));
        }

        #[test]
        fn every_sum_is_its_share_rounded(
            sizes in prop::collection::vec((0..30_u64, any::<bool>()), 1..7),
            capacities in prop::collection::vec(1..5_u32, 1..9),
            seed in prop::collection::vec(0..9_u64, 60),
        ) {
            let members = capacities.len();
            let demands: Vec<Demand> = sizes.iter().enumerate().map(|(s, &(tasks, stateful))| {
                let held: Vec<u64> = (0..members).map(|m| seed[(s * 7 + m) % seed.len()]).collect();
                Demand { tasks, stateful, wished: held.iter().rev().copied().collect(), held }
            }).collect();
            let quotas = quotas(&demands, &capacities);
            let all: u64 = capacities.iter().map(|&c| u64::from(c)).sum();
            let rounded = |sum: u64, tasks: u64, c: u32| {
                let product = tasks * u64::from(c);
                sum == product / all || sum == product.div_ceil(all)
            };
            for (demand, quotas) in demands.iter().zip(&quotas) {
                prop_assert_eq!(quotas.iter().sum::<u64>(), demand.tasks);
                for (&quota, &c) in quotas.iter().zip(&capacities) {
                    prop_assert!(rounded(quota, demand.tasks, c), "{} of {} for {} of {}", quota, demand.tasks, c, all);
                }
            }
            for (member, &c) in capacities.iter().enumerate() {
                for class in [None, Some(false), Some(true)] {
                    let chosen = || demands.iter().zip(&quotas).filter(|(d, _)| class.is_none_or(|s| s == d.stateful));
                    let sum = chosen().map(|(_, q)| q[member]).sum();
                    let tasks = chosen().map(|(d, _)| d.tasks).sum();
                    prop_assert!(rounded(sum, tasks, c), "{} of {} for {} of {}", sum, tasks, c, all);
                }
            }
        }
    }
}
