//! Indexes that an operator asks for: made and dropped beside the writes that go on, and listed.
//!
//! An index serves the statements that the daemon sends, so it is on the same expressions: `statements` and `search` have those.

mod build;
mod list;
mod remove;
mod stop;

use sha2::{Digest, Sha256};
use thiserror::Error;
use tokio_postgres::Client;

use super::StoreOptions;
use super::endpoint::Endpoint;
use super::error::{StartError, StoreError};
use super::migrate::migrate;
use super::search::{Fields, Language, SEARCH_FIELDS_MAX};
use super::session::{self, Access, Driven, whole_message};
use super::tables::NAMESPACE;
use super::types::TableName;

pub use build::{Created, create};
pub use list::{IndexInfo, IndexState, list};
pub use remove::drop;
pub use stop::Progress;

/// The most indexes of a table that are asked for: each makes every write of the table dearer.
pub const INDEXES_MAX: i64 = 16;

/// What the names of indexes on tables of documents begin with, and only theirs, since those of the tables themselves are made from
/// the names of columns.
const NAME_PREFIX: &str = "ix_";

/// How long the work on an index waits for a connection that is gone: after that it is not finished for nobody.
const CONNECTION_CHECK: &str = "1s";

/// The first key of the lock that says that somebody works on the indexes of a table: "rsix" as a number.
const LOCK_CLASS: i32 = i32::from_be_bytes(*b"rsix");

/// What an index is for.
#[derive(Debug, Clone, PartialEq, Eq)]
pub enum IndexKind {
    /// Filters: documents that contain something.
    Filter,
    /// The order by a path, from either end, and paging in it. JSON has an order of its own over all types: numbers by their
    /// value, texts by the rules of the database.
    Order(String),
    /// The text at a path, for statements of `table.exec` that compare `data->'address'->>'city'`. The steps are keys of objects.
    Text(String),
    /// No two documents have the same value at a path. Those without a value there, or with null, are not compared.
    Unique(String),
    /// Search for words, in the fields or in all of the document.
    Search(Fields, Language),
}

impl IndexKind {
    /// The order by a path.
    ///
    /// # Errors
    /// [`StoreError::InvalidInput`] when it is none.
    pub fn order(path: &str) -> Result<Self, StoreError> {
        Self::on_path(path).map(Self::Order)
    }

    /// The text at a path.
    ///
    /// # Errors
    /// As [`IndexKind::order`].
    pub fn text(path: &str) -> Result<Self, StoreError> {
        Self::on_path(path).map(Self::Text)
    }

    /// A value of which each document has its own.
    ///
    /// # Errors
    /// As [`IndexKind::order`].
    pub fn unique(path: &str) -> Result<Self, StoreError> {
        Self::on_path(path).map(Self::Unique)
    }

    /// Search in fields; in all of the document when there are none.
    ///
    /// # Errors
    /// [`StoreError::InvalidInput`] when a path is none, or there are too many.
    pub fn search<T: AsRef<str>>(fields: &[T], language: Language) -> Result<Self, StoreError> {
        Ok(Self::Search(Fields::parse(fields, SEARCH_FIELDS_MAX)?, language))
    }

    fn on_path(path: &str) -> Result<String, StoreError> {
        if path == "id" {
            return Err(StoreError::invalid("documents have an index by `id` already"));
        }
        super::types::steps(path).map(|_| path.to_owned())
    }

    /// What it is called in lists: `filter`, `order`, `text`, `unique` or `search`.
    pub fn name(&self) -> &'static str {
        match self {
            Self::Filter => "filter",
            Self::Order(_) => "order",
            Self::Text(_) => "text",
            Self::Unique(_) => "unique",
            Self::Search(..) => "search",
        }
    }

    /// The paths that it is on.
    pub fn paths(&self) -> Vec<String> {
        match self {
            Self::Filter => Vec::new(),
            Self::Order(path) | Self::Text(path) | Self::Unique(path) => vec![path.clone()],
            Self::Search(fields, _) => fields.as_texts().to_vec(),
        }
    }

    /// The language of a search.
    pub fn language(&self) -> Option<Language> {
        match self {
            Self::Search(_, language) => Some(*language),
            _ => None,
        }
    }

    /// The name of the index on a physical table: the same for the same index, and never longer than Postgres takes.
    fn index_name(&self, ptr: &str) -> String {
        let mut hasher = Sha256::new();
        let language = self.language().map_or("", Language::as_str);
        for part in [ptr, self.name(), language].into_iter().map(str::to_owned).chain(self.paths()) {
            hasher.update(u64::try_from(part.len()).unwrap_or(u64::MAX).to_be_bytes());
            hasher.update(&part);
        }
        let hash: [u8; 32] = hasher.finalize().into();
        let hex: String = hash.iter().take(8).map(|byte| format!("{byte:02x}")).collect();
        format!("{NAME_PREFIX}{}_{hex}", self.name())
    }
}

/// Whether an index of the name, if a value is in it twice, is one that somebody asked for: here, or in a schema, where names begin with
/// that of the table. The one of the ids is not.
pub(super) fn is_of_values(name: &str) -> bool {
    name.starts_with(NAME_PREFIX) || name.starts_with("tbl_") && !name.ends_with("_pkey")
}

/// Why there is no index, or still one.
#[derive(Debug, Error)]
pub enum IndexError {
    /// The database cannot be used.
    #[error(transparent)]
    Start(#[from] StartError),
    /// There is no such table.
    #[error("there is no table `{0}`")]
    NoTable(String),
    /// There is no such index.
    #[error("there is no index `{0}`: `raystream index list` shows them")]
    NoIndex(String),
    /// Somebody else made the table, and its documents are its rows.
    #[error(
        "`{0}` is attached: it is searched through by its own columns, so make the index on those, with SQL"
    )]
    Attached(String),
    /// There are enough.
    #[error(
        "`{0}` has {INDEXES_MAX} indexes already, each of which makes every write dearer: drop one first"
    )]
    TooMany(String),
    /// Somebody else is at it.
    #[error("somebody else works on the indexes of `{0}` now")]
    Busy(String),
    /// Two documents have the same value. With Postgres' own words about which.
    #[error("documents of the table have the same value there, so it cannot be unique: {0}")]
    Duplicates(String),
    /// A value is too long for an index.
    #[error(
        "a document of the table has a value there that is longer than an index can hold, about 2,700 bytes"
    )]
    TooLong,
    /// It was asked to stop. Nothing is left of the index.
    #[error("stopped: nothing is left of the index")]
    Stopped,
    /// It was asked to stop before it dropped the index.
    #[error("stopped: the index `{0}` is there as before")]
    Kept(String),
    /// What was begun could not be taken away again.
    #[error(
        "{reason}; what was begun is left ({left}) and slows writes: remove it with `raystream index drop {name}`"
    )]
    Left {
        /// The index.
        name: String,
        /// Why it was given up.
        reason: String,
        /// Why it is left, in Postgres' own words.
        left: String,
    },
    /// Postgres refused it. For the operator: it has Postgres' own words.
    #[error("Postgres refused it: {0}")]
    Refused(String),
}

fn refused(error: tokio_postgres::Error) -> IndexError {
    IndexError::Refused(whole_message(&error))
}

/// A session of the schema's own version that works on indexes: for as long as it takes, and as long as somebody waits for it.
async fn open(endpoint: &Endpoint) -> Result<Driven, IndexError> {
    let mut client = open_to_look(endpoint, Access::Setup).await?;
    migrate(&mut client).await?;
    // Building waits for the transactions of others, however long those last: whoever waits sees it, and can stop.
    client.batch_execute("SET lock_timeout = 0; SET statement_timeout = 0").await.map_err(refused)?;
    let check = format!("SET client_connection_check_interval = '{CONNECTION_CHECK}'");
    if let Err(error) = client.batch_execute(&check).await {
        tracing::debug!(%error, "this Postgres does not notice when a client is gone");
    }
    Ok(client)
}

async fn open_to_look(endpoint: &Endpoint, access: Access) -> Result<Driven, IndexError> {
    let mut options = StoreOptions::new(endpoint.clone());
    // Nothing is promised here that a crash could break.
    options.unsafe_durability = true;
    Ok(session::open(&options, access).await?.driven())
}

/// The physical table of a name, in the schema `raystream`.
async fn physical(client: &Client, table: &TableName) -> Result<String, IndexError> {
    let sql = "SELECT ptr, attached IS NOT NULL FROM raystream.storage WHERE owner = $1 AND name = $2";
    let row = client.query_opt(sql, &[&NAMESPACE, &table.as_str()]).await.map_err(refused)?;
    let row = row.ok_or_else(|| IndexError::NoTable(table.to_string()))?;
    match row.try_get(1).map_err(refused)? {
        true => Err(IndexError::Attached(table.to_string())),
        false => row.try_get(0).map_err(refused),
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn each_index_has_a_name_of_its_own_that_does_not_change() {
        let search = |fields: &[&str], language: &str| {
            IndexKind::search(fields, Language::parse(language).expect("known")).expect("valid")
        };
        let kinds = [
            IndexKind::Filter,
            IndexKind::order("a.b").expect("valid"),
            IndexKind::order("a\"; DROP").expect("valid"),
            IndexKind::unique("a.b").expect("valid"),
            IndexKind::text("a.b").expect("valid"),
            search(&[], "english"),
            search(&[], "german"),
            search(&["a", "b"], "english"),
            search(&["a.b"], "english"),
        ];
        let names: std::collections::HashSet<String> =
            kinds.iter().flat_map(|kind| ["tbl_1", "tbl_2"].map(|ptr| kind.index_name(ptr))).collect();
        assert_eq!(names.len(), 2 * kinds.len());
        for name in &names {
            assert!(is_of_values(name) && name.len() < 63, "{name}");
            assert!(name.bytes().all(|byte| byte.is_ascii_alphanumeric() || byte == b'_'), "{name}");
        }
        assert!(is_of_values("tbl_0123456789abcdef_emails") && !is_of_values("tbl_0123456789abcdef_pkey"));
        assert_eq!(search(&["b", "a", "b"], "english"), search(&["a", "b"], "english"));
        assert_eq!(kinds[1].index_name("tbl_1"), "ix_order_07898321f4b8beac");
    }

    #[test]
    fn what_is_no_path_is_refused() {
        for path in ["", "a..b", ".", "a\n", "id", &"x".repeat(257)] {
            assert!(IndexKind::order(path).is_err() && IndexKind::unique(path).is_err(), "{path}");
        }
        assert!(IndexKind::search(&["a", ""], Language::default()).is_err());
        let many: Vec<String> = (0..=SEARCH_FIELDS_MAX).map(|n| format!("f{n}")).collect();
        assert!(IndexKind::search(&many, Language::default()).is_err());
    }
}
