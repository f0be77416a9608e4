//! The budget for cancels and refusals: work that a peer causes and throws away.

use super::ConnectionError;
use crate::wire::limits::{ABUSE_BUDGET, ABUSE_REFILL_PER_SECOND};
use std::time::Duration;

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
        let elapsed = now.saturating_sub(self.refilled_at);
        let tokens = elapsed.as_millis().saturating_mul(u128::from(ABUSE_REFILL_PER_SECOND)) / 1_000;
        let tokens = u32::try_from(tokens).unwrap_or(u32::MAX);
        if tokens > 0 {
            self.left = self.left.saturating_add(tokens).min(ABUSE_BUDGET);
            self.refilled_at = now;
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
}
