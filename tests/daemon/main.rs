//! The daemon as a process, from outside: documents, access, resume over kills, hostile input.
#![cfg(feature = "server")]
#![allow(clippy::unwrap_used, reason = "in a test, a panic is the report")]

mod attach;
mod bench;
mod calls;
mod commands;
mod documents;
mod hostile;
mod idempotency;
mod import;
mod known_peers;
mod limits;
mod migrate;
mod overflow;
mod resume;
mod secrets;
mod serve;
mod streams;
mod support;
mod topics;
mod unsubscribed;
mod websocket;
