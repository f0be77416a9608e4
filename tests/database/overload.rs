//! Ten times more than Postgres can take: every call is answered, with a success or with when to come back.

use std::sync::Arc;
use std::sync::atomic::{AtomicUsize, Ordering};
use std::time::Instant;

use raystream::wire::ErrorCode;
use serde_json::json;

use crate::daemon::Daemon;
use crate::eventually;
use crate::server::Server;

/// Places for statements in the daemon.
const PLACES: usize = 200;
/// Ten times as many calls, at one moment, from several connections.
const CLIENTS: usize = 10;
const CALLS_OF_EACH: usize = 200;

#[tokio::test(flavor = "multi_thread")]
async fn under_ten_times_the_load_every_call_is_answered_and_then_all_is_well() {
    let server = Server::start(None).await;
    // Nothing but the refusals of overload can end a call early.
    let daemon = Daemon::start(&format!(
        "url = \"{}\"\nwaiting_statements = {PLACES}\nwrite_connections = 1\nlock_timeout = \"10m\"\n\
         statement_timeout = \"10m\"\n",
        server.address("app", "sslmode=disable")
    ));
    let first = daemon.client().await;
    first.call("table.create", &json!({"table": "t"})).await.unwrap();
    first.call("table.set", &json!({"table": "t", "id": "a", "data": 1})).await.unwrap();

    // Postgres does no writes at all for a while.
    let admin = server.admin("app").await;
    let physical: String = admin
        .query_one("SELECT format('%I.%I', ptr_schema, ptr) FROM raystream.storage WHERE name = 't'", &[])
        .await
        .unwrap()
        .get(0);
    admin.batch_execute(&format!("BEGIN; LOCK TABLE {physical} IN SHARE MODE")).await.unwrap();

    let (refused, slowest) = (Arc::new(AtomicUsize::new(0)), Arc::new(AtomicUsize::new(0)));
    let began = Instant::now();
    let mut tasks = Vec::new();
    for client_number in 0..CLIENTS {
        let client = daemon.client().await;
        for call in 0..CALLS_OF_EACH {
            let (client, refused, slowest) = (client.clone(), Arc::clone(&refused), Arc::clone(&slowest));
            tasks.push(tokio::spawn(async move {
                let args = json!({"table": "t", "id": format!("{client_number}-{call}"), "data": 1});
                let asked = Instant::now();
                let Err(error) = client.call("table.set", &args).await else { return true };
                assert_eq!(error.code(), Some(ErrorCode::SERVICE_UNAVAILABLE), "{error}");
                assert!(error.retry_after().is_some_and(|wait| !wait.is_zero()), "{error:?}");
                assert!(error.retryable());
                let took = usize::try_from(asked.elapsed().as_millis()).unwrap();
                slowest.fetch_max(took, Ordering::Relaxed);
                refused.fetch_add(1, Ordering::Relaxed);
                false
            }));
        }
    }
    // More than find no place: those that got one and were not sent do not wait for ever either.
    let many = CLIENTS * CALLS_OF_EACH - PLACES + 1;
    eventually("refusals", async || refused.load(Ordering::Relaxed) >= many).await;
    println!(
        "{} refused while Postgres stood still, the slowest after {} ms; all within {:?}",
        refused.load(Ordering::Relaxed),
        slowest.load(Ordering::Relaxed),
        began.elapsed()
    );

    admin.batch_execute("ROLLBACK").await.unwrap();
    let recovering = Instant::now();
    let mut done = 0;
    for task in tasks {
        done += usize::from(task.await.expect("each call is answered as it should be"));
    }
    let refused = refused.load(Ordering::Relaxed);
    assert_eq!(done + refused, CLIENTS * CALLS_OF_EACH);
    assert!(done > 0, "those that were sent are done");
    for call in 0..PLACES / 2 {
        let args = json!({"table": "t", "id": format!("after-{call}"), "data": 1});
        first.call("table.set", &args).await.expect("all is well again");
    }
    println!("{done} done, {refused} refused; well again after {:?}", recovering.elapsed());
    let count = format!("SELECT count(*) FROM {physical} WHERE id LIKE '%-%' AND id NOT LIKE 'after-%'");
    let stored: i64 = admin.query_one(&count, &[]).await.unwrap().get(0);
    assert_eq!(usize::try_from(stored).unwrap(), done, "what was refused was not done");
}
