//! Filters of subscriptions: does a document contain the filter, as Postgres' `@>` on jsonb has it.
//!
//! Filter and documents are read from the text that Postgres writes for jsonb. The filter went through Postgres once, at
//! the subscription, so whatever is in it (doubled keys, escapes, numbers too large for it) was judged there.

mod contains;
mod number;
mod tree;

use std::cell::OnceCell;

use super::change::{ChangeKind, Op, Record};
use crate::store::{Json, StoreError};
use tree::Tree;

/// The longest filter, in bytes of JSON text.
pub const FILTER_LEN_MAX: usize = 16 * 1024;

/// The most values (and keys) in a filter. The work of a match is at most this times the values of the document, and it
/// is done for every change of the table.
pub const FILTER_VALUES_MAX: usize = 256;

/// The deepest nesting of a filter: matching recurses as deep.
pub const FILTER_DEPTH_MAX: usize = 64;

/// A filter, ready to match.
#[derive(Debug)]
pub(super) struct Filter {
    json: Json,
    tree: Tree,
}

impl Filter {
    /// Takes a filter in the form that Postgres gave it.
    ///
    /// # Errors
    /// [`StoreError::InvalidInput`] when it is beyond a limit.
    pub(super) fn new(json: Json) -> Result<Self, StoreError> {
        if json.as_bytes().len() > FILTER_LEN_MAX {
            return Err(StoreError::invalid(format!("the filter is longer than {FILTER_LEN_MAX} bytes")));
        }
        let text = std::str::from_utf8(json.as_bytes()).map_err(|_| StoreError::Internal)?;
        let tree = Tree::parse(text).ok_or(StoreError::Internal)?;
        if tree.len() > FILTER_VALUES_MAX {
            return Err(StoreError::invalid(format!("the filter has more than {FILTER_VALUES_MAX} values")));
        }
        if tree.depth() > FILTER_DEPTH_MAX {
            return Err(StoreError::invalid(format!(
                "the filter is nested deeper than {FILTER_DEPTH_MAX} levels"
            )));
        }
        Ok(Self { json, tree })
    }

    /// The filter as JSON, for Postgres.
    pub(super) fn json(&self) -> &Json {
        &self.json
    }

    /// What a change is to a subscription with this filter; `None` when it does not see it.
    pub(super) fn judge(&self, images: &Images<'_>) -> Option<ChangeKind> {
        match images.record.op {
            Op::Insert => self.matches(images.after()).then_some(ChangeKind::Insert),
            Op::Delete => self.matches(images.before()).then_some(ChangeKind::Delete),
            Op::Publish => self.matches(images.after()).then_some(ChangeKind::Publish),
            Op::Update => match (self.matches(images.before()), self.matches(images.after())) {
                (true, true) => Some(ChangeKind::Update),
                (false, true) => Some(ChangeKind::Enter),
                (true, false) => Some(ChangeKind::Leave),
                (false, false) => None,
            },
        }
    }

    fn matches(&self, image: Option<(&str, &Tree)>) -> bool {
        let Ok(text) = std::str::from_utf8(self.json.as_bytes()) else { return false };
        image.is_some_and(|image| contains::contains(image, (text, &self.tree)))
    }
}

/// What a change is to a subscription without a filter.
pub(super) fn judge_unfiltered(op: Op) -> ChangeKind {
    match op {
        Op::Insert => ChangeKind::Insert,
        Op::Update => ChangeKind::Update,
        Op::Delete => ChangeKind::Delete,
        Op::Publish => ChangeKind::Publish,
    }
}

/// The images of one change, each parsed when a filter first asks for it and never twice.
#[derive(Debug)]
pub(super) struct Images<'a> {
    record: &'a Record,
    before: OnceCell<Option<(&'a str, Tree)>>,
    after: OnceCell<Option<(&'a str, Tree)>>,
}

impl<'a> Images<'a> {
    pub(super) fn new(record: &'a Record) -> Self {
        Self { record, before: OnceCell::new(), after: OnceCell::new() }
    }

    fn before(&self) -> Option<(&str, &Tree)> {
        let parsed = self.before.get_or_init(|| parse(self.record.before.as_ref()));
        parsed.as_ref().map(|(text, tree)| (*text, tree))
    }

    fn after(&self) -> Option<(&str, &Tree)> {
        let parsed = self.after.get_or_init(|| parse(self.record.after.as_ref()));
        parsed.as_ref().map(|(text, tree)| (*text, tree))
    }
}

fn parse(image: Option<&Json>) -> Option<(&str, Tree)> {
    let text = std::str::from_utf8(image?.as_bytes()).ok()?;
    let tree = Tree::parse(text);
    if tree.is_none() {
        tracing::error!("a document in the change log is not JSON: no filter matches it");
    }
    Some((text, tree?))
}

/// Whether one JSON text contains another, as `document::jsonb @> filter::jsonb`. `None` when one is not JSON.
///
/// Both are taken as Postgres writes them: keys of an object are not doubled.
#[doc(hidden)]
pub fn json_contains(document: &str, filter: &str) -> Option<bool> {
    Some(contains::contains((document, &Tree::parse(document)?), (filter, &Tree::parse(filter)?)))
}
