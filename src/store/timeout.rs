//! `statement_timeout`: the net under the deadlines. A deadline itself is kept to the millisecond by a cancel request; the
//! timeout of Postgres stops what is left when the daemon is gone or its requests do not arrive. So it may be somewhat
//! longer, and is set only when the one in force is too short or far too long: calls with the usual deadline never pay.

use std::time::Duration;

/// How many times longer than needed the timeout in force may be.
const LOOSE: u32 = 8;

/// The shortest timeout: below it Postgres would stop what a cancel request stops more exactly.
const LEAST: Duration = Duration::from_millis(16);

/// The timeout of a session that many callers share.
#[derive(Debug)]
pub(super) struct LooseTimeout {
    longest: Duration,
    /// `None` when it is not known.
    in_force: Option<Duration>,
}

impl LooseTimeout {
    /// A session starts with the longest.
    pub(super) fn new(longest: Duration) -> Self {
        Self { longest, in_force: Some(longest) }
    }

    /// The timeout to set before a statement whose caller has `left`, if it has to be another one.
    pub(super) fn adapt(&mut self, left: Option<Duration>) -> Option<Duration> {
        let needed = quantised(left, self.longest);
        if self.in_force.is_some_and(|now| now >= needed && now <= needed.saturating_mul(LOOSE)) {
            return None;
        }
        self.in_force = Some(needed);
        Some(needed)
    }

    /// The one in force.
    pub(super) fn in_force(&self) -> Duration {
        self.in_force.unwrap_or(self.longest)
    }

    /// A change of it failed.
    pub(super) fn forget(&mut self) {
        self.in_force = None;
    }
}

/// The time that is left, rounded up to a power of two of milliseconds, and at most `longest`.
pub(super) fn quantised(left: Option<Duration>, longest: Duration) -> Duration {
    let Some(left) = left else { return longest };
    let millis = u64::try_from(left.max(LEAST).as_nanos().div_ceil(1_000_000)).unwrap_or(u64::MAX);
    millis.checked_next_power_of_two().map_or(longest, Duration::from_millis).min(longest)
}

/// The statement that sets it for a session.
pub(super) fn set_statement(timeout: Duration) -> String {
    format!("SET statement_timeout = {}", timeout.as_millis())
}

#[cfg(test)]
mod tests {
    use super::*;

    const LONGEST: Duration = Duration::from_secs(30);

    fn ms(n: u64) -> Duration {
        Duration::from_millis(n)
    }

    #[test]
    fn a_timeout_is_never_shorter_than_what_is_left() {
        for (left, timeout) in
            [(0, 16), (16, 16), (17, 32), (1_000, 1_024), (16_385, 30_000), (90_000, 30_000)]
        {
            assert_eq!(quantised(Some(ms(left)), LONGEST), ms(timeout), "{left} ms");
        }
        assert_eq!(quantised(Some(Duration::from_micros(16_001)), LONGEST), ms(32));
        assert_eq!((quantised(None, LONGEST), quantised(Some(Duration::MAX), LONGEST)), (LONGEST, LONGEST));
    }

    #[test]
    fn only_one_that_is_too_short_or_far_too_long_is_replaced() {
        let mut timeout = LooseTimeout::new(LONGEST);
        assert_eq!(timeout.adapt(None), None);
        assert_eq!(timeout.adapt(Some(ms(29_990))), None, "the usual deadline costs nothing");
        assert_eq!(timeout.adapt(Some(ms(5_000))), None, "near enough");
        assert_eq!(timeout.adapt(Some(ms(100))), Some(ms(128)));
        assert_eq!(timeout.adapt(Some(ms(30))), None);
        assert_eq!(timeout.adapt(Some(ms(129))), Some(ms(256)));
        assert_eq!((timeout.adapt(None), timeout.in_force()), (Some(LONGEST), LONGEST));
        timeout.forget();
        assert_eq!(timeout.adapt(None), Some(LONGEST), "what is not known is set anew");
    }
}
