//! How a command ends that did not do what it was asked to.

use std::io;
use std::process::ExitCode;

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
}
