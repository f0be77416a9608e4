//! raystream
