//! Batches and named calls whose connection to Postgres breaks exactly at COMMIT: before it arrives, and once it is done.

use std::process::Command;

use raystream::client::{CallOptions, Client, Error, Json, RetryPolicy};
use raystream::wire::ErrorCode;
use serde_json::{Value, json};

use crate::outcome::{behind_proxy, behind_proxy_with, in_commit, slow_commit};
use crate::proxy::Proxy;
use crate::server::{Server, call, eventually};
use crate::tx::{get, refused};

/// A named call that is sent once: what is tried again here is tried by the daemon.
async fn call_named(client: &Client, key: [u8; 16], method: &str, args: &Value) -> Result<Value, Error> {
    let mut options = CallOptions::default();
    (options.idempotency_key, options.retry) = (Some(key.into()), Some(RetryPolicy::none()));
    client.call_with(method, Json::encode(args)?, options).await?.decode()
}

fn batch() -> Value {
    batch_of(["a", "b"])
}

fn batch_of(ids: [&str; 2]) -> Value {
    let set = |id: &str| json!({"method": "table.set", "args": {"table": "t", "id": id, "data": {"n": 1}}});
    json!({"calls": [set(ids[0]), {"method": "table.push", "args": {"table": "t", "data": 2}}, set(ids[1])]})
}

async fn count(client: &Client) -> Value {
    call(client, "table.count", json!({"table": "t"})).await.unwrap()["count"].take()
}

/// What a call is answered whose COMMIT was cut.
async fn cut(proxy: &Proxy, done: bool, made: impl Future<Output = Result<Value, Error>>) -> Value {
    proxy.cut_at_commit(done);
    let answer = made.await.unwrap_or_else(|error| panic!("done: {done}: {error}"));
    assert!(proxy.has_cut(), "nothing was cut");
    answer
}

#[tokio::test(flavor = "multi_thread", worker_threads = 2)]
async fn a_batch_is_answered_by_what_became_of_it() {
    let (proxy, server, admin) = behind_proxy().await;
    let client = server.client(1).await;
    for (n, done) in (1..).zip([true, false, true]) {
        let answer = cut(&proxy, done, call(&client, "table.batch", batch())).await;
        assert_eq!(answer["results"][0], json!({"version": n}), "done: {done}");
        // Each once: what was done is not done again, what was not is.
        assert_eq!(count(&client).await, n + 2, "done: {done}");
        let id = answer["results"][1]["id"].as_str().unwrap();
        assert_eq!(get(&client, id).await, 2, "the answer is that of the effect");
    }
    let logged = "SELECT count(*) FROM raystream.changes";
    assert_eq!(admin.query_one(logged, &[]).await.unwrap().get::<_, i64>(0), 9, "each change once");
}

#[tokio::test(flavor = "multi_thread", worker_threads = 2)]
async fn a_named_call_is_answered_by_what_became_of_it() {
    let (proxy, server, _admin) = behind_proxy().await;
    let client = server.client(1).await;
    for (n, done) in (0..).zip([true, false, true, false]) {
        let push = json!({"table": "t", "data": {"n": n}});
        let answer = cut(&proxy, done, call_named(&client, [n; 16], "table.push", &push)).await;
        let stored = call_named(&client, [n; 16], "table.push", &push).await.unwrap();
        assert_eq!(answer, stored, "the reply that is stored: {done}");
        assert_eq!(count(&client).await, n + 1, "done: {done}");
    }
    for (n, done) in (10..).zip([true, false]) {
        let answer = cut(&proxy, done, call_named(&client, [n; 16], "table.batch", &batch())).await;
        let stored = call_named(&client, [n; 16], "table.batch", &batch()).await.unwrap();
        assert_eq!(answer, stored, "done: {done}");
    }
    assert_eq!(count(&client).await, 4 + 4, "two documents, and one more with each batch");
}

/// It has nothing to lose, so nobody is asked.
#[tokio::test(flavor = "multi_thread", worker_threads = 2)]
async fn a_batch_that_reads_is_run_again() {
    let (proxy, server, admin) = behind_proxy().await;
    let client = server.client(1).await;
    call(&client, "table.set", json!({"table": "t", "id": "a", "data": 1})).await.unwrap();
    // Even after a crash, when nobody could be believed.
    let reading = json!({"calls": [{"method": "table.get", "args": {"table": "t", "id": "a"}},
                                   {"method": "table.count", "args": {"table": "t"}}]});
    for done in [true, false] {
        admin.batch_execute("UPDATE raystream.lifetime SET token = gen_random_uuid()").await.unwrap();
        let answer = cut(&proxy, done, call(&client, "table.batch", reading.clone())).await;
        assert_eq!(answer["results"], json!([{"data": 1, "version": 1}, {"count": 1}]));
    }
}

/// The process does not notice that its connection is gone and goes on with COMMIT: it is ended, so that it is decided.
#[tokio::test(flavor = "multi_thread", worker_threads = 2)]
async fn a_process_that_still_commits_a_batch_is_ended_and_the_batch_is_done_once() {
    let (proxy, server, admin) = behind_proxy().await;
    slow_commit(&admin, &server).await;
    let client = server.client(1).await;
    let made = tokio::spawn({
        let client = client.clone();
        async move { call(&client, "table.batch", batch()).await }
    });
    eventually("it commits", async || in_commit(&admin).await == 1).await;
    admin
        .batch_execute(
            "CREATE OR REPLACE FUNCTION public.slow() RETURNS trigger LANGUAGE plpgsql AS \
                         $$ BEGIN RETURN NULL; END $$",
        )
        .await
        .unwrap();
    proxy.cut();
    assert_eq!(
        made.await.unwrap().unwrap()["results"][0],
        json!({"version": 1}),
        "the first one was rolled back"
    );
    assert_eq!(count(&client).await, 3);
}

/// After a crash the id of a transaction may be another one's: then only a key tells.
#[tokio::test(flavor = "multi_thread", worker_threads = 2)]
async fn after_a_crash_only_a_key_tells() {
    let (proxy, server, admin) = behind_proxy().await;
    let client = server.client(1).await;
    call(&client, "table.batch", batch()).await.unwrap();
    // The mark that a crash removes, removed by hand while the connections live.
    let crash = async || {
        admin.batch_execute("UPDATE raystream.lifetime SET token = gen_random_uuid()").await.unwrap()
    };
    crash().await;
    proxy.cut_at_commit(true);
    assert_eq!(refused(call(&client, "table.batch", batch()).await), (ErrorCode::UNKNOWN_OUTCOME, None));
    assert!(proxy.has_cut());
    // The next one is on a connection from before the second crash too.
    call(&client, "table.batch", batch()).await.unwrap();
    crash().await;
    let before = count(&client).await;
    let push = json!({"table": "t", "data": 1});
    let answer = cut(&proxy, true, call_named(&client, [9; 16], "table.push", &push)).await;
    assert_eq!(count(&client).await.as_i64(), before.as_i64().map(|count| count + 1));
    assert_eq!(call_named(&client, [9; 16], "table.push", &push).await.unwrap(), answer);
}

/// The process does not notice that its connection is gone, and cannot be ended. The next attempt waits for it at the row of the key, and
/// that it waited in vain says nothing about it.
#[tokio::test(flavor = "multi_thread", worker_threads = 2)]
async fn a_named_call_that_waits_in_vain_for_its_own_first_attempt_is_unknown() {
    let (proxy, server, admin, _) = behind_proxy_with("lock_timeout = \"500ms\"\n").await;
    let client = server.client(1).await;
    slow_commit(&admin, &server).await;
    let made = tokio::spawn({
        let client = client.clone();
        async move {
            let push = json!({"table": "t", "data": 1});
            call_named(&client, [1; 16], "table.push", &push).await
        }
    });
    eventually("it commits", async || in_commit(&admin).await == 1).await;
    let committing = "SELECT pid FROM pg_stat_activity WHERE query = 'COMMIT' AND state = 'active' \
                      AND application_name = 'raystream' AND datname = current_database()";
    let process: i32 = admin.query_one(committing, &[]).await.unwrap().get(0);
    let _goes_on = Stopped::new(process);
    proxy.cut();
    assert_eq!(refused(made.await.unwrap()), (ErrorCode::UNKNOWN_OUTCOME, None));
}

/// A process that stands still until this is dropped.
struct Stopped(i32);

impl Stopped {
    fn new(process: i32) -> Self {
        let stopped = Self(process);
        assert!(stopped.signal("-STOP"), "it is stopped");
        stopped
    }

    fn signal(&self, name: &str) -> bool {
        Command::new("kill").args([name, &self.0.to_string()]).status().unwrap().success()
    }
}

impl Drop for Stopped {
    fn drop(&mut self) {
        self.signal("-CONT");
    }
}

#[tokio::test(flavor = "multi_thread", worker_threads = 2)]
async fn a_batch_that_nobody_can_be_asked_about_is_unknown() {
    let (mut proxy, server, admin) = behind_proxy().await;
    let made = |server: &Server, key: Option<u8>| {
        let url = server.url.clone();
        tokio::spawn(async move {
            let client = crate::server::connect(&url, 1).await.unwrap();
            match key {
                None => call(&client, "table.batch", batch()).await,
                Some(key) => call_named(&client, [key; 16], "table.batch", &batch_of(["c", "d"])).await,
            }
        })
    };
    slow_commit(&admin, &server).await;
    let calls = [made(&server, None), made(&server, Some(1))];
    eventually("both commit", async || in_commit(&admin).await == 2).await;
    proxy.close().await;
    // Not that nothing was done, though the next attempt of the named one found no connection.
    for call in calls {
        assert_eq!(refused(call.await.unwrap()), (ErrorCode::UNKNOWN_OUTCOME, None));
    }
    proxy.open();
}
