//! Statements and their rows, as the client of the session gives them.

use std::pin::pin;

use futures_util::StreamExt;
use tokio_postgres::types::ToSql;
use tokio_postgres::{Client, Error, Row, RowStream, Statement};

use crate::store::session::whole_message;
use crate::store::statements::Param;

/// Runs a statement. `Ok` means that its transaction is committed: Postgres reports ReadyForQuery after that, and the row
/// stream ends with it. An error, too, is given when ReadyForQuery came: the error itself comes before what it undoes.
pub(in crate::store) async fn collect(
    client: &Client,
    statement: &Statement,
    params: &[Param],
) -> Result<Vec<Row>, Error> {
    rows_of(client.query_raw(statement, params.iter().map(borrow)).await?).await
}

/// The rows of a statement that was sent, as [`collect`] answers them.
pub(in crate::store) async fn rows_of(stream: RowStream) -> Result<Vec<Row>, Error> {
    let mut stream = pin!(stream);
    let mut rows = Vec::new();
    while let Some(row) = stream.next().await {
        match row {
            Ok(row) => rows.push(row),
            Err(error) => {
                if error.as_db_error().is_some() {
                    // The rest is ReadyForQuery, or the end of the connection.
                    let _rest = stream.next().await;
                }
                return Err(error);
            }
        }
    }
    Ok(rows)
}

/// A parameter as the library takes it.
pub(in crate::store) fn borrow(param: &Param) -> &(dyn ToSql + Sync) {
    param.as_ref()
}

/// Says in the log how a session ended.
pub(in crate::store) fn log_end(error: &Error) {
    tracing::debug!(error = whole_message(error), "a connection to Postgres ended");
}
