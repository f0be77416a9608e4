//! Makes calls: as fast as they are answered (closed loop), or at their times (open loop).
//!
//! In the open loop call number n is to start at n / rate, and its latency counts from then, also when it starts later
//! because every place for a call in flight was taken: what a stall would have delayed is counted as delayed
//! ("coordinated omission"). The times are kept by a thread of its own, which the system wakes within about 60 us; a
//! timer of the runtime has a whole millisecond.

use std::sync::Arc;
use std::sync::atomic::{AtomicU64, Ordering};
use std::time::{Duration, Instant};

use tokio::sync::Semaphore;
use tokio::task::JoinSet;

use super::cores::Cores;
use super::measured::{Fault, Measured, Shards, Times};
use super::progress::{Progress, TICK};
use super::server_side::ServerSide;
use crate::client::Error;

/// After an error: a server that refuses at once would otherwise be asked as fast as it can refuse.
const PAUSE_AFTER_ERROR: Duration = Duration::from_millis(5);
/// How long after its end the open loop may still start calls that were due before it. A stall shortly before the end is
/// made up for in that time; a server that is slower than the rate does not draw the run out.
const GRACE: Duration = Duration::from_millis(500);
/// The shortest sleep of the thread that keeps the times.
const PACE_MIN: Duration = Duration::from_micros(50);

/// How much, and for how long.
#[derive(Debug, Clone, Copy)]
pub(super) struct Plan {
    pub(super) connections: usize,
    pub(super) in_flight: usize,
    /// Calls a second over all connections; `None` is the closed loop.
    pub(super) rate: Option<u32>,
    pub(super) warm_up: Duration,
    pub(super) duration: Duration,
}

/// One kind of call.
pub(super) trait Work: Send + Sync + 'static {
    /// Makes call number `n` of the run on a connection.
    fn once(&self, connection: usize, n: u64) -> impl Future<Output = Result<(), Fault>> + Send;

    /// Why nothing more can come of the connection of a call, if that is so.
    fn lost(&self, fault: &Fault) -> Option<Error> {
        fault.lost().cloned()
    }
}

/// How one place for a call in flight ended.
struct Ended {
    /// With its last answer.
    at: Instant,
    /// Its connection is gone.
    lost: Option<Error>,
}

/// When each call is to start.
struct Schedule {
    begin: Instant,
    /// Calls that start from here on count.
    measure_from: Instant,
    end: Instant,
    open: Option<Open>,
}

/// The numbers of the calls of one place in the closed loop: no two places count together.
struct Numbers {
    next: u64,
    /// At least as many as there are places. Odd, so that what is done with one call in sixteen is done at each of them.
    step: u64,
}

/// The open loop.
struct Open {
    rate: u32,
    total: u64,
    /// The first call that counts.
    first: u64,
    next: AtomicU64,
    /// One permit for each call whose time has come.
    due: Semaphore,
}

impl Schedule {
    fn new(plan: &Plan) -> Self {
        let begin = Instant::now();
        let measure_from = begin + plan.warm_up;
        let end = measure_from + plan.duration;
        let open = plan.rate.map(|rate| {
            let total = calls_within(rate, plan.warm_up + plan.duration);
            let first = first_from(rate, plan.warm_up);
            Open { rate, total, first, next: AtomicU64::new(0), due: Semaphore::new(0) }
        });
        Self { begin, measure_from, end, open }
    }

    /// The number and the start of the next call; `None` when the run is over. `now` is the present.
    async fn next(&self, now: Instant, numbers: &mut Numbers) -> Option<(u64, Instant)> {
        let Some(open) = &self.open else {
            let n = numbers.next;
            numbers.next += numbers.step;
            return (now < self.end).then_some((n, now));
        };
        open.due.acquire().await.ok()?.forget();
        // Whoever waited for a time to come is before the end, so that the present need not be asked for again.
        if now >= self.end + GRACE {
            return None;
        }
        let n = open.next.fetch_add(1, Ordering::Relaxed);
        (n < open.total).then(|| (n, self.begin + start_of(n, open.rate)))
    }

    /// Calls that would have counted and were not started.
    fn unsent(&self) -> u64 {
        let Some(open) = &self.open else { return 0 };
        open.total.saturating_sub(open.next.load(Ordering::Relaxed).max(open.first))
    }

    /// Keeps the times of the open loop. At the end lets every place go once more, to find that nothing is left.
    fn pace(&self, places: usize) {
        let Some(open) = &self.open else { return };
        let mut released = 0;
        while released < open.total {
            let due = calls_within(open.rate, self.begin.elapsed()).saturating_add(1).min(open.total);
            open.due.add_permits(usize::try_from(due - released).unwrap_or(usize::MAX));
            released = due;
            let next = self.begin + start_of(released, open.rate);
            std::thread::sleep(next.saturating_duration_since(Instant::now()).max(PACE_MIN));
        }
        open.due.add_permits(places);
    }
}

/// When call number `n` starts, after the beginning.
fn start_of(n: u64, rate: u32) -> Duration {
    let nanos = u128::from(n) * 1_000_000_000 / u128::from(rate.max(1));
    Duration::from_nanos(u64::try_from(nanos).unwrap_or(u64::MAX))
}

/// Calls whose start lies before `time`, the first one not counted.
fn calls_within(rate: u32, time: Duration) -> u64 {
    u64::try_from(time.as_nanos() * u128::from(rate) / 1_000_000_000).unwrap_or(u64::MAX)
}

/// The first call whose start does not lie before `time`.
fn first_from(rate: u32, time: Duration) -> u64 {
    let before = time.as_nanos() * u128::from(rate);
    u64::try_from(before.div_ceil(1_000_000_000)).unwrap_or(u64::MAX)
}

/// Runs the plan, or as much of it as the connections last for.
pub(super) async fn run<W: Work>(
    plan: Plan,
    work: Arc<W>,
    cores: &Cores,
    server: &ServerSide,
    progress: Progress,
) -> Measured {
    let schedule = Arc::new(Schedule::new(&plan));
    let shards = Arc::new(Shards::new(plan.connections));
    let mut workers = JoinSet::new();
    let places = u64::try_from(plan.connections * plan.in_flight).unwrap_or(u64::MAX);
    let step = places | 1;
    for next in 0..places {
        let connection = usize::try_from(next).unwrap_or_default() % plan.connections;
        let (schedule, shards, work) = (Arc::clone(&schedule), Arc::clone(&shards), Arc::clone(&work));
        let numbers = Numbers { next, step };
        let worker = async move { call_on(connection, numbers, &schedule, &shards, &*work).await };
        workers.spawn_on(worker, cores.of(connection));
    }
    if schedule.open.is_some() {
        let (schedule, places) = (Arc::clone(&schedule), plan.connections * plan.in_flight);
        std::thread::spawn(move || schedule.pace(places));
    }
    crate::time::sleep_until(schedule.measure_from.into()).await;
    let before = server.sample().await;
    let (mut last, mut lost, mut is_left) = (schedule.measure_from, None, false);
    let mut tick = crate::time::interval(TICK);
    loop {
        tokio::select! {
            ended = workers.join_next() => match ended {
                Some(Ok(ended)) => {
                    last = last.max(ended.at);
                    is_left |= ended.lost.is_none();
                    lost = ended.lost.or(lost);
                }
                Some(Err(error)) => std::panic::resume_unwind(error.into_panic()),
                None => break,
            },
            _ = tick.tick() => progress.at_time(schedule.begin.elapsed()),
        }
    }
    let used = server.sample().await.since(&before);
    if is_left {
        (last, lost) = (last.max(schedule.end), None);
    }
    let (elapsed, unsent) = (last - schedule.measure_from, schedule.unsent());
    Measured { tally: shards.sum(), elapsed, used, unsent, lost }
}

/// Makes calls one after the other until the run is over or the connection is gone.
async fn call_on<W: Work>(
    connection: usize,
    mut numbers: Numbers,
    schedule: &Schedule,
    shards: &Shards,
    work: &W,
) -> Ended {
    let mut now = Instant::now();
    let mut times = Times::new(connection, shards);
    while let Some((n, start)) = schedule.next(now, &mut numbers).await {
        let outcome = work.once(connection, n).await;
        now = Instant::now();
        let counts = start >= schedule.measure_from;
        match outcome {
            Ok(()) if counts => times.add(now - start),
            Ok(()) => {}
            Err(fault) => {
                // Whatever happens before the measurement would otherwise never be told.
                if counts || fault.lost().is_some() {
                    shards.with(connection, |tally| tally.fault(&fault));
                }
                let lost = work.lost(&fault);
                if lost.is_some() {
                    return Ended { at: now, lost };
                }
                crate::time::sleep(PAUSE_AFTER_ERROR).await;
                now = Instant::now();
            }
        }
    }
    Ended { at: now, lost: None }
}

#[cfg(test)]
mod tests;
