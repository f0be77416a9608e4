//! The bodies of the fuzz targets, as ordinary functions: `fuzz/` calls them with what libFuzzer finds, the tests here
//! with the committed corpus and with seeded mutations of it. Not part of the interface of this crate.
//!
//! A target panics when something is wrong, and says nothing otherwise.

mod decoders;
mod generated;
mod handshake;
#[cfg(any(feature = "fuzzing", feature = "client"))]
mod json;
mod machine;
mod operation;
mod provider;
#[cfg(feature = "sql")]
mod sql;
#[cfg(test)]
mod tests;
#[cfg(feature = "webhook")]
mod webhook;
pub(crate) mod websocket;

pub use decoders::{envelope, frame, init, record};
pub use handshake::{handshake_initiator, handshake_responder};
#[cfg(any(feature = "fuzzing", feature = "client"))]
pub use json::json;
pub use machine::connection;
#[cfg(feature = "sql")]
pub use sql::{sql, sql_text};
#[cfg(feature = "webhook")]
pub use webhook::webhook_event;
pub use websocket::websocket;

/// A fuzz target.
pub type Target = fn(&[u8]);

/// Every target by its name in `fuzz/`.
pub const TARGETS: &[(&str, Target)] = &[
    ("record", record),
    ("init", init),
    ("handshake_responder", handshake_responder),
    ("handshake_initiator", handshake_initiator),
    ("frame", frame),
    ("envelope", envelope),
    ("connection", connection),
    ("websocket", websocket),
    #[cfg(any(feature = "fuzzing", feature = "client"))]
    ("json", json),
    #[cfg(feature = "sql")]
    ("sql", sql),
    #[cfg(feature = "webhook")]
    ("webhook_event", webhook_event),
];
