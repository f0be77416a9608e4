//! Positions in the change log and their text, the cursor.
//!
//! ```text
//! cursor   = base64url(version u8 = 1 | kind u8 | database [8] | body)
//! kind 0   at a frontier:      base
//! kind 1   inside a batch:     base | next | last varint | last - seq varint
//! kind 2   inside a snapshot:  nothing; no resume is possible from here
//! base     = xmax varint | n varint | n gaps, each a varint >= 1, downwards from xmax
//! next     = xmax - base.xmax varint | which of base's xip are still in it, a bit each, lowest bit first |
//!            n varint | n gaps downwards from xmax, none below base.xmax
//! varint   = LEB128 of a u64, shortest form
//! ```
//! A cursor is what a client shows, so every field is checked. It carries no secret and grants nothing: whoever forges
//! one gets other changes of a table that he may read anyway.

use std::sync::Arc;

use super::frontier::{Frontier, Snapshot};
use crate::store::base64url;

/// The longest text of a cursor, in bytes: it is in every event and in a client's storage.
pub const CURSOR_LEN_MAX: usize = 4096;

/// The longest cursor before its base64url.
const BYTES_MAX: usize = CURSOR_LEN_MAX / 4 * 3;

/// The format that this program writes and reads.
const VERSION: u8 = 1;

const AT: u8 = 0;
const INSIDE: u8 = 1;
const IN_SNAPSHOT: u8 = 2;

/// The longest varint: a u64 in groups of seven bits.
const VARINT_MAX: usize = 10;

/// Which database a cursor is of: the first bytes of a hash over its epoch and its place.
pub(in crate::store) type Database = [u8; 8];

/// Where a reader stands: it has all changes of `base`, and of the batch that it is inside those up to a change.
#[derive(Debug, Clone, PartialEq, Eq)]
pub(super) struct Position {
    pub(super) base: Frontier,
    pub(super) inside: Option<Inside>,
}

/// A place in the changes that are in `next` and not in the position's base: in the order of (last, seq), after this
/// one.
#[derive(Debug, Clone, PartialEq, Eq)]
pub(super) struct Inside {
    pub(super) next: Frontier,
    /// The largest seq of the change's transaction.
    pub(super) last: i64,
    pub(super) seq: i64,
}

impl Position {
    /// The position at a frontier.
    pub(super) fn at(base: Frontier) -> Self {
        Self { base, inside: None }
    }

    /// Refuses a batch of which [`Batch::new`] makes no cursors, so that none of ours is.
    fn checked(self, database: Database) -> Result<Self, CursorError> {
        let usable = self
            .inside
            .as_ref()
            .is_none_or(|inside| Batch::new(database, self.base.clone(), inside.next.clone()).is_some());
        if usable { Ok(self) } else { Err(CursorError::Malformed) }
    }
}

/// Why a text is no position in this database.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub(super) enum CursorError {
    /// It was never a cursor.
    Malformed,
    /// It is of another database.
    OtherDatabase,
    /// It was given out inside a snapshot, before all of its documents.
    InSnapshot,
}

/// The changes between two frontiers, with the part of their cursors that they share.
#[derive(Debug)]
pub(super) struct Batch {
    pub(super) base: Frontier,
    pub(super) next: Frontier,
    prefix: Vec<u8>,
}

impl Batch {
    /// The batch between two moments. `None` when so many transactions were running that a cursor could not name them;
    /// they end, so the caller tries again later.
    pub(super) fn new(database: Database, base: Frontier, next: Frontier) -> Option<Self> {
        let mut prefix = header(INSIDE, database);
        put_base(&mut prefix, &base);
        put_next(&mut prefix, &base, &next)?;
        (prefix.len() + 2 * VARINT_MAX <= BYTES_MAX).then_some(Self { base, next, prefix })
    }

    /// The cursor after a change of the batch.
    pub(super) fn cursor(&self, last: i64, seq: i64) -> Arc<str> {
        let mut bytes = Vec::with_capacity(self.prefix.len() + 2 * VARINT_MAX);
        bytes.extend_from_slice(&self.prefix);
        put_varint(&mut bytes, u64::try_from(last).unwrap_or(0));
        put_varint(&mut bytes, u64::try_from(last.saturating_sub(seq)).unwrap_or(0));
        base64url::encode(&bytes).into()
    }
}

/// The cursor at a frontier. `None` when it would be too long; see [`Batch::new`].
pub(super) fn at(database: Database, base: &Frontier) -> Option<Arc<str>> {
    let mut bytes = header(AT, database);
    put_base(&mut bytes, base);
    (bytes.len() <= BYTES_MAX).then(|| base64url::encode(&bytes).into())
}

/// The cursor after a transaction that was committed, as a statement of it knows: `snapshot` is what the statement saw, in
/// the form of `pg_current_snapshot()`. What it saw and the transaction itself lie before the cursor, all else behind it.
/// `None` when it would be too long, or when `snapshot` is none.
pub(in crate::store) fn after(database: Database, snapshot: &str, own: u64) -> Option<Arc<str>> {
    // Each transaction that is named takes a byte at least.
    at(database, &Snapshot::parse(snapshot)?.with(own, BYTES_MAX)?)
}

/// The cursor of what comes before a snapshot is complete. Who shows it has to start again.
pub(super) fn in_snapshot(database: Database) -> Arc<str> {
    base64url::encode(&header(IN_SNAPSHOT, database)).into()
}

/// Reads a cursor.
pub(super) fn decode(database: Database, text: &str) -> Result<Position, CursorError> {
    if text.len() > CURSOR_LEN_MAX {
        return Err(CursorError::Malformed);
    }
    let bytes = base64url::decode(text).ok_or(CursorError::Malformed)?;
    let mut input = Input(&bytes);
    let (kind, found) = input.header().ok_or(CursorError::Malformed)?;
    let position = input.position(kind);
    let whole = input.0.is_empty() && (kind == IN_SNAPSHOT || position.is_some());
    match position {
        _ if !whole => Err(CursorError::Malformed),
        _ if found != database => Err(CursorError::OtherDatabase),
        Some(position) => position.checked(database),
        None => Err(CursorError::InSnapshot),
    }
}

fn header(kind: u8, database: Database) -> Vec<u8> {
    let mut bytes = vec![VERSION, kind];
    bytes.extend_from_slice(&database);
    bytes
}

fn put_base(out: &mut Vec<u8>, base: &Frontier) {
    put_varint(out, base.xmax());
    put_gaps(out, base.xmax(), base.xip());
}

/// Writes `next` against `base`. `None` when `next` is not of a later moment.
fn put_next(out: &mut Vec<u8>, base: &Frontier, next: &Frontier) -> Option<()> {
    put_varint(out, next.xmax().checked_sub(base.xmax())?);
    for group in base.xip().chunks(8) {
        let mut bits = 0_u8;
        for (place, xid) in group.iter().enumerate() {
            if next.xip().binary_search(xid).is_ok() {
                bits |= 1 << place;
            }
        }
        out.push(bits);
    }
    let started = next.xip().partition_point(|xid| *xid < base.xmax());
    let (old, new) = next.xip().split_at(started);
    if old.iter().any(|xid| base.xip().binary_search(xid).is_err()) {
        return None;
    }
    put_gaps(out, next.xmax(), new);
    Some(())
}

fn put_gaps(out: &mut Vec<u8>, from: u64, xip: &[u64]) {
    put_varint(out, u64::try_from(xip.len()).unwrap_or(u64::MAX));
    let mut above = from;
    for xid in xip.iter().rev() {
        put_varint(out, above - xid);
        above = *xid;
    }
}

fn put_varint(out: &mut Vec<u8>, mut value: u64) {
    loop {
        let [low, ..] = value.to_le_bytes();
        value >>= 7;
        if value == 0 {
            out.push(low & 0x7f);
            return;
        }
        out.push(low | 0x80);
    }
}

/// What is left to read.
struct Input<'a>(&'a [u8]);

impl Input<'_> {
    fn byte(&mut self) -> Option<u8> {
        let (first, rest) = self.0.split_first()?;
        self.0 = rest;
        Some(*first)
    }

    fn header(&mut self) -> Option<(u8, Database)> {
        if self.byte()? != VERSION {
            return None;
        }
        let kind = self.byte()?;
        let (database, rest) = self.0.split_first_chunk()?;
        self.0 = rest;
        Some((kind, *database))
    }

    fn position(&mut self, kind: u8) -> Option<Position> {
        match kind {
            AT => Some(Position::at(self.base()?)),
            INSIDE => {
                let base = self.base()?;
                let next = self.next(&base)?;
                let last = i64::try_from(self.varint()?).ok()?;
                let seq = last.checked_sub(i64::try_from(self.varint()?).ok()?)?;
                (seq >= 0).then_some(Position { base, inside: Some(Inside { next, last, seq }) })
            }
            _ => None,
        }
    }

    fn base(&mut self) -> Option<Frontier> {
        let xmax = self.varint()?;
        let mut xip = self.gaps(xmax)?;
        xip.reverse();
        Frontier::new(xmax, xip)
    }

    fn next(&mut self, base: &Frontier) -> Option<Frontier> {
        let xmax = base.xmax().checked_add(self.varint()?)?;
        let mut xip = Vec::new();
        for group in base.xip().chunks(8) {
            let bits = self.byte()?;
            let valid = u8::MAX >> (8 - group.len());
            if bits & !valid != 0 {
                return None;
            }
            xip.extend(
                group.iter().enumerate().filter(|(place, _)| bits & (1 << place) != 0).map(|(_, xid)| *xid),
            );
        }
        let mut new = self.gaps(xmax)?;
        new.reverse();
        if new.first().is_some_and(|xid| *xid < base.xmax()) {
            return None;
        }
        xip.extend(new);
        Frontier::new(xmax, xip)
    }

    /// Transaction ids downwards from `from`.
    fn gaps(&mut self, from: u64) -> Option<Vec<u64>> {
        // A gap has at least one byte, so the input bounds the memory.
        let count = usize::try_from(self.varint()?).ok().filter(|count| *count <= self.0.len())?;
        let mut xids = Vec::with_capacity(count);
        let mut above = from;
        for _ in 0..count {
            above = above.checked_sub(self.varint()?)?;
            xids.push(above);
        }
        Some(xids)
    }

    fn varint(&mut self) -> Option<u64> {
        let mut value = 0_u64;
        for group in 0..VARINT_MAX {
            let byte = self.byte()?;
            let bits = u64::from(byte & 0x7f);
            let shift = u32::try_from(group * 7).ok()?;
            let moved = bits << shift;
            if moved >> shift != bits {
                return None;
            }
            value |= moved;
            if byte & 0x80 == 0 {
                // A last group of zero is not the shortest form.
                return (bits != 0 || group == 0).then_some(value);
            }
        }
        None
    }
}

#[cfg(test)]
mod tests {
    use proptest::collection::btree_set;
    use proptest::prelude::*;

    use super::{Batch, CURSOR_LEN_MAX, CursorError, Frontier, Inside, Position, at, decode, in_snapshot};

    const HERE: super::Database = *b"thisbase";

    /// Two moments of one database: which transactions ran, which ended in between, which began.
    fn moments() -> impl Strategy<Value = (Frontier, Frontier)> {
        (
            btree_set(0_u64..5_000, 0..60),
            1_u64..5_000,
            any::<u64>(),
            1_u64..5_000,
            btree_set(0_u64..5_000, 0..60),
        )
            .prop_map(|(ran, above, kept, ahead, began)| {
                let xmax = ran.last().copied().unwrap_or(0) + above;
                let next_xmax = xmax + ahead;
                let old =
                    ran.iter().enumerate().filter(|(i, _)| kept >> (i % 64) & 1 == 1).map(|(_, xid)| *xid);
                let new = began.iter().map(|xid| xid + xmax).filter(|xid| *xid < next_xmax);
                let next = old.chain(new).collect();
                (
                    Frontier::new(xmax, ran.into_iter().collect()).expect("ascending and below"),
                    Frontier::new(next_xmax, next).expect("ascending and below"),
                )
            })
    }

    proptest! {
        #[test]
        fn a_position_comes_back((base, next) in moments(), last in 0..i64::MAX, back in 0..i64::MAX) {
            let seq = (last - back).max(0);
            prop_assert!(base.is_within(&next));
            let text = at(HERE, &base).expect("short");
            prop_assert_eq!(decode(HERE, &text), Ok(Position::at(base.clone())));
            let text = Batch::new(HERE, base.clone(), next.clone()).expect("short").cursor(last, seq);
            let inside = Some(Inside { next, last, seq });
            prop_assert_eq!(decode(HERE, &text), Ok(Position { base, inside }));
            prop_assert_eq!(decode(*b"elsewhre", &text), Err(CursorError::OtherDatabase));
        }

        #[test]
        fn no_part_of_a_cursor_is_a_cursor((base, next) in moments(), cut in any::<prop::sample::Index>()) {
            let text = Batch::new(HERE, base, next).expect("short").cursor(7, 3);
            let short = &text[..cut.index(text.len())];
            prop_assert_eq!(decode(HERE, short), Err(CursorError::Malformed));
            prop_assert_eq!(decode(HERE, &format!("{text}AAAA")), Err(CursorError::Malformed));
        }

        #[test]
        fn any_text_is_refused_or_means_one_position(bytes in prop::collection::vec(any::<u8>(), 0..40)) {
            let mut whole = vec![1, bytes.first().map_or(0, |byte| byte % 2)];
            whole.extend_from_slice(&HERE);
            whole.extend_from_slice(&bytes);
            let text = crate::store::base64url::encode(&whole);
            if let Ok(position) = decode(HERE, &text) {
                let again = match position.inside {
                    None => at(HERE, &position.base),
                    Some(Inside { next, last, seq }) => {
                        Batch::new(HERE, position.base, next).map(|batch| batch.cursor(last, seq))
                    }
                };
                prop_assert_eq!(again.as_deref(), Some(&*text));
            }
        }
    }

    #[test]
    fn a_snapshot_cannot_be_resumed() {
        assert_eq!(decode(HERE, &in_snapshot(HERE)), Err(CursorError::InSnapshot));
        assert_eq!(decode(HERE, ""), Err(CursorError::Malformed));
        assert_eq!(decode(HERE, &"A".repeat(CURSOR_LEN_MAX + 4)), Err(CursorError::Malformed));
    }

    #[test]
    fn a_thousand_running_writers_fit_and_a_cursor_never_grows_beyond_its_limit() {
        // Far apart, so that each gap takes two bytes, and all still running at the next moment.
        let ran: Vec<u64> = (0..1_000).map(|n| n * 9_000).collect();
        let base = Frontier::new(9_000_000, ran.clone()).expect("ascending");
        let next = Frontier::new(9_000_001, ran).expect("ascending");
        let batch = Batch::new(HERE, base, next).expect("a thousand writers fit");
        assert!(batch.cursor(i64::MAX, 0).len() <= CURSOR_LEN_MAX);

        let far: Vec<u64> = (0..3_000).map(|n| n * 9_000).collect();
        let base = Frontier::new(27_000_000, far).expect("ascending");
        assert!(at(HERE, &base).is_none());
    }
}
