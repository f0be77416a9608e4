//! `raystream call`

use std::io::{self, Read as _};
use std::time::{Duration, Instant};

use clap::Args;

use super::connect::block_on;
use super::{ConnectArguments, Failure, Output, json};
use crate::client::{
    CallOptions, Error, IdempotencyKey, InvalidIdempotencyKey, Options, Response, RetryPolicy,
};
use crate::wire::ErrorCode;
use crate::wire::limits::MESSAGE_MAX;

/// The most that `--retry` takes: with pauses of up to five seconds that is more than an hour.
const RETRIES_MAX: i64 = 1_000;

/// Call a method and print its result as JSON
///
/// An error of the server is printed as `CODE: message` on standard error, exit code 1. No connection: exit code 2.
///
/// A call that fails is sent again where that is safe: when its method only reads, or with --idempotency-key.
#[derive(Debug, Args)]
pub(super) struct CallArguments {
    #[command(flatten)]
    connect: ConnectArguments,
    /// The method, for instance table.get
    #[arg(value_name = "METHOD")]
    method: String,
    /// Its arguments as a JSON object; `-` reads them from standard input
    #[arg(value_name = "JSON")]
    args: Option<String>,
    /// Send this pair with the call; may be given many times
    #[arg(long, value_name = "KEY=VALUE", value_parser = pair)]
    metadata: Vec<(String, String)>,
    /// Have the server say how long each stage took, and print all trailers of the answer on standard error; with --json
    /// the output is {"result": .., "trailers": {..}}
    #[arg(long)]
    times: bool,
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

/// `KEY=VALUE`, parted at the first sign.
fn pair(text: &str) -> Result<(String, String), &'static str> {
    match text.split_once('=') {
        Some((key, value)) if !key.is_empty() => Ok((key.to_owned(), value.to_owned())),
        _ => Err("it is not KEY=VALUE"),
    }
}

pub(super) fn run(arguments: &CallArguments, output: &mut Output) -> Result<(), Failure> {
    let args = json::parse("the argument", arguments.json()?)?;
    let started = Instant::now();
    let timeout = arguments.connect.timeout.get();
    let key = arguments.key()?;
    let response = block_on(async {
        let client = arguments.connect.connect(output, |options| arguments.set_retries(options)).await?;
        let left = timeout.saturating_sub(started.elapsed());
        let options = arguments.options(key, left);
        let result = client.call_response(&arguments.method, args, options).await;
        client.close().await;
        result.map_err(|error| failure(error, key))
    })?;
    arguments.print(&response, output)
}

/// What a caller with a key can do when nobody knows whether the call was done.
fn failure(error: Error, key: Option<IdempotencyKey>) -> Failure {
    let is_open = matches!(error.code(), Some(ErrorCode::UNKNOWN_OUTCOME | ErrorCode::TIMEOUT));
    let hint = key.filter(|_| is_open);
    let hint = hint
        .map(|key| format!("with --idempotency-key {key} the same call can be sent again and is done once"));
    Failure::from(error).with_optional_hint(hint)
}

impl CallArguments {
    fn key(&self) -> Result<Option<IdempotencyKey>, Failure> {
        Ok(match self.idempotency_key {
            None => None,
            Some(Key::Given(key)) => Some(key),
            Some(Key::Auto) => Some(IdempotencyKey::random()?),
        })
    }

    fn set_retries(&self, options: &mut Options) {
        if let Some(retries) = if self.no_retry { Some(0) } else { self.retry } {
            options.retry = RetryPolicy { attempts_max: retries.saturating_add(1), ..RetryPolicy::default() };
            // There is one call, and the user has said what may be spent on it.
            options.retry_budget.reserve = retries;
        }
    }

    fn options(&self, idempotency_key: Option<IdempotencyKey>, timeout: Duration) -> CallOptions {
        let (metadata, times) = (self.metadata.clone(), self.times);
        CallOptions { timeout: Some(timeout), idempotency_key, metadata, times, retry: None }
    }

    fn print(&self, response: &Response, output: &mut Output) -> Result<(), Failure> {
        let result = json::printable(&response.result)
            .ok_or_else(|| Failure::answered(ErrorCode::INTERNAL_ERROR, "the server's result is not JSON"))?;
        if !self.times {
            return output.line(result);
        }
        if output.is_json() {
            let mut trailers = serde_json::Map::new();
            for (key, value) in &response.trailers {
                // The first of a name counts: the server's own.
                trailers.entry(key).or_insert_with(|| value.as_str().into());
            }
            let trailers = serde_json::Value::from(trailers);
            return output.line(format!(r#"{{"result":{result},"trailers":{trailers}}}"#));
        }
        output.line(result)?;
        for (key, value) in &response.trailers {
            output.trailer(key, value);
        }
        Ok(())
    }

    /// The text of the arguments.
    fn json(&self) -> Result<String, Failure> {
        match self.args.as_deref() {
            None => Ok("{}".to_owned()),
            Some("-") => {
                // One byte over the limit is enough to know.
                let limit = u64::try_from(MESSAGE_MAX).unwrap_or(u64::MAX).saturating_add(1);
                let mut text = String::new();
                let read = io::stdin().lock().take(limit).read_to_string(&mut text);
                read.map_err(|error| {
                    let message = format!("standard input cannot be read as text: {error}");
                    Failure::answered(ErrorCode::INVALID_REQUEST, message)
                })?;
                Ok(text)
            }
            Some(text) => Ok(text.to_owned()),
        }
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn a_pair_is_parted_at_its_first_sign() {
        assert_eq!(pair("trace=a=b"), Ok(("trace".to_owned(), "a=b".to_owned())));
        assert_eq!(pair("empty="), Ok(("empty".to_owned(), String::new())));
        assert!(pair("=x").is_err() && pair("x").is_err() && pair("").is_err());
    }

    #[test]
    fn what_may_have_been_done_comes_with_the_key_to_repeat_it() {
        let key = IdempotencyKey([0xab; 16]);
        let failed = || Error::Timeout(Duration::from_secs(1));
        assert!(format!("{:?}", failure(failed(), Some(key))).contains(&"ab".repeat(16)));
        assert!(!format!("{:?}", failure(failed(), None)).contains("--idempotency-key"));
        assert!(!format!("{:?}", failure(Error::TooLarge, Some(key))).contains(&"ab".repeat(16)));
    }
}
