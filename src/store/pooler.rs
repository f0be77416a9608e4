//! Poolers that give each transaction another process of Postgres (PgBouncer's `pool_mode = transaction`): found out at the
//! start, and refused.
//!
//! What this program promises rests on sessions: `synchronous_commit` and the time limits are set once for each, statements
//! are prepared once, notifications are listened for, and a cancel request names a process. Behind such a pooler all of
//! that would be set, prepared and cancelled for whoever comes next, without an error. A pooler in session mode is fine.

use std::time::Duration;

use tokio_postgres::{Client, SimpleQueryMessage};

use super::StoreOptions;
use super::error::StartError;
use super::session::{reach, refused};

/// How often to look. A pooler that is idle shows itself at the first look; others may take the process between two of our
/// statements, but hardly each time.
const LOOKS: u32 = 4;

/// How long all of it may take: a pooler without a free process lets us wait.
const DEADLINE: Duration = Duration::from_secs(10);

/// What PgBouncer says to BEGIN with `pool_mode = statement`; Postgres never refuses it.
const PROTOCOL_VIOLATION: &str = "08P01";

/// Refuses an address where two sessions of ours are not two processes of Postgres. Changes nothing on the first.
pub(super) async fn refuse(options: &StoreOptions, first: &Client) -> Result<(), StartError> {
    let (second, driver) = reach(options).await?;
    let driving = tokio::spawn(driver);
    let looked = crate::time::timeout(DEADLINE, are_shared(first, &second)).await;
    driving.abort();
    match looked {
        Ok(Ok(false)) => Ok(()),
        Ok(Ok(true)) => Err(StartError::Pooler),
        Ok(Err(error)) if error.code().is_some_and(|code| code.code() == PROTOCOL_VIOLATION) => {
            Err(StartError::Pooler)
        }
        Ok(Err(error)) => Err(refused(&error)),
        Err(_) => Err(StartError::Unreachable("it did not answer in time".to_owned())),
    }
}

/// Whether the sessions were seen to share a process, or one to change it.
async fn are_shared(first: &Client, second: &Client) -> Result<bool, tokio_postgres::Error> {
    for _ in 0..LOOKS {
        let before = process(first).await?;
        second.batch_execute("BEGIN").await?;
        if process(second).await? == before {
            return Ok(true);
        }
        // The second one has its process to itself now: a pooler may have given it the one that the first one had.
        let is_same = process(first).await? == before;
        second.batch_execute("COMMIT").await?;
        if !is_same {
            return Ok(true);
        }
    }
    Ok(false)
}

/// The process that answers.
async fn process(client: &Client) -> Result<Option<String>, tokio_postgres::Error> {
    let messages = client.simple_query("SELECT pg_backend_pid()").await?;
    Ok(messages.iter().find_map(|message| match message {
        SimpleQueryMessage::Row(row) => row.get(0).map(str::to_owned),
        _ => None,
    }))
}
