//! The connections of a store: some for reads, some for writes, and a bounded number of statements for each.

use std::pin::pin;
use std::sync::Arc;
use std::time::Duration;

use tokio::sync::{Notify, Semaphore, TryAcquireError};
use tokio::task::AbortHandle;
use tokio::time::Instant;
use tokio_postgres::Row;

use super::StoreOptions;
use super::connection::supervise;
use super::dispatch::Dispatch;
use super::error::StoreError;
use super::scope::{Scope, Stop};
use super::session::Access;
use super::statements::Call;
use crate::time::sleep_until;

/// How long a statement waits until a connection takes it. A restart of Postgres on the same machine is shorter, and under
/// more load than Postgres carries a caller is better off knowing it than waiting longer.
const QUEUE_WAIT: Duration = Duration::from_secs(1);

/// What a caller is told to wait when too many statements wait, or no connection is there.
pub(super) const RETRY_AFTER: Duration = Duration::from_millis(250);

/// Bytes of one unit of [`Group::room`]: a semaphore counts to about 2^29.
const ROOM_UNIT: usize = 1024;

/// Connections of one kind.
#[derive(Debug)]
pub(super) struct Group {
    dispatch: Arc<Dispatch>,
    supervisors: Vec<AbortHandle>,
    /// One permit for each statement that waits or runs.
    places: Arc<Semaphore>,
    /// One permit for each KiB of their parameters.
    room: Arc<Semaphore>,
    waiting_max: usize,
}

impl Group {
    /// Starts the connections. `written` is notified after each write that was committed.
    pub(super) fn start(
        options: &StoreOptions,
        access: Access,
        count: usize,
        written: Arc<Notify>,
    ) -> Arc<Self> {
        let count = count.max(1);
        let dispatch = Arc::new(Dispatch::new(access, count, written));
        let supervisors = (0..count)
            .map(|line| {
                let task = supervise(options.clone(), Arc::clone(&dispatch), line);
                tokio::spawn(task).abort_handle()
            })
            .collect();
        Arc::new(Self {
            dispatch,
            supervisors,
            places: Arc::new(Semaphore::new(options.waiting_max)),
            room: Arc::new(Semaphore::new(options.waiting_bytes_max / ROOM_UNIT)),
            waiting_max: options.waiting_max,
        })
    }

    /// Whether there is a connection.
    pub(super) fn is_live(&self) -> bool {
        self.dispatch.is_live()
    }

    /// Waits until there is a connection.
    pub(super) async fn wait_live(&self, longest: Duration) -> Result<(), StoreError> {
        let wait = async {
            loop {
                let mut arrived = pin!(self.dispatch.arrived.notified());
                // From here on a notification is not missed, so the check below may come after one.
                arrived.as_mut().enable();
                if self.is_live() {
                    return;
                }
                arrived.await;
            }
        };
        crate::time::timeout(longest, wait)
            .await
            .map_err(|_| StoreError::Unavailable { retry_after: RETRY_AFTER })
    }

    /// Runs a statement to its end, which comes early when the scope says so. What was not sent then never is; what was
    /// sent is stopped in Postgres, and this waits until it has. The same happens, without anybody who waits, when this
    /// future is dropped.
    pub(super) async fn run(&self, scope: &Scope, call: Call) -> Result<Vec<Row>, StoreError> {
        let busy = |_| StoreError::Unavailable { retry_after: RETRY_AFTER };
        let units = u32::try_from(call.len / ROOM_UNIT + 1).map_err(|_| StoreError::TooLarge)?;
        let place = || Arc::clone(&self.places).try_acquire_owned();
        let place = match place() {
            Err(TryAcquireError::NoPermits) if self.dispatch.make_room(scope.lane) => place(),
            place => place,
        };
        let place = place.map_err(busy)?;
        let room = Arc::clone(&self.room).try_acquire_many_owned(units).map_err(busy)?;
        let mut asked = self.dispatch.ask(scope.lane, call, scope.deadline, (place, room));

        let mut look = pin!(sleep_until(next_look(scope.deadline)));
        let mut is_stopped = false;
        loop {
            let stop = tokio::select! {
                biased;
                answer = &mut asked.answer => {
                    asked.over();
                    return answer.unwrap_or_else(|_| Err(self.lost()));
                }
                () = scope.cancelled(), if !is_stopped => Stop::Cancelled,
                () = &mut look, if !is_stopped => {
                    if scope.deadline.is_none_or(|deadline| Instant::now() < deadline) {
                        if asked.withdraw_if_waiting() {
                            return Err(StoreError::Unavailable { retry_after: RETRY_AFTER });
                        }
                        look.as_mut().reset(next_look(scope.deadline));
                        continue;
                    }
                    Stop::Timeout
                }
            };
            is_stopped = true;
            if asked.stop(stop) {
                return Err(stop.into());
            }
        }
    }

    /// A statement ended without a result: its connection was taken down.
    fn lost(&self) -> StoreError {
        match self.dispatch.access {
            Access::Write => StoreError::UnknownOutcome,
            _ => StoreError::Unavailable { retry_after: RETRY_AFTER },
        }
    }

    /// Takes no further statements, waits for those that run, and closes the connections.
    pub(super) async fn close(&self, longest: Duration) {
        let all = u32::try_from(self.waiting_max).unwrap_or(u32::MAX);
        let _ = crate::time::timeout(longest, self.places.acquire_many(all)).await;
        self.places.close();
        self.stop();
    }

    fn stop(&self) {
        self.dispatch.close();
        for supervisor in &self.supervisors {
            supervisor.abort();
        }
    }
}

/// When to look again at a statement that waits.
fn next_look(deadline: Option<Instant>) -> Instant {
    let look = Instant::now() + QUEUE_WAIT;
    deadline.map_or(look, |deadline| deadline.min(look))
}

impl Drop for Group {
    fn drop(&mut self) {
        self.stop();
    }
}
