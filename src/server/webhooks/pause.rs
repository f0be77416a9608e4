//! How long to wait before the next attempt.

use std::time::{Duration, SystemTime};

/// The bound of the first pause: a receiver that is being restarted is back.
const FIRST: Duration = Duration::from_secs(1);

/// No pause is longer, and no receiver may ask for a longer one: whoever set it right again does not wait for half a day.
pub(super) const LONGEST: Duration = Duration::from_secs(60 * 60);

/// The pause after so many failures: anything between nothing and a bound that doubles (full jitter), so that what failed in one
/// moment does not all come back in one. `fraction` is drawn from 0..=1; anything else counts as 1.
pub(super) fn after(failures: u32, fraction: f64) -> Duration {
    let doubled = 1_u32.checked_shl(failures.saturating_sub(1)).unwrap_or(u32::MAX);
    let bound = FIRST.saturating_mul(doubled).min(LONGEST);
    if (0.0..1.0).contains(&fraction) { bound.mul_f64(fraction) } else { bound }
}

/// A number in 0..=1. Without the system's generator the pause is the whole bound: longer, never a storm.
pub(super) fn random_fraction() -> f64 {
    getrandom::u32().map_or(1.0, |number| f64::from(number) / f64::from(u32::MAX))
}

/// What a receiver asks for in `Retry-After`: seconds, or a date. At most [`LONGEST`].
pub(super) fn asked_for(retry_after: &str, now: SystemTime) -> Option<Duration> {
    let text = retry_after.trim();
    let asked = if !text.is_empty() && text.bytes().all(|byte| byte.is_ascii_digit()) {
        Duration::from_secs(text.parse().unwrap_or(u64::MAX))
    } else {
        httpdate::parse_http_date(text).ok()?.duration_since(now).unwrap_or_default()
    };
    Some(asked.min(LONGEST))
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn the_bound_doubles_up_to_the_longest_pause() {
        let bounds: Vec<u64> = [1, 2, 3, 12, 13, 24, 40, u32::MAX].map(|n| after(n, 1.0).as_secs()).to_vec();
        assert_eq!(bounds, [1, 2, 4, 2_048, 3_600, 3_600, 3_600, 3_600]);
        assert_eq!(after(3, 0.25), Duration::from_secs(1));
        assert_eq!(after(3, 0.0), Duration::ZERO);
        assert_eq!(after(1, f64::NAN), FIRST);
        let drawn: std::collections::BTreeSet<_> = (0..100).map(|_| after(5, random_fraction())).collect();
        assert!(drawn.len() > 50, "{} different pauses of 100", drawn.len());
        assert!(drawn.iter().all(|pause| *pause <= Duration::from_secs(16)));
    }

    /// The figures of `ATTEMPTS_DEFAULT` and `ATTEMPTS_MAX`, and of docs/webhooks.md.
    #[test]
    fn the_pauses_between_all_attempts_last_as_long_as_is_said() {
        use crate::store::webhooks::{ATTEMPTS_DEFAULT, ATTEMPTS_MAX};
        let hours = |attempts: u32, fraction: f64| {
            let pauses = (1..attempts).map(|failures| after(failures, fraction));
            pauses.sum::<Duration>().as_secs_f64() / 3_600.0
        };
        assert!((4.0..4.5).contains(&hours(ATTEMPTS_DEFAULT, 1.0)), "{}", hours(ATTEMPTS_DEFAULT, 1.0));
        assert!((2.0..2.25).contains(&hours(ATTEMPTS_DEFAULT, 0.5)), "{}", hours(ATTEMPTS_DEFAULT, 0.5));
        assert!((24.0..30.0).contains(&hours(ATTEMPTS_MAX, 0.5)), "{}", hours(ATTEMPTS_MAX, 0.5));
    }

    #[test]
    fn seconds_and_dates_are_understood_and_bounded() {
        let now = httpdate::parse_http_date("Fri, 31 Dec 1999 23:58:59 GMT").unwrap();
        for (text, seconds) in [
            ("120", Some(120)),
            (" 7 ", Some(7)),
            ("Fri, 31 Dec 1999 23:59:59 GMT", Some(60)),
            ("Thu, 31 Dec 1998 23:59:59 GMT", Some(0)),
            ("99999999999999999999999", Some(3_600)),
            ("Thu, 31 Dec 2099 23:59:59 GMT", Some(3_600)),
            ("-1", None),
            ("1.5", None),
            ("soon", None),
            ("", None),
        ] {
            assert_eq!(asked_for(text, now).map(|pause| pause.as_secs()), seconds, "{text}");
        }
    }
}
