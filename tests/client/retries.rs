//! Calls that are sent again, and those that must not be. Pauses pass in virtual time: the clock stands still while
//! anything is under way, and goes on in small steps while everybody waits.

use crate::server::{Server, Session, config, rpc_error, within};
use raystream::client::{
    CallOptions, Client, Error, IdempotencyKey, Json, Options, Response, RetryBudget, RetryPolicy,
};
use raystream::conn::{Event, Limits, ServerConfig};
use raystream::wire::{ErrorCode, envelope::RpcCall};
use std::time::Duration;
use tokio::task::JoinHandle;
use tokio::time::Instant;

/// Longer than every pause of these tests.
const SILENCE: Duration = Duration::from_secs(2);
const KEY: IdempotencyKey = IdempotencyKey([7; 16]);

/// Lets virtual time pass in steps of a millisecond. Without it the clock would jump to the next timer, however far,
/// whenever bytes are still on their way through the system.
fn tick() {
    tokio::spawn(async {
        loop {
            tokio::time::sleep(Duration::from_millis(1)).await;
            // The sockets are real: they get real time as well.
            std::thread::sleep(Duration::from_micros(20));
        }
    });
}

/// Retries without chance: each pause is its whole bound.
fn options() -> Options {
    let mut options = Options::default();
    options.retry.jitter = || 1.0;
    options
}

fn call(client: &Client, method: &str, options: CallOptions) -> JoinHandle<Result<Response, Error>> {
    let (client, method) = (client.clone(), method.to_owned());
    tokio::spawn(async move { client.call_response(&method, Json::new(r#"{"n":1}"#), options).await })
}

fn keyed() -> CallOptions {
    CallOptions { idempotency_key: Some(KEY), ..CallOptions::default() }
}

/// Answers the next call with an error.
async fn refuse(session: &mut Session, code: ErrorCode, retry_after_ms: u32) -> RpcCall {
    let (stream, call) = session.call().await;
    let mut error = rpc_error(code);
    error.retry_after_ms = retry_after_ms;
    session.connection.respond_error(stream, &error).unwrap();
    session.flush().await;
    call
}

/// Sends a call of its own and says whether it is the next that the server sees.
async fn is_silent(client: &Client, session: &mut Session) -> bool {
    tokio::time::sleep(SILENCE).await;
    let marker = call(client, "marker", CallOptions::default());
    let seen = session.echo().await.method;
    within(marker).await.unwrap().unwrap();
    seen == "marker"
}

/// What has to be the same in every attempt: everything but the time that is left.
fn identity(call: &RpcCall) -> RpcCall {
    RpcCall { deadline_ms: 0, ..call.clone() }
}

#[tokio::test(start_paused = true)]
async fn reads_and_calls_with_a_key_are_sent_again_and_nothing_else_is() {
    tick();
    let server = Server::start(config()).await;
    let (client, mut session) = server.connect_with(options()).await;
    let reads =
        ["sys.echo", "sys.info", "table.get", "table.query", "table.count", "table.ptr", "table.list"];
    let writes = ["table.set", "table.push", "table.pop", "table.create", "my.own"];
    let safe = reads.map(|method| (method, CallOptions::default())).into_iter();
    for (method, options) in safe.chain(writes.map(|method| (method, keyed()))) {
        // A retry costs ten calls: the reserve lasts for ten, so the bucket is filled up again.
        for code in [ErrorCode::SERVICE_UNAVAILABLE, ErrorCode::UNKNOWN_OUTCOME] {
            for _ in 0..10 {
                let (filler, _) = tokio::join!(client.call("filler", &1), session.echo());
                filler.unwrap();
            }
            let running = call(&client, method, options.clone());
            let first = refuse(&mut session, code, 0).await;
            let second = session.echo().await;
            assert_eq!(identity(&first), identity(&second));
            let response = within(running).await.unwrap().unwrap();
            assert_eq!((response.result.as_bytes(), response.attempts), (&br#"{"n":1}"#[..], 2), "{method}");
        }
        for code in [ErrorCode::TIMEOUT, ErrorCode::INTERNAL_ERROR, ErrorCode::NOT_FOUND, ErrorCode(9_999)] {
            let running = call(&client, method, options.clone());
            refuse(&mut session, code, 0).await;
            assert_eq!(within(running).await.unwrap().unwrap_err().code(), Some(code), "{method}");
        }
    }
    for method in writes {
        for code in [ErrorCode::SERVICE_UNAVAILABLE, ErrorCode::RATE_LIMITED, ErrorCode::UNKNOWN_OUTCOME] {
            let running = call(&client, method, CallOptions::default());
            refuse(&mut session, code, 0).await;
            assert_eq!(within(running).await.unwrap().unwrap_err().code(), Some(code), "{method}");
        }
    }
    assert!(is_silent(&client, &mut session).await, "something was sent again");
}

#[tokio::test(start_paused = true)]
async fn a_call_with_a_key_goes_on_over_reconnects_with_the_same_key() {
    tick();
    let server = Server::start(config()).await;
    let (client, mut session) = server.connect_with(options()).await;
    let options = CallOptions {
        metadata: vec![("trace".into(), "9".into())],
        times: true,
        idempotency_key: Some(IdempotencyKey::random().unwrap()),
        ..CallOptions::default()
    };
    let running = call(&client, "table.push", options.clone());
    let (_, first) = session.call().await;
    assert_eq!(first.idempotency_key, options.idempotency_key.map(|key| key.0));
    // The server falls silent twice, after it may have done the work.
    session.cut();
    let mut session = server.accept().await;
    let (_, second) = session.call().await;
    session.close(ErrorCode::INTERNAL_ERROR).await;
    let mut session = server.accept().await;
    let third = session.echo().await;
    assert_eq!(within(running).await.unwrap().unwrap().attempts, 3);
    assert_eq!(identity(&first), identity(&second));
    assert_eq!(identity(&first), identity(&third));
    assert!(first.deadline_ms > second.deadline_ms && second.deadline_ms > third.deadline_ms);
    assert!(is_silent(&client, &mut session).await);
}

#[tokio::test(start_paused = true)]
async fn a_write_without_a_key_is_not_sent_twice_by_a_reconnect() {
    tick();
    let server = Server::start(config()).await;
    let (client, mut session) = server.connect_with(options()).await;
    let write = call(&client, "table.push", CallOptions::default());
    let read = call(&client, "table.get", CallOptions::default());
    for _ in 0..2 {
        session.call().await;
    }
    session.cut();
    let error = within(write).await.unwrap().unwrap_err();
    assert!(matches!(&error, Error::UnknownOutcome { method, .. } if method == "table.push"), "{error:?}");
    let mut session = server.accept().await;
    assert_eq!(session.echo().await.method, "table.get");
    assert_eq!(within(read).await.unwrap().unwrap().attempts, 2);
    assert!(is_silent(&client, &mut session).await, "the write came again");
}

#[tokio::test(start_paused = true)]
async fn attempts_end_and_the_last_error_is_told() {
    tick();
    let server = Server::start(config()).await;
    let (client, mut session) = server.connect_with(options()).await;
    let begun = Instant::now();
    let running = call(&client, "table.get", CallOptions::default());
    for _ in 0..4 {
        refuse(&mut session, ErrorCode::SERVICE_UNAVAILABLE, 0).await;
    }
    let error = within(running).await.unwrap().unwrap_err();
    assert_eq!(error.code(), Some(ErrorCode::SERVICE_UNAVAILABLE));
    // The whole bounds: 100, 200 and 400 ms.
    assert!(begun.elapsed() >= Duration::from_millis(700), "{:?}", begun.elapsed());

    // A call can ask for fewer, or for none, and whoever has none to lose is told at once.
    for (policy, attempts) in [(RetryPolicy::none(), 1), (with_attempts(2), 2), (with_attempts(0), 1)] {
        let options = CallOptions { retry: Some(policy), ..keyed() };
        let running = call(&client, "table.push", options);
        for _ in 0..attempts {
            refuse(&mut session, ErrorCode::RATE_LIMITED, 0).await;
        }
        assert!(within(running).await.unwrap().is_err());
    }
    assert!(is_silent(&client, &mut session).await);
}

fn with_attempts(attempts_max: u32) -> RetryPolicy {
    let mut policy = RetryPolicy::default();
    policy.attempts_max = attempts_max;
    policy
}

#[tokio::test(start_paused = true)]
async fn what_the_server_asks_for_is_waited_and_the_deadline_bounds_it_all() {
    tick();
    let server = Server::start(config()).await;
    let (client, mut session) = server.connect_with(options()).await;
    let timeout = Some(Duration::from_secs(12));
    let running = call(&client, "table.get", CallOptions { timeout, ..CallOptions::default() });
    let first = refuse(&mut session, ErrorCode::RATE_LIMITED, 5_000).await;
    let refused = Instant::now();
    let second = refuse(&mut session, ErrorCode::SERVICE_UNAVAILABLE, 2_500).await;
    assert!(refused.elapsed() >= Duration::from_secs(5), "{:?}", refused.elapsed());
    // The remaining time travels, not the whole.
    assert!(first.deadline_ms <= 12_000 && first.deadline_ms > 7_000);
    assert!(second.deadline_ms <= first.deadline_ms - 5_000);
    // The next pause would end after the deadline: nothing is waited for that cannot come.
    refuse(&mut session, ErrorCode::SERVICE_UNAVAILABLE, 60_000).await;
    let error = within(running).await.unwrap().unwrap_err();
    assert_eq!(error.code(), Some(ErrorCode::SERVICE_UNAVAILABLE));
    assert_eq!(error.retry_after(), Some(Duration::from_secs(60)));

    // An attempt that is never answered ends at the deadline of the whole call, and is cancelled.
    let timeout = Some(Duration::from_secs(6));
    let begun = Instant::now();
    let running = call(&client, "table.get", CallOptions { timeout, ..CallOptions::default() });
    refuse(&mut session, ErrorCode::SERVICE_UNAVAILABLE, 0).await;
    let (stream, _) = session.call().await;
    let error = within(running).await.unwrap().unwrap_err();
    assert!(matches!(error, Error::Timeout(limit) if Some(limit) == timeout), "{error:?}");
    assert!(begun.elapsed() >= Duration::from_secs(6));
    assert_eq!(session.next().await, Ok(Event::Cancelled(stream)));
}

#[tokio::test(start_paused = true)]
async fn an_outage_gets_a_tenth_more_and_not_a_multiple() {
    const CALLS: u32 = 200;
    tick();
    let server = Server::start(config()).await;
    let mut options = options();
    options.retry_budget = RetryBudget::default();
    let (client, mut session) = server.connect_with(options).await;
    let outage = tokio::spawn(async move {
        let mut seen = 0;
        while let Ok(event) = session.next().await {
            let Event::Call(stream, _) = event else { panic!("{event:?}") };
            let error = rpc_error(ErrorCode::SERVICE_UNAVAILABLE);
            session.connection.respond_error(stream, &error).unwrap();
            seen += 1;
        }
        seen
    });
    // Clones share one budget.
    for n in 0..CALLS / 10 {
        let calls: Vec<_> =
            (0..10).map(|_| call(&client.clone(), "table.get", CallOptions::default())).collect();
        for running in calls {
            let error = within(running).await.unwrap().unwrap_err();
            assert_eq!(error.code(), Some(ErrorCode::SERVICE_UNAVAILABLE), "{n}");
        }
    }
    client.close().await;
    let seen = within(outage).await.unwrap();
    // Without the budget it would be four times as many. The first ten calls find the bucket full.
    assert!((CALLS + 10 + CALLS / 10 - 2..=CALLS + 10 + CALLS / 10).contains(&seen), "{seen}");
}

#[tokio::test(start_paused = true)]
async fn a_call_that_is_dropped_is_not_sent_again_and_its_attempt_is_cancelled() {
    tick();
    let server = Server::start(config()).await;
    let (client, mut session) = server.connect_with(options()).await;
    // In its second attempt.
    let running = call(&client, "table.push", keyed());
    refuse(&mut session, ErrorCode::SERVICE_UNAVAILABLE, 0).await;
    let (stream, _) = session.call().await;
    running.abort();
    assert_eq!(session.next().await, Ok(Event::Cancelled(stream)));
    session.connection.respond_error(stream, &rpc_error(ErrorCode::CANCELLED)).unwrap();

    // In the pause before it.
    let running = call(&client, "table.push", keyed());
    refuse(&mut session, ErrorCode::SERVICE_UNAVAILABLE, 1_000).await;
    // A call behind it on the same connection: once it is answered, the error has arrived.
    let marker = call(&client, "marker", CallOptions::default());
    session.echo().await;
    within(marker).await.unwrap().unwrap();
    assert!(!running.is_finished());
    running.abort();
    assert!(is_silent(&client, &mut session).await);
}

#[tokio::test(start_paused = true)]
async fn calls_that_wait_for_their_next_attempt_leave_room_for_others() {
    tick();
    let mut limits = Limits::default();
    limits.calls_max = 1;
    let server = Server::start(ServerConfig { limits, ..config() }).await;
    let (client, mut session) = server.connect_with(options()).await;
    let waiting = call(&client, "table.get", CallOptions::default());
    refuse(&mut session, ErrorCode::SERVICE_UNAVAILABLE, 2_000).await;
    for _ in 0..3 {
        let (result, call) = tokio::join!(client.call("other", &1), session.echo());
        result.unwrap();
        assert_eq!(call.method, "other");
    }
    assert_eq!(session.echo().await.method, "table.get");
    assert_eq!(within(waiting).await.unwrap().unwrap().attempts, 2);
}

#[tokio::test]
async fn trailers_come_with_the_result() {
    use raystream::wire::envelope::RpcResponse;
    let server = Server::start(config()).await;
    let (client, mut session) = server.connect().await;
    let trailers: Vec<_> =
        [("a", "1"), ("b", "2"), ("a", "3")].map(|(k, v)| (k.to_owned(), v.to_owned())).into();
    let answer = async {
        let (stream, call) = session.call().await;
        assert!(!call.times);
        let response =
            RpcResponse { result: "1".into(), trailers: trailers.clone(), ..RpcResponse::default() };
        session.connection.respond(stream, &response).unwrap();
        session.flush().await;
    };
    let call = client.call_response("m", Json::new("{}"), CallOptions::default());
    let (response, ()) = tokio::join!(call, answer);
    let response = response.unwrap();
    assert_eq!((response.result.as_bytes(), response.attempts), (&b"1"[..], 1));
    assert_eq!(response.trailers, trailers);
    assert_eq!((response.trailer("a"), response.trailer("c")), (Some("1"), None));
}
