//! `table.exec`: SQL of a caller over one table, through the guard.

use std::sync::Arc;

use bytes::Bytes;
use serde_json::value::RawValue;

use super::args::Args;
use super::caller::Context;
use super::reply::{Json as Out, RESULT_MAX};
use super::tables;
use crate::auth::TableRight;
use crate::rpc::{Call, Status};
use crate::sql::{self, Param, Refusal, limits};
use crate::store::{ExecError, Store};
use crate::wire::registry::ErrorCode;

/// `table.exec {table, sql, params?}`: `{rows: [{column: value, ..}, ..]}`.
pub(super) async fn exec(store: Store, context: Context, call: Call) -> Result<Bytes, Status> {
    let args = Args::parse(&call, &["table", "sql", "params", "sid"])?;
    let table = tables::table(&context, &args, TableRight::Read)?;
    let text = args.string("sql")?;
    let given = args.optional_array("params")?;
    if given.len() > limits::PARAMS_MAX {
        return Err(Status::invalid(format!("a statement may have {} parameters", limits::PARAMS_MAX)));
    }
    let params = given.into_iter().map(param).collect::<Result<Vec<_>, _>>()?;
    let statement = Arc::new(sql::guard(table.name().as_str(), &text, &params)?);
    let rows = store.exec(table.name(), Arc::clone(&statement)).await?;

    let names: Vec<_> =
        statement.columns().iter().map(|name| Out::with_room(0).string(name).raw(":")).collect();
    let mut out = Out::with_room(0).raw(r#"{"rows":["#);
    for (place, row) in rows.iter().enumerate() {
        out = out.raw(if place == 0 { "{" } else { ",{" });
        for (at, (name, value)) in names.iter().zip(row).enumerate() {
            out = out.raw(if at == 0 { "" } else { "," }).raw(name.written());
            out = match value {
                Some(json) => out.raw(json.as_bytes()),
                None => out.raw("null"),
            };
        }
        out = out.raw("}");
        // Names of columns count too, and there may be many short rows.
        if out.written().len() > RESULT_MAX {
            return Err(ExecError::TooLong.into());
        }
    }
    out.raw("]}").finish()
}

/// A parameter of the statement from its JSON.
fn param(raw: &RawValue) -> Result<Param, Status> {
    let text = raw.get();
    let invalid = |_| Status::invalid("a parameter is not the JSON that it looks like");
    Ok(match text.as_bytes().first() {
        Some(b'n') => Param::Null,
        Some(b't') => Param::Bool(true),
        Some(b'f') => Param::Bool(false),
        Some(b'"') => Param::Text(serde_json::from_str(text).map_err(invalid)?),
        Some(b'[') => match (serde_json::from_str(text), serde_json::from_str(text)) {
            (Ok(texts), _) => Param::Texts(texts, text.to_owned()),
            (_, Ok(numbers)) => Param::Ints(numbers, text.to_owned()),
            _ => Param::Json(text.to_owned()),
        },
        Some(b'{') => Param::Json(text.to_owned()),
        _ => Param::Number(text.to_owned()),
    })
}

/// What a program reads: `{"code": .., "sqlstate"?: ..}`.
fn details(code: &str, sqlstate: Option<&str>) -> Bytes {
    let sqlstate = sqlstate.map(|state| format!(r#","sqlstate":"{state}""#)).unwrap_or_default();
    Bytes::from(format!(r#"{{"code":"{code}"{sqlstate}}}"#))
}

impl From<Refusal> for Status {
    fn from(refusal: Refusal) -> Self {
        let details = details(refusal.code(), None);
        Self::invalid(refusal.to_string()).with_details(details)
    }
}

impl From<ExecError> for Status {
    fn from(error: ExecError) -> Self {
        match error {
            ExecError::Store(error) => error.into(),
            ExecError::TooLong => Self::new(
                ErrorCode::PAYLOAD_TOO_LARGE,
                format!(
                    "the result has more than {} rows or {} bytes: add LIMIT, or take fewer columns",
                    limits::ROWS_MAX,
                    limits::RESULT_LEN_MAX
                ),
            ),
            ExecError::TooLargeToCollect => Self::new(
                ErrorCode::PAYLOAD_TOO_LARGE,
                "the table is too large for string_agg, array_agg, jsonb_agg and jsonb_object_agg",
            ),
            ExecError::Refused { reason, sqlstate } => {
                let details = details("INVALID_REQUEST", Some(&sqlstate));
                Self::invalid(format!("the database refuses the statement: {reason}")).with_details(details)
            }
        }
    }
}
