//! `raystream publish`, and `raystream sub` of a topic.

use super::support::{RAYSTREAM, raystream, shared};
use std::io::Write;
use std::process::{Command, Stdio};

fn line(args: &[&str]) -> serde_json::Value {
    let (status, out, err) = raystream(args);
    assert_eq!((status, err.as_str()), (Some(0), ""), "{args:?}");
    assert_eq!(out.matches('\n').count(), 1, "{out}");
    serde_json::from_str(&out).expect("one JSON object")
}

fn refused(args: &[&str], exit: i32, words: &str) {
    let (status, out, err) = raystream(args);
    assert_eq!((status, out.as_str()), (Some(exit), ""), "{args:?}: {err}");
    assert!(err.contains(words), "{args:?}: {err}");
}

#[test]
fn an_event_is_published_and_watched_from_the_command_line() {
    let daemon = shared();
    let url = daemon.url.as_str();
    let first = line(&["publish", url, "shell.news", "1"]);
    let published = line(&["publish", url, "shell.news", r#"{"n": 1.0}"#]);
    let from = first["cursor"].as_str().expect("a cursor");
    let seen = line(&["sub", url, "--topic", "shell.news", "--from", from, "--max", "1"]);
    assert_eq!(
        (&seen["type"], &seen["kind"], &seen["id"]),
        (&"event".into(), &"publish".into(), &published["id"])
    );
    assert_eq!((&seen["data"], &seen["old"]), (&serde_json::json!({"n": 1.0}), &serde_json::Value::Null));
    let filter =
        ["sub", url, "--topic", "shell.news", "--from", from, "--max", "1", "--filter", r#"{"n":1}"#];
    assert_eq!(line(&filter)["id"], published["id"]);

    // From standard input, under a key: the second is the first.
    let key = "00112233445566778899aabbccddeeff";
    let by_pipe = || {
        let mut child = Command::new(RAYSTREAM)
            .args(["publish", url, "shell.piped", "-", "--idempotency-key", key])
            .stdin(Stdio::piped())
            .stdout(Stdio::piped())
            .spawn()
            .expect("the binary starts");
        child.stdin.take().expect("stdin is piped").write_all(b"\"piped\"").expect("it reads");
        let output = child.wait_with_output().expect("it ends");
        assert!(output.status.success());
        output.stdout
    };
    assert_eq!(by_pipe(), by_pipe());

    refused(&["publish", url, "no topic", "1"], 1, "INVALID_REQUEST: the field `topic`");
    refused(&["publish", url, "news", "{"], 1, "INVALID_REQUEST: the event is not JSON");
    refused(&["sub", url, "--topic", "news", "--overflow", "conflate"], 1, "INVALID_REQUEST: ");
    refused(&["sub", url, "tasks", "--topic", "news"], 64, "cannot be used with");
    refused(&["sub", url], 64, "required");
}
