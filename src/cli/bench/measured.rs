//! What a run has counted.

use std::collections::BTreeMap;
use std::sync::{Mutex, PoisonError};
use std::time::Duration;

use hdrhistogram::Histogram;

use super::server_side::Used;
use crate::client::Error;

/// Digits that a recorded time keeps: an error of a thousandth.
const SIGNIFICANT_DIGITS: u8 = 3;
/// Histograms that are filled at the same time; more connections than this share them.
const SHARDS: usize = 64;
/// Times that a task keeps before it puts them into its tally.
const TIMES_TOGETHER: usize = 32;
/// The unit in which times are recorded: a call in memory takes a few microseconds.
const UNIT: Duration = Duration::from_nanos(100);
/// The same, turned around: a time is recorded for each call, and this way without a division of 128 bits.
const UNITS_PER_SECOND: u64 = 10_000_000;
/// The longest time that is told apart from longer ones: a day.
const TIME_MAX: u64 = 24 * 3_600 * UNITS_PER_SECOND;
/// The percentiles that are shown, with their names in JSON.
pub(super) const PERCENTILES: [(&str, f64); 5] =
    [("p50", 50.0), ("p90", 90.0), ("p99", 99.0), ("p99_9", 99.9), ("p99_99", 99.99)];

/// What faults without a code of the protocol are counted as.
pub(super) const NO_CONNECTION: &str = "NO_CONNECTION";

/// Why one piece of work does not count as done.
#[derive(Debug)]
pub(super) enum Fault {
    /// The client says so.
    Client(Error),
    /// The answer is not the one that was asked for.
    WrongAnswer,
}

impl From<Error> for Fault {
    fn from(error: Error) -> Self {
        Self::Client(error)
    }
}

impl Fault {
    /// A code of the protocol where there is one.
    pub(super) fn name(&self) -> String {
        match self {
            Self::WrongAnswer => "WRONG_ANSWER".to_owned(),
            Self::Client(error) => match error.code() {
                Some(code) => code.to_string(),
                None => NO_CONNECTION.to_owned(),
            },
        }
    }

    /// Why nothing more will come of this connection, if that is so.
    pub(super) fn lost(&self) -> Option<&Error> {
        match self {
            Self::Client(error @ (Error::Closed | Error::Connect(_))) => Some(error),
            _ => None,
        }
    }
}

/// Times and errors.
#[derive(Debug)]
pub(super) struct Tally {
    times: Histogram<u64>,
    errors: BTreeMap<String, u64>,
}

impl Tally {
    pub(super) fn new() -> Self {
        let times = Histogram::new(SIGNIFICANT_DIGITS).expect("three digits are what the histogram takes");
        Self { times, errors: BTreeMap::new() }
    }

    pub(super) fn record(&mut self, time: Duration) {
        let of_seconds = time.as_secs().saturating_mul(UNITS_PER_SECOND);
        let units =
            of_seconds.saturating_add(u64::from(time.subsec_nanos() / UNIT.subsec_nanos())).min(TIME_MAX);
        self.times.record(units.max(1)).expect("the histogram grows by itself");
    }

    pub(super) fn fault(&mut self, fault: &Fault) {
        *self.errors.entry(fault.name()).or_default() += 1;
    }

    fn merge(&mut self, other: &Self) {
        self.times.add(&other.times).expect("a histogram that resizes takes another of its kind");
        for (name, count) in &other.errors {
            *self.errors.entry(name.clone()).or_default() += count;
        }
    }

    /// Pieces of work that were done.
    pub(super) fn done(&self) -> u64 {
        self.times.len()
    }

    /// Those that failed, by code.
    pub(super) fn errors(&self) -> &BTreeMap<String, u64> {
        &self.errors
    }

    /// Whether any failed.
    pub(super) fn has_errors(&self) -> bool {
        !self.errors.is_empty()
    }

    /// Microseconds that so many per cent do not exceed.
    pub(super) fn micros_at(&self, percentile: f64) -> f64 {
        micros(self.times.value_at_percentile(percentile))
    }

    /// The longest, in microseconds.
    pub(super) fn max_micros(&self) -> f64 {
        micros(self.times.max())
    }

    /// The shortest, in microseconds.
    pub(super) fn min_micros(&self) -> f64 {
        micros(self.times.min())
    }

    /// Each recorded time in microseconds, and how often.
    pub(super) fn counts(&self) -> impl Iterator<Item = (f64, u64)> + '_ {
        self.times.iter_recorded().map(|value| (micros(value.value_iterated_to()), value.count_at_value()))
    }
}

fn micros(units: u64) -> f64 {
    float(units) * UNIT.as_secs_f64() * 1e6
}

/// The nearest number with a fraction.
pub(super) fn float(count: u64) -> f64 {
    let (high, low) = (count >> 32, count & u64::from(u32::MAX));
    let part = |half: u64| f64::from(u32::try_from(half).unwrap_or(u32::MAX));
    part(high) * 4_294_967_296.0 + part(low)
}

/// Tallies that several tasks fill without waiting for each other.
pub(super) struct Shards(Vec<Mutex<Tally>>);

impl Shards {
    pub(super) fn new(connections: usize) -> Self {
        Self((0..connections.clamp(1, SHARDS)).map(|_| Mutex::new(Tally::new())).collect())
    }

    pub(super) fn with<T>(&self, connection: usize, write: impl FnOnce(&mut Tally) -> T) -> T {
        let shard = &self.0[connection % self.0.len()];
        write(&mut shard.lock().unwrap_or_else(PoisonError::into_inner))
    }

    pub(super) fn sum(&self) -> Tally {
        let mut sum = Tally::new();
        for shard in &self.0 {
            sum.merge(&shard.lock().unwrap_or_else(PoisonError::into_inner));
        }
        sum
    }
}

/// Times of one task on their way to its tally, for which it is locked once for many. They get there when this is dropped.
pub(super) struct Times<'a> {
    connection: usize,
    shards: &'a Shards,
    times: Vec<Duration>,
}

impl<'a> Times<'a> {
    pub(super) fn new(connection: usize, shards: &'a Shards) -> Self {
        Self { connection, shards, times: Vec::with_capacity(TIMES_TOGETHER) }
    }

    pub(super) fn add(&mut self, time: Duration) {
        self.times.push(time);
        if self.times.len() == TIMES_TOGETHER {
            self.hand_over();
        }
    }

    fn hand_over(&mut self) {
        let times = self.times.drain(..);
        self.shards.with(self.connection, |tally| times.for_each(|time| tally.record(time)));
    }
}

impl Drop for Times<'_> {
    fn drop(&mut self) {
        self.hand_over();
    }
}

/// A run.
pub(super) struct Measured {
    pub(super) tally: Tally,
    /// From the end of the warm-up to the end or the last answer, and no longer than there was a connection.
    pub(super) elapsed: Duration,
    /// What both processes used in that time.
    pub(super) used: Used,
    /// Calls that were due and not started, because earlier ones took too long.
    pub(super) unsent: u64,
    /// Why there was no connection left before the end, if that is so.
    pub(super) lost: Option<Error>,
}

impl Measured {
    /// Pieces of work a second.
    pub(super) fn rate(&self) -> f64 {
        let elapsed = self.elapsed.as_secs_f64();
        // The connections may be lost in the warm-up.
        if elapsed > 0.0 { float(self.tally.done()) / elapsed } else { 0.0 }
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn percentiles_are_those_of_what_was_recorded() {
        let shards = Shards::new(3);
        for n in 1..=10_000_u64 {
            let connection = usize::try_from(n % 7).expect("small");
            shards.with(connection, |tally| tally.record(Duration::from_micros(n)));
        }
        shards.with(9, |tally| tally.fault(&Fault::Client(Error::Timeout(Duration::from_secs(1)))));
        let tally = shards.sum();
        assert_eq!((tally.done(), tally.errors().get("TIMEOUT").copied()), (10_000, Some(1)));
        for (percentile, exact) in [(50.0, 5_000.0), (99.0, 9_900.0), (99.99, 9_999.0)] {
            assert!((tally.micros_at(percentile) - exact).abs() <= exact / 1_000.0, "{percentile}");
        }
        assert!((tally.max_micros() - 10_000.0).abs() <= 10.0);
        assert_eq!(tally.counts().map(|(_, count)| count).sum::<u64>(), 10_000);
    }

    #[test]
    fn a_time_is_recorded_in_its_unit() {
        assert_eq!(UNIT * u32::try_from(UNITS_PER_SECOND).expect("fits"), Duration::from_secs(1));
        for (time, micros) in [(0, 0.1), (99, 0.1), (2_350, 2.3), (2_000_000_100, 2_000_000.1)] {
            let mut tally = Tally::new();
            tally.record(Duration::from_nanos(time));
            assert!((tally.max_micros() - micros).abs() <= micros / 1_000.0, "{time} ns");
        }
        let mut tally = Tally::new();
        tally.record(Duration::MAX);
        assert!(tally.max_micros() >= 24.0 * 3_600.0 * 1e6);
    }

    #[test]
    fn whole_numbers_become_fractions() {
        for count in [0, 1, 4_294_967_295, 4_294_967_296, 1 << 52] {
            assert_eq!(format!("{:.0}", float(count)), count.to_string());
        }
    }
}
