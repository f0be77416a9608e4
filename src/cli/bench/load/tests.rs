//! The two loops against servers that stall, are slow, or go away.

use super::*;
use crate::cli::bench::measured::Tally;
use std::sync::Mutex;

#[test]
fn the_times_of_an_open_loop_are_its_rate() {
    assert_eq!(start_of(0, 7), Duration::ZERO);
    assert_eq!(start_of(14, 7), Duration::from_secs(2));
    assert_eq!(calls_within(7, Duration::from_secs(2)), 14);
    assert_eq!(calls_within(3, Duration::from_millis(333)), 0);
    for (warm_up, first) in [(0, 0), (1, 1), (333, 1), (334, 2), (1_000, 3)] {
        assert_eq!(first_from(3, Duration::from_millis(warm_up)), first);
    }
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

/// Runs 100 calls a second for half a second on two places.
async fn run_on_two<W: Work>(rate: Option<u32>, work: &W) -> (Tally, u64, [Ended; 2]) {
    let plan = Plan {
        connections: 1,
        in_flight: 2,
        rate,
        warm_up: Duration::ZERO,
        duration: Duration::from_millis(500),
    };
    let schedule = Arc::new(Schedule::new(&plan));
    let shards = Shards::new(1);
    let pacing = Arc::clone(&schedule);
    std::thread::spawn(move || pacing.pace(2));
    let [one, other] = [0, 1].map(|next| call_on(0, Numbers { next, step: 3 }, &schedule, &shards, work));
    let (one, other) = tokio::join!(one, other);
    (shards.sum(), schedule.unsent(), [one, other])
}

/// The same against a server that stalls for 400 ms: how many were done, and how many of them were late.
async fn with_a_stall(rate: Option<u32>) -> (u64, u64) {
    let stall = Stall { places: Mutex::new(0), until: Instant::now() + Duration::from_millis(400) };
    let (tally, unsent, _) = run_on_two(rate, &stall).await;
    assert_eq!(unsent, 0);
    let late: u64 = tally.counts().filter(|(micros, _)| *micros >= 50_000.0).map(|(_, count)| count).sum();
    (tally.done(), late)
}

/// A server that takes so long for each call.
struct Slow(Duration);

impl Work for Slow {
    async fn once(&self, _: usize, _: u64) -> Result<(), Fault> {
        crate::time::sleep(self.0).await;
        Ok(())
    }
}

#[tokio::test]
async fn a_server_that_does_not_keep_up_does_not_draw_the_run_out() {
    let (tally, unsent, ended) = run_on_two(Some(100), &Slow(Duration::from_millis(200))).await;
    // Two at a time for at most a second, and those that are under way then: all 50 would take five.
    assert!(unsent > 30 && tally.done() + unsent == 50, "{} and {unsent}", tally.done());
    assert!(ended.iter().all(|ended| ended.lost.is_none()));
}

/// A connection that is gone after ten calls.
struct Gone(AtomicU64);

impl Work for Gone {
    async fn once(&self, _: usize, _: u64) -> Result<(), Fault> {
        let is_there = self.0.fetch_add(1, Ordering::Relaxed) < 10;
        if is_there { Ok(()) } else { Err(Error::Closed.into()) }
    }
}

#[tokio::test]
async fn a_place_whose_connection_is_gone_makes_no_more_calls() {
    for rate in [None, Some(100)] {
        let gone = Gone(AtomicU64::new(0));
        let (tally, unsent, ended) = run_on_two(rate, &gone).await;
        assert!(ended.iter().all(|ended| ended.lost.is_some()));
        assert_eq!((tally.done(), gone.0.into_inner()), (10, 12));
        assert_eq!(unsent, if rate.is_some() { 38 } else { 0 });
    }
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
