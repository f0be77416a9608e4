//! A bar on standard error while a run goes on, when a person looks.

use std::io::{self, IsTerminal as _};
use std::time::Duration;

use indicatif::{ProgressBar, ProgressDrawTarget, ProgressStyle};

use crate::cli::Output;

/// How often the bar moves.
pub(super) const TICK: Duration = Duration::from_millis(100);

/// The bar; invisible with `--json` and without a terminal.
pub(super) struct Progress(ProgressBar);

impl Progress {
    /// A bar for work that takes `steps`.
    pub(super) fn new(output: &Output, label: &str, steps: u64) -> Self {
        let is_seen = !output.is_json() && io::stderr().is_terminal();
        let target = if is_seen { ProgressDrawTarget::stderr() } else { ProgressDrawTarget::hidden() };
        let bar = ProgressBar::with_draw_target(Some(steps), target);
        if let Ok(style) = ProgressStyle::with_template("{msg} {bar:40} {percent:>3}%") {
            bar.set_style(style);
        }
        bar.set_message(label.to_owned());
        Self(bar)
    }

    /// A bar for work that takes a time, in milliseconds.
    pub(super) fn of_time(output: &Output, label: &str, time: Duration) -> Self {
        Self::new(output, label, millis(time))
    }

    /// So much of the time is over.
    pub(super) fn at_time(&self, elapsed: Duration) {
        self.0.set_position(millis(elapsed));
    }

    /// So many steps are done.
    pub(super) fn at(&self, steps: usize) {
        self.0.set_position(u64::try_from(steps).unwrap_or(u64::MAX));
    }
}

impl Drop for Progress {
    fn drop(&mut self) {
        self.0.finish_and_clear();
    }
}

fn millis(time: Duration) -> u64 {
    u64::try_from(time.as_millis()).unwrap_or(u64::MAX)
}
