//! Schemas that are set while others write: no table ends with a schema and a document that was there and does not fit.

use std::sync::Arc;
use std::sync::atomic::{AtomicBool, Ordering};
use std::time::{Duration, Instant};

use futures_util::future::join_all;
use raystream::client::Error;
use raystream::wire::ErrorCode;
use serde_json::{Value, json};

use crate::server::{PATIENCE, Server, call, code, eventually};

fn numbers(table: &str) -> Value {
    json!({"table": table, "schema": {"properties": {"n": {"type": "integer"}}}})
}

async fn physical(admin: &tokio_postgres::Client, table: &str) -> String {
    let name = "SELECT format('%I.%I', ptr_schema, ptr) FROM raystream.storage WHERE name = $1";
    admin.query_one(name, &[&table]).await.unwrap().get(0)
}

#[tokio::test(flavor = "multi_thread", worker_threads = 2)]
async fn what_is_committed_behind_the_first_reading_is_read_with_and_without_the_log() {
    let server = Server::start().await;
    let (client, writer, watcher) = (server.client(1).await, server.admin().await, server.admin().await);
    // A log that does not go back to the moment of the first reading.
    let forgets =
        "UPDATE raystream.meta SET horizon = ((pg_current_xact_id()::text::bigint + 1)::text)::xid8";
    call(&client, "table.create", json!({"table": "u"})).await.unwrap();
    for (table, log) in [("t", ""), ("u", forgets)] {
        for id in ["a", "late"] {
            let set = json!({"table": table, "id": id, "data": {"n": 1}});
            call(&client, "table.set", set).await.unwrap();
        }
        let documents = physical(&writer, table).await;
        let begin = format!(
            "BEGIN; UPDATE {documents} SET data = '{{\"n\": \"x\"}}' WHERE id = 'late'; \
             INSERT INTO {documents} (id, data) VALUES ('later', '{{\"n\": []}}'), ('of use', '{{\"n\": 2}}'); {log}"
        );
        writer.batch_execute(&begin).await.unwrap();
        let setting = tokio::spawn({
            let client = client.clone();
            async move { call(&client, "table.setSchema", numbers(table)).await }
        });
        eventually("the schema waits for the writer", async || {
            let waiting = "SELECT count(*) FROM pg_stat_activity \
                           WHERE query LIKE '%raystream.set_schema%' AND wait_event_type = 'Lock'";
            watcher.query_one(waiting, &[]).await.unwrap().get::<_, i64>(0) == 1
        })
        .await;
        writer.batch_execute("COMMIT").await.unwrap();
        let Err(Error::Call(refused)) = setting.await.unwrap() else { panic!("it is refused") };
        let details: Value = serde_json::from_slice(&refused.details).unwrap();
        assert_eq!(
            (&details["code"], &details["count"]),
            (&json!("SCHEMA_UNFIT"), &json!(2)),
            "{table}: {details}"
        );
        assert_eq!(details["ids"], json!(["late", "later"]));
        let shown = call(&client, "table.schema", json!({"table": table})).await.unwrap();
        assert_eq!(shown["schema"], Value::Null);
        // And it is set when they are gone.
        for id in ["late", "later"] {
            call(&client, "table.delete", json!({"table": table, "id": id})).await.unwrap();
        }
        call(&client, "table.setSchema", numbers(table)).await.unwrap();
    }
}

#[tokio::test(flavor = "multi_thread", worker_threads = 2)]
async fn a_table_that_is_written_all_the_time_never_has_a_schema_and_a_misfit() {
    let server = Server::start().await;
    let other = server.another();
    let (client, far, admin) = (server.client(1).await, other.client(1).await, server.admin().await);
    let documents = physical(&admin, "t").await;
    let is_over = Arc::new(AtomicBool::new(false));
    let writers: Vec<_> = (0..4)
        .map(|writer| {
            let client = if writer % 2 == 0 { client.clone() } else { far.clone() };
            let is_over = Arc::clone(&is_over);
            tokio::spawn(async move {
                let set = |n: Value| json!({"table": "t", "id": format!("w{writer}"), "data": {"n": n}});
                while !is_over.load(Ordering::SeqCst) {
                    // For a moment only: mostly all of them fit.
                    let misfit = call(&client, "table.set", set(json!("x"))).await;
                    if misfit.is_err() {
                        let code = code(misfit);
                        assert!(
                            [ErrorCode::INVALID_REQUEST, ErrorCode::CONFLICT].contains(&code),
                            "{code:?}"
                        );
                    }
                    while let Err(error) = call(&client, "table.set", set(json!(1))).await {
                        assert_eq!(error.code(), Some(ErrorCode::CONFLICT), "{error}");
                    }
                    tokio::time::sleep(Duration::from_millis(5 * (writer + 1))).await;
                }
            })
        })
        .collect();
    let misfits = format!(
        "SELECT count(*) FROM {documents} WHERE _deleted_txid IS NULL AND jsonb_typeof(data -> 'n') <> 'number'"
    );
    let (began, mut set) = (Instant::now(), 0);
    while set < 10 {
        assert!(began.elapsed() < PATIENCE, "{set} were set");
        match call(&client, "table.setSchema", numbers("t")).await {
            Ok(_) => {
                let there: i64 = admin.query_one(&*misfits, &[]).await.unwrap().get(0);
                assert_eq!(there, 0, "of a table with a schema");
                set += 1;
                let none = json!({"table": "t", "schema": null});
                while let Err(error) = call(&client, "table.setSchema", none.clone()).await {
                    assert_eq!(error.code(), Some(ErrorCode::CONFLICT), "{error}");
                }
            }
            refused => {
                let code = code(refused);
                assert!([ErrorCode::INVALID_REQUEST, ErrorCode::CONFLICT].contains(&code), "{code:?}");
            }
        }
    }
    is_over.store(true, Ordering::SeqCst);
    for ended in join_all(writers).await {
        ended.unwrap();
    }
}
