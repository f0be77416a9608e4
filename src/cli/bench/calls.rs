//! The scenarios that are calls: each is one method with its arguments.

use std::fmt::Write as _;

use bytes::Bytes;

use super::arguments::Scenario;
use super::load::Work;
use super::measured::Fault;
use super::table::{DOCUMENTS, GROUPS, PAGE, TABLE, document, id_of};
use crate::client::{CallOptions, Client, Json};

/// Calls of one kind over a fleet.
pub(super) struct Calls {
    clients: Vec<Client>,
    method: &'static str,
    arguments: Arguments,
}

/// The arguments of call number `n`.
enum Arguments {
    /// Always the same; the answer has to be the same bytes.
    Echo(Bytes),
    /// `before`, a number that goes around in `modulus`, `after`.
    Numbered { before: String, modulus: u64, after: String },
}

impl Calls {
    pub(super) fn new(scenario: Scenario, payload: usize, clients: Vec<Client>) -> Self {
        let numbered =
            |before: String, modulus, after: String| Arguments::Numbered { before, modulus, after };
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
            Arguments::Numbered { before, modulus, after } => {
                let mut text = String::with_capacity(before.len() + after.len() + 20);
                text.push_str(before);
                let number = n % modulus;
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
            Arguments::Echo(args) => answer.as_bytes() == &args[..],
            // A document that is not there is answered with null: it would be cheaper than one that is.
            Arguments::Numbered { .. } => answer.as_bytes() != b"null",
        };
        if is_right { Ok(()) } else { Err(Fault::WrongAnswer) }
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn a_payload_has_its_length() {
        for payload in [8, 64, 65_536] {
            let text = echo_of(payload);
            assert_eq!(text.len(), payload);
            assert!(serde_json::from_str::<serde_json::Value>(&text).is_ok());
        }
    }
}
