//! The graph of dependencies between transactions, and its strongly connected components.

use crate::history::Transaction;
use crate::reads::Reads;

/// Why one transaction comes before another one.
#[derive(Clone, Copy, Debug, PartialEq, Eq, PartialOrd, Ord, Hash)]
pub(crate) enum Kind {
    /// It wrote the version before the other's.
    Ww,
    /// The other read what it wrote.
    Wr,
    /// It read the version before the other's.
    Rw,
    /// It had ended before the other began.
    RealTime,
}

#[derive(Clone, Debug)]
pub(crate) struct Edge {
    pub(crate) to: usize,
    pub(crate) kind: Kind,
    /// The list, and the element that shows it.
    pub(crate) why: String,
}

impl Edge {
    /// The list that shows it.
    fn list(&self) -> &str {
        self.why.split_once('+').map_or("", |(list, _)| list)
    }
}

/// Edges by the transaction that they leave.
pub(crate) struct Graph {
    pub(crate) edges: Vec<Vec<Edge>>,
}

impl Graph {
    /// What follows from the order of versions.
    pub(crate) fn of(reads: &Reads<'_>) -> Self {
        let mut graph = Self { edges: vec![Vec::new(); reads.committed.len()] };
        for (key, list) in &reads.lists {
            let Some(order) = list.order else { continue };
            let writer = |element: u64| reads.writers[&(*key, element)];
            for pair in order.windows(2) {
                graph.add(writer(pair[0]), writer(pair[1]), Kind::Ww, || format!("{key}+{}", pair[1]));
            }
            // What nobody has read yet comes behind all that was.
            if let Some(last) = order.last() {
                for next in &list.unread {
                    graph.add(writer(*last), writer(*next), Kind::Ww, || format!("{key}+{next}"));
                }
            }
            for read in list.reads.iter().filter(|read| read.external) {
                if let Some(last) = read.list.last() {
                    graph.add(writer(*last), read.reader, Kind::Wr, || format!("{key}+{last}"));
                }
                match order.get(read.list.len()) {
                    Some(next) => {
                        graph.add(read.reader, writer(*next), Kind::Rw, || format!("{key}+{next}"));
                    }
                    None => {
                        for next in &list.unread {
                            graph.add(read.reader, writer(*next), Kind::Rw, || format!("{key}+{next}"));
                        }
                    }
                }
            }
        }
        graph
    }

    fn add(&mut self, from: usize, to: usize, kind: Kind, why: impl FnOnce() -> String) {
        if from != to {
            self.edges[from].push(Edge { to, kind, why: why() });
        }
    }

    /// Two transactions that write one list and read of it what was there before both. Nobody has read which wrote first, but one did:
    /// it is a lost update, in either order.
    pub(crate) fn lost_update(&self, component: &[usize]) -> Option<[(usize, &Edge); 2]> {
        let reads = |from: usize| self.edges[from].iter().filter(|edge| edge.kind == Kind::Rw);
        component.iter().find_map(|one| {
            reads(*one).find_map(|to| {
                let mut back = reads(to.to).filter(|back| back.to == *one && back.list() == to.list());
                Some([(*one, to), (to.to, back.next()?)])
            })
        })
    }

    /// Adds the order of transactions that did not overlap. An edge that follows from two others is left out.
    pub(crate) fn add_real_time(&mut self, history: &[Transaction], committed: &[bool]) {
        let mut moments: Vec<(u64, bool, usize)> = Vec::new();
        for (number, transaction) in history.iter().enumerate().filter(|(number, _)| committed[*number]) {
            moments.extend([(transaction.begun, true, number), (transaction.ended, false, number)]);
        }
        moments.sort_unstable();
        // The last to have ended: everybody else who has ended is before one of them.
        let mut last: Vec<usize> = Vec::new();
        for (_, begins, number) in moments {
            if begins {
                for before in &last {
                    self.add(*before, number, Kind::RealTime, || "ended before".to_owned());
                }
            } else {
                last.retain(|before| history[*before].ended > history[number].begun);
                last.push(number);
            }
        }
    }

    /// The strongly connected components of more than one transaction (Tarjan, without recursion).
    pub(crate) fn components(&self) -> Vec<Vec<usize>> {
        const UNSEEN: usize = usize::MAX;
        let count = self.edges.len();
        let (mut index, mut low) = (vec![UNSEEN; count], vec![0; count]);
        let (mut stack, mut on_stack) = (Vec::new(), vec![false; count]);
        let (mut next, mut components) = (0, Vec::new());
        for root in 0..count {
            if index[root] != UNSEEN {
                continue;
            }
            // A transaction, and the edge of it that is next to be followed.
            let mut path = vec![(root, 0)];
            while let Some((node, place)) = path.last_mut() {
                let node = *node;
                if *place == 0 && index[node] == UNSEEN {
                    (index[node], low[node]) = (next, next);
                    next += 1;
                    stack.push(node);
                    on_stack[node] = true;
                }
                if let Some(edge) = self.edges[node].get(*place) {
                    *place += 1;
                    if index[edge.to] == UNSEEN {
                        path.push((edge.to, 0));
                    } else if on_stack[edge.to] {
                        low[node] = low[node].min(index[edge.to]);
                    }
                    continue;
                }
                path.pop();
                if let Some((parent, _)) = path.last() {
                    low[*parent] = low[*parent].min(low[node]);
                }
                if low[node] == index[node] {
                    let at = stack.iter().rposition(|other| *other == node).expect("it was put there");
                    let component = stack.split_off(at);
                    component.iter().for_each(|member| on_stack[*member] = false);
                    if component.len() > 1 {
                        components.push(component);
                    }
                }
            }
        }
        components
    }
}
