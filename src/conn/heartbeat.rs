//! Timers of a connection: handshake deadline, heartbeats both ways, idle timeout.

use super::{ConnectionError, Limits};
use crate::wire::limits::HEARTBEATS_OUTSTANDING_MAX;
use std::{collections::VecDeque, time::Duration};

/// When something was last heard and said.
#[derive(Debug)]
pub(super) struct Heartbeat {
    interval: Duration,
    idle_timeout: Duration,
    last_sent: Duration,
    last_received: Duration,
    outstanding: VecDeque<u64>,
}

impl Heartbeat {
    pub(super) fn new(now: Duration, limits: &Limits) -> Self {
        Self {
            interval: limits.heartbeat_interval,
            idle_timeout: limits.idle_timeout,
            last_sent: now,
            last_received: now,
            outstanding: VecDeque::new(),
        }
    }

    pub(super) fn on_record_sent(&mut self, now: Duration) {
        self.last_sent = now;
    }

    pub(super) fn on_record_received(&mut self, now: Duration) {
        self.last_received = now;
    }

    /// The stamp of a new HEARTBEAT, or `None` when too many wait for their echo already.
    pub(super) fn start(&mut self, now: Duration) -> Option<u64> {
        if self.outstanding.len() >= HEARTBEATS_OUTSTANDING_MAX {
            return None;
        }
        let stamp = u64::try_from(now.as_nanos()).unwrap_or(u64::MAX);
        self.outstanding.push_back(stamp);
        Some(stamp)
    }

    /// The round trip of an echo. Echoes come in the order of what they echo.
    pub(super) fn recv_echo(&mut self, now: Duration, stamp: u64) -> Result<Duration, ConnectionError> {
        if self.outstanding.pop_front() != Some(stamp) {
            return Err(ConnectionError::Protocol("a HEARTBEAT echo that answers nothing"));
        }
        Ok(now.saturating_sub(Duration::from_nanos(stamp)))
    }

    pub(super) fn is_due(&self, now: Duration) -> bool {
        now >= self.last_sent + self.interval
    }

    pub(super) fn is_peer_silent(&self, now: Duration) -> bool {
        now >= self.last_received + self.idle_timeout
    }

    pub(super) fn next_timeout(&self) -> Duration {
        (self.last_sent + self.interval).min(self.last_received + self.idle_timeout)
    }
}
