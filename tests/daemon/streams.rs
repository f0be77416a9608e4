//! Calls with items, on a real daemon with a real Postgres.
use super::support::{PATIENCE, RAYSTREAM, TestDaemon, raystream, shared};
use raystream::{
    client::{CallStream, Client, Error, Json, Options, StreamOptions},
    wire::ErrorCode,
};
use serde_json::{Value, json};
use std::{
    io::{BufRead, BufReader, Write},
    process::{Command, Stdio},
    time::Duration,
};
use tokio::time::timeout;

async fn connect(daemon: &TestDaemon) -> Client {
    Client::connect(&daemon.url, Options::default()).await.expect("the daemon is there")
}

async fn open(client: &Client, method: &str, args: Value, options: StreamOptions) -> CallStream {
    client.open(method, Json::encode(&args).expect("JSON"), options).await.expect("it is open")
}

async fn next(stream: &mut CallStream) -> Result<Option<Value>, Error> {
    let item = timeout(PATIENCE, stream.next()).await.expect("an item comes in time")?;
    Ok(item.map(|item| item.decode().expect("JSON")))
}

fn code(error: &Error) -> ErrorCode {
    error.code().unwrap_or_else(|| panic!("{error} has a code"))
}

/// Writes documents `0..count` through an import.
async fn import(client: &Client, table: &str, count: u32) -> Value {
    let mut call = open(client, "table.import", json!({"table": table}), StreamOptions::sending()).await;
    for n in 0..count {
        let item = json!({"id": format!("{n:07}"), "data": {"n": n, "third": n % 3}});
        timeout(PATIENCE, call.send(Json::encode(&item).expect("JSON")))
            .await
            .expect("in time")
            .expect("sent");
    }
    call.end();
    timeout(PATIENCE, call.result()).await.expect("in time").expect("written").decode().expect("JSON")
}

/// Statements of streams that Postgres has open.
fn open_streams(daemon: &TestDaemon) -> usize {
    let sessions = "SELECT count(*) FROM pg_stat_activity WHERE query LIKE '%_deleted_txid IS NULL%ORDER BY%' \
                    AND pid <> pg_backend_pid() AND state <> 'idle'";
    daemon.sql(sessions).trim().parse().expect("a number")
}

#[tokio::test]
async fn items_are_echoed_both_ways() {
    let daemon = shared();
    let client = connect(&daemon).await;
    let mut call = open(&client, "sys.echo", json!({}), StreamOptions::both_ways()).await;
    for n in 0..100 {
        // Some are longer than a frame.
        let item = json!({"n": n, "text": "x".repeat(if n % 10 == 0 { 50_000 } else { 3 })});
        call.send(Json::encode(&item).expect("JSON")).await.expect("sent");
        assert_eq!(next(&mut call).await.expect("no error"), Some(item));
    }
    call.end();
    assert_eq!(next(&mut call).await.expect("no error"), None);
    let result: Value = call.result().await.expect("answered").decode().expect("JSON");
    assert_eq!(result, json!({"items": 100}));
}

#[tokio::test]
async fn a_method_refuses_items_that_it_does_not_have() {
    let daemon = shared();
    let client = connect(&daemon).await;
    for (method, options) in [
        ("table.get", StreamOptions::receiving()),
        ("sys.info", StreamOptions::sending()),
        ("table.query", StreamOptions::both_ways()),
        ("sys.echo", StreamOptions::receiving()),
    ] {
        let mut call = open(&client, method, json!({}), options).await;
        let error = next(&mut call).await.expect_err(method);
        assert_eq!(code(&error), ErrorCode::INVALID_REQUEST, "{method}: {error}");
    }
    let args = json!({"table": "none_such"});
    let mut call = open(&client, "table.query", args.clone(), StreamOptions::receiving()).await;
    assert_eq!(code(&next(&mut call).await.expect_err("no table")), ErrorCode::NOT_FOUND);
    let error = client.call("table.import", &args).await.expect_err("no items");
    assert_eq!(code(&error), ErrorCode::INVALID_REQUEST);
}

#[tokio::test]
async fn a_query_streams_everything_in_order_as_of_one_moment() {
    let daemon = shared();
    let client = connect(&daemon).await;
    assert_eq!(import(&client, "streamed", 3_000).await, json!({"written": 3_000}));
    let args = json!({"table": "streamed", "order": "id"});
    let mut call = open(&client, "table.query", args, StreamOptions::receiving()).await;
    let first = next(&mut call).await.expect("no error").expect("an item");
    assert_eq!(first, json!({"id": "0000000", "data": {"n": 0, "third": 0}, "version": 1}));
    // What is written now is later than the moment.
    let late = json!({"table": "streamed", "id": "9999999", "data": {}});
    client.call("table.set", &late).await.expect("written");
    let gone = json!({"table": "streamed", "id": "0002999"});
    client.call("table.delete", &gone).await.expect("deleted");
    for n in 1..3_000 {
        let item = next(&mut call).await.expect("no error").expect("an item");
        assert_eq!(item["data"]["n"], n);
    }
    assert_eq!(next(&mut call).await.expect("no error"), None);
    assert_eq!(call.result().await.expect("answered").as_bytes(), br#"{"count":3000}"#);

    let args = json!({"table": "streamed", "filter": {"third": 2}, "order": "-n", "limit": 10});
    let mut call = open(&client, "table.query", args, StreamOptions::receiving()).await;
    let mut numbers = Vec::new();
    while let Some(item) = next(&mut call).await.expect("no error") {
        numbers.push(item["data"]["n"].as_u64().expect("a number"));
    }
    // 2999 was deleted.
    assert_eq!(numbers, (0..10).map(|n| 2_996 - 3 * n).collect::<Vec<_>>());
}

#[tokio::test]
async fn a_slow_reader_stops_the_portal_and_not_the_daemon() {
    let daemon = TestDaemon::start();
    let client = connect(&daemon).await;
    let fill = "INSERT INTO {table} (id, data, _owner) SELECT to_char(n, 'FM0000000'), \
                jsonb_build_object('n', n, 'text', repeat('x', 500)), '' FROM generate_series(0, 199999) AS n";
    client.call("table.create", &json!({"table": "big"})).await.expect("made");
    daemon.sql(&fill.replace("{table}", &daemon.physical("big")));
    let args = json!({"table": "big", "order": "id"});
    let mut options = StreamOptions::receiving();
    options.window = 8.try_into().expect("not zero");
    let mut call = open(&client, "table.query", args, options).await;
    let first = next(&mut call).await.expect("no error").expect("an item");
    assert_eq!(first["data"]["n"], 0);
    let before = daemon.resident_kib();
    // The same connection goes on meanwhile.
    for n in 0..200 {
        let echo: Value = client.call_typed("sys.echo", &json!({"n": n})).await.expect("answered");
        assert_eq!(echo, json!({"n": n}));
        tokio::time::sleep(Duration::from_millis(5)).await;
    }
    assert_eq!(open_streams(&daemon), 1, "the portal waits for its reader");
    let grown = daemon.resident_kib().saturating_sub(before);
    // 200,000 documents are 100 MB.
    assert!(grown < 16 * 1024, "the daemon grew by {grown} KiB while nobody read");
    for n in 1..200_000 {
        let item = next(&mut call).await.expect("no error").expect("an item");
        assert_eq!(item["data"]["n"], n);
    }
    assert_eq!(call.result().await.expect("answered").as_bytes(), br#"{"count":200000}"#);
    let grown = daemon.resident_kib().saturating_sub(before);
    assert!(grown < 32 * 1024, "the daemon grew by {grown} KiB");
}

/// `cargo test --release --test daemon -- --ignored --nocapture ten_million`: minutes, and about 3 GB of disk.
#[tokio::test]
#[ignore = "takes minutes and gigabytes of disk"]
#[allow(clippy::print_stdout, reason = "prints what it measured")]
async fn ten_million_documents_reach_a_reader_that_dawdles() {
    const COUNT: u64 = 10_000_000;
    let daemon = TestDaemon::start();
    let client = connect(&daemon).await;
    client.call("table.create", &json!({"table": "huge"})).await.expect("made");
    let table = daemon.physical("huge");
    daemon.sql(&format!(
        "ALTER TABLE {table} DISABLE TRIGGER USER; \
         INSERT INTO {table} (id, data, _owner) SELECT to_char(n, 'FM00000000'), \
         jsonb_build_object('n', n, 'text', repeat('x', 40)), '' FROM generate_series(0, {}) AS n; \
         ALTER TABLE {table} ENABLE TRIGGER USER; ANALYZE {table}",
        COUNT - 1
    ));
    let own_kib = || -> u64 {
        let status = std::fs::read_to_string("/proc/self/status").expect("Linux");
        let line = status.lines().find(|line| line.starts_with("VmRSS:")).expect("Linux says VmRSS");
        line.split_whitespace().nth(1).and_then(|kib| kib.parse().ok()).expect("a number")
    };
    let args = json!({"table": "huge", "order": "id"});
    let mut call = open(&client, "table.query", args, StreamOptions::receiving()).await;
    let mut most = (0, 0);
    let before = (daemon.resident_kib(), own_kib());
    let started = std::time::Instant::now();
    for n in 0..COUNT {
        let item =
            timeout(10 * PATIENCE, call.next()).await.expect("in time").expect("no error").expect("one");
        let item: Value = item.decode().expect("JSON");
        assert_eq!(item["data"]["n"], n);
        if n < 20 {
            tokio::time::sleep(Duration::from_secs(1)).await;
        }
        if n < 20 || n % 100_000 == 0 {
            let grown = |now: u64, before: u64| now.saturating_sub(before);
            most.0 = grown(daemon.resident_kib(), before.0).max(most.0);
            most.1 = grown(own_kib(), before.1).max(most.1);
        }
    }
    assert_eq!(call.result().await.expect("answered").as_bytes(), br#"{"count":10000000}"#);
    println!(
        "{COUNT} documents in {:.0} s, 20 of them at one a second; the daemon grew by at most {} KiB, the reader by {} KiB",
        started.elapsed().as_secs_f64(),
        most.0,
        most.1
    );
    assert!(most.0 < 64 * 1024 && most.1 < 64 * 1024, "{most:?}");
}

#[tokio::test]
async fn a_stream_that_is_given_up_stops_in_postgres() {
    let daemon = TestDaemon::start();
    let client = connect(&daemon).await;
    import(&client, "given_up", 20_000).await;
    for turn in 0..20 {
        let mut options = StreamOptions::receiving();
        options.window = 4.try_into().expect("not zero");
        let mut call = open(&client, "table.query", json!({"table": "given_up"}), options).await;
        if turn % 2 == 0 {
            next(&mut call).await.expect("no error").expect("an item");
        }
        drop(call);
    }
    let none_left = async {
        while open_streams(&daemon) > 0 {
            tokio::time::sleep(Duration::from_millis(20)).await;
        }
    };
    timeout(PATIENCE, none_left).await.expect("every stream ends in Postgres");
    // And every slot is free again: more than there are places for streams.
    for _ in 0..20 {
        let args = json!({"table": "given_up", "limit": 1});
        let mut call = open(&client, "table.query", args, StreamOptions::receiving()).await;
        assert!(next(&mut call).await.expect("no error").is_some());
        call.result().await.expect("answered");
    }
}

#[tokio::test]
async fn who_reads_none_of_his_streams_leaves_places_to_others() {
    let daemon = shared();
    let client = connect(&daemon).await;
    client.call("table.create", &json!({"table": "places"})).await.expect("it is made");
    // More than waits between Postgres and a reader.
    import(&client, "places", 10_000).await;
    let query = || open(&client, "table.query", json!({"table": "places"}), StreamOptions::receiving());
    let mut held = Vec::new();
    for _ in 0..4 {
        let mut stream = query().await;
        assert!(next(&mut stream).await.expect("no error").is_some());
        held.push(stream);
    }
    let refused = next(&mut query().await).await.expect_err("four are open");
    assert_eq!(code(&refused), ErrorCode::RATE_LIMITED, "{refused}");
    let other = connect(&daemon).await;
    let mut stream =
        open(&other, "table.query", json!({"table": "places"}), StreamOptions::receiving()).await;
    assert!(next(&mut stream).await.expect("another connection has its own").is_some());
    // A place that is given up is free once Postgres has stopped.
    held.pop();
    let again = async {
        while let Err(error) = next(&mut query().await).await {
            assert_eq!(code(&error), ErrorCode::RATE_LIMITED, "{error}");
            tokio::time::sleep(Duration::from_millis(10)).await;
        }
    };
    timeout(PATIENCE, again).await.expect("the place is free");
}

#[tokio::test]
async fn the_deadline_of_a_stream_holds_for_its_reader_too() {
    let daemon = shared();
    let client = connect(&daemon).await;
    import(&client, "late", 2_000).await;
    let mut options = StreamOptions::receiving();
    options.window = 2.try_into().expect("not zero");
    options.timeout = Some(Duration::from_millis(300));
    let mut call = open(&client, "table.query", json!({"table": "late"}), options).await;
    next(&mut call).await.expect("no error").expect("an item");
    tokio::time::sleep(Duration::from_millis(400)).await;
    let mut error = None;
    while error.is_none() {
        error = next(&mut call).await.err();
    }
    let error = error.expect("an error");
    assert!(matches!(error, Error::Timeout(_)) || code(&error) == ErrorCode::TIMEOUT, "{error}");
}

#[tokio::test]
async fn an_import_that_is_refused_says_how_much_was_written() {
    let daemon = shared();
    let client = connect(&daemon).await;
    let mut call = open(&client, "table.import", json!({"table": "half"}), StreamOptions::sending()).await;
    for item in [json!({"id": "a", "data": 1}), json!({"data": 2}), json!({"id": "b"})] {
        // The refusal may come while we still send.
        let _refused = call.send(Json::encode(&item).expect("JSON")).await;
    }
    call.end();
    let error = timeout(PATIENCE, call.result()).await.expect("in time").expect_err("an item without data");
    assert_eq!(code(&error), ErrorCode::INVALID_REQUEST);
    let Error::Call(answer) = error else { panic!("an answer") };
    let details: Value = serde_json::from_slice(&answer.details).expect("JSON");
    assert_eq!(details, json!({"written": 2}));
    let count: Value = client.call_typed("table.count", &json!({"table": "half"})).await.expect("counted");
    assert_eq!(count, json!({"count": 2}));
}

#[test]
fn the_command_line_imports_what_it_printed() {
    let daemon = shared();
    let mut lines = String::new();
    for n in 0..2_000 {
        lines.push_str(&format!("{}\n", json!({"id": format!("{n:05}"), "data": {"n": n}})));
    }
    let import = |table: &str, text: &str| {
        let mut child = Command::new(RAYSTREAM)
            .args(["import", &daemon.url, table])
            .stdin(Stdio::piped())
            .stdout(Stdio::piped())
            .spawn()
            .expect("it starts");
        child.stdin.take().expect("piped").write_all(text.as_bytes()).expect("it reads");
        let output = child.wait_with_output().expect("it ends");
        (output.status.code(), String::from_utf8(output.stdout).expect("text"))
    };
    assert_eq!(import("cli_in", &lines), (Some(0), "{\"written\":2000}\n".to_owned()));
    let (status, first, _) = raystream(&["query", &daemon.url, "cli_in", "--order", "id"]);
    assert_eq!((status, first.lines().count()), (Some(0), 2_000));
    assert_eq!(import("cli_out", &first), (Some(0), "{\"written\":2000}\n".to_owned()));
    let (_, second, _) = raystream(&["query", &daemon.url, "cli_out", "--order", "id"]);
    assert_eq!(first, second);
    let (status, _, error) = raystream(&["query", &daemon.url, "none_such"]);
    assert_eq!(status, Some(1));
    assert!(error.contains("NOT_FOUND"), "{error}");
    assert_eq!(import("cli_bad", "{\"data\":1}\nnothing\n").0, Some(1));
    // A reader that has enough ends the command quietly.
    let mut child = Command::new(RAYSTREAM)
        .args(["query", &daemon.url, "cli_in"])
        .stdout(Stdio::piped())
        .spawn()
        .expect("it starts");
    let mut line = String::new();
    BufReader::new(child.stdout.take().expect("piped")).read_line(&mut line).expect("a line");
    assert!(child.wait().expect("it ends").success());
}
