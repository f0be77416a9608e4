//! The scenarios that are calls: each is one method with its arguments.

use std::fmt::Write as _;
use std::sync::atomic::{AtomicU64, Ordering};

use bytes::Bytes;

use super::arguments::Scenario;
use super::load::Work;
use super::measured::Fault;
use super::table::{DOCUMENTS, GROUPS, PAGE, TABLE, document, id_of};
use crate::client::{CallOptions, Client, Json};

/// Answers up to here are compared whole with what was sent.
const COMPARED_WHOLE: usize = 4 * 1024;
/// Of longer ones so many are compared once.
const COMPARED_EACH: u64 = 16;

/// Calls of one kind over a fleet.
pub(super) struct Calls {
    clients: Vec<Client>,
    method: &'static str,
    arguments: Arguments,
}

/// The arguments of a call.
enum Arguments {
    /// Always the same; the answer has to be the same bytes.
    Echo(Bytes),
    /// `before`, a number that goes around in `modulus`, `after`: one count for all calls, so that those in flight differ.
    Numbered { before: String, next: AtomicU64, modulus: u64, after: String },
}

impl Calls {
    pub(super) fn new(scenario: Scenario, payload: usize, clients: Vec<Client>) -> Self {
        let numbered = |before: String, modulus, after: String| Arguments::Numbered {
            before,
            next: AtomicU64::new(0),
            modulus,
            after,
        };
        let (method, arguments) = match scenario {
            Scenario::Get => {
                let before = format!(r#"{{"table":"{TABLE}","id":""#);
                ("table.get", numbered(before, DOCUMENTS, r#""}"#.to_owned()))
            }
            Scenario::Set => {
                let before = format!(r#"{{"table":"{TABLE}","data":{},"id":""#, document(0, payload));
                ("table.set", numbered(before, DOCUMENTS, r#""}"#.to_owned()))
            }
            Scenario::Query => {
                let before = format!(r#"{{"table":"{TABLE}","limit":{PAGE},"filter":{{"g":"#);
                ("table.query", numbered(before, GROUPS, "}}".to_owned()))
            }
            _ => ("sys.echo", Arguments::Echo(echo_of(payload).into())),
        };
        Self { clients, method, arguments }
    }

    /// Ends the connections in order.
    pub(super) async fn close(&self) {
        for client in &self.clients {
            client.close().await;
        }
    }
}

/// An object of so many bytes.
fn echo_of(payload: usize) -> String {
    let empty = r#"{"x":""}"#.len();
    format!(r#"{{"x":"{}"}}"#, "x".repeat(payload.saturating_sub(empty)))
}

impl Work for Calls {
    async fn once(&self, connection: usize, n: u64) -> Result<(), Fault> {
        let args = match &self.arguments {
            Arguments::Echo(args) => Json::new(args.clone()),
            Arguments::Numbered { before, next, modulus, after } => {
                let mut text = String::with_capacity(before.len() + after.len() + 20);
                text.push_str(before);
                let number = next.fetch_add(1, Ordering::Relaxed) % modulus;
                // Ids are text of a fixed width, filters are numbers.
                let _infallible = match self.method {
                    "table.query" => write!(text, "{number}"),
                    _ => write!(text, "{}", id_of(number)),
                };
                text.push_str(after);
                Json::new(text)
            }
        };
        let answer = self.clients[connection].call_with(self.method, args, CallOptions::default()).await?;
        let is_right = match &self.arguments {
            Arguments::Echo(args) => is_echo(answer.as_bytes(), args, n),
            // A document that is not there is answered with null: it would be cheaper than one that is.
            Arguments::Numbered { .. } => answer.as_bytes() != b"null",
        };
        if is_right { Ok(()) } else { Err(Fault::WrongAnswer) }
    }
}

/// Whether an answer is what was sent with call number `n`. A long one is compared whole now and then, and else by its length
/// and its ends: to compare all of them takes a twenty-fifth of what there is to measure.
fn is_echo(answer: &[u8], sent: &[u8], n: u64) -> bool {
    if sent.len() <= COMPARED_WHOLE || n.is_multiple_of(COMPARED_EACH) {
        return answer == sent;
    }
    let ends =
        |text: &[u8]| (text.len(), text.first_chunk::<64>().copied(), text.last_chunk::<64>().copied());
    ends(answer) == ends(sent)
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn an_answer_is_what_was_sent() {
        let sent = echo_of(2 * COMPARED_WHOLE).into_bytes();
        let mut middle = sent.clone();
        middle[COMPARED_WHOLE] = b'y';
        let mut end = sent.clone();
        end[2 * COMPARED_WHOLE - 3] = b'y';
        for n in [0, 1] {
            assert!(is_echo(&sent, &sent, n) && !is_echo(&end, &sent, n) && !is_echo(&sent[1..], &sent, n));
        }
        assert!(!is_echo(&middle, &sent, 0) && !is_echo(b"{}", echo_of(9).as_bytes(), 1));
    }

    #[test]
    fn a_payload_has_its_length() {
        for payload in [8, 64, 65_536] {
            let text = echo_of(payload);
            assert_eq!(text.len(), payload);
            assert!(serde_json::from_str::<serde_json::Value>(&text).is_ok());
        }
    }
}
