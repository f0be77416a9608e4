//! raystream

pub mod wire;

#[cfg(feature = "server")]
pub mod store;
