//! Operations that end early: what was not sent never is, what was sent is stopped in Postgres, and nobody else notices.

use std::sync::Arc;
use std::time::{Duration, Instant};

use raystream::store::{Lane, Scope, StopSignal, Store, StoreError, StoreOptions};
use tokio::task::JoinHandle;

use crate::failures::{eventually, locked_row};
use crate::postgres::{client, store_with};
use crate::{WRITER, get, id, json, set, table, value};

/// One write connection, so that all writes are behind each other; locks are waited for long.
async fn one_line(change: impl FnOnce(&mut StoreOptions)) -> Store {
    store_with(|options| {
        options.write_connections = 1;
        options.lock_timeout = Duration::from_secs(60);
        change(options);
    })
    .await
}

fn write(store: &Store, document: &'static str, scope: Scope) -> JoinHandle<Result<i64, StoreError>> {
    let store = store.scoped(scope);
    tokio::spawn(async move { store.set(WRITER, &table("t"), &id(document), json("3"), None).await })
}

/// Statements of the store that wait for a lock, in Postgres.
async fn waiting(admin: &tokio_postgres::Client) -> i64 {
    let sql = "SELECT count(*) FROM pg_stat_activity WHERE wait_event_type = 'Lock' \
               AND datname = current_database()";
    admin.query_one(sql, &[]).await.expect("Postgres says what it does").get(0)
}

#[tokio::test]
async fn a_deadline_stops_the_statement_in_postgres() {
    let store = one_line(|_| {}).await;
    let holder = locked_row(&store).await;
    let began = Instant::now();
    let scope = Scope::default().lasting(Duration::from_millis(200));
    assert_eq!(write(&store, "a", scope).await.expect("the task ends"), Err(StoreError::Timeout));
    assert!(began.elapsed() >= Duration::from_millis(200), "not before its time");
    // The answer came when it had stopped, so nothing has to be waited for.
    assert_eq!(waiting(&holder).await, 0);
    assert_eq!(set(&store, "t", "b", "1").await, 1, "the connection serves on");
    holder.batch_execute("ROLLBACK").await.expect("the row is free");
    assert_eq!(get(&store, "t", "a").await.version, 1, "nothing was written");
}

#[tokio::test]
async fn a_cancel_stops_the_statement_and_a_caller_who_is_gone_too() {
    let store = one_line(|_| {}).await;
    let holder = locked_row(&store).await;
    let signal = StopSignal::default();
    let cancelled = write(&store, "a", Scope::default().cancelled_by(Arc::clone(&signal)));
    eventually("it waits", async || waiting(&holder).await == 1).await;
    signal.set(()).expect("it is set once");
    assert_eq!(cancelled.await.expect("the task ends"), Err(StoreError::Cancelled));
    assert_eq!(waiting(&holder).await, 0);

    let gone = write(&store, "a", Scope::default());
    eventually("it waits", async || waiting(&holder).await == 1).await;
    gone.abort();
    eventually("it stops", async || waiting(&holder).await == 0).await;
    holder.batch_execute("ROLLBACK").await.expect("the row is free");
    assert_eq!(get(&store, "t", "a").await.version, 1);
}

#[tokio::test]
async fn what_was_not_sent_never_is() {
    let store = one_line(|_| {}).await;
    let holder = locked_row(&store).await;
    // More than a pipeline takes, so that the last ones wait in the queue.
    let ahead: Vec<_> = (0..40).map(|_| write(&store, "a", Scope::default())).collect();
    eventually("the first one waits", async || waiting(&holder).await == 1).await;
    let began = Instant::now();
    let late = write(&store, "b", Scope::default().lasting(Duration::from_millis(50)));
    assert_eq!(late.await.expect("the task ends"), Err(StoreError::Timeout));
    let signal = StopSignal::default();
    let cancelled = write(&store, "c", Scope::default().cancelled_by(Arc::clone(&signal)));
    tokio::task::yield_now().await;
    signal.set(()).expect("it is set once");
    assert_eq!(cancelled.await.expect("the task ends"), Err(StoreError::Cancelled));
    assert!(began.elapsed() < Duration::from_secs(30), "neither waited for those before it");
    assert_eq!(waiting(&holder).await, 1, "those before it were left alone");
    holder.batch_execute("ROLLBACK").await.expect("the row is free");
    for write in ahead {
        write.await.expect("the task ends").expect("it is done");
    }
    assert_eq!(get(&store, "t", "a").await.version, 41);
    for never in ["b", "c"] {
        assert_eq!(store.get(&table("t"), &id(never)).await, Ok(None), "{never}");
    }
}

/// Neighbours of cancelled statements on the same connection, over and over: each of their writes is done exactly once.
#[tokio::test(flavor = "multi_thread", worker_threads = 2)]
async fn neighbours_of_cancelled_statements_are_unharmed() {
    const ROUNDS: i64 = 60;
    let store = one_line(|_| {}).await;
    set(&store, "t", "n", "0").await;
    let ptr = store.table(&table("t")).await.expect("the table is there").quoted();
    // Writes of one id take a while, so that cancels find them, and come late too.
    let admin = client(store.postgres_config()).await;
    admin
        .batch_execute(&format!(
            "CREATE FUNCTION public.slow() RETURNS trigger LANGUAGE plpgsql AS $$ BEGIN \
               PERFORM pg_sleep(0.006); RETURN NEW; END $$; \
             CREATE TRIGGER slow BEFORE INSERT OR UPDATE ON {ptr} FOR EACH ROW WHEN (NEW.id = 'slow') \
               EXECUTE FUNCTION public.slow()"
        ))
        .await
        .expect("the trigger is made");
    let mut stopped = 0;
    for round in 0..ROUNDS {
        let signal = StopSignal::default();
        let slow = write(&store, "slow", Scope::default().cancelled_by(Arc::clone(&signal)));
        let neighbours: Vec<_> = (0..4).map(|_| write(&store, "n", Scope::default())).collect();
        // Around the moment at which it ends by itself.
        tokio::time::sleep(Duration::from_micros(u64::try_from(round * 150).expect("small"))).await;
        signal.set(()).expect("it is set once");
        for neighbour in neighbours {
            neighbour.await.expect("the task ends").expect("a neighbour is not harmed");
        }
        match slow.await.expect("the task ends") {
            Ok(_) => {}
            Err(StoreError::Cancelled) => stopped += 1,
            Err(other) => panic!("{other:?}"),
        }
    }
    assert!(stopped > 0, "no cancel found its statement");
    assert_eq!(get(&store, "t", "n").await.version, 1 + 4 * ROUNDS);
}

#[tokio::test]
async fn a_short_deadline_does_not_shorten_what_comes_after_it() {
    let store = one_line(|_| {}).await;
    set(&store, "t", "a", "1").await;
    for _ in 0..3 {
        let scope = Scope::default().lasting(Duration::from_millis(300));
        write(&store, "b", scope).await.expect("the task ends").expect("it is fast");
    }
    let holder = locked_row_again(&store).await;
    let slow = write(&store, "a", Scope::default());
    tokio::time::sleep(Duration::from_millis(900)).await;
    assert!(!slow.is_finished(), "the limit of the call before it holds on");
    holder.batch_execute("ROLLBACK").await.expect("the row is free");
    slow.await.expect("the task ends").expect("it had time");
}

async fn locked_row_again(store: &Store) -> tokio_postgres::Client {
    let ptr = store.table(&table("t")).await.expect("the table is there").quoted();
    let holder = client(store.postgres_config()).await;
    holder
        .batch_execute(&format!("BEGIN; UPDATE {ptr} SET data = '2' WHERE id = 'a'"))
        .await
        .expect("locked");
    holder
}

/// The net under the deadlines: Postgres itself has a limit near the caller's.
#[tokio::test]
async fn the_time_that_is_left_is_the_limit_of_postgres_too() {
    let store = one_line(|_| {}).await;
    set(&store, "t", "a", "1").await;
    let ptr = store.table(&table("t")).await.expect("the table is there").quoted();
    let admin = client(store.postgres_config()).await;
    admin
        .batch_execute(&format!(
            "CREATE FUNCTION public.limits() RETURNS trigger LANGUAGE plpgsql AS $$ BEGIN \
               NEW.data := to_jsonb(current_setting('statement_timeout')); RETURN NEW; END $$; \
             CREATE TRIGGER limits BEFORE UPDATE ON {ptr} FOR EACH ROW EXECUTE FUNCTION public.limits()"
        ))
        .await
        .expect("the trigger is made");
    for (scope, limit) in [
        (Scope::default(), "30s"),
        (Scope::default().lasting(Duration::from_secs(29)), "30s"),
        (Scope::default().lasting(Duration::from_millis(1_500)), "2048ms"),
        (Scope::default(), "30s"),
    ] {
        write(&store, "a", scope).await.expect("the task ends").expect("it is written");
        assert_eq!(value(&get(&store, "t", "a").await.data), limit);
    }
}

/// When no more may wait, the one with the most makes room for the one with the least.
#[tokio::test]
async fn who_fills_the_queue_does_not_lock_others_out() {
    let store = one_line(|options| options.waiting_max = 40).await;
    let holder = locked_row(&store).await;
    let many: Vec<_> = (0..40).map(|_| write(&store, "a", Scope::of(Lane([1; 16])))).collect();
    eventually("the first one waits", async || waiting(&holder).await == 1).await;
    let refused = write(&store, "b", Scope::of(Lane([1; 16]))).await.expect("the task ends");
    assert!(matches!(refused, Err(StoreError::Unavailable { .. })), "{refused:?}");
    let one = write(&store, "c", Scope::of(Lane([2; 16])));
    tokio::task::yield_now().await;
    holder.batch_execute("ROLLBACK").await.expect("the row is free");
    assert_eq!(one.await.expect("the task ends"), Ok(1));
    let mut refused = 0;
    for write in many {
        match write.await.expect("the task ends") {
            Ok(_) => {}
            Err(StoreError::Unavailable { .. }) => refused += 1,
            Err(other) => panic!("{other:?}"),
        }
    }
    assert_eq!(refused, 1, "one of the many made room");
    assert_eq!(get(&store, "t", "a").await.version, 1 + 39, "and was not run");
}

/// A caller with many statements does not keep one with a single statement waiting for all of his.
#[tokio::test]
async fn lanes_are_served_in_turn() {
    let store = one_line(|_| {}).await;
    let holder = locked_row(&store).await;
    let many: Vec<_> = (0..256).map(|_| write(&store, "a", Scope::of(Lane([1; 16])))).collect();
    eventually("the first one waits", async || waiting(&holder).await == 1).await;
    let one = write(&store, "b", Scope::of(Lane([2; 16])));
    tokio::task::yield_now().await;
    let order = Arc::new(std::sync::Mutex::new(Vec::new()));
    let watch = |task: JoinHandle<Result<i64, StoreError>>, name| {
        let order = Arc::clone(&order);
        async move {
            task.await.expect("the task ends").expect("it is written");
            order.lock().expect("nobody panics").push(name);
        }
    };
    let watched: Vec<_> = many.into_iter().map(|task| tokio::spawn(watch(task, "many"))).collect();
    let one = tokio::spawn(watch(one, "one"));
    holder.batch_execute("ROLLBACK").await.expect("the row is free");
    one.await.expect("it is watched");
    for task in watched {
        task.await.expect("it is watched");
    }
    let place = order.lock().expect("nobody panics").iter().position(|name| *name == "one");
    assert!(place.is_some_and(|place| place < 80), "the single one came at place {place:?} of 257");
}
