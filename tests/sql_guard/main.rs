//! `table.exec` through the real protocol, on a real daemon in front of a real Postgres; and what the guard writes, read again
//! by another parser.
#![cfg(feature = "server")]
#![allow(clippy::unwrap_used, reason = "in a test, a panic is the report")]
#![allow(clippy::print_stdout, reason = "counts of what was refused and what ran")]

#[path = "../support/postgres.rs"]
#[allow(dead_code, reason = "shared with tests that need more of it")]
mod postgres;
#[path = "../calls/server.rs"]
#[allow(dead_code, reason = "shared with tests that need more of it")]
mod server;
#[path = "../transactions/tx.rs"]
#[allow(dead_code, reason = "shared with tests that need more of it")]
mod tx;

mod inputs;
mod limits;
mod oracle;
#[allow(dead_code, reason = "shared with tests that need more of it")]
mod recorder;
mod statements;
mod transactions;
mod ways;
mod world;
