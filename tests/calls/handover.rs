//! Two daemons on one database: what is written through the one is read through the other, and the reader goes from the one to
//! the other with its cursor, again and again, while both are killed now and then.

use std::collections::{BTreeMap, HashMap};
use std::sync::Arc;
use std::sync::atomic::{AtomicBool, AtomicUsize, Ordering};
use std::time::Duration;

use raystream::client::{Change, Client, EventKind, Item, SubscribeOptions, Subscription};
use serde_json::{Value, json};
use tokio::time::timeout;

use crate::server::{PATIENCE, Server, call, connect};

const WRITERS: usize = 4;
/// Documents of each writer: the same ones again and again, so that each has many versions.
const DOCUMENTS: usize = 3;
/// How often the reader goes to the other daemon in CI. At every fourth time the daemon that it reads from is killed, and at
/// every fourth the one that is written to.
const MOVES: usize = 16;

/// A change: the document and its version.
type Step = (String, u64);

/// Writes through the daemon that is not read from until it is told to stop; gives what was acknowledged, in order.
async fn write(writer: usize, urls: [String; 2], read: Arc<AtomicUsize>, stop: Arc<AtomicBool>) -> Vec<Step> {
    let mut clients: [Option<Client>; 2] = [None, None];
    let mut known = Vec::new();
    for n in 0.. {
        if stop.load(Ordering::Relaxed) {
            break;
        }
        let at = 1 - read.load(Ordering::Relaxed);
        let client = match clients[at].take().filter(|client| client.connection().is_some()) {
            Some(client) => client,
            None => match connect(&urls[at], 1).await {
                Ok(client) => client,
                // It is being killed, or is not there yet.
                Err(_) => {
                    tokio::time::sleep(Duration::from_millis(10)).await;
                    continue;
                }
            },
        };
        let id = format!("w{writer}d{}", n % DOCUMENTS);
        // What fails may have been done, and counts for nothing.
        if n % 7 == 3 {
            let _done_or_not = call(&client, "table.delete", json!({"table": "t", "id": id})).await;
        } else {
            let set = json!({"table": "t", "id": id, "data": {"n": n}});
            if let Ok(answer) = call(&client, "table.set", set).await {
                known.push((id, answer["version"].as_u64().unwrap()));
            }
        }
        clients[at] = Some(client);
    }
    known
}

/// What somebody has who knows the table from the subscription alone. It refuses what cannot be.
#[derive(Default)]
struct Copy {
    documents: BTreeMap<String, (u64, Value)>,
    /// The last version of each document, also of those that were deleted.
    versions: HashMap<String, u64>,
    /// In the order in which they came.
    events: Vec<Step>,
    is_complete: bool,
}

impl Copy {
    fn apply(&mut self, item: Item) {
        match item {
            Item::Position { .. } => {}
            Item::SnapshotEnd { .. } => self.is_complete = true,
            Item::Snapshot(change) => {
                assert!(!self.is_complete, "there is one snapshot");
                self.put(change);
            }
            Item::Event(change) => {
                assert!(self.is_complete);
                let was_there = self.documents.contains_key(&change.id);
                let is_good = match change.kind {
                    EventKind::Insert => !was_there,
                    EventKind::Update | EventKind::Delete => was_there,
                    _ => false,
                };
                assert!(is_good, "{:?} of {}, which is there: {was_there}", change.kind, change.id);
                if let Some(before) = self.versions.get(&change.id) {
                    assert_eq!(change.version, before + 1, "{}: each version once, in order", change.id);
                }
                self.events.push((change.id.clone(), change.version));
                self.put(change);
            }
            other => panic!("nothing is reset: {other:?}"),
        }
    }

    fn put(&mut self, change: Change) {
        self.versions.insert(change.id.clone(), change.version);
        match change.data {
            Some(data) => {
                let data = data.decode().unwrap();
                self.documents.insert(change.id, (change.version, data));
            }
            None => drop(self.documents.remove(&change.id)),
        }
    }
}

/// Goes on at a daemon, from a cursor or from the beginning.
async fn subscribe(server: &Server, cursor: Option<String>) -> (Client, Subscription) {
    let client = server.client(1).await;
    let mut options = SubscribeOptions::new("t");
    options.cursor = cursor;
    let subscription = client.subscribe(options).await.unwrap();
    (client, subscription)
}

async fn next(subscription: &mut Subscription) -> Option<Item> {
    timeout(PATIENCE, subscription.next()).await.expect("an item comes in time")?.ok()
}

async fn moves(count: usize) {
    let first = Server::start().await;
    let second = first.another();
    let mut servers = [first, second];
    let urls = [servers[0].url.clone(), servers[1].url.clone()];
    let (read, stop) = (Arc::new(AtomicUsize::new(0)), Arc::new(AtomicBool::new(false)));
    let writers: Vec<_> = (0..WRITERS)
        .map(|writer| tokio::spawn(write(writer, urls.clone(), Arc::clone(&read), Arc::clone(&stop))))
        .collect();

    let (mut copy, mut cursor, mut kills) = (Copy::default(), None, 0);
    for round in 0..count {
        let at = round % 2;
        read.store(at, Ordering::Relaxed);
        let (client, mut subscription) = subscribe(&servers[at], cursor.take()).await;
        let goal = copy.events.len() + 1 + round * 11 % 37;
        while !copy.is_complete || copy.events.len() < goal {
            copy.apply(next(&mut subscription).await.expect("the daemon is there"));
        }
        // Daemons have even and odd rounds: each is killed as the one that is read from, and as the other one.
        match round % 8 {
            1 | 4 => {
                servers[at].kill();
                // What had arrived counts.
                while let Some(item) = next(&mut subscription).await {
                    copy.apply(item);
                }
                servers[at].restart();
                kills += 1;
            }
            3 | 6 => {
                servers[1 - at].kill();
                servers[1 - at].restart();
                kills += 1;
            }
            _ => {}
        }
        cursor = Some(subscription.cursor().expect("it stands behind a snapshot").to_owned());
        drop((subscription, client));
    }
    stop.store(true, Ordering::Relaxed);
    let known = futures_util::future::join_all(writers).await;
    let known: Vec<Vec<Step>> = known.into_iter().map(Result::unwrap).collect();

    assert_eq!(urls, [servers[0].url.clone(), servers[1].url.clone()]);
    let (client, mut subscription) = subscribe(&servers[count % 2], cursor).await;
    call(&client, "table.set", json!({"table": "t", "id": "end", "data": {}})).await.unwrap();
    while !copy.documents.contains_key("end") {
        copy.apply(next(&mut subscription).await.expect("the daemon is there"));
    }
    let page = call(&client, "table.query", json!({"table": "t", "limit": 1000})).await.unwrap();
    let documents = page["items"].as_array().unwrap().iter().map(|item| {
        let version = item["version"].as_u64().unwrap();
        (item["id"].as_str().unwrap().to_owned(), (version, item["data"].clone()))
    });
    assert_eq!(copy.documents, documents.collect(), "in the end it has what the table has");

    let places: HashMap<&Step, usize> =
        copy.events.iter().enumerate().map(|(place, step)| (step, place)).collect();
    assert_eq!(places.len(), copy.events.len(), "each once");
    let mut acknowledged = 0;
    for known in &known {
        // What was acknowledged before the snapshot is in it.
        let seen: Vec<Option<&usize>> =
            known.iter().map(|step| places.get(step)).skip_while(Option::is_none).collect();
        assert!(seen.iter().all(Option::is_some), "every acknowledged write behind the snapshot has come");
        assert!(seen.is_sorted(), "in the order in which it was written");
        acknowledged += seen.len();
    }
    println!(
        "{count} moves, {kills} kills: {} changes, {acknowledged} of them acknowledged",
        copy.events.len()
    );
    assert!(acknowledged > count, "there was load");
}

#[tokio::test(flavor = "multi_thread", worker_threads = 2)]
async fn a_cursor_goes_from_daemon_to_daemon_under_load_and_over_kills() {
    moves(MOVES).await;
}

/// `cargo test --release --test calls a_cursor_goes_a_thousand_times -- --ignored --nocapture`
#[tokio::test(flavor = "multi_thread", worker_threads = 2)]
#[ignore = "takes minutes"]
async fn a_cursor_goes_a_thousand_times() {
    moves(1_000).await;
}
