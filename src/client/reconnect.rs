//! When to try again.

use super::jitter::{full_jitter, random_fraction};
use std::time::Duration;

/// The first pause is anything up to this: a restart of a server is over soon.
const FIRST_PAUSE: Duration = Duration::from_millis(100);
/// No pause is longer: after an outage a client is back within this.
const LONGEST_PAUSE: Duration = Duration::from_secs(10);

/// How long to wait between attempts: a random time between zero and a bound that doubles (full jitter), so that the
/// clients of one server do not all come back in the same moment.
#[derive(Clone, Debug)]
#[non_exhaustive]
pub struct ReconnectPolicy {
    /// The bound of the first pause.
    pub first_pause: Duration,
    /// The bound of every pause.
    pub longest_pause: Duration,
    /// Attempts in a row that may fail; `None` goes on for ever.
    pub attempts_max: Option<u32>,
}

impl Default for ReconnectPolicy {
    fn default() -> Self {
        Self { first_pause: FIRST_PAUSE, longest_pause: LONGEST_PAUSE, attempts_max: None }
    }
}

/// Failures in a row, and the pause that follows from them.
#[derive(Clone, Debug)]
pub(super) struct Backoff {
    policy: ReconnectPolicy,
    failures: u32,
}

impl Backoff {
    pub(super) fn new(policy: ReconnectPolicy) -> Self {
        Self { policy, failures: 0 }
    }

    /// Something worked.
    pub(super) fn reset(&mut self) {
        self.failures = 0;
    }

    pub(super) fn failures(&self) -> u32 {
        self.failures
    }

    /// Whether no further attempt is allowed.
    pub(super) fn is_exhausted(&self) -> bool {
        self.policy.attempts_max.is_some_and(|max| self.failures >= max)
    }

    /// Counts one more failure and gives the pause after it.
    pub(super) fn next(&mut self) -> Duration {
        self.next_with(random_fraction())
    }

    fn next_with(&mut self, fraction: f64) -> Duration {
        let failures = self.failures;
        self.failures = failures.saturating_add(1);
        full_jitter(self.policy.first_pause, self.policy.longest_pause, failures, fraction)
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn the_bound_doubles_up_to_the_longest_pause() {
        let mut backoff = Backoff::new(ReconnectPolicy::default());
        let bounds: Vec<_> = (0..9).map(|_| backoff.next_with(1.0).as_millis()).collect();
        assert_eq!(bounds, [100, 200, 400, 800, 1_600, 3_200, 6_400, 10_000, 10_000]);
        assert_eq!(backoff.next_with(0.0), Duration::ZERO);
        backoff.reset();
        assert_eq!(backoff.next_with(0.5), Duration::from_millis(50));
        backoff.failures = u32::MAX;
        assert_eq!(backoff.next_with(1.0), LONGEST_PAUSE);
    }

    #[test]
    fn pauses_differ() {
        let mut seen = std::collections::HashSet::new();
        for _ in 0..100 {
            let pause = Backoff::new(ReconnectPolicy::default()).next();
            assert!(pause <= FIRST_PAUSE);
            seen.insert(pause);
        }
        assert!(seen.len() > 50, "{} different pauses of 100", seen.len());
    }

    #[test]
    fn attempts_can_be_bounded() {
        let policy = ReconnectPolicy { attempts_max: Some(2), ..ReconnectPolicy::default() };
        let mut backoff = Backoff::new(policy);
        assert!(!backoff.is_exhausted());
        backoff.next();
        backoff.next();
        assert!(backoff.is_exhausted());
    }
}
