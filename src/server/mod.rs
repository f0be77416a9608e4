//! The daemon: a shell of tasks around the sans-IO connection. It reads the clock, draws randomness, opens sockets; the
//! floors below do not.

mod admission;
mod alarms;
mod calls;
mod clock;
pub mod config;
mod daemon;
mod driver;
mod flows;
pub mod harden;
mod http;
pub mod key_file;
mod listener;
pub mod logging;
mod messages;
mod running;
mod shared;
mod stages;
mod subscriptions;
mod transport;
mod upgrade;
pub mod usage;
mod webhooks;

pub use daemon::{Daemon, Setup, StartError};
pub use webhooks::{TlsError as WebhookTlsError, check_ca_file};
