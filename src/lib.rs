//! Encrypted calls and live queries over Postgres.
//!
//! One authenticated connection carries calls and live subscriptions to a daemon in front of Postgres. A peer is its
//! key. The core (`wire`, `noise`, `conn`) does no IO: it reads no clock, no randomness and no socket, and is what
//! `--no-default-features` gives. The feature `client` adds the asynchronous client, `server` the daemon and the command
//! line.
//!
//! Reading order: [`wire`] for the bytes, [`noise`] for the handshake, [`conn`] for the connection; then
//! `ARCHITECTURE.md` for the floors above.

pub mod conn;
#[doc(hidden)]
pub mod fuzzing;
#[doc(hidden)]
pub mod json;
pub mod noise;
pub mod primitives;
pub mod wire;

#[cfg(feature = "client")]
pub mod client;

#[cfg(feature = "sql")]
pub mod sql;
#[cfg(feature = "webhook")]
pub mod webhook;

#[cfg(feature = "server")]
pub mod api;
#[cfg(feature = "server")]
pub mod auth;
#[cfg(feature = "server")]
pub mod cli;
#[cfg(feature = "server")]
pub mod migrations;
#[cfg(feature = "server")]
pub mod rpc;
#[cfg(feature = "server")]
pub mod server;
#[cfg(feature = "server")]
pub mod store;
#[cfg(feature = "client")]
pub mod time;
#[cfg(feature = "client")]
mod wake;
