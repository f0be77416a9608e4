//! Which partitions of the log can have changes that a reader at its end does not have yet.
//!
//! The log has a partition for each hour, kept for a day, and some made ahead; to look into all of them takes Postgres
//! longer than the write took. A change lies in the partition of the moment at which it was made, and most transactions are
//! short. So a mark is set now and then: the time, and the first transaction id that was not given out yet. Once all
//! transactions below that id have ended, and what they wrote was handed over, every change that is still to come was made
//! after the time of the mark.
//!
//! This trusts the clock of the server, which is compared with ours at each read: a clock that was set, forward or back,
//! is noticed, nothing that was read by it is used, and all partitions are read until there is a new mark.

use std::time::{Duration, SystemTime, UNIX_EPOCH};

use tokio::time::Instant;

use super::frontier::Snapshot;

/// The partitions' length.
const HOUR: u64 = 60 * 60;

/// How far the server's clock may go from ours between two reads before it counts as set.
const DRIFT: Duration = Duration::from_secs(1);

/// How much further than the mark, and than now, is read: far more than [`DRIFT`] and than what a change that is made in
/// this moment can differ.
const MARGIN: Duration = Duration::from_secs(10 * 60);

/// After every partition that there can be. Postgres' own last moment is far beyond the last one that `SystemTime` holds.
const END: Duration = Duration::from_secs(200_000 * 365 * 24 * HOUR);

/// Times of the server's clock, whole hours: from the first one to before the second.
pub(super) type Hours = (SystemTime, SystemTime);

/// All of the log.
pub(super) const ALL: fn() -> Hours = || (UNIX_EPOCH, UNIX_EPOCH + END);

/// What is known of the changes to come.
#[derive(Debug, Default)]
pub(super) struct Window {
    /// They were all made after this.
    since: Option<SystemTime>,
    /// A mark whose transactions have not all ended: its time, and the first id after it.
    mark: Option<(SystemTime, u64)>,
    /// The server's clock at the last read, and ours.
    last: Option<(SystemTime, Instant)>,
}

impl Window {
    /// What the next read has to look at.
    pub(super) fn hours(&self, now: Instant) -> Hours {
        let (Some(since), Some((clock, at))) = (self.since, self.last) else { return ALL() };
        let until = clock + now.saturating_duration_since(at) + MARGIN;
        match (hour(since.checked_sub(MARGIN)), hour(Some(until))) {
            (Some(first), Some(last)) => (first, last + Duration::from_secs(HOUR)),
            _ => ALL(),
        }
    }

    /// Whether the clock went on as ours did, so that a read of [`Window::hours`] has everything. If not, everything has to
    /// be read.
    pub(super) fn is_right(&mut self, clock: SystemTime, now: Instant) -> bool {
        let expected = self.last.map(|(clock, at)| clock + now.saturating_duration_since(at));
        self.last = Some((clock, now));
        let is_right = expected.is_none_or(|expected| {
            let apart = clock.duration_since(expected).unwrap_or_else(|earlier| earlier.duration());
            apart <= DRIFT
        });
        if !is_right {
            (self.since, self.mark) = (None, None);
        }
        is_right
    }

    /// All of a moment was handed over.
    pub(super) fn handed_over(&mut self, snapshot: &Snapshot) {
        match self.mark {
            Some((time, first)) if snapshot.xmin >= first => {
                self.since = Some(time);
                self.mark = None;
            }
            Some(_) => {}
            None => self.mark = self.last.map(|(clock, _)| (clock, snapshot.xmax)),
        }
    }
}

/// The hour that a time is in.
fn hour(time: Option<SystemTime>) -> Option<SystemTime> {
    let seconds = time?.duration_since(UNIX_EPOCH).ok()?.as_secs();
    Some(UNIX_EPOCH + Duration::from_secs(seconds - seconds % HOUR))
}

#[cfg(test)]
mod tests {
    use super::*;

    fn at(seconds: u64) -> SystemTime {
        UNIX_EPOCH + Duration::from_secs(seconds)
    }

    /// A window after a read at a time of the server's clock.
    fn read(window: &mut Window, snapshot: &str, clock: u64, begin: Instant, base: u64) -> bool {
        let now = begin + Duration::from_secs(clock - base);
        let is_right = window.is_right(at(clock), now);
        if is_right {
            window.handed_over(&Snapshot::parse(snapshot).expect("the form of the manual"));
        }
        is_right
    }

    #[test]
    fn a_transaction_that_runs_keeps_its_hour_in_the_window() {
        let (begin, base) = (Instant::now(), 1_000_000 * HOUR + 1_800);
        let mut window = Window::default();
        assert_eq!(window.hours(begin), ALL());
        assert!(read(&mut window, "10:10:", base, begin, base), "there is nothing to compare with");
        assert_eq!(window.hours(begin), ALL(), "10 may have begun before: nobody knows");
        // 11 began after the mark; it runs for hours.
        assert!(read(&mut window, "11:12:11", base + 1, begin, base));
        let hours = (at(1_000_000 * HOUR), at(1_000_001 * HOUR));
        assert_eq!(window.hours(begin + Duration::from_secs(1)), hours);
        for n in 1..=4 {
            assert!(read(&mut window, &format!("11:{}:11", 12 + n), base + n * HOUR, begin, base));
        }
        let now = begin + Duration::from_secs(4 * HOUR);
        assert_eq!(window.hours(now), (at(1_000_000 * HOUR), at(1_000_005 * HOUR)), "11 keeps it open");
        // It ends: the next mark is the end of what it kept open.
        assert!(read(&mut window, "20:20:", base + 4 * HOUR + 1, begin, base));
        assert!(read(&mut window, "20:20:", base + 4 * HOUR + 2, begin, base));
        assert!(read(&mut window, "20:20:", base + 4 * HOUR + 3, begin, base));
        let now = begin + Duration::from_secs(4 * HOUR + 3);
        assert_eq!(window.hours(now), (at(1_000_004 * HOUR), at(1_000_005 * HOUR)));
    }

    #[test]
    fn near_a_full_hour_both_are_in_it() {
        let (begin, base) = (Instant::now(), 1_000_000 * HOUR + 60);
        let mut window = Window::default();
        for n in 0..4 {
            assert!(read(&mut window, "10:10:", base + n, begin, base));
        }
        let now = begin + Duration::from_secs(4);
        assert_eq!(window.hours(now), (at(999_999 * HOUR), at(1_000_001 * HOUR)));
        let now = begin + Duration::from_secs(HOUR - 120);
        assert_eq!(window.hours(now), (at(999_999 * HOUR), at(1_000_002 * HOUR)));
    }

    #[test]
    fn a_clock_that_was_set_opens_the_window() {
        let base = 1_000_000 * HOUR + 1_800;
        for set in [base + 3 * HOUR, base - 3 * HOUR, base + 10, base - 10] {
            let begin = Instant::now();
            let mut window = Window::default();
            for n in 0..3 {
                assert!(read(&mut window, "10:10:", base + n, begin, base));
            }
            assert_ne!(window.hours(begin), ALL());
            assert!(!window.is_right(at(set), begin + Duration::from_secs(3)), "{set}");
            assert_eq!(window.hours(begin), ALL());
            assert!(window.is_right(at(set + 1), begin + Duration::from_secs(4)), "it goes on from there");
        }
    }
}
