//! What is wrong with a schema, a lock file or a migration. For whoever runs the command: it names the place.

use thiserror::Error;

/// Why there is no plan.
#[derive(Debug, Clone, PartialEq, Eq, Error)]
pub enum MigrationFault {
    /// A name that is none.
    #[error(
        "`{name}` cannot be the name of a {what}: 1 to {longest} letters, digits and underscores, and no digit first"
    )]
    Name {
        /// What it should name.
        what: &'static str,
        /// The name.
        name: String,
        /// How long it may be, in bytes.
        longest: usize,
    },
    /// A type that is none.
    #[error(
        "`{0}` is no type of a field: string, number, boolean, bigint, Date, Uint8Array and json are, and each of them \
         with [] behind it"
    )]
    UnknownType(String),
    /// Permissions that are none, or that nothing here could keep.
    #[error("`{0}` are no permissions: RWX, RW_, R_X or R__ (or 7, 6, 5, 4)")]
    Permissions(String),
    /// The schema file.
    #[error("{file}: {message}")]
    SchemaFile {
        /// Its name.
        file: &'static str,
        /// What is wrong, with the line where that is known.
        message: String,
    },
    /// The lock file.
    #[error("{file}: {message}")]
    LockFile {
        /// Its name.
        file: &'static str,
        /// What is wrong.
        message: String,
    },
    /// A file of a migration that cannot be read as one.
    #[error("{file}: {message}")]
    File {
        /// Its name.
        file: String,
        /// What is wrong.
        message: String,
    },
    /// A file that was applied or locked is not the same any more.
    #[error(
        "{file} was edited after it was {when}: its SHA-256 is {found}, recorded is {recorded}. Put it back, and write what is to \
         be different as a new migration"
    )]
    Edited {
        /// Its name.
        file: String,
        /// Since when it may not change.
        when: &'static str,
        /// The hash of the file, as hex.
        found: String,
        /// The one that was recorded.
        recorded: String,
    },
    /// A file that was applied or locked is not there.
    #[error("{file} is missing: it belongs to the history")]
    FileMissing {
        /// Its name.
        file: String,
    },
    /// A file with a number that is not the next one.
    #[error("{file} has the number {found}, and the next one is {next}: {reason}")]
    FileNumber {
        /// Its name.
        file: String,
        /// Its number.
        found: u32,
        /// The next one.
        next: u32,
        /// What to make of it.
        reason: &'static str,
    },
    /// A change that does not fit the tables it is to change.
    #[error("migration {version} ({name}): {message}")]
    Change {
        /// Its version.
        version: u32,
        /// Its name.
        name: String,
        /// What does not fit.
        message: String,
    },
    /// The database has another migration under a number.
    #[error(
        "the database has {applied} as migration {version}, and here that is {here}: these are two histories. Get the lock file and \
         the migrations that belong to this database"
    )]
    Diverged {
        /// The number.
        version: u32,
        /// The name there.
        applied: String,
        /// The name here.
        here: String,
    },
    /// The database has a reviewed migration that is not here.
    #[error("the database has migration {version} ({name}), which is not here: get the newest files")]
    Ahead {
        /// The number.
        version: u32,
        /// The name.
        name: String,
    },
    /// Changes that need a file.
    #[error("these changes can lose something, so they are made by a file that you have read: {0}")]
    Dangerous(String),
    /// Only what is locked was to be applied.
    #[error("the lock file is not complete: {0}")]
    NotLocked(String),
}
