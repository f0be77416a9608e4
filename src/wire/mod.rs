//! Bytes to frames and back (floor 1): the registries.

pub mod registry;
