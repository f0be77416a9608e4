//! The sessions of `table.exec`, and the places for its statements, wherever they run.

use std::sync::{Arc, Mutex, PoisonError};
use std::time::Duration;

use tokio::sync::{OwnedSemaphorePermit, Semaphore};

use super::refusal::unavailable;
use super::{EXEC_CONCURRENT_MAX, EXEC_TIME_MAX, STOP_WAIT, costs};
use crate::store::session::{self, Access, Driven};
use crate::store::{StartError, StoreError, StoreOptions};

/// Statements that wait for their turn.
const WAITING_MAX: usize = 64;

/// How long one waits for its turn at most.
const WAIT: Duration = Duration::from_secs(1);

/// The sessions.
#[derive(Debug)]
pub(in crate::store) struct ExecPool {
    places: Arc<Semaphore>,
    waiting: Arc<Semaphore>,
    idle: Mutex<Vec<Driven>>,
}

impl Default for ExecPool {
    fn default() -> Self {
        let places = Arc::new(Semaphore::new(EXEC_CONCURRENT_MAX));
        let waiting = Arc::new(Semaphore::new(WAITING_MAX));
        Self { places, waiting, idle: Mutex::default() }
    }
}

impl ExecPool {
    pub(super) async fn place(&self) -> Result<OwnedSemaphorePermit, StoreError> {
        let _turn = self.waiting.try_acquire().map_err(|_| unavailable())?;
        match crate::time::timeout(WAIT, Arc::clone(&self.places).acquire_owned()).await {
            Ok(Ok(place)) => Ok(place),
            _ => Err(unavailable()),
        }
    }

    pub(super) fn idle(&self) -> std::sync::MutexGuard<'_, Vec<Driven>> {
        self.idle.lock().unwrap_or_else(PoisonError::into_inner)
    }

    pub(super) async fn client(&self, options: &StoreOptions) -> Result<Driven, StoreError> {
        while let Some(client) = { self.idle().pop() } {
            if !client.is_closed() {
                return Ok(client);
            }
        }
        let opened = async {
            let client = session::open(options, Access::Read).await?.driven();
            let settings = format!("SET application_name = 'raystream exec'; {}", costs(false));
            client.batch_execute(&settings).await.map_err(|error| session::refused(&error))?;
            Ok::<_, StartError>(client)
        };
        opened.await.map_err(|error| {
            tracing::warn!(%error, "no connection to Postgres for a statement of a caller");
            unavailable()
        })
    }

    /// Takes no further statements, waits for those that run, and closes the sessions.
    pub(in crate::store) async fn close(&self) {
        self.waiting.close();
        let all = u32::try_from(EXEC_CONCURRENT_MAX).unwrap_or(u32::MAX);
        let _places = crate::time::timeout(EXEC_TIME_MAX + STOP_WAIT, self.places.acquire_many(all)).await;
        self.idle().clear();
    }
}
