//! What a receiver gets: everything, in order, signed; also over the death of a daemon, and beside a receiver that hangs.

use raystream::webhook::{WebhookChangeKind, parse_webhook_event};
use serde_json::json;

use crate::commands::{ALLOWED, add, done, set, until_shown};
use crate::receiver::{Answer, Received, Receiver};
use crate::server::{Server, call};

/// The numbers of the changes, as the events have them.
fn sequences(events: &[Received]) -> Vec<i64> {
    events.iter().map(|event| event.json()["sequence"].as_i64().unwrap()).collect()
}

/// Verifies a signature with another library than the one that made it.
fn verified(request: &Received, secret: &str) {
    use std::process::{Command, Stdio};
    let text = |name: &str| request.header(name).to_owned();
    let key = raystream::webhook::Secret::parse(secret).unwrap();
    let key = aws_lc_rs::hmac::Key::new(aws_lc_rs::hmac::HMAC_SHA256, key.as_bytes());
    let signed =
        [format!("{}.{}.", text("webhook-id"), text("webhook-timestamp")).as_bytes(), &request.body].concat();
    let tag = aws_lc_rs::hmac::sign(&key, &signed);
    // Base64 by a program, so that nothing of ours says that it is right.
    let mut child = Command::new("base64").stdin(Stdio::piped()).stdout(Stdio::piped()).spawn().unwrap();
    std::io::Write::write_all(child.stdin.as_mut().unwrap(), tag.as_ref()).unwrap();
    let encoded = String::from_utf8(child.wait_with_output().unwrap().stdout).unwrap();
    assert_eq!(request.header("webhook-signature"), format!("v1,{}", encoded.trim()));
}

#[tokio::test(flavor = "multi_thread", worker_threads = 2)]
async fn every_change_comes_in_order_and_signed() {
    let server = Server::start_with(ALLOWED).await;
    let client = server.client(1).await;
    let receiver = Receiver::start().await;
    set(&client, "before", json!({"n": 0})).await;
    let (id, secret) = add(&server, &receiver.url(), &[]);
    for n in 0..40 {
        set(&client, "a", json!({"n": n})).await;
    }
    call(&client, "table.delete", json!({"table": "t", "id": "a"})).await.unwrap();
    let many: Vec<_> = (0..200)
        .map(|n| json!({"method": "table.set", "args": {"table": "t", "id": format!("d{n:03}"), "data": n}}))
        .collect();
    for calls in many.chunks(50) {
        call(&client, "table.batch", json!({"calls": calls})).await.unwrap();
    }
    let events = receiver.until_events(241).await;
    assert_eq!(receiver.received().len(), events.len(), "without a failure each event comes once");
    let numbers = sequences(&events);
    assert!(numbers.windows(2).all(|pair| pair[0] < pair[1]), "{numbers:?}");
    for event in &events {
        verified(event, &secret);
        assert!(event.head.starts_with("POST /hook HTTP/1.1\r\n"), "{}", event.head);
        assert_eq!(event.header("content-type"), "application/json");
        assert_eq!(event.id(), format!("{id}_{}", event.json()["sequence"]));
    }
    let first = parse_webhook_event(&events[0].body).unwrap();
    assert_eq!(
        (first.kind, first.table.as_str(), first.id.as_deref()),
        (WebhookChangeKind::Insert, "t", Some("a"))
    );
    assert_eq!((first.version, first.old_data.is_none()), (Some(1), true));
    let second = parse_webhook_event(&events[1].body).unwrap();
    assert_eq!(second.kind, WebhookChangeKind::Update);
    assert_eq!((second.data.unwrap().get(), second.old_data.unwrap().get()), (r#"{"n": 1}"#, r#"{"n": 0}"#));
    let last = parse_webhook_event(&events[40].body).unwrap();
    assert_eq!((last.kind, last.data.is_none()), (WebhookChangeKind::Delete, true));
    for (n, event) in events[41..].iter().enumerate() {
        let event = event.json();
        assert_eq!((&event["id"], &event["new"]), (&json!(format!("d{n:03}")), &json!(n)));
    }
    until_shown("the count is written", &server, &id, |shown| shown["sent"] == 241).await;

    // All of it once more, under the same ids; and what was before the webhook.
    done(&server, &["replay", &id, "--from", "oldest"]);
    let again = receiver.until("everything again", |received| received.len() >= 241 + 242).await;
    assert_eq!(again[241].json()["id"], "before");
    let ids = |events: &[Received]| events.iter().map(|event| event.id().to_owned()).collect::<Vec<_>>();
    assert_eq!(ids(&again[242..]), ids(&events));
}

#[tokio::test(flavor = "multi_thread", worker_threads = 2)]
async fn nothing_is_missed_over_kills_of_the_daemon() {
    let mut server = Server::start_with(ALLOWED).await;
    let receiver = Receiver::start().await;
    let (_, secret) = add(&server, &receiver.url(), &[]);
    let admin = server.admin().await;
    let mut written = Vec::new();
    for round in 0..3 {
        let client = server.client(1).await;
        for n in 0..60 {
            let id = format!("{round}-{n:02}");
            set(&client, &id, json!({"n": n})).await;
            written.push(id);
        }
        // In the middle of sending: some of it is there, most of it is not.
        let enough = round * 60 + 10;
        receiver.until_events(enough).await;
        server.kill();
        // As if the lease had ended.
        admin.batch_execute("UPDATE raystream.webhooks SET lease = '-infinity'").await.unwrap();
        server.restart();
    }
    let events = receiver.until_events(written.len()).await;
    let ids: Vec<_> = events.iter().map(|event| event.json()["id"].as_str().unwrap().to_owned()).collect();
    assert_eq!(ids, written, "each once by its id, in order");
    for request in receiver.received() {
        verified(&request, &secret);
    }
    let twice = receiver.received().len() - events.len();
    println!("{} events over 3 kills, {twice} of them more than once", events.len());
}

#[tokio::test(flavor = "multi_thread", worker_threads = 2)]
async fn a_receiver_that_hangs_holds_up_nobody_else() {
    let server = Server::start_with(ALLOWED).await;
    let client = server.client(1).await;
    let slow = Receiver::start_with(|_| Answer::Gate).await;
    let quick = Receiver::start_with(|_| Answer::Long(1 << 20)).await;
    add(&server, &slow.url(), &[]);
    add(&server, &quick.url(), &[]);
    for n in 0..100 {
        set(&client, &format!("{n:03}"), json!({"pad": "a".repeat(20_000)})).await;
    }
    let events = quick.until_events(100).await;
    let ids: Vec<_> = events.iter().map(|event| event.json()["id"].clone()).collect();
    assert_eq!(ids, (0..100).map(|n| json!(format!("{n:03}"))).collect::<Vec<_>>());
    // The first one is still in the hands of the slow one, perhaps cut off and sent again.
    assert!(slow.events().len() <= 1, "{:?}", slow.events());
    slow.open_gate();
    let events = slow.until_events(100).await;
    assert!(sequences(&events).windows(2).all(|pair| pair[0] < pair[1]));
}
