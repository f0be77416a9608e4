//! What has to be: the documents that are committed, and those that each session sees.

use std::collections::{BTreeMap, BTreeSet};

/// The version of a document, and what it has.
pub(super) type Rows = BTreeMap<String, (i64, i64)>;

/// The last version that a document had, and since when it is deleted.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub(super) struct Last {
    pub(super) version: i64,
    /// Counted in commits.
    pub(super) deleted: Option<usize>,
}

/// The committed documents, and when each was last changed.
#[derive(Clone, Debug, Default)]
pub(super) struct Oracle {
    pub(super) now: usize,
    pub(super) rows: Rows,
    pub(super) last: BTreeMap<String, Last>,
    changed: BTreeMap<String, usize>,
    /// What was committed by then has been collected.
    pub(super) collected: usize,
    /// When something was collected last.
    pub(super) collected_at: usize,
}

/// What a session sees, and what it did.
#[derive(Clone, Debug)]
pub(super) struct View {
    begun: usize,
    pub(super) rows: Rows,
    pub(super) last: BTreeMap<String, Last>,
    pub(super) written: BTreeSet<String>,
}

impl Oracle {
    pub(super) fn view(&self) -> View {
        View { begun: self.now, rows: self.rows.clone(), last: self.last.clone(), written: BTreeSet::new() }
    }

    /// Whether others committed a change of a document that a session has not seen: then it cannot write over it.
    pub(super) fn is_in_the_way(&self, view: &View, id: &str) -> bool {
        !view.written.contains(id) && self.changed.get(id).is_some_and(|at| *at > view.begun)
    }

    /// What versions a document may get when it is set, by somebody who sees these.
    pub(super) fn next_versions(&self, rows: &Rows, last: &BTreeMap<String, Last>, id: &str) -> Vec<i64> {
        if let Some((version, _)) = rows.get(id) {
            return vec![version + 1];
        }
        match last.get(id) {
            None => vec![1],
            // What is left of it may have gone, when no session was in the way.
            Some(Last { deleted: Some(at), version }) if *at <= self.collected_at => vec![1, version + 1],
            Some(Last { version, .. }) => vec![version + 1],
        }
    }

    /// Does nothing for a transaction that changed nothing: it is not in the log either.
    pub(super) fn commit(&mut self, view: View) {
        self.now += usize::from(!view.written.is_empty());
        for id in view.written {
            match view.rows.get(&id) {
                Some(row) => self.rows.insert(id.clone(), *row),
                None => self.rows.remove(&id),
            };
            // An own delete was made when nobody knew when it would be committed.
            if let Some(last) = view.last.get(&id) {
                let deleted = last.deleted.map(|_| self.now);
                self.last.insert(id.clone(), Last { deleted, ..*last });
            }
            self.changed.insert(id, self.now);
        }
    }
}

impl View {
    pub(super) fn set(&mut self, id: &str, version: i64, n: i64) {
        self.rows.insert(id.to_owned(), (version, n));
        self.last.insert(id.to_owned(), Last { version, deleted: None });
        self.written.insert(id.to_owned());
    }

    pub(super) fn delete(&mut self, id: &str) {
        if let Some((version, _)) = self.rows.remove(id) {
            self.last.insert(id.to_owned(), Last { version: version + 1, deleted: Some(usize::MAX) });
            self.written.insert(id.to_owned());
        }
    }
}
