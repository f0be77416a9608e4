//! How a command ends that did not do what it was asked to.

use std::borrow::Cow;
use std::io;
use std::process::ExitCode;
use std::time::Duration;

use serde_json::value::RawValue;

use super::json;
use crate::client::{Error, Json};
use crate::wire::ErrorCode;

/// How the program ends.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub enum Exit {
    /// 0: done.
    Done,
    /// 1: the server answered with an error, or a file or a configuration cannot be used.
    Failed,
    /// 2: no connection.
    Connection,
    /// 64 (`EX_USAGE` of sysexits.h): the command line cannot be understood.
    Usage,
}

impl From<Exit> for ExitCode {
    fn from(exit: Exit) -> Self {
        Self::from(match exit {
            Exit::Done => 0_u8,
            Exit::Failed => 1,
            Exit::Connection => 2,
            Exit::Usage => 64,
        })
    }
}

/// Why a command did not do what it was asked to.
#[derive(Debug)]
pub struct Failure {
    pub(super) exit: Exit,
    pub(super) code: Option<ErrorCode>,
    pub(super) message: String,
    pub(super) hint: Option<String>,
    /// Whether the same may be tried again, where that is known.
    pub(super) retryable: Option<bool>,
    /// How long to wait before that, where the server said so.
    pub(super) retry_after: Option<Duration>,
    /// What the server said beside its message, safe to print.
    pub(super) details: Option<Box<RawValue>>,
    /// Of work in many steps: how many were done, where that is known.
    pub(super) written: Option<u64>,
    /// Nobody reads any more: nothing is left to say.
    pub(super) is_silent: bool,
}

impl Failure {
    /// A file, a configuration or this machine is at fault. Exit code 1.
    pub fn failed(message: impl Into<String>) -> Self {
        Self {
            exit: Exit::Failed,
            code: None,
            message: message.into(),
            hint: None,
            retryable: None,
            retry_after: None,
            details: None,
            written: None,
            is_silent: false,
        }
    }

    /// The server answered with an error. Printed as `CODE: message`; exit code 1.
    pub fn answered(code: ErrorCode, message: impl Into<String>) -> Self {
        Self { code: Some(code), ..Self::failed(message) }
    }

    /// There is no connection, or no longer. Exit code 2.
    pub fn connection(message: impl Into<String>) -> Self {
        Self { exit: Exit::Connection, ..Self::failed(message) }
    }

    /// The arguments do not go together. Exit code 64.
    pub fn usage(message: impl Into<String>) -> Self {
        Self { exit: Exit::Usage, ..Self::failed(message) }
    }

    /// Adds a code of the protocol to a failure that is not an answer.
    #[must_use]
    pub(super) fn with_code(mut self, code: ErrorCode) -> Self {
        self.code = Some(code);
        self
    }

    /// Adds what to do about it.
    #[must_use]
    pub fn with_hint(mut self, hint: impl Into<String>) -> Self {
        self.hint = Some(hint.into());
        self
    }

    /// Adds what to do about it, when that is known.
    #[must_use]
    pub fn with_optional_hint(self, hint: Option<String>) -> Self {
        Self { hint: hint.or(self.hint), ..self }
    }

    /// Adds what the client knows of trying again, and the details of an answer. Those that are not JSON are left out.
    #[must_use]
    pub(super) fn with_facts_of(mut self, error: &Error) -> Self {
        self.retryable = Some(error.retryable());
        self.retry_after = error.retry_after();
        if let Error::Call(answer) = error {
            let details = json::printable(&Json::new(answer.details.clone())).map(Cow::into_owned);
            self.details = details.and_then(|text| RawValue::from_string(text).ok());
        }
        self
    }

    /// The details as a person reads them; `None` where the rest of the failure says it all.
    pub(super) fn details_text(&self) -> Option<String> {
        self.details.as_deref().and_then(text_of_details)
    }

    /// Adds how many documents were written all the same, when that is known.
    #[must_use]
    pub(super) fn with_written(self, written: Option<u64>) -> Self {
        Self { written: written.or(self.written), ..self }
    }

    /// Adds a further fault to the message.
    #[must_use]
    pub(super) fn and(mut self, other: &impl std::fmt::Display) -> Self {
        self.message = format!("{}; {other}", self.message);
        self
    }
}

/// Details of methods that make many steps: where it failed, and what that step said.
#[derive(serde::Deserialize)]
#[serde(deny_unknown_fields)]
struct Step {
    index: Option<u64>,
    /// Printed by itself.
    written: Option<u64>,
    details: Option<Box<RawValue>>,
}

/// What is known is put into words, the rest stays JSON.
fn text_of_details(details: &RawValue) -> Option<String> {
    let Ok(step) = serde_json::from_str::<Step>(details.get()) else {
        return (details.get() != "null").then(|| details.get().to_owned());
    };
    let place = match (step.index, step.written) {
        (Some(index), None) => format!("in call {index} of the batch"),
        (None, Some(_)) => return step.details.as_deref().and_then(text_of_details),
        _ => return Some(details.get().to_owned()).filter(|text| text != "{}"),
    };
    match step.details.as_deref().and_then(text_of_details) {
        Some(inner) => Some(format!("{place}: {inner}")),
        None => Some(place),
    }
}

/// Writing a result failed. A closed pipe (`raystream sub .. | head -1`) ends the program without a word.
impl From<io::Error> for Failure {
    fn from(error: io::Error) -> Self {
        if error.kind() == io::ErrorKind::BrokenPipe {
            return Self { exit: Exit::Done, is_silent: true, ..Self::failed("") };
        }
        Self::failed(format!("cannot write the result: {error}"))
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn a_closed_pipe_is_the_end_and_no_error() {
        let failure = Failure::from(io::Error::from(io::ErrorKind::BrokenPipe));
        assert!(failure.is_silent && failure.exit == Exit::Done);
        assert_eq!(Failure::from(io::Error::from(io::ErrorKind::StorageFull)).exit, Exit::Failed);
    }

    #[test]
    fn details_that_are_known_are_put_into_words() {
        let text = |json: &str| {
            let details = RawValue::from_string(json.to_owned()).expect("JSON");
            text_of_details(&details)
        };
        let batch = "in call 1 of the batch";
        assert_eq!(text(r#"{"index":1}"#).as_deref(), Some(batch));
        assert_eq!(text(r#"{"index":1,"details":{"a":1.10}}"#), Some(format!(r#"{batch}: {{"a":1.10}}"#)));
        // The number has a line of its own.
        assert_eq!(text(r#"{"written":8}"#), None);
        assert_eq!(text(r#"{"written":8,"details":{"index":1}}"#).as_deref(), Some(batch));
        for nothing in ["{}", "null"] {
            assert_eq!(text(nothing), None);
        }
        for other in [r#"{"cursor":"c"}"#, r#"{"index":1,"x":2}"#, "[1]", "7", r#"{"details":1}"#] {
            assert_eq!(text(other).as_deref(), Some(other));
        }
    }
}
