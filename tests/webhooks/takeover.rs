//! Two daemons on one database: one of them sends, and the other one goes on.

use serde_json::json;

use crate::commands::{ALLOWED, add, set, status, until_shown};
use crate::receiver::Receiver;
use crate::server::Server;

#[tokio::test(flavor = "multi_thread", worker_threads = 2)]
async fn one_of_two_daemons_sends_and_the_other_goes_on_when_it_dies() {
    let mut first = Server::start_with(ALLOWED).await;
    let receiver = Receiver::start().await;
    let (id, _) = add(&first, &receiver.url(), &[]);
    let shown = until_shown("the first one takes it", &first, &id, |shown| !shown["holder"].is_null()).await;
    let holder = &shown["holder"];
    let second = Server::on(first.database.clone(), ALLOWED);
    // Written through both.
    let (one, two) = (first.client(1).await, second.client(1).await);
    for n in 0..30 {
        set(&one, &format!("a{n}"), json!(n)).await;
        set(&two, &format!("b{n}"), json!(n)).await;
    }
    let events = receiver.until_events(60).await;
    assert_eq!(receiver.received().len(), events.len(), "nothing twice: only one sends");
    assert_eq!(&status(&second, &id)["holder"], holder);

    first.kill();
    for n in 0..30 {
        set(&two, &format!("c{n}"), json!(n)).await;
    }
    // The lease of the dead one ends by itself.
    let events = receiver.until_events(90).await;
    let ids: Vec<_> =
        events[60..].iter().map(|event| event.json()["id"].as_str().unwrap().to_owned()).collect();
    assert_eq!(ids, (0..30).map(|n| format!("c{n}")).collect::<Vec<_>>());
    let taken = status(&second, &id)["holder"].clone();
    assert!(!taken.is_null() && taken != *holder, "{taken} {holder}");
}
