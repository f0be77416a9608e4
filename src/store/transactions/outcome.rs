//! What became of a COMMIT whose answer was lost.
//!
//! Another connection asks Postgres for the status of the transaction's id. Postgres gives out an id again after a crash
//! when it never reached the disk, so "committed" after a crash may be another transaction's: the row of
//! `raystream.lifetime`, which a crash removes, says whether there was one.

use std::time::Duration;

use tokio::time::Instant;
use tokio_postgres::Row;

use super::connection::Peer;
use crate::store::scope::Scope;
use crate::store::statements::{Call, Param, StatementKey};
use crate::store::tables::column;
use crate::store::{Store, StoreError};
use crate::time::timeout;

/// How long the answer is looked for: a restart of Postgres on the same machine is shorter, and the caller of COMMIT
/// waits meanwhile.
const LONGEST: Duration = Duration::from_secs(10);

/// How long one question may take: the connection that it is asked on may be dead too, and the next is asked on another one.
const QUESTION_LONGEST: Duration = Duration::from_secs(2);

/// The pause between two questions, and the longest one.
const PAUSE: (Duration, Duration) = (Duration::from_millis(10), Duration::from_millis(500));

/// What became of it.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub(super) enum Outcome {
    Committed,
    RolledBack,
    Unknown,
}

/// What one question brought.
#[derive(Debug, PartialEq, Eq)]
enum Answer {
    Final(Outcome),
    /// Its process still has it.
    Running,
    /// Nobody could be asked.
    Later,
}

/// Finds out. A process that still has the transaction, though its connection is gone, is ended: then it is decided.
pub(super) async fn find_out(store: &Store, peer: &Peer, xid: u64) -> Outcome {
    let until = Instant::now() + LONGEST;
    let mut pause = PAUSE.0;
    let mut was_running = false;
    loop {
        match ask(store, &peer.lifetime, xid, until).await {
            Answer::Final(outcome) => return outcome,
            // Once is patience: it may be about to end by itself.
            Answer::Running if was_running => terminate(store, peer.process, xid, until).await,
            Answer::Running => was_running = true,
            Answer::Later => {}
        }
        if Instant::now() + pause >= until {
            return Outcome::Unknown;
        }
        crate::time::sleep(pause).await;
        pause = (pause * 2).min(PAUSE.1);
    }
}

/// Asks something, if it is answered in time.
async fn question(
    store: &Store,
    key: StatementKey,
    params: Vec<Param>,
    until: Instant,
) -> Result<Vec<Row>, StoreError> {
    let longest = until.saturating_duration_since(Instant::now()).min(QUESTION_LONGEST);
    let scope = Scope::of(store.1.lane);
    let answer = store.0.reads.run(&scope, Call { key, params, len: 0, document: None });
    timeout(longest, answer).await.unwrap_or(Err(StoreError::Timeout))
}

async fn ask(store: &Store, lifetime: &str, xid: u64, until: Instant) -> Answer {
    let params: Vec<Param> = vec![Box::new(lifetime.to_owned()), Box::new(xid.to_string())];
    match question(store, StatementKey::Outcome, params, until).await {
        Ok(rows) => {
            let row = rows.first();
            let read = row.map(|row| Ok((column(row, 0)?, column(row, 1)?)));
            let read: Option<Result<(Option<String>, bool), StoreError>> = read;
            match read {
                Some(Ok((status, no_crash))) => judge(status.as_deref(), no_crash),
                _ => Answer::Final(Outcome::Unknown),
            }
        }
        // "In the future": after a crash nothing of it was left.
        Err(StoreError::InvalidInput(_)) => Answer::Final(Outcome::RolledBack),
        Err(_) => Answer::Later,
    }
}

/// What `pg_xact_status` says about ours. An id that is used again after a crash was never committed by us, since what
/// is committed is on the disk.
fn judge(status: Option<&str>, no_crash: bool) -> Answer {
    match (status, no_crash) {
        (Some("committed"), true) => Answer::Final(Outcome::Committed),
        (Some("aborted"), _) | (Some("in progress"), false) => Answer::Final(Outcome::RolledBack),
        (Some("in progress"), true) => Answer::Running,
        _ => Answer::Final(Outcome::Unknown),
    }
}

async fn terminate(store: &Store, process: i32, xid: u64, until: Instant) {
    let params: Vec<Param> = vec![Box::new(process), Box::new(xid.to_string())];
    // It is asked again anyway.
    if let Err(error) = question(store, StatementKey::Terminate, params, until).await {
        tracing::debug!(%error, "a process whose connection is gone could not be ended");
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn what_a_crash_makes_doubtful_is_not_called_committed() {
        let judged = [
            (Some("committed"), true, Answer::Final(Outcome::Committed)),
            (Some("committed"), false, Answer::Final(Outcome::Unknown)),
            (Some("aborted"), true, Answer::Final(Outcome::RolledBack)),
            (Some("aborted"), false, Answer::Final(Outcome::RolledBack)),
            (Some("in progress"), true, Answer::Running),
            (Some("in progress"), false, Answer::Final(Outcome::RolledBack)),
            (None, true, Answer::Final(Outcome::Unknown)),
        ];
        for (status, no_crash, expected) in judged {
            assert_eq!(judge(status, no_crash), expected, "{status:?} {no_crash}");
        }
    }
}
