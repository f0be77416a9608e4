//! What is wrong with a read by itself; and the order of the appends to each list, from the longest read of it.

use std::collections::{BTreeMap, HashMap, HashSet};

use crate::history::{Anomaly, Class, Op, Outcome, Transaction};

/// A read that tells something about other transactions.
pub(crate) struct Read<'a> {
    /// Whose.
    pub(crate) reader: usize,
    pub(crate) list: &'a [u64],
    /// It is the first of its transaction, which had not appended yet: what it shows is all of others.
    pub(crate) external: bool,
}

/// What is known of one list.
#[derive(Default)]
pub(crate) struct List<'a> {
    /// The reads that are not wrong by themselves.
    pub(crate) reads: Vec<Read<'a>>,
    /// The elements in the order of their versions; nothing when the reads do not agree on one.
    pub(crate) order: Option<&'a [u64]>,
    /// Elements of committed transactions that nobody read, and nobody could have: they come after the order.
    pub(crate) unread: Vec<u64>,
}

/// What the reads of a history say.
pub(crate) struct Reads<'a> {
    pub(crate) lists: BTreeMap<&'a str, List<'a>>,
    /// Who appended an element of a list.
    pub(crate) writers: HashMap<(&'a str, u64), usize>,
    /// Which transactions count as committed: also those of unknown outcome that somebody saw.
    pub(crate) committed: Vec<bool>,
    pub(crate) anomalies: Vec<Anomaly>,
}

/// Looks at every read.
pub(crate) fn judge(history: &[Transaction]) -> Reads<'_> {
    let mut writers = HashMap::new();
    let mut last_appends = HashMap::new();
    for (writer, transaction) in history.iter().enumerate() {
        for op in &transaction.ops {
            if let Op::Append(key, element) = op {
                let twice = writers.insert((key.as_str(), *element), writer);
                assert_eq!(twice, None, "{key}+{element} is appended once");
                last_appends.insert((writer, key.as_str()), *element);
            }
        }
    }
    let mut reads = Reads {
        lists: BTreeMap::new(),
        committed: history.iter().map(|transaction| transaction.outcome == Outcome::Committed).collect(),
        writers,
        anomalies: Vec::new(),
    };
    for (reader, transaction) in history.iter().enumerate() {
        if transaction.outcome == Outcome::Committed {
            reads.judge_transaction(reader, transaction, history, &last_appends);
        }
    }
    reads.order_lists();
    reads.find_lost(history);
    reads
}

impl<'a> Reads<'a> {
    fn found(&mut self, class: Class, witness: String) {
        self.anomalies.push(Anomaly { class, real_time: false, witness });
    }

    /// Sorts the reads of a transaction into good ones, which are kept, and wrong ones.
    fn judge_transaction(
        &mut self,
        reader: usize,
        transaction: &'a Transaction,
        history: &[Transaction],
        last_appends: &HashMap<(usize, &str), u64>,
    ) {
        // What was read of a list, with what was appended to it since; and what was appended before anything was read.
        let mut known: HashMap<&str, Vec<u64>> = HashMap::new();
        let mut blind: HashMap<&str, Vec<u64>> = HashMap::new();
        for op in &transaction.ops {
            match op {
                Op::Append(key, element) => match known.get_mut(key.as_str()) {
                    Some(list) => list.push(*element),
                    None => blind.entry(key).or_default().push(*element),
                },
                Op::Read(key, list) => {
                    let own = blind.get(key.as_str());
                    let agrees = match known.get(key.as_str()) {
                        Some(expected) => expected == list,
                        None => own.is_none_or(|own| list.ends_with(own)),
                    };
                    let external = own.is_none() && !known.contains_key(key.as_str());
                    let wrong = if agrees {
                        self.wrong(key, list, reader, history, last_appends)
                    } else {
                        Some((Class::Internal, format!("T{reader} ({transaction}) reads {key} as {list:?}")))
                    };
                    known.insert(key, list.clone());
                    match wrong {
                        Some((class, witness)) => self.found(class, witness),
                        None => self.keep(key, Read { reader, list, external }),
                    }
                }
            }
        }
    }

    fn keep(&mut self, key: &'a str, read: Read<'a>) {
        for element in read.list {
            let writer = self.writers[&(key, *element)];
            self.committed[writer] = true;
        }
        self.lists.entry(key).or_default().reads.push(read);
    }

    /// What is wrong with a list that agrees with its own transaction.
    fn wrong(
        &self,
        key: &str,
        list: &[u64],
        reader: usize,
        history: &[Transaction],
        last_appends: &HashMap<(usize, &str), u64>,
    ) -> Option<(Class, String)> {
        let mut seen = HashSet::new();
        let says = |class, why: String| Some((class, format!("T{reader} reads {key} as {list:?}: {why}")));
        for element in list {
            if !seen.insert(element) {
                return says(Class::Duplicate, format!("{element} is there twice"));
            }
            let Some(&writer) = self.writers.get(&(key, *element)) else {
                return says(Class::Phantom, format!("nobody appended {element}"));
            };
            if history[writer].outcome == Outcome::Aborted {
                return says(Class::G1a, format!("{element} is of T{writer} ({})", history[writer]));
            }
        }
        let last = list.last()?;
        let writer = self.writers[&(key, *last)];
        if writer != reader && last_appends[&(writer, key)] != *last {
            return says(Class::G1b, format!("T{writer} ({}) went on behind {last}", history[writer]));
        }
        None
    }

    /// The longest read of a list is its order, when it continues all others.
    fn order_lists(&mut self) {
        let mut anomalies = Vec::new();
        for (key, list) in &mut self.lists {
            let Some(longest) = list.reads.iter().max_by_key(|read| read.list.len()) else { continue };
            match list.reads.iter().find(|read| !longest.list.starts_with(read.list)) {
                None => list.order = Some(longest.list),
                Some(other) => anomalies.push(Anomaly {
                    class: Class::IncompatibleOrder,
                    real_time: false,
                    witness: format!(
                        "T{} reads {key} as {:?} and T{} as {:?}",
                        longest.reader, longest.list, other.reader, other.list
                    ),
                }),
            }
        }
        self.anomalies.extend(anomalies);
    }

    /// Elements that were committed and are in no read: lost when somebody read behind the commit.
    fn find_lost(&mut self, history: &[Transaction]) {
        let mut seen: HashSet<(&str, u64)> = HashSet::new();
        // Of each list the last moment at which a reader began.
        let mut last_read: HashMap<&str, (u64, usize)> = HashMap::new();
        for (reader, transaction) in history.iter().enumerate() {
            for op in &transaction.ops {
                let Op::Read(key, list) = op else { continue };
                if transaction.outcome == Outcome::Committed {
                    seen.extend(list.iter().map(|element| (key.as_str(), *element)));
                    let last = last_read.entry(key).or_insert((transaction.begun, reader));
                    *last = (*last).max((transaction.begun, reader));
                }
            }
        }
        let mut unread: Vec<(&'a str, u64, usize)> =
            self.writers.iter().map(|((key, element), writer)| (*key, *element, *writer)).collect();
        unread.retain(|(key, element, writer)| self.committed[*writer] && !seen.contains(&(*key, *element)));
        unread.sort_unstable();
        for (key, element, writer) in unread {
            match last_read.get(key) {
                Some((begun, reader)) if *begun > history[writer].ended => {
                    let witness =
                        format!("T{writer} ({}) was committed before T{reader} began", history[writer]);
                    self.found(Class::Lost, format!("{key}+{element}: {witness}"));
                }
                _ => self.lists.entry(key).or_default().unread.push(element),
            }
        }
    }
}
