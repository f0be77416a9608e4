//! A transaction, call by call.

use raystream::client::{Client, Error};
use raystream::wire::ErrorCode;
use serde_json::{Value, json};

use crate::server::call;

/// A transaction of a client, as it was begun.
#[derive(Clone)]
pub(crate) struct Tx {
    pub(crate) client: Client,
    pub(crate) sid: String,
    pub(crate) begun: Value,
}

impl Tx {
    pub(crate) async fn begin(client: &Client, args: Value) -> Result<Self, Error> {
        let begun = call(client, "tx.begin", args).await?;
        let sid = begun["sid"].as_str().unwrap().to_owned();
        Ok(Self { client: client.clone(), sid, begun })
    }

    /// One under a snapshot.
    pub(crate) async fn snapshot(client: &Client) -> Self {
        Self::begin(client, json!({})).await.unwrap()
    }

    pub(crate) async fn call(&self, method: &str, mut args: Value) -> Result<Value, Error> {
        args["sid"] = self.sid.clone().into();
        call(&self.client, method, args).await
    }

    pub(crate) async fn get(&self, id: &str) -> Result<Value, Error> {
        Ok(self.call("table.get", json!({"table": "t", "id": id})).await?["data"].take())
    }

    pub(crate) async fn set(&self, id: &str, data: impl Into<Value>) -> Result<Value, Error> {
        self.call("table.set", json!({"table": "t", "id": id, "data": data.into()})).await
    }

    pub(crate) async fn commit(&self) -> Result<Value, Error> {
        self.call("tx.commit", json!({})).await
    }

    pub(crate) async fn roll_back(&self) -> Result<Value, Error> {
        self.call("tx.rollback", json!({})).await
    }

    pub(crate) async fn status(&self) -> Result<Value, Error> {
        self.call("tx.status", json!({})).await
    }

    pub(crate) fn txid(&self) -> u64 {
        self.begun["currentTxid"].as_u64().unwrap()
    }
}

/// What is there for others.
pub(crate) async fn get(client: &Client, id: &str) -> Value {
    call(client, "table.get", json!({"table": "t", "id": id})).await.unwrap()["data"].take()
}

pub(crate) async fn set(client: &Client, id: &str, data: impl Into<Value>) {
    call(client, "table.set", json!({"table": "t", "id": id, "data": data.into()})).await.unwrap();
}

/// The code of a refusal, and what its details say about the transaction.
pub(crate) fn refused<T: std::fmt::Debug>(result: Result<T, Error>) -> (ErrorCode, Option<String>) {
    let Error::Call(error) = result.expect_err("it is refused") else { panic!("an answer of the server") };
    let details: Value = serde_json::from_slice(&error.details).unwrap_or_default();
    (error.code, details["transaction"].as_str().map(str::to_owned))
}

/// What [`refused`] gives when the transaction was rolled back.
pub(crate) fn rolled_back(code: ErrorCode) -> (ErrorCode, Option<String>) {
    (code, Some("rolled_back".to_owned()))
}

/// What it gives when there is no such transaction.
pub(crate) fn unknown() -> (ErrorCode, Option<String>) {
    (ErrorCode::NOT_FOUND, Some("none".to_owned()))
}

/// Sessions of daemons that are in a transaction.
pub(crate) async fn in_transaction(admin: &tokio_postgres::Client) -> i64 {
    let sql = "SELECT count(*) FROM pg_stat_activity WHERE application_name = 'raystream' \
               AND datname = current_database() AND state LIKE 'idle in transaction%'";
    admin.query_one(sql, &[]).await.unwrap().get(0)
}
