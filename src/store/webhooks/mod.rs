//! Webhooks as Postgres has them: who is told of which table, how far that came, which daemon sends, and what was given up.
//!
//! The position of a webhook is a cursor of the change log. A daemon takes a webhook for a time, its lease, and renews that; each
//! taking is an epoch, and every statement of a sender names its own, so that one whose lease has ended writes nothing any
//! more. The clock of a lease is the database's, so two daemons need not agree on the time.

pub mod admin;
mod held;
mod lease;

use std::fmt;

pub use admin::{
    DeadLetter, NewWebhook, OperationSet, ReplayFrom, UnknownOperation, WebhookError, WebhookStatus,
};
pub use held::{Failed, Held, Trying};
pub use lease::{LEASE, Standing, Webhooks};

/// Webhooks of one database: each has a queue of at most a MiB and a connection at the daemon that sends.
pub const WEBHOOKS_MAX: i64 = 100;

/// Events of one webhook that are kept when they were given up. Each may have two documents; a receiver that refuses more is not set
/// up right, and the webhook is disabled rather than that a disk fills or an event is lost.
pub const DEAD_LETTERS_MAX: i64 = 1_000;

/// The most attempts that a webhook may be given for one event: the pauses between them add up to more than a day on average, after
/// which an event is given up anyway.
pub const ATTEMPTS_MAX: u32 = 64;

/// The attempts for one event when nothing else was said: the pauses between them add up to four hours at most, two on average, so
/// that a receiver may be away for an hour.
pub const ATTEMPTS_DEFAULT: u32 = 16;

/// The longest text of an error that is kept, in characters: a line for an operator.
const ERROR_LEN_MAX: usize = 300;

/// The name of a webhook: `wh_` and 16 hexadecimal digits. It is a part of the id of each event, so it has no full stop.
#[derive(Debug, Clone, PartialEq, Eq, Hash, PartialOrd, Ord)]
pub struct WebhookId(String);

impl WebhookId {
    /// The text.
    pub fn as_str(&self) -> &str {
        &self.0
    }

    /// The id of an event: the same whenever the event is sent, and no other one's.
    pub fn event(&self, sequence: i64) -> String {
        format!("{}_{sequence}", self.0)
    }

    /// The id of the message that tells of a reset, by its number.
    pub fn reset(&self, number: i64) -> String {
        format!("{}_reset_{number}", self.0)
    }
}

impl fmt::Display for WebhookId {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        f.write_str(&self.0)
    }
}

/// An error's text as it is kept.
fn kept(error: &str) -> String {
    error.chars().take(ERROR_LEN_MAX).collect()
}
