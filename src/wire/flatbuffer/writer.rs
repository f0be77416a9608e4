//! Writes a table from the front to the end: offset of the root, list of fields (vtable), table, what it refers to.

/// What a slot holds.
#[derive(Clone, Copy)]
pub(in crate::wire) enum Value<'a> {
    /// Nothing, or the schema's default: not written.
    Absent,
    U8(u8),
    U16(u16),
    U32(u32),
    U64(u64),
    Bytes(&'a [u8]),
    Text(&'a str),
    /// A vector of tables that have two texts each, in the slots that are named.
    Pairs([u16; 2], &'a [(String, String)]),
}

/// The first slot of a field list: behind the lengths of the list and of the table.
const FIRST_SLOT: usize = 4;
/// The table's own offset to its field list.
const BACK_LEN: usize = 4;

impl<'a> Value<'a> {
    /// A number that is left out when it is 0, as FlatBuffers does with defaults.
    pub(in crate::wire) fn u8(value: u8) -> Self {
        if value == 0 { Self::Absent } else { Self::U8(value) }
    }

    /// As [`u8`](Self::u8).
    pub(in crate::wire) fn u16(value: u16) -> Self {
        if value == 0 { Self::Absent } else { Self::U16(value) }
    }

    /// As [`u8`](Self::u8).
    pub(in crate::wire) fn u32(value: u32) -> Self {
        if value == 0 { Self::Absent } else { Self::U32(value) }
    }

    /// As [`u8`](Self::u8).
    pub(in crate::wire) fn u64(value: u64) -> Self {
        if value == 0 { Self::Absent } else { Self::U64(value) }
    }

    /// Bytes that are left out when there are none.
    pub(in crate::wire) fn bytes(value: &'a [u8]) -> Self {
        if value.is_empty() { Self::Absent } else { Self::Bytes(value) }
    }

    /// Bytes that may be there and empty.
    pub(in crate::wire) fn optional(value: Option<&'a [u8]>) -> Self {
        value.map_or(Self::Absent, Self::Bytes)
    }

    /// Bytes in the table.
    fn width(&self) -> usize {
        match self {
            Self::Absent => 0,
            Self::U8(_) => 1,
            Self::U16(_) => 2,
            Self::U32(_) | Self::Bytes(_) | Self::Text(_) | Self::Pairs(..) => 4,
            Self::U64(_) => 8,
        }
    }
}

/// Appends a message whose root table has these fields, each with its slot. Slots go up.
///
/// # Panics
/// When the message is longer than 4 GiB, which no caller comes near.
pub(in crate::wire) fn write<const N: usize>(out: &mut Vec<u8>, fields: [(u16, Value<'_>); N]) {
    let message = out.len();
    put_u32(out, 0);
    let table = table(out, message, &fields);
    set_offset(out, message, table);
}

/// The longest head: gap, list of nine slots, gap, table of nine fields.
const HEAD_MAX: usize = 128;

/// Appends field list, table, and what the table refers to; gives the place of the table. `message` is where the message
/// starts: positions are aligned from there.
fn table<const N: usize>(out: &mut Vec<u8>, message: usize, fields: &[(u16, Value<'_>); N]) -> usize {
    // Wide fields first, so that each is aligned without a gap.
    let mut count = [0; 9];
    let mut slots_end = FIRST_SLOT;
    for (slot, value) in fields {
        count[value.width()] += 1;
        if value.width() > 0 {
            slots_end = usize::from(*slot) + 2;
        }
    }
    let mut next = [0; 9];
    next[8] = BACK_LEN;
    next[4] = next[8] + 8 * count[8];
    next[2] = next[4] + 4 * count[4];
    next[1] = next[2] + 2 * count[2];
    let table_len = next[1] + count[1];
    // Everything up to here is written at once; `start` is its first byte, after which positions in `head` are counted.
    let start = out.len() - message;
    let list = start.next_multiple_of(2) - start;
    // Behind the offset to the list, the widest field is aligned to 8.
    let table = (start + list + slots_end + BACK_LEN).next_multiple_of(8) - BACK_LEN - start;
    let mut head = [0; HEAD_MAX];
    let head = &mut head[..table + table_len];
    set_u16(head, list, slots_end);
    set_u16(head, list + 2, table_len);
    set_u32(head, table, table - list);
    let mut places = [0; N];
    for ((slot, value), place) in fields.iter().zip(&mut places) {
        let width = value.width();
        if width == 0 {
            continue;
        }
        let at = table + next[width];
        *place = out.len() + at;
        set_u16(head, list + usize::from(*slot), next[width]);
        next[width] += width;
        match value {
            Value::U8(number) => head[at] = *number,
            Value::U16(number) => set(head, at, number.to_le_bytes()),
            Value::U32(number) => set(head, at, number.to_le_bytes()),
            Value::U64(number) => set(head, at, number.to_le_bytes()),
            _ => {}
        }
    }
    let table = out.len() + table;
    out.extend_from_slice(head);
    for ((_, value), place) in fields.iter().zip(places) {
        let at = match value {
            Value::Bytes(bytes) => vector(out, message, bytes),
            Value::Text(text) => {
                let at = vector(out, message, text.as_bytes());
                out.push(0);
                at
            }
            Value::Pairs(slots, pairs) => self::pairs(out, message, *slots, pairs),
            _ => continue,
        };
        set_offset(out, place, at);
    }
    table
}

/// Appends a vector of bytes; gives its place.
fn vector(out: &mut Vec<u8>, message: usize, bytes: &[u8]) -> usize {
    let at = pad(out, message, 4);
    put_u32(out, bytes.len());
    out.extend_from_slice(bytes);
    at
}

/// Appends a vector of offsets and then its tables.
fn pairs(out: &mut Vec<u8>, message: usize, slots: [u16; 2], pairs: &[(String, String)]) -> usize {
    let at = pad(out, message, 4);
    put_u32(out, pairs.len());
    let mut place = out.len();
    out.resize(place + 4 * pairs.len(), 0);
    for (key, value) in pairs {
        let fields = [(slots[0], Value::Text(key)), (slots[1], Value::Text(value))];
        let pair = table(out, message, &fields);
        set_offset(out, place, pair);
        place += 4;
    }
    at
}

/// Appends zeros until the next position is a multiple of `to`, which is at most 8; gives that position.
fn pad(out: &mut Vec<u8>, message: usize, to: usize) -> usize {
    let len = out.len() - message;
    let gap = len.next_multiple_of(to) - len;
    out.extend_from_slice(&[0; 8][..gap]);
    out.len()
}

fn put_u32(out: &mut Vec<u8>, number: usize) {
    out.extend_from_slice(&narrow(number).to_le_bytes());
}

fn set_u16(out: &mut [u8], at: usize, number: usize) {
    let number = u16::try_from(number).expect("a table has few fields");
    set(out, at, number.to_le_bytes());
}

fn set_u32(out: &mut [u8], at: usize, number: usize) {
    set(out, at, narrow(number).to_le_bytes());
}

/// Lets the offset at `place` point to `at`, which is behind it.
fn set_offset(out: &mut [u8], place: usize, at: usize) {
    set_u32(out, place, at - place);
}

fn set<const LEN: usize>(out: &mut [u8], at: usize, bytes: [u8; LEN]) {
    out[at..at + LEN].copy_from_slice(&bytes);
}

fn narrow(number: usize) -> u32 {
    u32::try_from(number).expect("a message is shorter than 4 GiB")
}
