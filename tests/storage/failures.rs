//! Locks, limits, and connections that break: each error is the true one.

use std::time::{Duration, Instant};

use raystream::store::{Store, StoreError, StoreOptions};

use crate::postgres::{client, database, store, store_with};
use crate::proxy::Proxy;
use crate::{WRITER, get, id, json, set, table, value};

/// Waits until a condition holds.
pub(crate) async fn eventually(what: &str, mut holds: impl AsyncFnMut() -> bool) {
    let until = Instant::now() + Duration::from_secs(20);
    while !holds().await {
        assert!(Instant::now() < until, "{what}");
        tokio::time::sleep(Duration::from_millis(20)).await;
    }
}

pub(crate) async fn locked_row(store: &Store) -> tokio_postgres::Client {
    set(store, "t", "a", "1").await;
    let ptr = store.table(&table("t")).await.expect("the table is there").quoted();
    let holder = client(store.postgres_config()).await;
    holder.batch_execute(&format!("BEGIN; UPDATE {ptr} SET data = '2'")).await.expect("the row is locked");
    holder
}

#[tokio::test]
async fn a_document_that_another_holds_is_a_conflict_and_readers_do_not_wait() {
    let store = store_with(|options| options.lock_timeout = Duration::from_millis(300)).await;
    let holder = locked_row(&store).await;
    let began = Instant::now();
    let write = async { store.set(WRITER, &table("t"), &id("a"), json("3"), None).await };
    let (write, read) = tokio::join!(write, async {
        let document = get(&store, "t", "a").await;
        (began.elapsed(), document)
    });
    assert_eq!(write, Err(StoreError::Conflict));
    assert!(began.elapsed() >= Duration::from_millis(300));
    assert!(read.0 < Duration::from_millis(250), "a reader waited {:?} for a writer's lock", read.0);
    holder.batch_execute("ROLLBACK").await.expect("the row is free");
    assert_eq!(set(&store, "t", "a", "3").await, 2);
}

#[tokio::test]
async fn a_statement_that_takes_too_long_is_a_timeout_and_undone() {
    let store = store_with(|options| {
        options.statement_timeout = Duration::from_millis(300);
        options.lock_timeout = Duration::from_secs(10);
    })
    .await;
    let holder = locked_row(&store).await;
    let write = store.set(WRITER, &table("t"), &id("a"), json("3"), None).await;
    assert_eq!(write, Err(StoreError::Timeout));
    holder.batch_execute("ROLLBACK").await.expect("the row is free");
    let document = get(&store, "t", "a").await;
    assert_eq!((value(&document.data).as_i64(), document.version), (Some(1), 1));
}

#[tokio::test]
async fn more_statements_than_may_wait_are_told_to_come_again() {
    let store = store_with(|options| {
        options.write_connections = 1;
        options.waiting_max = 4;
    })
    .await;
    let holder = locked_row(&store).await;
    let writes: Vec<_> = (0..4)
        .map(|_| {
            let store = store.clone();
            tokio::spawn(async move { store.set(WRITER, &table("t"), &id("a"), json("3"), None).await })
        })
        .collect();
    tokio::time::sleep(Duration::from_millis(100)).await;
    let fifth = store.set(WRITER, &table("t"), &id("b"), json("3"), None).await;
    assert!(matches!(fifth, Err(StoreError::Unavailable { .. })), "{fifth:?}");
    holder.batch_execute("COMMIT").await.expect("the row is free");
    for write in writes {
        write.await.expect("the task ends").expect("what waited is done");
    }
    set(&store, "t", "b", "3").await;
    assert_eq!(get(&store, "t", "a").await.version, 6, "each was done once");
}

#[tokio::test]
async fn parameters_that_wait_are_bounded_in_bytes() {
    let store = store_with(|options| options.waiting_bytes_max = 64 * 1024).await;
    let long = json(&format!("\"{}\"", "x".repeat(100_000)));
    let refused = store.push(WRITER, &table("t"), long).await;
    assert!(matches!(refused, Err(StoreError::Unavailable { .. })), "{refused:?}");
    store.push(WRITER, &table("t"), json("1")).await.expect("a short one fits");
}

#[tokio::test]
async fn a_write_whose_answer_is_lost_has_an_unknown_outcome() {
    let config = database().await;
    let (mut proxy, through) = Proxy::start(&config);
    let mut options = StoreOptions::new(through);
    options.create_tables = true;
    let store = Store::connect(options).await.expect("the store starts");
    set(&store, "t", "a", "1").await;
    let direct = Store::connect(StoreOptions::new(config)).await.expect("the store starts");

    proxy.swallow_answers();
    let write = tokio::spawn({
        let store = store.clone();
        async move { store.set(WRITER, &table("t"), &id("a"), json("2"), None).await }
    });
    eventually("the write arrives", async || get(&direct, "t", "a").await.version == 2).await;
    proxy.cut();
    let outcome = write.await.expect("the task ends");
    assert_eq!(outcome, Err(StoreError::UnknownOutcome), "it was done, and we cannot know");
    proxy.open();
    eventually("the store is back", async || store.is_ready()).await;
    assert_eq!(get(&store, "t", "a").await.version, 2);
}

#[tokio::test]
async fn without_a_connection_a_write_is_unavailable_and_never_done() {
    let config = database().await;
    let (mut proxy, through) = Proxy::start(&config);
    let mut options = StoreOptions::new(through);
    options.create_tables = true;
    let store = Store::connect(options).await.expect("the store starts");
    set(&store, "t", "a", "1").await;
    proxy.close().await;
    eventually("the break is noticed", async || !store.is_ready()).await;
    let write = store.set(WRITER, &table("t"), &id("a"), json("2"), None).await;
    assert!(
        matches!(write, Err(StoreError::Unavailable { retry_after }) if !retry_after.is_zero()),
        "{write:?}"
    );
    let read = store.get(&table("t"), &id("a")).await;
    assert!(matches!(read, Err(StoreError::Unavailable { .. })), "{read:?}");
    proxy.open();
    eventually("the store is back", async || store.is_ready()).await;
    assert_eq!(get(&store, "t", "a").await.version, 1);
}

#[tokio::test]
async fn reads_survive_broken_connections() {
    let config = database().await;
    let (proxy, through) = Proxy::start(&config);
    let mut options = StoreOptions::new(through);
    options.create_tables = true;
    let store = Store::connect(options).await.expect("the store starts");
    set(&store, "t", "a", "1").await;
    for _ in 0..5 {
        let reads: Vec<_> = (0..50)
            .map(|_| {
                let store = store.clone();
                tokio::spawn(async move { get(&store, "t", "a").await.version })
            })
            .collect();
        tokio::task::yield_now().await;
        proxy.cut();
        for read in reads {
            assert_eq!(read.await.expect("the read is done"), 1);
        }
    }
}

#[tokio::test]
async fn a_backend_that_is_terminated_leaves_the_truth() {
    let store = store().await;
    let holder = locked_row(&store).await;
    let write = tokio::spawn({
        let store = store.clone();
        async move { store.set(WRITER, &table("t"), &id("a"), json("3"), None).await }
    });
    let ended = async || {
        let sql = "SELECT count(pg_terminate_backend(pid)) FROM pg_stat_activity WHERE wait_event_type = 'Lock' \
                   AND datname = current_database()";
        holder.query_one(sql, &[]).await.expect("the backend is ended").get::<_, i64>(0) == 1
    };
    eventually("the write waits", ended).await;
    assert_eq!(write.await.expect("the task ends"), Err(StoreError::UnknownOutcome));
    holder.batch_execute("ROLLBACK").await.expect("the row is free");
    eventually("the store is back", async || {
        store.set(WRITER, &table("t"), &id("a"), json("4"), None).await.is_ok()
    })
    .await;
}

#[tokio::test]
async fn rules_of_the_operator_are_refusals_without_their_text() {
    let store = store().await;
    set(&store, "t", "a", r#"{"n":1}"#).await;
    let ptr = store.table(&table("t")).await.expect("the table is there").quoted();
    let admin = client(store.postgres_config()).await;
    admin
        .batch_execute(&format!(
            "ALTER TABLE {ptr} ADD CONSTRAINT secret_rule CHECK (data -> 'n' <> '13'); \
             CREATE UNIQUE INDEX ON {ptr} ((data ->> 'u'))"
        ))
        .await
        .expect("the rules are made");
    let refused = store.set(WRITER, &table("t"), &id("b"), json(r#"{"n":13}"#), None).await;
    let Err(StoreError::InvalidInput(message)) = refused else { panic!("{refused:?}") };
    assert!(!message.contains("secret_rule"), "{message}");
    store
        .set(WRITER, &table("t"), &id("b"), json(r#"{"u":"x"}"#), None)
        .await
        .expect("the first one is written");
    let twice = store.set(WRITER, &table("t"), &id("c"), json(r#"{"u":"x"}"#), None).await;
    assert_eq!(twice, Err(StoreError::Taken));
    admin.batch_execute(&format!("ALTER TABLE {ptr} RENAME COLUMN _order TO other")).await.expect("a fault");
    let fault = store.pop(WRITER, &table("t")).await;
    assert_eq!(fault, Err(StoreError::Internal), "a fault is ours, and says nothing");
}

#[tokio::test]
async fn a_read_connection_cannot_write() {
    let store = store().await;
    set(&store, "t", "a", "1").await;
    let ptr = store.table(&table("t")).await.expect("the table is there").quoted();
    let admin = client(store.postgres_config()).await;
    // The table becomes a view whose reader would write.
    admin
        .batch_execute(&format!(
            "CREATE TABLE public.trace (x int); \
             CREATE FUNCTION public.writes() RETURNS boolean LANGUAGE sql VOLATILE \
               AS 'INSERT INTO public.trace VALUES (1) RETURNING true'; \
             ALTER TABLE {ptr} RENAME TO moved; \
             CREATE VIEW {ptr} AS SELECT * FROM raystream.moved WHERE public.writes()"
        ))
        .await
        .expect("the view is made");
    let read = store.get(&table("t"), &id("a")).await;
    assert!(matches!(read, Err(StoreError::Unavailable { .. })), "{read:?}");
    let row = admin.query_one("SELECT count(*) FROM public.trace", &[]).await.expect("the table is there");
    assert_eq!(row.get::<_, i64>(0), 0, "a read wrote");
    admin.batch_execute("SELECT public.writes()").await.expect("the trap would work");
}
