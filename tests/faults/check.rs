//! The check: what was answered, against what is in the database and what the readers have seen.

use std::collections::BTreeMap;

use serde_json::Value;

use crate::ledger::{Kind, Operation, Outcome, Reply, Source};
use crate::readers::Seen;

/// A part of an operation, as it was found.
#[derive(Clone, Debug, PartialEq, Eq, PartialOrd, Ord)]
pub(crate) struct Change {
    pub(crate) source: Source,
    /// The number of the operation, and which of its parts it is.
    pub(crate) op: usize,
    pub(crate) part: usize,
    pub(crate) id: String,
    pub(crate) version: i64,
}

impl Change {
    /// Reads whose change it is from the document.
    pub(crate) fn of(source: Source, id: String, version: i64, data: &Value) -> Self {
        let number =
            |name: &str| usize::try_from(data[name].as_u64().expect("it is of an operation")).unwrap();
        Self { source, op: number("op"), part: number("part"), id, version }
    }
}

/// Everything there is to compare.
pub(crate) struct Evidence {
    pub(crate) operations: Vec<Operation>,
    pub(crate) unexpected: Vec<String>,
    /// The change log, in the order of its numbers.
    pub(crate) log: Vec<Change>,
    /// The documents that are there in the end.
    pub(crate) rows: Vec<Change>,
    pub(crate) seen: Vec<Seen>,
}

/// What can be wrong.
#[derive(Clone, Copy, Debug, PartialEq, Eq, PartialOrd, Ord)]
pub(crate) enum Wrong {
    /// It was acknowledged and is not there.
    Lost,
    /// It was done more than once.
    Doubled,
    /// A part of it was done.
    Torn,
    /// It was done although the answer said that it was not.
    RefusedAndDone,
    /// The answer names another document or version than the one that was written.
    AnswerDiffers,
    /// It was repeated with its key and never acknowledged.
    Unresolved,
    /// An answer that no fault explains.
    UnexpectedAnswer,
    /// What began after another one was acknowledged stands before it.
    OutOfOrder,
    /// The documents are not what the log leads to.
    TableAndLogDiffer,
    /// A reader did not see each change once and in order.
    Reader,
}

/// What is wrong, with words for each case.
#[derive(Clone, Debug, Default)]
pub(crate) struct Findings(BTreeMap<Wrong, Vec<String>>);

impl Findings {
    fn add(&mut self, wrong: Wrong, what: String) {
        self.0.entry(wrong).or_default().push(what);
    }

    /// How many there are of a kind.
    pub(crate) fn count(&self, wrong: Wrong) -> usize {
        self.0.get(&wrong).map_or(0, Vec::len)
    }

    /// All of them.
    pub(crate) fn all(&self) -> impl Iterator<Item = (&Wrong, &Vec<String>)> {
        self.0.iter()
    }
}

/// Compares everything.
pub(crate) fn check(evidence: &Evidence) -> Findings {
    let mut findings = Findings::default();
    for what in &evidence.unexpected {
        findings.add(Wrong::UnexpectedAnswer, what.clone());
    }
    operations(evidence, &mut findings);
    for source in Source::ALL {
        let of_source: Vec<&Change> = evidence.log.iter().filter(|change| change.source == source).collect();
        let mut wrong = out_of_order(&evidence.operations, &of_source);
        wrong.extend(versions(&of_source));
        wrong.into_iter().for_each(|what| findings.add(Wrong::OutOfOrder, format!("the log: {what}")));
        rows(source, &of_source, &evidence.rows, &mut findings);
        for seen in evidence.seen.iter().filter(|seen| seen.source == source) {
            reader(&evidence.operations, &of_source, seen, &mut findings);
        }
    }
    findings
}

/// Each operation against the log.
fn operations(evidence: &Evidence, findings: &mut Findings) {
    let mut found: BTreeMap<usize, Vec<&Change>> = BTreeMap::new();
    for change in &evidence.log {
        found.entry(change.op).or_default().push(change);
    }
    for (number, operation) in evidence.operations.iter().enumerate() {
        let changes = found.remove(&number).unwrap_or_default();
        let parts = operation.kind.parts();
        let times: Vec<usize> = (0..parts.len())
            .map(|part| changes.iter().filter(|change| change.part == part).count())
            .collect();
        let mut add = |wrong| findings.add(wrong, format!("{number}: {operation:?}: {times:?}"));
        if times.iter().any(|times| *times > 1) {
            add(Wrong::Doubled);
        }
        let is_there = times.iter().any(|times| *times > 0);
        if is_there && times.contains(&0) {
            add(Wrong::Torn);
        }
        match operation.outcome {
            Outcome::Acknowledged if times.contains(&0) => add(Wrong::Lost),
            Outcome::Acknowledged if !answers_fit(operation, &changes) => add(Wrong::AnswerDiffers),
            Outcome::Refused if is_there => add(Wrong::RefusedAndDone),
            Outcome::Open if operation.has_key => add(Wrong::Unresolved),
            Outcome::Acknowledged | Outcome::Refused | Outcome::Open => {}
        }
        let strays = changes.iter().filter(|change| parts.get(change.part) != Some(&change.source));
        strays.for_each(|change| findings.add(Wrong::Doubled, format!("not of its operation: {change:?}")));
    }
    for change in found.into_values().flatten() {
        findings.add(Wrong::Doubled, format!("of no operation: {change:?}"));
    }
}

/// Whether the answer says what was written.
fn answers_fit(operation: &Operation, changes: &[&Change]) -> bool {
    let fits = |part: usize, reply: &Reply| {
        let change = changes.iter().find(|change| change.part == part);
        change.is_some_and(|change| {
            reply.id.as_ref().is_none_or(|id| *id == change.id)
                && reply.version.is_none_or(|version| version == change.version)
        })
    };
    operation.replies.len() == operation.kind.parts().len()
        && operation.replies.iter().enumerate().all(|(part, reply)| {
            // Each answer names one of the two.
            (reply.id.is_some() || reply.version.is_some()) && fits(part, reply)
        })
}

/// Who began after another one was acknowledged comes behind it.
fn out_of_order(operations: &[Operation], changes: &[&Change]) -> Vec<String> {
    let mut latest: Option<(u64, usize)> = None;
    let mut found = Vec::new();
    for change in changes {
        let Some(operation) = operations.get(change.op) else { continue };
        if let Some((begun, op)) = latest
            && operation.acknowledged.is_some_and(|acknowledged| acknowledged < begun)
        {
            found.push(format!("{} was acknowledged before {op} began, and comes behind it", change.op));
        }
        latest = latest.max(Some((operation.begun, change.op)));
    }
    found
}

/// The versions of each document count up from 1. Items and events have one change each.
fn versions(changes: &[&Change]) -> Vec<String> {
    let mut last: BTreeMap<&str, i64> = BTreeMap::new();
    let mut found = Vec::new();
    for change in changes.iter().filter(|change| change.source != Source::Events) {
        let before = last.insert(&change.id, change.version).unwrap_or(0);
        if change.version != before + 1 {
            found.push(format!("version {} of {} follows {before}", change.version, change.id));
        }
    }
    found
}

/// The documents that are there are the last ones of the log.
fn rows(source: Source, log: &[&Change], rows: &[Change], findings: &mut Findings) {
    if source == Source::Events {
        return;
    }
    let expected: BTreeMap<&str, &Change> = log.iter().map(|change| (change.id.as_str(), *change)).collect();
    let rows = rows.iter().filter(|row| row.source == source);
    let found: BTreeMap<&str, &Change> = rows.map(|row| (row.id.as_str(), row)).collect();
    for id in expected.keys().chain(found.keys()).collect::<std::collections::BTreeSet<_>>() {
        let (expected, found) = (expected.get(id), found.get(id));
        if expected != found {
            findings.add(Wrong::TableAndLogDiffer, format!("log {expected:?}, table {found:?}"));
        }
    }
}

/// A reader against the log.
fn reader(operations: &[Operation], log: &[&Change], seen: &Seen, findings: &mut Findings) {
    let mut add = |what: String| findings.add(Wrong::Reader, format!("{}: {what}", seen.name));
    seen.problems.iter().for_each(|problem| add(problem.clone()));
    if !seen.is_complete {
        add("never saw the last change".to_owned());
    }
    let mut times: BTreeMap<&Change, (usize, usize)> = BTreeMap::new();
    log.iter().for_each(|change| times.entry(change).or_default().0 += 1);
    seen.changes.iter().for_each(|change| times.entry(change).or_default().1 += 1);
    for (change, (there, seen)) in times {
        if there != seen {
            add(format!("saw {seen} times what is there {there} times: {change:?}"));
        }
    }
    let changes: Vec<&Change> = seen.changes.iter().collect();
    out_of_order(operations, &changes).into_iter().for_each(&mut add);
    versions(&changes).into_iter().for_each(&mut add);
    // A transaction stays whole: the two documents of one are neighbours.
    for (at, change) in changes.iter().enumerate() {
        let is_pair = operations.get(change.op).is_some_and(|operation| {
            matches!(operation.kind, Kind::Batch | Kind::Transaction) && change.source == Source::Documents
        });
        if is_pair && change.part == 1 {
            let next = changes.get(at + 1).map(|next| (next.op, next.part));
            if next != Some((change.op, 2)) {
                add(format!("something is between the parts of {}: {next:?}", change.op));
            }
        }
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    fn operation(kind: Kind, begun: u64, acknowledged: Option<u64>) -> Operation {
        let outcome = if acknowledged.is_some() { Outcome::Acknowledged } else { Outcome::Open };
        Operation { writer: 0, kind, has_key: false, begun, acknowledged, outcome, replies: Vec::new() }
    }

    fn change(source: Source, op: usize, part: usize, id: &str, version: i64) -> Change {
        Change { source, op, part, id: id.to_owned(), version }
    }

    /// Two sets of one document and a batch, all as they should be.
    fn sound() -> Evidence {
        let mut operations = vec![
            operation(Kind::Set, 1, Some(2)),
            operation(Kind::Set, 3, Some(4)),
            operation(Kind::Batch, 5, Some(6)),
        ];
        let id = |id: &str| Reply { id: Some(id.to_owned()), version: None };
        let version = |version| Reply { id: None, version: Some(version) };
        operations[0].replies = vec![version(1)];
        operations[1].replies = vec![version(2)];
        operations[2].replies = vec![id("i"), version(3), version(1), id("e")];
        let log = vec![
            change(Source::Documents, 0, 0, "a", 1),
            change(Source::Documents, 1, 0, "a", 2),
            change(Source::Items, 2, 0, "i", 1),
            change(Source::Documents, 2, 1, "a", 3),
            change(Source::Documents, 2, 2, "b", 1),
            change(Source::Events, 2, 3, "e", 0),
        ];
        let rows = vec![log[2].clone(), log[3].clone(), log[4].clone()];
        let changes = log.iter().filter(|change| change.source == Source::Documents).cloned().collect();
        let (name, source, problems) = ("a reader".to_owned(), Source::Documents, Vec::new());
        let seen = vec![Seen { name, source, changes, resumed: 0, problems, is_complete: true }];
        Evidence { operations, unexpected: Vec::new(), log, rows, seen }
    }

    /// The kinds that are found when something is changed.
    fn found(change: impl FnOnce(&mut Evidence)) -> Vec<Wrong> {
        let mut evidence = sound();
        change(&mut evidence);
        check(&evidence).all().map(|(wrong, _)| *wrong).collect()
    }

    #[test]
    fn each_thing_that_can_be_wrong_is_found() {
        assert_eq!(found(|_| {}), []);
        let lost = found(|evidence| {
            evidence.log.truncate(2);
            evidence.rows = vec![evidence.log[1].clone()];
            evidence.seen[0].changes.truncate(2);
        });
        assert_eq!(lost, [Wrong::Lost]);
        let doubled = found(|evidence| {
            let mut again = evidence.log[2].clone();
            again.id = "j".to_owned();
            evidence.rows.push(again.clone());
            evidence.log.push(again);
        });
        assert_eq!(doubled, [Wrong::Doubled]);
        let torn = found(|evidence| {
            (evidence.operations[2].outcome, evidence.operations[2].acknowledged) = (Outcome::Open, None);
            evidence.log.pop();
        });
        assert_eq!(torn, [Wrong::Torn]);
        assert_eq!(
            found(|evidence| evidence.operations[2].outcome = Outcome::Refused),
            [Wrong::RefusedAndDone]
        );
        let answered = found(|evidence| evidence.operations[1].replies[0].version = Some(7));
        assert_eq!(answered, [Wrong::AnswerDiffers]);
        let unresolved = found(|evidence| {
            let operation = &mut evidence.operations[1];
            (operation.outcome, operation.has_key) = (Outcome::Open, true);
        });
        assert_eq!(unresolved, [Wrong::Unresolved]);
        assert_eq!(found(|evidence| evidence.unexpected.push("x".to_owned())), [Wrong::UnexpectedAnswer]);
        // The first was acknowledged before the second began.
        let order = found(|evidence| {
            evidence.operations[0].begun = 9;
            evidence.operations[0].acknowledged = Some(10);
        });
        assert_eq!(order, [Wrong::OutOfOrder, Wrong::Reader]);
        assert_eq!(found(|evidence| evidence.rows[1].op = 1), [Wrong::TableAndLogDiffer]);
    }

    #[test]
    fn a_reader_that_misses_doubles_or_swaps_is_found() {
        let reader = |change: &dyn Fn(&mut Seen)| found(|evidence| change(&mut evidence.seen[0]));
        let only = [Wrong::Reader];
        assert_eq!(reader(&|seen| drop(seen.changes.remove(1))), only);
        assert_eq!(reader(&|seen| seen.changes.push(seen.changes[0].clone())), only);
        assert_eq!(reader(&|seen| seen.changes.swap(0, 1)), only);
        // The two documents of the batch, and one that is not of it between them.
        assert_eq!(reader(&|seen| seen.changes.swap(1, 3)), only);
        assert_eq!(reader(&|seen| seen.is_complete = false), only);
        assert_eq!(reader(&|seen| seen.problems.push("reset".to_owned())), only);
    }
}
