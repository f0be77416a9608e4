//! The daemon's configuration: defaults, then `raystream.toml`, then `RAYSTREAM_*`, then flags; the later wins.
//!
//! A variable names a key by its path with two underscores between the parts: `RAYSTREAM_LIMITS__CALLS_PER_CONNECTION`
//! is `limits.calls_per_connection`. Everything that cannot be meant is refused, all of it at once, with its place.

mod fault;
pub mod limits;
mod lines;
mod load;
mod mask;
mod print;
mod quantity;
mod sections;
mod validate;

pub use fault::Fault;
pub use limits::LimitsConfig;
pub use load::{ConfigFile, Flag, Loaded, Sources, load};
pub use mask::mask_password;
pub use print::{to_json, to_toml};
pub use quantity::{ByteSize, InvalidByteSize, InvalidPeriod, Period};
pub use sections::{
    Config, DEFAULT_DATA, DEFAULT_KEY_FILE, DEFAULT_LISTEN, DatabaseConfig, FeedConfig, IdentityConfig,
    LOCK_TIMEOUT, LogConfig, LogFormat, READ_CONNECTIONS, RETENTION, RETENTION_SIZE, STATEMENT_TIMEOUT,
    SuitesConfig, TRANSACTION_CONNECTIONS, WAITING_STATEMENTS, WRITE_CONNECTIONS, WebSocketConfig,
    WebhooksConfig, needs_psk,
};
