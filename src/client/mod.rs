//! The asynchronous client.

mod url;

pub use url::{DEFAULT_PORT, DEFAULT_WEBSOCKET_PATH, ServerUrl, Transport, UrlError};
