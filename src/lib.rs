//! Encrypted calls and live queries over Postgres.

pub mod noise;
pub mod primitives;
