//! `raystream sub`

use clap::Args;
use tokio::signal::unix::{SignalKind, signal};

use super::connect::block_on;
use super::{ConnectArguments, Failure, Output, json};
use crate::client::{Change, Client, Item, Json, Overflow, Status, SubscribeOptions, Subscription};
use crate::wire::ErrorCode;

/// Bytes of lines that are gathered before they are written: a reader on the other end of a pipe gets them soon.
const BATCH_MAX: usize = 64 * 1024;

/// Watch a table or a topic: one JSON object a line, first what is there, then every change or event
///
/// After a lost connection it goes on where it was; nothing is missed. Each line has a cursor for --from.
#[derive(Debug, Args)]
pub(super) struct SubArguments {
    #[command(flatten)]
    connect: ConnectArguments,
    /// The table
    #[arg(value_name = "TABLE", required_unless_present = "topic")]
    table: Option<String>,
    /// A topic instead of a table: its events from now on
    #[arg(long, value_name = "NAME", conflicts_with = "table")]
    topic: Option<String>,
    /// Only documents or events that contain this JSON object
    #[arg(long, value_name = "JSON")]
    filter: Option<String>,
    /// Go on after the line with this cursor
    #[arg(long, value_name = "CURSOR")]
    from: Option<String>,
    /// Only changes from now on, not what is there
    #[arg(long, conflicts_with = "from")]
    no_snapshot: bool,
    /// Stop after so many lines of type `snapshot` or `event`
    #[arg(long, value_name = "N", value_parser = clap::value_parser!(u64).range(1..))]
    max: Option<u64>,
    /// What the server does when this reader falls behind
    #[arg(long, value_enum, value_name = "POLICY", default_value_t = OverflowPolicy::Close)]
    overflow: OverflowPolicy,
}

/// The values of `--overflow`.
#[derive(Debug, Clone, Copy, PartialEq, Eq, clap::ValueEnum)]
pub(super) enum OverflowPolicy {
    /// End the subscription; it is taken up again from the last cursor
    Close,
    /// Drop the oldest events and count them
    DropOldest,
    /// Lose nothing: read what did not fit from the change log
    Block,
    /// Merge the events of a document that wait into one
    Conflate,
    /// Start again with a new snapshot, after a line of type `reset`
    Resnapshot,
}

pub(super) fn run(arguments: &SubArguments, output: &mut Output) -> Result<(), Failure> {
    let subscribe = arguments.options()?;
    block_on(async {
        let mut terminate = stop_signal(SignalKind::terminate())?;
        let mut interrupt = stop_signal(SignalKind::interrupt())?;
        let work = async {
            let client = arguments.connect.connect(output, |_| {}).await?;
            let subscription = client.subscribe(subscribe).await?;
            Ok::<_, Failure>((client, subscription))
        };
        let (client, mut subscription) = tokio::select! {
            made = work => made?,
            _ = interrupt.recv() => return Ok(()),
            _ = terminate.recv() => return Ok(()),
        };
        let printed = tokio::select! {
            printed = print(&client, &mut subscription, arguments.max, output) => printed,
            _ = interrupt.recv() => Ok(()),
            _ = terminate.recv() => Ok(()),
        };
        client.close().await;
        printed
    })
}

fn stop_signal(kind: SignalKind) -> Result<tokio::signal::unix::Signal, Failure> {
    signal(kind).map_err(|error| Failure::failed(format!("cannot listen to signals: {error}")))
}

/// Prints until the end, or until `max` items are printed.
async fn print(
    client: &Client,
    subscription: &mut Subscription,
    max: Option<u64>,
    output: &mut Output,
) -> Result<(), Failure> {
    let mut status = client.status();
    let mut is_lost = false;
    let mut left = max.unwrap_or(u64::MAX);
    loop {
        let first = tokio::select! {
            biased;
            Ok(()) = status.changed() => {
                tell(&status.borrow_and_update(), &mut is_lost, output);
                continue;
            }
            item = subscription.next() => item,
        };
        let mut next = first;
        let mut lines = String::new();
        // Everything that is here already goes out in one write, up to a bound.
        let end = loop {
            match next {
                None => break Some(Ok(())),
                Some(Err(error)) => break Some(Err(Failure::from(error))),
                Some(Ok(item)) => left -= u64::from(write_line(&item, &mut lines)?),
            }
            if left == 0 {
                break Some(Ok(()));
            }
            if lines.len() >= BATCH_MAX {
                break None;
            }
            next = match subscription.try_next() {
                None => break None,
                item => item,
            };
        };
        if !lines.is_empty() {
            output.bytes(lines.as_bytes())?;
        }
        if let Some(end) = end {
            return end;
        }
    }
}

/// A word about the connection, once for each loss.
fn tell(status: &Status, is_lost: &mut bool, output: &Output) {
    match status {
        Status::Reconnecting { error, .. } if !*is_lost => {
            *is_lost = true;
            output.note(format!("the connection was lost: {}; trying again until it is back", error.reason));
        }
        Status::Connected(_) if *is_lost => {
            *is_lost = false;
            output.note("connected again, going on from the last change");
        }
        _ => {}
    }
}

/// Appends the line of an item; says whether it counts for `--max`.
fn write_line(item: &Item, lines: &mut String) -> Result<bool, Failure> {
    match item {
        // The position of the first line is that of the snapshot or the first change.
        Item::Snapshot(change) => write_change("snapshot", change, lines).map(|()| true),
        Item::Event(change) => write_change("event", change, lines).map(|()| true),
        Item::SnapshotEnd { cursor } => {
            write_fields("snapshot_end", "cursor", cursor, lines);
            Ok(false)
        }
        Item::Reset { reason } => {
            write_fields("reset", "reason", reason, lines);
            Ok(false)
        }
        _ => Ok(false),
    }
}

/// The type comes first, as in every line.
fn write_fields(kind_of_line: &str, name: &str, value: &str, lines: &mut String) {
    let value = serde_json::Value::from(value);
    lines.push_str(&format!("{{\"type\":\"{kind_of_line}\",\"{name}\":{value}}}\n"));
}

/// One object of fixed order; documents as they came.
fn write_change(kind_of_line: &str, change: &Change, lines: &mut String) -> Result<(), Failure> {
    let document = |document: &Option<Json>| match document {
        None => Ok("null".to_owned()),
        Some(text) => json::printable(text).map(|text| text.into_owned()).ok_or_else(|| {
            Failure::answered(ErrorCode::INTERNAL_ERROR, "the server sent a document that is not JSON")
        }),
    };
    let text = |text: &str| serde_json::Value::from(text);
    let kind = change.kind.variant_name().unwrap_or("Unknown").to_ascii_lowercase();
    lines.push_str(&format!(
        r#"{{"type":"{kind_of_line}","cursor":{},"kind":"{kind}","id":{},"data":{},"old":{},"version":{}"#,
        text(&change.cursor),
        text(&change.id),
        document(&change.data)?,
        document(&change.old)?,
        change.version,
    ));
    if change.lag > 0 {
        lines.push_str(&format!(r#","lag":{}"#, change.lag));
    }
    if change.dropped > 0 {
        lines.push_str(&format!(r#","dropped":{}"#, change.dropped));
    }
    if change.is_cut {
        lines.push_str(r#","cut":true"#);
    }
    lines.push_str("}\n");
    Ok(())
}

impl SubArguments {
    fn options(&self) -> Result<SubscribeOptions, Failure> {
        let mut options = match (&self.topic, &self.table) {
            (Some(topic), _) => SubscribeOptions::topic(topic),
            (None, table) => SubscribeOptions::new(table.as_deref().unwrap_or_default()),
        };
        options.snapshot &= !self.no_snapshot;
        options.filter = self.filter.clone().map(|filter| json::parse("the filter", filter)).transpose()?;
        options.cursor.clone_from(&self.from);
        options.overflow = match self.overflow {
            OverflowPolicy::Close => Overflow::Close,
            OverflowPolicy::DropOldest => Overflow::DropOldest,
            OverflowPolicy::Block => Overflow::Block,
            OverflowPolicy::Conflate => Overflow::Conflate,
            OverflowPolicy::Resnapshot => Overflow::Resnapshot,
        };
        Ok(options)
    }
}

#[cfg(test)]
mod tests {
    use super::*;
    use crate::wire::envelope::{Event, EventKind};

    fn line(event: Event) -> String {
        let mut lines = String::new();
        assert!(write_line(&Item::Event(event.into()), &mut lines).expect("JSON"));
        lines
    }

    #[test]
    fn the_type_comes_first() {
        let mut lines = String::new();
        for item in [
            Item::Position { cursor: "p".into() },
            Item::SnapshotEnd { cursor: "c".into() },
            Item::Reset { reason: "a \"gap\"".into() },
        ] {
            assert!(!write_line(&item, &mut lines).expect("JSON"), "not an item for --max");
        }
        let expected = "{\"type\":\"snapshot_end\",\"cursor\":\"c\"}\n{\"type\":\"reset\",\"reason\":\"a \\\"gap\\\"\"}\n";
        assert_eq!(lines, expected);
    }

    #[test]
    fn a_line_is_one_object_with_the_document_as_it_is() {
        let mut event = Event {
            cursor: "c".into(),
            kind: EventKind::Enter,
            id: "a\"\u{9b}".into(),
            data: Some(b"{\"n\": 1.0,\n \"t\":\"x\"}"[..].into()),
            old: None,
            version: 3,
            dropped: 0,
            omitted: 0,
            lag: 0,
        };
        let text = line(event.clone());
        assert_eq!(text.matches('\n').count(), 1);
        assert!(text.contains(r#""data":{"n": 1.0,  "t":"x"},"old":null,"version":3}"#), "{text}");
        let value: serde_json::Value = serde_json::from_str(&text).expect("JSON");
        assert_eq!(value["type"], "event");
        assert_eq!(value["kind"], "enter");
        assert_eq!(value["id"], "a\"\u{9b}");
        event.dropped = 7;
        event.lag = 9;
        event.omitted = 1;
        event.data = None;
        let value: serde_json::Value = serde_json::from_str(&line(event.clone())).expect("JSON");
        assert_eq!(value["lag"].as_u64(), Some(9));
        assert_eq!((value["dropped"].as_u64(), value["cut"].as_bool()), (Some(7), Some(true)));
        event.data = Some(b"}{"[..].into());
        assert!(write_line(&Item::Event(event.into()), &mut String::new()).is_err());
    }
}
