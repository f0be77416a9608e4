//! Tables as they were, and the change log as a stream: through the real protocol, on real daemons in front of a real Postgres.
#![cfg(feature = "server")]
#![allow(clippy::unwrap_used, reason = "in a test, a panic is the report")]

#[path = "../support/postgres.rs"]
#[allow(dead_code, reason = "shared with tests that need more of it")]
mod postgres;
#[path = "../calls/server.rs"]
#[allow(dead_code, reason = "shared with tests that need more of it")]
mod server;

mod at;
mod changes;
mod kept;
mod model;
mod oracle;
mod reads;
