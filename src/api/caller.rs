//! Who calls, in the terms of this server: what `rpc` leaves open.

use std::sync::Arc;

use super::transactions::Transactions;
use crate::auth::{
    self, AccessHandle, AuthorisedTable, AuthorisedTopic, Denied, Principal, TableRight, TopicRight,
};
use crate::rpc::{self, Status};

/// The identity of a connection and the rules it is judged by. One per connection, shared by its calls.
#[derive(Debug)]
pub struct Caller {
    /// Who it is.
    pub principal: Arc<Principal>,
    /// The rules in force, which may change while the connection lives.
    pub access: AccessHandle,
    /// What it has open. It ends with this.
    pub transactions: Transactions,
}

/// The surroundings of a call.
pub type Context = rpc::Context<Arc<Caller>>;
/// The server's router.
pub type Router = rpc::Router<Arc<Caller>>;

impl Caller {
    /// A caller with nothing open.
    pub fn new(principal: Principal, access: AccessHandle) -> Self {
        Self { principal: Arc::new(principal), access, transactions: Transactions::default() }
    }

    /// Whether the method is granted now.
    pub(super) fn authorise_call(&self, method: &str) -> Result<(), Status> {
        Ok(auth::authorise_call(&self.access.load(), &self.principal, method)?)
    }

    /// Whether the table is granted now.
    pub(super) fn authorise_table<T: AsRef<str>>(
        &self,
        table: T,
        right: TableRight,
    ) -> Result<AuthorisedTable<T>, Status> {
        Ok(auth::authorise_table(&self.access.load(), &self.principal, table, right)?)
    }

    /// Whether the topic is granted now.
    pub(super) fn authorise_topic<T: AsRef<str>>(
        &self,
        topic: T,
        right: TopicRight,
    ) -> Result<AuthorisedTopic<T>, Status> {
        Ok(auth::authorise_topic(&self.access.load(), &self.principal, topic, right)?)
    }
}

impl From<Denied> for Status {
    fn from(denied: Denied) -> Self {
        Self::new(denied.code, denied.message)
    }
}
