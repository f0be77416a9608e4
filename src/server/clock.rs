//! The one place where the daemon reads clocks and randomness.

use crate::conn::Entropy;
use std::time::{Duration, SystemTime, UNIX_EPOCH};
use tokio::time::Instant;
use zeroize::Zeroizing;

/// Time since the daemon started: what connections run on.
#[derive(Clone, Copy, Debug)]
pub(super) struct DaemonClock {
    started: Instant,
}

impl DaemonClock {
    /// Starts now.
    pub(super) fn start() -> Self {
        Self { started: Instant::now() }
    }

    /// Time since the start.
    pub(super) fn now(&self) -> Duration {
        self.started.elapsed()
    }

    /// The instant of a time since the start, for timers.
    pub(super) fn instant(&self, at: Duration) -> Instant {
        self.started + at
    }
}

impl crate::api::Clock for DaemonClock {
    fn server_time_ms(&self) -> u64 {
        millis(unix_time())
    }

    fn uptime_ms(&self) -> u64 {
        millis(self.now())
    }

    fn cpu_ms(&self) -> Option<u64> {
        Some(millis(super::usage::cpu_time()))
    }

    fn rss_bytes(&self) -> Option<u64> {
        super::usage::resident_bytes()
    }
}

fn millis(duration: Duration) -> u64 {
    u64::try_from(duration.as_millis()).unwrap_or(u64::MAX)
}

/// Time since 1970 by the system's clock; zero before.
pub(super) fn unix_time() -> Duration {
    SystemTime::now().duration_since(UNIX_EPOCH).unwrap_or_default()
}

/// Fresh randomness for one handshake.
///
/// # Errors
/// The system's generator failed: no connection can be made then.
pub(super) fn entropy() -> Result<Entropy, getrandom::Error> {
    // Asked for in one: the system call costs more than the bytes.
    let mut drawn = Zeroizing::new([0; 48]);
    getrandom::fill(drawn.as_mut_slice())?;
    let (mut ephemeral, mut connection_id) = ([0; 32], [0; 16]);
    ephemeral.copy_from_slice(&drawn[..32]);
    connection_id.copy_from_slice(&drawn[32..]);
    Ok(Entropy { ephemeral, connection_id, server_time_ms: millis(unix_time()) })
}

/// A random part of `max`, for delays that are to be spread.
pub(super) fn jitter(max: Duration) -> Duration {
    let part = getrandom::u32().unwrap_or(u32::MAX);
    max.mul_f64(f64::from(part) / f64::from(u32::MAX))
}
