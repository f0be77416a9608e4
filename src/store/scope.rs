//! The surroundings of an operation: who asks, until when, what stops it, and in which transaction it runs.

use std::fmt;
use std::sync::Arc;
use std::time::Duration;

use tokio::sync::SetOnce;
use tokio::time::Instant;

use super::StoreError;
use super::transactions::Transaction;

/// Told once, when nobody wants the result any more.
pub type StopSignal = Arc<SetOnce<()>>;

/// Who asks, for fairness: statements that wait for a connection are taken from each lane in turn. A client's connection
/// is a lane; what names none shares one.
#[derive(Clone, Copy, PartialEq, Eq, Hash, Default)]
pub struct Lane(pub [u8; 16]);

impl fmt::Debug for Lane {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        self.0.iter().try_for_each(|byte| write!(f, "{byte:02x}"))
    }
}

/// What the operations of a [`Store`](super::Store) run in. The default asks for nobody in particular and waits as long
/// as the store's own limits allow.
#[derive(Debug, Clone, Default)]
pub struct Scope {
    pub(super) lane: Lane,
    pub(super) deadline: Option<Instant>,
    pub(super) cancelled: Option<StopSignal>,
    pub(super) transaction: Option<Arc<Transaction>>,
}

impl Scope {
    /// Asks for somebody.
    pub fn of(lane: Lane) -> Self {
        Self { lane, ..Self::default() }
    }

    /// The operations end `time` from now: what runs then is stopped, and is [`StoreError::Timeout`].
    #[must_use]
    pub fn lasting(self, time: Duration) -> Self {
        // A time so long that no clock can hold its end is none.
        Self { deadline: Instant::now().checked_add(time), ..self }
    }

    /// The operations end `time` from now at the latest, also when they have longer.
    pub(super) fn within(self, time: Duration) -> Self {
        let end = Instant::now().checked_add(time);
        let deadline = match (self.deadline, end) {
            (Some(deadline), Some(end)) => Some(deadline.min(end)),
            (deadline, end) => deadline.or(end),
        };
        Self { deadline, ..self }
    }

    /// The operations end when the signal is set: what runs then is stopped, and is [`StoreError::Cancelled`].
    #[must_use]
    pub fn cancelled_by(self, signal: StopSignal) -> Self {
        Self { cancelled: Some(signal), ..self }
    }

    /// Waits until the operations are to end.
    pub(super) async fn stopped(&self) -> Stop {
        tokio::select! {
            biased;
            () = self.cancelled() => Stop::Cancelled,
            () = sleep_until(self.deadline) => Stop::Timeout,
        }
    }

    pub(super) async fn cancelled(&self) {
        match &self.cancelled {
            Some(signal) => {
                signal.wait().await;
            }
            None => std::future::pending().await,
        }
    }
}

async fn sleep_until(at: Option<Instant>) {
    match at {
        Some(at) => crate::time::sleep_until(at).await,
        None => std::future::pending().await,
    }
}

/// Why an operation ends early.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub(super) enum Stop {
    /// Its caller gave up.
    Cancelled,
    /// Its time is over.
    Timeout,
}

impl From<Stop> for StoreError {
    fn from(stop: Stop) -> Self {
        match stop {
            Stop::Cancelled => Self::Cancelled,
            Stop::Timeout => Self::Timeout,
        }
    }
}
