//! A connection that transactions run on, one after the other.

use std::collections::HashMap;
use std::sync::{Mutex, MutexGuard, PoisonError};

use tokio_postgres::{Client, Error, SimpleQueryMessage, Statement};

use crate::store::canceller::Canceller;
use crate::store::endpoint::Tls;
use crate::store::error::StartError;
use crate::store::pipeline::STATEMENTS_MAX;
use crate::store::session::{Driven, Session, refused};
use crate::store::statements::StatementKey;

/// Asks for the lifetime, and makes it when a crash has removed it.
const INTRODUCE: &str = "BEGIN READ WRITE; INSERT INTO raystream.lifetime DEFAULT VALUES ON CONFLICT DO NOTHING; COMMIT; \
    SELECT token, pg_backend_pid() FROM raystream.lifetime";

const IDENTIFY: &str = "SELECT pg_current_xact_id()::text";

/// Who the other end is.
#[derive(Debug, Clone, PartialEq, Eq)]
pub(super) struct Peer {
    /// The time since the last crash of Postgres, by its name in `raystream.lifetime`. No connection outlives a crash, so it
    /// is that of every transaction on it.
    pub(super) lifetime: String,
    /// The process.
    pub(super) process: i32,
}

/// A connection of the pool and what was prepared on it.
#[derive(Debug)]
pub(super) struct Connection {
    client: Driven,
    tls: Tls,
    peer: Peer,
    identify: Statement,
    statements: Mutex<HashMap<StatementKey, Statement>>,
}

impl Connection {
    /// On a session that was set up.
    pub(super) async fn new(session: Session) -> Result<Self, StartError> {
        let tls = session.tls.clone();
        let client = session.driven();
        let messages = client.simple_query(INTRODUCE).await.map_err(|error| refused(&error))?;
        let peer = messages.iter().find_map(|message| match message {
            SimpleQueryMessage::Row(row) => {
                Some(Peer { lifetime: row.get(0)?.to_owned(), process: row.get(1)?.parse().ok()? })
            }
            _ => None,
        });
        let peer = peer.ok_or_else(|| StartError::Refused("raystream.lifetime has no row".to_owned()))?;
        let identify = client.prepare(IDENTIFY).await.map_err(|error| refused(&error))?;
        Ok(Self { client, tls, peer, identify, statements: Mutex::default() })
    }

    pub(super) fn client(&self) -> &Client {
        &self.client
    }

    /// Asks a transaction for its id, and gives it one.
    pub(super) fn identify(&self) -> &Statement {
        &self.identify
    }

    pub(super) fn peer(&self) -> &Peer {
        &self.peer
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
