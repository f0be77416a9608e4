//! Calls on a connection that holds.

use crate::server::{Server, config, rpc_error, within};
use futures_util::poll;
use raystream::client::{CallOptions, Client, Error, Json, Options};
use raystream::conn::{ConnectionError, Event, Limits};
use raystream::wire::ErrorCode;
use serde_json::{Value, json};
use std::time::Duration;

#[tokio::test]
async fn a_call_and_its_typed_result() {
    let server = Server::start(config()).await;
    let (client, mut session) = server.connect().await;
    let args = json!({"a": [1, "ä"]});
    let (result, call) = tokio::join!(client.call_typed::<_, Value>("sys.echo", &args), session.echo());
    assert_eq!(result.unwrap(), args);
    assert_eq!(call.method, "sys.echo");
    assert!((29_000..=30_000).contains(&call.deadline_ms), "{}", call.deadline_ms);

    let wrong = tokio::join!(client.call_typed::<_, u8>("sys.echo", &args), session.echo()).0;
    assert!(matches!(wrong, Err(Error::Result(_))), "{wrong:?}");
}

#[tokio::test]
async fn options_travel_with_the_call() {
    let server = Server::start(config()).await;
    let (client, mut session) = server.connect().await;
    let options = CallOptions {
        timeout: Some(Duration::from_secs(5)),
        idempotency_key: Some([4; 16].into()),
        metadata: vec![("trace".into(), "9".into())],
        times: true,
        ..CallOptions::default()
    };
    let call = client.call_with("m", Json::new("{ }"), options);
    let (result, call) = tokio::join!(call, session.echo());
    assert_eq!(result.unwrap().as_bytes(), b"{ }");
    assert_eq!(call.idempotency_key, Some([4; 16]));
    assert!(call.times);
    assert_eq!(call.metadata, [("trace".to_owned(), "9".to_owned())]);
    assert!((4_000..=5_000).contains(&call.deadline_ms));
}

#[tokio::test]
async fn an_error_comes_with_its_code_and_its_retry() {
    let server = Server::start(config()).await;
    let (client, mut session) = server.connect().await;
    let answer = async {
        let (stream, _) = session.call().await;
        let mut error = rpc_error(ErrorCode::SERVICE_UNAVAILABLE);
        error.retry_after_ms = 1_500;
        session.connection.respond_error(stream, &error).unwrap();
        session.flush().await;
    };
    let (result, ()) = tokio::join!(client.call("m", &1), answer);
    let error = result.unwrap_err();
    assert_eq!(error.to_string(), "SERVICE_UNAVAILABLE: in the server's words");
    assert!(error.retryable());
    assert_eq!(error.retry_after(), Some(Duration::from_millis(1_500)));
}

#[tokio::test]
async fn no_more_calls_are_in_flight_than_the_server_takes() {
    let mut limits = Limits::default();
    limits.calls_max = 4;
    let server = Server::start(raystream::conn::ServerConfig { limits, ..config() }).await;
    let (client, mut session) = server.connect().await;
    let callers: Vec<_> = (0..1_000)
        .map(|n| {
            let client = client.clone();
            tokio::spawn(async move { client.call_typed::<_, u32>("m", &n).await })
        })
        .collect();
    let mut seen_together = 0;
    for _ in 0..1_000 {
        // A fifth call would be refused by the server's end with RATE_LIMITED, which no caller may see.
        session.echo().await;
        seen_together = seen_together.max(session.connection.open_streams());
    }
    for (n, caller) in callers.into_iter().enumerate() {
        assert_eq!(within(caller).await.unwrap().unwrap(), u32::try_from(n).unwrap());
    }
    assert!(seen_together <= 4);
}

#[tokio::test]
async fn calls_are_made_in_the_order_in_which_they_are_asked_for() {
    let mut limits = Limits::default();
    limits.calls_max = 4;
    let server = Server::start(raystream::conn::ServerConfig { limits, ..config() }).await;
    let (client, mut session) = server.connect().await;
    // More than fit the line, so that some wait for a place in it; whoever is answered asks again at once.
    let callers: Vec<_> = (0..1_000)
        .map(|n| {
            let client = client.clone();
            tokio::spawn(async move {
                client.call("first", &n).await?;
                client.call("second", &n).await
            })
        })
        .collect();
    for method in ["first", "second"] {
        for n in 0..1_000 {
            let call = session.echo().await;
            assert_eq!((call.method.as_str(), &call.args[..]), (method, n.to_string().as_bytes()));
        }
    }
    for caller in callers {
        within(caller).await.unwrap().unwrap();
    }
}

#[tokio::test]
async fn a_lone_call_leaves_at_once_and_those_behind_it_leave_together() {
    let server = Server::start(config()).await;
    let (client, mut session) = server.connect().await;
    tokio::join!(client.call("m", &0), session.echo()).0.unwrap();
    let call = |n: u32| Box::pin(client.call_with("m", Json::new(n.to_string()), CallOptions::default()));
    let mut calls: Vec<_> = (0..10).map(call).collect();
    assert!(poll!(&mut calls[0]).is_pending());
    // Nothing else ran on this thread: the caller itself has given it to the socket.
    let arrived = session.arrived();
    for call in &mut calls[1..] {
        assert!(poll!(call).is_pending());
    }
    assert_eq!(session.arrived(), arrived);
    for n in 0..10_u32 {
        assert_eq!(session.echo().await.args, n.to_string());
    }
    for (n, call) in calls.into_iter().enumerate() {
        assert_eq!(within(call).await.unwrap(), Json::new(n.to_string()));
    }
}

#[tokio::test]
async fn a_call_that_is_dropped_at_once_is_cancelled_all_the_same() {
    let server = Server::start(config()).await;
    let (client, mut session) = server.connect().await;
    let mut calls: Vec<_> = (0..3).map(|_| Box::pin(client.call("m", &1))).collect();
    for call in &mut calls {
        assert!(poll!(call).is_pending());
    }
    drop(calls);
    let mut events = Vec::new();
    for _ in 0..6 {
        events.push(match session.next().await.unwrap() {
            Event::Call(stream, _) => (stream, "call"),
            Event::Cancelled(stream) => (stream, "cancel"),
            other => panic!("{other:?}"),
        });
    }
    for stream in [1, 3, 5] {
        let of_stream = events.iter().filter(|event| event.0 == stream).map(|event| event.1);
        assert!(of_stream.eq(["call", "cancel"]), "{events:?}");
        session.connection.respond_error(stream, &rpc_error(ErrorCode::CANCELLED)).unwrap();
    }
    tokio::join!(client.call("next", &1), session.echo()).0.unwrap();
}

#[tokio::test(flavor = "multi_thread", worker_threads = 4)]
async fn callers_on_many_threads_get_their_own_answers() {
    const CALLERS: u32 = 16;
    const CALLS: u32 = 300;
    let server = Server::start(config()).await;
    let (client, mut session) = server.connect().await;
    let answering = tokio::spawn(async move {
        while let Ok(event) = session.next().await {
            // A call that was given up may have come together with the client's CLOSE.
            if let Event::Call(stream, call) = event
                && session.connection.end().is_none()
            {
                session.respond(stream, str::from_utf8(&call.args).unwrap()).await;
            }
        }
    });
    let callers = (0..CALLERS).map(|caller| {
        let client = client.clone();
        tokio::spawn(async move {
            for n in 0..CALLS {
                let args = [caller, n];
                let mut call = Box::pin(client.call_typed::<_, [u32; 2]>("m", &args));
                // Some are given up as soon as they are made.
                if (caller + n) % 7 == 0 {
                    let _answered_already = poll!(&mut call);
                } else {
                    assert_eq!(call.await.unwrap(), args);
                }
            }
        })
    });
    for caller in callers.collect::<Vec<_>>() {
        within(caller).await.unwrap();
    }
    client.close().await;
    within(answering).await.unwrap();
}

#[tokio::test]
async fn a_dropped_call_is_cancelled_at_the_server() {
    let server = Server::start(config()).await;
    let (client, mut session) = server.connect().await;
    let caller = tokio::spawn({
        let client = client.clone();
        async move { client.call("slow", &1).await }
    });
    let (stream, _) = session.call().await;
    caller.abort();
    assert_eq!(session.next().await, Ok(Event::Cancelled(stream)));
    // The answer that still comes belongs to nobody, and the connection goes on.
    session.connection.respond_error(stream, &rpc_error(ErrorCode::CANCELLED)).unwrap();
    let (result, _) = tokio::join!(client.call("next", &1), session.echo());
    result.unwrap();
}

#[tokio::test]
async fn a_call_that_is_never_answered_times_out_and_is_cancelled() {
    let server = Server::start(config()).await;
    let (client, mut session) = server.connect().await;
    let started = tokio::time::Instant::now();
    let options = CallOptions { timeout: Some(Duration::from_secs(25)), ..CallOptions::default() };
    let call = client.call_with("slow", Json::new("{}"), options);
    let silence = async {
        let called = session.call().await;
        // Nothing is on the wire any more: time may pass at once.
        tokio::time::pause();
        called
    };
    let (result, (stream, _)) = tokio::join!(call, silence);
    assert!(matches!(result, Err(Error::Timeout(_))), "{result:?}");
    assert_eq!(started.elapsed().as_secs(), 25);
    tokio::time::resume();
    assert_eq!(session.next().await, Ok(Event::Cancelled(stream)));
}

#[tokio::test]
async fn a_request_over_the_limit_is_refused_here() {
    let server = Server::start(config()).await;
    let (client, mut session) = server.connect().await;
    let long = "x".repeat(1 << 20);
    assert!(matches!(client.call("m", &long).await, Err(Error::TooLarge)));
    // Just below it, in fragments, over the connection that still stands.
    let long = "x".repeat((1 << 20) - 200);
    let (result, call) = tokio::join!(client.call_typed::<_, String>("m", &long), session.echo());
    assert_eq!(result.unwrap(), long);
    assert_eq!(call.args.len(), long.len() + 2);
}

#[tokio::test]
async fn a_heartbeat_measures_a_round_trip() {
    let server = Server::start(config()).await;
    let (client, mut session) = server.connect().await;
    let serve = tokio::spawn(async move { session.end().await });
    for _ in 0..100 {
        let round_trip = client.ping().await.unwrap();
        assert!(round_trip > Duration::ZERO && round_trip < Duration::from_secs(5));
    }
    client.close().await;
    serve.await.unwrap();
}

#[tokio::test]
async fn close_says_goodbye_before_the_transport_ends() {
    let server = Server::start(config()).await;
    let (client, mut session) = server.connect().await;
    let caller = tokio::spawn({
        let client = client.clone();
        async move { client.call("slow", &1).await }
    });
    session.call().await;
    let (end, ()) = tokio::join!(session.end(), client.close());
    assert!(
        matches!(&end, ConnectionError::ClosedByPeer(close) if close.code == ErrorCode::NO_ERROR),
        "{end:?}"
    );
    assert!(matches!(caller.await.unwrap(), Err(Error::Closed)));
    assert!(matches!(client.call("m", &1).await, Err(Error::Closed)));
    assert!(matches!(client.ping().await, Err(Error::Closed)));
    client.close().await;
}

#[tokio::test]
async fn the_last_handle_closes() {
    let server = Server::start(config()).await;
    let (client, mut session) = server.connect().await;
    drop(client.clone());
    let (result, _) = tokio::join!(client.call("m", &1), session.echo());
    result.unwrap();
    drop(client);
    let end = session.end().await;
    assert!(end.is_orderly(), "{end:?}");
}

#[tokio::test]
async fn a_websocket_carries_the_same() {
    let server = Server::start(config()).await;
    let url = server.url().replace("raystream:", "raystream+ws:");
    let (client, mut session) =
        tokio::join!(Client::connect(&url, Options::default()), server.accept_websocket());
    let client = client.unwrap();
    for len in [0, 1, 70_000, 1_000_000] {
        let text = "x".repeat(len);
        let (result, _) = tokio::join!(client.call_typed::<_, String>("m", &text), session.echo());
        assert_eq!(result.unwrap(), text);
    }
    let (end, ()) = tokio::join!(session.end(), client.close());
    assert!(end.is_orderly(), "{end:?}");
}
