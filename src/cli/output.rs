//! Results to standard output, everything else to standard error.

use std::io::{self, IsTerminal as _, Write as _};

use serde_json::json;
use serde_json::value::RawValue;

use super::{Exit, Failure, GlobalOptions};
use crate::server::config::Period;
use crate::server::logging::Colour;

/// A failure with `--json`. What is not known is null.
#[derive(serde::Serialize)]
struct Told<'a> {
    code: Option<String>,
    message: &'a str,
    hint: Option<&'a str>,
    retryable: Option<bool>,
    retry_after_ms: Option<u64>,
    details: Option<&'a RawValue>,
    #[serde(skip_serializing_if = "Option::is_none")]
    written: Option<u64>,
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
            let error = Told {
                code: failure.code.map(|code| code.to_string()),
                message: &failure.message,
                hint: failure.hint.as_deref(),
                retryable: failure.retryable,
                retry_after_ms: failure.retry_after.map(|time| Period::new(time).as_millis()),
                details: failure.details.as_deref(),
                written: failure.written,
            };
            let error = serde_json::to_string(&error).expect("text, numbers and JSON are JSON");
            let _ = writeln!(io::stderr().lock(), "{}", format_args!("{{\"error\":{error}}}"));
            return failure.exit;
        }
        match failure.code {
            Some(code) => self.labelled(&code.to_string(), "31", &failure.message),
            None => self.labelled("error", "31", &failure.message),
        }
        if let Some(details) = failure.details_text() {
            self.labelled("details", "36", &details);
        }
        if let Some(written) = failure.written {
            self.labelled("written", "36", &written.to_string());
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
}
