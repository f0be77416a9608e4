//! How a call of the command line is sent again: its key, and how often.

use std::time::Duration;

use clap::Args;

use super::Failure;
use crate::client::{Error, IdempotencyKey, InvalidIdempotencyKey, Options, RetryPolicy};
use crate::wire::ErrorCode;

/// The most that `--retry` takes: with pauses of up to five seconds that is more than an hour.
const RETRIES_MAX: i64 = 1_000;

/// What commands take that make one call.
#[derive(Debug, Args)]
pub(super) struct RepeatArguments {
    /// Name the call by 32 hexadecimal digits, or by new ones (`auto`): sent again, even by another command, it is done
    /// once
    #[arg(long, value_name = "HEX|auto")]
    idempotency_key: Option<Key>,
    /// Send the call again at most so many times, where that is safe
    #[arg(long, value_name = "N", value_parser = clap::value_parser!(u32).range(0..=RETRIES_MAX), conflicts_with = "no_retry")]
    retry: Option<u32>,
    /// Send the call once
    #[arg(long)]
    no_retry: bool,
}

/// The values of `--idempotency-key`.
#[derive(Debug, Clone, Copy)]
enum Key {
    Auto,
    Given(IdempotencyKey),
}

impl std::str::FromStr for Key {
    type Err = InvalidIdempotencyKey;

    fn from_str(text: &str) -> Result<Self, Self::Err> {
        if text == "auto" { Ok(Self::Auto) } else { text.parse().map(Self::Given) }
    }
}

impl RepeatArguments {
    /// The key that is given, or a new one.
    pub(super) fn key(&self) -> Result<Option<IdempotencyKey>, Failure> {
        Ok(match self.idempotency_key {
            None => None,
            Some(Key::Given(key)) => Some(key),
            Some(Key::Auto) => Some(IdempotencyKey::random()?),
        })
    }

    /// Sets how often the client sends a call.
    pub(super) fn set(&self, options: &mut Options) {
        if let Some(retries) = if self.no_retry { Some(0) } else { self.retry } {
            options.retry = RetryPolicy { attempts_max: retries.saturating_add(1), ..RetryPolicy::default() };
            // There is one call, and the user has said what may be spent on it.
            options.retry_budget.reserve = retries;
        }
    }
}

/// The failure of a call that had `timeout` from the start of the command: what connecting had left of it is nothing to tell. A
/// caller with a key is told what to do when nobody knows whether the call was done.
pub(super) fn failure(error: Error, key: Option<IdempotencyKey>, timeout: Duration) -> Failure {
    let error = match error {
        Error::Timeout(_) => Error::Timeout(timeout),
        other => other,
    };
    let is_open = matches!(error.code(), Some(ErrorCode::UNKNOWN_OUTCOME | ErrorCode::TIMEOUT));
    let hint = key.filter(|_| is_open);
    let hint = hint
        .map(|key| format!("with --idempotency-key {key} the same call can be sent again and is done once"));
    Failure::from(error).with_optional_hint(hint)
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn what_may_have_been_done_comes_with_the_key_to_repeat_it() {
        let key = IdempotencyKey([0xab; 16]);
        let failed = || Error::Timeout(Duration::ZERO);
        let second = Duration::from_secs(1);
        assert!(format!("{:?}", failure(failed(), Some(key), second)).contains(&"ab".repeat(16)));
        assert!(!format!("{:?}", failure(failed(), None, second)).contains("--idempotency-key"));
        assert!(!format!("{:?}", failure(Error::TooLarge, Some(key), second)).contains(&"ab".repeat(16)));
    }

    #[test]
    fn the_time_that_is_told_is_the_users() {
        let left = Error::Timeout(Duration::ZERO);
        let told = failure(left, None, Duration::from_millis(1)).message;
        assert!(told.starts_with("no answer within 1ms;"), "{told}");
    }
}
