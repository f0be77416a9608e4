//! What can go wrong in the store, in two kinds: [`StoreError`] may be shown to a peer, [`StartError`] is for the
//! operator who starts the daemon.

use std::time::Duration;

use thiserror::Error;

use super::json_schema::Misfits;

/// Why an operation on the store did not give its result. Nothing in it comes from Postgres: no text of a statement, no
/// DETAIL, no value of a document, so it can be shown to a peer as it is.
#[derive(Debug, Clone, PartialEq, Eq, Error)]
pub enum StoreError {
    /// No such table, or no such document where one is needed.
    #[error("not found")]
    NotFound,
    /// The version is not the expected one, or another writer holds the document. Nothing was written.
    #[error("another write came first")]
    Conflict,
    /// There is one already.
    #[error("it exists already")]
    AlreadyExists,
    /// Another document has a value that each document has for itself. Nothing was written.
    #[error("another document has the value")]
    Taken,
    /// The arguments are not what the operation takes. The text is our own.
    #[error("{0}")]
    InvalidInput(String),
    /// The moment that was asked for is no longer kept, or is of another database. The text is our own.
    #[error("{0}")]
    Reset(&'static str),
    /// The document does not fit the schema of its table.
    #[error("{0}")]
    Misfit(Box<Misfits>),
    /// The schema of the table changes faster than documents can be checked. Nothing was written.
    #[error("the schema of the table was changed meanwhile")]
    SchemaChanged,
    /// The document is longer than [`DOCUMENT_LEN_MAX`](super::DOCUMENT_LEN_MAX).
    #[error("the document is too large")]
    TooLarge,
    /// The database cannot take the statement now. It was not run.
    #[error("the database is not available")]
    Unavailable {
        /// How long the caller does well to wait.
        retry_after: Duration,
    },
    /// The caller has as many under way as one may have. It was not run. The text is our own.
    #[error("{0}")]
    Busy(&'static str),
    /// The time was over. What had begun was stopped; a write may have been done before that.
    #[error("the time was over")]
    Timeout,
    /// The caller gave up. What had begun was stopped; a write may have been done before that.
    #[error("cancelled")]
    Cancelled,
    /// The connection broke after a write was sent: it was done or it was not.
    #[error("the connection to the database broke: the write may or may not have happened")]
    UnknownOutcome,
    /// A fault of ours or of the database; the log has it.
    #[error("internal error")]
    Internal,
}

impl StoreError {
    /// An [`StoreError::InvalidInput`] with a message of our own.
    pub fn invalid(message: impl Into<String>) -> Self {
        Self::InvalidInput(message.into())
    }
}

/// Why the store did not start. For the operator: it names settings and what Postgres said.
#[derive(Debug, Error)]
pub enum StartError {
    /// Postgres was not reached, or did not let us in.
    #[error("Postgres cannot be reached: {0}")]
    Unreachable(String),
    /// The server is older than the features that the store is built on.
    #[error("this is Postgres {found}; raystream needs {least} or newer")]
    TooOld {
        /// `server_version` of the server.
        found: String,
        /// The least major version.
        least: u32,
    },
    /// JSON is Unicode: a database in another encoding cannot hold all of it.
    #[error("the database has the encoding {found}; raystream needs UTF8")]
    NotUtf8 {
        /// `server_encoding`.
        found: String,
    },
    /// A committed write could be lost, so no write could be acknowledged.
    #[error(
        "Postgres runs with {setting} = {value}: it acknowledges writes that a crash can lose. Set it to `on`, or allow \
         it with the option unsafe_durability"
    )]
    NotDurable {
        /// The setting at fault.
        setting: &'static str,
        /// Its value.
        value: String,
    },
    /// A standby takes no writes, and its snapshots do not order them.
    #[error(
        "this Postgres is a standby, which takes no writes: give the address of the primary, or of all with \
         target_session_attrs=read-write"
    )]
    Standby,
    /// Between us and Postgres is something that gives our sessions changing processes.
    #[error(
        "this address is a connection pooler in transaction mode: settings, prepared statements, LISTEN and cancel requests, \
         which raystream is built on, do not work through it. Give the address of Postgres itself, or a database of the \
         pooler with pool_mode = session. raystream is a pooler of its own: it keeps a few connections for all its clients"
    )]
    Pooler,
    /// The schema in the database and this program do not fit together.
    #[error(transparent)]
    Migration(#[from] MigrationError),
    /// A statement that the start needs failed.
    #[error("Postgres refused a statement of the start: {0}")]
    Refused(String),
}

/// Why the schema was left as it is.
#[derive(Debug, Error)]
pub enum MigrationError {
    /// The database was migrated by a newer program.
    #[error("the database has migration {found}, and this program knows only {known}: use a newer raystream")]
    Newer {
        /// The highest number in the database.
        found: i32,
        /// The highest number this program has.
        known: i32,
    },
    /// A migration that was applied is not the one that this program has under that number.
    #[error("migration {number} ({name}) in the database differs from the one of this program")]
    Changed {
        /// Its number.
        number: i32,
        /// Its name.
        name: String,
    },
    /// The database lacks a migration below the highest that was applied.
    #[error("migration {number} is missing in the database although a later one was applied")]
    Missing {
        /// Its number.
        number: i32,
    },
    /// A migration failed and was rolled back.
    #[error("migration {number} ({name}) failed and was rolled back: {message}")]
    Failed {
        /// Its number.
        number: i32,
        /// Its name.
        name: String,
        /// What Postgres said.
        message: String,
    },
}
