//! `raystream call`

use std::time::{Duration, Instant};

use clap::Args;

use super::connect::block_on;
use super::repeat::{self, RepeatArguments};
use super::{ConnectArguments, Failure, Output, json};
use crate::client::{CallOptions, IdempotencyKey, Response};
use crate::wire::ErrorCode;

/// Call a method and print its result as JSON
///
/// An error of the server is printed as `CODE: message` on standard error, with its details where it has some, exit code 1. No
/// connection: exit code 2.
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
    #[command(flatten)]
    repeat: RepeatArguments,
}

/// `KEY=VALUE`, parted at the first sign.
fn pair(text: &str) -> Result<(String, String), &'static str> {
    match text.split_once('=') {
        Some((key, value)) if !key.is_empty() => Ok((key.to_owned(), value.to_owned())),
        _ => Err("it is not KEY=VALUE"),
    }
}

pub(super) fn run(arguments: &CallArguments, output: &mut Output) -> Result<(), Failure> {
    let args = json::parse("the argument", json::text(arguments.args.as_deref().unwrap_or("{}"))?)?;
    let started = Instant::now();
    let timeout = arguments.connect.timeout.get();
    let key = arguments.repeat.key()?;
    let response = block_on(async {
        let client = arguments.connect.connect(output, |options| arguments.repeat.set(options)).await?;
        let left = timeout.saturating_sub(started.elapsed());
        let options = arguments.options(key, left);
        let result = client.call_response(&arguments.method, args, options).await;
        client.close().await;
        result.map_err(|error| repeat::failure(error, key, timeout))
    })?;
    arguments.print(&response, output)
}

impl CallArguments {
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
}
