//! Calls across the loss of a connection.

use crate::server::{Server, Session, config, rpc_error, within};
use futures_util::FutureExt;
use raystream::client::{Client, ConnectReason, Error, Options, ReconnectPolicy, Status, SubscribeOptions};
use raystream::conn::{ConnectionError, Event};
use raystream::wire::ErrorCode;
use serde_json::{Value, json};
use std::collections::BTreeSet;
use std::time::Duration;
use tokio::task::JoinHandle;

fn spawn_call(client: &Client, method: &'static str, args: Value) -> JoinHandle<Result<Value, Error>> {
    let client = client.clone();
    tokio::spawn(async move { client.call_typed(method, &args).await })
}

/// Waits until the client knows that it has no connection.
async fn lost(client: &Client) {
    within(async {
        client.status().wait_for(|status| !matches!(status, Status::Connected(_))).await.map(|_| ())
    })
    .await
    .unwrap();
}

#[tokio::test]
async fn a_call_on_its_way_has_an_unknown_outcome_and_a_later_one_waits_for_the_next_connection() {
    let server = Server::start(config()).await;
    let (client, mut session) = server.connect().await;
    let sent = spawn_call(&client, "table.push", json!({}));
    session.call().await;
    session.cut();
    let error = sent.await.unwrap().unwrap_err();
    assert!(
        matches!(&error, Error::UnknownOutcome { method, cause: ConnectionError::Truncated } if method == "table.push"),
        "{error:?}"
    );
    assert!(!error.retryable());
    lost(&client).await;
    let later = spawn_call(&client, "later", json!([1]));
    let mut session = server.accept().await;
    assert_eq!(session.echo().await.method, "later");
    assert_eq!(later.await.unwrap().unwrap(), json!([1]));
}

#[tokio::test]
async fn a_call_that_is_made_again_does_not_leave_on_the_connection_that_was_lost_as_well() {
    let server = Server::start(config()).await;
    let (client, mut session) = server.connect().await;
    let serve = async {
        let (stream, _) = session.subscription().await;
        session.subscribed(stream, "p", false).await;
        stream
    };
    let (subscription, stream) = tokio::join!(client.subscribe(SubscribeOptions::new("t")), serve);
    let _subscription = subscription.unwrap();
    // The server reads nothing: the transport fills up, then the room before it, and then the connection.
    let mut calls = Vec::new();
    for n in 0..200 {
        calls.push(spawn_call(&client, "table.push", json!([n, "x".repeat(40_000)])));
        tokio::time::sleep(Duration::from_millis(2)).await;
    }
    // The snapshot of a subscription ends once.
    session.subscribed(stream, "q", true).await;
    session.subscribed(stream, "r", true).await;
    lost(&client).await;
    let ran = async |session: &mut Session, answers: bool| {
        let mut ran = BTreeSet::new();
        while let Ok(event) = session.next().await {
            if let Event::Call(stream, call) = event {
                let args: Value = serde_json::from_slice(&call.args).unwrap();
                assert!(ran.insert(args[0].as_u64().unwrap()), "{} came twice", args[0]);
                if answers {
                    session.respond(stream, "1").await;
                }
            }
        }
        ran
    };
    // Now it reads on: what still comes belongs to calls of which nobody knows whether they ran.
    let first = ran(&mut session, false).await;
    let mut next = server.accept().await;
    let unknown = async {
        let mut unknown = 0;
        for call in calls {
            match within(call).await.unwrap() {
                Err(Error::UnknownOutcome { .. }) => unknown += 1,
                other => drop(other.unwrap()),
            }
        }
        client.close().await;
        unknown
    };
    let (unknown, second) = tokio::join!(unknown, ran(&mut next, true));
    assert!(first.is_disjoint(&second), "made twice: {:?}", first.intersection(&second).collect::<Vec<_>>());
    assert!(first.len() <= unknown, "{} ran and {unknown} may have", first.len());
    assert_eq!(unknown + second.len(), 200);
    assert!(second.len() > 20, "{} were made again", second.len());
}

#[tokio::test]
async fn a_call_that_never_left_is_made_on_the_next_connection() {
    let server = Server::start(config()).await;
    let (client, session) = server.connect().await;
    // The server reads nothing, so the transport fills up, and what comes last does not leave this process.
    let long: Vec<_> = (0..64).map(|_| spawn_call(&client, "long", json!("x".repeat(1_000_000)))).collect();
    let small = spawn_call(&client, "small", json!(1));
    // Let every call reach the client's task before the connection goes.
    for _ in 0..1_000 {
        tokio::task::yield_now().await;
    }
    session.cut();
    let mut session = server.accept().await;
    let serve = tokio::spawn(async move {
        let mut answered = 0;
        while let Ok(event) = session.next().await {
            let Event::Call(stream, call) = event else { panic!("{event:?}") };
            session.respond(stream, &call.args.len().to_string()).await;
            answered += 1;
        }
        answered
    });
    assert_eq!(within(small).await.unwrap().unwrap(), json!(1));
    let mut unknown = 0;
    for call in long {
        match within(call).await.unwrap() {
            Ok(len) => assert_eq!(len, 1_000_002),
            Err(Error::UnknownOutcome { .. }) => unknown += 1,
            Err(other) => panic!("{other}"),
        }
    }
    client.close().await;
    // The first was under way; none was both given up and made again.
    assert!(unknown >= 1);
    assert_eq!(unknown + serve.await.unwrap(), 65);
}

#[tokio::test]
async fn goaway_lets_calls_finish_and_its_delay_is_kept() {
    const DELAY: Duration = Duration::from_millis(300);
    let server = Server::start(config()).await;
    let (client, mut session) = server.connect().await;
    let running = spawn_call(&client, "running", json!(1));
    let (stream, _) = session.call().await;
    let asked = tokio::time::Instant::now();
    session.connection.go_away(ErrorCode::GOING_AWAY, DELAY).unwrap();
    session.flush().await;
    // An answer that follows GOAWAY on the wire: once it is here, the client has seen both.
    session.respond(stream, "1").await;
    assert_eq!(running.await.unwrap().unwrap(), json!(1));
    let new = spawn_call(&client, "new", json!(2));
    let end = session.end().await;
    assert!(end.is_orderly(), "{end:?}");
    let mut session = server.accept().await;
    assert!(asked.elapsed() >= DELAY, "{:?}", asked.elapsed());
    assert_eq!(session.echo().await.method, "new");
    assert_eq!(new.await.unwrap().unwrap(), json!(2));
}

#[tokio::test]
async fn a_call_that_the_server_did_not_take_is_made_on_the_next_connection() {
    let server = Server::start(config()).await;
    let (client, mut session) = server.connect().await;
    let call = spawn_call(&client, "m", json!(7));
    let (stream, _) = session.call().await;
    session.connection.respond_error(stream, &rpc_error(ErrorCode::GOING_AWAY)).unwrap();
    session.flush().await;
    let end = session.end().await;
    assert!(end.is_orderly(), "{end:?}");
    let mut session = server.accept().await;
    session.echo().await;
    assert_eq!(call.await.unwrap().unwrap(), json!(7));
}

#[tokio::test]
async fn a_server_that_throws_this_key_out_is_not_asked_again() {
    let server = Server::start(config()).await;
    let (client, mut session) = server.connect().await;
    let call = spawn_call(&client, "m", json!(1));
    session.call().await;
    session.close(ErrorCode::UNAUTHORIZED).await;
    assert!(call.await.unwrap().is_err());
    within(async {
        client.status().wait_for(|status| matches!(status, Status::Closed(Some(_)))).await.map(|_| ())
    })
    .await
    .unwrap();
    let error = client.call("m", &json!(1)).await.unwrap_err();
    let Error::Connect(error) = error else { panic!("{error:?}") };
    assert!(error.hint().unwrap().contains("--identity FILE"));
}

/// The default policy in a hundredth of its time.
fn quick_policy(attempts_max: Option<u32>) -> ReconnectPolicy {
    let mut policy = ReconnectPolicy::default();
    policy.first_pause /= 100;
    policy.longest_pause /= 100;
    policy.attempts_max = attempts_max;
    policy
}

#[tokio::test]
async fn a_server_that_is_away_for_long_is_found_again() {
    let server = Server::start(config()).await;
    let mut options = Options::default();
    options.reconnect = Some(quick_policy(None));
    let (client, session) = server.connect_with(options).await;
    let mut status = client.status();
    let place = server.stop();
    session.cut();
    let mut failures_seen = 0;
    while failures_seen < 12 {
        status.changed().await.unwrap();
        if let Status::Reconnecting { failures, pause, error } = &*status.borrow_and_update() {
            let bound = Duration::from_millis(1 << failures).min(Duration::from_millis(100));
            assert!(*pause <= bound, "pause {failures} is {pause:?}");
            if *failures > 0 {
                assert!(matches!(error.reason, ConnectReason::Reach(_)), "{error}");
            }
            failures_seen = *failures;
        }
    }
    let server = Server::restart(place).await;
    let call = spawn_call(&client, "m", json!(1));
    let mut session = server.accept().await;
    session.echo().await;
    assert_eq!(call.await.unwrap().unwrap(), json!(1));
}

#[tokio::test]
async fn attempts_can_be_bounded_and_reconnecting_forbidden() {
    for (policy, attempts) in [(None, 0), (Some(quick_policy(Some(3))), 3)] {
        let server = Server::start(config()).await;
        let mut options = Options::default();
        options.reconnect = policy;
        let (client, session) = server.connect_with(options).await;
        server.stop();
        let mut status = client.status();
        session.cut();
        let mut most = 0;
        let reason = within(async {
            loop {
                status.changed().await.unwrap();
                match &*status.borrow_and_update() {
                    Status::Reconnecting { failures, .. } => most = most.max(failures + 1),
                    Status::Closed(reason) => return reason.clone(),
                    _ => {}
                }
            }
        })
        .await;
        assert!(reason.is_some() && most <= attempts, "{most} attempts");
        assert!(matches!(client.call("m", &json!(1)).await, Err(Error::Connect(_))));
    }
}

#[tokio::test]
async fn a_call_times_out_while_there_is_no_connection() {
    let server = Server::start(config()).await;
    let mut options = Options::default();
    options.call_timeout = Duration::from_millis(200);
    let (client, session) = server.connect_with(options).await;
    server.stop();
    session.cut();
    lost(&client).await;
    assert!(matches!(client.call("m", &json!(1)).await, Err(Error::Timeout(_))));
    // Closing does not wait for a connection either.
    within(client.close()).await;
    assert!(matches!(client.call("m", &json!(1)).await, Err(Error::Closed)));
}

#[tokio::test]
async fn a_subscription_that_is_dropped_while_there_is_no_connection_is_never_made() {
    let server = Server::start(config()).await;
    let (client, session) = server.connect().await;
    let away = server.stop();
    session.cut();
    lost(&client).await;
    for _ in 0..8 {
        // Asked for, and dropped before anybody could look.
        assert!(client.subscribe(SubscribeOptions::new("orders")).now_or_never().is_none());
        tokio::task::yield_now().await;
    }
    let server = Server::restart(away).await;
    let call = spawn_call(&client, "m", json!(1));
    let mut session = server.accept().await;
    // It would be the first thing on the connection.
    let (stream, _) = session.call().await;
    session.respond(stream, "2").await;
    assert_eq!(within(call).await.unwrap().unwrap(), json!(2));
}
