//! Which calls are sent again, when, and how often.
//!
//! A call is repeated only when doing it twice changes nothing: it is one of the methods that only read, or it carries an
//! idempotency key. It is repeated after an error that the server calls retryable, and when nobody knows whether it was
//! done. Every repetition is paid from a budget of the whole client, so that a server in trouble gets a little more work
//! from it and not a multiple.

use super::Error;
use super::jitter::{full_jitter, random_fraction};
use crate::wire::ErrorCode;
use crate::wire::envelope::RpcCall;
use std::sync::atomic::{AtomicU32, Ordering};
use std::time::Duration;
use tokio::time::Instant;

/// Attempts of one call: with the pauses below a restart of something behind the server is waited for, and a fault that
/// stays is reported within a second.
const ATTEMPTS_MAX: u32 = 4;
/// The bound of the first pause: a few round trips over a continent.
const FIRST_PAUSE: Duration = Duration::from_millis(100);
/// The bound of every pause: later ones help nobody who waits for one call.
const LONGEST_PAUSE: Duration = Duration::from_secs(5);
/// Retries for a hundred calls: what a server at its limit can take on top.
const BUDGET_PERCENT: u32 = 10;
/// Retries that are there from the start, so that a client of few calls has some.
const BUDGET_RESERVE: u32 = 10;
/// What one retry costs in the bucket, whose unit is a hundredth.
const RETRY_COST: u32 = 100;

/// The built-in methods that change nothing (specification, section 12.6).
const READS: &[&str] = &[
    "sys.echo",
    "sys.info",
    "table.get",
    "table.query",
    "table.search",
    "table.count",
    "table.exec",
    "table.schema",
    "table.ptr",
    "table.list",
    "changes.read",
];

/// How a call is sent again when it fails. It decides how often and when; whether at all depends on what is safe.
#[derive(Clone, Debug)]
#[non_exhaustive]
pub struct RetryPolicy {
    /// How often a call is sent at most, the first time included; 0 counts as 1.
    pub attempts_max: u32,
    /// The bound of the pause after the first attempt; it doubles with each.
    pub first_pause: Duration,
    /// The bound of every pause.
    pub longest_pause: Duration,
    /// Draws the part of the bound that is waited, from 0 to 1. By default from the system's random generator.
    pub jitter: fn() -> f64,
}

impl Default for RetryPolicy {
    fn default() -> Self {
        Self {
            attempts_max: ATTEMPTS_MAX,
            first_pause: FIRST_PAUSE,
            longest_pause: LONGEST_PAUSE,
            jitter: random_fraction,
        }
    }
}

impl RetryPolicy {
    /// A call is sent once. What the server says not to have taken (GOING_AWAY) is still made on the next connection.
    pub fn none() -> Self {
        Self { attempts_max: 1, ..Self::default() }
    }

    /// The pause after so many attempts. What the server asked for comes first, whole: its clients are to be spread behind
    /// it, not before it.
    pub(super) fn pause(&self, attempts: u32, retry_after: Option<Duration>) -> Duration {
        let jitter =
            full_jitter(self.first_pause, self.longest_pause, attempts.saturating_sub(1), (self.jitter)());
        retry_after.unwrap_or_default().saturating_add(jitter)
    }
}

/// How many retries all calls of a client may make together: `percent` of the calls, and `reserve` more. Over any time it
/// sends at most `reserve` + `percent` / 100 x calls repetitions.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
#[non_exhaustive]
pub struct RetryBudget {
    /// Retries that are earned by a hundred calls.
    pub percent: u32,
    /// Retries that are there from the start, and the most that are ever saved up (at least one is).
    pub reserve: u32,
}

impl Default for RetryBudget {
    fn default() -> Self {
        Self { percent: BUDGET_PERCENT, reserve: BUDGET_RESERVE }
    }
}

/// The token bucket of a [`RetryBudget`]: 0 <= `left` <= `full`, in hundredths of a retry.
#[derive(Debug)]
pub(super) struct Bucket {
    left: AtomicU32,
    full: u32,
    percent: u32,
}

impl Bucket {
    pub(super) fn new(budget: RetryBudget) -> Self {
        let reserve = budget.reserve.saturating_mul(RETRY_COST);
        Self { left: AtomicU32::new(reserve), full: reserve.max(RETRY_COST), percent: budget.percent }
    }

    /// A call is made.
    pub(super) fn earn(&self) {
        // Nearly always the bucket is full, and then callers on many threads do not write to one place.
        if self.left.load(Ordering::Relaxed) < self.full {
            let more = |left: u32| Some(left.saturating_add(self.percent).min(self.full));
            let _always_ok = self.left.fetch_update(Ordering::Relaxed, Ordering::Relaxed, more);
        }
    }

    /// Pays for one retry, if there is one left.
    fn spend(&self) -> bool {
        let less = |left: u32| left.checked_sub(RETRY_COST);
        self.left.fetch_update(Ordering::Relaxed, Ordering::Relaxed, less).is_ok()
    }
}

/// The attempts of one call.
pub(super) struct Attempts<'a> {
    policy: &'a RetryPolicy,
    bucket: &'a Bucket,
    /// When the caller stops waiting.
    deadline: Instant,
    /// Attempts that failed.
    failed: u32,
    /// The first failure that left open whether a write was done.
    doubt: Option<Error>,
}

impl<'a> Attempts<'a> {
    pub(super) fn new(policy: &'a RetryPolicy, bucket: &'a Bucket, deadline: Instant) -> Self {
        Self { policy, bucket, deadline, failed: 0, doubt: None }
    }

    /// How often the call has been sent when the attempt that runs is answered.
    pub(super) fn made(&self) -> u32 {
        self.failed.saturating_add(1)
    }

    /// After an attempt failed: how long to wait before the next.
    ///
    /// # Errors
    /// There is no next: what the caller is told. Once a write may have been done, that is what remains to be said,
    /// whatever later attempts met.
    pub(super) fn after(&mut self, error: Error, call: &RpcCall, now: Instant) -> Result<Duration, Error> {
        self.failed = self.failed.saturating_add(1);
        let is_read = READS.contains(&call.method.as_str());
        let is_safe = is_read || call.idempotency_key.is_some();
        let is_open = error.code() == Some(ErrorCode::UNKNOWN_OUTCOME);
        if is_open && !is_read && self.doubt.is_none() {
            self.doubt = Some(error.clone());
        }
        let may_help = is_open || matches!(&error, Error::Call(answer) if answer.retryable);
        if is_safe && may_help && self.failed < self.policy.attempts_max {
            let pause = self.policy.pause(self.failed, error.retry_after());
            // A pause that ends after the deadline only delays the news. The budget is asked last: it pays for what is sent.
            let is_in_time = now.checked_add(pause).is_some_and(|next| next < self.deadline);
            if is_in_time && self.bucket.spend() {
                return Ok(pause);
            }
        }
        Err(self.end(error))
    }

    /// There is no next attempt: what the caller is told.
    pub(super) fn end(&mut self, error: Error) -> Error {
        self.doubt.take().unwrap_or(error)
    }
}

#[cfg(test)]
mod tests {
    use super::*;
    use crate::client::CallError;
    use crate::conn::ConnectionError;
    use crate::wire::envelope::RpcError;
    use bytes::Bytes;

    const MINUTE: Duration = Duration::from_secs(60);

    fn answer(code: ErrorCode, retry_after_ms: u32) -> Error {
        let retryable = code.is_retryable();
        let message = "m".to_owned();
        let error = RpcError { code, message, retryable, retry_after_ms, details: Bytes::new() };
        Error::Call(CallError::from(error))
    }

    fn lost() -> Error {
        Error::UnknownOutcome { method: "m".into(), cause: ConnectionError::Truncated }
    }

    fn call(method: &str, has_key: bool) -> RpcCall {
        let idempotency_key = has_key.then_some([1; 16]);
        RpcCall { method: method.into(), idempotency_key, ..RpcCall::default() }
    }

    fn policy(jitter: fn() -> f64) -> RetryPolicy {
        RetryPolicy { jitter, ..RetryPolicy::default() }
    }

    #[test]
    fn only_what_is_safe_and_may_help_is_sent_again() {
        let errors: [(Error, bool); 9] = [
            (answer(ErrorCode::SERVICE_UNAVAILABLE, 0), true),
            (answer(ErrorCode::RATE_LIMITED, 0), true),
            (answer(ErrorCode::UNKNOWN_OUTCOME, 0), true),
            (lost(), true),
            (answer(ErrorCode::TIMEOUT, 0), false),
            (answer(ErrorCode::INTERNAL_ERROR, 0), false),
            (answer(ErrorCode::INVALID_REQUEST, 0), false),
            (Error::TooLarge, false),
            (Error::Closed, false),
        ];
        let reads = READS.iter().map(|method| (*method, false));
        let writes =
            ["table.set", "table.push", "table.pop", "sys.shutdown", "table.getall", "", "TABLE.GET"];
        let keyed = writes.map(|method| (method, true));
        for (method, has_key) in reads.chain(writes.map(|method| (method, false))).chain(keyed) {
            let is_safe = has_key || READS.contains(&method);
            for (error, may_help) in &errors {
                let (policy, bucket) = (RetryPolicy::default(), Bucket::new(RetryBudget::default()));
                let now = Instant::now();
                let mut attempts = Attempts::new(&policy, &bucket, now + MINUTE);
                let next = attempts.after(error.clone(), &call(method, has_key), now);
                assert_eq!(next.is_ok(), is_safe && *may_help, "{method} {has_key} {error}");
            }
        }
    }

    #[test]
    fn pauses_are_any_part_of_a_bound_that_doubles_behind_what_the_server_asks() {
        let pauses = |jitter, retry_after: Option<Duration>| {
            [1, 2, 3, 4, 7, 1_000].map(|failed| policy(jitter).pause(failed, retry_after).as_millis())
        };
        assert_eq!(pauses(|| 1.0, None), [100, 200, 400, 800, 5_000, 5_000]);
        assert_eq!(pauses(|| 0.5, None), [50, 100, 200, 400, 2_500, 2_500]);
        assert_eq!(pauses(|| 0.0, None), [0; 6]);
        assert_eq!(pauses(|| 0.0, Some(MINUTE)), [60_000; 6]);
        assert_eq!(pauses(|| 1.0, Some(MINUTE))[..2], [60_100, 60_200]);
        for failed in 1..200 {
            assert!(RetryPolicy::default().pause(failed, None) <= LONGEST_PAUSE);
        }
    }

    #[test]
    fn attempts_and_the_deadline_are_bounds() {
        let (policy, bucket) = (policy(|| 1.0), Bucket::new(RetryBudget::default()));
        let now = Instant::now();
        let read = call("table.get", false);
        let unavailable = || answer(ErrorCode::SERVICE_UNAVAILABLE, 0);
        let mut attempts = Attempts::new(&policy, &bucket, now + MINUTE);
        let pauses =
            [(); 4].map(|()| attempts.after(unavailable(), &read, now).ok().map(|pause| pause.as_millis()));
        assert_eq!(pauses, [Some(100), Some(200), Some(400), None]);

        // The pause ends at the deadline, and just before it.
        let after = |left_ms, retry_after_ms| {
            let deadline = now + Duration::from_millis(left_ms);
            let mut attempts = Attempts::new(&policy, &bucket, deadline);
            attempts.after(answer(ErrorCode::SERVICE_UNAVAILABLE, retry_after_ms), &read, now).is_ok()
        };
        assert_eq!([after(100, 0), after(101, 0)], [false, true]);
        assert_eq!([after(1_100, 1_000), after(1_101, 1_000)], [false, true]);
        assert_eq!([after(0, 0), after(60_000, u32::MAX)], [false, false]);
        // What was not sent is not paid: three and two retries of ten are gone.
        assert_eq!(bucket.left.load(Ordering::Relaxed), 500);
        for once in [0, 1] {
            let policy = RetryPolicy { attempts_max: once, ..policy.clone() };
            let mut attempts = Attempts::new(&policy, &bucket, now + MINUTE);
            assert!(attempts.after(unavailable(), &read, now).is_err());
        }
    }

    #[test]
    fn all_calls_together_repeat_a_tenth_and_the_reserve() {
        for (percent, reserve, expected) in
            [(10, 10, 110), (10, 0, 100), (0, 10, 10), (0, 0, 0), (50, 3, 503)]
        {
            let (policy, bucket) = (RetryPolicy::default(), Bucket::new(RetryBudget { percent, reserve }));
            let now = Instant::now();
            let (read, mut retries) = (call("table.get", false), 0);
            for _ in 0..1_000 {
                bucket.earn();
                let mut attempts = Attempts::new(&policy, &bucket, now + MINUTE);
                while attempts.after(answer(ErrorCode::SERVICE_UNAVAILABLE, 0), &read, now).is_ok() {
                    retries += 1;
                }
            }
            // The first calls find a full bucket, which takes no more.
            assert!((expected - 1..=expected).contains(&retries), "{percent} {reserve}: {retries}");
        }
        // What is saved up in good times is the reserve and no more.
        let bucket = Bucket::new(RetryBudget::default());
        (0..10_000).for_each(|_| bucket.earn());
        assert_eq!((0..).take_while(|_| bucket.spend()).count(), 10);
        let most = Bucket::new(RetryBudget { percent: u32::MAX, reserve: u32::MAX });
        most.earn();
        assert!(most.spend());
    }

    #[test]
    fn a_write_that_may_have_been_done_is_never_reported_as_refused() {
        let (policy, bucket) = (RetryPolicy::default(), Bucket::new(RetryBudget::default()));
        let now = Instant::now();
        let run = |call: &RpcCall, first: Error| {
            let mut attempts = Attempts::new(&policy, &bucket, now + MINUTE);
            attempts.after(first, call, now).expect("it is tried again");
            attempts.after(answer(ErrorCode::FORBIDDEN, 0), call, now).expect_err("it is not").code()
        };
        let (write, read) = (call("table.push", true), call("table.get", false));
        assert_eq!(run(&write, lost()), Some(ErrorCode::UNKNOWN_OUTCOME));
        assert_eq!(run(&write, answer(ErrorCode::UNKNOWN_OUTCOME, 0)), Some(ErrorCode::UNKNOWN_OUTCOME));
        assert_eq!(run(&write, answer(ErrorCode::RATE_LIMITED, 0)), Some(ErrorCode::FORBIDDEN));
        assert_eq!(run(&read, lost()), Some(ErrorCode::FORBIDDEN));
        // The client ends while the second attempt waits to be sent: the first may have been done all the same.
        let mut attempts = Attempts::new(&policy, &bucket, now + MINUTE);
        attempts.after(lost(), &write, now).expect("it is tried again");
        let error = attempts.after(Error::Closed, &write, now).expect_err("it is over");
        assert_eq!(error.code(), Some(ErrorCode::UNKNOWN_OUTCOME));
    }
}
