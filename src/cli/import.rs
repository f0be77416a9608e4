//! `raystream import`

use std::fs::File;
use std::io::{self, BufRead, BufReader, Read};
use std::path::PathBuf;

use clap::Args;
use indicatif::{ProgressBar, ProgressStyle};
use serde_json::value::RawValue;
use tokio::sync::mpsc;

use super::connect::block_on;
use super::{ConnectArguments, Failure, Output, json};
use crate::client::{CallStream, Error, Json, StreamOptions};
use crate::server::config::Period;
use crate::wire::ErrorCode;
use crate::wire::limits::MESSAGE_MAX;

/// Lines that are read ahead.
const LINES_AHEAD: usize = 64;

/// Write documents into a table, one JSON object a line: {"id": .., "data": ..}
///
/// Without an id a document gets a new one. Each is a write of its own: when one is refused or a line cannot be read, those
/// before it stay, and the error says how many were written. What `raystream query` prints can be imported.
#[derive(Debug, Args)]
pub(super) struct ImportArguments {
    #[command(flatten)]
    connect: ConnectArguments,
    /// The table
    #[arg(value_name = "TABLE")]
    table: String,
    /// The file with the lines; without it, or with `-`, standard input
    #[arg(value_name = "FILE")]
    file: Option<PathBuf>,
    /// Give up when it is not done after this time; the server's own limit is one hour
    #[arg(long, value_name = "TIME")]
    deadline: Option<Period>,
}

/// The fields of a line.
#[derive(serde::Deserialize)]
struct Line<'a> {
    #[serde(borrow)]
    id: Option<&'a RawValue>,
    #[serde(borrow)]
    data: &'a RawValue,
}

pub(super) fn run(arguments: &ImportArguments, output: &mut Output) -> Result<(), Failure> {
    let input: Box<dyn Read + Send> = match arguments.file.as_deref() {
        Some(path) if path.as_os_str() != "-" => Box::new(
            File::open(path)
                .map_err(|error| Failure::failed(format!("{} cannot be read: {error}", path.display())))?,
        ),
        _ => Box::new(io::stdin()),
    };
    let args = Json::encode(&serde_json::json!({ "table": arguments.table }))?;
    let mut options = StreamOptions::sending();
    options.timeout = arguments.deadline.map(|deadline| deadline.get());
    let result = block_on(async {
        let client = arguments.connect.connect(output, |_| {}).await?;
        let (lines, mut read) = mpsc::channel(LINES_AHEAD);
        // Reading blocks. The thread ends with the input, or with the first line that nobody takes.
        std::thread::spawn(move || read_lines(input, &lines));
        let mut call = client.open("table.import", args, options).await?;
        let sent = send(&mut call, &mut read).await;
        // Also after a line that is none: what was sent before it is written, and the answer says how much that is.
        call.end();
        let answer = call.result().await;
        client.close().await;
        match sent {
            Ok(()) => answer.map_err(refused),
            // The answer knows better than whoever could not go on.
            Err(Stop::Call(error)) => Err(refused(answer.err().unwrap_or(error))),
            Err(Stop::Line(fault)) => Err(with_answer(fault, answer)),
        }
    })?;
    let shown = json::printable(&result)
        .ok_or_else(|| Failure::answered(ErrorCode::INTERNAL_ERROR, "the server's result is not JSON"))?;
    output.line(shown)
}

/// What ends the sending before the last line.
enum Stop {
    /// A line that cannot be sent.
    Line(Failure),
    /// The call goes no further.
    Call(Error),
}

/// The answer, or an error of it.
#[derive(serde::Deserialize)]
struct Written {
    written: u64,
}

/// How many were written, as JSON of the server says.
fn written(json: &[u8]) -> Option<u64> {
    serde_json::from_slice(json).ok().map(|Written { written }| written)
}

/// An error of the call, with how many were written before it.
fn refused(error: Error) -> Failure {
    let written = match &error {
        Error::Call(answer) => written(&answer.details),
        _ => None,
    };
    Failure::from(error).with_written(written)
}

/// The fault of a line, with what became of the lines before it.
fn with_answer(fault: Failure, answer: Result<Json, Error>) -> Failure {
    match answer {
        Ok(result) => fault.with_written(written(result.as_bytes())),
        Err(error) => {
            let fault = fault.and(&format_args!("and before it: {error}"));
            fault.with_written(refused(error).written)
        }
    }
}

/// Sends every line.
async fn send(call: &mut CallStream, lines: &mut mpsc::Receiver<Result<Json, Failure>>) -> Result<(), Stop> {
    // Drawn on a terminal only.
    let progress = ProgressBar::new_spinner().with_style(
        ProgressStyle::with_template("{spinner} {human_pos} documents, {per_sec}")
            .unwrap_or_else(|_| ProgressStyle::default_spinner()),
    );
    let mut sent = Ok(());
    while let Some(line) = lines.recv().await {
        sent = match line {
            Ok(line) => call.send(line).await.map_err(Stop::Call),
            Err(fault) => Err(Stop::Line(fault)),
        };
        if sent.is_err() {
            break;
        }
        progress.inc(1);
    }
    progress.finish_and_clear();
    sent
}

/// Reads lines until the end, a fault, or nobody takes them.
fn read_lines(input: impl Read, lines: &mpsc::Sender<Result<Json, Failure>>) {
    let mut input = BufReader::new(input);
    for number in 1_u64.. {
        match read_line(&mut input) {
            Ok(None) => return,
            Ok(Some(line)) if line.trim_ascii().is_empty() => {}
            Ok(Some(line)) => {
                let item = item(&line).map_err(|fault| {
                    Failure::answered(ErrorCode::INVALID_REQUEST, format!("line {number}: {fault}"))
                });
                let is_last = item.is_err();
                if lines.blocking_send(item).is_err() || is_last {
                    return;
                }
            }
            Err(error) => {
                let failure = Failure::failed(format!("line {number} cannot be read: {error}"));
                // Nobody may be left to be told.
                let _unheard = lines.blocking_send(Err(failure));
                return;
            }
        }
    }
}

/// The next line, as far as a message may go and a byte more.
fn read_line(input: &mut impl BufRead) -> io::Result<Option<Vec<u8>>> {
    let limit = u64::try_from(MESSAGE_MAX).unwrap_or(u64::MAX).saturating_add(1);
    let mut line = Vec::new();
    let len = input.take(limit).read_until(b'\n', &mut line)?;
    Ok((len > 0).then_some(line))
}

/// A line as an item: only its id and its data, so that the output of a query can be taken.
fn item(line: &[u8]) -> Result<Json, String> {
    if line.len() > MESSAGE_MAX {
        return Err("longer than a message may be (1 MiB)".to_owned());
    }
    let Line { id, data } = serde_json::from_slice(line).map_err(|error| error.to_string())?;
    let text = match id {
        Some(id) => format!("{{\"id\":{},\"data\":{}}}", id.get(), data.get()),
        None => format!("{{\"data\":{}}}", data.get()),
    };
    Ok(Json::new(text))
}

#[cfg(test)]
mod tests {
    use super::*;

    fn read(text: &str) -> Vec<Result<String, String>> {
        let (sender, mut receiver) = mpsc::channel(100);
        read_lines(text.as_bytes(), &sender);
        drop(sender);
        let mut all = Vec::new();
        while let Some(line) = receiver.blocking_recv() {
            all.push(match line {
                Ok(json) => Ok(String::from_utf8(json.as_bytes().to_vec()).expect("text")),
                Err(failure) => Err(format!("{failure:?}")),
            });
        }
        all
    }

    #[test]
    fn lines_become_items_and_a_fault_names_its_line() {
        let lines = read(
            "{\"id\":\"a\",\"data\":{\"n\":1},\"version\":7}\n\n {\"data\":2}\n{\"id\":1}\n{\"data\":3}",
        );
        assert_eq!(lines[0], Ok("{\"id\":\"a\",\"data\":{\"n\":1}}".to_owned()));
        assert_eq!(lines[1], Ok("{\"data\":2}".to_owned()));
        let fault = lines[2].as_ref().expect_err("no data");
        assert!(fault.contains("line 4") && fault.contains("data"), "{fault}");
        // Nothing after a fault is written.
        assert_eq!(lines.len(), 3);
    }

    #[test]
    fn a_line_that_no_message_carries_is_refused() {
        let lines = read(&format!("{{\"data\":\"{}\"}}\n", "x".repeat(MESSAGE_MAX)));
        assert!(lines[0].as_ref().is_err_and(|fault| fault.contains("1 MiB")));
    }
}
