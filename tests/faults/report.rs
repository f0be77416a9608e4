//! What came of a run, in words.

use std::collections::BTreeMap;
use std::fmt;
use std::time::Duration;

use crate::check::{Evidence, Findings, Wrong, check};
use crate::fault::Fault;
use crate::ledger::Outcome;

/// How many cases of one kind are printed.
const PRINTED: usize = 5;

/// The report of a run.
pub(crate) struct Report {
    pub(crate) seed: u64,
    pub(crate) time: Duration,
    pub(crate) faults: BTreeMap<Fault, usize>,
    pub(crate) left_out: Vec<&'static str>,
    pub(crate) findings: Findings,
    /// Operations that were acknowledged; of them with a key; that were refused; of them with a key; and of which nobody was told what
    /// became.
    pub(crate) acknowledged: usize,
    pub(crate) with_key: usize,
    refused: usize,
    refused_with_key: usize,
    open: usize,
    /// Of the open ones, those that were done.
    open_done: usize,
    /// Changes in the log, changes that readers saw, and how often readers went on from a cursor.
    changes: usize,
    seen: usize,
    resumed: u64,
}

impl Report {
    /// Checks what was found.
    pub(crate) fn of(seed: u64, time: Duration, evidence: &Evidence) -> Self {
        let count = |outcome: Outcome| {
            evidence.operations.iter().filter(|operation| operation.outcome == outcome).count()
        };
        let is_done: std::collections::BTreeSet<usize> =
            evidence.log.iter().map(|change| change.op).collect();
        let open = evidence.operations.iter().enumerate();
        let open_done =
            open.filter(|(number, operation)| operation.outcome == Outcome::Open && is_done.contains(number));
        let keyed = |outcome: Outcome| {
            let keyed = evidence.operations.iter().filter(|operation| operation.has_key);
            keyed.filter(|operation| operation.outcome == outcome).count()
        };
        Self {
            seed,
            time,
            faults: BTreeMap::new(),
            left_out: Vec::new(),
            findings: check(evidence),
            acknowledged: count(Outcome::Acknowledged),
            with_key: keyed(Outcome::Acknowledged),
            refused: count(Outcome::Refused),
            refused_with_key: keyed(Outcome::Refused),
            open: count(Outcome::Open),
            open_done: open_done.count(),
            changes: evidence.log.len(),
            seen: evidence.seen.iter().map(|seen| seen.changes.len()).sum(),
            resumed: evidence.seen.iter().map(|seen| seen.resumed).sum(),
        }
    }

    /// Fails when anything is wrong, or when the run shows nothing.
    pub(crate) fn assert_clean(&self) {
        assert!(self.findings.all().next().is_none(), "what must not be was found:\n{self}");
        assert!(self.acknowledged > 0 && self.seen > 0 && self.resumed > 0, "nothing was done:\n{self}");
    }
}

impl fmt::Display for Report {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        let number: usize = self.faults.values().sum();
        writeln!(f, "seed {} (FAULTS_SEED={} makes the same choices)", self.seed, self.seed)?;
        writeln!(f, "{number} faults in {} s", self.time.as_secs())?;
        for (fault, times) in &self.faults {
            writeln!(f, "  {times:5}  {}", fault.words())?;
        }
        for left_out in &self.left_out {
            writeln!(f, "  LEFT OUT: {left_out}")?;
        }
        writeln!(f, "acknowledged {}, of them with a key {}", self.acknowledged, self.with_key)?;
        writeln!(f, "refused {}, of them with a key {}", self.refused, self.refused_with_key)?;
        writeln!(f, "never told {} (done {})", self.open, self.open_done)?;
        writeln!(
            f,
            "changes {}, seen by readers {}, resumed from a cursor {} times",
            self.changes, self.seen, self.resumed
        )?;
        let count = |wrong| self.findings.count(wrong);
        write!(
            f,
            "lost {}, doubled {}, unresolved {}, missed or doubled or out of order at a reader {}",
            count(Wrong::Lost),
            count(Wrong::Doubled),
            count(Wrong::Unresolved),
            count(Wrong::Reader)
        )?;
        for (wrong, cases) in self.findings.all() {
            write!(f, "\n{wrong:?}: {}", cases.len())?;
            for case in cases.iter().take(PRINTED) {
                write!(f, "\n  {case}")?;
            }
        }
        Ok(())
    }
}
