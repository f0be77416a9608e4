//! raystream

pub mod wire;
