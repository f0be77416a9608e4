//! The checker, proved: on bad histories made by hand, each with a good twin that differs in little; and on histories of a
//! system in memory that is right by construction.

use std::collections::BTreeMap;

use crate::checker::check;
use crate::history::{Class, Op, Outcome, Transaction};

/// Reads a history: a transaction a line, with `ok`, `no` (aborted) or `??` (unknown) in front of appends (`x+1`) and reads (`x=1,2`).
/// Those between two lines `then` overlap in time.
fn parse(text: &str) -> Vec<Transaction> {
    let mut history = Vec::new();
    for (epoch, concurrent) in (0..).zip(text.split("then")) {
        for line in concurrent.lines().map(str::trim).filter(|line| !line.is_empty()) {
            let mut words = line.split_whitespace();
            let outcome = match words.next() {
                Some("ok") => Outcome::Committed,
                Some("no") => Outcome::Aborted,
                Some("??") => Outcome::Unknown,
                other => panic!("{other:?} is no outcome"),
            };
            let ops = words.map(|word| match word.split_once('+') {
                Some((key, element)) => Op::Append(key.to_owned(), element.parse().unwrap()),
                None => {
                    let (key, list) = word.split_once('=').unwrap();
                    let elements = list.split(',').filter(|element| !element.is_empty());
                    Op::Read(key.to_owned(), elements.map(|element| element.parse().unwrap()).collect())
                }
            });
            let ops = ops.collect();
            history.push(Transaction { begun: 2 * epoch, ended: 2 * epoch + 1, outcome, ops });
        }
    }
    history
}

/// What is found, each class once; those that need real time by themselves.
fn classes(text: &str) -> Vec<(Class, bool)> {
    let anomalies = check(&parse(text));
    let mut found: Vec<_> = anomalies.iter().map(|anomaly| (anomaly.class, anomaly.real_time)).collect();
    found.sort_unstable();
    found.dedup();
    found
}

/// What it is, its class, whether it takes real time to see it, the bad history, and the good one.
const HISTORIES: [(&str, Class, bool, &str, &str); 22] = [
    (
        "a read that cannot be repeated",
        Class::Internal,
        false,
        "ok x+1 \n ok x= x=1",
        "ok x+1 \n ok x= x= y=",
    ),
    ("an own append that is not there", Class::Internal, false, "ok x+1 x=", "ok x+1 x=1"),
    (
        "an own append in the wrong place",
        Class::Internal,
        false,
        "ok x+1 \n ok x+2 x=2,1",
        "ok x+1 \n ok x+2 x=1,2",
    ),
    ("an element twice", Class::Duplicate, false, "ok x+1 \n ok x=1,1", "ok x+1 \n ok x=1"),
    ("an element of nobody", Class::Phantom, false, "ok x+1 \n ok x=1,7", "ok x+1 \n ok x=1"),
    ("an element of another list", Class::Phantom, false, "ok x+1 \n ok y=1", "ok x+1 y+1 \n ok y=1"),
    (
        "two orders of one list",
        Class::IncompatibleOrder,
        false,
        "ok x+1 \n ok x+2 \n ok x=1,2 \n ok x=2,1",
        "ok x+1 \n ok x+2 \n ok x=1,2 \n ok x=1",
    ),
    ("an update that is gone", Class::Lost, false, "ok x+1 \n then \n ok x=", "ok x+1 \n then \n ok x=1"),
    (
        "an update that another one wrote over",
        Class::Lost,
        false,
        "ok x= x+1 \n ok x= x+2 \n then \n ok x=2",
        "ok x= x+1 \n no x= x+2 \n then \n ok x=1",
    ),
    ("aborted read", Class::G1a, false, "no x+1 \n ok x=1", "?? x+1 \n ok x=1"),
    ("intermediate read", Class::G1b, false, "ok x+1 x+2 \n ok x=1", "ok x+1 x+2 \n ok x=1,2"),
    (
        "a cycle of writes",
        Class::G0,
        false,
        "ok x+1 y+1 \n ok x+2 y+2 \n ok x=1,2 y=2,1",
        "ok x+1 y+1 \n ok x+2 y+2 \n ok x=1,2 y=1,2",
    ),
    (
        "a cycle of writes of which nobody read the last ones",
        Class::G0,
        false,
        "ok x+1 y+1 \n ok x+2 y+2 \n ok x=1 y=2",
        "ok x+1 y+1 \n ok x+2 y+2 \n ok x=1 y=1",
    ),
    ("circular information flow", Class::G1c, false, "ok x+1 y=2 \n ok y+2 x=1", "ok x+1 y= \n ok y+2 x=1"),
    (
        "circular information flow over a write",
        Class::G1c,
        false,
        "ok x+1 y=1 \n ok x+2 y+1 \n ok x=1,2",
        "ok x+1 y= \n ok x+2 y+1 \n ok x=1,2",
    ),
    ("read skew", Class::GSingle, false, "ok x+1 y+1 \n ok x= y=1", "ok x+1 y+1 \n ok x= y="),
    (
        "lost update",
        Class::GSingle,
        false,
        "ok x= x+1 \n ok x= x+2 \n ok x=1,2",
        "ok x= x+1 \n ok x=1 x+2 \n ok x=1,2",
    ),
    (
        "lost update that nobody read",
        Class::GSingle,
        false,
        "ok x= x+1 \n ok x= x+2",
        "ok x= x+1 \n ok x=1 x+2",
    ),
    (
        "a list as it was",
        Class::GSingle,
        true,
        "ok x+1 \n then \n ok x= \n then \n ok x=1",
        "ok x+1 \n ok x= \n then \n ok x=1",
    ),
    (
        "long fork",
        Class::GNonadjacent,
        false,
        "ok x+1 \n ok y+2 \n ok x=1 y= \n ok x= y=2",
        "ok x+1 \n ok y+2 \n ok x=1 y= \n ok x=1 y=2",
    ),
    (
        "write skew",
        Class::G2Item,
        false,
        "ok x= y= x+1 \n ok x= y= y+2 \n ok x=1 y=2",
        "ok x= y= x+1 \n ok x=1 y= y+2 \n ok x=1 y=2",
    ),
    (
        "write skew of three, one of them of unknown outcome",
        Class::G2Item,
        false,
        "ok x= y+1 \n ok y= z+1 \n ok z= x+1 w=5 \n ?? w+5",
        "ok x= y+1 \n ok y= z+1 \n ok z=1 x+1 \n ?? w+5",
    ),
];

#[test]
fn each_bad_history_is_found_with_its_class_and_its_good_twin_passes() {
    for (name, class, real_time, bad, good) in HISTORIES {
        assert_eq!(classes(bad), [(class, real_time)], "{name}");
        let none = check(&parse(good));
        assert!(none.is_empty(), "{name}, the good one: {}", none[0]);
    }
    let missing = Class::ALL.iter().find(|class| !HISTORIES.iter().any(|history| history.1 == **class));
    assert_eq!(missing, None, "each class has a history");
}

#[test]
fn the_witness_of_a_cycle_names_its_edges_and_its_transactions() {
    let anomalies = check(&parse("ok x= y= x+1 \n ok x= y= y+2 \n ok x=1 y=2"));
    let told = anomalies[0].to_string();
    for part in [
        "G2-item: ",
        "T0 --rw y+2--> T1",
        "T1 --rw x+1--> T0",
        "T0 is Committed: x=[], y=[], x+1",
        "T1 is Committed: x=[], y=[], y+2",
    ] {
        assert!(told.contains(part), "{part} in {told}");
    }
}

/// How transactions of the system in memory see each other.
#[derive(Clone, Copy, PartialEq)]
enum Model {
    Serial,
    /// The first to commit wins.
    Snapshot,
    /// The same, but nobody looks who was first.
    Careless,
}

/// The lists, each with the moment of its last commit.
type Lists = BTreeMap<&'static str, (u64, Vec<u64>)>;

/// Histories of a few transactions that are open at once, on a system in memory.
fn simulate(model: Model, seed: u64) -> Vec<Transaction> {
    const KEYS: [&str; 3] = ["x", "y", "z"];
    let mut numbers = crate::workload::Numbers::new(seed);
    let open_at_once: u8 = if model == Model::Serial { 1 } else { 3 };
    let (mut store, mut clock, mut history) = (Lists::new(), 0, Vec::new());
    let mut open: Vec<(u64, Lists, Vec<Op>)> = Vec::new();
    for element in 0..120 {
        clock += 1;
        if open.len() < usize::from(open_at_once) {
            open.push((clock, store.clone(), Vec::new()));
            continue;
        }
        let place = usize::try_from(numbers.below(open_at_once.into())).unwrap();
        let key = KEYS[usize::try_from(numbers.below(3)).unwrap()];
        let (_, view, ops) = &mut open[place];
        let list = &mut view.entry(key).or_default().1;
        match numbers.below(5) {
            0 | 1 => ops.push(Op::Read(key.to_owned(), list.clone())),
            2 | 3 => {
                list.push(element);
                ops.push(Op::Append(key.to_owned(), element));
            }
            _ => {
                let (begun, view, ops) = open.swap_remove(place);
                let written = KEYS
                    .iter()
                    .filter(|key| ops.iter().any(|op| matches!(op, Op::Append(k, _) if k == *key)));
                let written: Vec<&str> = written.copied().collect();
                let is_first = written.iter().all(|key| store.get(key).is_none_or(|(at, _)| *at < begun));
                let commits = model != Model::Snapshot || is_first;
                if commits {
                    store.extend(written.iter().map(|key| (*key, (clock, view[key].1.clone()))));
                }
                let outcome = if commits { Outcome::Committed } else { Outcome::Aborted };
                history.push(Transaction { begun, ended: clock, outcome, ops });
            }
        }
    }
    history.extend(open.into_iter().map(|(begun, _, ops)| Transaction {
        begun,
        ended: u64::MAX,
        outcome: Outcome::Aborted,
        ops,
    }));
    history
}

#[test]
fn what_is_right_by_construction_is_found_right_and_what_is_not_is_not() {
    let mut found = [0; 3];
    for seed in 1..=300 {
        let serial = check(&simulate(Model::Serial, seed));
        assert!(serial.is_empty(), "seed {seed}: {}", serial[0]);
        let snapshot = check(&simulate(Model::Snapshot, seed));
        let worse = snapshot.iter().find(|anomaly| anomaly.class != Class::G2Item);
        assert!(worse.is_none(), "seed {seed}: {}", worse.unwrap());
        let careless = check(&simulate(Model::Careless, seed));
        found[0] += usize::from(!snapshot.is_empty());
        found[1] += usize::from(careless.iter().any(|anomaly| anomaly.class == Class::Lost));
        found[2] += usize::from(careless.iter().any(|anomaly| anomaly.class == Class::IncompatibleOrder));
    }
    println!(
        "of 300 histories with snapshots {} have write skew; without care {:?} lose",
        found[0],
        &found[1..]
    );
    assert!(found.iter().all(|count| *count > 20), "{found:?}");
}
