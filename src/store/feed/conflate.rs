//! Several changes of one document that wait, as one: what a reader that saw none of them has to do.

use std::collections::{BTreeMap, HashMap};
use std::sync::Arc;

use super::change::{Change, ChangeKind, Record};
use crate::store::Json;

/// A queued change: the last of those that it stands for.
#[derive(Debug)]
pub(super) struct Queued {
    pub(super) record: Arc<Record>,
    pub(super) kind: ChangeKind,
    /// The document before the first of them, when they are several. Most are not, and a queue is shorter for it.
    before: Option<Box<Option<Json>>>,
}

impl Queued {
    pub(super) fn new(record: Arc<Record>, kind: ChangeKind) -> Self {
        Self { record, kind, before: None }
    }

    /// The bytes that it holds.
    pub(super) fn size(&self) -> usize {
        let before = self.before.as_deref().and_then(Option::as_ref);
        self.record.size() + before.map_or(0, |json| json.as_bytes().len())
    }

    /// This change and the next one of the same document, as one. `None` when together they are nothing.
    pub(super) fn followed_by(self, next: Self) -> Option<Self> {
        let kind = joined(self.kind, next.kind)?;
        let before = self.before.unwrap_or_else(|| Box::new(self.record.before.clone()));
        Some(Self { record: next.record, kind, before: Some(before) })
    }

    /// Whether it stands for one change only.
    pub(super) fn is_single(&self) -> bool {
        self.before.is_none()
    }

    /// The change as one subscription sees it.
    pub(super) fn change(&self, cursor: Arc<str>, dropped: u64) -> Change {
        let mut change = self.record.change(self.kind, cursor, dropped);
        if let Some(before) = &self.before {
            change.old = before.as_ref().clone().filter(|_| self.kind != ChangeKind::Enter);
        }
        change
    }
}

/// What two changes of one document are together, for a reader that sees neither: whether he has the document before the
/// first, and whether he is to have it after the second, decide.
fn joined(first: ChangeKind, last: ChangeKind) -> Option<ChangeKind> {
    let had = !matches!(first, ChangeKind::Insert | ChangeKind::Enter);
    let has = !matches!(last, ChangeKind::Delete | ChangeKind::Leave);
    match (had, has) {
        (true, true) => Some(ChangeKind::Update),
        (true, false) => Some(last),
        (false, true) => Some(first),
        (false, false) => None,
    }
}

/// Changes of which no two are of one document, in the order of their last ones, so that the cursor of each still says
/// that everything before it was given out or is contained in what comes after it.
#[derive(Debug, Default)]
pub(super) struct Conflated {
    waiting: BTreeMap<u64, Queued>,
    /// The place of each document's change in `waiting`.
    places: HashMap<Arc<str>, u64>,
    next: u64,
}

impl Conflated {
    pub(super) fn len(&self) -> usize {
        self.waiting.len()
    }

    /// Takes the change of a document out, to be merged with a later one.
    pub(super) fn remove(&mut self, id: &str) -> Option<Queued> {
        let place = self.places.remove(id)?;
        self.waiting.remove(&place)
    }

    /// Adds a change of a document that has none here.
    pub(super) fn push(&mut self, queued: Queued) {
        self.places.insert(Arc::clone(&queued.record.id), self.next);
        self.waiting.insert(self.next, queued);
        self.next += 1;
    }

    /// Takes the oldest out.
    pub(super) fn pop(&mut self) -> Option<Queued> {
        let (_, queued) = self.waiting.pop_first()?;
        self.places.remove(&queued.record.id);
        Some(queued)
    }
}

#[cfg(test)]
mod tests {
    use std::collections::BTreeMap;

    use proptest::prelude::*;

    use super::super::change::Op;
    use super::super::cursor::Batch;
    use super::super::frontier::Frontier;
    use super::*;

    /// Whether the document matches, and what tells one state of it from another.
    type State = Option<(bool, u32)>;

    fn json(state: State) -> Option<Json> {
        state.map(|(_, n)| Json::new(n.to_string()))
    }

    /// The change from one state to the next, as a filter judges it.
    fn change(batch: &Arc<Batch>, seq: i64, id: u8, was: State, is: State) -> Option<Queued> {
        let matched = was.is_some_and(|(matches, _)| matches);
        let matches = is.is_some_and(|(matches, _)| matches);
        let (op, kind) = match (was, is) {
            (None, None) => return None,
            (None, Some(_)) => (Op::Insert, matches.then_some(ChangeKind::Insert)),
            (Some(_), None) => (Op::Delete, matched.then_some(ChangeKind::Delete)),
            (Some(_), Some(_)) => (
                Op::Update,
                match (matched, matches) {
                    (true, true) => Some(ChangeKind::Update),
                    (true, false) => Some(ChangeKind::Leave),
                    (false, true) => Some(ChangeKind::Enter),
                    (false, false) => None,
                },
            ),
        };
        let id = id.to_string().as_str().into();
        let record = Record::new(Arc::clone(batch), 1, seq, seq, op, id, seq, json(was), json(is));
        Some(Queued::new(Arc::new(record), kind?))
    }

    /// Takes a change as a reader who refuses what cannot be.
    fn apply(documents: &mut BTreeMap<String, Json>, queued: &Queued) {
        let change = queued.change("".into(), 0);
        let had = documents.get(&*change.id).cloned();
        match change.kind {
            ChangeKind::Insert | ChangeKind::Enter => assert_eq!((had, change.old), (None, None)),
            _ => assert!(had.is_some() && had == change.old, "{:?}: {had:?}", change.kind),
        }
        match change.kind {
            ChangeKind::Delete | ChangeKind::Leave => {
                assert_eq!(change.data, None);
                documents.remove(&*change.id);
            }
            _ => {
                documents.insert(change.id.to_string(), change.data.expect("it is there"));
            }
        }
    }

    proptest! {
        #[test]
        fn merged_changes_lead_where_all_of_them_lead(
            steps in prop::collection::vec((0_u8..4, prop::option::weighted(0.7, any::<bool>()), 0_u8..6), 0..120),
        ) {
            let frontier = |xmax| Frontier::new(xmax, Vec::new()).expect("no transaction runs");
            let batch = Arc::new(Batch::new([0; 8], frontier(1), frontier(2)).expect("a short cursor"));
            let mut states: BTreeMap<u8, State> = BTreeMap::new();
            let mut waiting = Conflated::default();
            let mut reader = BTreeMap::new();
            let (mut seq, mut total, mut given, mut merged, mut newest) = (0_i64, 0, 0, 0, 0);
            for (id, matches, takes) in steps {
                seq += 1;
                let is = matches.map(|matches| (matches, u32::try_from(seq).expect("it is small")));
                let was = states.insert(id, is).flatten();
                if let Some(queued) = change(&batch, seq, id, was, is) {
                    total += 1;
                    match waiting.remove(&queued.record.id) {
                        None => waiting.push(queued),
                        Some(earlier) => match earlier.followed_by(queued) {
                            Some(both) => {
                                merged += 1;
                                waiting.push(both);
                            }
                            None => merged += 2,
                        },
                    }
                    prop_assert!(waiting.len() <= 4 && waiting.places.len() == waiting.len());
                }
                // The reader takes some now and then: a cut at any place.
                for _ in 0..takes.saturating_sub(3) {
                    let Some(queued) = waiting.pop() else { break };
                    prop_assert!(queued.record.seq > newest, "cursors go forward");
                    newest = queued.record.seq;
                    given += 1;
                    apply(&mut reader, &queued);
                }
            }
            while let Some(queued) = waiting.pop() {
                given += 1;
                apply(&mut reader, &queued);
            }
            let expected: BTreeMap<String, Json> = states
                .iter()
                .filter(|(_, state)| state.is_some_and(|(matches, _)| matches))
                .filter_map(|(id, state)| Some((id.to_string(), json(*state)?)))
                .collect();
            prop_assert_eq!(reader, expected);
            prop_assert_eq!(given + merged, total, "each change is given out or counted");
        }
    }
}
