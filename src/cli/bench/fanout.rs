//! `sub`: one writer, many subscribers.
//!
//! A burst of new documents is written, and the next one follows when every subscriber has seen every event of it. Two times
//! are taken for each event: how long its write took until it was acknowledged, and how long after the write was *sent*
//! a subscriber saw it. The second holds the first, since an event is sent after the commit: what the feed adds is the
//! difference.

use std::sync::atomic::{AtomicU64, AtomicUsize, Ordering};
use std::sync::{Arc, Mutex, PoisonError};
use std::time::{Duration, Instant};

use futures_util::future::try_join_all;
use futures_util::{StreamExt as _, TryStreamExt as _, stream};
use serde_json::json;
use tokio::sync::Notify;
use tokio::task::JoinSet;

use super::arguments::{BenchArguments, length};
use super::cores::Cores;
use super::fleet::Fleet;
use super::measured::{Shards, Tally, float};
use super::progress::Progress;
use super::report;
use super::server_side::ServerSide;
use super::table::{self, TABLE, document};
use crate::cli::{Failure, Output};
use crate::client::{CallOptions, Client, Error, Item, Json, SubscribeOptions, Subscription};

/// Subscriptions that are opened at the same time.
const SUBSCRIBING: usize = 64;

/// Events that a subscriber counts together at most.
const SEEN_TOGETHER: usize = 256;

/// What writer and subscribers share.
struct Board {
    /// What the ids of this run begin with: events of others are not ours.
    run: String,
    /// When each document of the burst was sent.
    sent: Mutex<Vec<Instant>>,
    /// Events of the burst that no subscriber has seen yet.
    missing: AtomicUsize,
    complete: Notify,
    /// Whether what is seen counts.
    is_measured: std::sync::atomic::AtomicBool,
    seen: Shards,
    others: AtomicU64,
}

impl Board {
    fn new(subscribers: usize, burst: usize) -> Result<Self, Failure> {
        let mut run = [0; 4];
        getrandom::fill(&mut run).map_err(|error| Failure::failed(format!("no randomness: {error}")))?;
        Ok(Self {
            run: format!("s{:08x}-", u32::from_be_bytes(run)),
            sent: Mutex::new(vec![Instant::now(); burst]),
            missing: AtomicUsize::new(0),
            complete: Notify::new(),
            is_measured: false.into(),
            seen: Shards::new(subscribers),
            others: AtomicU64::new(0),
        })
    }

    /// The id of a document.
    fn id(&self, burst: u64, slot: usize) -> String {
        format!("{}{burst}-{slot}", self.run)
    }

    /// The place in its burst that a document has. That it is of the present burst needs no look: the last one is complete.
    fn slot(&self, id: &str) -> Option<usize> {
        let place = id.strip_prefix(self.run.as_str()).and_then(|place| place.split_once('-'));
        place.and_then(|(_, slot)| slot.parse().ok())
    }

    /// A subscriber has seen these documents, the last of them now: what came together is looked at together.
    fn see(&self, subscriber: usize, slots: &[Option<usize>]) {
        let now = Instant::now();
        let known = {
            let sent = self.sent();
            let times = slots.iter().filter_map(|slot| sent.get((*slot)?)).map(|sent| now - *sent);
            if self.is_measured.load(Ordering::Relaxed) {
                self.seen.with(subscriber, |tally| times.inspect(|time| tally.record(*time)).count())
            } else {
                times.count()
            }
        };
        if known < slots.len() {
            let others = u64::try_from(slots.len() - known).unwrap_or(u64::MAX);
            self.others.fetch_add(others, Ordering::Relaxed);
        }
        if known > 0 && self.missing.fetch_sub(known, Ordering::AcqRel) == known {
            self.complete.notify_one();
        }
    }

    fn sent(&self) -> std::sync::MutexGuard<'_, Vec<Instant>> {
        self.sent.lock().unwrap_or_else(PoisonError::into_inner)
    }

    /// Writes one document; gives how long that took.
    async fn write(&self, client: &Client, burst: u64, slot: usize, data: &str) -> Result<Duration, Error> {
        let id = self.id(burst, slot);
        let args = format!(r#"{{"table":"{TABLE}","id":"{id}","data":{data}}}"#);
        let sent = Instant::now();
        self.sent()[slot] = sent;
        client.call_with("table.set", Json::new(args), CallOptions::default()).await?;
        Ok(sent.elapsed())
    }
}

/// The totals of the bursts that counted.
struct Totals {
    writes: Tally,
    bursts: u64,
    /// From the first write of each burst to its last event.
    busy: Duration,
}

pub(super) async fn run(
    arguments: &BenchArguments,
    cores: Cores,
    output: &mut Output,
) -> Result<(), Failure> {
    let fleet = Fleet::connect(arguments, cores.clone(), output).await?;
    let server = ServerSide::new(fleet.extra().await?, output).await;
    let writer = fleet.extra().await?;
    table::create(&writer).await?;
    let board = Arc::new(Board::new(length(arguments.connections()), length(arguments.in_flight()))?);
    let mut subscribers = subscribe(&fleet, &cores, &board).await?;
    let progress = Progress::of_time(output, "sub", arguments.warm_up() + arguments.duration.get());
    let begin = Instant::now();
    let mut totals = Totals { writes: Tally::new(), bursts: 0, busy: Duration::ZERO };
    let mut bursts = 0;
    burst_until(begin + arguments.warm_up(), arguments, &board, &writer, &mut bursts, &mut |_, _| {
        progress.at_time(begin.elapsed());
    })
    .await?;
    board.is_measured.store(true, Ordering::Relaxed);
    let before = server.sample().await;
    let end = begin + arguments.warm_up() + arguments.duration.get();
    burst_until(end, arguments, &board, &writer, &mut bursts, &mut |writes, took| {
        writes.iter().for_each(|time| totals.writes.record(*time));
        totals.bursts += 1;
        totals.busy += took;
        progress.at_time(begin.elapsed());
    })
    .await?;
    let used = server.sample().await.since(&before);
    drop(progress);
    subscribers.abort_all();
    while subscribers.join_next().await.is_some() {}
    let suite = fleet.suite();
    remove(&writer, &board, bursts, length(arguments.in_flight())).await;
    for client in fleet.clients.iter().chain([&writer, server.client()]) {
        client.close().await;
    }
    if totals.bursts == 0 {
        let message = format!("no burst fitted into {}", arguments.duration);
        return Err(Failure::failed(message).with_hint("give it more time with --duration"));
    }
    let seen = board.seen.sum();
    let rate = float(seen.done()) / totals.busy.as_secs_f64();
    let mut value = report::head(arguments, &suite);
    value["bursts"] = json!(totals.bursts);
    value["deliveries"] = json!(seen.done());
    value["deliveries_per_s"] = json!(rate);
    value["latency_from"] = json!("write sent");
    value["latency_us"] = report::latency_json(&seen);
    value["write_us"] = report::latency_json(&totals.writes);
    value["cpu_s_per_100k"] = report::cpu_json(&used, seen.done());
    value["errors"] = json!(seen.errors());
    value["histogram"] = report::histogram_json(&seen);
    let text = format!(
        "sub: {} subscribers, bursts of {} ({suite})\n{} deliveries   {rate:.0} deliveries/s while a burst is under way\n\
         write, sent to acknowledged:   {}\nevent, write sent to seen:     {}\n{}{}",
        arguments.connections(),
        arguments.in_flight(),
        seen.done(),
        report::latency_text(&totals.writes),
        report::latency_text(&seen),
        report::cpu_text(&used, seen.done(), "deliveries"),
        super::histogram::draw(&seen),
    );
    output.result(text, &value)?;
    report::expect_any(&seen)
}

/// Opens a subscription on each connection and starts to read them.
async fn subscribe(fleet: &Fleet, cores: &Cores, board: &Arc<Board>) -> Result<JoinSet<()>, Failure> {
    let opened: Vec<Subscription> = stream::iter(&fleet.clients)
        .map(|client| async {
            let mut options = SubscribeOptions::new(TABLE);
            options.snapshot = false;
            client.subscribe(options).await
        })
        .buffered(SUBSCRIBING)
        .try_collect()
        .await
        .map_err(table::explain)?;
    let mut readers = JoinSet::new();
    for (subscriber, subscription) in opened.into_iter().enumerate() {
        readers.spawn_on(read(subscriber, subscription, Arc::clone(board)), cores.of(subscriber));
    }
    Ok(readers)
}

async fn read(subscriber: usize, mut subscription: Subscription, board: Arc<Board>) {
    let mut slots = Vec::new();
    // An end shows as a burst that is never complete, which tells that it is.
    while let Some(Ok(first)) = subscription.next().await {
        let mut item = Some(Ok(first));
        while let Some(Ok(next)) = item {
            if let Item::Event(change) = next {
                slots.push(board.slot(&change.id));
            }
            // What came with it, but for a bound: others have their turn.
            item = if slots.len() < SEEN_TOGETHER { subscription.try_next() } else { None };
        }
        board.see(subscriber, &slots);
        slots.clear();
    }
}

/// Writes bursts until the time is over; tells of each how long its writes took, and all of it.
async fn burst_until(
    end: Instant,
    arguments: &BenchArguments,
    board: &Board,
    writer: &Client,
    bursts: &mut u64,
    tell: &mut impl FnMut(&[Duration], Duration),
) -> Result<(), Failure> {
    let data = document(0, arguments.payload()?);
    let (burst, limit) = (length(arguments.in_flight()), arguments.connect.timeout.get());
    while Instant::now() < end {
        board.missing.store(burst * length(arguments.connections()), Ordering::Release);
        let begin = Instant::now();
        let writes = try_join_all((0..burst).map(|slot| board.write(writer, *bursts, slot, &data))).await;
        *bursts += 1;
        let writes = writes.map_err(table::explain)?;
        if crate::time::timeout(limit, board.complete.notified()).await.is_err() {
            let missing = board.missing.load(Ordering::Acquire);
            return Err(Failure::failed(format!(
                "{missing} events of a burst did not arrive within {limit:?}"
            )));
        }
        tell(&writes, begin.elapsed());
    }
    Ok(())
}

/// Takes this run's documents away; what is not granted stays.
async fn remove(writer: &Client, board: &Board, bursts: u64, burst: usize) {
    for number in 0..bursts {
        let delete = |slot| {
            let id = board.id(number, slot);
            async move { writer.call("table.delete", &json!({ "table": TABLE, "id": id })).await }
        };
        let _may_not_be_granted = try_join_all((0..burst).map(delete)).await;
    }
}
