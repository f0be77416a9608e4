//! Calls through the real protocol, on real daemons in front of one real Postgres: ends that come early, keys, batches.
#![cfg(feature = "server")]
#![allow(clippy::unwrap_used, reason = "in a test, a panic is the report")]
#![allow(clippy::print_stdout, reason = "floods and kills print their figures")]

#[path = "../support/postgres.rs"]
#[allow(dead_code, reason = "shared with tests that need more of it")]
mod postgres;

mod batches;
mod flood;
mod handover;
mod keys;
mod kills;
mod pages;
mod raw;
mod schema_changes;
mod schemas;
mod server;
mod stops;
mod topic_kills;
mod topics;
