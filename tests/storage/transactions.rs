//! Several operations in one transaction, and calls that are named by a key.

use std::sync::Arc;
use std::sync::atomic::{AtomicU32, Ordering};
use std::time::Duration;

use bytes::Bytes;
use futures_util::FutureExt;
use raystream::store::feed::{Feed, FeedOptions};
use raystream::store::{
    Claim, IdempotencyKey, Isolation, Scope, StopSignal, Store, StoreError, StoreOptions, TransactionOptions,
    Writes,
};

use crate::failures::{eventually, locked_row};
use crate::postgres::{client, database, store, store_with};
use crate::proxy::Proxy;
use crate::{WRITER, get, id, json, set, table, value};

const SNAPSHOT: TransactionOptions =
    TransactionOptions { isolation: Isolation::Snapshot, writes: Writes::Allowed, is_repeatable: false };

async fn write(store: &Store, document: &str, text: &str) -> Result<i64, StoreError> {
    store.set(WRITER, &table("t"), &id(document), json(text), None).await
}

#[tokio::test]
async fn all_or_nothing() {
    let store = store().await;
    let both = store.transaction(SNAPSHOT, |store| {
        async move {
            write(&store, "a", "1").await?;
            let seen = store.get(&table("t"), &id("a")).await?;
            assert!(seen.is_some(), "a transaction sees its own writes, also of a table that it made");
            write(&store, "b", "2").await
        }
        .boxed()
    });
    assert_eq!(both.await, Ok(1));
    let neither = store.transaction(SNAPSHOT, |store| {
        async move {
            write(&store, "a", "5").await?;
            write(&store, "new", "5").await?;
            store.create_table(&table("other")).await?;
            write(&store, "b", "not json").await
        }
        .boxed()
    });
    assert!(matches!(neither.await, Err(StoreError::InvalidInput(_))));
    assert_eq!(value(&get(&store, "t", "a").await.data), 1);
    assert_eq!(store.get(&table("t"), &id("new")).await, Ok(None));
    assert_eq!(store.get(&table("other"), &id("a")).await, Err(StoreError::NotFound));
}

/// Increments by reading and writing: under a snapshot each loses against another one now and then, and is run again.
#[tokio::test(flavor = "multi_thread", worker_threads = 2)]
async fn what_loses_against_others_is_run_again() {
    const WRITERS: i64 = 3;
    const EACH: i64 = 10;
    let store = store().await;
    set(&store, "t", "n", "0").await;
    let runs = Arc::new(AtomicU32::new(0));
    let tasks: Vec<_> = (0..WRITERS)
        .map(|_| {
            let (store, runs) = (store.clone(), Arc::clone(&runs));
            tokio::spawn(async move {
                let mut done = 0;
                while done < EACH {
                    let runs = Arc::clone(&runs);
                    let increment = store.transaction(SNAPSHOT, move |store| {
                        runs.fetch_add(1, Ordering::Relaxed);
                        async move {
                            let now = value(&get(&store, "t", "n").await.data).as_i64().expect("a number");
                            write(&store, "n", &(now + 1).to_string()).await
                        }
                        .boxed()
                    });
                    match increment.await {
                        Ok(_) => done += 1,
                        Err(StoreError::Conflict) => {}
                        Err(other) => panic!("{other:?}"),
                    }
                }
            })
        })
        .collect();
    for task in tasks {
        task.await.expect("the increments are done");
    }
    assert_eq!(value(&get(&store, "t", "n").await.data), WRITERS * EACH, "none was lost");
    let runs = i64::from(runs.load(Ordering::Relaxed));
    assert!(runs > WRITERS * EACH, "{runs} runs: nobody ever lost, so nothing was shown");
}

#[tokio::test]
async fn a_deadlock_is_run_again() {
    let store = store_with(|options| options.lock_timeout = Duration::from_secs(30)).await;
    set(&store, "t", "a", "0").await;
    set(&store, "t", "b", "0").await;
    let both_began = Arc::new(tokio::sync::Barrier::new(2));
    let cross = |first: &'static str, second: &'static str| {
        let (store, both) = (store.clone(), Arc::clone(&both_began));
        let runs = Arc::new(AtomicU32::new(0));
        tokio::spawn(async move {
            let options = TransactionOptions {
                isolation: Isolation::Statement,
                writes: Writes::Allowed,
                is_repeatable: false,
            };
            let done = store.transaction(options, move |store| {
                let (both, run) = (Arc::clone(&both), runs.fetch_add(1, Ordering::Relaxed));
                async move {
                    write(&store, first, "1").await?;
                    if run == 0 {
                        both.wait().await;
                    }
                    write(&store, second, "1").await
                }
                .boxed()
            });
            done.await
        })
    };
    let (one, other) = (cross("a", "b"), cross("b", "a"));
    one.await.expect("the task ends").expect("it is done");
    other.await.expect("the task ends").expect("it is done");
    assert_eq!((get(&store, "t", "a").await.version, get(&store, "t", "b").await.version), (3, 3));
}

#[tokio::test]
async fn a_transaction_that_is_stopped_leaves_nothing_behind() {
    let store = store_with(|options| {
        options.lock_timeout = Duration::from_secs(60);
        options.transaction_connections = 1;
    })
    .await;
    let holder = locked_row(&store).await;
    let begin = |scope: Scope| {
        let store = store.scoped(scope);
        tokio::spawn(async move {
            let body = |store: Store| {
                async move {
                    write(&store, "new", "1").await?;
                    write(&store, "a", "1").await
                }
                .boxed()
            };
            store.transaction(SNAPSHOT, body).await
        })
    };
    let waiting = async || {
        let sql = "SELECT count(*) FROM pg_stat_activity WHERE wait_event_type = 'Lock' \
                   AND datname = current_database()";
        holder.query_one(sql, &[]).await.expect("Postgres says it").get::<_, i64>(0)
    };
    let late = begin(Scope::default().lasting(Duration::from_millis(200)));
    assert_eq!(late.await.expect("the task ends"), Err(StoreError::Timeout));
    assert_eq!(waiting().await, 0);

    let signal = StopSignal::default();
    let cancelled = begin(Scope::default().cancelled_by(Arc::clone(&signal)));
    eventually("it waits", async || waiting().await == 1).await;
    let behind = begin(Scope::default().lasting(Duration::from_millis(100)));
    assert_eq!(behind.await.expect("the task ends"), Err(StoreError::Timeout), "it never had a connection");
    signal.set(()).expect("it is set once");
    assert_eq!(cancelled.await.expect("the task ends"), Err(StoreError::Cancelled));

    let gone = begin(Scope::default());
    eventually("it waits", async || waiting().await == 1).await;
    gone.abort();
    eventually("it stops", async || waiting().await == 0).await;
    holder.batch_execute("ROLLBACK").await.expect("the row is free");
    assert_eq!(begin(Scope::default()).await.expect("the task ends"), Ok(2), "the connection is free again");
    assert_eq!(get(&store, "t", "new").await.version, 1, "only the last one wrote it");
}

#[tokio::test]
async fn a_commit_whose_answer_is_lost_is_answered_by_what_became_of_it() {
    let config = database().await;
    let (mut proxy, through) = Proxy::start(&config);
    let mut options = StoreOptions::new(through);
    options.create_tables = true;
    let store = Store::connect(options).await.expect("the store starts");
    set(&store, "t", "a", "1").await;
    let direct = Store::connect(StoreOptions::new(config)).await.expect("the store starts");
    let (reached, go_on) = (Arc::new(tokio::sync::Notify::new()), Arc::new(tokio::sync::Notify::new()));
    let (body_reached, body_go_on) = (Arc::clone(&reached), Arc::clone(&go_on));
    let writing = tokio::spawn({
        let store = store.clone();
        async move {
            let body = move |store: Store| {
                let (reached, go_on) = (Arc::clone(&body_reached), Arc::clone(&body_go_on));
                async move {
                    let version = write(&store, "a", "2").await?;
                    reached.notify_one();
                    go_on.notified().await;
                    Ok::<_, StoreError>(version)
                }
                .boxed()
            };
            store.transaction(SNAPSHOT, body).await
        }
    });
    reached.notified().await;
    proxy.swallow_answers();
    go_on.notify_one();
    eventually("it is committed", async || get(&direct, "t", "a").await.version == 2).await;
    proxy.open();
    proxy.cut();
    assert_eq!(writing.await.expect("the task ends"), Ok(2));
    assert_eq!(get(&direct, "t", "a").await.version, 2, "it was done once");
}

fn key(n: u8, request: u8) -> IdempotencyKey {
    IdempotencyKey { principal: "p".to_owned(), key: [n; 16], request_hash: [request; 32] }
}

/// Pushes under a key, and says what was known of it.
async fn push(store: &Store, key: IdempotencyKey) -> Result<Claim, StoreError> {
    #[derive(Debug)]
    enum Undone {
        Known(Claim),
        Failed(StoreError),
    }
    impl From<StoreError> for Undone {
        fn from(error: StoreError) -> Self {
            Self::Failed(error)
        }
    }
    let key = Arc::new(key);
    let options =
        TransactionOptions { isolation: Isolation::Statement, writes: Writes::Allowed, is_repeatable: true };
    let done = store.transaction(options, move |store| {
        let key = Arc::clone(&key);
        async move {
            let effect = async {
                let id = store.push(WRITER, &table("t"), json("1")).await?;
                Ok::<_, StoreError>(Bytes::from(id.into_string()))
            };
            match store.claim(&key, effect).await? {
                (Claim::New, _) => Ok(Claim::New),
                (known, _) => Err(Undone::Known(known)),
            }
        }
        .boxed()
    });
    match done.await {
        Ok(claim) | Err(Undone::Known(claim)) => Ok(claim),
        Err(Undone::Failed(error)) => Err(error),
    }
}

#[tokio::test]
async fn a_key_has_one_effect_at_all_daemons_and_moments() {
    let store = store().await;
    store.create_table(&table("t")).await.expect("it is made");
    let other = Store::connect(StoreOptions::new(store.postgres_config().clone())).await.expect("it starts");
    let pushes: Vec<_> = (0..16)
        .map(|n| {
            let store = if n % 2 == 0 { store.clone() } else { other.clone() };
            tokio::spawn(async move { push(&store, key(1, 1)).await })
        })
        .collect();
    let (mut new, mut replies) = (0, Vec::new());
    for push in pushes {
        match push.await.expect("the task ends").expect("it is answered") {
            Claim::New => new += 1,
            Claim::Done(reply) => replies.push(reply),
            Claim::OtherRequest => panic!("it is the same request"),
        }
    }
    assert_eq!((new, replies.len()), (1, 15));
    let item = store.shift(WRITER, &table("t")).await.expect("the table is there").expect("one item");
    assert!(replies.iter().all(|reply| reply == item.id.as_str().as_bytes()), "all have its id");
    assert_eq!(store.count(&table("t"), None).await, Ok(0), "there was exactly one");
    assert_eq!(push(&other, key(1, 2)).await, Ok(Claim::OtherRequest));
    assert_eq!(store.count(&table("t"), None).await, Ok(0));
}

#[tokio::test]
async fn a_key_whose_effect_failed_is_free() {
    let store = store().await;
    let refused = store
        .transaction(SNAPSHOT, |store| {
            async move {
                let effect = async {
                    store.push(WRITER, &table("t"), json("no json")).await?;
                    Ok::<_, StoreError>(Bytes::new())
                };
                store.claim(&key(2, 1), effect).await.map(|_| ())
            }
            .boxed()
        })
        .await;
    assert!(matches!(refused, Err(StoreError::InvalidInput(_))), "{refused:?}");
    assert_eq!(push(&store, key(2, 2)).await, Ok(Claim::New), "another request may have it");
}

#[tokio::test]
async fn replies_are_dropped_after_their_time() {
    let store = store().await;
    store.create_table(&table("t")).await.expect("it is made");
    for n in 0..3 {
        assert_eq!(push(&store, key(n, 1)).await, Ok(Claim::New));
    }
    let admin = client(store.postgres_config()).await;
    let age = "UPDATE raystream.idempotency SET at = now() - interval '24 hours 1 minute' WHERE key = $1";
    admin.execute(age, &[&[1_u8; 16].to_vec()]).await.expect("one is old");
    let young = "INSERT INTO raystream.idempotency SELECT 'q', decode(lpad(to_hex(n), 32, '0'), 'hex'), \
                 decode(repeat('00', 32), 'hex'), '\\x00', now() - interval '25 hours' \
                 FROM generate_series(1, 2500) AS n";
    admin.execute(young, &[]).await.expect("many are older");
    let feed = Feed::of_store(&store, FeedOptions::default()).await.expect("the feed starts");
    feed.maintain().await.expect("it keeps house");
    let row = admin.query_one("SELECT count(*) FROM raystream.idempotency", &[]).await.expect("a count");
    assert_eq!(row.get::<_, i64>(0), 2);
    assert_eq!(push(&store, key(1, 2)).await, Ok(Claim::New), "its key is free again");
    assert!(matches!(push(&store, key(0, 1)).await, Ok(Claim::Done(_))));
}
