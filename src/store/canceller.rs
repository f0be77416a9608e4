//! Stopping what a backend executes: cancel requests of Postgres, each on a connection of its own.
//!
//! A request names a session, not a statement: it stops whatever the session executes when it arrives. So only the
//! statement at the head of a pipeline is stopped, a neighbour that was hit is run again, and there is never more than one
//! request under way for a session, however many callers give up.

use std::time::Duration;

use futures_util::FutureExt;
use futures_util::future::BoxFuture;
use tokio::time::Instant;
use tokio_postgres::CancelToken;

use super::endpoint::{self, Tls};

/// How long a statement that is to end gets to end by itself: almost all are faster, and a request costs a process of
/// Postgres.
pub(super) const GRACE: Duration = Duration::from_millis(3);

/// The pauses between two requests: the first may have come before the statement, or while it could not be stopped.
const PAUSE: (Duration, Duration) = (Duration::from_millis(20), Duration::from_secs(1));

/// How long a request may take before another one is made.
const REQUEST_TIMEOUT: Duration = Duration::from_secs(5);

/// How long after a request its effect may show: Postgres starts a process for it, which has to get its turn.
const ECHO: Duration = Duration::from_secs(2);

/// What is counted as the same moment when times of ours are compared with Postgres'.
const SLACK: Duration = Duration::from_millis(50);

/// The requests for one session.
pub(super) struct Canceller {
    token: CancelToken,
    tls: Tls,
    /// Whether what is executed now is to end.
    is_wanted: bool,
    /// When the next request is made.
    at: Option<Instant>,
    pause: Duration,
    request: Option<BoxFuture<'static, ()>>,
    requested: Option<Instant>,
}

impl Canceller {
    /// `tls` is that of the session.
    pub(super) fn new(token: CancelToken, tls: Tls) -> Self {
        Self { token, tls, is_wanted: false, at: None, pause: PAUSE.0, request: None, requested: None }
    }

    /// Says whether what is executed now is to end, and whether it is another statement than the last time. A request is
    /// made when it has not ended by itself after `grace`.
    pub(super) fn watch(&mut self, is_wanted: bool, is_another: bool, grace: Duration) {
        if !is_wanted {
            self.at = None;
        } else if is_another || !self.is_wanted {
            self.at = Some(Instant::now() + grace);
            self.pause = PAUSE.0;
        }
        self.is_wanted = is_wanted;
    }

    /// Whether a statement that nobody stopped, and that Postgres says was stopped after `elapsed`, was hit by a request
    /// for another one: not by its own time limit.
    pub(super) fn may_have_hit(&self, elapsed: Duration, limit: Duration) -> bool {
        self.requested.is_some_and(|at| at.elapsed() < ECHO) && elapsed + SLACK < limit
    }

    /// Does the next thing there is to do; waits for ever when there is none. Cancel-safe.
    pub(super) async fn step(&mut self) {
        if let Some(request) = &mut self.request {
            request.await;
            self.request = None;
            if self.is_wanted && self.at.is_none() {
                self.at = Some(Instant::now() + self.pause);
                self.pause = (self.pause * 2).min(PAUSE.1);
            }
            return;
        }
        let Some(at) = self.at else { return std::future::pending().await };
        crate::time::sleep_until(at).await;
        self.at = None;
        self.requested = Some(Instant::now());
        let (token, tls) = (self.token.clone(), self.tls.clone());
        let request = async move {
            if let Err(error) = endpoint::cancel(&token, &tls, REQUEST_TIMEOUT).await {
                tracing::debug!(%error, "a cancel request did not reach Postgres");
            }
        };
        self.request = Some(request.boxed());
    }
}
