//! The generated SQL, on a real Postgres without any extension.

use raystream::webhook::{
    WebhookChangeKind, generate_cleanup_function, generate_notify_function, generate_trigger_ddl,
    parse_webhook_event,
};

use crate::postgres::{client, database};

#[tokio::test(flavor = "multi_thread", worker_threads = 2)]
async fn the_statements_are_valid_and_fill_an_outbox_with_events() {
    let config = database().await;
    let admin = client(&config).await;
    // A table with capitals and words of SQL, of somebody who has no right on the outbox.
    admin
        .batch_execute(
            "CREATE ROLE webhook_writer; CREATE SCHEMA \"Shop\"; GRANT USAGE ON SCHEMA \"Shop\" TO webhook_writer; \
             CREATE TABLE \"Shop\".\"select\" (id int PRIMARY KEY, total numeric, note text); \
             GRANT ALL ON \"Shop\".\"select\" TO webhook_writer; CREATE TABLE plain (id text); \
             CREATE TABLE many (id int, numbers numeric[]) PARTITION BY LIST (id); \
             CREATE TABLE one PARTITION OF many FOR VALUES IN (1)",
        )
        .await
        .unwrap();
    let ddl = [
        generate_notify_function("https://gateway.example/webhook?a=%27").unwrap(),
        generate_trigger_ddl("Shop.select").unwrap(),
        generate_trigger_ddl("plain").unwrap(),
        generate_trigger_ddl("many").unwrap(),
        generate_cleanup_function(),
    ]
    .concat();
    for _ in 0..2 {
        admin.batch_execute(&ddl).await.unwrap();
    }
    let extensions = admin.query_one("SELECT string_agg(extname, ',') FROM pg_extension", &[]).await.unwrap();
    assert_eq!(extensions.get::<_, String>(0), "plpgsql");

    // Each in a transaction of its own.
    for statements in [
        "SET ROLE webhook_writer",
        "INSERT INTO \"Shop\".\"select\" VALUES (7, 1.50, 'a')",
        "UPDATE \"Shop\".\"select\" SET total = 'NaN'",
        "BEGIN; DELETE FROM \"Shop\".\"select\"; ROLLBACK",
        "DELETE FROM \"Shop\".\"select\"",
        "RESET ROLE",
        "INSERT INTO plain VALUES (repeat('x', 1000000))",
        // A few bytes as they are stored, and a million as text.
        "INSERT INTO many VALUES (1, array_fill(1e131071::numeric, ARRAY[8]))",
        "TRUNCATE plain, many",
    ] {
        admin.batch_execute(statements).await.unwrap();
    }
    // The statement of the documentation that takes events out.
    let take = "DELETE FROM raystream_webhook.outbox AS o USING ( \
            SELECT n.id FROM raystream_webhook.outbox AS n ORDER BY n.id LIMIT 100 FOR UPDATE SKIP LOCKED) AS next \
        WHERE o.id = next.id RETURNING o.id, o.url, o.event::text";
    let mut rows = admin.query(take, &[]).await.unwrap();
    rows.sort_by_key(|row| row.get::<_, i64>(0));
    assert!(rows.iter().all(|row| row.get::<_, String>(1) == "https://gateway.example/webhook?a=%27"));
    let events: Vec<_> =
        rows.iter().map(|row| parse_webhook_event(row.get::<_, String>(2).as_bytes()).unwrap()).collect();
    let kinds: Vec<_> = events.iter().map(|event| event.kind).collect();
    use WebhookChangeKind::{Delete, Insert, Update};
    assert_eq!(
        kinds,
        [Insert, Update, Delete, Insert, Insert, Delete, Delete],
        "what was rolled back is not told, and each row that TRUNCATE removes is"
    );
    let tables: Vec<_> = events[3..].iter().map(|event| event.table.as_str()).collect();
    assert_eq!(tables, ["plain", "one", "plain", "one"]);
    assert!(events[..3].iter().all(|event| event.table == "select" && event.id.as_deref() == Some("7")));
    let image = |image: &Option<Box<serde_json::value::RawValue>>| -> serde_json::Value {
        serde_json::from_str(image.as_ref().unwrap().get()).unwrap()
    };
    assert_eq!(image(&events[1].data)["total"], "NaN");
    assert_eq!(image(&events[1].old_data)["note"], "a");
    for told in [&events[3].data, &events[4].data, &events[5].old_data, &events[6].old_data] {
        assert!(image(told)["_too_large"].as_i64().unwrap() > 1_000_000, "{told:?}");
    }

    // What nobody takes is removed when it is old.
    admin.batch_execute("INSERT INTO plain SELECT n::text FROM generate_series(1, 5) AS n").await.unwrap();
    admin.batch_execute("UPDATE raystream_webhook.outbox SET at = now() - interval '8 days' WHERE event->'new'->>'id' < '4'").await.unwrap();
    let cleanup = async |call: &str| -> i64 {
        admin.query_one(&format!("SELECT raystream_webhook.cleanup({call})"), &[]).await.unwrap().get(0)
    };
    assert_eq!(cleanup("most => 2").await, 2);
    assert_eq!(cleanup("").await, 1);
    assert_eq!(cleanup("").await, 0);
    assert!(admin.query_one("SELECT raystream_webhook.cleanup('-1 day')", &[]).await.is_err());
    let left = admin.query_one("SELECT count(*) FROM raystream_webhook.outbox", &[]).await.unwrap();
    assert_eq!(left.get::<_, i64>(0), 2);
    // Nobody else fills it from a table of his own.
    let stranger = "CREATE SCHEMA own AUTHORIZATION webhook_writer; GRANT USAGE ON SCHEMA raystream_webhook TO webhook_writer; \
                    SET ROLE webhook_writer; CREATE TABLE own.t (id int)";
    admin.batch_execute(stranger).await.unwrap();
    let refused = admin.batch_execute(&generate_trigger_ddl("own.t").unwrap()).await.unwrap_err();
    assert_eq!(refused.code(), Some(&tokio_postgres::error::SqlState::INSUFFICIENT_PRIVILEGE));

    // Nor does a type of his own get into the functions, which run with their owner's rights.
    let slipped = "CREATE FUNCTION pg_temp.slip(pg_catalog.jsonb) RETURNS bool LANGUAGE plpgsql AS \
                       $$ BEGIN RAISE EXCEPTION 'ran as %', current_user; END $$; \
                   CREATE DOMAIN pg_temp.jsonb AS pg_catalog.jsonb CHECK (pg_temp.slip(VALUE)); \
                   INSERT INTO \"Shop\".\"select\" VALUES (8, 1, 'b')";
    // A session that has compiled none of them.
    client(&config).await.batch_execute(slipped).await.unwrap();
}
