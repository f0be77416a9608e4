//! Random histories on a real Postgres, judged by the checker: no level shows more than it says, and those that say they let
//! something happen are seen to. The run takes `RAYSTREAM_ANOMALY_SECONDS` for each level; `RAYSTREAM_ANOMALY_SEED` repeats the choices
//! of a run, though not its interleaving.

use std::time::Duration;

use crate::checker::check;
use crate::history::{Class, Op, Outcome};
use crate::parties::Level;
use crate::server::Server;
use crate::workload::{ROUNDS, run};

/// Each level, when the environment does not say: enough for some hundred transactions.
const SECONDS: u64 = 1;

/// A machine that stands still for a while is no reason to end a transaction.
pub(crate) const LONG: &str = "[limits]\ntransaction_idle = \"2m\"\ntransaction_time = \"5m\"";

fn setting(name: &str) -> Option<u64> {
    let text = std::env::var(name).ok()?;
    Some(text.parse().unwrap_or_else(|_| panic!("{name} is a whole number, not {text:?}")))
}

/// What a level has to show, and what it may show beside that.
fn expected(level: &str) -> (&'static [Class], &'static [Class]) {
    match level {
        "serializable" => (&[], &[]),
        "snapshot" => (&[Class::G2Item], &[]),
        // Writes are not mixed up and nothing is seen that was not committed.
        _ => (
            &[Class::GSingle, Class::Lost],
            &[Class::Internal, Class::IncompatibleOrder, Class::GNonadjacent, Class::G2Item],
        ),
    }
}

#[tokio::test(flavor = "multi_thread", worker_threads = 2)]
async fn what_histories_of_lists_show_at_each_level() {
    let time = Duration::from_secs(setting("RAYSTREAM_ANOMALY_SECONDS").unwrap_or(SECONDS));
    let seed = setting("RAYSTREAM_ANOMALY_SEED").unwrap_or_else(|| {
        let now = std::time::SystemTime::now().duration_since(std::time::UNIX_EPOCH).unwrap();
        u64::from(now.subsec_nanos())
    });
    // Told in one piece: other tests print meanwhile.
    let mut table = format!("histories of lists, {time:?} for each level, seed {seed}\n{:<16}", "");
    table += &format!("{:>10}{:>9}", "committed", "aborted");
    Class::ALL.iter().for_each(|class| table += &format!("{:>10}", class.name()));
    let server = Server::start_with(LONG).await;
    let (mut wrong, mut witnesses) = (Vec::new(), Vec::new());
    for name in ["serializable", "snapshot", "read committed"] {
        let level = match name {
            "read committed" => Level::read_committed(&server).await,
            isolation => Level::offered(&server, isolation).await,
        };
        let history = run(&level, seed, time).await;
        let count = |outcome| history.iter().filter(|transaction| transaction.outcome == outcome).count();
        assert_eq!(count(Outcome::Unknown), 0, "no connection broke");
        table += &format!("\n{name:<16}{:>10}{:>9}", count(Outcome::Committed), count(Outcome::Aborted));
        // What aborts everything shows nothing bad either.
        let wrote = history.iter().filter(|transaction| {
            transaction.outcome == Outcome::Committed
                && transaction.ops.iter().any(|op| matches!(op, Op::Append(..)))
        });
        assert!(wrote.count() >= ROUNDS, "{name}: hardly anything was committed\n{table}");
        let anomalies = check(&history);
        let (required, allowed) = expected(name);
        for class in Class::ALL {
            let mut found = anomalies.iter().filter(|anomaly| anomaly.class == class).peekable();
            if let Some(first) = found.peek() {
                witnesses.push(format!("{name}: {first}"));
            }
            let is_there = found.peek().is_some();
            table += &format!("{:>10}", found.count());
            let is_known = required.contains(&class) || allowed.contains(&class);
            if is_there && !is_known || !is_there && required.contains(&class) {
                wrong.push(format!("{} at {name}: found: {is_there}", class.name()));
            }
        }
    }
    println!("{table}\n{}", witnesses.join("\n"));
    assert!(wrong.is_empty(), "{}", wrong.join("\n"));
}
