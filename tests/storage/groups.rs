//! Writes of several callers in one transaction: each is answered as if it were alone.

use std::sync::Arc;
use std::sync::atomic::{AtomicBool, Ordering};
use std::time::{Duration, Instant};

use raystream::store::{Json, Lane, Scope, StopSignal, Store, StoreError, StoreOptions, Writer};
use tokio::task::JoinHandle;

use crate::failures::eventually;
use crate::postgres::{client, store_with};
use crate::{WRITER, get, id, json, set, table, value};

/// One write connection, which is busy with a write that waits for a lock: what is written meanwhile is one group.
struct Gate {
    store: Store,
    holder: tokio_postgres::Client,
    write: JoinHandle<Result<i64, StoreError>>,
    ptr: String,
}

impl Gate {
    async fn new(store: Store, lock: &str) -> Self {
        let ptr = store.table(&table("t")).await.expect("the table is there").quoted();
        let holder = client(store.postgres_config()).await;
        holder.batch_execute(&format!("BEGIN; {}", lock.replace("{t}", &ptr))).await.expect("it is locked");
        let write = write(&store, WRITER, "gate", "1", None, Scope::default());
        let waits = async || {
            let sql = "SELECT count(*) FROM pg_stat_activity WHERE wait_event_type = 'Lock' \
                       AND datname = current_database()";
            holder.query_one(sql, &[]).await.expect("Postgres says what it does").get::<_, i64>(0) == 1
        };
        eventually("the first write waits", waits).await;
        Self { store, holder, write, ptr }
    }

    /// A gate before a table that has the documents `gate` and `a`.
    async fn closed(change: impl FnOnce(&mut StoreOptions)) -> Self {
        let store = one_line(change).await;
        for document in ["gate", "a"] {
            set(&store, "t", document, r#"{"n":1}"#).await;
        }
        Self::new(store, "UPDATE {t} SET data = '2' WHERE id = 'gate'").await
    }

    async fn open(self) -> Store {
        // What was asked for is in the queue.
        tokio::time::sleep(Duration::from_millis(50)).await;
        self.holder.batch_execute("ROLLBACK").await.expect("the row is free");
        self.write.await.expect("the task ends").expect("it is written");
        self.store
    }
}

async fn one_line(change: impl FnOnce(&mut StoreOptions)) -> Store {
    store_with(|options| {
        options.write_connections = 1;
        options.lock_timeout = Duration::from_secs(60);
        change(options);
    })
    .await
}

fn write(
    store: &Store,
    writer: Writer<'static>,
    document: &str,
    text: &str,
    if_version: Option<i64>,
    scope: Scope,
) -> JoinHandle<Result<i64, StoreError>> {
    let (store, document, data) = (store.scoped(scope), id(document), json(text));
    tokio::spawn(async move { store.set(writer, &table("t"), &document, data, if_version).await })
}

fn plain(store: &Store, document: &str, text: &str) -> JoinHandle<Result<i64, StoreError>> {
    write(store, WRITER, document, text, None, Scope::default())
}

async fn answer<T>(task: JoinHandle<T>) -> T {
    task.await.expect("the task ends")
}

/// A change of the log: transaction, document, operation, version, what was before and after, who.
type Logged = (String, String, String, i64, String, String, String);

/// The log in its order.
async fn log(store: &Store) -> Vec<Logged> {
    let sql = "SELECT xid::text, id, op::text, version, coalesce(before::text, '-'), coalesce(after::text, '-'), \
               principal FROM raystream.changes ORDER BY seq";
    let rows = client(store.postgres_config()).await.query(sql, &[]).await.expect("the log is there");
    let logged = |row: &tokio_postgres::Row| {
        (row.get(0), row.get(1), row.get(2), row.get(3), row.get(4), row.get(5), row.get(6))
    };
    rows.iter().map(logged).collect()
}

#[tokio::test]
async fn writes_that_wait_share_a_commit_and_each_has_its_answer_and_its_change() {
    let gate = Gate::closed(|_| {}).await;
    let new: Vec<_> = (0..20).map(|n| plain(&gate.store, &format!("n{n:02}"), &n.to_string())).collect();
    let old = plain(&gate.store, "a", "7");
    let pushed = {
        let store = gate.store.clone();
        tokio::spawn(async move { store.push(WRITER, &table("t"), json("8")).await })
    };
    let fresh = write(&gate.store, WRITER, "fresh", "9", Some(0), Scope::default());
    let taken = write(&gate.store, WRITER, "a", "9", Some(0), Scope::default());
    let store = gate.open().await;
    for write in new {
        assert_eq!(answer(write).await, Ok(1));
    }
    assert_eq!((answer(old).await, answer(fresh).await), (Ok(2), Ok(1)));
    assert_eq!(answer(taken).await, Err(StoreError::Conflict), "there is one: nothing is written");
    let pushed = answer(pushed).await.expect("it is pushed");
    let log = log(&store).await;
    let group: Vec<&Logged> = log.iter().filter(|change| change.1 != "gate").skip(1).collect();
    assert_eq!(group.len(), 23, "a change for each write that was done, {group:?}");
    assert!(group.iter().all(|change| change.0 == group[0].0), "one transaction: {group:?}");
    let of = |document: &str| {
        let mut own = group.iter().filter(|change| change.1 == document);
        let change = own.next().expect("it is in the log");
        assert!(own.next().is_none(), "once");
        (change.2.as_str(), change.3, change.4.as_str(), change.5.as_str(), change.6.as_str())
    };
    for n in 0..20 {
        assert_eq!(of(&format!("n{n:02}")), ("i", 1, "-", n.to_string().as_str(), "tester"));
        assert_eq!(value(&get(&store, "t", &format!("n{n:02}")).await.data), n);
    }
    assert_eq!(of("a"), ("u", 2, r#"{"n": 1}"#, "7", "tester"));
    assert_eq!(of(pushed.as_str()), ("i", 1, "-", "8", "tester"));
}

#[tokio::test]
async fn a_write_that_fails_leaves_its_neighbours_done_once() {
    let gate = Gate::closed(|_| {}).await;
    let admin = client(gate.store.postgres_config()).await;
    let rule = "CREATE UNIQUE INDEX ON {t} ((data ->> 'u'))".replace("{t}", &gate.ptr);
    let good: Vec<_> = (0..10).map(|n| plain(&gate.store, &format!("n{n}"), "1")).collect();
    let no_json = plain(&gate.store, "bad", "{");
    let no_text = plain(&gate.store, "bad", "\"\\u0000\"");
    let wrong = write(&gate.store, WRITER, "a", "5", Some(77), Scope::default());
    let right = write(&gate.store, WRITER, "a", "6", Some(1), Scope::default());
    let more: Vec<_> = (0..10).map(|n| plain(&gate.store, &format!("m{n}"), "1")).collect();
    let store = gate.open().await;
    for write in good.into_iter().chain(more) {
        assert_eq!(answer(write).await, Ok(1));
    }
    for bad in [no_json, no_text] {
        let refused = answer(bad).await;
        assert!(matches!(refused, Err(StoreError::InvalidInput(_))), "{refused:?}");
    }
    assert_eq!((answer(wrong).await, answer(right).await), (Err(StoreError::Conflict), Ok(2)));
    assert_eq!(store.get(&table("t"), &id("bad")).await, Ok(None));
    assert_eq!(
        log(&store).await.len(),
        2 + 1 + 20 + 1,
        "the documents of the gate, its write, and these, once"
    );

    // A rule of the operator that two writes of one statement break together.
    admin.batch_execute(&rule).await.expect("the rule is made");
    let gate = Gate::new(store, "UPDATE {t} SET data = '2' WHERE id = 'gate'").await;
    let twins: Vec<_> = (0..2).map(|n| plain(&gate.store, &format!("twin{n}"), r#"{"u":1}"#)).collect();
    let other = plain(&gate.store, "a", "9");
    let store = gate.open().await;
    let mut answers = Vec::new();
    for twin in twins {
        answers.push(answer(twin).await);
    }
    answers.sort_by_key(Result::is_err);
    assert_eq!(answers, [Ok(1), Err(StoreError::Taken)]);
    assert_eq!(answer(other).await, Ok(3));
    assert_eq!(store.count(&table("t"), Some(json(r#"{"u":1}"#))).await, Ok(1));
}

#[tokio::test]
async fn writes_of_one_document_keep_their_order() {
    let gate = Gate::closed(|_| {}).await;
    let mut writes = Vec::new();
    for n in 0..30 {
        writes.push(plain(&gate.store, "a", &n.to_string()));
        writes.push(plain(&gate.store, &format!("b{}", n % 3), &n.to_string()));
        tokio::task::yield_now().await;
    }
    let store = gate.open().await;
    let mut versions = Vec::new();
    for write in writes {
        versions.push(answer(write).await.expect("it is written"));
    }
    let of_a: Vec<i64> = versions.iter().copied().step_by(2).collect();
    assert_eq!(of_a, (2..32).collect::<Vec<i64>>());
    assert_eq!(value(&get(&store, "t", "a").await.data), 29);
    let logged: Vec<String> =
        log(&store).await.into_iter().filter(|change| change.1 == "a").map(|change| change.5).collect();
    let mut expected = vec![r#"{"n": 1}"#.to_owned()];
    expected.extend((0..30).map(|n| n.to_string()));
    assert_eq!(logged, expected, "and so does the log");
}

#[tokio::test]
async fn other_operations_and_other_writers_share_it_too() {
    let gate = Gate::closed(|_| {}).await;
    let (one, two) = (Writer { principal: "one" }, Writer { principal: "two" });
    let tasks = [one, two].map(|writer| {
        let lane = Lane([writer.principal.as_bytes()[0]; 16]);
        let name = writer.principal;
        let store = gate.store.scoped(Scope::of(lane));
        tokio::spawn(async move {
            let (t, document, other) = (table("t"), id(name), id(&format!("{name}-2")));
            let nobody = id("nobody");
            let patch = |text: &str| Json::new(text.to_owned().into_bytes());
            tokio::join!(
                store.set(writer, &t, &document, json(r#"{"a":1}"#), None),
                store.update(writer, &t, &document, patch(r#"{"b":2}"#)),
                store.set(writer, &t, &other, json("1"), None),
                store.delete(writer, &t, &other),
                store.update(writer, &t, &nobody, patch("{}")),
                store.delete(writer, &t, &nobody),
            )
        })
    });
    let store = gate.open().await;
    for task in tasks {
        let (set, update, second, delete, no_update, no_delete) = answer(task).await;
        assert_eq!((set, update, second, delete), (Ok(1), Ok(2), Ok(1), Ok(true)));
        assert_eq!((no_update, no_delete), (Err(StoreError::NotFound), Ok(false)));
    }
    let log = log(&store).await;
    for name in ["one", "two"] {
        let both = serde_json::json!({"a": 1, "b": 2});
        assert_eq!(value(&get(&store, "t", name).await.data), both);
        let changes: Vec<_> = log.iter().filter(|change| change.1.starts_with(name)).collect();
        assert_eq!(changes.len(), 4, "{changes:?}");
        assert!(changes.iter().all(|change| change.6 == name), "each has its writer: {changes:?}");
        assert!(changes.iter().all(|change| change.0 == changes[0].0), "one transaction: {changes:?}");
        let deleted = changes.last().expect("there are four");
        assert_eq!((deleted.2.as_str(), deleted.3, deleted.4.as_str()), ("d", 2, "1"));
    }
}

#[tokio::test]
async fn a_document_that_somebody_holds_keeps_only_its_own_writer_waiting() {
    let store = one_line(|options| options.write_connections = 2).await;
    for document in ["gate", "a"] {
        set(&store, "t", document, r#"{"n":1}"#).await;
    }
    // Both rows are held, the second one longer.
    let gate = Gate::new(store, "UPDATE {t} SET data = '2' WHERE id = 'gate'").await;
    let other = client(gate.store.postgres_config()).await;
    let lock = format!("BEGIN; UPDATE {} SET data = '3' WHERE id = 'a'", gate.ptr);
    other.batch_execute(&lock).await.expect("it is locked");
    // One by one, so that the connection that is free is busy with the first of them when the others come.
    let store = gate.store.clone();
    let neighbours: Vec<_> = (0..5).map(|n| plain(&store, &format!("n{n}"), "1")).collect();
    let signal = StopSignal::default();
    let scope = Scope::default().cancelled_by(Arc::clone(&signal));
    let cancelled = write(&store, WRITER, "a", "5", None, scope);
    let scope = Scope::default().lasting(Duration::from_millis(400));
    let late = write(&store, WRITER, "a", "6", None, scope);
    let more: Vec<_> = (5..10).map(|n| plain(&store, &format!("n{n}"), "1")).collect();
    let store = gate.open().await;
    for write in neighbours.into_iter().chain(more) {
        assert_eq!(answer(write).await, Ok(1));
    }
    assert_eq!(answer(late).await, Err(StoreError::Timeout));
    signal.set(()).expect("it is set once");
    assert_eq!(answer(cancelled).await, Err(StoreError::Cancelled));
    other.batch_execute("ROLLBACK").await.expect("the row is free");
    assert_eq!(get(&store, "t", "a").await.version, 1, "neither was done");
    assert_eq!(set(&store, "t", "a", "7").await, 2);
}

/// Backends are ended all the time while many write: what was acknowledged is there, and what was refused is not.
#[tokio::test(flavor = "multi_thread", worker_threads = 2)]
async fn what_is_acknowledged_is_committed_whatever_becomes_of_the_connections() {
    const WRITERS: i64 = 48;
    let store = store_with(|_| {}).await;
    set(&store, "t", "first", "0").await;
    let stop = Arc::new(AtomicBool::new(false));
    let writers: Vec<_> = (0..WRITERS)
        .map(|writer| {
            let (store, stop) = (store.clone(), Arc::clone(&stop));
            tokio::spawn(async move {
                // How often it was surely written, and how often perhaps.
                let (mut done, mut perhaps) = (0, 0);
                let document = id(&format!("w{writer}"));
                while !stop.load(Ordering::Relaxed) {
                    match store.set(WRITER, &table("t"), &document, json(&done.to_string()), None).await {
                        Ok(version) => {
                            done += 1;
                            assert!(
                                version >= done && version <= done + perhaps,
                                "{version}: {done}, {perhaps}"
                            );
                        }
                        Err(StoreError::UnknownOutcome) => perhaps += 1,
                        Err(StoreError::Unavailable { .. }) => {
                            tokio::time::sleep(Duration::from_millis(20)).await
                        }
                        Err(other) => panic!("{other:?}"),
                    }
                }
                (done, perhaps)
            })
        })
        .collect();
    let admin = client(store.postgres_config()).await;
    let until = Instant::now() + Duration::from_secs(4);
    while Instant::now() < until {
        tokio::time::sleep(Duration::from_millis(60)).await;
        // One of those that write: their last statement is a write.
        let sql = "SELECT pg_terminate_backend(pid) FROM pg_stat_activity WHERE pid <> pg_backend_pid() \
                   AND datname = current_database() AND (query LIKE 'INSERT%' OR query = 'COMMIT') LIMIT 1";
        admin.query(sql, &[]).await.expect("a backend is ended");
    }
    stop.store(true, Ordering::Relaxed);
    let (mut total, mut unknown) = (0, 0);
    for (writer, task) in writers.into_iter().enumerate() {
        let (done, perhaps) = answer(task).await;
        let name = format!("w{writer}");
        let found = store.get(&table("t"), &id(&name)).await.expect("the table is there");
        let version = found.map_or(0, |document| document.version);
        assert!(version >= done && version <= done + perhaps, "{name}: {version}, {done} and {perhaps}");
        (total, unknown) = (total + done, unknown + perhaps);
    }
    let changes = log(&store).await;
    for writer in 0..WRITERS {
        let name = format!("w{writer}");
        let versions: Vec<i64> =
            changes.iter().filter(|change| change.1 == name).map(|change| change.3).collect();
        let found = store.get(&table("t"), &id(&name)).await.expect("the table is there");
        let version = found.map_or(0, |document| document.version);
        assert_eq!(versions, (1..=version).collect::<Vec<i64>>(), "the log of {name} has each write once");
    }
    let mut transactions: Vec<&String> = changes.iter().map(|change| &change.0).collect();
    transactions.sort();
    transactions.dedup();
    println!("{total} acknowledged, {unknown} unknown, in {} transactions", transactions.len());
    assert!(total > 500 && unknown > 0, "{total}, {unknown}");
    assert!(transactions.len() * 2 < changes.len(), "they shared few commits");
}

/// Reads by id that wait for a connection are one statement: each gets its own document, or nothing.
#[tokio::test]
async fn reads_that_go_together_get_each_their_own() {
    let store = store_with(|options| options.read_connections = 1).await;
    for n in 0..40 {
        set(&store, "t", &format!("d{n}"), &n.to_string()).await;
    }
    store.delete(WRITER, &table("t"), &id("d7")).await.expect("it is deleted");
    set(&store, "other", "d1", "-1").await;
    // Documents of one table and another, some several times, one that is gone, one that never was, and a table that is not.
    let reads: Vec<_> = (0..400)
        .map(|n: i64| {
            let (store, of) = (store.clone(), n * 7 % 41);
            let name = if n % 50 == 1 { "other" } else { "t" };
            let document = if name == "other" { "d1".to_owned() } else { format!("d{of}") };
            tokio::spawn(async move {
                let found = store.get(&table(name), &id(&document)).await.expect("the table is there");
                (name, of, found.map(|document| value(&document.data)))
            })
        })
        .collect();
    let missing = store.get(&table("missing"), &id("d1")).await;
    assert_eq!(missing, Err(StoreError::NotFound));
    for read in reads {
        let (name, of, found) = answer(read).await;
        let expected = match (name, of) {
            ("other", _) => Some(-1),
            (_, 7 | 40) => None,
            (_, of) => Some(of),
        };
        assert_eq!(found, expected.map(serde_json::Value::from), "{name} {of}");
    }
}
