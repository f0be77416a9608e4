//! Log lines to standard error: text for people or JSON for programs.
//!
//! Text that a peer supplied goes through [`Untrusted`] wherever it is logged: control characters are escaped and it is
//! cut, so that a peer can neither forge a line nor drive a terminal nor fill a disk.

use std::io;

use tracing_subscriber::EnvFilter;
use tracing_subscriber::fmt::MakeWriter;
use tracing_subscriber::util::SubscriberInitExt as _;

use super::config::{LogConfig, LogFormat};
pub use crate::rpc::{UNTRUSTED_TEXT_MAX, Untrusted};

/// When log lines have colours.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub enum Colour {
    /// On a terminal, unless `NO_COLOR` is set to something.
    Auto,
    /// Always.
    Always,
    /// Never.
    Never,
}

impl Colour {
    /// Whether to use colours on a stream.
    pub fn on(self, stream: &impl io::IsTerminal) -> bool {
        match self {
            Self::Always => true,
            Self::Never => false,
            Self::Auto => {
                let refused = std::env::var_os("NO_COLOR").is_some_and(|value| !value.is_empty());
                !refused && stream.is_terminal()
            }
        }
    }
}

/// Logging could not be set up.
#[derive(Debug, thiserror::Error)]
pub enum LoggingError {
    /// `log.level` is no filter.
    #[error("log.level: {0}")]
    Level(#[from] tracing_subscriber::filter::ParseError),
    /// Something else in this process took the place already.
    #[error("logging is already set up")]
    Taken,
}

/// Sets logging up for the whole process. To be called once.
///
/// # Errors
/// [`LoggingError`]
pub fn init(config: &LogConfig, colour: Colour) -> Result<(), LoggingError> {
    let filter = EnvFilter::try_new(&config.level)?;
    subscriber(config.format, filter, colour.on(&io::stderr()), io::stderr)
        .try_init()
        .map_err(|_| LoggingError::Taken)
}

fn subscriber<W>(
    format: LogFormat,
    filter: EnvFilter,
    colours: bool,
    writer: W,
) -> Box<dyn tracing::Subscriber + Send + Sync>
where
    W: for<'a> MakeWriter<'a> + Send + Sync + 'static,
{
    let builder = tracing_subscriber::fmt().with_env_filter(filter).with_writer(writer).with_ansi(colours);
    match format {
        LogFormat::Text => Box::new(builder.finish()),
        LogFormat::Json => Box::new(builder.json().flatten_event(true).finish()),
    }
}

#[cfg(test)]
mod tests {
    use std::sync::{Arc, Mutex};

    use super::*;

    #[derive(Clone, Default)]
    struct Captured(Arc<Mutex<Vec<u8>>>);

    impl io::Write for Captured {
        fn write(&mut self, bytes: &[u8]) -> io::Result<usize> {
            self.0.lock().expect("no panic while writing").extend_from_slice(bytes);
            Ok(bytes.len())
        }

        fn flush(&mut self) -> io::Result<()> {
            Ok(())
        }
    }

    fn logged(format: LogFormat, hostile: &str) -> String {
        let captured = Captured::default();
        let writer = captured.clone();
        let subscriber = subscriber(format, EnvFilter::new("info"), false, move || writer.clone());
        tracing::subscriber::with_default(subscriber, || {
            tracing::info!(method = %Untrusted::new(hostile), "call refused");
            tracing::debug!("not shown");
        });
        let bytes = captured.0.lock().expect("no panic while writing").clone();
        String::from_utf8(bytes).expect("log lines are UTF-8")
    }

    #[test]
    fn a_peer_cannot_forge_a_line_or_drive_a_terminal() {
        let hostile = "x\n2026-01-01T00:00:00Z  INFO all is well\x1b[2J\u{202e}";
        for format in [LogFormat::Text, LogFormat::Json] {
            let text = logged(format, hostile);
            assert_eq!(text.lines().count(), 1, "{text}");
            assert!(!text.contains('\x1b') && !text.contains('\u{202e}'), "{text}");
            assert!(text.contains("call refused"));
        }
    }

    #[test]
    fn a_peer_cannot_fill_the_log() {
        let text = logged(LogFormat::Text, &"A".repeat(1 << 20));
        assert!(text.len() < UNTRUSTED_TEXT_MAX + 200, "{} bytes", text.len());
    }

    #[test]
    fn json_lines_are_json() {
        let line: serde_json::Value =
            serde_json::from_str(&logged(LogFormat::Json, "a\"b")).expect("one JSON object");
        assert_eq!(line["method"], "a\"b");
        assert_eq!(line["level"], "INFO");
    }
}
