//! Reads a table, checking each field as it is read.
//!
//! Offsets are followed only within the message, positions are aligned as the format asks, text is UTF-8 and ends with
//! a zero byte. Nothing is copied and nothing is allocated. No cycle can be followed, because the caller decides which
//! table comes next, not the message.

/// Bytes of an offset, and of the length of a vector.
const OFFSET_LEN: usize = 4;

/// The message is not the table it has to be.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub(in crate::wire) struct Malformed;

/// A table whose field list (vtable) is inside the message.
#[derive(Clone, Copy)]
pub(in crate::wire) struct Table<'a> {
    message: &'a [u8],
    /// Where the table is, from the start of the message.
    at: usize,
    /// Lengths of itself and of the table, then for each slot the place of the field in the table, or 0.
    vtable: &'a [u8],
}

impl<'a> Table<'a> {
    /// The root table of a message without size prefix.
    #[inline]
    pub(in crate::wire) fn root(message: &'a [u8]) -> Result<Self, Malformed> {
        Self::at(message, target(message, 0)?)
    }

    #[inline]
    fn at(message: &'a [u8], at: usize) -> Result<Self, Malformed> {
        let back = i32::from_le_bytes(*number(message, at)?);
        let vtable_at = i64::try_from(at).map_err(|_| Malformed)? - i64::from(back);
        let vtable_at = usize::try_from(vtable_at).map_err(|_| Malformed)?;
        let len = usize::from(u16::from_le_bytes(*number(message, vtable_at)?));
        // Every slot has two bytes.
        if !len.is_multiple_of(2) {
            return Err(Malformed);
        }
        let vtable = message.get(vtable_at..vtable_at + len).ok_or(Malformed)?;
        Ok(Self { message, at, vtable })
    }

    /// Where a field is; `None` when it is absent. The message may end before.
    #[inline]
    pub(in crate::wire) fn place(&self, slot: u16) -> Option<usize> {
        self.field(slot)
    }

    /// Where a field is; `None` when it is absent.
    #[inline]
    fn field(&self, slot: u16) -> Option<usize> {
        let entry = self.vtable.get(usize::from(slot)..)?.first_chunk()?;
        match u16::from_le_bytes(*entry) {
            0 => None,
            offset => Some(self.at + usize::from(offset)),
        }
    }

    #[inline]
    fn number<const LEN: usize>(&self, slot: u16) -> Result<Option<[u8; LEN]>, Malformed> {
        self.field(slot).map(|at| number(self.message, at).copied()).transpose()
    }

    /// A `ubyte`, a `bool` or an enumeration of one byte.
    #[inline]
    pub(in crate::wire) fn u8(&self, slot: u16) -> Result<Option<u8>, Malformed> {
        Ok(self.number(slot)?.map(u8::from_le_bytes))
    }

    /// A `ushort`.
    #[inline]
    pub(in crate::wire) fn u16(&self, slot: u16) -> Result<Option<u16>, Malformed> {
        Ok(self.number(slot)?.map(u16::from_le_bytes))
    }

    /// A `uint`.
    #[inline]
    pub(in crate::wire) fn u32(&self, slot: u16) -> Result<Option<u32>, Malformed> {
        Ok(self.number(slot)?.map(u32::from_le_bytes))
    }

    /// A `ulong`.
    #[inline]
    pub(in crate::wire) fn u64(&self, slot: u16) -> Result<Option<u64>, Malformed> {
        Ok(self.number(slot)?.map(u64::from_le_bytes))
    }

    /// A `[ubyte]`.
    #[inline]
    pub(in crate::wire) fn bytes(&self, slot: u16) -> Result<Option<&'a [u8]>, Malformed> {
        self.field(slot).map(|at| bytes(self.message, at)).transpose()
    }

    /// A `string`, as bytes that are followed by its zero byte: its length can be judged before the text is looked at.
    #[inline]
    pub(in crate::wire) fn text(&self, slot: u16) -> Result<Option<&'a [u8]>, Malformed> {
        let Some(at) = self.field(slot) else { return Ok(None) };
        let start = target(self.message, at)?;
        let text = bytes(self.message, at)?;
        match self.message.get(start + OFFSET_LEN + text.len()) {
            Some(0) => Ok(Some(text)),
            _ => Err(Malformed),
        }
    }

    /// A vector of tables: how many, and each when it is asked for.
    pub(in crate::wire) fn tables(
        &self,
        slot: u16,
    ) -> Result<Option<impl ExactSizeIterator<Item = Result<Self, Malformed>>>, Malformed> {
        let Some(at) = self.field(slot) else { return Ok(None) };
        let start = target(self.message, at)?;
        let count =
            usize::try_from(u32::from_le_bytes(*number(self.message, start)?)).map_err(|_| Malformed)?;
        let (message, first) = (self.message, start + OFFSET_LEN);
        let end = count.checked_mul(OFFSET_LEN).and_then(|len| first.checked_add(len)).ok_or(Malformed)?;
        message.get(first..end).ok_or(Malformed)?;
        let table = move |index| Self::at(message, target(message, first + index * OFFSET_LEN)?);
        Ok(Some((0..count).map(table)))
    }
}

/// A number, aligned to its own length.
#[inline]
fn number<const LEN: usize>(message: &[u8], at: usize) -> Result<&[u8; LEN], Malformed> {
    if !at.is_multiple_of(LEN) {
        return Err(Malformed);
    }
    message.get(at..).and_then(<[u8]>::first_chunk).ok_or(Malformed)
}

/// Where the offset at `at` points to.
#[inline]
fn target(message: &[u8], at: usize) -> Result<usize, Malformed> {
    let offset = usize::try_from(u32::from_le_bytes(*number(message, at)?)).map_err(|_| Malformed)?;
    at.checked_add(offset).ok_or(Malformed)
}

/// The bytes of the vector to which the offset at `at` points.
#[inline]
fn bytes(message: &[u8], at: usize) -> Result<&[u8], Malformed> {
    let start = target(message, at)?;
    let len = usize::try_from(u32::from_le_bytes(*number(message, start)?)).map_err(|_| Malformed)?;
    let (_, rest) = message.split_at_checked(start + OFFSET_LEN).ok_or(Malformed)?;
    rest.get(..len).ok_or(Malformed)
}
