//! The Rust client against servers that answer, fall silent, cut the connection, lie and say goodbye.
//!
//! Each server is a script around the server's end of [`raystream::conn::Connection`] on a real socket: it decides what
//! happens when, so that no test waits for a moment to pass.
#![cfg(feature = "client")]
// Helpers of tests fail tests: the place is in the backtrace.
#![allow(clippy::unwrap_used)]

mod calls;
// The command line is there with the daemon only.
#[cfg(feature = "server")]
mod command_line;
mod connect;
mod reconnect;
mod retries;
mod server;
mod subscriptions;
