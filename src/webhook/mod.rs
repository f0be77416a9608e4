//! Webhooks without IO (floor 2): what is said to a receiver, how it is signed, where it may go; and the SQL for those who have
//! triggers of their own.
//!
//! The daemon sends the changes of a table from the change log (`raystream webhook add`, `docs/webhooks.md`): no trigger, nothing
//! that a write waits for. [`generate_trigger_ddl`] and its neighbours are for a database without the daemon in front of it: they
//! write into an outbox, in the transaction of the write. [`parse_webhook_event`] reads what either of them sends.
//!
//! No clock and no randomness: times and secrets are arguments.

mod base64;
mod ddl;
mod event;
mod network;
mod registry;
mod signature;
mod target;

pub use ddl::{DdlError, generate_cleanup_function, generate_notify_function, generate_trigger_ddl};
pub use event::{
    WEBHOOK_EVENT_LEN_MAX, WebhookChangeEvent, WebhookChangeKind, WebhookEventError, parse_webhook_event,
};
pub use network::{Networks, NotANetwork, is_public};
pub use registry::{SubscriptionId, SubscriptionRegistry};
pub use signature::{
    HEADER_ID, HEADER_SIGNATURE, HEADER_TIMESTAMP, SECRET_LEN, SECRET_LEN_MAX, SECRET_LEN_MIN, Secret,
    SecretError, SignatureError, TOLERANCE,
};
pub use target::{Host, TARGET_LEN_MAX, Target, TargetError};
