//! Pauses between attempts: a random part of a bound that doubles (full jitter), so that clients that failed in one moment
//! do not all come back in one moment.

use std::time::Duration;

/// Doublings after which every policy has reached its longest pause; keeps the exponent small.
const DOUBLINGS_MAX: u32 = 20;

/// The pause after `failures` failures before this one. `fraction` is drawn from 0..=1; anything else counts as 1.
pub(super) fn full_jitter(first: Duration, longest: Duration, failures: u32, fraction: f64) -> Duration {
    let factor = 1_u32 << failures.min(DOUBLINGS_MAX);
    let bound = first.saturating_mul(factor).min(longest);
    if (0.0..1.0).contains(&fraction) { bound.mul_f64(fraction) } else { bound }
}

/// A number in 0..=1. Without the system's generator the pause is the whole bound: longer, never a storm.
pub(super) fn random_fraction() -> f64 {
    getrandom::u32().map_or(1.0, |number| f64::from(number) / f64::from(u32::MAX))
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn a_fraction_that_is_none_gives_the_whole_bound() {
        let pause =
            |fraction| full_jitter(Duration::from_secs(1), Duration::from_secs(3), 1, fraction).as_millis();
        assert_eq!([0.0, 0.25, 1.0].map(pause), [0, 500, 2_000]);
        assert_eq!([f64::NAN, -0.5, 7.0, f64::INFINITY].map(pause), [2_000; 4]);
        assert_eq!(full_jitter(Duration::MAX, Duration::MAX, u32::MAX, 1.0), Duration::MAX);
    }

    #[test]
    fn drawn_fractions_differ_and_stay_in_their_range() {
        let drawn: std::collections::BTreeSet<_> = (0..100).map(|_| random_fraction().to_bits()).collect();
        assert!(drawn.len() > 50, "{} different numbers of 100", drawn.len());
        assert!(drawn.iter().all(|bits| (0.0..=1.0).contains(&f64::from_bits(*bits))));
    }
}
