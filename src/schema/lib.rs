//! The FlatBuffers envelopes of raystream, as `flatc --rust` writes them from `schemas/messages.fbs`.
//!
//! This package exists because generated FlatBuffers code holds `unsafe`: the `raystream` package forbids it, this one
//! is the listed exception. Nothing here is written by hand but these lines.
#![allow(warnings, clippy::all)]

// Left as flatc writes it, so that a test can compare.
#[rustfmt::skip]
mod messages_generated;
pub use messages_generated::raystream::*;
