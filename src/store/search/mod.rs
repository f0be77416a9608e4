//! Full-text search over the documents of a table: the best ones first, with counts of the values they have.

mod language;
mod sql;

use std::collections::BTreeSet;
use std::time::Duration;

use sha2::{Digest, Sha256};

pub use language::Language;
pub(super) use sql::{SearchShape, search_sql, vector};

use super::feed::{At, Moment};
use super::page_cursor::{PageCursor, Paged, Place};
use super::query::place_params;
use super::statements::{Operation, Param};
use super::tables::{Arguments, column};
use super::types::steps;
use super::{Document, DocumentId, Json, Store, StoreError, TableName};

/// How many documents a page has when the search does not say.
pub const SEARCH_LIMIT_DEFAULT: u32 = 20;

/// The most documents of one page: somebody reads it, and each excerpt has the whole text of a document looked through.
pub const SEARCH_LIMIT_MAX: u32 = 100;

/// The longest text to search for, in bytes: a person writes it.
pub const SEARCH_TEXT_LEN_MAX: usize = 2_048;

/// The most documents that are ranked and counted: each is opened and its words are weighed, which takes about half a second for so
/// many short ones.
pub const SEARCH_FOUND_MAX: u32 = 5_000;

/// How many bytes of documents a page may have: with excerpts and counts it is less than a message.
pub const SEARCH_PAGE_LEN_MAX: usize = 512 * 1024;

/// The longest time of a search: one that takes longer needs an index, and keeps others waiting.
pub const SEARCH_TIME_MAX: Duration = Duration::from_secs(10);

/// The most fields that a search can be limited to: each is looked for in each document.
pub const SEARCH_FIELDS_MAX: usize = 16;

/// The most paths whose values are counted: each is looked for in each document that was found.
pub const FACETS_MAX: usize = 8;

/// The most values of one path: those that most documents have.
pub const FACET_VALUES_MAX: u32 = 20;

/// The longest value that is counted, in bytes of JSON: a longer one is a text and no category.
pub const FACET_VALUE_LEN_MAX: u32 = 256;

/// The most elements of an array that are counted: a longer one is no list of categories.
const FACET_ELEMENTS_MAX: u32 = 100;

/// The longest excerpt, in characters: two parts of thirty words, of about eight characters each.
const HIGHLIGHT_LEN_MAX: u32 = 500;

/// Paths into a document, each once and in a fixed order: so those of an index and of a search are the same whatever the order in
/// which they were named.
#[derive(Debug, Clone, PartialEq, Eq, Default)]
pub struct Fields(Vec<String>);

impl Fields {
    /// Checks the paths: steps with a dot between them, as for an order.
    ///
    /// # Errors
    /// [`StoreError::InvalidInput`] when one has an empty step or is too long, or there are more than `max`.
    pub fn parse<T: AsRef<str>>(paths: &[T], max: usize) -> Result<Self, StoreError> {
        let mut all = BTreeSet::new();
        for path in paths {
            steps(path.as_ref())?;
            all.insert(path.as_ref().to_owned());
        }
        if all.len() > max {
            return Err(StoreError::invalid(format!("there may be {max} paths")));
        }
        Ok(Self(all.into_iter().collect()))
    }

    /// The paths, with dots.
    pub fn as_texts(&self) -> &[String] {
        &self.0
    }

    /// Whether there are none.
    pub fn is_empty(&self) -> bool {
        self.0.is_empty()
    }
}

/// What is searched for.
#[derive(Debug, Clone, PartialEq, Eq, Default)]
pub struct Search {
    /// The words, as one types them into a search engine: `"in this order"`, `or`, `-without`. Every text means something.
    pub text: String,
    /// Their language.
    pub language: Language,
    /// Only in the texts and numbers at these paths; empty: in all of the document.
    pub fields: Fields,
    /// Only documents that contain this (Postgres `@>`); absent, all.
    pub filter: Option<Json>,
    /// The most documents of the page, 1 to [`SEARCH_LIMIT_MAX`]; absent, [`SEARCH_LIMIT_DEFAULT`].
    pub limit: Option<u32>,
    /// The `next` of the page before.
    pub after: Option<String>,
    /// The paths whose values are to be counted.
    pub facets: Fields,
    /// Whether excerpts are wanted.
    pub highlight: bool,
    /// The documents as they were at this moment; absent, as they are.
    pub at: Option<Moment>,
}

impl Search {
    /// A search for words, with the defaults.
    pub fn of(text: impl Into<String>) -> Self {
        Self { text: text.into(), ..Self::default() }
    }

    /// What decides, besides table, filter and moment, which documents are found, and their ranks.
    pub(super) fn hash(&self) -> SearchHash {
        let mut hasher = Sha256::new();
        let texts = [self.text.as_str(), self.language.as_str()];
        for text in texts.into_iter().chain(self.fields.as_texts().iter().map(String::as_str)) {
            hasher.update(u64::try_from(text.len()).unwrap_or(u64::MAX).to_be_bytes());
            hasher.update(text);
        }
        hasher.finalize().into()
    }
}

/// A search as a hash.
pub(super) type SearchHash = [u8; 32];

/// A document that was found.
#[derive(Debug, Clone, PartialEq)]
pub struct Found {
    /// It.
    pub document: Document,
    /// How well it fits, from 0 on: by how often and how near to each other the words stand, and how long the text is.
    pub rank: f32,
    /// Parts of its text: every second one, from the second on, is what was searched for. Absent unless asked for.
    pub highlight: Option<Vec<String>>,
}

/// Documents that were found.
#[derive(Debug, Clone, PartialEq)]
pub struct SearchPage {
    /// The documents, the best first; those of the same rank by id.
    pub items: Vec<Found>,
    /// Where the next page starts; absent on the last one.
    pub next: Option<String>,
    /// How many documents fit, at most [`SEARCH_FOUND_MAX`].
    pub total: u32,
    /// Whether all that fit were ranked and counted. When there are more than [`SEARCH_FOUND_MAX`], some of them were.
    pub is_complete: bool,
    /// For each path a list of `{value, count}`, as one JSON object. Absent unless asked for.
    pub facets: Option<Json>,
}

impl Store {
    /// One page of the documents in which the words stand, the best first. Without an index every document is looked at.
    ///
    /// # Errors
    /// [`StoreError::InvalidInput`] when the text is too long, or limit or cursor are not valid for it; [`StoreError::NotFound`] when
    /// there is no such table; [`StoreError::Reset`] when the moment is no longer kept; [`StoreError::Timeout`] after
    /// [`SEARCH_TIME_MAX`].
    pub async fn search(&self, table: &TableName, search: Search) -> Result<SearchPage, StoreError> {
        let limit = search.limit.unwrap_or(SEARCH_LIMIT_DEFAULT);
        if limit == 0 || limit > SEARCH_LIMIT_MAX {
            return Err(StoreError::invalid(format!("a limit is 1 to {SEARCH_LIMIT_MAX}")));
        }
        if search.text.len() > SEARCH_TEXT_LEN_MAX {
            return Err(StoreError::invalid(format!("a search has {SEARCH_TEXT_LEN_MAX} bytes at most")));
        }
        if let Some(filter) = &search.filter {
            filter.check()?;
        }
        let hash = search.hash();
        let paged = Paged::of_search(table, &search, &hash);
        let after = self.place(search.after.as_deref(), &paged, search.at.as_ref())?;
        let shape = SearchShape {
            past: search.at.as_ref().map(Moment::past),
            language: search.language,
            filter: search.filter.is_some(),
            after: after.is_some(),
            facets: !search.facets.is_empty(),
            highlight: search.highlight,
        };
        let arguments = || arguments(&search, after.as_ref(), limit);
        let bounded = Self(self.0.clone(), self.1.clone().within(SEARCH_TIME_MAX));
        let rows = bounded.on_table(table, Operation::Search(shape), arguments).await?;
        self.still_kept(search.at.as_ref()).await?;

        let summary = rows.first().ok_or(StoreError::Internal)?;
        let found: i64 = column(summary, 0)?;
        let found = u32::try_from(found).map_err(|_| StoreError::Internal)?;
        let facets: Option<Json> = column(summary, 1)?;
        let (mut items, mut next) = (Vec::new(), None);
        let page_len = rows.len().min(usize::try_from(limit).unwrap_or(usize::MAX));
        for (place, row) in rows.iter().take(page_len).enumerate() {
            let Some(id) = column::<Option<String>>(row, 2)? else { break };
            let (rank, matches) = (column(row, 5)?, column::<i64>(row, 6)?);
            if place + 1 == page_len && usize::try_from(matches).is_ok_and(|matches| matches > page_len) {
                let place = Place::Ranked { rank: f32::to_bits(rank), id: id.clone() };
                next = Some(PageCursor::new(place, search.at.as_ref()).encode(&self.0.page_key, &paged)?);
            }
            let excerpt: Option<String> = column(row, 7)?;
            items.push(Found {
                document: Document {
                    id: DocumentId::stored(id),
                    data: column(row, 3)?,
                    version: column(row, 4)?,
                },
                rank,
                highlight: excerpt.map(|text| text.split(sql::MARKS).map(str::to_owned).collect()),
            });
        }
        let total = found.min(SEARCH_FOUND_MAX);
        Ok(SearchPage { items, next, total, is_complete: found <= SEARCH_FOUND_MAX, facets })
    }

    /// The moment of a search: as [`Store::moment_of_page`] for a query.
    ///
    /// # Errors
    /// Those of [`Store::moment_of_page`].
    pub async fn moment_of_search(
        &self,
        table: &TableName,
        search: &Search,
        at: Option<&At>,
    ) -> Result<Option<Moment>, StoreError> {
        let hash = search.hash();
        self.moment_behind(search.after.as_deref(), &Paged::of_search(table, search, &hash), at).await
    }
}

/// The parameters, in the order in which the statement has them.
fn arguments<'a>(search: &Search, after: Option<&Place>, limit: u32) -> Arguments<'a> {
    let mut params: Vec<Param> = search.at.as_ref().map_or_else(Vec::new, Moment::params);
    params.push(Box::new(search.fields.as_texts().to_vec()));
    // No word has it, and Postgres takes no text with it.
    params.push(Box::new(search.text.replace('\0', " ")));
    let mut len = search.text.len();
    if let Some(filter) = &search.filter {
        len += filter.as_bytes().len();
        params.push(Box::new(filter.clone()));
    }
    params.extend(after.map(place_params).unwrap_or_default());
    // One more than the page has, to know whether there is more.
    params.push(Box::new(i64::from(limit) + 1));
    if !search.facets.is_empty() {
        params.push(Box::new(search.facets.as_texts().to_vec()));
    }
    Arguments { params, len, document: None }
}
