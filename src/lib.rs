//! raystream
#![allow(missing_docs)]
pub mod wire;
