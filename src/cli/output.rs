//! Results to standard output, everything else to standard error.

use std::io::{self, IsTerminal as _, Write as _};
use std::process::ExitCode;

use serde_json::json;

use super::GlobalOptions;
use crate::server::logging::Colour;
use crate::wire::registry::ErrorCode;

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
    exit: Exit,
    code: Option<ErrorCode>,
    message: String,
    hint: Option<String>,
    /// Nobody reads any more: nothing is left to say.
    is_silent: bool,
}

impl Failure {
    /// A file, a configuration or this machine is at fault. Exit code 1.
    pub fn failed(message: impl Into<String>) -> Self {
        Self { exit: Exit::Failed, code: None, message: message.into(), hint: None, is_silent: false }
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

/// Where and how a command prints.
#[derive(Debug)]
pub struct Output {
    json: bool,
    colours_on_stderr: bool,
}

impl Output {
    /// As the options of the command line say.
    pub fn new(options: &GlobalOptions) -> Self {
        Self { json: options.json, colours_on_stderr: Colour::from(options.color).on(&io::stderr()) }
    }

    /// Whether results are JSON.
    pub fn is_json(&self) -> bool {
        self.json
    }

    /// A line of the result, at once: a reader on the other end of a pipe sees it now.
    ///
    /// # Errors
    /// Nobody reads, or the disk is full.
    pub fn line(&mut self, line: impl AsRef<str>) -> Result<(), Failure> {
        self.bytes(format!("{}\n", line.as_ref()).as_bytes())
    }

    /// The result as it is.
    ///
    /// # Errors
    /// Nobody reads, or the disk is full.
    pub fn bytes(&mut self, bytes: &[u8]) -> Result<(), Failure> {
        let mut stdout = io::stdout().lock();
        stdout.write_all(bytes)?;
        stdout.flush()?;
        Ok(())
    }

    /// The text, or with `--json` the value on one line.
    ///
    /// # Errors
    /// Nobody reads, or the disk is full.
    pub fn result(&mut self, text: impl AsRef<str>, value: &serde_json::Value) -> Result<(), Failure> {
        if self.json { self.line(value.to_string()) } else { self.line(text) }
    }

    /// A remark for a person: only when one looks at standard error.
    pub fn remark(&self, text: impl AsRef<str>) {
        if !self.json && io::stderr().is_terminal() {
            let _ = writeln!(io::stderr().lock(), "{}", printable(text.as_ref()));
        }
    }

    /// What whoever runs the command should know though it is not its result, on standard error.
    pub fn note(&self, text: impl AsRef<str>) {
        if self.json {
            let _ = writeln!(io::stderr().lock(), "{}", json!({ "note": text.as_ref() }));
        } else {
            self.labelled("note", "36", text.as_ref());
        }
    }

    /// How far something is, with `--json`, on standard error.
    pub(super) fn progress(&self, value: &serde_json::Value) {
        let _ = writeln!(io::stderr().lock(), "{}", json!({ "progress": value }));
    }

    /// A pair that came with a result, on standard error.
    pub(super) fn trailer(&self, key: &str, value: &str) {
        self.labelled(&printable(key), "36", value);
    }

    /// A warning, on standard error.
    pub fn warn(&self, text: impl AsRef<str>) {
        if self.json {
            let _ = writeln!(io::stderr().lock(), "{}", json!({ "warning": text.as_ref() }));
        } else {
            self.labelled("warning", "33", text.as_ref());
        }
    }

    /// Prints a failure and gives its exit code.
    pub(super) fn fail(&self, failure: &Failure) -> Exit {
        if failure.is_silent {
            return failure.exit;
        }
        if self.json {
            let code = failure.code.map(|code| code.to_string());
            let error = json!({ "code": code, "message": failure.message, "hint": failure.hint });
            let _ = writeln!(io::stderr().lock(), "{}", json!({ "error": error }));
            return failure.exit;
        }
        match failure.code {
            Some(code) => self.labelled(&code.to_string(), "31", &failure.message),
            None => self.labelled("error", "31", &failure.message),
        }
        if let Some(hint) = &failure.hint {
            self.labelled("hint", "36", hint);
        }
        failure.exit
    }

    fn labelled(&self, label: &str, colour: &str, text: &str) {
        let text = printable(text);
        let mut stderr = io::stderr().lock();
        // Standard error is closed: there is nobody to tell.
        let _ = if self.colours_on_stderr {
            writeln!(stderr, "\x1b[1;{colour}m{label}:\x1b[0m {text}")
        } else {
            writeln!(stderr, "{label}: {text}")
        };
    }
}

/// Text without anything that drives a terminal. Line ends stay: some messages have several lines.
fn printable(text: &str) -> String {
    let mut shown = String::with_capacity(text.len());
    for c in text.chars() {
        if c.is_control() && c != '\n' {
            shown.extend(c.escape_unicode());
        } else {
            shown.push(c);
        }
    }
    shown
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn a_servers_words_cannot_drive_the_terminal() {
        assert_eq!(printable("a\x1b[2Jb\u{9b}\nc"), "a\\u{1b}[2Jb\\u{9b}\nc");
    }

    #[test]
    fn a_closed_pipe_is_the_end_and_no_error() {
        let failure = Failure::from(io::Error::from(io::ErrorKind::BrokenPipe));
        assert!(failure.is_silent && failure.exit == Exit::Done);
        assert_eq!(Failure::from(io::Error::from(io::ErrorKind::StorageFull)).exit, Exit::Failed);
    }
}
