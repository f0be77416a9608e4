//! `raystream exec`

use clap::Args;
use serde_json::value::RawValue;

use super::connect::block_on;
use super::{ConnectArguments, Failure, Output, json};
use crate::wire::ErrorCode;

/// Run a SELECT over a table and print its rows, one JSON object a line
///
/// The server runs what its guard has rebuilt: one SELECT, over this table alone, with functions that only compute. The
/// columns are id, data, _version and _order.
#[derive(Debug, Args)]
pub(super) struct ExecArguments {
    #[command(flatten)]
    connect: ConnectArguments,
    /// The table; the statement calls it by this name
    #[arg(value_name = "TABLE")]
    table: String,
    /// The statement, for instance "SELECT count(*) FROM orders WHERE data->>'city' = $1"
    #[arg(value_name = "SQL")]
    sql: String,
    /// The values of $1, $2, ..: JSON, or a text that is none
    #[arg(value_name = "PARAM", allow_hyphen_values = true)]
    params: Vec<String>,
}

/// The arguments of `table.exec`.
#[derive(serde::Serialize)]
struct Request<'a> {
    table: &'a str,
    sql: &'a str,
    params: Vec<Param<'a>>,
}

/// A value, as the user wrote it.
#[derive(serde::Serialize)]
#[serde(untagged)]
enum Param<'a> {
    Json(&'a RawValue),
    Text(&'a str),
}

fn param(text: &str) -> Param<'_> {
    serde_json::from_str(text).map_or(Param::Text(text), Param::Json)
}

pub(super) fn run(arguments: &ExecArguments, output: &mut Output) -> Result<(), Failure> {
    let args = Request {
        table: &arguments.table,
        sql: &arguments.sql,
        params: arguments.params.iter().map(|text| param(text)).collect(),
    };
    let result = block_on(async {
        let client = arguments.connect.connect(output, |_| {}).await?;
        let result = client.call("table.exec", &args).await;
        client.close().await;
        Ok::<_, Failure>(result?)
    })?;
    let not_rows =
        || Failure::answered(ErrorCode::INTERNAL_ERROR, "the server's result is not a list of rows");
    let text = json::printable(&result).ok_or_else(not_rows)?;
    let Rows { rows } = serde_json::from_str(&text).map_err(|_| not_rows())?;
    let mut lines = String::new();
    for row in rows {
        lines.push_str(row.get());
        lines.push('\n');
    }
    output.bytes(lines.as_bytes())
}

/// The answer; rows stay as the server wrote them.
#[derive(serde::Deserialize)]
struct Rows<'a> {
    #[serde(borrow)]
    rows: Vec<&'a RawValue>,
}
