//! What goes wrong.

use std::time::Duration;

use tokio::time::sleep;

use crate::numbers::Numbers;
use crate::processes::{self, children, signal};
use crate::world::World;

/// A fault.
#[derive(Clone, Copy, Debug, PartialEq, Eq, PartialOrd, Ord)]
pub(crate) enum Fault {
    DaemonKilled,
    DaemonStopped,
    BackendKilled,
    BackendTerminated,
    PostmasterKilled,
    PostgresKilled,
    PostgresStopped,
    DiskFull,
    SocketsCut,
    StatementsBroken,
    AnswersBroken,
    StatementsSwallowed,
    AnswersSwallowed,
    SocketsFrozen,
}

impl Fault {
    /// Those of a short run. What is killed or cut is met in more than one moment.
    pub(crate) const QUICK: &[Self] = &[
        Self::DaemonKilled,
        Self::DaemonKilled,
        Self::DaemonStopped,
        Self::BackendKilled,
        Self::BackendTerminated,
        Self::BackendTerminated,
        Self::PostmasterKilled,
        Self::PostgresKilled,
        Self::PostgresStopped,
        Self::DiskFull,
        Self::SocketsCut,
        Self::StatementsBroken,
        Self::AnswersBroken,
        Self::StatementsSwallowed,
        Self::AnswersSwallowed,
    ];

    /// Those of a long one: kills more often than what takes seconds by itself.
    pub(crate) const LONG: &[Self] = &[
        Self::DaemonKilled,
        Self::DaemonKilled,
        Self::DaemonKilled,
        Self::DaemonKilled,
        Self::DaemonStopped,
        Self::BackendKilled,
        Self::BackendKilled,
        Self::BackendTerminated,
        Self::BackendTerminated,
        Self::BackendTerminated,
        Self::BackendTerminated,
        Self::PostmasterKilled,
        Self::PostmasterKilled,
        Self::PostgresKilled,
        Self::PostgresKilled,
        Self::PostgresStopped,
        Self::DiskFull,
        Self::SocketsCut,
        Self::SocketsCut,
        Self::StatementsBroken,
        Self::StatementsBroken,
        Self::AnswersBroken,
        Self::AnswersBroken,
        Self::StatementsSwallowed,
        Self::AnswersSwallowed,
        Self::SocketsFrozen,
    ];

    /// What it is, for a person.
    pub(crate) fn words(self) -> &'static str {
        match self {
            Self::DaemonKilled => "kill -9 of the daemon",
            Self::DaemonStopped => "SIGSTOP of the daemon for a while",
            Self::BackendKilled => "kill -9 of a Postgres backend",
            Self::BackendTerminated => "pg_terminate_backend",
            Self::PostmasterKilled => "kill -9 of the postmaster",
            Self::PostgresKilled => "kill -9 of the postmaster and all its processes at once",
            Self::PostgresStopped => "SIGSTOP of Postgres for a while",
            Self::DiskFull => "full disk",
            Self::SocketsCut => "all sockets to Postgres cut",
            Self::StatementsBroken => "sockets to Postgres cut in the middle of statements",
            Self::AnswersBroken => "sockets to Postgres cut in the middle of answers",
            Self::StatementsSwallowed => "statements swallowed, then cut",
            Self::AnswersSwallowed => "answers swallowed, then cut",
            Self::SocketsFrozen => "sockets to Postgres open and dead",
        }
    }
}

/// How long things last.
#[derive(Clone, Copy)]
pub(crate) struct Lengths {
    /// A process is stopped.
    pub(crate) stopped: Duration,
    /// The network passes nothing, and the disk takes nothing.
    pub(crate) stuck: Duration,
}

impl Lengths {
    /// For a short run.
    pub(crate) const SHORT: Self =
        Self { stopped: Duration::from_millis(300), stuck: Duration::from_millis(300) };
    /// For a long one: calls run out of their time.
    pub(crate) const LONG: Self = Self { stopped: Duration::from_secs(5), stuck: Duration::from_secs(2) };
}

/// Lets it happen, and ends it: afterwards everything is there again, or about to be by itself.
pub(crate) async fn inject(world: &mut World, fault: Fault, lengths: Lengths, numbers: &mut Numbers) {
    match fault {
        Fault::DaemonKilled => {
            world.daemon.kill();
            tokio::task::block_in_place(|| world.daemon.restart());
        }
        Fault::DaemonStopped => {
            world.daemon.signal("STOP");
            sleep(lengths.stopped).await;
            world.daemon.signal("CONT");
        }
        Fault::BackendKilled => {
            if let Some(backend) = world.backend(numbers).await {
                signal("KILL", &[backend]);
                // The postmaster ends all the others as well.
                processes::gone(&[backend]).await;
            }
        }
        Fault::BackendTerminated => {
            if let Some(backend) = world.backend(numbers).await {
                world.sql(&format!("SELECT pg_terminate_backend({backend})")).await;
            }
        }
        Fault::PostmasterKilled => kill_postgres(world, false).await,
        Fault::PostgresKilled => kill_postgres(world, true).await,
        Fault::PostgresStopped => {
            let postmaster = world.postmaster();
            // First the one that could start others meanwhile.
            signal("STOP", &[postmaster]);
            let all = children(postmaster);
            signal("STOP", &all);
            sleep(lengths.stopped).await;
            signal("CONT", &all);
            signal("CONT", &[postmaster]);
        }
        Fault::DiskFull => {
            let disk = world.disk.as_ref().expect("it is chosen only when there is one");
            disk.fill();
            sleep(lengths.stuck).await;
            world.disk.as_ref().expect("it is there").free();
        }
        Fault::SocketsCut => world.proxy.cut(),
        Fault::StatementsBroken | Fault::AnswersBroken => {
            match fault {
                Fault::StatementsBroken => world.proxy.break_statements(),
                _ => world.proxy.break_answers(),
            }
            sleep(Duration::from_millis(1 + numbers.below(100))).await;
            world.proxy.open();
        }
        Fault::StatementsSwallowed | Fault::AnswersSwallowed => {
            match fault {
                Fault::StatementsSwallowed => world.proxy.swallow_statements(),
                _ => world.proxy.swallow_answers(),
            }
            sleep(lengths.stuck).await;
            // What follows a piece that is missing is never passed.
            world.proxy.freeze();
            world.proxy.open();
            world.proxy.cut();
        }
        Fault::SocketsFrozen => world.proxy.freeze(),
    }
    world.bring_postgres_back().await;
}

/// Kills the postmaster, alone or with all its processes, and starts another one on the same data.
async fn kill_postgres(world: &mut World, all_at_once: bool) {
    let postmaster = world.postmaster();
    // A process that it starts meanwhile would be neither killed nor waited for, and keep the next postmaster out.
    signal("STOP", &[postmaster]);
    let others = children(postmaster);
    let mut killed = vec![postmaster];
    if all_at_once {
        killed.extend(&others);
    }
    signal("KILL", &killed);
    processes::gone(&[&[postmaster], others.as_slice()].concat()).await;
}
