//! What an error of Postgres means to a caller: the one place where a SQLSTATE becomes a [`StoreError`].

use std::time::Duration;

use tokio_postgres::error::{DbError, SqlState};

use super::error::StoreError;
use super::types::DOCUMENT_LEN_MAX;

/// How long a caller does well to wait when Postgres lacks memory, disk or connections: that does not pass in an instant.
const EXHAUSTED_RETRY_AFTER: Duration = Duration::from_secs(1);

/// The constraint of the tables that refuses documents which are too long.
const LENGTH_CONSTRAINT: &str = "document_len";

/// What became of the statement.
#[derive(Debug, Clone, PartialEq, Eq)]
pub(super) enum Verdict {
    /// It was refused and rolled back.
    Refused(StoreError),
    /// The session ends: whether the statement was committed is not known from this.
    SessionLost,
    /// The prepared statement is no longer valid. Nothing was done; preparing it again helps.
    Stale,
}

/// Judges an error that Postgres sent. What it says goes to the log where it is a fault, never to the caller.
pub(super) fn judge(error: &DbError) -> Verdict {
    let code = error.code();
    if *code == SqlState::INVALID_SQL_STATEMENT_NAME || *code == SqlState::FEATURE_NOT_SUPPORTED {
        // 0A000 is what a plan says whose result type changed by ALTER TABLE; none of our statements is unsupported.
        return Verdict::Stale;
    }
    if matches!(code.code(), "57P01" | "57P02" | "57P03" | "57P04" | "57P05") || class(code) == "08" {
        return Verdict::SessionLost;
    }
    Verdict::Refused(refusal(error))
}

/// The first two characters.
fn class(code: &SqlState) -> &str {
    code.code().get(..2).unwrap_or_default()
}

/// The answer to a statement that was rolled back.
fn refusal(error: &DbError) -> StoreError {
    let code = error.code();
    if *code == SqlState::CHECK_VIOLATION && error.constraint() == Some(LENGTH_CONSTRAINT) {
        return StoreError::TooLarge;
    }
    match (code.code(), class(code)) {
        // Serialization failure, deadlock, lock not available (lock_timeout).
        ("40001" | "40P01" | "55P03", _) => StoreError::Conflict,
        ("23505", _) => StoreError::AlreadyExists,
        ("42P01" | "3F000", _) => StoreError::NotFound,
        ("57014", _) => StoreError::Timeout,
        ("22P02" | "22P03", _) => StoreError::invalid("this is not JSON"),
        ("22P05", _) => {
            StoreError::invalid("the JSON has a character that cannot be stored (U+0000 or half a pair)")
        }
        ("22021", _) => StoreError::invalid("the text is not UTF-8 or has the character U+0000"),
        ("22003", _) => StoreError::invalid("a number in the JSON is out of range"),
        ("54001", _) => StoreError::invalid("the JSON is nested too deep"),
        ("54000", _) => {
            StoreError::invalid(format!("the document, expanded, is far above {DOCUMENT_LEN_MAX} bytes"))
        }
        (_, "22") => StoreError::invalid("the database refuses a value"),
        // Constraints and triggers that the operator put on a table.
        ("P0001", _) | (_, "23") => StoreError::invalid("a rule of the table refuses the document"),
        // Out of disk, memory, connections; read-only, as a standby is until it is promoted.
        ("25006", _) | (_, "53") => {
            tracing::warn!(
                sqlstate = code.code(),
                message = error.message(),
                "Postgres cannot take a statement"
            );
            StoreError::Unavailable { retry_after: EXHAUSTED_RETRY_AFTER }
        }
        _ => {
            tracing::error!(
                sqlstate = code.code(),
                message = error.message(),
                "Postgres refused a statement of ours"
            );
            StoreError::Internal
        }
    }
}
