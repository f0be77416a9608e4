//! Writes a table from the front to the end: offset of the root, list of fields (vtable), table, what it refers to. Its
//! document comes last, so that whoever sends a long one need not copy it.
//!
//! Fields are named twice, to be measured and to be written, and what is written is straight code for each message: the
//! few fields of a call cost less to write than to describe.

use bytes::Bytes;

/// Takes the fields of a table, each with its slot. Slots go up. Numbers that are 0 are left out, as FlatBuffers does
/// with defaults.
pub(in crate::wire) trait Fields<'a> {
    /// A `ubyte`, a `bool` or an enumeration of one byte.
    fn u8(&mut self, slot: u16, value: u8);
    /// A `ushort`.
    fn u16(&mut self, slot: u16, value: u16);
    /// A `uint`.
    fn u32(&mut self, slot: u16, value: u32);
    /// A `ulong`.
    fn u64(&mut self, slot: u16, value: u64);
    /// A `bool` that is false, where the default is true.
    fn not(&mut self, slot: u16);
    /// A `[ubyte]`, which may be there and empty.
    fn bytes(&mut self, slot: u16, value: &'a [u8]);
    /// A `string`.
    fn text(&mut self, slot: u16, value: &'a str);
    /// The document of a message, of which there is one at most.
    fn document(&mut self, slot: u16, value: &'a Bytes);
    /// A vector of tables that have two texts each, in the slots that are named.
    fn pairs(&mut self, slot: u16, slots: [u16; 2], pairs: &'a [(String, String)]);
}

/// What has fields.
pub(in crate::wire) trait Written {
    /// Names the fields that are there.
    fn fields<'a>(&'a self, to: &mut impl Fields<'a>);
}

/// The first slot of a field list: behind the lengths of the list and of the table.
const FIRST_SLOT: usize = 4;
/// The table's own offset to its field list.
const BACK_LEN: usize = 4;
/// Bytes of an offset, and of the length of a vector.
const OFFSET_LEN: usize = 4;

/// Appends a message whose root table this is. The bytes of the document are given back: they follow, and end the message.
///
/// # Panics
/// When the message is longer than 4 GiB, which no caller comes near.
#[inline]
pub(in crate::wire) fn write<'a>(out: &mut Vec<u8>, root: &'a impl Written) -> Option<&'a Bytes> {
    let message = out.len();
    out.extend_from_slice(&[0; OFFSET_LEN]);
    let (table, document) = table(out, message, root);
    set_offset(out, message, table);
    let (place, document) = document?;
    let at = pad(out, message);
    put_len(out, document.len());
    set_offset(out, place, at);
    Some(document)
}

/// Appends field list, table, and what the table refers to but its document; gives the place of the table, and the document
/// with the place of the offset to it. `message` is where the message starts: positions are aligned from there.
#[inline]
fn table<'a>(
    out: &mut Vec<u8>,
    message: usize,
    fields: &'a impl Written,
) -> (usize, Option<(usize, &'a Bytes)>) {
    let mut size = Size { of_8: 0, of_4: 0, of_2: 0, of_1: 0, slots_end: FIRST_SLOT };
    fields.fields(&mut size);
    // Wide fields first, so that each is aligned without a gap.
    let next_4 = BACK_LEN + size.of_8;
    let next_2 = next_4 + size.of_4;
    let next_1 = next_2 + size.of_2;
    let table_len = next_1 + size.of_1;
    let start = out.len() - message;
    let list = start.next_multiple_of(2);
    // Behind the offset to the list, the widest field is aligned to 8.
    let table = (list + size.slots_end + BACK_LEN).next_multiple_of(8) - BACK_LEN;
    out.resize(message + table + table_len, 0);
    let (list, table) = (message + list, message + table);
    set_u16(out, list, size.slots_end);
    set_u16(out, list + 2, table_len);
    set_offset_between(out, table, table - list);
    let mut writer =
        Writer { out, message, list, table, next_8: BACK_LEN, next_4, next_2, next_1, document: None };
    fields.fields(&mut writer);
    (table, writer.document)
}

/// The bytes that fields take in a table, by their width, and where the list of its slots ends.
struct Size {
    of_8: usize,
    of_4: usize,
    of_2: usize,
    of_1: usize,
    slots_end: usize,
}

impl Size {
    #[inline]
    fn offset(&mut self, slot: u16) {
        self.of_4 += OFFSET_LEN;
        self.slots_end = usize::from(slot) + 2;
    }
}

impl<'a> Fields<'a> for Size {
    #[inline]
    fn u8(&mut self, slot: u16, value: u8) {
        if value != 0 {
            self.not(slot);
        }
    }

    #[inline]
    fn u16(&mut self, slot: u16, value: u16) {
        if value != 0 {
            self.of_2 += 2;
            self.slots_end = usize::from(slot) + 2;
        }
    }

    #[inline]
    fn u32(&mut self, slot: u16, value: u32) {
        if value != 0 {
            self.offset(slot);
        }
    }

    #[inline]
    fn u64(&mut self, slot: u16, value: u64) {
        if value != 0 {
            self.of_8 += 8;
            self.slots_end = usize::from(slot) + 2;
        }
    }

    #[inline]
    fn not(&mut self, slot: u16) {
        self.of_1 += 1;
        self.slots_end = usize::from(slot) + 2;
    }

    #[inline]
    fn bytes(&mut self, slot: u16, _value: &'a [u8]) {
        self.offset(slot);
    }

    #[inline]
    fn text(&mut self, slot: u16, _value: &'a str) {
        self.offset(slot);
    }

    #[inline]
    fn document(&mut self, slot: u16, _value: &'a Bytes) {
        self.offset(slot);
    }

    #[inline]
    fn pairs(&mut self, slot: u16, _slots: [u16; 2], _pairs: &'a [(String, String)]) {
        self.offset(slot);
    }
}

/// A table whose room is made. `next_*` are where the next field of that width goes, from the start of the table; `list` and
/// `table` count from the start of `out`.
struct Writer<'a, 'o> {
    out: &'o mut Vec<u8>,
    message: usize,
    list: usize,
    table: usize,
    next_8: usize,
    next_4: usize,
    next_2: usize,
    next_1: usize,
    document: Option<(usize, &'a Bytes)>,
}

impl Writer<'_, '_> {
    #[inline]
    fn number<const LEN: usize>(&mut self, slot: u16, at: usize, value: [u8; LEN]) {
        set_u16(self.out, self.list + usize::from(slot), at);
        set(self.out, self.table + at, value);
    }

    /// Gives a field the next place of an offset; gives that place, from the start of `out`.
    #[inline]
    fn offset(&mut self, slot: u16) -> usize {
        let at = self.next_4;
        self.next_4 += OFFSET_LEN;
        set_u16(self.out, self.list + usize::from(slot), at);
        self.table + at
    }
}

impl<'a> Fields<'a> for Writer<'a, '_> {
    #[inline]
    fn u8(&mut self, slot: u16, value: u8) {
        if value != 0 {
            self.number(slot, self.next_1, [value]);
            self.next_1 += 1;
        }
    }

    #[inline]
    fn u16(&mut self, slot: u16, value: u16) {
        if value != 0 {
            self.number(slot, self.next_2, value.to_le_bytes());
            self.next_2 += 2;
        }
    }

    #[inline]
    fn u32(&mut self, slot: u16, value: u32) {
        if value != 0 {
            self.number(slot, self.next_4, value.to_le_bytes());
            self.next_4 += 4;
        }
    }

    #[inline]
    fn u64(&mut self, slot: u16, value: u64) {
        if value != 0 {
            self.number(slot, self.next_8, value.to_le_bytes());
            self.next_8 += 8;
        }
    }

    #[inline]
    fn not(&mut self, slot: u16) {
        self.number(slot, self.next_1, [0]);
        self.next_1 += 1;
    }

    #[inline]
    fn bytes(&mut self, slot: u16, value: &'a [u8]) {
        let place = self.offset(slot);
        let at = vector(self.out, self.message, value);
        set_offset(self.out, place, at);
    }

    #[inline]
    fn text(&mut self, slot: u16, value: &'a str) {
        self.bytes(slot, value.as_bytes());
        self.out.push(0);
    }

    #[inline]
    fn document(&mut self, slot: u16, value: &'a Bytes) {
        self.document = Some((self.offset(slot), value));
    }

    #[inline]
    fn pairs(&mut self, slot: u16, slots: [u16; 2], pairs: &'a [(String, String)]) {
        let place = self.offset(slot);
        let at = self::pairs(self.out, self.message, slots, pairs);
        set_offset(self.out, place, at);
    }
}

/// Appends a vector of bytes; gives its place.
#[inline]
fn vector(out: &mut Vec<u8>, message: usize, bytes: &[u8]) -> usize {
    let at = pad(out, message);
    put_len(out, bytes.len());
    out.extend_from_slice(bytes);
    at
}

/// Appends a vector of offsets and then its tables.
#[cold]
fn pairs(out: &mut Vec<u8>, message: usize, slots: [u16; 2], pairs: &[(String, String)]) -> usize {
    struct Pair<'a>([u16; 2], &'a (String, String));
    impl Written for Pair<'_> {
        fn fields<'a>(&'a self, to: &mut impl Fields<'a>) {
            let Self(slots, (key, value)) = self;
            to.text(slots[0], key);
            to.text(slots[1], value);
        }
    }
    let at = pad(out, message);
    put_len(out, pairs.len());
    let mut place = out.len();
    out.resize(place + OFFSET_LEN * pairs.len(), 0);
    for pair in pairs {
        let (pair, _) = table(out, message, &Pair(slots, pair));
        set_offset(out, place, pair);
        place += OFFSET_LEN;
    }
    at
}

/// Appends zeros until the next position is a multiple of 4; gives that position.
#[inline]
fn pad(out: &mut Vec<u8>, message: usize) -> usize {
    let len = out.len() - message;
    let gap = len.next_multiple_of(OFFSET_LEN) - len;
    out.extend_from_slice(&[0; OFFSET_LEN][..gap]);
    out.len()
}

#[inline]
fn put_len(out: &mut Vec<u8>, len: usize) {
    out.extend_from_slice(&narrow(len).to_le_bytes());
}

#[inline]
fn set_u16(out: &mut [u8], at: usize, number: usize) {
    let number = u16::try_from(number).expect("a table has few fields");
    set(out, at, number.to_le_bytes());
}

/// Lets the offset at `place` point to `at`, which is behind it.
#[inline]
fn set_offset(out: &mut [u8], place: usize, at: usize) {
    set_offset_between(out, place, at - place);
}

#[inline]
fn set_offset_between(out: &mut [u8], place: usize, distance: usize) {
    set(out, place, narrow(distance).to_le_bytes());
}

#[inline]
fn set<const LEN: usize>(out: &mut [u8], at: usize, bytes: [u8; LEN]) {
    out[at..at + LEN].copy_from_slice(&bytes);
}

#[inline]
fn narrow(number: usize) -> u32 {
    u32::try_from(number).expect("a message is shorter than 4 GiB")
}
