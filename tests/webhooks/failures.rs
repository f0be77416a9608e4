//! Receivers that fail, that are gone, and that ask for patience.

use serde_json::{Value, json};

use crate::commands::{ALLOWED, add, disable, done, set, status as state, until_shown};
use crate::receiver::{Answer, Receiver, status};
use crate::server::{PATIENCE, Server};

/// Waits until the dead letters of a webhook are as they should be.
async fn until_dead(server: &Server, id: &str, holds: impl Fn(&[Value]) -> bool) {
    let until = std::time::Instant::now() + PATIENCE;
    loop {
        let dead = done(server, &["dead", id]);
        if holds(&dead) {
            return;
        }
        assert!(std::time::Instant::now() < until, "{dead:?}");
        tokio::time::sleep(std::time::Duration::from_millis(100)).await;
    }
}

#[tokio::test(flavor = "multi_thread", worker_threads = 2)]
async fn what_is_never_taken_becomes_a_dead_letter_and_is_sent_again_on_request() {
    let server = Server::start_with(ALLOWED).await;
    let client = server.client(1).await;
    let refuses = |poison: bool| {
        move |request: &crate::receiver::Received| {
            status(if poison && request.json()["id"] == "bad" { 500 } else { 200 })
        }
    };
    let receiver = Receiver::start_with(refuses(true)).await;
    let (id, _) = add(&server, &receiver.url(), &["--attempts", "3"]);
    for name in ["good", "bad", "after"] {
        set(&client, name, json!({"name": name})).await;
    }
    // In order: what comes behind it waits for its end.
    let received =
        receiver.until("the last one", |all| all.iter().any(|one| one.json()["id"] == "after")).await;
    let names: Vec<_> = received.iter().map(|one| one.json()["id"].as_str().unwrap().to_owned()).collect();
    assert_eq!(names, ["good", "bad", "bad", "bad", "after"]);
    let (tried, times) = (&received[1..4], received[1..4].iter().map(|one| one.header("webhook-timestamp")));
    assert!(
        tried.iter().all(|one| one.id() == tried[0].id() && one.body == tried[0].body),
        "one id, one body"
    );
    assert!(times.collect::<Vec<_>>().is_sorted(), "each attempt has its own time");

    let dead = done(&server, &["dead", &id]);
    assert_eq!(dead.len(), 1);
    assert_eq!(dead[0]["event"], tried[0].id());
    assert_eq!((&dead[0]["attempts"], &dead[0]["body"]["id"]), (&json!(3), &json!("bad")));
    assert!(dead[0]["error"].as_str().unwrap().contains("answered 500"), "{dead:?}");
    assert_eq!(state(&server, &id)["dead"], 1);

    // Still refused: it stays, and says so.
    let event = tried[0].id();
    assert_eq!(done(&server, &["retry", &id, event])[0], json!({"retry": 1}));
    until_dead(&server, &id, |dead| dead[0]["attempts"] == 4).await;
    assert_eq!(done(&server, &["dead", &id])[0]["retry"], false);

    receiver.answer(refuses(false));
    done(&server, &["retry", &id, "--all"]);
    until_dead(&server, &id, <[Value]>::is_empty).await;
    let received = receiver.received();
    let last = received.last().unwrap();
    assert_eq!((last.id(), &last.body), (event, &tried[0].body), "the same event");
    until_shown("the count is written", &server, &id, |shown| shown["sent"] == 3).await;
}

#[tokio::test(flavor = "multi_thread", worker_threads = 2)]
async fn attempts_are_counted_over_a_kill() {
    let mut server = Server::start_with(ALLOWED).await;
    let receiver = Receiver::start_with(|_| Answer::Status(503, "retry-after: 3600\r\n".to_owned())).await;
    let (id, _) = add(&server, &receiver.url(), &["--attempts", "2"]);
    set(&server.client(1).await, "a", json!(1)).await;
    until_shown("the first attempt is written", &server, &id, |shown| shown["attempts"] == 1).await;
    server.kill();
    let admin = server.admin().await;
    admin
        .batch_execute("UPDATE raystream.webhooks SET lease = '-infinity', next_attempt = now()")
        .await
        .unwrap();
    server.restart();
    until_shown("the second one was the last", &server, &id, |shown| shown["dead"] == 1).await;
    assert_eq!(receiver.received().len(), 2);
    assert_eq!(done(&server, &["dead", &id])[0]["attempts"], 2);
}

#[tokio::test(flavor = "multi_thread", worker_threads = 2)]
async fn retry_after_is_honoured_and_410_disables() {
    let server = Server::start_with(ALLOWED).await;
    let client = server.client(1).await;
    let receiver = Receiver::start_with(|_| Answer::Status(429, "Retry-After: 1800\r\n".to_owned())).await;
    let (id, _) = add(&server, &receiver.url(), &[]);
    set(&client, "a", json!(1)).await;
    until_shown("the attempt is written", &server, &id, |shown| shown["state"] == "failing").await;
    let sql = "SELECT next_attempt - last_error_at = interval '1800 s' FROM raystream.webhooks";
    assert!(server.admin().await.query_one(sql, &[]).await.unwrap().get::<_, bool>(0));
    assert!(state(&server, &id)["last_error"]["message"].as_str().unwrap().contains("429"));

    // Whoever has set the receiver right need not wait for the pause.
    receiver.answer(|_| status(410));
    done(&server, &["enable", &id]);
    until_shown("it is disabled", &server, &id, |shown| shown["state"] == "disabled").await;
    assert!(state(&server, &id)["disabled"].as_str().unwrap().contains("410"));
    set(&client, "b", json!(2)).await;
    receiver.answer(|_| status(200));
    done(&server, &["enable", &id]);
    let ids = |all: &[crate::receiver::Received]| {
        all.iter().map(|one| one.json()["id"].clone()).collect::<Vec<Value>>()
    };
    let received = receiver.until("both", |all| ids(all).last() == Some(&json!("b"))).await;
    assert_eq!(ids(&received), ["a", "a", "a", "b"], "nothing was lost while it was disabled");
    // An operator's `disable` holds too.
    disable(&server, &id).await;
    set(&client, "c", json!(3)).await;
    assert_eq!(receiver.received().len(), 4);
    done(&server, &["enable", &id]);
    let received = receiver.until("the next one", |all| all.len() > 4).await;
    assert_eq!(ids(&received), ["a", "a", "a", "b", "c"]);
}

#[tokio::test(flavor = "multi_thread", worker_threads = 2)]
async fn redirects_are_not_followed_and_long_answers_not_read() {
    let server = Server::start_with(ALLOWED).await;
    let client = server.client(1).await;
    let elsewhere = Receiver::start().await;
    let location = format!("location: {}\r\n", elsewhere.url());
    let receiver = Receiver::start_with(move |_| Answer::Status(307, location.clone())).await;
    let (id, _) = add(&server, &receiver.url(), &["--attempts", "1"]);
    set(&client, "a", json!(1)).await;
    until_shown("it is given up", &server, &id, |shown| shown["dead"] == 1).await;
    let dead = done(&server, &["dead", &id]);
    assert!(dead[0]["error"].as_str().unwrap().contains("redirects are not followed"), "{dead:?}");
    assert!(elsewhere.received().is_empty());

    receiver.answer(|_| Answer::Long(8 << 20));
    set(&client, "b", json!(2)).await;
    set(&client, "c", json!(3)).await;
    receiver.until("both", |all| all.len() == 3).await;
    assert_eq!(state(&server, &id)["dead"], 1, "the status is what counts");
}

#[tokio::test(flavor = "multi_thread", worker_threads = 2)]
async fn a_receiver_that_refuses_everything_is_disabled_before_it_fills_the_disk() {
    let server = Server::start_with(ALLOWED).await;
    let client = server.client(1).await;
    let receiver = Receiver::start_with(|_| status(500)).await;
    let (id, _) = add(&server, &receiver.url(), &["--attempts", "1"]);
    let admin = server.admin().await;
    let fill = format!(
        "INSERT INTO raystream.webhook_dead (webhook, event, body, attempts, first_attempt, error) \
         SELECT '{id}', 'e' || n, '{{}}', 1, now(), 'x' FROM generate_series(1, 999) AS n"
    );
    admin.batch_execute(&fill).await.unwrap();
    for name in ["a", "b", "c"] {
        set(&client, name, json!(1)).await;
    }
    until_shown("it is disabled", &server, &id, |shown| shown["state"] == "disabled").await;
    let found = state(&server, &id);
    assert_eq!(found["dead"], 1_000);
    assert!(found["disabled"].as_str().unwrap().contains("too many dead letters"));
    assert_eq!(done(&server, &["dead", &id]).len(), 1_000);
    receiver.answer(|_| status(200));
    assert_eq!(done(&server, &["bury", &id, "--all"])[0], json!({"removed": 1_000}));
    done(&server, &["enable", &id]);
    let received =
        receiver.until("the rest", |all| all.last().is_some_and(|one| one.json()["id"] == "c")).await;
    let ids: Vec<_> = received.iter().map(|one| one.json()["id"].as_str().unwrap().to_owned()).collect();
    assert_eq!(ids, ["a", "b", "b", "c"], "the one that found no room was not lost");
}

#[tokio::test(flavor = "multi_thread", worker_threads = 2)]
async fn a_webhook_that_cannot_be_read_says_so_and_holds_up_nobody_else() {
    let server = Server::start_with(ALLOWED).await;
    let receiver = Receiver::start().await;
    let (odd, _) = add(&server, &receiver.url(), &[]);
    let (good, _) = add(&server, &receiver.url(), &[]);
    let spoil = "UPDATE raystream.webhooks SET url = 'gopher://x', epoch = epoch + 1 WHERE id = $1";
    server.admin().await.execute(spoil, &[&odd]).await.unwrap();
    let said =
        |shown: &Value| shown["last_error"]["message"].as_str().is_some_and(|text| text.contains("its URL"));
    until_shown("it says why", &server, &odd, said).await;
    assert!(server.log().contains(&odd), "{}", server.log());
    set(&server.client(1).await, "a", json!(1)).await;
    until_shown("the other one is sent", &server, &good, |shown| shown["sent"] == 1).await;
}
