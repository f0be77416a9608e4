//! Subscriptions that come to nothing: those that are refused, and what one leaves behind that its client has ended while nothing
//! happened in its table.
use super::support::{PATIENCE, TestDaemon, shared};
use raystream::client::{Client, Item, Json, Options, SubscribeOptions};
use raystream::wire::ErrorCode;
use serde_json::json;
use std::time::{Duration, Instant};

/// How many sessions last read the end of the log for somebody who listens.
const LISTENING: &str = "SELECT count(*) FROM pg_stat_activity WHERE application_name = 'raystream feed' \
    AND query LIKE 'WITH moment%'";

fn until_listening(daemon: &TestDaemon, expected: &str) {
    let end = Instant::now() + PATIENCE;
    while daemon.sql(LISTENING) != expected {
        assert!(Instant::now() < end, "the log is read for {expected} listener or none");
        std::thread::sleep(Duration::from_millis(50));
    }
}

#[tokio::test(flavor = "multi_thread", worker_threads = 2)]
async fn a_quiet_subscription_is_gone_with_its_end() {
    let daemon = TestDaemon::start();
    let client = Client::connect(&daemon.url, Options::default()).await.unwrap();
    client.call("table.create", &json!({"table": "quiet"})).await.unwrap();
    // Nothing is ever written that it would be told.
    let mut options = SubscribeOptions::new("quiet");
    options.filter = Some(Json::encode(&json!({"never": true})).unwrap());
    let mut subscription = client.subscribe(options).await.unwrap();
    while !matches!(subscription.next().await.unwrap().unwrap(), Item::SnapshotEnd { .. }) {}
    until_listening(&daemon, "1");
    drop(subscription);
    until_listening(&daemon, "0");
    client.ping().await.expect("the connection is there still");
}

#[tokio::test]
async fn a_filter_is_an_object() {
    let daemon = shared();
    let client = Client::connect(&daemon.url, Options::default()).await.unwrap();
    client.call("table.create", &json!({"table": "filtered"})).await.unwrap();
    for filter in ["[]", "5", r#""x""#, "null", " ", "true"] {
        let mut options = SubscribeOptions::new("filtered");
        options.filter = Some(Json::new(filter));
        let refused = client.subscribe(options).await.expect_err(filter);
        assert_eq!(refused.code(), Some(ErrorCode::INVALID_REQUEST), "{filter}: {refused}");
        assert!(refused.to_string().contains("JSON object"), "{refused}");
    }
}
