//! Time, rows, bytes, digits; and the role, which would hold without the guard.

use std::time::Instant;

use raystream::client::Error;
use raystream::sql::limits::ROWS_MAX;
use raystream::wire::ErrorCode;
use serde_json::{Value, json};
use tokio_postgres::error::SqlState;

use crate::server::{call, code};
use crate::world::World;

/// Makes many documents, past the daemon.
async fn fill(world: &World, count: u64, data: &str) {
    let sql = format!(
        "INSERT INTO {} (id, data) SELECT 'x-' || n, {data} FROM generate_series(1, {count}) AS n",
        world.ptr("tasks").await
    );
    world.admin.batch_execute(&sql).await.unwrap();
}

#[tokio::test(flavor = "multi_thread")]
async fn a_result_has_bounds_in_rows_and_in_bytes() {
    let world = World::start().await;
    fill(&world, ROWS_MAX - 4, "'{}'").await;
    let all = "SELECT _version FROM tasks";
    assert_eq!(world.rows(all).await.as_array().unwrap().len(), usize::try_from(ROWS_MAX).unwrap());
    fill_one(&world, "one-more", "'{}'").await;
    assert_eq!(code(world.exec(all, &[]).await), ErrorCode::PAYLOAD_TOO_LARGE);
    assert_eq!(world.rows("SELECT count(*) AS n FROM tasks").await, json!([{"n": ROWS_MAX + 1}]));

    fill_one(&world, "long", "jsonb_build_object('t', repeat('x', 900000))").await;
    let long = "SELECT data->>'t' AS t FROM tasks WHERE id = 'long'";
    let rows = world.rows(long).await;
    assert_eq!(rows[0]["t"].as_str().unwrap().len(), 900_000);
    let doubled = "SELECT (data->>'t') || (data->>'t') AS t FROM tasks WHERE id = 'long'";
    assert_eq!(code(world.exec(doubled, &[]).await), ErrorCode::PAYLOAD_TOO_LARGE);
    let two = "SELECT data->>'t' AS a, data->>'t' AS b FROM tasks WHERE id = 'long'";
    assert_eq!(code(world.exec(two, &[]).await), ErrorCode::PAYLOAD_TOO_LARGE);
    assert_eq!(
        world.rows("SELECT count(*) AS n FROM tasks").await[0]["n"],
        json!(ROWS_MAX + 2),
        "it goes on"
    );
}

async fn fill_one(world: &World, id: &str, data: &str) {
    let sql = format!("INSERT INTO {} (id, data) VALUES ('{id}', {data})", world.ptr("tasks").await);
    world.admin.batch_execute(&sql).await.unwrap();
}

/// Statements of exec that Postgres works on.
async fn active(world: &World) -> i64 {
    let sql = "SELECT count(*) FROM pg_stat_activity WHERE application_name = 'raystream exec' AND state = 'active' \
               AND datname = current_database()";
    world.admin.query_one(sql, &[]).await.unwrap().get(0)
}

#[tokio::test(flavor = "multi_thread")]
async fn a_statement_that_takes_long_is_stopped_in_postgres() {
    let world = World::start().await;
    fill(&world, 30_000, r#"'{"same": "yes"}'"#).await;
    let long = "SELECT count(*) FROM tasks a JOIN tasks b ON a.data->>'same' = b.data->>'same' \
                WHERE a.id || b.id LIKE '%never%'";
    let begun = Instant::now();
    assert_eq!(code(world.exec(long, &[]).await), ErrorCode::TIMEOUT);
    // Postgres says so a moment after it has sent the end of it.
    crate::server::eventually("it has ended", async || active(&world).await == 0).await;
    println!("stopped after {:?}", begun.elapsed());
    // A caller that leaves.
    let left = tokio::time::timeout(std::time::Duration::from_millis(300), world.exec(long, &[])).await;
    assert!(left.is_err());
    crate::server::eventually("it is stopped", async || active(&world).await == 0).await;
    assert_eq!(world.rows("SELECT count(*) FROM tasks").await, json!([{"count": 30_004}]));
}

#[tokio::test(flavor = "multi_thread")]
async fn numbers_keep_their_digits_and_get_no_more_than_they_need() {
    let world = World::start().await;
    assert_eq!(
        world.rows("SELECT (data->>'n')::numeric * 0.1 AS x FROM tasks WHERE id = 't-3'").await[0]["x"]
            .to_string(),
        "0.3"
    );
    for sql in [
        "SELECT (data->>'big')::numeric * (data->>'big')::numeric AS x FROM tasks WHERE id = 't-4'",
        "SELECT ((data->>'big') || '0000000000000')::numeric AS x FROM tasks WHERE id = 't-4'",
        "SELECT 1 / (_version - _version) AS x FROM tasks",
        "SELECT (data->>'title')::int FROM tasks",
        "SELECT data->>'title', count(*) FROM tasks",
    ] {
        let error = world.exec(sql, &[]).await.unwrap_err();
        assert_eq!(error.code(), Some(ErrorCode::INVALID_REQUEST), "{sql}: {error}");
        let Error::Call(error) = error else { panic!("{sql}") };
        let details: Value = serde_json::from_slice(&error.details).unwrap();
        assert_eq!(details["sqlstate"].as_str().unwrap().len(), 5, "{sql}");
        assert!(!error.message.contains("Write docs"), "{sql}: {}", error.message);
    }
}

#[tokio::test(flavor = "multi_thread")]
async fn the_role_sees_five_columns_of_documents_and_nothing_else() {
    let world = World::start().await;
    let ptr = world.ptr("tasks").await;
    world.admin.batch_execute("SET ROLE raystream_exec").await.unwrap();
    for sql in [
        format!("SELECT * FROM {ptr}"),
        format!("SELECT _owner FROM {ptr}"),
        format!("UPDATE {ptr} SET data = '{{}}'"),
        format!("DELETE FROM {ptr}"),
        format!("SELECT id FROM {ptr} FOR UPDATE"),
        "SELECT * FROM raystream.changes".to_owned(),
        "SELECT * FROM raystream.storage".to_owned(),
        "SELECT * FROM raystream.idempotency".to_owned(),
        "CREATE TABLE raystream.x (a int)".to_owned(),
        "SELECT raystream.create_table('a', 'b')".to_owned(),
        "SELECT pg_read_file('/etc/passwd')".to_owned(),
    ] {
        let error = world.admin.batch_execute(&sql).await.expect_err(&sql);
        assert_eq!(error.code(), Some(&SqlState::INSUFFICIENT_PRIVILEGE), "{sql}: {error:?}");
    }
    world
        .admin
        .batch_execute(&format!("SELECT id, data, _version, _order, _deleted_txid FROM {ptr}"))
        .await
        .unwrap();
    world.admin.batch_execute("RESET ROLE").await.unwrap();
    let bytes =
        call(&world.client, "table.exec", json!({"table": "users", "sql": "SELECT data FROM users"})).await;
    assert_eq!(bytes.unwrap()["rows"], json!([{"data": {"secret": "s3cret"}}]));
}

/// Who may not make roles gets everything else.
#[tokio::test(flavor = "multi_thread")]
async fn without_its_role_exec_fails_and_nothing_else_does() {
    use raystream::sql::guard;
    use raystream::store::{ExecError, Json, Store, StoreError, StoreOptions, TableName, Writer};

    let mut database = crate::postgres::database().await;
    let admin = crate::postgres::client(&database).await;
    let name = database.get_dbname().unwrap().to_owned();
    let plain = format!("plain_{name}");
    let sql = format!("CREATE ROLE {plain} LOGIN; GRANT CREATE ON DATABASE {name} TO {plain}");
    admin.batch_execute(&sql).await.unwrap();
    database.user(&plain);
    let mut options = StoreOptions::new(database);
    options.create_tables = true;
    let store = Store::connect(options).await.unwrap();
    let table = TableName::parse("tasks").unwrap();
    store.push(Writer::new("me"), &table, Json::new("{}")).await.unwrap();
    assert_eq!(store.count(&table, None).await, Ok(1));
    let statement = std::sync::Arc::new(guard("tasks", "SELECT id FROM tasks", &[]).unwrap());
    assert_eq!(store.exec(&table, statement.clone()).await, Err(ExecError::Store(StoreError::Internal)));
    // What an operator does about it.
    admin
        .batch_execute(&format!(
            "DO $$ BEGIN CREATE ROLE raystream_exec; EXCEPTION WHEN duplicate_object THEN NULL; END $$; \
             GRANT raystream_exec TO {plain}; GRANT USAGE ON SCHEMA raystream TO raystream_exec; \
             SELECT raystream.open_to_exec(ptr) FROM raystream.storage"
        ))
        .await
        .unwrap();
    assert_eq!(store.exec(&table, statement).await.map(|rows| rows.len()), Ok(1));
}

#[tokio::test(flavor = "multi_thread")]
async fn values_of_a_large_table_are_not_gathered_into_one() {
    let world = World::start().await;
    let gather = "SELECT length(string_agg(data->>'t', ',')) AS n FROM tasks";
    assert_eq!(world.rows(gather).await, json!([{"n": null}]));
    // Not compressible, so that the table is as large as its documents.
    let noise = "(SELECT jsonb_build_object('t', string_agg(md5(m || random()::text), '')) FROM generate_series(1, 25000) AS m)";
    fill(&world, 50, noise).await;
    assert_eq!(code(world.exec(gather, &[]).await), ErrorCode::PAYLOAD_TOO_LARGE);
    assert_eq!(world.rows("SELECT count(data->>'t') AS n FROM tasks").await, json!([{"n": 50}]));
}

#[tokio::test(flavor = "multi_thread")]
async fn documents_that_are_small_only_as_stored_are_not_gathered_into_one() {
    let world = World::start().await;
    let numbers = "(SELECT jsonb_build_object('l', jsonb_agg(0)) FROM generate_series(1, 320000))";
    fill(&world, 3, numbers).await;
    let of = |values: &str| format!("SELECT {values} FROM tasks");
    // Each copy of them counts, in one value, in several, and in one that is gathered of what was gathered.
    let copies = "data->'l' || (data->'l') || (data->'l')";
    let thrice = format!("jsonb_array_length(jsonb_agg({copies}))");
    let each = (1..=3).map(|n| format!("jsonb_array_length(jsonb_agg(data->'l' || '{n}'))"));
    let again = "SELECT jsonb_array_length(jsonb_agg(x.a || x.a)) AS n \
                 FROM (SELECT jsonb_agg(data) AS a FROM tasks GROUP BY id) AS x";
    let once = "jsonb_array_length(jsonb_agg(jsonb_build_object('id', id, 'l', data->'l')))";
    assert_eq!(world.rows(&of(&format!("{once} AS n"))).await, json!([{"n": 7}]));
    for values in [thrice, each.collect::<Vec<_>>().join(", ")] {
        assert_eq!(code(world.exec(&of(&values), &[]).await), ErrorCode::PAYLOAD_TOO_LARGE, "{values}");
    }
    assert_eq!(code(world.exec(again, &[]).await), ErrorCode::PAYLOAD_TOO_LARGE);

    // What is not a document's counts for each row, however it is written.
    let long = "x".repeat(250_000);
    for sql in [
        "SELECT length(string_agg($1::text || id, '')) FROM tasks",
        "SELECT length(string_agg(x.a || x.a || x.a || x.a || x.a || x.a || x.a, '')) \
         FROM (SELECT left($1::text, 250000) AS a FROM tasks) AS x",
    ] {
        let is_much = sql.contains("x.a");
        let result = world.exec(sql, &[&long]).await;
        assert_eq!(result.is_err(), is_much, "{sql}: {result:?}");
        if is_much {
            assert_eq!(code(result), ErrorCode::PAYLOAD_TOO_LARGE);
        }
    }

    let more = numbers.replace("'l'", "'m'");
    let sql = format!(
        "INSERT INTO {} (id, data) SELECT 'y-' || n, {more} FROM generate_series(1, 60) AS n",
        world.ptr("tasks").await
    );
    world.admin.batch_execute(&sql).await.unwrap();
    let stored = format!("SELECT pg_table_size('{}')", world.ptr("tasks").await);
    let stored: i64 = world.admin.query_one(&stored, &[]).await.unwrap().get(0);
    assert!(stored < 8 * 1024 * 1024, "{stored}");
    let begun = Instant::now();
    assert_eq!(code(world.exec(&of(once), &[]).await), ErrorCode::PAYLOAD_TOO_LARGE);
    println!("refused after {:?}", begun.elapsed());
    assert_eq!(world.rows(&of("count(data) AS n")).await, json!([{"n": 67}]));
}
