//! `raystream call` against a server that refuses, and one that cuts the connection.

use crate::server::{Server, config, rpc_error, within};
use raystream::client::IdempotencyKey;
use raystream::conn::Event;
use raystream::wire::{ErrorCode, envelope::RpcCall};
use std::process::{Output, Stdio};
use tokio::task::JoinHandle;

/// Runs `raystream call URL METHOD` with more arguments.
fn call(server: &Server, method: &str, more: &[&str]) -> JoinHandle<Output> {
    let mut command = tokio::process::Command::new(env!("CARGO_BIN_EXE_raystream"));
    command.args(["call", &server.url(), method]).args(more).stdin(Stdio::null()).kill_on_drop(true);
    tokio::spawn(async move { command.output().await.expect("the binary starts") })
}

#[tokio::test]
async fn a_refused_call_is_sent_as_often_as_the_user_says_where_that_is_safe() {
    let server = Server::start(config()).await;
    for (method, more, expected) in [
        ("table.get", &["--retry", "2"][..], 3),
        ("table.get", &["--retry", "0"], 1),
        ("table.get", &["--no-retry"], 1),
        ("table.get", &[], 4),
        ("table.push", &["--retry", "2"], 1),
        ("table.push", &["--retry", "2", "--idempotency-key", "auto"], 3),
    ] {
        let running = call(&server, method, more);
        let mut session = server.accept().await;
        let mut seen: Vec<RpcCall> = Vec::new();
        while let Ok(event) = session.next().await {
            let Event::Call(stream, call) = event else { panic!("{event:?}") };
            let error = rpc_error(ErrorCode::SERVICE_UNAVAILABLE);
            session.connection.respond_error(stream, &error).unwrap();
            seen.push(call);
        }
        // The command waits a moment for the other end to hang up.
        drop(session);
        let output = within(running).await.unwrap();
        assert_eq!(output.status.code(), Some(1));
        assert!(String::from_utf8_lossy(&output.stderr).starts_with("SERVICE_UNAVAILABLE: "));
        assert_eq!(seen.len(), expected, "{method} {more:?}");
        assert_eq!(seen[0].idempotency_key.is_some(), more.contains(&"auto"));
        assert!(seen.iter().all(|call| call.idempotency_key == seen[0].idempotency_key));
    }
}

#[tokio::test]
async fn all_that_an_error_says_is_printed() {
    let server = Server::start(config()).await;
    let details = "{\"n\": 1.10,\n\"t\":\"\u{9b}\"}";
    let shown = "{\"n\": 1.10, \"t\":\"\\u009b\"}";
    let text = format!("RATE_LIMITED: m\ndetails: {shown}\n");
    let json = format!(
        "{{\"error\":{{\"code\":\"RATE_LIMITED\",\"message\":\"m\",\"hint\":null,\"retryable\":true,\
         \"retry_after_ms\":250,\"details\":{shown}}}}}\n"
    );
    for (more, expected) in [(&["--no-retry"][..], &text), (&["--no-retry", "--json"], &json)] {
        let running = call(&server, "table.push", more);
        let mut session = server.accept().await;
        let (stream, _) = session.call().await;
        let mut error = rpc_error(ErrorCode::RATE_LIMITED);
        (error.message, error.retryable) = ("m".to_owned(), true);
        (error.retry_after_ms, error.details) = (250, details.into());
        session.connection.respond_error(stream, &error).unwrap();
        session.end().await;
        drop(session);
        let output = within(running).await.unwrap();
        assert_eq!(output.status.code(), Some(1));
        assert_eq!(String::from_utf8_lossy(&output.stderr), *expected);
    }
}

#[tokio::test]
async fn a_call_without_an_answer_says_the_time_that_it_was_given() {
    let server = Server::start(config()).await;
    let running = call(&server, "table.push", &["--timeout", "2s"]);
    let mut session = server.accept().await;
    session.call().await;
    // Nothing is answered; the other end gives up.
    while session.next().await.is_ok() {}
    drop(session);
    let output = within(running).await.unwrap();
    let told = String::from_utf8(output.stderr).unwrap();
    assert_eq!(output.status.code(), Some(1), "{told}");
    assert!(told.starts_with("TIMEOUT: no answer within 2s; "), "{told}");
}

#[tokio::test]
async fn whoever_does_not_know_whether_it_was_done_is_told_the_key_to_find_out() {
    let server = Server::start(config()).await;
    let running = call(&server, "table.push", &["--no-retry", "--idempotency-key", "auto"]);
    let mut session = server.accept().await;
    let (_, first) = session.call().await;
    session.cut();
    let output = within(running).await.unwrap();
    let told = String::from_utf8(output.stderr).unwrap();
    assert_eq!(output.status.code(), Some(2), "{told}");
    assert!(told.starts_with("UNKNOWN_OUTCOME: "), "{told}");
    let key = IdempotencyKey(first.idempotency_key.expect("it was drawn")).to_string();
    assert!(told.contains(&format!("--idempotency-key {key}")), "{told}");

    let running = call(&server, "table.push", &["--idempotency-key", &key]);
    let mut session = server.accept().await;
    let again = session.echo().await;
    assert_eq!(again.idempotency_key, first.idempotency_key);
    assert_eq!(session.end().await.code(), ErrorCode::NO_ERROR);
    drop(session);
    assert_eq!(within(running).await.unwrap().status.code(), Some(0));
}
