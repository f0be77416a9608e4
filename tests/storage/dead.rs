//! Connections to Postgres that are open and dead: no answer comes, and no end.

use std::sync::Arc;
use std::time::Duration;

use futures_util::FutureExt;
use raystream::store::{
    Isolation, Scope, StartError, StopSignal, Store, StoreError, StoreOptions, TransactionOptions, Writes,
};
use tokio::net::TcpListener;
use tokio::sync::Notify;
use tokio::time::{sleep, timeout};

use crate::postgres::{client, database};
use crate::proxy::Proxy;
use crate::{WRITER, get, id, json, set, table};

/// How long anything may take before it counts as hung: generous, because machines are shared.
const PATIENCE: Duration = Duration::from_secs(120);

const SNAPSHOT: TransactionOptions =
    TransactionOptions { isolation: Isolation::Snapshot, writes: Writes::Allowed, is_repeatable: false };

async fn write(store: &Store, document: &str) -> Result<i64, StoreError> {
    store.set(WRITER, &table("t"), &id(document), json("2"), None).await
}

/// How a transaction ends whose connection has died.
#[derive(Clone, Copy, PartialEq, Eq)]
enum End {
    /// Its caller stops it while a statement waits for its answer.
    Stopped,
    /// Its body gives it up, and ROLLBACK has no answer.
    GivenUp,
}

async fn a_transaction_dies(end: End) {
    let config = database().await;
    let (proxy, through) = Proxy::start(&config);
    let mut options = StoreOptions::new(through);
    (options.create_tables, options.transaction_connections) = (true, 1);
    let store = Store::connect(options).await.expect("the store starts");
    set(&store, "t", "a", "1").await;
    let (reached, go_on) = (Arc::new(Notify::new()), Arc::new(Notify::new()));
    let signal = StopSignal::default();
    let scoped = store.scoped(Scope::default().cancelled_by(Arc::clone(&signal)));
    let dying = tokio::spawn({
        let (reached, go_on) = (Arc::clone(&reached), Arc::clone(&go_on));
        async move {
            let body = move |store: Store| {
                let (reached, go_on) = (Arc::clone(&reached), Arc::clone(&go_on));
                async move {
                    write(&store, "a").await?;
                    reached.notify_one();
                    go_on.notified().await;
                    match end {
                        End::Stopped => write(&store, "b").await,
                        End::GivenUp => Err(StoreError::NotFound),
                    }
                }
                .boxed()
            };
            scoped.transaction(SNAPSHOT, body).await
        }
    });
    reached.notified().await;
    proxy.freeze();
    go_on.notify_one();
    if end == End::Stopped {
        signal.set(()).expect("it is set once");
    }
    let answer = timeout(PATIENCE, dying).await.expect("it is answered").expect("the task ends");
    let expected = if end == End::Stopped { StoreError::Cancelled } else { StoreError::NotFound };
    assert_eq!(answer, Err(expected));

    // There is one place, and a lock that Postgres would keep for a minute if nothing told it that nobody is there.
    let again = async {
        loop {
            let body = |store: Store| async move { write(&store, "a").await }.boxed();
            match store.transaction(SNAPSHOT, body).await {
                Err(StoreError::Unavailable { .. } | StoreError::Conflict) => {}
                other => return other,
            }
        }
    };
    assert_eq!(timeout(PATIENCE, again).await.expect("the place is free"), Ok(2));
    let direct = Store::connect(StoreOptions::new(config.clone())).await.expect("the store starts");
    assert_eq!(get(&direct, "t", "a").await.version, 2, "only the second one was done");
    let sessions = "SELECT count(*) FROM pg_stat_activity WHERE state LIKE 'idle in transaction%' \
                    AND datname = current_database()";
    let admin = client(&config).await;
    // Its locks are gone a moment before it is.
    let is_closed = async {
        while admin.query_one(sessions, &[]).await.expect("Postgres says it").get::<_, i64>(0) > 0 {
            sleep(Duration::from_millis(10)).await;
        }
    };
    timeout(PATIENCE, is_closed).await.expect("the dead one is closed");
}

#[tokio::test]
async fn a_transaction_that_is_stopped_on_a_dead_connection_keeps_neither_place_nor_locks() {
    a_transaction_dies(End::Stopped).await;
}

#[tokio::test]
async fn a_transaction_that_rolls_back_on_a_dead_connection_keeps_neither_place_nor_locks() {
    a_transaction_dies(End::GivenUp).await;
}

#[tokio::test]
async fn a_connection_that_dies_before_it_prepared_anything_is_given_up() {
    let config = database().await;
    let direct = Store::connect(StoreOptions::new(config.clone())).await.expect("the store starts");
    direct.create_table(&table("t")).await.expect("it is made");
    set(&direct, "t", "a", "1").await;
    let (proxy, through) = Proxy::start(&config);
    let mut options = StoreOptions::new(through);
    options.statement_timeout = Duration::from_secs(1);
    let store = Store::connect(options).await.expect("the store starts");
    proxy.freeze();
    let again = async {
        while store.get(&table("t"), &id("a")).await.is_err() {
            sleep(Duration::from_millis(10)).await;
        }
        write(&store, "b").await
    };
    assert_eq!(timeout(PATIENCE, again).await.expect("there are new ones"), Ok(1));
}

#[tokio::test]
async fn a_server_that_accepts_and_says_nothing_is_given_up() {
    let listener = TcpListener::bind("127.0.0.1:0").await.expect("a port");
    let port = listener.local_addr().expect("it has an address").port();
    let silent = tokio::spawn(async move {
        let mut open = Vec::new();
        while let Ok(connection) = listener.accept().await {
            open.push(connection);
        }
    });
    let mut config = tokio_postgres::Config::new();
    config.host("127.0.0.1").port(port).user("x").dbname("x").connect_timeout(Duration::from_secs(1));
    let refused = timeout(PATIENCE, Store::connect(StoreOptions::new(config))).await;
    assert!(matches!(refused.expect("it is given up"), Err(StartError::Unreachable(_))));
    silent.abort();
}
