//! `call`, `sub` and `ping` as a person or a script runs them: what is printed where, and the exit codes.

use crate::support::{PATIENCE, RAYSTREAM, TestDaemon, raystream};
use std::{
    io::{BufRead, BufReader, Read, Write},
    process::{Child, Command, Stdio},
    time::Instant,
};

/// Runs a command; the parts of the output and the exit code have to be these.
fn expect(args: &[&str], status: i32, out: &str, err: &str) {
    let (got, stdout, stderr) = raystream(args);
    assert_eq!(got, Some(status), "{args:?}: {stdout}{stderr}");
    assert!(stdout.contains(out) && (!out.is_empty() || stdout.is_empty()), "{args:?}: {stdout}");
    assert!(stderr.contains(err) && (!err.is_empty() || stderr.is_empty()), "{args:?}: {stderr}");
}

fn sub(url: &str, more: &[&str]) -> (Child, BufReader<std::process::ChildStdout>) {
    let mut child = Command::new(RAYSTREAM)
        .args(["sub", url, "t"])
        .args(more)
        .stdin(Stdio::null())
        .stdout(Stdio::piped())
        .stderr(Stdio::null())
        .spawn()
        .expect("the binary starts");
    let stdout = BufReader::new(child.stdout.take().expect("stdout is piped"));
    (child, stdout)
}

fn exit_code(mut child: Child) -> Option<i32> {
    let begun = Instant::now();
    while begun.elapsed() < PATIENCE {
        if let Some(status) = child.try_wait().expect("it can be asked") {
            return status.code();
        }
        std::thread::sleep(std::time::Duration::from_millis(5));
    }
    child.kill().expect("it can be killed");
    panic!("it does not end");
}

#[test]
fn results_errors_and_their_exit_codes() {
    let daemon = TestDaemon::start();
    let url = daemon.url.as_str();
    let web = url.replace("raystream://", "raystream+ws://");
    expect(&["call", url, "sys.echo", r#"{"n": 1.10}"#], 0, "{\"n\": 1.10}\n", "");
    expect(&["call", &web, "sys.echo", "{}"], 0, "{}\n", "");
    expect(&["call", url, "sys.echo"], 0, "{}\n", "");
    expect(&["call", url, "no.such"], 1, "", "NOT_FOUND: ");
    expect(&["call", url, "sys.echo", "{\"a\" 1}"], 1, "", "INVALID_REQUEST: the argument is not JSON: ");
    expect(&["call", url, "sys.echo", "{\"a\" 1}"], 1, "", "line 1 column 6");
    expect(&["call", url, "table.get", r#"{"table":"t' --","id":"1"}"#], 1, "", "INVALID_REQUEST: ");
    expect(&["--json", "call", url, "no.such"], 1, "", r#"{"error":{"code":"NOT_FOUND""#);
    expect(&["sub", url, "t"], 1, "", "NOT_FOUND: ");
    expect(&["sub", url, "t", "--filter", "{"], 1, "", "INVALID_REQUEST: the filter is not JSON: ");
}

#[test]
fn the_details_of_an_error_reach_whoever_asked() {
    let daemon = TestDaemon::start();
    let url = daemon.url.as_str();
    let calls = r#"{"calls":[{"method":"table.set","args":{"table":"t","id":"a","data":1}},
                             {"method":"table.update","args":{"table":"t","id":"none","data":{}}}]}"#;
    expect(&["call", url, "table.batch", calls], 1, "", "NOT_FOUND: ");
    expect(&["call", url, "table.batch", calls], 1, "", "\ndetails: in call 1 of the batch\n");
    let (_, _, err) = raystream(&["--json", "call", url, "table.batch", calls]);
    let value: serde_json::Value = serde_json::from_str(&err).expect("one object");
    let error = &value["error"];
    assert_eq!((&error["code"], &error["details"]["index"]), (&"NOT_FOUND".into(), &1.into()), "{err}");
    assert_eq!(
        (&error["retryable"], error.get("retry_after_ms")),
        (&false.into(), Some(&().into())),
        "{err}"
    );
    // Without any there is no such line.
    expect(&["call", url, "no.such"], 1, "", "NOT_FOUND: ");
    assert!(!raystream(&["call", url, "no.such"]).2.contains("details"));
}

#[test]
fn numbers_of_a_filter_keep_their_digits() {
    let daemon = TestDaemon::start();
    let url = daemon.url.as_str();
    let number = "123456789012345678901";
    let doc = format!(r#"{{"table":"t","id":"a","data":{{"n":{number},"t":"whale"}}}}"#);
    expect(&["call", url, "table.set", &doc], 0, "{\"version\":1}\n", "");
    for (number, is_it) in [(number, true), ("123456789012345678902", false)] {
        let filter = format!(r#"{{"n":{number}}}"#);
        let sql = "SELECT id FROM t WHERE data->'n' = $1";
        for command in [
            &["query", url, "t", "--filter", &filter][..],
            &["search", url, "t", "whale", "--filter", &filter],
            &["exec", url, "t", sql, number],
        ] {
            let (status, out, err) = raystream(command);
            assert_eq!(
                (status, out.lines().count()),
                (Some(0), usize::from(is_it)),
                "{command:?}: {out}{err}"
            );
        }
    }
    for command in [&["query", url, "t"][..], &["search", url, "t", "whale"]] {
        let command = [command, &["--filter", "{\"n\" 1}"]].concat();
        expect(&command, 1, "", "INVALID_REQUEST: the filter is not JSON: ");
    }
    expect(&["exec", url, "t", "SELECT id FROM t WHERE data->>'t' = $1", "whale"], 0, "{\"id\":\"a\"}\n", "");
}

#[test]
fn no_connection_is_exit_code_2_with_what_to_do_about_it() {
    let daemon = TestDaemon::start();
    let (key, address) = daemon.url.trim_start_matches("raystream://").split_once('@').expect("a key");
    let other = "ab".repeat(32);
    expect(
        &["call", &format!("raystream://{other}@{address}"), "sys.echo"],
        2,
        "",
        "another key than the one in the URL",
    );
    expect(
        &["ping", &format!("raystream+ws://{other}@{address}")],
        2,
        "",
        "another key than the one in the URL",
    );
    expect(&["sub", &format!("raystream://{key}@127.0.0.1:1"), "t"], 2, "", "nothing listens there");
    expect(&["call", &format!("raystream://{address}"), "sys.echo"], 64, "", "--trust-on-first-use");
    // The key that was seen is told, with the URL to use from now on.
    let args = ["call", &format!("raystream://{address}"), "sys.echo", "--trust-on-first-use"];
    expect(&args, 0, "{}\n", &daemon.url);
    // Nobody answers: an address where something listens and says nothing.
    let silent = std::net::TcpListener::bind("127.0.0.1:0").expect("a port");
    let url = format!("raystream://{key}@{}", silent.local_addr().expect("bound"));
    expect(&["call", &url, "sys.echo", "--timeout", "300ms"], 2, "", "no connection within 300ms");
}

#[test]
fn arguments_come_from_standard_input_too() {
    let daemon = TestDaemon::start();
    for (text, status, expected) in
        [("{\"x\":\n2}".to_owned(), 0, "{\"x\": 2}\n"), ("x".repeat(2 << 20), 1, "PAYLOAD_TOO_LARGE: ")]
    {
        let mut child = Command::new(RAYSTREAM)
            .args(["call", &daemon.url, "sys.echo", "-"])
            .stdin(Stdio::piped())
            .stdout(Stdio::piped())
            .stderr(Stdio::piped())
            .spawn()
            .expect("the binary starts");
        // The command reads no more than it could send.
        let _may_be_closed = child.stdin.take().expect("stdin is piped").write_all(text.as_bytes());
        let output = child.wait_with_output().expect("it ends");
        assert_eq!(output.status.code(), Some(status));
        let printed = if status == 0 { output.stdout } else { output.stderr };
        assert!(String::from_utf8_lossy(&printed).starts_with(expected));
    }
}

#[test]
fn a_subscriber_ends_in_order_on_a_signal_a_closed_pipe_and_its_count() {
    let daemon = TestDaemon::start();
    let url = daemon.url.as_str();
    for id in 1..=3 {
        let args = format!(r#"{{"table":"t","id":"{id}","data":{{"n":{id}}}}}"#);
        expect(&["call", url, "table.set", &args], 0, "{\"version\":1}\n", "");
    }

    let (child, mut stdout) = sub(url, &["--max", "2"]);
    let mut text = String::new();
    stdout.read_to_string(&mut text).expect("text");
    assert_eq!(text.matches("\"type\":\"snapshot\"").count(), 2, "{text}");
    assert_eq!(text.lines().count(), 2, "{text}");
    assert_eq!(exit_code(child), Some(0));

    for signal in ["-INT", "-TERM"] {
        let (child, mut stdout) = sub(url, &[]);
        let mut line = String::new();
        while !line.starts_with("{\"type\":\"snapshot_end\",\"cursor\":\"") {
            line.clear();
            assert!(stdout.read_line(&mut line).expect("text") > 0);
        }
        let sent = Command::new("kill").args([signal, &child.id().to_string()]).status();
        assert!(sent.expect("kill runs").success());
        assert_eq!(exit_code(child), Some(0), "{signal}");
    }

    let (child, stdout) = sub(url, &[]);
    drop(stdout);
    assert_eq!(exit_code(child), Some(0));
    // All of them said goodbye.
    assert!(!daemon.log().contains("cut off without CLOSE"), "{}", daemon.log());
}

#[test]
fn ping_measures_and_says_so_in_json() {
    let daemon = TestDaemon::start();
    for args in [&["--count", "50"][..], &["-c", "50", "--method", "sys.echo", "--cipher", "aes256"]] {
        let (status, out, err) = raystream(&[&["--json", "ping", &daemon.url], args].concat());
        assert_eq!(status, Some(0), "{err}");
        let value: serde_json::Value = serde_json::from_str(&out).expect("JSON");
        let micros = |name: &str| value[name].as_f64().expect("a number");
        assert_eq!(value["count"], 50);
        assert!(micros("handshake_us") > 0.0 && micros("connect_us") > 0.0);
        assert!(micros("min_us") > 0.0 && micros("min_us") <= micros("median_us"));
        assert!(micros("median_us") <= micros("p99_us") && micros("p99_us") <= micros("max_us"));
        let suite = if args.len() > 2 { "NK_AESGCM" } else { "NK_ChaChaPoly" };
        assert_eq!(value["suite"], suite);
    }
    let text = raystream(&["ping", &daemon.url]).1;
    assert!(text.contains("handshake") && text.contains("100 x HEARTBEAT   min "), "{text}");
}
