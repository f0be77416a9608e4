//! What an error of Postgres means to a caller: the one place where a SQLSTATE becomes a [`StoreError`].

use std::time::Duration;

use tokio_postgres::error::{DbError, Severity, SqlState};

use super::error::StoreError;
use super::index;
use super::session;
use super::types::DOCUMENT_LEN_MAX;

/// How long a caller does well to wait when Postgres lacks memory, disk or connections: that does not pass in an instant.
const EXHAUSTED_RETRY_AFTER: Duration = Duration::from_secs(1);

/// The constraint of the tables that refuses documents which are too long.
const LENGTH_CONSTRAINT: &str = "document_len";

/// What the triggers of a schema raise for a document that was not checked against it.
const UNCHECKED: &str = "RS001";

/// What became of the statement.
#[derive(Debug, Clone, PartialEq, Eq)]
pub(super) enum Verdict {
    /// It was refused and rolled back.
    Refused(StoreError),
    /// The session ends: whether the statement was committed is not known from this.
    SessionLost,
    /// The prepared statement is no longer valid. Nothing was done; preparing it again helps.
    Stale,
    /// It was stopped: by its time limit, or by a cancel request, perhaps one that was meant for another statement.
    Cancelled,
    /// It could not be put in an order with others that ran. All of its transaction may be done again.
    Serialization,
}

/// What became of a statement that did not succeed.
#[derive(Debug)]
pub(super) enum Failure {
    /// It was sent, and the connection broke before the answer was complete.
    Broken,
    /// Its prepared form was stale. It was not run.
    Stale,
    /// It was stopped and rolled back.
    Cancelled,
    /// It was rolled back; with others out of the way it may succeed.
    Serialization,
    /// Postgres refused it.
    Refused(StoreError),
}

/// What an error says about the statement it came from.
pub(super) fn failure(error: &tokio_postgres::Error) -> Failure {
    let Some(database) = error.as_db_error() else {
        let from_network = std::error::Error::source(error).is_some_and(|cause| cause.is::<std::io::Error>());
        if !error.is_closed() && !from_network {
            tracing::error!(
                error = session::whole_message(error),
                "a statement or its answer is not what was agreed"
            );
        }
        return Failure::Broken;
    };
    match judge(database) {
        Verdict::Refused(error) => Failure::Refused(error),
        Verdict::SessionLost => Failure::Broken,
        Verdict::Stale => Failure::Stale,
        Verdict::Cancelled => Failure::Cancelled,
        Verdict::Serialization => Failure::Serialization,
    }
}

/// Judges an error that Postgres sent. What it says goes to the log where it is a fault, never to the caller.
pub(super) fn judge(error: &DbError) -> Verdict {
    let code = error.code();
    if ends_session(error) {
        return Verdict::SessionLost;
    }
    if *code == SqlState::INVALID_SQL_STATEMENT_NAME || *code == SqlState::FEATURE_NOT_SUPPORTED {
        // 0A000 is what a plan says whose result type changed by ALTER TABLE; none of our statements is unsupported.
        return Verdict::Stale;
    }
    match code.code() {
        "57014" => Verdict::Cancelled,
        "40001" | "40P01" => Verdict::Serialization,
        _ => Verdict::Refused(refusal(error)),
    }
}

/// Whether the session ends with an error, so that it says nothing about a COMMIT. The code of one that is fatal may be that of a
/// statement that is rolled back, such as a full disk: the session may have met that when the commit was in the log already.
pub(super) fn ends_session(error: &DbError) -> bool {
    let code = error.code();
    if matches!(code.code(), "57P01" | "57P02" | "57P03" | "57P04" | "57P05") || class(code) == "08" {
        return true;
    }
    let is_fatal = matches!(error.parsed_severity(), Some(Severity::Fatal | Severity::Panic));
    if is_fatal {
        tracing::error!(sqlstate = code.code(), message = error.message(), "a session of Postgres died");
    }
    is_fatal
}

/// What a rule of a declared schema says that a document breaks, by the name that `schemas/sql` gives it.
fn broken_rule(name: &str) -> Option<String> {
    if let Some(field) = name.strip_prefix("field_type_") {
        return Some(format!("the field `{field}` is not of the type that the table's schema gives it"));
    }
    if let Some(field) = name.strip_prefix("field_perm_") {
        return Some(format!(
            "the table's schema lets nobody change the field `{field}` of a document that is there"
        ));
    }
    match name {
        "table_perm_write" => Some("the table's schema lets nobody write documents".to_owned()),
        "table_perm_delete" => Some("the table's schema lets nobody delete documents".to_owned()),
        _ => None,
    }
}

/// The first two characters.
fn class(code: &SqlState) -> &str {
    code.code().get(..2).unwrap_or_default()
}

/// Whether a value does not fit into an index. The files of Postgres where it says so tell this from other limits, whatever its
/// language.
pub(super) fn is_too_long_for_index(error: &DbError) -> bool {
    *error.code() == SqlState::PROGRAM_LIMIT_EXCEEDED
        && matches!(error.file(), Some("indextuple.c" | "nbtutils.c" | "nbtinsert.c" | "ginentrypage.c"))
}

/// The answer to a statement that was rolled back.
fn refusal(error: &DbError) -> StoreError {
    let code = error.code();
    if *code == SqlState::CHECK_VIOLATION && error.constraint() == Some(LENGTH_CONSTRAINT) {
        return StoreError::TooLarge;
    }
    if let Some(reason) = error.constraint().and_then(broken_rule) {
        return StoreError::invalid(reason);
    }
    if is_too_long_for_index(error) {
        return StoreError::invalid(
            "a value that is under an index of the table is longer than an index can hold",
        );
    }
    match (code.code(), class(code)) {
        (UNCHECKED, _) => StoreError::SchemaChanged,
        // Lock not available (lock_timeout).
        ("55P03", _) => StoreError::Conflict,
        ("23505", _) if error.constraint().is_some_and(index::is_of_values) => StoreError::Taken,
        ("23505", _) => StoreError::AlreadyExists,
        ("42P01" | "3F000", _) => StoreError::NotFound,
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
        // Behind a statement of the same transaction that failed: that one's error is the one that counts.
        ("25P02", _) => StoreError::Unavailable { retry_after: EXHAUSTED_RETRY_AFTER },
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

#[cfg(test)]
mod tests {
    use tokio::io::{AsyncReadExt, AsyncWriteExt, duplex};
    use tokio_postgres::{Config, NoTls};

    use super::*;

    /// What a client makes of an error that Postgres sends for COMMIT.
    async fn commit_fails(severity: &str, code: &str) -> tokio_postgres::Error {
        let (near, mut far) = duplex(1024);
        let fields = format!("S{severity}\0V{severity}\0C{code}\0Mwhat happened\0\0");
        let len = u32::try_from(fields.len() + 4).expect("it is short").to_be_bytes();
        let answer = [b"E".as_slice(), &len, fields.as_bytes()].concat();
        let postgres = async {
            let mut asked = [0; 1024];
            // The first message, and COMMIT.
            for answer in [b"R\0\0\0\x08\0\0\0\0Z\0\0\0\x05I".as_slice(), &answer] {
                assert!(far.read(&mut asked).await.expect("it is open") > 0, "something is asked");
                far.write_all(answer).await.expect("it is open");
            }
        };
        let mut config = Config::new();
        config.user("u");
        let asking = async {
            let (client, connection) = config.connect_raw(near, NoTls).await.expect("it is let in");
            tokio::select! {
                answer = client.batch_execute("COMMIT") => answer.expect_err("it fails"),
                _ = connection => panic!("the answer comes first"),
            }
        };
        tokio::join!(asking, postgres).0
    }

    #[tokio::test]
    async fn a_session_that_dies_of_its_error_leaves_the_outcome_open() {
        // The commit is in the log when the next segment of it finds no room, or the disk does not take it.
        for (severity, code) in [
            ("PANIC", "53100"),
            ("PANIC", "58030"),
            ("FATAL", "53200"),
            ("FATAL", "25P03"),
            ("PANIC", "40001"),
            ("FATAL", "0A000"),
            ("FATAL", "57P01"),
        ] {
            let failure = failure(&commit_fails(severity, code).await);
            assert!(matches!(failure, Failure::Broken), "{severity} {code}: {failure:?}");
        }
        let refused = failure(&commit_fails("ERROR", "53100").await);
        assert!(matches!(refused, Failure::Refused(StoreError::Unavailable { .. })), "{refused:?}");
        let again = failure(&commit_fails("ERROR", "40001").await);
        assert!(matches!(again, Failure::Serialization), "{again:?}");
    }
}
