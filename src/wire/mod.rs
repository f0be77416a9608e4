//! Bytes to frames and back: records, handshake messages, frames, envelopes and their limits.
//!
//! Full recognition before processing: a decoder takes all of its input or refuses it, and nothing is allocated from a
//! length that a peer declared. This floor knows no key, no socket and no clock. `proto-spec/` is the normative text.
#![deny(clippy::as_conversions)]

pub mod control;
mod deframer;
pub mod envelope;
mod error;
mod flatbuffer;
pub mod frame;
pub mod handshake;
pub mod limits;
pub mod prepared;
mod reader;
pub mod registry;
pub mod websocket;

pub use deframer::{RECORD_HEAD_LEN, deframe};
pub use error::DecodeError;
pub use reader::Reader;
pub use registry::{ErrorCode, FrameType, Suite};
