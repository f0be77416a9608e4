//! Transactions that clients keep open, through the real protocol, on real daemons in front of one real Postgres.
#![cfg(feature = "server")]
#![allow(clippy::unwrap_used, reason = "in a test, a panic is the report")]

#[path = "../support/postgres.rs"]
#[allow(dead_code, reason = "shared with tests that need more of it")]
mod postgres;
#[path = "../storage/proxy.rs"]
#[allow(dead_code, reason = "shared with tests that need more of it")]
mod proxy;
#[path = "../calls/raw.rs"]
#[allow(dead_code, reason = "shared with tests that need more of it")]
mod raw;
#[path = "../calls/server.rs"]
#[allow(dead_code, reason = "shared with tests that need more of it")]
mod server;
mod tx;

mod calls;
mod closure;
mod commits;
mod ends;
mod limits;
mod outcome;
mod visibility;
