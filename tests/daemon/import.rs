//! `raystream import` with lines that cannot be written: what was written is said, and is there.

use super::support::{RAYSTREAM, TestDaemon, raystream, shared};
use serde_json::{Value, json};
use std::io::Write;
use std::process::{Command, Stdio};

/// Imports the text; gives what was said on standard error. It has to fail with exit code 1 and print nothing.
fn failed(daemon: &TestDaemon, options: &[&str], table: &str, text: &str) -> String {
    let mut child = Command::new(RAYSTREAM)
        .args(options)
        .args(["import", &daemon.url, table])
        .stdin(Stdio::piped())
        .stdout(Stdio::piped())
        .stderr(Stdio::piped())
        .spawn()
        .expect("it starts");
    // The command may end before it has read all.
    let _may_be_closed = child.stdin.take().expect("piped").write_all(text.as_bytes());
    let output = child.wait_with_output().expect("it ends");
    let told = String::from_utf8(output.stderr).expect("text");
    assert_eq!((output.status.code(), output.stdout.as_slice()), (Some(1), &b""[..]), "{told}");
    told
}

/// The object that `--json` prints of an error.
fn error(told: &str) -> Value {
    let value: Value = serde_json::from_str(told).expect("one object");
    value["error"].clone()
}

fn count(daemon: &TestDaemon, table: &str) -> Value {
    let (status, out, err) =
        raystream(&["call", &daemon.url, "table.count", &json!({"table": table}).to_string()]);
    assert_eq!(status, Some(0), "{err}");
    serde_json::from_str::<Value>(&out).expect("JSON")["count"].clone()
}

#[test]
fn lines_before_one_that_is_none_are_written_and_counted() {
    let daemon = shared();
    let good: String =
        (0..300).map(|n| format!("{}\n", json!({"id": format!("{n}"), "data": {"n": n}}))).collect();
    let text = format!("{good}nothing\n{{\"data\":1}}\n");
    let told = failed(&daemon, &[], "import_local", &text);
    assert!(told.starts_with("INVALID_REQUEST: line 301: ") && told.contains("\nwritten: 300\n"), "{told}");
    assert_eq!(count(&daemon, "import_local"), 300);

    let told = error(&failed(&daemon, &["--json"], "import_local_json", &text));
    assert_eq!((&told["code"], &told["written"]), (&"INVALID_REQUEST".into(), &300.into()), "{told}");
    assert!(told["message"].as_str().is_some_and(|message| message.starts_with("line 301: ")), "{told}");
    assert_eq!(count(&daemon, "import_local_json"), 300);

    // Nothing was sent before it.
    assert!(failed(&daemon, &[], "import_local", "nothing\n").contains("\nwritten: 0\n"));
}

#[test]
fn what_the_server_wrote_before_it_refused_is_told() {
    let daemon = shared();
    // An id may not be empty.
    let text = "{\"id\":\"a\",\"data\":1}\n{\"id\":\"\",\"data\":2}\n";
    let told = failed(&daemon, &[], "import_refused", text);
    assert!(told.starts_with("INVALID_REQUEST: ") && told.contains("\nwritten: 1\n"), "{told}");
    let told = error(&failed(&daemon, &["--json"], "import_refused", text));
    assert_eq!((&told["code"], &told["written"]), (&"INVALID_REQUEST".into(), &1.into()), "{told}");
    // Both faults are told: that of the line, and that of the server before it.
    let told = failed(&daemon, &[], "import_refused", &format!("{text}nothing\n"));
    assert!(told.contains("INVALID_REQUEST: ") && told.contains("\nwritten: 1\n"), "{told}");
    assert_eq!(count(&daemon, "import_refused"), 1);
}
