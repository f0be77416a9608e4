//! One run: writers, readers and faults, and what came of it.

use std::collections::BTreeMap;
use std::time::Duration;

use raystream::client::{CallOptions, Client, Error, IdempotencyKey, Json};
use serde_json::{Value, json};
use tokio::time::{Instant, sleep};

use crate::PATIENCE;
use crate::check::Evidence;
use crate::fault::{Fault, Lengths, inject};
use crate::ledger::{Ledger, Source};
use crate::load::{Load, WRITERS, connect};
use crate::numbers::Numbers;
use crate::readers::{Reader, Seen};
use crate::report::Report;
use crate::world::{Setup, World};

/// Parts of a run that have numbers of their own; writers have those below.
const CHOOSER: u64 = 1_000;
const READERS: u64 = 2_000;

/// How long to go on.
pub(crate) enum Work {
    /// So many faults.
    Rounds(usize),
    /// So long.
    Time(Duration),
}

/// What is done in a run.
pub(crate) struct Plan {
    pub(crate) work: Work,
    /// Each of these once, in an order by chance, and then again.
    pub(crate) faults: &'static [Fault],
    pub(crate) is_long: bool,
}

/// Why there is no full disk.
const NO_DISK: &str =
    "full disk: a disk of its own for Postgres cannot be mounted here (it needs root on Linux)";

/// Does it.
pub(crate) async fn run(plan: &Plan, seed: u64) -> Report {
    println!("seed {seed}");
    let mut world = World::start(&Setup::default()).await;
    create_tables(&world).await;
    let mut readers = Vec::new();
    for (source, part) in Source::ALL.into_iter().zip(READERS..) {
        readers.push(Reader::start(&world.daemon.url, source, None).await);
        readers.push(Reader::start(&world.daemon.url, source, Some(Numbers::of(seed, part))).await);
    }
    let ledger = Ledger::default();
    let load = Load::start(&world.daemon.url, &ledger, seed);
    go_on(&world, &ledger, &readers, "the start").await;

    let begun = Instant::now();
    let mut chosen = Chooser::new(plan.faults, world.disk.is_some(), seed);
    let mut faults: BTreeMap<Fault, usize> = BTreeMap::new();
    let lengths = if plan.is_long { Lengths::LONG } else { Lengths::SHORT };
    while match plan.work {
        Work::Rounds(rounds) => faults.values().sum::<usize>() < rounds - plan.left_out(&world),
        Work::Time(time) => begun.elapsed() < time,
    } {
        let fault = chosen.next();
        let pause = chosen.numbers.below(150);
        sleep(Duration::from_millis(pause)).await;
        let at = begun.elapsed();
        if fault == Fault::DiskFull {
            ledger.disk_fills();
        }
        inject(&mut world, fault, lengths, &mut chosen.numbers).await;
        go_on(&world, &ledger, &readers, fault.words()).await;
        if plan.is_long {
            let acknowledged: u64 = ledger.progress().iter().sum();
            println!("{:4} s  {:32}  {acknowledged} acknowledged", at.as_secs(), fault.words());
        }
        *faults.entry(fault).or_default() += 1;
    }
    let time = begun.elapsed();
    load.stop().await;
    world.come_to_rest().await;
    mark_the_end(&world).await;
    let mut seen = Vec::new();
    for reader in readers {
        seen.push(reader.end().await);
    }
    let mut report = Report::of(seed, time, &evidence(&world, &ledger, seen).await);
    report.faults = faults;
    if world.disk.is_none() && plan.faults.contains(&Fault::DiskFull) {
        report.left_out.push(NO_DISK);
    }
    report
}

impl Plan {
    /// How many of its faults are left out in each round.
    fn left_out(&self, world: &World) -> usize {
        let full = self.faults.iter().filter(|fault| **fault == Fault::DiskFull).count();
        if world.disk.is_none() { full } else { 0 }
    }
}

/// Everything there is to compare.
pub(crate) async fn evidence(world: &World, ledger: &Ledger, seen: Vec<Seen>) -> Evidence {
    let (log, rows) = world.read().await;
    let (operations, unexpected) = ledger.read();
    Evidence { operations, unexpected, log, rows, seen }
}

/// Makes the tables, and has Postgres bring everything to disk that there is so far.
pub(crate) async fn create_tables(world: &World) {
    let client = connect(&world.daemon.url).await;
    for source in [Source::Items, Source::Documents] {
        named(&client, "table.create", json!({"table": source.name()})).await;
    }
    world.sql("CHECKPOINT").await;
}

/// Writes the last change of each table and of the topic.
async fn mark_the_end(world: &World) {
    let client = connect(&world.daemon.url).await;
    let data = json!({"end": true});
    named(&client, "table.push", json!({"table": Source::Items.name(), "data": data})).await;
    named(&client, "table.set", json!({"table": Source::Documents.name(), "id": "end", "data": data})).await;
    named(&client, "topic.publish", json!({"topic": Source::Events.name(), "data": data})).await;
}

/// A call of the run's own, until it is done.
async fn named(client: &Client, method: &str, args: Value) {
    let key = IdempotencyKey::random().expect("there is chance");
    let begun = Instant::now();
    loop {
        let options = CallOptions { idempotency_key: Some(key), ..CallOptions::default() };
        let done: Result<Json, Error> = client.call_with(method, Json::encode(&args).unwrap(), options).await;
        match done {
            Ok(_) => return,
            Err(error) => assert!(begun.elapsed() < PATIENCE, "{method}: {error}"),
        }
        sleep(Duration::from_millis(20)).await;
    }
}

/// Waits until the daemon is ready, each writer has had something acknowledged that it sent afterwards, and each reader has seen
/// something more.
pub(crate) async fn go_on(world: &World, ledger: &Ledger, readers: &[Reader], after: &str) {
    world.ready().await;
    // The first one may have been sent before.
    let mut goal: Vec<u64> = ledger.progress().iter().map(|before| before + 2).collect();
    goal.resize(WRITERS, 2);
    let begun = Instant::now();
    let wait = async |what: &str, is_done: &dyn Fn() -> bool| {
        while !is_done() {
            let state = || {
                let readers: Vec<String> = readers.iter().map(Reader::state).collect();
                format!("{goal:?}, now {:?}; {readers:#?}; the daemon:\n{}", ledger.progress(), world.tail())
            };
            assert!(begun.elapsed() < PATIENCE, "after {after} the {what} do not go on: {}", state());
            sleep(Duration::from_millis(5)).await;
        }
    };
    wait("writers", &|| {
        let now = ledger.progress();
        now.len() == goal.len() && now.iter().zip(&goal).all(|(now, goal)| now >= goal)
    })
    .await;
    let seen: Vec<usize> = readers.iter().map(Reader::progress).collect();
    wait("readers", &|| readers.iter().zip(&seen).all(|(reader, before)| reader.progress() > *before)).await;
}

/// The order of the faults.
struct Chooser {
    faults: Vec<Fault>,
    left: Vec<Fault>,
    numbers: Numbers,
}

impl Chooser {
    fn new(faults: &[Fault], has_disk: bool, seed: u64) -> Self {
        let faults = faults.iter().copied().filter(|fault| has_disk || *fault != Fault::DiskFull).collect();
        Self { faults, left: Vec::new(), numbers: Numbers::of(seed, CHOOSER) }
    }

    fn next(&mut self) -> Fault {
        if self.left.is_empty() {
            self.left.clone_from(&self.faults);
            self.numbers.shuffle(&mut self.left);
        }
        self.left.pop().expect("there are faults")
    }
}
