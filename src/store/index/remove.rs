//! Dropping an index while others write, and taking away what is left of one.

use std::pin::pin;
use std::time::Duration;

use tokio::time::Instant;
use tokio_postgres::Client;
use tokio_postgres::error::SqlState;

use super::stop::{Progress, stoppable, unless};
use super::{IndexError, LOCK_CLASS, open, open_to_look, refused};
use crate::store::endpoint::Endpoint;
use crate::store::session::{Access, whole_message};
use crate::store::tables::NAMESPACE;

/// How long somebody else may be at it: a client that is gone is noticed in that time.
const LOCK_WAIT: Duration = Duration::from_secs(2);

/// The pause between two looks whether he still is.
const LOCK_PAUSE: Duration = Duration::from_millis(50);

/// How often a request to stop may hit what comes behind that which it was meant for: Postgres sends two signals for one request,
/// and each may be late.
const STRAY_CANCELS_MAX: usize = 2;

/// How long taking away what was begun waits for each transaction of others: whoever stopped wants to be gone.
const CLEAN_UP_LOCK_TIMEOUT: &str = "5s";

/// Drops an index by its name, or what is left of one. `progress` is told what the work is at; when `stop` is ready, it is given up.
///
/// # Errors
/// [`IndexError`]. Given up before it began it is [`IndexError::Kept`], and [`IndexError::Left`] amid.
pub async fn drop(
    endpoint: &Endpoint,
    name: &str,
    mut progress: impl FnMut(Progress),
    stop: impl Future<Output = ()>,
) -> Result<(), IndexError> {
    let mut stop = pin!(stop);
    let prepare = async {
        let client = open(endpoint).await?;
        let sql = "SELECT i.ptr, coalesce(s.name, i.ptr), pg_backend_pid() FROM raystream.indexes AS i \
                   LEFT JOIN raystream.storage AS s ON s.ptr = i.ptr AND s.owner = $2 WHERE i.name = $1";
        let row = client.query_opt(sql, &[&name, &NAMESPACE]).await.map_err(refused)?;
        let row = row.ok_or_else(|| IndexError::NoIndex(name.to_owned()))?;
        let (ptr, table): (String, String) =
            (row.try_get(0).map_err(refused)?, row.try_get(1).map_err(refused)?);
        let pid: i32 = row.try_get(2).map_err(refused)?;
        lock(&client, &table, &ptr).await?;
        Ok((client, pid, open_to_look(endpoint, Access::Read).await?))
    };
    let kept = || IndexError::Kept(name.to_owned());
    let (client, pid, looking) = unless(stop.as_mut(), prepare).await.map_err(|error| match error {
        IndexError::Stopped => kept(),
        other => other,
    })?;
    progress(Progress::step("dropping"));
    let work = async { remove(&client, name).await.map_err(refused) };
    let look = async || {
        if waits(&looking, pid).await {
            progress(Progress::step("waiting for transactions that may use it"));
        }
    };
    match stoppable(endpoint, &client, stop, work, look).await {
        Err(IndexError::Stopped) => {}
        done => return done,
    }
    match undisturbed(async || is_valid(&client, name).await).await {
        Ok(Some(true)) => Err(kept()),
        Ok(None) => undisturbed(async || remove(&client, name).await).await.map_err(refused),
        Ok(Some(false)) | Err(_) => Err(IndexError::Left {
            name: name.to_owned(),
            reason: "stopped".to_owned(),
            left: "it was not dropped to its end".to_owned(),
        }),
    }
}

/// Whether a session waits for a lock.
async fn waits(looking: &Client, pid: i32) -> bool {
    let sql = "SELECT wait_event_type = 'Lock' FROM pg_stat_activity WHERE pid = $1";
    // What cannot be looked at goes on all the same.
    let row = looking.query_opt(sql, &[&pid]).await;
    row.is_ok_and(|row| row.is_some_and(|row| row.try_get(0).ok().flatten() == Some(true)))
}

/// Keeps others from working on the indexes of the table, until the session ends. No statement waits for this lock, since it would be
/// one that the build of an index waits for: it is tried again.
pub(super) async fn lock(client: &Client, table: &str, ptr: &str) -> Result<(), IndexError> {
    let sql = "SELECT pg_try_advisory_lock($1, hashtext($2))";
    let until = Instant::now() + LOCK_WAIT;
    loop {
        let row = client.query_one(sql, &[&LOCK_CLASS, &ptr]).await.map_err(refused)?;
        if row.try_get(0).map_err(refused)? {
            return Ok(());
        }
        if Instant::now() >= until {
            return Err(IndexError::Busy(table.to_owned()));
        }
        crate::time::sleep(LOCK_PAUSE).await;
    }
}

/// Whether an index of the name is good; `None` when there is none.
pub(super) async fn is_valid(client: &Client, name: &str) -> Result<Option<bool>, tokio_postgres::Error> {
    let sql = "SELECT x.indisvalid FROM pg_class AS c JOIN pg_index AS x ON x.indexrelid = c.oid \
               WHERE c.relname = $1 AND c.relnamespace = 'raystream'::regnamespace";
    client.query_opt(sql, &[&name]).await?.map(|row| row.try_get(0)).transpose()
}

/// Drops an index and forgets it.
pub(super) async fn remove(client: &Client, name: &str) -> Result<(), tokio_postgres::Error> {
    let sql = "SELECT format('DROP INDEX CONCURRENTLY IF EXISTS raystream.%I', $1::text)";
    let statement: String = client.query_one(sql, &[&name]).await?.try_get(0)?;
    client.batch_execute(&statement).await?;
    client.execute("DELETE FROM raystream.indexes WHERE name = $1", &[&name]).await.map(|_| ())
}

/// Does something behind a request to stop that was meant for what came before.
async fn undisturbed<T>(
    mut work: impl AsyncFnMut() -> Result<T, tokio_postgres::Error>,
) -> Result<T, tokio_postgres::Error> {
    let mut done = work().await;
    for _ in 0..STRAY_CANCELS_MAX {
        match &done {
            Err(error) if error.code() == Some(&SqlState::QUERY_CANCELED) => done = work().await,
            _ => break,
        }
    }
    done
}

/// Takes away what was begun.
pub(super) async fn give_up(client: &Client, name: String, error: IndexError) -> IndexError {
    let clean_up = async || {
        client.batch_execute(&format!("SET lock_timeout = '{CLEAN_UP_LOCK_TIMEOUT}'")).await?;
        remove(client, &name).await
    };
    match undisturbed(clean_up).await {
        Ok(()) => error,
        Err(left) => {
            let left = whole_message(&left);
            let reason = match error {
                IndexError::Stopped => "stopped".to_owned(),
                other => other.to_string(),
            };
            IndexError::Left { name, reason, left }
        }
    }
}
