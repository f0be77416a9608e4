//! Running a statement as its role, and taking its rows.

use std::pin::pin;

use bytes::BytesMut;
use futures_util::TryStreamExt;
use tokio_postgres::Client;
use tokio_postgres::types::{Format, IsNull, ToSql, Type as PgType};

use super::{ExecError, ExecRows};
use crate::sql::limits::{RESULT_LEN_MAX, ROWS_MAX};
use crate::sql::{Bind, Collects, Statement, Type};
use crate::store::json::Json;
use crate::store::{StoreError, TablePtr};

/// The largest table, in bytes as stored, whose values may be gathered into one: a larger one is not looked through for
/// [`COLLECT_LEN_MAX`].
const COLLECT_TABLE_MAX: i64 = 32 * 1024 * 1024;

/// The most that may be gathered into one value, in bytes of the documents' texts. Postgres keeps it all in memory, unpacked, before
/// it looks at its length: as JSON some thirty bytes for one of numbers, seventy for one of empty arrays.
const COLLECT_LEN_MAX: i64 = 8 * 1024 * 1024;

/// Why there are no rows.
#[derive(Debug)]
pub(super) enum Fault {
    /// We say so.
    Ours(ExecError),
    /// Postgres or the connection does.
    Postgres(tokio_postgres::Error),
}

impl From<tokio_postgres::Error> for Fault {
    fn from(error: tokio_postgres::Error) -> Self {
        Self::Postgres(error)
    }
}

/// Runs a statement as its role, until the transaction or the savepoint ends.
pub(super) async fn read(
    client: &Client,
    table: &TablePtr,
    statement: &Statement,
) -> Result<ExecRows, Fault> {
    // Before it is the role, which may not look.
    if let Some(collects) = statement.collects()
        && (stored_len(client, table).await? > COLLECT_TABLE_MAX
            || gathers_more(client, table, collects).await?)
    {
        return Err(Fault::Ours(ExecError::TooLargeToCollect));
    }
    client.batch_execute("SET LOCAL ROLE raystream_exec").await?;
    rows(client, table, statement).await
}

/// How large a table is, in bytes as stored.
async fn stored_len(client: &Client, table: &TablePtr) -> Result<i64, Fault> {
    let row = if table.is_attached() {
        let sql = "SELECT pg_table_size(attached) FROM raystream.storage \
                   WHERE ptr_schema = $1 AND ptr = $2 AND attached IS NOT NULL";
        client.query_opt(sql, &[&table.schema, &table.table]).await?
    } else {
        client.query_opt("SELECT pg_table_size($1::text::regclass)", &[&table.quoted()]).await?
    };
    Ok(row.ok_or(Fault::Ours(StoreError::NotFound.into()))?.try_get(0)?)
}

/// Whether more than [`COLLECT_LEN_MAX`] could be gathered of the documents as texts, whatever they take as stored. Ends with the first
/// one that is too much: the sums are made row by row.
async fn gathers_more(client: &Client, table: &TablePtr, collects: Collects) -> Result<bool, Fault> {
    let sql = format!(
        "SELECT EXISTS (SELECT FROM (SELECT sum(len * $1::int8 + $2::int8) OVER (ROWS UNBOUNDED PRECEDING) AS len FROM (\
           SELECT octet_length(id) + octet_length(data::text) AS len FROM {} WHERE _deleted_txid IS NULL OFFSET 0\
         ) AS texts) AS sums WHERE len > {COLLECT_LEN_MAX})",
        table.quoted()
    );
    let constants = i64::try_from(collects.constants).unwrap_or(COLLECT_LEN_MAX).min(COLLECT_LEN_MAX);
    Ok(client.query_one(&sql, &[&i64::from(collects.copies), &constants]).await?.try_get(0)?)
}

async fn rows(client: &Client, table: &TablePtr, statement: &Statement) -> Result<ExecRows, Fault> {
    let types: Vec<PgType> = statement.binds().iter().map(|bind| postgres_type(bind.ty)).collect();
    let values: Vec<Text<'_>> = statement.binds().iter().map(Text).collect();
    let params: Vec<&(dyn ToSql + Sync)> = values.iter().map(|value| value as _).collect();
    let text = statement.text(&table.schema, &table.table);
    // Rows are taken from the socket as they are looked at, and none is longer than a result: what is too many or too long is
    // noticed at the first such row, and nothing more of it is kept.
    let prepared = client.prepare_typed(&text, &types).await?;
    let found = client.query_raw(&prepared, params).await?;
    let mut found = pin!(found);
    let (mut rows, mut len) = (Vec::new(), 0_u64);
    while let Some(row) = found.try_next().await? {
        let row_len: i64 = row.try_get(0)?;
        len = len.saturating_add(u64::try_from(row_len).unwrap_or(u64::MAX));
        if len > RESULT_LEN_MAX || u64::try_from(rows.len()).is_ok_and(|count| count >= ROWS_MAX) {
            return Err(Fault::Ours(ExecError::TooLong));
        }
        let values =
            (1..row.len()).map(|at| row.try_get::<_, Option<Json>>(at)).collect::<Result<Vec<_>, _>>()?;
        rows.push(values);
    }
    Ok(rows)
}

/// A value in its text form, whatever its type is.
#[derive(Debug)]
struct Text<'a>(&'a Bind);

impl ToSql for Text<'_> {
    fn to_sql(
        &self,
        _: &PgType,
        out: &mut BytesMut,
    ) -> Result<IsNull, Box<dyn std::error::Error + Sync + Send>> {
        match &self.0.text {
            None => Ok(IsNull::Yes),
            Some(text) => {
                out.extend_from_slice(text.as_bytes());
                Ok(IsNull::No)
            }
        }
    }

    fn accepts(_: &PgType) -> bool {
        true
    }

    fn encode_format(&self, _: &PgType) -> Format {
        Format::Text
    }

    tokio_postgres::types::to_sql_checked!();
}

fn postgres_type(ty: Type) -> PgType {
    match ty {
        Type::Bool => PgType::BOOL,
        Type::Int => PgType::INT8,
        Type::Numeric => PgType::NUMERIC,
        Type::Float => PgType::FLOAT8,
        Type::Text => PgType::TEXT,
        Type::Jsonb => PgType::JSONB,
        Type::Timestamptz => PgType::TIMESTAMPTZ,
        Type::Timestamp => PgType::TIMESTAMP,
        Type::Date => PgType::DATE,
        Type::Interval => PgType::INTERVAL,
        Type::TextArray => PgType::TEXT_ARRAY,
        Type::IntArray => PgType::INT8_ARRAY,
    }
}
