//! Which transactions a reader of the change log has: the positions between two batches.

use std::error::Error;
use std::sync::Arc;

use bytes::BytesMut;
use tokio_postgres::types::{FromSql, IsNull, ToSql, Type, to_sql_checked};

/// A full transaction id, as Postgres' `xid8`.
#[derive(Debug, Clone, Copy, PartialEq, Eq, PartialOrd, Ord)]
pub(super) struct Xid(pub(super) u64);

impl ToSql for Xid {
    fn to_sql(&self, _: &Type, out: &mut BytesMut) -> Result<IsNull, Box<dyn Error + Sync + Send>> {
        out.extend_from_slice(&self.0.to_be_bytes());
        Ok(IsNull::No)
    }

    fn accepts(ty: &Type) -> bool {
        *ty == Type::XID8
    }

    to_sql_checked!();
}

impl<'a> FromSql<'a> for Xid {
    fn from_sql(_: &Type, raw: &'a [u8]) -> Result<Self, Box<dyn Error + Sync + Send>> {
        Ok(Self(u64::from_be_bytes(raw.try_into()?)))
    }

    fn accepts(ty: &Type) -> bool {
        *ty == Type::XID8
    }
}

/// `pg_current_snapshot()`: everything below `xmax` has ended, but for `xip`.
#[derive(Debug, Clone, PartialEq, Eq)]
pub(super) struct Snapshot {
    /// The first transaction id that had not ended.
    pub(super) xmin: u64,
    /// The first transaction id that was not given out.
    pub(super) xmax: u64,
    xip: Vec<u64>,
}

impl Snapshot {
    /// Reads the text form, `xmin:xmax:xip,xip,...`.
    pub(super) fn parse(text: &str) -> Option<Self> {
        let mut parts = text.split(':');
        let xmin = parts.next()?.parse().ok()?;
        let xmax = parts.next()?.parse().ok()?;
        let list = parts.next()?;
        if parts.next().is_some() {
            return None;
        }
        let mut xip = Vec::new();
        for xid in list.split(',').filter(|xid| !xid.is_empty()) {
            xip.push(xid.parse().ok()?);
        }
        xip.sort_unstable();
        xip.dedup();
        Some(Self { xmin, xmax, xip })
    }

    /// The frontier of this snapshot for a log whose newest committed change in it is of the transaction before
    /// `xmax`.
    ///
    /// The snapshot's own `xmax` is not kept. Postgres writes a transaction id to disk only with what the transaction
    /// wrote, so after a crash it gives out again ids that no commit or change on disk names. A frontier that named
    /// such an id as seen would hide the changes of its second owner. Every id up to that of a committed transaction
    /// is on disk and is never given out again.
    pub(super) fn clamp(&self, xmax: u64) -> Frontier {
        let xip = self.xip.iter().copied().filter(|xid| *xid < xmax).collect();
        Frontier { xmax, xip }
    }

    /// This snapshot and one transaction more, which was committed: what a statement of that transaction saw, and itself.
    /// `None` when more than `most` transactions lie between the two.
    ///
    /// Above the committed transaction nothing is kept, for the reason that [`Snapshot::clamp`] gives.
    pub(super) fn with(&self, own: u64, most: usize) -> Option<Frontier> {
        let between = self.xmax..own;
        if usize::try_from(own.saturating_sub(self.xmax)).map_or(true, |count| count > most) {
            return None;
        }
        let xip = self.xip.iter().copied().filter(|xid| *xid < own).chain(between).collect();
        Frontier::new(own.checked_add(1)?, xip)
    }
}

/// A set of transactions of the change log: those below `xmax` that are not in `xip`. It stands for a moment of the
/// database: the set of one moment holds the set of every earlier one.
#[derive(Debug, Clone, PartialEq, Eq)]
pub(super) struct Frontier {
    xmax: u64,
    /// Ascending, all below `xmax`.
    xip: Arc<[u64]>,
}

impl Frontier {
    /// A frontier from its parts. `None` unless `xip` ascends strictly and stays below `xmax`.
    pub(super) fn new(xmax: u64, xip: Vec<u64>) -> Option<Self> {
        let ascending = xip.windows(2).all(|pair| pair[0] < pair[1]);
        let below = xip.last().is_none_or(|last| *last < xmax);
        (ascending && below).then(|| Self { xmax, xip: xip.into() })
    }

    /// One above the largest transaction in the set (or 0).
    pub(super) fn xmax(&self) -> u64 {
        self.xmax
    }

    /// The transactions below `xmax` that had not ended, ascending.
    pub(super) fn xip(&self) -> &[u64] {
        &self.xip
    }

    /// [`Frontier::xip`] as an SQL argument.
    pub(super) fn xip_sql(&self) -> Vec<Xid> {
        self.xip.iter().copied().map(Xid).collect()
    }

    /// Whether the changes of a transaction are in the set.
    pub(super) fn holds(&self, xid: u64) -> bool {
        xid < self.xmax && self.xip.binary_search(&xid).is_err()
    }

    /// Whether all changes of this set are in `other`. `false` means that `other` is of an earlier moment.
    pub(super) fn is_within(&self, other: &Self) -> bool {
        // The largest id of each set is that of a committed change, so a greater one is of a later moment. A
        // transaction that had ended here and was still running there says the same.
        self.xmax <= other.xmax
            && other
                .xip
                .iter()
                .take_while(|xid| **xid < self.xmax)
                .all(|xid| self.xip.binary_search(xid).is_ok())
    }
}

#[cfg(test)]
mod tests {
    use super::{Frontier, Snapshot};

    fn frontier(xmax: u64, xip: &[u64]) -> Frontier {
        Frontier::new(xmax, xip.to_vec()).expect("a well formed frontier")
    }

    #[test]
    fn reads_the_text_of_postgres() {
        let snapshot = Snapshot::parse("10:20:10,14,15").expect("the form of the manual");
        assert_eq!(snapshot.xmax, 20);
        assert_eq!(snapshot.clamp(20), frontier(20, &[10, 14, 15]));
        assert_eq!(Snapshot::parse("7:7:").expect("no transaction runs").clamp(5), frontier(5, &[]));
        for bad in ["", "1", "1:2", "1:2:3:4", "a:2:", "1:2:x"] {
            assert_eq!(Snapshot::parse(bad), None, "{bad}");
        }
    }

    #[test]
    fn a_clamped_frontier_names_no_id_that_a_crash_frees() {
        let snapshot = Snapshot::parse("10:20:10,14,15").expect("the form of the manual");
        let clamped = snapshot.clamp(13);
        assert_eq!(clamped, frontier(13, &[10]));
        for freed in 13..30 {
            assert!(!clamped.holds(freed));
        }
        assert!(clamped.holds(12) && !clamped.holds(10) && clamped.holds(9));
    }

    #[test]
    fn a_snapshot_with_its_own_transaction_has_nothing_else_that_it_did_not_see() {
        let snapshot = Snapshot::parse("10:20:10,14").expect("the form of the manual");
        // 20 to 22 were given out between the snapshot and the statement's own id.
        let with = snapshot.with(23, 3).expect("three are few enough");
        assert_eq!(with, frontier(24, &[10, 14, 20, 21, 22]));
        assert!(with.holds(23) && !with.holds(24));
        assert_eq!(snapshot.with(20, 0), Some(frontier(21, &[10, 14])));
        // The id was taken by an earlier statement.
        assert_eq!(snapshot.with(12, 0), Some(frontier(13, &[10])));
        assert_eq!(snapshot.with(23, 2), None);
        assert_eq!(snapshot.with(u64::MAX, 3_000), None, "not a list of all of them");
    }

    #[test]
    fn earlier_is_within_later_and_not_the_reverse() {
        let early = frontier(13, &[10]);
        let same_xmax = frontier(13, &[]);
        let late = frontier(21, &[10, 17]);
        assert!(early.is_within(&early) && early.is_within(&same_xmax) && early.is_within(&late));
        assert!(!same_xmax.is_within(&early) && !late.is_within(&early));
        assert!(!same_xmax.is_within(&late), "10 had ended in one and ran in the other");
    }

    #[test]
    fn refuses_parts_that_do_not_fit() {
        assert_eq!(Frontier::new(10, vec![3, 3]), None);
        assert_eq!(Frontier::new(10, vec![4, 3]), None);
        assert_eq!(Frontier::new(10, vec![10]), None);
    }
}
