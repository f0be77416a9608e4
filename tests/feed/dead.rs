//! Connections to Postgres that are open and dead.

use std::time::Duration;

use raystream::store::feed::Item;
use tokio::time::timeout;

use crate::proxy::Proxy;
use crate::world::{PATIENCE, World, cursor_of, live, request, until, until_id, versions};

/// The long run of `make faults` meets the same.
#[tokio::test(flavor = "multi_thread", worker_threads = 2)]
#[ignore = "waits for one deadline after the other, most of a minute"]
async fn who_comes_after_the_network_died_gets_what_he_missed() {
    let (proxy, through) = Proxy::start(&crate::postgres::database().await);
    let world = World::on(through).await;
    let feed = world.feed().await;
    let begun = until(&mut live(&feed).await, |item| matches!(item, Item::Position { .. })).await;
    let cursor = cursor_of(begun.last().expect("it stands")).expect("a position");
    let resume = || {
        let mut request = request("t");
        request.cursor = Some(cursor.to_string());
        feed.subscribe(request)
    };
    let client = world.client().await;
    world.set(&client, "a", "1").await;
    // Leaves a connection that read, and one that was asked, for the next one who comes.
    until_id(&mut resume().await.expect("the subscription begins"), "a").await;

    proxy.freeze();
    let client = world.client().await;
    world.set(&client, "b", "1").await;
    let resumed = async {
        loop {
            // Nobody waits as long as a dead connection does not answer: the next one finds it.
            if let Ok(Ok(mut subscription)) = timeout(Duration::from_secs(2), resume()).await {
                return until_id(&mut subscription, "b").await;
            }
        }
    };
    let items = timeout(PATIENCE * 2, resumed).await.expect("it goes on");
    assert_eq!(versions(&items), [("a".to_owned(), 1), ("b".to_owned(), 1)]);
}
