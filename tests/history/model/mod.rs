//! Sessions, leases and collection, beside an oracle: random transactions at three daemons, whose log grows old, is collected, and
//! whose leases lapse; one of the daemons dies now and then. For every live session the documents are the same before and after a
//! collection; what is over says so and gives nothing; and what is no longer kept is never given wrongly.

mod daemons;
mod oracle;
mod run;
mod sessions;

use proptest::prelude::*;
use proptest::test_runner::{Config, TestRunner};

use daemons::Daemons;
use run::Run;

/// Sequences in CI; `PROPTEST_CASES` asks for more.
const CASES: u32 = 16;

/// Sessions that may be open at a time.
const SESSIONS: usize = 3;

/// Documents: few, so that transactions meet.
const DOCUMENTS: u8 = 2;

/// At which daemon a session is begun.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
enum Daemon {
    /// Its limits of time are far away.
    Steady,
    /// It ends a session at once when nothing is asked of it.
    Hasty,
    /// It can be killed.
    Mortal,
}

/// What is done next. A step that makes no sense is left out.
#[derive(Clone, Debug)]
enum Step {
    Begin {
        session: usize,
        daemon: Daemon,
        serializable: bool,
        read_only: bool,
    },
    /// By a session, or by itself.
    Set(Option<usize>, u8, i64),
    Delete(Option<usize>, u8),
    Read(usize),
    End(usize, bool),
    /// The lease of a session ends: that of a hasty daemon with the session, that of another one though it is open.
    Lapse(usize),
    Kill,
    /// What is in the log is hours old from now on.
    Age,
    Collect,
    /// A document is deleted, and its delete leaves the log.
    Forget(u8),
    /// A moment to come back to.
    Mark,
}

fn step() -> impl Strategy<Value = Step> {
    let (session, id) = (0..SESSIONS, 0..DOCUMENTS);
    let who = prop_oneof![3 => session.clone().prop_map(Some), 2 => Just(None)];
    let daemon = prop_oneof![5 => Just(Daemon::Steady), 1 => Just(Daemon::Hasty), 2 => Just(Daemon::Mortal)];
    prop_oneof![
        6 => (session.clone(), daemon, prop::bool::weighted(0.2), prop::bool::weighted(0.2))
            .prop_map(|(session, daemon, serializable, read_only)| {
                Step::Begin { session, daemon, serializable, read_only }
            }),
        3 => id.clone().prop_map(Step::Forget),
        7 => (who.clone(), id.clone(), 0..100_i64).prop_map(|(who, id, n)| Step::Set(who, id, n)),
        5 => (who, id).prop_map(|(who, id)| Step::Delete(who, id)),
        2 => session.clone().prop_map(Step::Read),
        3 => (session.clone(), prop::bool::weighted(0.7)).prop_map(|(session, commits)| Step::End(session, commits)),
        1 => session.prop_map(Step::Lapse),
        1 => Just(Step::Kill),
        1 => Just(Step::Age),
        2 => Just(Step::Collect),
        2 => Just(Step::Mark),
    ]
}

#[test]
fn what_a_session_sees_is_the_same_before_and_after_a_collection() {
    let runtime = tokio::runtime::Builder::new_multi_thread().worker_threads(2).enable_all().build().unwrap();
    let daemons = tokio::sync::Mutex::new(runtime.block_on(Daemons::start()));
    let cases = std::env::var("PROPTEST_CASES").ok().and_then(|cases| cases.parse().ok()).unwrap_or(CASES);
    let config = Config {
        cases,
        max_shrink_iters: 400,
        max_shrink_time: 90_000,
        failure_persistence: None,
        ..Config::default()
    };
    let table = std::cell::Cell::new(0);
    let result = TestRunner::new(config).run(&prop::collection::vec(step(), 10..40), |steps| {
        table.set(table.get() + 1);
        runtime.block_on(async {
            let mut daemons = daemons.lock().await;
            let mut run = Run::start(&mut daemons, &format!("m{}", table.get())).await;
            for step in &steps {
                run.apply(step).await;
            }
            run.end().await;
        });
        Ok(())
    });
    runtime.block_on(async { daemons.into_inner().stop(result.is_ok()).await });
    if let Err(failure) = result {
        panic!("{failure}");
    }
}

/// A session that could write where the tombstone was would write over what it has not seen, and see the document twice.
#[test]
fn what_is_deleted_under_a_session_is_in_its_way_however_long_ago_the_log_forgot_it() {
    let runtime = tokio::runtime::Builder::new_multi_thread().worker_threads(2).enable_all().build().unwrap();
    runtime.block_on(async {
        let mut daemons = Daemons::start().await;
        let mut run = Run::start(&mut daemons, "t").await;
        let (daemon, serializable, read_only) = (Daemon::Steady, false, false);
        for step in [
            Step::Set(None, 0, 1),
            Step::Begin { session: 0, daemon, serializable, read_only },
            Step::Lapse(0),
            Step::Forget(0),
            Step::Set(Some(0), 0, 2),
        ] {
            run.apply(&step).await;
        }
        run.end().await;
    });
}
