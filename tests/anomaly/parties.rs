//! The levels that histories are made at: those that the daemon offers, through its protocol; and one of Postgres that it does
//! not offer, past the daemon.

use raystream::client::{Client, Error};
use raystream::wire::ErrorCode;
use serde_json::{Value, json};
use tokio_postgres::error::SqlState;

use crate::history::Outcome;
use crate::server::{Server, call};
use crate::tx::Tx;

/// Connections of a level: one for each client of a workload.
const CONNECTIONS: usize = 8;

/// A level of isolation, with the connections to use it.
pub(crate) enum Level {
    /// `tx.begin` with this isolation, and a table of that name.
    Offered(&'static str, Vec<Client>),
    /// READ COMMITTED, by SQL.
    ReadCommitted(Vec<tokio_postgres::Client>),
}

impl Level {
    pub(crate) async fn offered(server: &Server, isolation: &'static str) -> Self {
        let mut clients = Vec::new();
        for _ in 0..CONNECTIONS {
            clients.push(server.client(1).await);
        }
        call(&clients[0], "table.create", json!({"table": isolation})).await.unwrap();
        Self::Offered(isolation, clients)
    }

    pub(crate) async fn read_committed(server: &Server) -> Self {
        let mut clients = Vec::new();
        for _ in 0..CONNECTIONS {
            clients.push(server.admin().await);
        }
        let table = "CREATE TABLE lists (key text PRIMARY KEY, items bigint[] NOT NULL)";
        clients[0].batch_execute(table).await.unwrap();
        Self::ReadCommitted(clients)
    }

    /// Begins a transaction on the connection with this number.
    pub(crate) async fn begin(&self, client: usize) -> Party<'_> {
        match self {
            Self::Offered(isolation, clients) => {
                let tx = Tx::begin(&clients[client], json!({"isolation": isolation})).await.unwrap();
                Party::Offered { tx, table: isolation }
            }
            Self::ReadCommitted(clients) => {
                clients[client].batch_execute("BEGIN ISOLATION LEVEL READ COMMITTED").await.unwrap();
                Party::ReadCommitted { client: &clients[client], writes_over: false }
            }
        }
    }
}

/// A transaction of a level.
pub(crate) enum Party<'a> {
    Offered {
        tx: Tx,
        table: &'static str,
    },
    ReadCommitted {
        client: &'a tokio_postgres::Client,
        /// The next append writes the whole list, as it was seen, and one element.
        writes_over: bool,
    },
}

impl Party<'_> {
    /// Whether an append needs no read before it.
    pub(crate) fn appends(&self) -> bool {
        matches!(self, Self::ReadCommitted { .. })
    }

    pub(crate) fn appends_by_writing_over(&mut self) {
        if let Self::ReadCommitted { writes_over, .. } = self {
            *writes_over = true;
        }
    }

    /// `None` when the transaction lost against another one.
    pub(crate) async fn read(&self, key: &str) -> Option<Vec<u64>> {
        match self {
            Self::Offered { tx, table } => {
                let document = done(tx.call("table.get", json!({"table": table, "id": key})).await)?;
                Some(
                    serde_json::from_value::<Option<Vec<u64>>>(document["data"].clone())
                        .unwrap()
                        .unwrap_or_default(),
                )
            }
            Self::ReadCommitted { client, .. } => {
                let row = client.query_opt("SELECT items FROM lists WHERE key = $1", &[&key]).await.unwrap();
                let items: Vec<i64> = row.map(|row| row.get(0)).unwrap_or_default();
                Some(items.into_iter().map(|item| u64::try_from(item).unwrap()).collect())
            }
        }
    }

    /// Appends to a list, which the transaction last saw like this. Whether it was not lost against another one.
    pub(crate) async fn append(&self, key: &str, seen: Option<Vec<u64>>, element: u64) -> bool {
        match self {
            Self::Offered { tx, table } => {
                let mut list = seen.expect("it was read before");
                list.push(element);
                let args = json!({"table": table, "id": key, "data": list});
                done(tx.call("table.set", args).await).is_some()
            }
            Self::ReadCommitted { client, writes_over } => {
                let (sql, mut list) = match writes_over {
                    true => ("items = EXCLUDED.items", seen.expect("it was read before")),
                    false => ("items = lists.items || EXCLUDED.items", Vec::new()),
                };
                list.push(element);
                let list: Vec<i64> =
                    list.into_iter().map(|element| i64::try_from(element).unwrap()).collect();
                let sql = format!("INSERT INTO lists VALUES ($1, $2) ON CONFLICT (key) DO UPDATE SET {sql}");
                match client.execute(&sql, &[&key, &list]).await {
                    Ok(_) => true,
                    Err(error) if error.code() == Some(&SqlState::T_R_DEADLOCK_DETECTED) => false,
                    Err(error) => panic!("{error:?}"),
                }
            }
        }
    }

    pub(crate) async fn commit(self) -> Outcome {
        match self {
            Self::Offered { tx, .. } => match tx.commit().await {
                Ok(_) => Outcome::Committed,
                Err(error) if error.code() == Some(ErrorCode::UNKNOWN_OUTCOME) => Outcome::Unknown,
                lost => {
                    assert!(done(lost).is_none());
                    Outcome::Aborted
                }
            },
            Self::ReadCommitted { client, .. } => {
                client.batch_execute("COMMIT").await.unwrap();
                Outcome::Committed
            }
        }
    }

    pub(crate) async fn roll_back(self) {
        match self {
            Self::Offered { tx, .. } => drop(tx.roll_back().await.unwrap()),
            Self::ReadCommitted { client, .. } => client.batch_execute("ROLLBACK").await.unwrap(),
        }
    }
}

/// The result, or nothing when the transaction lost against another one. Any other refusal is a fault.
fn done(result: Result<Value, Error>) -> Option<Value> {
    match result {
        Ok(value) => Some(value),
        Err(error) if error.code() == Some(ErrorCode::CONFLICT) => None,
        Err(error) => panic!("{error}"),
    }
}
