//! What goes with a call: metadata there, trailers and times back.

use super::support::{TestDaemon, raystream, shared};
use raystream::client::{CallOptions, Client, Json, Options, Response};
use raystream::wire::ErrorCode;
use serde_json::Value;
use std::time::Instant;

const TIMES: [&str; 4] = ["time-queue-us", "time-crypto-us", "time-dispatch-us", "time-database-us"];

fn with_times() -> CallOptions {
    CallOptions { times: true, ..CallOptions::default() }
}

fn pairs(count: usize) -> Vec<(String, String)> {
    (0..count).map(|n| (format!("k{n}"), "v".repeat(n))).collect()
}

/// The four times in microseconds, which have to be the first trailers.
fn times(response: &Response) -> [u128; 4] {
    let names: Vec<_> = response.trailers.iter().take(4).map(|(name, _)| name.as_str()).collect();
    assert_eq!(names, TIMES);
    TIMES.map(|name| response.trailer(name).unwrap().parse().unwrap())
}

async fn connect(daemon: &TestDaemon, transport: &str) -> Client {
    Client::connect(&daemon.url.replace("raystream://", transport), Options::default()).await.unwrap()
}

#[tokio::test]
async fn times_are_there_when_asked_for_and_fit_into_the_round_trip() {
    let daemon = shared();
    for transport in ["raystream://", "raystream+ws://"] {
        let client = connect(&daemon, transport).await;
        let set = r#"{"table": "times", "id": "a", "data": {"n": 1}}"#;
        let get = r#"{"table": "times", "id": "a"}"#;
        let calls = [("table.set", set), ("table.get", get), ("sys.echo", set), ("sys.info", "{}")];
        for (method, args) in calls.iter().cycle().take(40) {
            let begun = Instant::now();
            let response = client.call_response(method, Json::new(*args), with_times()).await.unwrap();
            let round_trip = begun.elapsed().as_micros();
            let times = times(&response);
            assert!(times.iter().sum::<u128>() <= round_trip, "{method}: {times:?} in {round_trip}");
            // A statement on a real database takes some microseconds; what never waits has waited for nothing.
            assert_eq!(times[3] > 0, method.starts_with("table."), "{method}: {times:?}");
            let plain = client.call_response(method, Json::new(*args), CallOptions::default()).await.unwrap();
            assert_eq!(plain.trailers, []);
        }
        let error = client.call_response("table.get", Json::new("{}"), with_times()).await.unwrap_err();
        assert_eq!(error.code(), Some(ErrorCode::INVALID_REQUEST));
    }
}

#[tokio::test]
async fn metadata_reaches_the_handler_and_trailers_come_back() {
    let daemon = shared();
    let client = connect(&daemon, "raystream://").await;
    for count in [0, 1, 32] {
        let options = CallOptions { metadata: pairs(count), ..CallOptions::default() };
        let response = client.call_response("sys.echo", Json::new("{}"), options).await.unwrap();
        assert_eq!(response.trailers, pairs(count));
        // The times come first; there are never more trailers than a client takes.
        let options = CallOptions { metadata: pairs(count), ..with_times() };
        let response = client.call_response("sys.echo", Json::new("{}"), options).await.unwrap();
        times(&response);
        assert_eq!(response.trailers[4..], pairs(count.min(28)));
    }
    // Nobody else's word is taken for a time.
    let forged = vec![("time-queue-us".to_owned(), "forged".to_owned())];
    let options = CallOptions { metadata: forged, ..with_times() };
    times(&client.call_response("sys.echo", Json::new("{}"), options).await.unwrap());
    // Too many, or too long: the call is refused and the connection goes on.
    for metadata in [pairs(33), vec![("k".repeat(1_025), String::new())]] {
        let options = CallOptions { metadata, ..CallOptions::default() };
        let error = client.call_response("sys.echo", Json::new("{}"), options).await.unwrap_err();
        assert_eq!(error.code(), Some(ErrorCode::INVALID_REQUEST), "{error}");
    }
    client.call("sys.echo", &Value::Null).await.unwrap_err();
    assert_eq!(
        client.call_typed::<_, Value>("sys.echo", &serde_json::json!({"n": 1})).await.unwrap()["n"],
        1
    );
}

#[test]
fn the_command_line_sends_metadata_and_prints_times() {
    let daemon = shared();
    let url = daemon.url.as_str();
    let key = "0123456789abcdef0123456789ABCDEF";
    let run = |more: &[&str]| raystream(&[&["call", url, "sys.echo", r#"{"n": 1.10}"#], more].concat());

    let (status, out, err) = run(&["--metadata", "trace=a=b", "--metadata", "empty=", "--times"]);
    assert_eq!((status, out.as_str()), (Some(0), "{\"n\": 1.10}\n"), "{err}");
    let lines: Vec<_> = err.lines().collect();
    assert_eq!(lines[4..], ["trace: a=b", "empty: "]);
    for (line, name) in lines.iter().zip(TIMES) {
        let time = line.strip_prefix(name).and_then(|rest| rest.strip_prefix(": ")).expect("its name");
        time.parse::<u64>().expect("microseconds");
    }

    let (status, out, err) = run(&["--json", "--times", "--metadata", "a=\x1b[2J", "--metadata", "a=2"]);
    assert_eq!((status, err.as_str()), (Some(0), ""));
    assert!(out.starts_with(r#"{"result":{"n": 1.10},"trailers":{"#) && !out.contains('\x1b'), "{out}");
    let value: Value = serde_json::from_str(&out).unwrap();
    assert_eq!(value["trailers"]["a"], "\x1b[2J");
    assert!(TIMES.iter().all(|name| value["trailers"][name].is_string()), "{out}");

    // Without --times the output is what it always was.
    for more in
        [&["--metadata", "a=1"][..], &["--json"], &["--idempotency-key", key], &["--idempotency-key", "auto"]]
    {
        assert_eq!(run(more), (Some(0), "{\"n\": 1.10}\n".to_owned(), String::new()), "{more:?}");
    }
    for more in [&["--retry", "3"][..], &["--retry", "0"], &["--no-retry"]] {
        assert_eq!(run(more).0, Some(0), "{more:?}");
    }
}

#[test]
fn what_the_command_line_cannot_mean_is_exit_code_64() {
    let url = format!("raystream://{}@127.0.0.1:1", "ab".repeat(32));
    for (more, word) in [
        (&["--metadata", "x"][..], "it is not KEY=VALUE"),
        (&["--metadata", "=x"], "it is not KEY=VALUE"),
        (&["--idempotency-key", "123"], "32 hexadecimal digits"),
        (&["--retry", "1001"], "--retry"),
        (&["--retry", "many"], "--retry"),
        (&["--retry", "2", "--no-retry"], "cannot be used with"),
    ] {
        let (status, out, err) = raystream(&[&["call", &url, "sys.echo"], more].concat());
        assert_eq!((status, out.as_str()), (Some(64), ""), "{more:?}: {err}");
        assert!(err.contains(word), "{more:?}: {err}");
    }
}

#[test]
fn more_metadata_than_a_call_carries_is_the_servers_refusal() {
    let daemon = shared();
    let many: Vec<String> = (0..33).map(|n| format!("--metadata=k{n}=v")).collect();
    let many: Vec<&str> = many.iter().map(String::as_str).collect();
    let (status, out, err) = raystream(&[&["call", &daemon.url, "sys.echo"], &many[..]].concat());
    assert_eq!((status, out.as_str()), (Some(1), ""));
    assert!(err.starts_with("INVALID_REQUEST: "), "{err}");
}
