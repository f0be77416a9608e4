//! `table.exec` in a transaction of the caller: what it sees, and that nothing of it stays behind.

use raystream::wire::ErrorCode;
use serde_json::{Value, json};

use crate::server::{call, code, eventually};
use crate::tx::{Tx, in_transaction, refused, rolled_back};
use crate::world::World;

async fn rows(tx: &Tx, table: &str, sql: &str) -> Value {
    let result = tx.call("table.exec", json!({"table": table, "sql": sql})).await;
    result.unwrap_or_else(|error| panic!("{sql}: {error}"))["rows"].take()
}

#[tokio::test(flavor = "multi_thread")]
async fn a_statement_sees_the_moment_of_its_transaction_and_what_that_did() {
    let world = World::start().await;
    let count = "SELECT count(*) AS n FROM tasks";
    let tx = Tx::snapshot(&world.client).await;
    call(&world.client, "table.set", json!({"table": "tasks", "id": "later", "data": {}})).await.unwrap();
    assert_eq!(rows(&tx, "tasks", count).await, json!([{"n": 4}]), "not what others did since");
    tx.call("table.delete", json!({"table": "tasks", "id": "t-1"})).await.unwrap();
    tx.call("table.set", json!({"table": "tasks", "id": "own", "data": {"title": "mine"}})).await.unwrap();
    tx.call("table.push", json!({"table": "tasks", "data": {"title": "mine"}})).await.unwrap();
    let mine = "SELECT count(*) AS n FROM tasks WHERE data->>'title' = 'mine'";
    assert_eq!(rows(&tx, "tasks", mine).await, json!([{"n": 2}]));
    assert_eq!(rows(&tx, "tasks", count).await, json!([{"n": 5}]));
    assert_eq!(world.rows(mine).await, json!([{"n": 0}]), "others see none of it");
    // A table that nobody else can see yet.
    tx.call("table.create", json!({"table": "fresh"})).await.unwrap();
    tx.call("table.set", json!({"table": "fresh", "id": "a", "data": {"n": 7}})).await.unwrap();
    assert_eq!(rows(&tx, "fresh", "SELECT data->'n' AS n FROM fresh").await, json!([{"n": 7}]));
    tx.commit().await.unwrap();
    assert_eq!(world.rows(count).await, json!([{"n": 6}]));

    let reading = Tx::begin(&world.client, json!({"read_only": true})).await.unwrap();
    assert_eq!(rows(&reading, "tasks", mine).await, json!([{"n": 2}]));
    assert_eq!(refused(reading.set("a", 1).await), (ErrorCode::INVALID_REQUEST, None));
    reading.commit().await.unwrap();

    let step = |method: &str, args: Value| json!({"method": method, "args": args});
    let batch = json!({"calls": [
        step("table.set", json!({"table": "tasks", "id": "b", "data": {"title": "mine"}})),
        step("table.exec", json!({"table": "tasks", "sql": mine})),
        step("table.set", json!({"table": "t", "id": "n", "data": {"$ref": [1, "rows", 0, "n"]}})),
        step("table.exec", json!({"table": "t", "sql": "SELECT data AS d FROM t WHERE id = $1", "params": ["n"]})),
    ]});
    let results = call(&world.client, "table.batch", batch).await.unwrap();
    assert_eq!(results["results"][1], json!({"rows": [{"n": 3}]}));
    assert_eq!(results["results"][3], json!({"rows": [{"d": 3}]}));
}

/// Each kind of failure, and then a write, which the role could not do, a statement that reads what it may not see, and the
/// commit.
#[tokio::test(flavor = "multi_thread")]
async fn a_statement_that_fails_leaves_the_transaction_as_it_was() {
    let world = World::start().await;
    let fill = format!(
        "INSERT INTO {} (id, data) SELECT 'x-' || n, '{{\"same\": \"yes\"}}' FROM generate_series(1, 30000) AS n",
        world.ptr("tasks").await
    );
    world.admin.batch_execute(&fill).await.unwrap();
    let long = "SELECT count(*) FROM tasks a JOIN tasks b ON a.data->>'same' = b.data->>'same' \
                WHERE a.id || b.id LIKE '%never%'";
    let tx = Tx::snapshot(&world.client).await;
    for (n, (sql, expected)) in [
        ("SELECT 1 / (_version - _version) AS x FROM tasks", ErrorCode::INVALID_REQUEST),
        ("SELECT (data->>'title')::int FROM tasks", ErrorCode::INVALID_REQUEST),
        ("SELECT data->>'title', count(*) FROM tasks", ErrorCode::INVALID_REQUEST),
        ("SELECT id FROM tasks", ErrorCode::PAYLOAD_TOO_LARGE),
        ("SELECT id FROM users", ErrorCode::INVALID_REQUEST),
        (long, ErrorCode::TIMEOUT),
    ]
    .into_iter()
    .enumerate()
    {
        let failed = tx.call("table.exec", json!({"table": "tasks", "sql": sql})).await;
        let (code, transaction) = refused(failed);
        assert_eq!((code, transaction), (expected, None), "{sql}");
        let id = format!("w-{n}");
        tx.call("table.set", json!({"table": "t", "id": id, "data": {}})).await.unwrap();
        assert_eq!(tx.call("table.count", json!({"table": "t"})).await.unwrap(), json!({"count": n + 1}));
        assert_eq!(rows(&tx, "t", "SELECT count(*) AS n FROM t").await, json!([{"n": n + 1}]));
    }
    assert_eq!(rows(&tx, "tasks", "SELECT count(*) AS n FROM tasks").await, json!([{"n": 30_004}]));
    tx.commit().await.unwrap();
    assert_eq!(call(&world.client, "table.count", json!({"table": "t"})).await.unwrap(), json!({"count": 6}));

    // In a batch it is all or nothing.
    let batch = json!({"calls": [
        {"method": "table.set", "args": {"table": "t", "id": "never", "data": 1}},
        {"method": "table.exec", "args": {"table": "t", "sql": "SELECT 1 / (_version - _version) AS x FROM t"}},
    ]});
    assert_eq!(code(call(&world.client, "table.batch", batch.clone()).await), ErrorCode::INVALID_REQUEST);
    let tx = Tx::snapshot(&world.client).await;
    assert_eq!(refused(tx.call("table.batch", batch).await), rolled_back(ErrorCode::INVALID_REQUEST));
    assert_eq!(call(&world.client, "table.count", json!({"table": "t"})).await.unwrap(), json!({"count": 6}));
}

/// The session goes back to what it was, and is used again by others.
#[tokio::test(flavor = "multi_thread")]
async fn the_role_ends_with_its_statement_and_with_its_transaction() {
    let world = World::start().await;
    // Each write says as whom.
    let log = format!(
        "CREATE TABLE public.writers (who text, may_write text, mem text, role_ text); \
         CREATE FUNCTION public.note() RETURNS trigger LANGUAGE plpgsql AS $$ BEGIN \
           INSERT INTO public.writers VALUES (current_user, current_setting('transaction_read_only'), \
             current_setting('work_mem'), current_setting('role')); RETURN NULL; END $$; \
         CREATE TRIGGER note AFTER INSERT ON {} FOR EACH ROW EXECUTE FUNCTION public.note()",
        world.ptr("t").await
    );
    world.admin.batch_execute(&log).await.unwrap();
    let tx = Tx::snapshot(&world.client).await;
    tx.call("table.set", json!({"table": "t", "id": "before", "data": 1})).await.unwrap();
    rows(&tx, "tasks", "SELECT id FROM tasks").await;
    tx.call("table.set", json!({"table": "t", "id": "behind", "data": 1})).await.unwrap();
    tx.commit().await.unwrap();
    // One that is stopped in the middle of a statement, and one on the same connections afterwards.
    let fill = format!(
        "INSERT INTO {} (id, data) SELECT 'x-' || n, '{{\"same\": \"yes\"}}' FROM generate_series(1, 30000) AS n",
        world.ptr("tasks").await
    );
    world.admin.batch_execute(&fill).await.unwrap();
    let long = "SELECT count(*) FROM tasks a JOIN tasks b ON a.data->>'same' = b.data->>'same' \
                WHERE a.id || b.id LIKE '%never%'";
    let stopped = Tx::snapshot(&world.client).await;
    let exec = stopped.call("table.exec", json!({"table": "tasks", "sql": long}));
    assert!(tokio::time::timeout(std::time::Duration::from_millis(300), exec).await.is_err());
    eventually("it is rolled back", async || in_transaction(&world.admin).await == 0).await;
    eventually("nothing of it runs", async || crate::server::active(&world.admin).await.0 == 0).await;
    for n in 0..3 {
        let tx = Tx::snapshot(&world.client).await;
        tx.call("table.set", json!({"table": "t", "id": format!("again-{n}"), "data": 1})).await.unwrap();
        tx.commit().await.unwrap();
    }
    let writers = "SELECT count(*), count(DISTINCT (who, may_write, mem, role_)), \
                   bool_or(who = 'raystream_exec' OR may_write = 'on' OR role_ <> 'none') FROM public.writers";
    let row = world.admin.query_one(writers, &[]).await.unwrap();
    assert_eq!((row.get::<_, i64>(0), row.get::<_, i64>(1), row.get::<_, bool>(2)), (5, 1, false));
}

/// The second wall, with what the daemon sends: whatever a statement could say there, it changes nothing.
#[tokio::test(flavor = "multi_thread")]
async fn behind_the_savepoint_nothing_can_be_written_whoever_one_becomes() {
    let world = World::start().await;
    let ptr = world.ptr("t").await;
    let enter = "BEGIN; SAVEPOINT raystream_exec; SET LOCAL transaction_read_only = on; SET LOCAL ROLE raystream_exec";
    for escape in [
        "SELECT 1".to_owned(),
        "SELECT set_config('transaction_read_only', 'off', true)".to_owned(),
        "SELECT set_config('transaction_read_only', 'off', false)".to_owned(),
        "SELECT set_config('default_transaction_read_only', 'off', false)".to_owned(),
        "SELECT set_config('role', 'none', false)".to_owned(),
        "SAVEPOINT deeper; SET LOCAL transaction_read_only = off".to_owned(),
        "SET TRANSACTION READ WRITE".to_owned(),
    ] {
        world.admin.batch_execute(enter).await.unwrap();
        let _refused_or_not = world.admin.batch_execute(&escape).await;
        let write = format!("INSERT INTO {ptr} (id, data) VALUES ('x', '1')");
        let error = world.admin.batch_execute(&write).await.expect_err(&escape);
        assert!(["25006", "25P02", "42501"].contains(&error.code().unwrap().code()), "{escape}: {error:?}");
        let leave = "ROLLBACK TO SAVEPOINT raystream_exec; RELEASE SAVEPOINT raystream_exec";
        world.admin.batch_execute(leave).await.unwrap();
        // As before: the transaction goes on, as whoever it was, and may write.
        world
            .admin
            .batch_execute(&format!("{write}; ROLLBACK"))
            .await
            .unwrap_or_else(|e| panic!("{escape}: {e:?}"));
        let row =
            world.admin.query_one("SELECT current_setting('role'), current_user::text", &[]).await.unwrap();
        assert_eq!(row.get::<_, String>(0), "none", "{escape}");
        assert_ne!(row.get::<_, String>(1), "raystream_exec", "{escape}");
    }
}

/// What a statement read counts, though the session went back behind it.
#[tokio::test(flavor = "multi_thread")]
async fn what_a_statement_read_counts_for_the_order_of_serializable_transactions() {
    let world = World::start().await;
    let begin = async || Tx::begin(&world.client, json!({"isolation": "serializable"})).await.unwrap();
    let (one, other) = (begin().await, begin().await);
    let done = "SELECT count(*) AS n FROM tasks WHERE data->>'done' = 'true'";
    // Each closes a task because it saw that another one is open: write skew.
    for tx in [&one, &other] {
        assert_eq!(rows(tx, "tasks", done).await, json!([{"n": 2}]));
    }
    let close = async |tx: &Tx, id: &str| {
        tx.call("table.set", json!({"table": "tasks", "id": id, "data": {"done": true}})).await
    };
    close(&one, "t-1").await.unwrap();
    let second = close(&other, "t-4").await;
    one.commit().await.unwrap();
    let lost = match second {
        Ok(_) => other.commit().await,
        Err(error) => Err(error),
    };
    assert_eq!(refused(lost), rolled_back(ErrorCode::CONFLICT));
}
