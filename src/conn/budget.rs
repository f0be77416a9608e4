//! The budget for refusals and subscriptions that were ended: work that a peer causes and throws away, and that no slot
//! bounds. A cancelled call is none of it: its slot is taken until its work has stopped.

use super::ConnectionError;
use crate::wire::limits::{ABUSE_BUDGET, ABUSE_REFILL_PER_SECOND};
use std::time::Duration;

/// Time in which one token comes back.
const REFILL_INTERVAL: Duration =
    Duration::from_secs(1).checked_div(ABUSE_REFILL_PER_SECOND).expect("the rate is not zero");

/// A token bucket: 0 <= `left` <= [`ABUSE_BUDGET`], refilled by whole tokens.
#[derive(Debug)]
pub(super) struct AbuseBudget {
    left: u32,
    refilled_at: Duration,
}

impl AbuseBudget {
    pub(super) fn new(now: Duration) -> Self {
        Self { left: ABUSE_BUDGET, refilled_at: now }
    }

    /// Takes one token.
    pub(super) fn debit(&mut self, now: Duration) -> Result<(), ConnectionError> {
        let tokens = now.saturating_sub(self.refilled_at).as_nanos() / REFILL_INTERVAL.as_nanos();
        let tokens = u32::try_from(tokens).unwrap_or(u32::MAX);
        self.left = self.left.saturating_add(tokens);
        // What is left of an interval counts towards the next token; a full bucket has nothing to count.
        self.refilled_at += REFILL_INTERVAL.saturating_mul(tokens);
        if self.left >= ABUSE_BUDGET {
            self.left = ABUSE_BUDGET;
            self.refilled_at = self.refilled_at.max(now);
        }
        self.left = self.left.checked_sub(1).ok_or(ConnectionError::AbuseBudget)?;
        Ok(())
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn is_spent_and_refilled() {
        let mut budget = AbuseBudget::new(Duration::ZERO);
        for _ in 0..ABUSE_BUDGET {
            budget.debit(Duration::ZERO).unwrap();
        }
        assert_eq!(budget.debit(Duration::ZERO), Err(ConnectionError::AbuseBudget));
        for _ in 0..ABUSE_REFILL_PER_SECOND {
            budget.debit(Duration::from_secs(1)).unwrap();
        }
        assert_eq!(budget.debit(Duration::from_secs(1)), Err(ConnectionError::AbuseBudget));
    }

    #[test]
    fn parts_of_an_interval_are_not_lost() {
        let mut budget = AbuseBudget::new(Duration::ZERO);
        for _ in 0..ABUSE_BUDGET {
            budget.debit(Duration::ZERO).unwrap();
        }
        // One and a half intervals between debits, for 15 s: 1,500 come back.
        for n in 1..=1_000_u32 {
            budget.debit(REFILL_INTERVAL * 3 / 2 * n).unwrap();
        }
        assert_eq!(budget.left, 500);
    }

    #[test]
    fn a_full_budget_does_not_grow() {
        let mut budget = AbuseBudget::new(Duration::ZERO);
        let late = Duration::from_secs(1 << 40);
        for _ in 0..ABUSE_BUDGET {
            budget.debit(late).unwrap();
        }
        assert_eq!(budget.debit(late), Err(ConnectionError::AbuseBudget));
    }
}
