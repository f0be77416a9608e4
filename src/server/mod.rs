//! The daemon around the connection: configuration, keys, logs.

pub mod config;
pub mod key_file;
pub mod logging;
