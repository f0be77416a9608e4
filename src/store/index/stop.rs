//! Work of Postgres that somebody watches, and may give up.

use std::pin::{Pin, pin};
use std::time::Duration;

use tokio_postgres::Client;

use super::IndexError;
use crate::store::endpoint::{self, Endpoint};

/// How often the progress is looked at, and how long a request to stop gets before the next one.
const LOOK_EVERY: Duration = Duration::from_millis(200);

/// How long a request to stop may take to reach Postgres.
const CANCEL_TIMEOUT: Duration = Duration::from_secs(5);

/// What the work is at, as a rule in Postgres' own words.
#[derive(Debug, Clone, PartialEq, Eq)]
pub struct Progress {
    /// The step.
    pub phase: String,
    /// How much of the step is done, in a unit of its own.
    pub done: u64,
    /// How much the step has; 0 when that is not known.
    pub total: u64,
}

impl Progress {
    /// A step of which nothing more is known.
    pub(super) fn step(phase: &str) -> Self {
        Self { phase: phase.to_owned(), done: 0, total: 0 }
    }
}

/// Does what leaves nothing behind when it is dropped with its session, unless `stop` is ready first.
pub(super) async fn unless<T>(
    stop: Pin<&mut impl Future<Output = ()>>,
    work: impl Future<Output = Result<T, IndexError>>,
) -> Result<T, IndexError> {
    tokio::select! {
        biased;
        done = work => done,
        () = stop => Err(IndexError::Stopped),
    }
}

/// Does the work of a session, and looks at it now and then. When `stop` is ready Postgres is asked to end it, until it has: nothing
/// of it runs any more when this is [`IndexError::Stopped`].
pub(super) async fn stoppable<T>(
    endpoint: &Endpoint,
    client: &Client,
    mut stop: Pin<&mut impl Future<Output = ()>>,
    work: impl Future<Output = Result<T, IndexError>>,
    mut look: impl AsyncFnMut(),
) -> Result<T, IndexError> {
    let mut work = pin!(work);
    let mut next = crate::time::interval(LOOK_EVERY);
    loop {
        tokio::select! {
            biased;
            done = &mut work => return done,
            () = stop.as_mut() => break,
            _ = next.tick() => look().await,
        }
    }
    let token = client.cancel_token();
    loop {
        let request = async {
            let asked = endpoint::cancel(&token, &endpoint.tls, CANCEL_TIMEOUT).await;
            crate::time::sleep(LOOK_EVERY).await;
            asked
        };
        tokio::select! {
            biased;
            // Whatever came of it.
            _ended = &mut work => return Err(IndexError::Stopped),
            // One may come before the statement that it is meant for.
            asked = request => asked
                .map_err(|error| IndexError::Refused(format!("it was not told to stop: {error}")))?,
        }
    }
}
