//! The sans-IO connection: handshake, records, streams, flow control, heartbeats and abuse budgets.
//!
//! [`Connection`] reads no clock, no randomness and no socket: time is a [`Duration`](std::time::Duration) since any
//! fixed moment, randomness comes in as [`Entropy`], bytes come in through `handle_*` and leave through
//! [`Connection::poll_transmit`]. The daemon, the client, the fuzz targets and the tests in virtual time all run this
//! one type.
#![deny(clippy::as_conversions)]

mod budget;
mod config;
mod connection;
mod error;
mod event;
mod handshake;
mod heartbeat;
mod outbound;
mod reassembly;
mod record;
mod session;
pub(crate) mod stream_map;
mod streams;

pub use config::{ClientConfig, Entropy, Framing, Limits, ServerConfig};
pub use connection::Connection;
pub use error::{ApiMisuse, ConnectionError};
pub use event::{Event, Peer};
