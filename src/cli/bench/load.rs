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

/// After an error: a server that refuses at once would otherwise be asked as fast as it can refuse.
const PAUSE_AFTER_ERROR: Duration = Duration::from_millis(5);
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
            Open { rate, total, next: AtomicU64::new(0), due: Semaphore::new(0) }
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
        let n = open.next.fetch_add(1, Ordering::Relaxed);
        (n < open.total).then(|| (n, self.begin + start_of(n, open.rate)))
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

/// Runs the plan.
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
    let mut last = schedule.end;
    let mut tick = crate::time::interval(TICK);
    loop {
        tokio::select! {
            ended = workers.join_next() => match ended {
                Some(Ok(at)) => last = last.max(at),
                Some(Err(error)) => std::panic::resume_unwind(error.into_panic()),
                None => break,
            },
            _ = tick.tick() => progress.at_time(schedule.begin.elapsed()),
        }
    }
    let used = server.sample().await.since(&before);
    Measured { tally: shards.sum(), elapsed: last - schedule.measure_from, used }
}

/// Makes calls one after the other until the run is over; gives the moment of the last answer.
async fn call_on<W: Work>(
    connection: usize,
    mut numbers: Numbers,
    schedule: &Schedule,
    shards: &Shards,
    work: &W,
) -> Instant {
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
                if counts || fault.is_final() {
                    shards.with(connection, |tally| tally.fault(&fault));
                }
                crate::time::sleep(PAUSE_AFTER_ERROR).await;
                now = Instant::now();
            }
        }
    }
    now
}

#[cfg(test)]
mod tests {
    use super::*;
    use std::sync::Mutex;

    #[test]
    fn the_times_of_an_open_loop_are_its_rate() {
        assert_eq!(start_of(0, 7), Duration::ZERO);
        assert_eq!(start_of(14, 7), Duration::from_secs(2));
        assert_eq!(calls_within(7, Duration::from_secs(2)), 14);
        assert_eq!(calls_within(3, Duration::from_millis(333)), 0);
        assert_eq!(
            start_of(u64::MAX, u32::MAX),
            Duration::from_nanos(u64::MAX / u64::from(u32::MAX) * 1_000_000_000)
        );
    }

    /// A server that answers nothing for a while, once.
    struct Stall {
        places: Mutex<u32>,
        until: Instant,
    }

    impl Work for Stall {
        async fn once(&self, _: usize, _: u64) -> Result<(), Fault> {
            *self.places.lock().expect("no test panics inside") += 1;
            crate::time::sleep_until(self.until.into()).await;
            Ok(())
        }
    }

    /// Runs 100 calls a second for half a second on two places against a server that stalls for 400 ms.
    async fn with_a_stall(rate: Option<u32>) -> (u64, u64) {
        let plan = Plan {
            connections: 1,
            in_flight: 2,
            rate,
            warm_up: Duration::ZERO,
            duration: Duration::from_millis(500),
        };
        let schedule = Arc::new(Schedule::new(&plan));
        let stall = Stall { places: Mutex::new(0), until: Instant::now() + Duration::from_millis(400) };
        let shards = Shards::new(1);
        let pacing = Arc::clone(&schedule);
        std::thread::spawn(move || pacing.pace(2));
        let [one, other] =
            [0, 1].map(|next| call_on(0, Numbers { next, step: 3 }, &schedule, &shards, &stall));
        tokio::join!(one, other);
        let tally = shards.sum();
        let late: u64 =
            tally.counts().filter(|(micros, _)| *micros >= 50_000.0).map(|(_, count)| count).sum();
        (tally.done(), late)
    }

    #[tokio::test]
    async fn a_stall_delays_every_call_that_was_meant_to_start_in_it() {
        let (done, late) = with_a_stall(Some(100)).await;
        assert_eq!(done, 50);
        // Those of the first 350 ms waited 50 ms or longer for a server that came back after 400 ms.
        assert!(late >= 35, "{late}");
        // The closed loop, which asks only when it has its answer, sees two slow calls among thousands.
        let (done, late) = with_a_stall(None).await;
        assert!((2..35).contains(&late) && done > late, "{late} of {done}");
    }
}
