//! What a table had at every moment, kept beside it in memory.

use std::collections::BTreeMap;

use serde_json::{Value, json};

/// A document as the oracle has it: when it was inserted, its version, its data.
pub(crate) type Row = (usize, i64, Value);

/// The documents of one moment.
pub(crate) type Rows = BTreeMap<String, Row>;

/// A write: the document it leaves, or none.
pub(crate) type Write = (String, Option<Row>);

/// A transaction that was committed: at which step it wrote last, and what.
type Committed = (usize, Vec<Write>);

/// The commits so far.
#[derive(Default)]
pub(crate) struct Oracle(Vec<Committed>);

impl Oracle {
    pub(crate) fn commit(&mut self, last_write: usize, writes: Vec<Write>) {
        self.0.push((last_write, writes));
    }

    fn rows<'a>(commits: impl Iterator<Item = &'a Committed>) -> Rows {
        let mut rows = Rows::new();
        for (id, row) in commits.flat_map(|(_, writes)| writes) {
            match row {
                Some(row) => rows.insert(id.clone(), row.clone()),
                None => rows.remove(id),
            };
        }
        rows
    }

    /// What is committed now.
    pub(crate) fn now(&self) -> Rows {
        Self::rows(self.0.iter())
    }

    /// What transactions left that wrote last before a step, whenever they committed. No two that were open together wrote
    /// the same document, so the order of the commits is right.
    pub(crate) fn written_before(&self, step: usize) -> Rows {
        Self::rows(self.0.iter().filter(|(last, _)| *last < step))
    }
}

/// An item of a query.
pub(crate) fn item(id: &str, row: &Row) -> Value {
    json!({"id": id, "data": row.2, "version": row.1})
}

/// The documents in the order in which they were inserted.
pub(crate) fn by_insertion(rows: &Rows) -> Vec<Value> {
    let mut sorted: Vec<_> = rows.iter().collect();
    sorted.sort_by_key(|(id, row)| (row.0, (*id).clone()));
    sorted.into_iter().map(|(id, row)| item(id, row)).collect()
}

/// The documents with `"even": true`, from the greatest `n` on, at most so many.
pub(crate) fn even_descending(rows: &Rows, limit: usize) -> Vec<Value> {
    let mut sorted: Vec<_> = rows.iter().filter(|(_, row)| row.2["even"] == true).collect();
    sorted.sort_by_key(|(id, row)| (row.2["n"].as_i64().unwrap(), (*id).clone()));
    sorted.into_iter().rev().take(limit).map(|(id, row)| item(id, row)).collect()
}
