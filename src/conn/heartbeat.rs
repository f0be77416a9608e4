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
    /// When a HEARTBEAT was last due; it may still wait for a transport that takes no bytes.
    last_started: Duration,
    last_received: Duration,
    /// Stamps that wait for their echo, at most [`HEARTBEATS_OUTSTANDING_MAX`].
    outstanding: VecDeque<u64>,
}

impl Heartbeat {
    pub(super) fn new(now: Duration, limits: &Limits) -> Self {
        Self {
            interval: limits.heartbeat_interval,
            idle_timeout: limits.idle_timeout,
            last_sent: now,
            last_started: now,
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
        self.last_started = now;
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
        now >= self.due_at()
    }

    pub(super) fn is_peer_silent(&self, now: Duration) -> bool {
        now >= self.silent_at()
    }

    pub(super) fn next_timeout(&self) -> Duration {
        self.due_at().min(self.silent_at())
    }

    /// Counted from the last HEARTBEAT too: when the transport takes nothing, or the peer echoes nothing, another one at
    /// once would help nobody.
    fn due_at(&self) -> Duration {
        self.last_sent.max(self.last_started).saturating_add(self.interval)
    }

    fn silent_at(&self) -> Duration {
        self.last_received.saturating_add(self.idle_timeout)
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn a_timer_that_ran_is_not_due_again_at_once() {
        let limits = Limits::default();
        let mut heartbeat = Heartbeat::new(Duration::ZERO, &limits);
        let mut now = Duration::ZERO;
        for sent in 0..2 * HEARTBEATS_OUTSTANDING_MAX {
            now = heartbeat.next_timeout();
            heartbeat.on_record_received(now);
            assert!(heartbeat.is_due(now));
            // Neither a transport that takes nothing nor a peer that echoes nothing makes the timer stand still.
            assert_eq!(heartbeat.start(now).is_some(), sent < HEARTBEATS_OUTSTANDING_MAX);
            assert_eq!(heartbeat.next_timeout(), now + limits.heartbeat_interval);
        }
        assert_eq!(now, limits.heartbeat_interval * 128);
    }

    #[test]
    fn a_timer_without_end_does_not_overflow() {
        let limits =
            Limits { heartbeat_interval: Duration::MAX, idle_timeout: Duration::MAX, ..Limits::default() };
        let heartbeat = Heartbeat::new(Duration::from_secs(1), &limits);
        assert_eq!(heartbeat.next_timeout(), Duration::MAX);
    }
}
