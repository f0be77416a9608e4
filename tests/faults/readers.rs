//! Readers: some follow a table or topic without an end, and some come with their last cursor, take a few changes, and go.

use std::sync::{Arc, Mutex};
use std::time::Duration;

use raystream::client::{Client, Error, Item, SubscribeOptions, Subscription};
use raystream::wire::envelope::Overflow;
use serde_json::Value;
use tokio::sync::oneshot;
use tokio::task::JoinHandle;
use tokio::time::{sleep, timeout};

use crate::PATIENCE;
use crate::check::Change;
use crate::ledger::Source;
use crate::load::{connect, options};
use crate::numbers::Numbers;

/// The most changes that a reader takes who comes and goes.
const TAKES: u64 = 40;

/// What a reader has seen.
#[derive(Clone, Debug)]
pub(crate) struct Seen {
    pub(crate) name: String,
    pub(crate) source: Source,
    pub(crate) changes: Vec<Change>,
    /// How often it went on from a cursor of its own.
    pub(crate) resumed: u64,
    /// What no reader should meet.
    pub(crate) problems: Vec<String>,
    /// It saw the last change of all.
    pub(crate) is_complete: bool,
}

/// A reader at work.
pub(crate) struct Reader {
    seen: Arc<Mutex<Seen>>,
    task: JoinHandle<()>,
}

impl Reader {
    /// Starts one; returns when it is sure to see what comes from now on.
    pub(crate) async fn start(url: &str, source: Source, hops: Option<Numbers>) -> Self {
        let name = if hops.is_some() { "comes and goes" } else { "stays" };
        let (changes, problems) = (Vec::new(), Vec::new());
        let name = format!("the reader of {} who {name}", source.name());
        let seen = Seen { name, source, changes, resumed: 0, problems, is_complete: false };
        let seen = Arc::new(Mutex::new(seen));
        let (ready, is_ready) = oneshot::channel();
        let shared = Arc::clone(&seen);
        let url = url.to_owned();
        let task = tokio::spawn(async move {
            match hops {
                None => stay(&url, source, &shared, ready).await,
                Some(numbers) => come_and_go(&url, source, numbers, &shared, ready).await,
            }
        });
        timeout(PATIENCE, is_ready).await.expect("it subscribes").expect("it subscribes");
        Self { seen, task }
    }

    /// How many changes it has seen.
    pub(crate) fn progress(&self) -> usize {
        self.seen.lock().unwrap().changes.len()
    }

    /// Who it is, and what it met.
    pub(crate) fn state(&self) -> String {
        let seen = self.seen.lock().unwrap();
        format!("{}: {} changes, {:?}", seen.name, seen.changes.len(), seen.problems)
    }

    /// Waits until it has seen the last change.
    pub(crate) async fn end(self) -> Seen {
        let Self { seen, mut task } = self;
        if timeout(PATIENCE, &mut task).await.is_err() {
            task.abort();
            seen.lock().unwrap().problems.push("does not come to the end".to_owned());
        }
        seen.lock().unwrap().clone()
    }
}

fn subscribe(source: Source) -> SubscribeOptions {
    let mut options = match source {
        Source::Events => SubscribeOptions::topic(source.name()),
        _ => SubscribeOptions::new(source.name()),
    };
    options.snapshot = false;
    options.overflow = Overflow::Block;
    options
}

/// Notes an item; says whether it was the last one.
fn note(seen: &Mutex<Seen>, item: Item) -> bool {
    let mut seen = seen.lock().unwrap();
    match item {
        Item::Event(change) => {
            let data: Value =
                change.data.as_ref().map_or(Value::Null, |data| data.decode().expect("documents are JSON"));
            if data["end"] == true {
                seen.is_complete = true;
                return true;
            }
            let version = i64::try_from(change.version).unwrap();
            let source = seen.source;
            seen.changes.push(Change::of(source, change.id, version, &data));
        }
        Item::Position { .. } => {}
        // Nothing is older than what is kept, so nothing is to be begun again.
        other => seen.problems.push(format!("{other:?}")),
    }
    false
}

/// One subscription, which outlives its connections.
async fn stay(url: &str, source: Source, seen: &Mutex<Seen>, ready: oneshot::Sender<()>) {
    let client = connect(url).await;
    let mut subscription = client.subscribe(subscribe(source)).await.expect("it is there");
    ready.send(()).expect("somebody waits");
    loop {
        match subscription.next().await {
            Some(Ok(item)) => {
                if note(seen, item) {
                    return;
                }
            }
            other => {
                let mut seen = seen.lock().unwrap();
                return seen.problems.push(format!("the subscription ended: {other:?}"));
            }
        }
    }
}

/// Always a new connection, and the cursor of the last one.
async fn come_and_go(
    url: &str,
    source: Source,
    mut numbers: Numbers,
    seen: &Mutex<Seen>,
    ready: oneshot::Sender<()>,
) {
    let mut ready = Some(ready);
    let mut cursor: Option<String> = None;
    loop {
        let (client, mut subscription) = match go_on(url, source, cursor.clone()).await {
            Ok(both) => both,
            Err(error) => {
                // A fault is at work, as the others meet it. What does not go away is found by the end that does not come.
                if error.code() == Some(raystream::wire::ErrorCode::RESET) {
                    seen.lock().unwrap().problems.push(error.to_string());
                }
                sleep(Duration::from_millis(20)).await;
                continue;
            }
        };
        if cursor.is_some() {
            seen.lock().unwrap().resumed += 1;
        }
        let takes = 1 + numbers.below(TAKES);
        for _ in 0..takes {
            // Who never leaves a connection that brings nothing is the other kind of reader.
            let next = timeout(Duration::from_secs(2), subscription.next()).await;
            let Ok(Some(Ok(item))) = next else { break };
            if note(seen, item) {
                return;
            }
            if let Some(ready) = ready.take() {
                let _nobody_waits = ready.send(());
            }
        }
        if let Some(position) = subscription.cursor() {
            cursor = Some(position.to_owned());
        }
        drop(subscription);
        if numbers.below(2) == 0 {
            client.close().await;
        }
    }
}

async fn go_on(url: &str, source: Source, cursor: Option<String>) -> Result<(Client, Subscription), Error> {
    let mut once = options();
    once.reconnect = None;
    let client = Client::connect(url, once).await?;
    let mut wanted = subscribe(source);
    wanted.cursor = cursor;
    let subscription = client.subscribe(wanted).await?;
    Ok((client, subscription))
}
