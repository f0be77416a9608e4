//! Who somebody is and what is granted to them. Nothing is granted that the configuration does not name.
//!
//! [`Principal`] is the identity of a connection, [`Access`] the compiled `[access]` section, [`AccessHandle`] the one
//! in force, and the functions of [`authorise`] the only place where a connection, a call, a table or an event is
//! allowed.

mod access;
pub mod authorise;
mod handle;
mod principal;

pub use access::{Access, AccessConfig, AccessFault, RoleConfig, TableRight, TopicRight};
pub use authorise::{
    AuthorisedTable, AuthorisedTopic, Denied, authorise_call, authorise_connection, authorise_event,
    authorise_table, authorise_topic,
};
pub use handle::AccessHandle;
pub use principal::Principal;
