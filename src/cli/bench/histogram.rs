//! Latencies as bars of text.

use super::measured::{Tally, float};

/// Upper edges of the rows within a decade: six equal steps of the logarithm (the preferred numbers E6 of IEC 60063).
const STEPS: [f64; 6] = [1.0, 1.5, 2.2, 3.3, 4.7, 6.8];
/// The smallest edge in microseconds.
const FIRST_DECADE: f64 = 1.0;
/// Decades: up to 1,000 s.
const DECADES: usize = 9;
/// Width of the longest bar.
const WIDTH: u64 = 40;

/// Rows of (upper edge in microseconds, count), without the empty ones at both ends.
pub(super) fn rows(tally: &Tally) -> Vec<(f64, u64)> {
    let mut edges = Vec::with_capacity(STEPS.len() * DECADES);
    let mut decade = FIRST_DECADE;
    for _ in 0..DECADES {
        edges.extend(STEPS.map(|step| step * decade));
        decade *= 10.0;
    }
    let mut rows: Vec<(f64, u64)> = edges.into_iter().map(|edge| (edge, 0)).collect();
    let last = rows.len() - 1;
    for (micros, count) in tally.counts() {
        let at = rows.partition_point(|(edge, _)| *edge < micros).min(last);
        rows[at].1 += count;
    }
    let is_used = |(_, count): &(f64, u64)| *count > 0;
    let (Some(first), Some(last)) = (rows.iter().position(is_used), rows.iter().rposition(is_used)) else {
        return Vec::new();
    };
    rows.drain(first..=last).collect()
}

/// The rows as text, one line each.
pub(super) fn draw(tally: &Tally) -> String {
    let rows = rows(tally);
    let most = rows.iter().map(|(_, count)| *count).max().unwrap_or(1);
    let mut text = String::new();
    for (edge, count) in rows {
        let share = 100.0 * float(count) / float(tally.done().max(1));
        let width = (count * WIDTH).div_ceil(most);
        let bar = "#".repeat(usize::try_from(width).unwrap_or_default());
        text.push_str(&format!("\n{:>12}  {share:>6.2} %  {bar}", format!("<= {}", time(edge))));
    }
    text
}

/// Microseconds in the unit that a person reads best.
pub(super) fn time(micros: f64) -> String {
    match micros {
        m if m < 1_000.0 => format!("{m:.1} us"),
        m if m < 1_000_000.0 => format!("{:.2} ms", m / 1e3),
        m => format!("{:.2} s", m / 1e6),
    }
}

#[cfg(test)]
mod tests {
    use super::*;
    use std::time::Duration;

    #[test]
    fn rows_hold_every_time_once_and_the_longest_bar_is_the_fullest() {
        let mut tally = Tally::new();
        for micros in (1..=100).chain([900, 5_000]) {
            tally.record(Duration::from_micros(micros));
        }
        let rows = rows(&tally);
        assert_eq!(rows.iter().map(|(_, count)| count).sum::<u64>(), 102);
        assert!(rows.first().is_some_and(|row| row.1 > 0) && rows.last().is_some_and(|row| row.1 > 0));
        assert!(rows.windows(2).all(|pair| pair[0].0 < pair[1].0));
        let text = draw(&tally);
        let bars = text.lines().map(|line| line.matches('#').count());
        assert_eq!(bars.max(), Some(40));
        assert!(text.contains("<= 6.80 ms") && text.contains("<= 100.0 us"), "{text}");
        assert_eq!(draw(&Tally::new()), "");
    }
}
