//! The words of the store: names, documents, and what is asked about them. All are checked when they are made.

use std::fmt;
use std::time::SystemTime;

use super::error::StoreError;
use super::feed::Moment;
use super::json::Json;

/// The longest document, in bytes of JSON text: the longest message (1 MiB) less room for its envelope, so that every
/// document that is stored can be sent. The tables' constraint `document_len` says the same to other writers.
pub const DOCUMENT_LEN_MAX: usize = 1024 * 1024 - 64 * 1024;

/// The deepest nesting of a document: those who parse it do so by recursion (`serde_json` stops at 128).
pub const DOCUMENT_DEPTH_MAX: usize = 100;

/// The longest name of a table, in bytes: that of a Postgres identifier.
pub const TABLE_NAME_LEN_MAX: usize = 63;

/// The longest id of a document, in bytes: it is in an index and in every change.
pub const DOCUMENT_ID_LEN_MAX: usize = 256;

/// How many documents a page has when the query does not say.
pub const QUERY_LIMIT_DEFAULT: u32 = 100;

/// The most documents of one page: it is built in memory.
pub const QUERY_LIMIT_MAX: u32 = 1_000;

/// How many bytes of documents a page may have: less than a message (1 MiB), with room for the envelope. One document
/// alone may be longer.
pub const QUERY_PAGE_LEN_MAX: usize = 768 * 1024;

/// The longest path to order by, in bytes: it is in every cursor.
pub const ORDER_PATH_LEN_MAX: usize = 256;

/// The logical name of a table: 1 to 63 bytes, `[A-Za-z_][A-Za-z0-9_]*`.
#[derive(Debug, Clone, PartialEq, Eq, Hash, PartialOrd, Ord)]
pub struct TableName(String);

impl TableName {
    /// Checks a name.
    ///
    /// # Errors
    /// [`StoreError::InvalidInput`] when it is not of the shape.
    pub fn parse(name: &str) -> Result<Self, StoreError> {
        let mut bytes = name.bytes();
        let first = bytes.next().is_some_and(|byte| byte.is_ascii_alphabetic() || byte == b'_');
        let rest = bytes.all(|byte| byte.is_ascii_alphanumeric() || byte == b'_');
        if name.len() > TABLE_NAME_LEN_MAX || !first || !rest {
            return Err(StoreError::invalid(
                "a table's name is 1 to 63 letters, digits and underscores, and starts with no digit",
            ));
        }
        Ok(Self(name.to_owned()))
    }

    /// The name.
    pub fn as_str(&self) -> &str {
        &self.0
    }
}

impl fmt::Display for TableName {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        f.write_str(&self.0)
    }
}

/// The id of a document: 1 to 256 bytes of UTF-8 without control characters.
#[derive(Debug, Clone, PartialEq, Eq, Hash, PartialOrd, Ord)]
pub struct DocumentId(String);

impl DocumentId {
    /// Checks an id.
    ///
    /// # Errors
    /// [`StoreError::InvalidInput`] when it is empty, too long or has a control character.
    pub fn parse(id: &str) -> Result<Self, StoreError> {
        if id.is_empty() || id.len() > DOCUMENT_ID_LEN_MAX || id.chars().any(char::is_control) {
            return Err(StoreError::invalid("an id is 1 to 256 bytes without control characters"));
        }
        Ok(Self(id.to_owned()))
    }

    /// An id that the database gave back: what another writer put there is not refused when it is read.
    pub(crate) fn stored(id: String) -> Self {
        Self(id)
    }

    /// The id.
    pub fn as_str(&self) -> &str {
        &self.0
    }

    /// The id, without a copy.
    pub fn into_string(self) -> String {
        self.0
    }
}

impl fmt::Display for DocumentId {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        f.write_str(&self.0)
    }
}

/// A live document.
#[derive(Debug, Clone, PartialEq, Eq)]
pub struct Document {
    /// Its id.
    pub id: DocumentId,
    /// Its JSON text, as Postgres writes jsonb.
    pub data: Json,
    /// 1 for a new document, and higher after each write of it.
    pub version: i64,
}

/// Who writes: recorded with the document and in the change log.
#[derive(Debug, Clone, Copy)]
pub struct Writer<'a> {
    /// The authenticated principal.
    pub principal: &'a str,
}

impl<'a> Writer<'a> {
    /// A writer by the name of its principal.
    pub fn new(principal: &'a str) -> Self {
        Self { principal }
    }
}

/// The order of a query's documents. Ties are decided by the id, so that every order is total.
#[derive(Debug, Clone, PartialEq, Eq, Default)]
pub enum Order {
    /// As they were first written (a document that was deleted and set again counts as new).
    #[default]
    Insertion,
    /// By id, byte by byte.
    Id {
        /// From the greatest on.
        descending: bool,
    },
    /// By a value inside the document, in the order of Postgres' jsonb: null (also where the path leads nowhere),
    /// strings, numbers, booleans, arrays, objects.
    Field {
        /// The steps: a key of an object or the position in an array.
        path: Vec<String>,
        /// From the greatest on.
        descending: bool,
    },
}

impl Order {
    /// Reads `field.path`, `-field.path` (descending), `id` or `-id`.
    ///
    /// # Errors
    /// [`StoreError::InvalidInput`] when a step is empty, or the path too long.
    pub fn parse(text: &str) -> Result<Self, StoreError> {
        let (descending, path) = match text.strip_prefix('-') {
            Some(path) => (true, path),
            None => (false, text),
        };
        if path == "id" {
            return Ok(Self::Id { descending });
        }
        let path = steps(path).map_err(|_| {
            StoreError::invalid(
                "an order is `id` or a path like `address.city` of 256 bytes at most, with `-` before it for descending",
            )
        })?;
        Ok(Self::Field { path, descending })
    }
}

/// The steps of a path into a document: keys of objects, or positions in arrays.
pub(super) fn steps(path: &str) -> Result<Vec<String>, StoreError> {
    let fits = path.len() <= ORDER_PATH_LEN_MAX && !path.chars().any(char::is_control);
    let steps: Vec<String> = path.split('.').map(str::to_owned).collect();
    if !fits || steps.iter().any(String::is_empty) {
        return Err(StoreError::invalid(
            "a path is steps with dots between them, like `address.city`, of 256 bytes at most",
        ));
    }
    Ok(steps)
}

/// What a query asks for.
#[derive(Debug, Clone, Default)]
pub struct Query {
    /// Only documents that contain this (Postgres `@>`); absent, all.
    pub filter: Option<Json>,
    /// Their order.
    pub order: Order,
    /// The most documents of the page, 1 to [`QUERY_LIMIT_MAX`]; absent, [`QUERY_LIMIT_DEFAULT`].
    pub limit: Option<u32>,
    /// The `next` of the page before.
    pub after: Option<String>,
    /// The documents as they were at this moment; absent, as they are.
    pub at: Option<Moment>,
}

/// Documents of a query. A document that exists from the first page to the last one is on exactly one of them, whatever
/// others write in the meantime (unless its own place in the order changes).
#[derive(Debug, Clone, PartialEq, Eq)]
pub struct Page {
    /// The documents, in order.
    pub items: Vec<Document>,
    /// Where the next page starts; absent on the last one.
    pub next: Option<String>,
}

/// A table, as the store lists it.
#[derive(Debug, Clone, PartialEq, Eq)]
pub struct TableInfo {
    /// The logical name.
    pub name: TableName,
    /// The physical table.
    pub ptr: TablePtr,
    /// When it was made, by the clock of the database.
    pub created_at: SystemTime,
}

/// The physical table behind a name.
#[derive(Debug, Clone, PartialEq, Eq, Hash)]
pub struct TablePtr {
    /// Its schema.
    pub schema: String,
    /// Its name in the schema; `raystream.changes.ptr` has this.
    pub table: String,
}

impl TablePtr {
    /// Both names.
    pub(super) fn new(schema: String, table: String) -> Self {
        Self { schema, table }
    }

    /// Both names, quoted for SQL.
    pub fn quoted(&self) -> String {
        format!("{}.{}", quote(&self.schema), quote(&self.table))
    }

    /// Its name in the change log, as a literal for SQL.
    pub(super) fn in_log(&self) -> String {
        format!("'{}'", self.table.replace('\'', "''"))
    }

    /// Whether it is the view of a table that was attached: `raystream.attach` names it so.
    pub(super) fn is_attached(&self) -> bool {
        self.schema == "raystream" && self.table.starts_with("att_")
    }
}

impl fmt::Display for TablePtr {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        write!(f, "{}.{}", self.schema, self.table)
    }
}

/// An identifier, quoted for SQL.
fn quote(identifier: &str) -> String {
    format!("\"{}\"", identifier.replace('"', "\"\""))
}
