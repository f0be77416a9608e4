//! A connection that transactions run on, one after the other.

use std::collections::HashMap;
use std::sync::{Mutex, MutexGuard, PoisonError};

use tokio_postgres::{Client, Error, Statement};

use crate::store::canceller::Canceller;
use crate::store::endpoint::Tls;
use crate::store::pipeline::STATEMENTS_MAX;
use crate::store::session::{Driven, Session};
use crate::store::statements::StatementKey;

/// A connection of the pool and what was prepared on it.
#[derive(Debug)]
pub(super) struct Connection {
    client: Driven,
    tls: Tls,
    statements: Mutex<HashMap<StatementKey, Statement>>,
}

impl Connection {
    /// On a session that was set up.
    pub(super) fn new(session: Session) -> Self {
        let tls = session.tls.clone();
        Self { client: session.driven(), tls, statements: Mutex::default() }
    }

    pub(super) fn client(&self) -> &Client {
        &self.client
    }

    /// What stops its statements.
    pub(super) fn canceller(&self) -> Canceller {
        Canceller::new(self.client.cancel_token(), self.tls.clone())
    }

    pub(super) fn is_good(&self) -> bool {
        !self.client.is_closed()
    }

    fn statements(&self) -> MutexGuard<'_, HashMap<StatementKey, Statement>> {
        self.statements.lock().unwrap_or_else(PoisonError::into_inner)
    }

    /// A statement, prepared once.
    pub(super) async fn prepared(&self, key: &StatementKey) -> Result<Statement, Error> {
        if let Some(statement) = self.statements().get(key) {
            return Ok(statement.clone());
        }
        let statement = self.client.prepare(&key.sql()).await?;
        let mut statements = self.statements();
        if statements.len() >= STATEMENTS_MAX {
            statements.clear();
        }
        statements.insert(key.clone(), statement.clone());
        Ok(statement)
    }

    /// Forgets what is no longer valid.
    pub(super) fn forget(&self, key: &StatementKey) {
        self.statements().remove(key);
    }
}
