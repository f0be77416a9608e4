//! `raystream bench` against a real daemon: each scenario, short. What is printed and how much was counted; no time.

use crate::support::{RAYSTREAM, TestDaemon, raystream, shared};
use serde_json::{Value, json};
use std::{
    process::{Command, Stdio},
    time::Duration,
};

/// Both URLs of a daemon: TCP and WebSocket.
fn urls(daemon: &TestDaemon) -> [String; 2] {
    [daemon.url.clone(), daemon.url.replace("raystream://", "raystream+ws://")]
}

/// Runs a scenario for a moment and gives its JSON.
fn bench(url: &str, scenario: &str, more: &[&str]) -> Value {
    let args = [&["--json", "bench", url, scenario, "--duration", "300ms"], more].concat();
    let (status, out, err) = raystream(&args);
    assert_eq!(status, Some(0), "{args:?}: {out}{err}");
    assert_eq!(out.lines().count(), 1, "one object: {out}");
    assert_eq!(err, "", "{args:?}");
    let value: Value = serde_json::from_str(&out).expect("JSON");
    assert_eq!(value["scenario"], scenario);
    assert_eq!(value["transport"], if url.contains("+ws") { "websocket" } else { "tcp" });
    value
}

fn number(value: &Value) -> f64 {
    value.as_f64().unwrap_or_else(|| panic!("{value} is no number"))
}

/// Percentiles in order, a histogram that holds every call, processor time of both.
fn expect_sound(value: &Value, unit: &str) {
    let done = value[unit].as_u64().unwrap_or_else(|| panic!("no {unit} in {value}"));
    assert!(done > 0 && number(&value[format!("{unit}_per_s")]) > 0.0, "{value}");
    let latency = &value["latency_us"];
    let order: Vec<f64> =
        ["min", "p50", "p90", "p99", "p99_9", "p99_99", "max"].map(|name| number(&latency[name])).into();
    assert!(order[0] > 0.0 && order.is_sorted(), "{latency}");
    let histogram = value["histogram"].as_array().expect("rows");
    let counted: u64 = histogram.iter().filter_map(|row| row["count"].as_u64()).sum();
    assert_eq!(counted, done, "{value}");
    assert_eq!(value["errors"], serde_json::json!({}), "{value}");
    assert!(number(&value["cpu_s_per_100k"]["client"]) > 0.0, "{value}");
    assert!(number(&value["cpu_s_per_100k"]["server"]) >= 0.0, "{value}");
}

#[test]
fn calls_are_measured_over_both_transports() {
    let daemon = shared();
    for url in urls(&daemon) {
        for scenario in ["echo", "get", "set", "query", "bulk"] {
            let value = bench(&url, scenario, &["--connections", "2", "--in-flight", "4"]);
            expect_sound(&value, "calls");
            assert_eq!((&value["connections"], &value["in_flight"]), (&2.into(), &4.into()));
            assert_eq!(value["suite"], "NK_ChaChaPoly");
            assert_eq!(value["mb_per_s"].is_number(), scenario == "bulk");
        }
    }
}

#[test]
fn writes_leave_the_table_as_queries_want_it() {
    let daemon = TestDaemon::start();
    let call = |method: &str, args: Value| {
        let (status, out, err) = raystream(&["call", &daemon.url, method, &args.to_string()]);
        assert_eq!(status, Some(0), "{err}");
        serde_json::from_str::<Value>(&out).expect("JSON")
    };
    let in_group =
        |group: u64| call("table.count", json!({"table": "bench", "filter": {"g": group}}))["count"].clone();
    bench(&daemon.url, "set", &["--in-flight", "16"]);
    assert_eq!([0, 1, 99].map(in_group), [10, 10, 10]);
    // As an older one left it: the first documents in another group than theirs.
    for number in 0..5 {
        let id = format!("d{number:08}");
        call("table.set", json!({"table": "bench", "id": id, "data": {"g": 0, "x": ""}}));
    }
    expect_sound(&bench(&daemon.url, "query", &[]), "calls");
    assert_eq!([0, 1, 4].map(in_group), [10, 10, 10]);
    // A page that is not whole is no answer.
    for number in 0..10 {
        call("table.delete", json!({"table": "bench", "id": format!("d{:08}", 100 * number + 2)}));
    }
    let (status, out, err) = raystream(&["--json", "bench", &daemon.url, "query", "--duration", "300ms"]);
    let value: Value = serde_json::from_str(&out).expect("JSON");
    assert!(status == Some(0) && number(&value["errors"]["WRONG_ANSWER"]) > 0.0, "{value}{err}");
}

#[test]
fn an_open_loop_makes_the_calls_that_were_asked_for() {
    let daemon = shared();
    let value = bench(
        &daemon.url,
        "echo",
        &["--rate", "200", "--in-flight", "8", "--cipher", "aes", "--payload", "1KiB"],
    );
    expect_sound(&value, "calls");
    // 200 a second for 300 ms, whatever the machine does meanwhile.
    assert_eq!((&value["calls"], &value["unsent"]), (&60.into(), &0.into()));
    assert_eq!(
        (&value["rate"], &value["payload"], &value["suite"]),
        (&200.into(), &1024.into(), &"NK_AESGCM".into())
    );
}

#[test]
fn subscribers_see_every_event_of_every_burst() {
    let daemon = shared();
    for url in urls(&daemon) {
        let value = bench(&url, "sub", &["--connections", "3", "--in-flight", "5"]);
        expect_sound(&value, "deliveries");
        let bursts = value["bursts"].as_u64().expect("a count");
        assert_eq!(value["deliveries"], bursts * 3 * 5);
        assert!(number(&value["write_us"]["min"]) > 0.0);
    }
}

#[test]
fn handshakes_and_idle_connections_are_counted() {
    let daemon = shared();
    let folder = tempfile::tempdir().expect("a folder");
    let key = folder.path().join("id.key").display().to_string();
    assert_eq!(raystream(&["keygen", "--out", &key]).0, Some(0));
    for url in urls(&daemon) {
        let value = bench(&url, "connect", &["--in-flight", "2", "--identity", &key]);
        expect_sound(&value, "connections");
        assert_eq!(value["suite"], "IK_ChaChaPoly");
        assert_eq!((&value["payload"], &value["in_flight"]), (&Value::Null, &2.into()));
        let value = bench(&url, "idle", &["--connections", "20"]);
        assert_eq!((&value["payload"], &value["in_flight"]), (&Value::Null, &Value::Null));
        assert!(number(&value["server_rss_bytes"]) > 1e6, "{value}");
        // Null when the server had the memory already.
        let each = value.get("server_bytes_per_connection").expect("it is told");
        assert!(each.is_null() || number(each) > 0.0, "{value}");
    }
}

#[test]
fn a_run_ends_with_its_last_connection() {
    let mut daemon = TestDaemon::start();
    let run = |more: &[&str]| {
        Command::new(RAYSTREAM)
            .args(["--json", "bench", &daemon.url, "echo", "--connections", "2", "--duration", "1h"])
            .args(more)
            .stdin(Stdio::null())
            .stdout(Stdio::piped())
            .stderr(Stdio::piped())
            .spawn()
            .expect("it starts")
    };
    let runs = [run(&[]), run(&["--rate", "100", "--in-flight", "4"])];
    // Long enough for a warm-up that is a second; a run that is not so far ends the same way.
    std::thread::sleep(Duration::from_secs(3));
    daemon.kill();
    for (run, is_open) in runs.into_iter().zip([false, true]) {
        let output = run.wait_with_output().expect("it ends");
        let told = String::from_utf8_lossy(&output.stderr);
        assert_eq!(output.status.code(), Some(2), "{told}");
        assert!(told.contains("no connection"), "{told}");
        if let Ok(value) = serde_json::from_slice::<Value>(&output.stdout) {
            let unsent = value["unsent"].as_u64().expect("a number");
            assert_eq!(unsent > 300_000, is_open, "100 a second for an hour: {value}");
            assert!(number(&value["calls"]) > 0.0 && number(&value["elapsed_s"]) < 100.0, "{value}");
        }
    }
}

#[test]
fn what_means_nothing_is_refused_and_what_measured_nothing_says_so() {
    let daemon = shared();
    for (scenario, option, value) in [
        ("idle", "--payload", "1KiB"),
        ("idle", "--in-flight", "2"),
        ("idle", "--rate", "2"),
        ("sub", "--rate", "2"),
        ("connect", "--payload", "1KiB"),
        ("connect", "--connections", "2"),
    ] {
        let (status, _, err) = raystream(&["bench", &daemon.url, scenario, option, value]);
        let expected = format!("error: {option} means nothing for `{scenario}`\n");
        assert_eq!((status, err.as_str()), (Some(64), expected.as_str()));
    }
    let (status, out, err) =
        raystream(&["bench", &daemon.url, "sub", "--duration", "1ms", "--in-flight", "64"]);
    assert_eq!((status, out.as_str()), (Some(1), ""), "{err}");
    assert!(err.starts_with("error: no burst fitted into 1ms\n"), "{err}");
}

#[test]
fn a_person_gets_text_with_a_histogram() {
    let daemon = shared();
    let (status, out, err) = raystream(&["bench", &daemon.url, "echo", "--duration", "200ms"]);
    assert_eq!((status, err.as_str()), (Some(0), ""));
    for part in ["calls/s", "p99.99 ", "no errors", "client ", "server ", "<= ", "###"] {
        assert!(out.contains(part), "{part:?} is not in {out}");
    }
}
