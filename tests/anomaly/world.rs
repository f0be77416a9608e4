//! Two documents, and transactions that read and write them over connections of their own.

use raystream::client::{Client, Error};
use raystream::wire::ErrorCode;
use serde_json::{Value, json};

use crate::server::{Server, active, call, eventually};
use crate::tx::Tx;

/// Which of the two that both could commit does so first. Where one waits for the other, the roles are changed instead.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub(crate) enum Order {
    FirstCommitsFirst,
    SecondCommitsFirst,
}

pub(crate) struct World {
    clients: Vec<Client>,
    admin: tokio_postgres::Client,
    /// `None`: each call stands alone.
    isolation: Option<&'static str>,
}

/// What takes part: a transaction, or calls without one.
#[derive(Clone)]
pub(crate) struct Party {
    client: Client,
    tx: Option<Tx>,
    /// What it would be rolled back to, when nothing does it for us.
    written: std::sync::Arc<std::sync::Mutex<Vec<(String, Value)>>>,
}

impl World {
    pub(crate) async fn new(server: &Server, isolation: &'static str) -> Self {
        Self::open(server, Some(isolation)).await
    }

    pub(crate) async fn without_transactions(server: &Server) -> Self {
        Self::open(server, None).await
    }

    /// `x` is 10 and `y` is 20, and there is nothing else.
    async fn open(server: &Server, isolation: Option<&'static str>) -> Self {
        let clients = vec![server.client(1).await, server.client(2).await, server.client(0).await];
        loop {
            let taken = call(&clients[0], "table.pop", json!({"table": "t"})).await.unwrap();
            if taken.is_null() {
                break;
            }
        }
        for (id, value) in [("x", 10), ("y", 20)] {
            let args = json!({"table": "t", "id": id, "data": {"value": value}});
            call(&clients[0], "table.set", args).await.unwrap();
        }
        Self { clients, admin: server.admin().await, isolation }
    }

    /// Begins a transaction on the connection with this number.
    pub(crate) async fn begin(&self, number: usize) -> Party {
        let client = self.clients[number].clone();
        let tx = match self.isolation {
            Some(isolation) => Some(Tx::begin(&client, json!({"isolation": isolation})).await.unwrap()),
            None => None,
        };
        Party { client, tx, written: Default::default() }
    }

    /// What is there for everybody.
    pub(crate) async fn committed(&self, id: &str) -> i64 {
        value(&call(&self.clients[0], "table.get", json!({"table": "t", "id": id})).await.unwrap())
    }

    /// Starts a write, and comes back when it is done or waits for a lock.
    pub(crate) async fn start_write(
        &self,
        party: &Party,
        id: &'static str,
        value: i64,
    ) -> tokio::task::JoinHandle<bool> {
        let party = party.clone();
        let write = tokio::spawn(async move { party.write(id, value).await });
        eventually("it is done or waits", async || write.is_finished() || active(&self.admin).await.1 > 0)
            .await;
        write
    }
}

fn value(document: &Value) -> i64 {
    document["data"]["value"].as_i64().unwrap()
}

impl Party {
    async fn call(&self, method: &str, args: Value) -> Result<Value, Error> {
        match &self.tx {
            Some(tx) => tx.call(method, args).await,
            None => call(&self.client, method, args).await,
        }
    }

    /// `None` when the transaction lost against another one.
    pub(crate) async fn read(&self, id: &str) -> Option<i64> {
        done(self.call("table.get", json!({"table": "t", "id": id})).await).map(|document| value(&document))
    }

    /// How many documents have a value.
    pub(crate) async fn count(&self, value: i64) -> Option<i64> {
        let args = json!({"table": "t", "filter": {"value": value}});
        done(self.call("table.count", args).await).and_then(|count| count["count"].as_i64())
    }

    /// The sum of all values.
    pub(crate) async fn sum(&self) -> Option<i64> {
        let page = done(self.call("table.query", json!({"table": "t"})).await)?;
        Some(page["items"].as_array().unwrap().iter().map(value).sum())
    }

    /// Whether it was not lost against another one.
    pub(crate) async fn write(&self, id: &str, value: i64) -> bool {
        if self.tx.is_none() {
            let before = call(&self.client, "table.get", json!({"table": "t", "id": id})).await.unwrap();
            self.written.lock().unwrap().push((id.to_owned(), before["data"].clone()));
        }
        let args = json!({"table": "t", "id": id, "data": {"value": value}});
        done(self.call("table.set", args).await).is_some()
    }

    pub(crate) async fn push(&self, value: i64) -> bool {
        done(self.call("table.push", json!({"table": "t", "data": {"value": value}})).await).is_some()
    }

    /// Whether it was committed.
    pub(crate) async fn commit(&self) -> bool {
        match &self.tx {
            Some(tx) => done(tx.commit().await).is_some(),
            None => true,
        }
    }

    pub(crate) async fn roll_back(&self) {
        if let Some(tx) = &self.tx {
            tx.roll_back().await.unwrap();
        }
        let written: Vec<_> = self.written.lock().unwrap().drain(..).rev().collect();
        for (id, data) in written {
            call(&self.client, "table.set", json!({"table": "t", "id": id, "data": data})).await.unwrap();
        }
    }
}

/// The answer, unless the transaction lost: any other failure is one of the test.
fn done(answer: Result<Value, Error>) -> Option<Value> {
    match answer {
        Ok(value) => Some(value),
        Err(error) => {
            assert_eq!(error.code(), Some(ErrorCode::CONFLICT), "{error}");
            assert!(error.retryable(), "{error}");
            None
        }
    }
}

/// Commits two in this order; whether each was committed.
pub(crate) async fn commit_both(first: &Party, second: &Party, order: Order) -> (bool, bool) {
    if order == Order::FirstCommitsFirst {
        let first = first.commit().await;
        (first, second.commit().await)
    } else {
        let second = second.commit().await;
        (first.commit().await, second)
    }
}
