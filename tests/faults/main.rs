//! Nothing that was acknowledged is lost, nothing is done twice, and nobody who watches misses anything, whatever is killed,
//! stopped, cut or full meanwhile.
//!
//! Writers send operations that each have a number of their own through the real protocol, readers follow what is committed
//! and go on from their cursors again and again, and a chooser of faults is at work on the daemon, on Postgres and on what is
//! between them. What the writers were told is kept in the memory of this process, which no fault touches. In the end it is
//! compared with the tables, with the log, and with what the readers have seen.
//!
//! A test of this kind that finds nothing may be blind. So the same is done with two databases that do lose what they
//! acknowledged, and has to find that.
//!
//! `make faults` runs it for minutes. A kill is not a loss of power: what Postgres gave to the kernel survives here, whether or
//! not it reached the disk.
#![cfg(feature = "server")]
#![allow(clippy::unwrap_used, clippy::print_stdout, reason = "in a test, a panic and figures are the report")]

#[path = "../database/certificates.rs"]
#[allow(dead_code, reason = "these clusters are reached without TLS")]
mod certificates;
#[path = "../calls/server.rs"]
#[allow(dead_code, reason = "not every helper is used here")]
mod daemon;
#[path = "../support/postgres.rs"]
#[allow(dead_code, reason = "not every helper is used here")]
mod postgres;
#[path = "../storage/proxy.rs"]
#[allow(dead_code, reason = "not every helper is used here")]
mod proxy;
#[path = "../database/server.rs"]
#[allow(dead_code, reason = "not every helper is used here")]
mod server;

mod check;
mod controls;
mod disk;
mod fault;
mod ledger;
mod liar;
mod load;
mod numbers;
mod processes;
mod readers;
mod report;
mod run;
mod world;

use std::time::Duration;

use fault::Fault;
use run::{Plan, Work, run};

/// How long anything of a test may take before it counts as hung: generous, because machines are shared.
const PATIENCE: Duration = Duration::from_secs(90);

/// How long the long run lasts unless `FAULTS_SECONDS` says otherwise.
const LONG: Duration = Duration::from_secs(300);

/// The seed of `FAULTS_SEED`, else one that no other run has.
fn seed() -> u64 {
    let given = std::env::var("FAULTS_SEED").ok().map(|seed| seed.parse().expect("FAULTS_SEED is a number"));
    given.unwrap_or_else(|| {
        let now = std::time::SystemTime::now().duration_since(std::time::UNIX_EPOCH);
        now.expect("the clock is after 1970").as_secs()
    })
}

/// One fault of each quick kind.
#[tokio::test(flavor = "multi_thread", worker_threads = 2)]
async fn nothing_is_lost_doubled_or_missed_over_faults() {
    let plan = Plan { work: Work::Rounds(Fault::QUICK.len()), faults: Fault::QUICK, is_long: false };
    let report = run(&plan, seed()).await;
    println!("{report}");
    report.assert_clean();
}

#[tokio::test(flavor = "multi_thread", worker_threads = 2)]
async fn a_database_that_does_not_wait_for_its_log_is_seen_to_lose_writes() {
    controls::without_waiting_for_the_log(seed()).await;
}

#[tokio::test(flavor = "multi_thread", worker_threads = 2)]
async fn an_acknowledgement_before_the_commit_is_seen_to_lose_writes() {
    controls::answers_before_the_commit(seed()).await;
}

/// `make faults`
#[tokio::test(flavor = "multi_thread", worker_threads = 2)]
#[ignore = "takes minutes"]
async fn for_minutes() {
    let time = std::env::var("FAULTS_SECONDS").ok().map_or(LONG, |seconds| {
        Duration::from_secs(seconds.parse().expect("FAULTS_SECONDS is a number of seconds"))
    });
    let plan = Plan { work: Work::Time(time), faults: Fault::LONG, is_long: true };
    let report = run(&plan, seed()).await;
    println!("{report}");
    controls::without_waiting_for_the_log(seed()).await;
    controls::answers_before_the_commit(seed()).await;
    report.assert_clean();
}
