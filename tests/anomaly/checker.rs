//! The verdict on a history: what its reads show by themselves, and the cycles of its dependencies, by Adya's classes.

use std::collections::{HashMap, HashSet, VecDeque};

use crate::graph::{Edge, Graph, Kind};
use crate::history::{Anomaly, Class, Transaction};
use crate::reads::judge;

/// The classes of cycles, from the worst on: how a cycle begins, and how it may go on.
const CYCLES: [(Class, Kind); 5] = [
    (Class::G0, Kind::Ww),
    (Class::G1c, Kind::Wr),
    (Class::GSingle, Kind::Rw),
    (Class::GNonadjacent, Kind::Rw),
    (Class::G2Item, Kind::Rw),
];

/// Finds what is wrong. Of each knot of cycles one is told, of the worst class that there is in it.
///
/// What did not overlap in time counts as being in that order: that is true of every level that is offered here.
pub(crate) fn check(history: &[Transaction]) -> Vec<Anomaly> {
    let reads = judge(history);
    let mut anomalies = reads.anomalies.clone();
    let mut graph = Graph::of(&reads);
    // The worst class of the cycles that a transaction is in.
    let mut worst: HashMap<usize, Class> = HashMap::new();
    for component in graph.components() {
        if let Some((class, cycle)) = graph.worst_cycle(&component) {
            worst.extend(component.iter().map(|member| (*member, class)));
            anomalies.push(Anomaly { class, real_time: false, witness: tell(&cycle, history) });
        }
    }
    graph.add_real_time(history, &reads.committed);
    for component in graph.components() {
        let known = component.iter().filter_map(|member| worst.get(member)).min();
        if let Some((class, cycle)) = graph.worst_cycle(&component)
            && known.is_none_or(|known| class < *known)
        {
            anomalies.push(Anomaly { class, real_time: true, witness: tell(&cycle, history) });
        }
    }
    anomalies
}

/// A transaction on a way, and whether the edge to it was a read of what was overwritten.
type Place = (usize, bool);

/// A cycle: transactions, and the edge that leaves each.
type Cycle<'a> = Vec<(usize, &'a Edge)>;

fn tell(cycle: &Cycle<'_>, history: &[Transaction]) -> String {
    let mut text = String::new();
    for (from, edge) in cycle {
        let kind = match edge.kind {
            Kind::Ww => "ww",
            Kind::Wr => "wr",
            Kind::Rw => "rw",
            Kind::RealTime => "rt",
        };
        text += &format!("\n    T{from} --{kind} {}--> T{}", edge.why, edge.to);
    }
    for (member, _) in cycle {
        text += &format!("\n    T{member} is {}", history[*member]);
    }
    text
}

impl Class {
    /// Whether a cycle of this class may go on with an edge, behind one that is a read of what was overwritten or is not.
    fn takes(self, behind_rw: bool, kind: Kind) -> bool {
        match self {
            Self::G0 => matches!(kind, Kind::Ww | Kind::RealTime),
            Self::G1c | Self::GSingle => kind != Kind::Rw,
            Self::GNonadjacent => !(behind_rw && kind == Kind::Rw),
            _ => true,
        }
    }

    /// Whether the edge that closes a cycle may be such a read, where the first one is.
    fn closes(self, kind: Kind) -> bool {
        self != Self::GNonadjacent || kind != Kind::Rw
    }
}

impl Graph {
    fn worst_cycle(&self, component: &[usize]) -> Option<(Class, Cycle<'_>)> {
        let members: HashSet<usize> = component.iter().copied().collect();
        for (class, first) in CYCLES {
            let mut starts: Vec<usize> = component.to_vec();
            starts.sort_unstable();
            if class == Class::GSingle
                && let Some(pair) = self.lost_update(&starts)
            {
                return Some((class, pair.to_vec()));
            }
            for from in starts {
                for edge in
                    self.edges[from].iter().filter(|edge| edge.kind == first && members.contains(&edge.to))
                {
                    if let Some(mut cycle) = self.way_back(&members, edge, from, class) {
                        cycle.insert(0, (from, edge));
                        return Some((class, cycle));
                    }
                }
            }
        }
        None
    }

    /// The shortest way from the end of an edge to its beginning.
    fn way_back(
        &self,
        members: &HashSet<usize>,
        first: &Edge,
        goal: usize,
        class: Class,
    ) -> Option<Cycle<'_>> {
        let mut came: HashMap<Place, (Place, &Edge)> = HashMap::new();
        let start = (first.to, first.kind == Kind::Rw);
        let mut queue = VecDeque::from([start]);
        while let Some(at) = queue.pop_front() {
            for edge in &self.edges[at.0] {
                if !members.contains(&edge.to) || !class.takes(at.1, edge.kind) {
                    continue;
                }
                if edge.to == goal && class.closes(edge.kind) {
                    let mut cycle = vec![(at.0, edge)];
                    let mut back = at;
                    while back != start {
                        let (before, edge) = came[&back];
                        cycle.push((before.0, edge));
                        back = before;
                    }
                    cycle.reverse();
                    return Some(cycle);
                }
                let next = (edge.to, edge.kind == Kind::Rw);
                if next != start && !came.contains_key(&next) {
                    came.insert(next, (at, edge));
                    queue.push_back(next);
                }
            }
        }
        None
    }
}
