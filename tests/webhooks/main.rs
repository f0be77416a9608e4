//! Webhooks: real daemons in front of a real Postgres, and a real receiver.
#![cfg(feature = "server")]
#![allow(clippy::unwrap_used, reason = "in a test, a panic is the report")]

#[path = "../support/postgres.rs"]
#[allow(dead_code, reason = "shared with tests that need more of it")]
mod postgres;
#[path = "../calls/server.rs"]
#[allow(dead_code, reason = "shared with tests that need more of it")]
mod server;

mod addresses;
mod commands;
mod delivery;
mod document;
mod failures;
mod outbox;
mod receiver;
mod reset;
mod takeover;
mod tls;
