//! `raystream publish`

use std::time::Instant;

use clap::Args;

use super::connect::block_on;
use super::repeat::{self, RepeatArguments};
use super::{ConnectArguments, Failure, Output, json};
use crate::client::CallOptions;

/// Publish an event to a topic, and print its id and the position behind it as JSON
///
/// It is durable when the command ends, and every subscriber of the topic gets it once: `raystream sub URL --topic TOPIC`.
/// With --idempotency-key it is sent again when it fails, and is one event nevertheless.
#[derive(Debug, Args)]
pub(super) struct PublishArguments {
    #[command(flatten)]
    connect: ConnectArguments,
    /// The topic: letters, digits, `_`, `.` and `-`
    #[arg(value_name = "TOPIC")]
    topic: String,
    /// The event, any JSON; `-` reads it from standard input
    #[arg(value_name = "JSON", allow_hyphen_values = true)]
    data: String,
    #[command(flatten)]
    repeat: RepeatArguments,
}

pub(super) fn run(arguments: &PublishArguments, output: &mut Output) -> Result<(), Failure> {
    let data = json::parse("the event", json::text(&arguments.data)?)?;
    let started = Instant::now();
    let timeout = arguments.connect.timeout.get();
    let key = arguments.repeat.key()?;
    let published = block_on(async {
        let client = arguments.connect.connect(output, |options| arguments.repeat.set(options)).await?;
        let left = timeout.saturating_sub(started.elapsed());
        let options = CallOptions { timeout: Some(left), idempotency_key: key, ..CallOptions::default() };
        let result = client.publish_with(&arguments.topic, data, options).await;
        client.close().await;
        result.map_err(|error| repeat::failure(error, key, timeout))
    })?;
    output.line(serde_json::json!({"id": published.id, "cursor": published.cursor}).to_string())
}
