//! What the errors of Postgres mean to whoever asked for the statement.

use std::time::Duration;

use super::ExecError;
use crate::store::StoreError;
use crate::store::session;

/// What a caller is told to wait when there is no place, or no connection.
const RETRY_AFTER: Duration = Duration::from_millis(500);

/// What an operator is told when a statement cannot run as its role.
const NO_ROLE: &str = "table.exec cannot run as the role raystream_exec: let a role with CREATEROLE make it, grant it to the \
                       daemon's role, and see schemas/sql for its rights";

pub(super) fn unavailable() -> StoreError {
    StoreError::Unavailable { retry_after: RETRY_AFTER }
}

/// What an error means to the caller. What Postgres said goes to the log at most: it may quote a value.
pub(super) fn refusal(error: &tokio_postgres::Error) -> ExecError {
    let Some(database) = error.as_db_error() else {
        tracing::warn!(error = session::whole_message(error), "a session of exec broke");
        return unavailable().into();
    };
    let code = database.code().code();
    let reason = match (code, code.get(..2).unwrap_or_default()) {
        ("57014", _) => return StoreError::Timeout.into(),
        ("42P01" | "3F000", _) => return StoreError::NotFound.into(),
        ("42501", _) => {
            tracing::error!(message = database.message(), "{NO_ROLE}");
            return StoreError::Internal.into();
        }
        // SET ROLE of one that is not there.
        ("22023", _) if database.message().contains("role") => {
            tracing::error!(message = database.message(), "{NO_ROLE}");
            return StoreError::Internal.into();
        }
        ("55P03", _) | (_, "53" | "57" | "08") => {
            tracing::warn!(sqlstate = code, message = database.message(), "Postgres cannot take a statement");
            return unavailable().into();
        }
        ("42803", _) => "a column is neither grouped nor in an aggregate",
        ("42P20", _) => "a window function stands where none may be",
        ("42P10", _) => "an expression of DISTINCT or ORDER BY is not in the SELECT",
        ("21000", _) => "a query in an expression gives more than one row",
        ("22012", _) => "division by zero",
        ("22003" | "23514", _) => "a number is out of range",
        ("22P02" | "22007" | "22008" | "22023", _) => "a value is not of the type that it is cast to",
        (_, "22" | "23") => "a value is not allowed here",
        (_, "54") => "a value gets too long",
        (_, "42" | "0A") => "its types or clauses do not go together",
        _ => {
            tracing::error!(
                sqlstate = code,
                message = database.message(),
                "Postgres refused a guarded statement"
            );
            return StoreError::Internal.into();
        }
    };
    ExecError::Refused { reason, sqlstate: code.to_owned() }
}
