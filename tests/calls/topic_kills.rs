//! A daemon that is killed again and again under those who publish through it.

use std::collections::HashMap;
use std::time::{Duration, Instant};

use raystream::client::{Client, Item, Options, SubscribeOptions};
use serde_json::{Value, json};
use tokio::time::timeout;

use crate::server::{PATIENCE, Server, connect, key};

const WRITERS: usize = 3;
const KILLS: usize = 8;
/// How many events are acknowledged between two kills at least.
const BETWEEN: usize = 20;

/// Publishes numbered events until it is told to stop; gives the numbers that were acknowledged, with their ids.
async fn write(
    url: String,
    writer: usize,
    acknowledged: tokio::sync::mpsc::UnboundedSender<()>,
    stop: tokio::sync::watch::Receiver<bool>,
) -> Vec<(usize, String)> {
    let mut known = Vec::new();
    let mut client: Option<Client> = None;
    for n in 0.. {
        if *stop.borrow() {
            break;
        }
        let connected = match client.take().filter(|client| client.connection().is_some()) {
            Some(client) => client,
            None => loop {
                match connect(&url, 1).await {
                    Ok(client) => break client,
                    Err(_) => tokio::time::sleep(Duration::from_millis(10)).await,
                }
            },
        };
        // What fails may have been done: it is not repeated, and counts for nothing.
        if let Ok(published) = connected.publish("load", &json!({"writer": writer, "n": n})).await {
            known.push((n, published.id));
            let _all_stopped = acknowledged.send(());
        }
        client = Some(connected);
    }
    known
}

#[tokio::test(flavor = "multi_thread", worker_threads = 2)]
async fn every_acknowledged_event_is_received_once_and_in_order_over_kills_of_the_daemon() {
    let mut server = Server::start().await;
    // The one that comes back by itself.
    let mut options = Options::default();
    options.identity = Some(key(1).0);
    let reader = Client::connect(&server.url, options).await.unwrap();
    let mut subscription = reader.subscribe(SubscribeOptions::topic("load")).await.unwrap();

    let (acknowledged, mut progress) = tokio::sync::mpsc::unbounded_channel();
    let (stop, stopped) = tokio::sync::watch::channel(false);
    let writers: Vec<_> = (0..WRITERS)
        .map(|writer| tokio::spawn(write(server.url.clone(), writer, acknowledged.clone(), stopped.clone())))
        .collect();
    let started = Instant::now();
    for _ in 0..KILLS {
        for _ in 0..BETWEEN {
            timeout(PATIENCE, progress.recv()).await.expect("events go on").expect("the writers live");
        }
        server.kill();
        server.restart();
    }
    stop.send(true).unwrap();
    let known = futures_util::future::join_all(writers).await;
    let known: Vec<Vec<(usize, String)>> = known.into_iter().map(Result::unwrap).collect();
    let end = server.client(1).await.publish("load", "end").await.unwrap();

    let mut received: Vec<Vec<(usize, String)>> = vec![Vec::new(); WRITERS];
    let mut times: HashMap<String, usize> = HashMap::new();
    loop {
        let next = timeout(PATIENCE, subscription.next()).await.expect("an item comes in time");
        match next.expect("it goes on").expect("without an error") {
            Item::Event(change) if change.id == end.id => break,
            Item::Event(change) => {
                let data: Value = change.data.expect("an event has data").decode().unwrap();
                let number = |name: &str| usize::try_from(data[name].as_u64().unwrap()).unwrap();
                *times.entry(change.id.clone()).or_default() += 1;
                received[number("writer")].push((number("n"), change.id));
            }
            Item::Position { .. } => {}
            other => panic!("nothing is reset: {other:?}"),
        }
    }
    assert!(times.values().all(|times| *times == 1), "each once");
    let (mut all, mut sure) = (0, 0);
    for (received, known) in received.iter().zip(&known) {
        // What was not acknowledged may be there or not, and may have been late.
        let acknowledged: Vec<_> = received.iter().filter(|event| known.contains(event)).collect();
        assert!(acknowledged.iter().copied().eq(known), "every acknowledged one, in the order of publishing");
        (all, sure) = (all + received.len(), sure + known.len());
    }
    println!("{KILLS} kills in {:?}: {sure} events acknowledged, {all} received", started.elapsed());
    assert!(sure >= KILLS * BETWEEN);
}
