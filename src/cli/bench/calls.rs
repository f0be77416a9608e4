//! The scenarios that are calls: each is one method with its arguments.

use std::sync::atomic::{AtomicU64, Ordering};

use bytes::Bytes;

use super::arguments::Scenario;
use super::load::Work;
use super::measured::Fault;
use super::table::{
    DOCUMENT_BEGIN, DOCUMENTS, GROUPS, PAGE, TABLE, end_of_document, group_of, id_of, items_in,
};
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

/// The arguments of a call. Numbers go around: one count for all calls, so that those in flight differ.
enum Arguments {
    /// Always the same; the answer has to be the same bytes.
    Echo(Bytes),
    /// Reads of one document.
    Id(AtomicU64),
    /// Writes of one document, with what follows its group in it.
    Document(AtomicU64, String),
    /// A group of documents.
    Group(AtomicU64),
}

impl Calls {
    pub(super) fn new(scenario: Scenario, payload: usize, clients: Vec<Client>) -> Self {
        let next = AtomicU64::new(0);
        let (method, arguments) = match scenario {
            Scenario::Get => ("table.get", Arguments::Id(next)),
            Scenario::Set => ("table.set", Arguments::Document(next, end_of_document(payload))),
            Scenario::Query => ("table.query", Arguments::Group(next)),
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

impl Arguments {
    /// Those of the next call.
    fn next(&self) -> Json {
        let turn = |next: &AtomicU64, modulus: u64| next.fetch_add(1, Ordering::Relaxed) % modulus;
        match self {
            Self::Echo(args) => Json::new(args.clone()),
            Self::Id(next) => {
                let id = id_of(turn(next, DOCUMENTS));
                Json::new(format!(r#"{{"table":"{TABLE}","id":"{id}"}}"#))
            }
            Self::Document(next, end) => Json::new(write_of(turn(next, DOCUMENTS), end)),
            Self::Group(next) => {
                let group = turn(next, GROUPS);
                Json::new(format!(r#"{{"table":"{TABLE}","limit":{PAGE},"filter":{{"g":{group}}}}}"#))
            }
        }
    }

    /// Whether this is an answer to call number `n`.
    fn is_answered_by(&self, answer: &[u8], n: u64) -> bool {
        match self {
            Self::Echo(args) => is_echo(answer, args, n),
            // A document that is not there is answered with null: it would be cheaper than one that is.
            Self::Id(_) | Self::Document(..) => answer != b"null",
            Self::Group(_) => is_page(answer, n),
        }
    }
}

/// The write of a document as the table was filled with it.
fn write_of(number: u64, end: &str) -> String {
    let (id, group) = (id_of(number), group_of(number));
    format!(r#"{{"table":"{TABLE}","id":"{id}","data":{DOCUMENT_BEGIN}{group}{end}}}"#)
}

impl Work for Calls {
    async fn once(&self, connection: usize, n: u64) -> Result<(), Fault> {
        let args = self.arguments.next();
        let answer = self.clients[connection].call_with(self.method, args, CallOptions::default()).await?;
        if self.arguments.is_answered_by(answer.as_bytes(), n) { Ok(()) } else { Err(Fault::WrongAnswer) }
    }
}

/// Whether the answer to call number `n` has the documents of a page. Long ones are looked at now and then: one without
/// documents is short.
fn is_page(answer: &[u8], n: u64) -> bool {
    let is_looked_at = answer.len() <= COMPARED_WHOLE || n.is_multiple_of(COMPARED_EACH);
    !is_looked_at || items_in(answer) == Some(PAGE)
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
    use super::super::table::document;
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
    fn a_write_is_the_document_that_the_table_was_filled_with() {
        for number in [0, 7, 42, 999] {
            let text = write_of(number, &end_of_document(64));
            let value: serde_json::Value = serde_json::from_str(&text).expect("JSON");
            let filled: serde_json::Value = serde_json::from_str(&document(number, 64)).expect("JSON");
            assert_eq!((&value["data"], &value["table"]), (&filled, &TABLE.into()));
            assert_eq!(value["id"], id_of(number).to_string());
        }
    }

    #[test]
    fn a_page_has_its_documents() {
        let page = |items: usize, payload: usize| {
            let items = vec![format!("{{\"data\":\"{}\"}}", "x".repeat(payload)); items];
            format!("{{\"items\":[{}],\"next\":null}}", items.join(",")).into_bytes()
        };
        for n in [0, 1] {
            assert!(is_page(&page(10, 64), n) && is_page(&page(10, COMPARED_WHOLE), n));
            assert!(!is_page(&page(9, 64), n) && !is_page(&page(0, 64), n) && !is_page(b"null", n));
        }
        assert!(!is_page(&page(9, COMPARED_WHOLE), 0));
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
