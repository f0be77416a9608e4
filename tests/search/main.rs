//! Indexes that an operator asks for, and full-text search: the program itself and the real protocol, in front of a real Postgres.
#![cfg(feature = "server")]
#![allow(clippy::unwrap_used, reason = "in a test, a panic is the report")]

#[path = "../support/postgres.rs"]
#[allow(dead_code, reason = "shared with tests that need more of it")]
mod postgres;
#[path = "../sql_guard/recorder.rs"]
#[allow(dead_code, reason = "shared with tests that need more of it")]
mod recorder;
#[path = "../calls/server.rs"]
#[allow(dead_code, reason = "shared with tests that need more of it")]
mod server;

mod builds;
mod finds;
mod limits;
mod plans;
mod uniques;
mod world;
