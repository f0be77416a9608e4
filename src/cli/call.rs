//! `raystream call`

use std::io::{self, Read as _};
use std::time::Instant;

use clap::Args;

use super::connect::block_on;
use super::{ConnectArguments, Failure, Output, json};
use crate::client::CallOptions;
use crate::wire::ErrorCode;
use crate::wire::limits::MESSAGE_MAX;

/// Call a method and print its result as JSON
///
/// An error of the server is printed as `CODE: message` on standard error, exit code 1. No connection: exit code 2.
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
}

pub(super) fn run(arguments: &CallArguments, output: &mut Output) -> Result<(), Failure> {
    let args = json::parse("the argument", arguments.json()?)?;
    let started = Instant::now();
    let timeout = arguments.connect.timeout.get();
    let result = block_on(async {
        let client = arguments.connect.connect(output, |_| {}).await?;
        let left = timeout.saturating_sub(started.elapsed());
        let options = CallOptions { timeout: Some(left), ..CallOptions::default() };
        let result = client.call_with(&arguments.method, args, options).await;
        client.close().await;
        Ok(result?)
    })?;
    let shown = json::printable(&result)
        .ok_or_else(|| Failure::answered(ErrorCode::INTERNAL_ERROR, "the server's result is not JSON"))?;
    output.line(shown)
}

impl CallArguments {
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
