//! The connections of a store: some for reads, some for writes, and a bounded number of statements for each.

use std::sync::Arc;
use std::sync::atomic::Ordering;
use std::time::Duration;

use tokio::sync::{Notify, Semaphore};
use tokio::task::AbortHandle;
use tokio_postgres::Row;

use super::StoreOptions;
use super::connection::{Failure, InFlight, Live, Slot, supervise};
use super::error::StoreError;
use super::session::Access;
use super::statements::{Call, StatementKey};

/// How long a statement waits for a connection when none is there: a restart of Postgres on the same machine is shorter.
const CONNECTION_WAIT: Duration = Duration::from_secs(1);

/// What a caller is told to wait when too many statements wait, or no connection is there.
const RETRY_AFTER: Duration = Duration::from_millis(250);

/// How often a statement that did nothing is sent again on another connection.
const ATTEMPTS_MAX: usize = 3;

/// Bytes of one unit of [`Group::room`]: a semaphore counts to about 2^29.
const ROOM_UNIT: usize = 1024;

/// Connections of one kind.
#[derive(Debug)]
pub(super) struct Group {
    access: Access,
    slots: Vec<Arc<Slot>>,
    arrived: Arc<Notify>,
    /// Notified while a statement finds no connection.
    wanted: Arc<Notify>,
    supervisors: Vec<AbortHandle>,
    /// One permit for each statement that waits or runs.
    places: Arc<Semaphore>,
    /// One permit for each KiB of their parameters.
    room: Arc<Semaphore>,
    waiting_max: usize,
    written: Arc<Notify>,
}

impl Group {
    /// Starts the connections. `written` is notified after each write that was committed.
    pub(super) fn start(
        options: &StoreOptions,
        access: Access,
        count: usize,
        written: Arc<Notify>,
    ) -> Arc<Self> {
        let (arrived, wanted) = (Arc::new(Notify::new()), Arc::new(Notify::new()));
        let slots: Vec<Arc<Slot>> = (0..count.max(1)).map(|_| Arc::default()).collect();
        let supervisors = slots
            .iter()
            .map(|slot| {
                let task = supervise(
                    options.clone(),
                    access,
                    Arc::clone(slot),
                    Arc::clone(&arrived),
                    Arc::clone(&wanted),
                );
                tokio::spawn(task).abort_handle()
            })
            .collect();
        Arc::new(Self {
            access,
            slots,
            arrived,
            wanted,
            supervisors,
            places: Arc::new(Semaphore::new(options.waiting_max)),
            room: Arc::new(Semaphore::new(options.waiting_bytes_max / ROOM_UNIT)),
            waiting_max: options.waiting_max,
            written,
        })
    }

    /// Whether there is a connection.
    pub(super) fn is_live(&self) -> bool {
        self.slots.iter().any(|slot| slot.live().is_some())
    }

    /// Waits until there is a connection.
    pub(super) async fn wait_live(&self, longest: Duration) -> Result<(), StoreError> {
        self.slot(longest).await.map(|_| ())
    }

    /// Runs a statement to its end. It goes on when the caller gives up waiting: what was sent is not called back, its
    /// place is taken until it is done, and a write that was committed wakes its readers.
    pub(super) async fn run(self: &Arc<Self>, call: Call) -> Result<Vec<Row>, StoreError> {
        let busy = |_| StoreError::Unavailable { retry_after: RETRY_AFTER };
        let units = u32::try_from(call.len / ROOM_UNIT + 1).map_err(|_| StoreError::TooLarge)?;
        let place = Arc::clone(&self.places).try_acquire_owned().map_err(busy)?;
        let room = Arc::clone(&self.room).try_acquire_many_owned(units).map_err(busy)?;
        let group = Arc::clone(self);
        let task = tokio::spawn(async move {
            let result = group.attempt(&call).await;
            if result.is_ok() && group.access == Access::Write {
                group.written.notify_one();
            }
            drop((place, room));
            result
        });
        task.await.unwrap_or_else(|error| {
            tracing::error!(%error, "a statement's task ended without a result");
            Err(if self.access == Access::Write { StoreError::UnknownOutcome } else { StoreError::Internal })
        })
    }

    async fn attempt(&self, call: &Call) -> Result<Vec<Row>, StoreError> {
        let unavailable = StoreError::Unavailable { retry_after: RETRY_AFTER };
        for _ in 0..ATTEMPTS_MAX {
            let (slot, live) = self.slot(CONNECTION_WAIT).await?;
            let in_flight = InFlight::new(slot);
            let result = live.run(&call.key, &call.params).await;
            drop(in_flight);
            match result {
                Ok(rows) => return Ok(rows),
                Err(Failure::Refused(error)) => return Err(error),
                Err(Failure::Broken) if self.access == Access::Write => {
                    return Err(StoreError::UnknownOutcome);
                }
                // A read may be sent twice.
                Err(Failure::NotSent | Failure::Stale | Failure::Broken) => {}
            }
        }
        log_given_up(&call.key);
        Err(unavailable)
    }

    /// The session with the fewest statements in flight. Waits for one when there is none.
    async fn slot(&self, longest: Duration) -> Result<(&Slot, Arc<Live>), StoreError> {
        let wait = async {
            loop {
                let arrived = self.arrived.notified();
                tokio::pin!(arrived);
                // From here on a notification is not missed, so the check below may come after one.
                arrived.as_mut().enable();
                let best = self
                    .slots
                    .iter()
                    .filter_map(|slot| Some((&**slot, slot.live()?)))
                    .min_by_key(|(slot, _)| slot.in_flight.load(Ordering::Relaxed));
                if let Some(best) = best {
                    return best;
                }
                // One that pauses for long tries now; one that is in its short pause takes it as said in advance.
                self.wanted.notify_one();
                arrived.await;
            }
        };
        tokio::time::timeout(longest, wait)
            .await
            .map_err(|_| StoreError::Unavailable { retry_after: RETRY_AFTER })
    }

    /// Takes no further statements, waits for those that run, and closes the connections.
    pub(super) async fn close(&self, longest: Duration) {
        let all = u32::try_from(self.waiting_max).unwrap_or(u32::MAX);
        let _ = tokio::time::timeout(longest, self.places.acquire_many(all)).await;
        self.places.close();
        self.stop();
    }

    fn stop(&self) {
        for supervisor in &self.supervisors {
            supervisor.abort();
        }
        for slot in &self.slots {
            slot.put(None);
        }
    }
}

impl Drop for Group {
    fn drop(&mut self) {
        self.stop();
    }
}

fn log_given_up(key: &StatementKey) {
    tracing::warn!(statement = ?key, "a statement found no connection that lasted");
}
