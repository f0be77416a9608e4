//! Postgres without anything before it: a pipelined tokio-postgres connection on its own socket.

use std::{path::Path, rc::Rc, time::Instant};
use tokio_postgres::{Client, Config, NoTls};

use crate::{Failure, meter::Meter, spec::Spec};

/// Where direct writes go.
const OWN_TABLE: &str = "bench_direct";
/// Rows that are written in turn, as many as `raystream bench` has documents.
const ROWS: usize = 1_000;

pub(crate) async fn connect(folder: &str) -> Result<Client, Failure> {
    let mut config = Config::new();
    config.host_path(Path::new(folder)).user("raystream").dbname("raystream");
    let (client, connection) = config.connect(NoTls).await?;
    tokio::spawn(connection);
    Ok(client)
}

/// Makes the table of direct writes.
pub(crate) async fn prepare(folder: &str) -> Result<(), Failure> {
    let client = connect(folder).await?;
    let sql = format!(
        "CREATE TABLE IF NOT EXISTS {OWN_TABLE} (id text PRIMARY KEY, data jsonb NOT NULL, version bigint NOT NULL)"
    );
    Ok(client.batch_execute(&sql).await?)
}

/// `schema.table` as SQL takes it.
fn quoted(table: &str) -> String {
    format!("\"{}\"", table.replace('.', "\".\""))
}

/// Statements for ever, one of those in flight on a connection.
pub(crate) async fn drive(client: Rc<Client>, first: usize, spec: Spec, meter: Meter) -> Result<(), Failure> {
    let document: serde_json::Value =
        serde_json::json!({ "g": 1, "x": "x".repeat(spec.payload.saturating_sub(15)) });
    let read =
        format!("SELECT data, _version FROM {} WHERE id = $1 AND _deleted_txid IS NULL", quoted(&spec.table));
    let write = format!(
        "INSERT INTO {OWN_TABLE} (id, data, version) VALUES ($1, $2, 1) \
         ON CONFLICT (id) DO UPDATE SET data = EXCLUDED.data, version = {OWN_TABLE}.version + 1 RETURNING version"
    );
    let writes = spec.client == "postgres-write";
    let statement = client.prepare(if writes { &write } else { &read }).await?;
    let mut row = first;
    loop {
        let id = format!("d{:08}", row % ROWS);
        row += 1;
        let begin = Instant::now();
        let rows = match writes {
            true => client.query(&statement, &[&id, &document]).await?,
            false => client.query(&statement, &[&id]).await?,
        };
        if rows.len() != 1 {
            return Err("the row is not there".into());
        }
        meter.time(begin);
    }
}
