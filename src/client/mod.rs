//! The asynchronous client: calls and live subscriptions over one connection that comes back by itself.
//!
//! [`Client::connect`] gives a [`Client`]; [`Client::call`] calls, [`Client::publish`] publishes an event to a topic,
//! [`Client::subscribe`] gives a [`Subscription`] to a table or a topic, which is a stream of [`Item`]s. A task of its own owns the connection and runs as long as a handle is alive.
//!
//! When the connection is lost, the task connects again, with pauses that grow and are random, and then
//!
//! - calls that were never sent are made on the new connection; those that may have run are sent again when that is
//!   safe, and otherwise end with [`Error::UnknownOutcome`], because a write must not happen twice behind the caller's
//!   back;
//! - subscriptions go on after the last item that was received: nothing is missed and nothing comes twice
//!   (see [`Subscription`]).
//!
//! What is safe to send again: methods that only read, and calls with an [`IdempotencyKey`]. [`RetryPolicy`] says how often
//! and when, [`RetryBudget`] how much all calls of a client may add to a server's work.
//!
//! [`Client::transaction`] runs a closure in a transaction, and again when another one was in its way.
//!
//! It runs on a tokio runtime with IO and time enabled.

mod calls;
// The face of the room has the room's name.
#[expect(clippy::module_inception)]
mod client;
mod connector;
mod driver;
mod error;
mod idempotency;
mod jitter;
mod json;
mod link;
mod making;
mod options;
mod pending;
mod publish;
mod reconnect;
mod response;
mod resume;
mod retry;
mod signals;
mod state;
mod stream;
mod subscription;
mod transaction;
mod transport;
mod url;

pub use crate::wire::envelope::{EventKind, Overflow};
pub use client::Client;
pub use driver::Status;
pub use error::{CallError, ConnectError, ConnectReason, Error};
pub use idempotency::{IdempotencyKey, InvalidIdempotencyKey};
pub use json::Json;
pub use link::ConnectionInfo;
pub use options::{CallOptions, CipherPreference, Options};
pub use publish::Published;
pub use reconnect::ReconnectPolicy;
pub use response::Response;
pub use retry::{RetryBudget, RetryPolicy};
pub use stream::{CallStream, StreamOptions};
pub use subscription::{Change, Item, Source, SubscribeOptions, Subscription};
pub use transaction::{Isolation, Transaction, TransactionOptions};
pub use url::{DEFAULT_PORT, DEFAULT_WEBSOCKET_PATH, ServerUrl, Transport, UrlError};
