//! The connections of transactions: a bounded number, taken by lanes in turn, and a bounded wait.

use std::fmt;
use std::sync::{Arc, Mutex, MutexGuard, PoisonError};
use std::time::Duration;

use tokio::sync::oneshot;

use super::connection::Connection;
use crate::store::error::StartError;
use crate::store::queue::FairQueue;
use crate::store::scope::Lane;
use crate::store::session::{self, Access, SET_UP_LONGEST};
use crate::store::{StoreError, StoreOptions};
use crate::time::timeout;

/// Transactions that may wait for a connection: about a second's worth of short ones.
const WAITING_MAX: usize = 1_024;

/// How long one whose body is here waits at most, as a statement does. Who waits longer is better off knowing it.
const WAIT: Duration = Duration::from_secs(1);

/// How long an open one waits at most: places are held for as long as somebody else thinks, so the wait says little.
pub(super) const OPEN_WAIT: Duration = Duration::from_secs(1);

/// What a caller is told to wait when there is no place.
const RETRY_AFTER: Duration = Duration::from_millis(500);

pub(super) fn unavailable() -> StoreError {
    StoreError::Unavailable { retry_after: RETRY_AFTER }
}

/// The pool.
#[derive(Debug)]
pub(in crate::store) struct TransactionPool {
    options: StoreOptions,
    gate: Arc<Mutex<Gate>>,
    idle: Mutex<Vec<Connection>>,
    size: usize,
    wait: Duration,
}

struct Gate {
    free: usize,
    waiting: FairQueue<oneshot::Sender<Place>>,
}

impl fmt::Debug for Gate {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        f.debug_struct("Gate").field("free", &self.free).field("waiting", &self.waiting.len()).finish()
    }
}

/// A place for a transaction; free again when dropped.
#[derive(Debug)]
pub(super) struct Place(Arc<Mutex<Gate>>);

fn lock(gate: &Mutex<Gate>) -> MutexGuard<'_, Gate> {
    gate.lock().unwrap_or_else(PoisonError::into_inner)
}

impl Drop for Place {
    fn drop(&mut self) {
        let mut gate = lock(&self.0);
        while let Some(next) = gate.waiting.pop() {
            if !next.is_closed() {
                drop(gate);
                // Who left at this moment drops the place, which brings it here again.
                let _left = next.send(Place(Arc::clone(&self.0)));
                return;
            }
        }
        gate.free += 1;
    }
}

impl TransactionPool {
    /// For transactions whose body is here.
    pub(in crate::store) fn new(options: &StoreOptions) -> Self {
        Self::sized(options, options.transaction_connections, WAIT)
    }

    /// For open transactions.
    pub(in crate::store) fn of_open(options: &StoreOptions) -> Self {
        Self::sized(options, options.open_transactions, OPEN_WAIT)
    }

    fn sized(options: &StoreOptions, size: usize, wait: Duration) -> Self {
        let size = size.max(1);
        let gate = Gate { free: size, waiting: FairQueue::default() };
        let (options, gate) = (options.clone(), Arc::new(Mutex::new(gate)));
        Self { options, gate, idle: Mutex::default(), size, wait }
    }

    pub(super) fn options(&self) -> &StoreOptions {
        &self.options
    }

    /// Waits for a place.
    pub(super) async fn place(&self, lane: Lane) -> Result<Place, StoreError> {
        let place = {
            let mut gate = lock(&self.gate);
            if gate.free > 0 {
                gate.free -= 1;
                return Ok(Place(Arc::clone(&self.gate)));
            }
            if gate.waiting.len() >= WAITING_MAX {
                return Err(unavailable());
            }
            let (sender, place) = oneshot::channel();
            gate.waiting.push(lane, sender);
            place
        };
        match timeout(self.wait, place).await {
            Ok(Ok(place)) => Ok(place),
            Ok(Err(_)) | Err(_) => Err(unavailable()),
        }
    }

    /// A connection, for somebody who has a place.
    pub(super) async fn connection(&self) -> Result<Connection, StoreError> {
        while let Some(connection) = self.idle().pop() {
            if connection.is_good() {
                return Ok(connection);
            }
        }
        let opened = async {
            let session = session::open(&self.options, Access::Transaction).await?;
            let prepared = timeout(SET_UP_LONGEST, Connection::new(session)).await;
            prepared.unwrap_or_else(|_| Err(StartError::Unreachable("it did not answer in time".to_owned())))
        };
        opened.await.map_err(|error: StartError| {
            tracing::warn!(%error, "no connection to Postgres for a transaction");
            unavailable()
        })
    }

    /// Keeps a connection that is in no transaction.
    pub(super) fn put_back(&self, connection: Connection) {
        if connection.is_good() {
            self.idle().push(connection);
        }
    }

    fn idle(&self) -> MutexGuard<'_, Vec<Connection>> {
        self.idle.lock().unwrap_or_else(PoisonError::into_inner)
    }

    /// Waits for the transactions that run, and closes the connections.
    pub(in crate::store) async fn close(&self, longest: Duration) {
        let all = async {
            let mut places = Vec::with_capacity(self.size);
            while places.len() < self.size {
                if let Ok(place) = self.place(Lane::default()).await {
                    places.push(place);
                }
            }
            places
        };
        // Held until the connections are closed; who comes later opens one that he drops again.
        let _places = timeout(longest, all).await;
        self.idle().clear();
    }
}
