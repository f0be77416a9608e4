//! The same writers and the same check on two databases that lose what they acknowledged: the check has to find that.

use std::time::Duration;

use tokio::time::{Instant, sleep};

use crate::check::Wrong;
use crate::fault::{Fault, Lengths, inject};
use crate::ledger::Ledger;
use crate::load::Load;
use crate::numbers::Numbers;
use crate::report::Report;
use crate::run::{create_tables, evidence, go_on};
use crate::world::{Setup, World};

/// Faults of each: the first one shows it nearly always.
const ROUNDS: usize = 3;

/// What every writer does beside what a fault has to meet.
const APART: Duration = Duration::from_millis(300);

/// COMMIT returns before the log is written, which nobody does for 10 s: what was acknowledged is in the memory of processes
/// that are killed. (`fsync = off` would not do: what Postgres gave to the kernel survives a kill.)
pub(crate) async fn without_waiting_for_the_log(seed: u64) {
    let setup = Setup {
        settings: &[
            "synchronous_commit=off",
            "wal_writer_delay=10s",
            "wal_writer_flush_after=1GB",
            "wal_buffers=16MB",
        ],
        section: "unsafe_durability = true\n",
        lies: false,
    };
    let report = control(&setup, seed, async |world, numbers| {
        inject(world, Fault::PostgresKilled, Lengths::SHORT, numbers).await;
    })
    .await;
    judge("synchronous_commit = off", &report);
}

/// Something between the daemon and Postgres answers COMMIT before it passes it on, and is cut meanwhile.
pub(crate) async fn answers_before_the_commit(seed: u64) {
    let setup = Setup { lies: true, ..Setup::default() };
    let report = control(&setup, seed, async |world, _| {
        world.liar.as_ref().expect("it lies").cut();
        world.bring_postgres_back().await;
    })
    .await;
    judge("an acknowledgement before COMMIT", &report);
}

fn judge(name: &str, report: &Report) {
    let lost = report.findings.count(Wrong::Lost);
    println!(
        "negative control, {name}: FAILS as it must: lost {lost} of {} acknowledged",
        report.acknowledged
    );
    assert!(lost > 0, "the check does not see what {name} loses:\n{report}");
}

async fn control(setup: &Setup, seed: u64, harm: impl AsyncFn(&mut World, &mut Numbers)) -> Report {
    let mut world = World::start(setup).await;
    create_tables(&world).await;
    let ledger = Ledger::default();
    let mut numbers = Numbers::of(seed, 0);
    let begun = Instant::now();
    let load = Load::start(&world.daemon.url, &ledger, seed);
    for _ in 0..ROUNDS {
        go_on(&world, &ledger, &[], "the last fault").await;
        sleep(APART).await;
        harm(&mut world, &mut numbers).await;
    }
    load.stop().await;
    world.come_to_rest().await;
    Report::of(seed, begun.elapsed(), &evidence(&world, &ledger, Vec::new()).await)
}
