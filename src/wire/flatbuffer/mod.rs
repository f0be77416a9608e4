//! FlatBuffers tables, read and written by slot (the FlatBuffers binary format: "Internals" of its documentation).
//!
//! The generated code of `schema` can do the same and is what this is compared with, in tests and in a fuzz target.
//! It verifies through a description of every field and writes from the end to the front; for the few shallow tables
//! that every call carries, that took a third of the time of a call. Slot numbers still come from the generated code.

mod reader;
mod writer;

pub(super) use reader::{Malformed, Table};
pub(super) use writer::{Fields, Written, write};
