//! A message being read, field by field.

use super::{Encoding, Metadata, Source};
use crate::wire::{
    DecodeError,
    flatbuffer::{Malformed, Table},
    limits::{MESSAGE_MAX, METADATA_ENTRIES_MAX, METADATA_FIELD_MAX},
};
use bytes::Bytes;
use compact_str::CompactString;
use raystream_schema as schema;

/// A message being read, field by field.
pub(super) struct Reading<'a> {
    message: Source<'a>,
    table: Table<'a>,
    name: &'static str,
}

impl<'a> Reading<'a> {
    #[inline]
    pub(super) fn new(message: Source<'a>, name: &'static str) -> Result<Self, DecodeError> {
        if message.bytes().len() > MESSAGE_MAX {
            return Err(DecodeError::TooLong(name));
        }
        let table = Table::root(message.bytes()).map_err(|Malformed| DecodeError::InvalidEnvelope(name))?;
        Ok(Self { message, table, name })
    }

    #[inline]
    pub(super) fn checked<T>(&self, field: Result<T, Malformed>) -> Result<T, DecodeError> {
        field.map_err(|Malformed| DecodeError::InvalidEnvelope(self.name))
    }

    #[inline]
    pub(super) fn u8(&self, slot: u16) -> Result<u8, DecodeError> {
        Ok(self.checked(self.table.u8(slot))?.unwrap_or(0))
    }

    #[inline]
    pub(super) fn bool(&self, slot: u16, default: bool) -> Result<bool, DecodeError> {
        Ok(self.checked(self.table.u8(slot))?.map_or(default, |byte| byte != 0))
    }

    #[inline]
    pub(super) fn u16(&self, slot: u16) -> Result<u16, DecodeError> {
        Ok(self.checked(self.table.u16(slot))?.unwrap_or(0))
    }

    #[inline]
    pub(super) fn u32(&self, slot: u16) -> Result<u32, DecodeError> {
        Ok(self.checked(self.table.u32(slot))?.unwrap_or(0))
    }

    #[inline]
    pub(super) fn u64(&self, slot: u16) -> Result<u64, DecodeError> {
        Ok(self.checked(self.table.u64(slot))?.unwrap_or(0))
    }

    #[inline]
    pub(super) fn bytes(&self, slot: u16) -> Result<Option<Bytes>, DecodeError> {
        Ok(self.checked(self.table.bytes(slot))?.map(|bytes| self.message.field(bytes)))
    }

    /// A name that has to be there, of at most `max` bytes.
    #[inline]
    pub(super) fn name(
        &self,
        slot: u16,
        max: usize,
        what: &'static str,
    ) -> Result<CompactString, DecodeError> {
        self.str_of(&self.table, slot, max, what)?
            .map(CompactString::from)
            .ok_or(DecodeError::InvalidEnvelope(self.name))
    }

    /// A field that has to be there, of at most `max` bytes.
    #[inline]
    pub(super) fn text(&self, slot: u16, max: usize, what: &'static str) -> Result<String, DecodeError> {
        self.optional_text(slot, max, what)?.ok_or(DecodeError::InvalidEnvelope(self.name))
    }

    #[inline]
    pub(super) fn optional_text(
        &self,
        slot: u16,
        max: usize,
        what: &'static str,
    ) -> Result<Option<String>, DecodeError> {
        self.text_of(&self.table, slot, max, what)
    }

    #[inline]
    pub(super) fn text_of(
        &self,
        table: &Table<'a>,
        slot: u16,
        max: usize,
        what: &'static str,
    ) -> Result<Option<String>, DecodeError> {
        Ok(self.str_of(table, slot, max, what)?.map(str::to_owned))
    }

    #[inline]
    fn str_of(
        &self,
        table: &Table<'a>,
        slot: u16,
        max: usize,
        what: &'static str,
    ) -> Result<Option<&'a str>, DecodeError> {
        let Some(bytes) = self.checked(table.text(slot))? else { return Ok(None) };
        // The length first: entries may share their bytes, and looking at long ones again and again is work.
        if bytes.len() > max {
            return Err(DecodeError::TooLong(what));
        }
        std::str::from_utf8(bytes).map(Some).map_err(|_| DecodeError::InvalidEnvelope(self.name))
    }

    #[inline]
    pub(super) fn metadata(&self, slot: u16) -> Result<Metadata, DecodeError> {
        if self.table.place(slot).is_none() {
            return Ok(Metadata::new());
        }
        self.pairs(slot)
    }

    #[cold]
    fn pairs(&self, slot: u16) -> Result<Metadata, DecodeError> {
        let Some(pairs) = self.checked(self.table.tables(slot))? else { return Ok(Metadata::new()) };
        if pairs.len() > METADATA_ENTRIES_MAX {
            return Err(DecodeError::TooLong("metadata"));
        }
        let text = |pair: &Table<'a>, slot, what| {
            let text = self.text_of(pair, slot, METADATA_FIELD_MAX, what)?;
            text.ok_or(DecodeError::InvalidEnvelope(self.name))
        };
        let pair = |pair: Result<Table<'a>, Malformed>| {
            let pair = self.checked(pair)?;
            Ok((
                text(&pair, schema::KeyValue::VT_KEY, "metadata key")?,
                text(&pair, schema::KeyValue::VT_VALUE, "metadata value")?,
            ))
        };
        pairs.map(pair).collect()
    }

    #[inline]
    pub(super) fn encoding(&self, slot: u16) -> Result<Encoding, DecodeError> {
        let encoding = Encoding(self.u8(slot)?);
        encoding.variant_name().map(|_| encoding).ok_or(DecodeError::InvalidValue("encoding"))
    }

    /// Bytes that are left out when there are none.
    #[inline]
    pub(super) fn document(&self, slot: u16) -> Result<Bytes, DecodeError> {
        Ok(match self.checked(self.table.bytes(slot))? {
            Some(bytes) => self.message.field(bytes),
            None => Bytes::new(),
        })
    }

    #[inline]
    pub(super) fn idempotency_key(&self, slot: u16) -> Result<Option<[u8; 16]>, DecodeError> {
        if self.table.place(slot).is_none() {
            return Ok(None);
        }
        self.key(slot)
    }

    /// Apart, because most calls have none, and its bytes are not to be moved for them.
    #[inline(never)]
    fn key(&self, slot: u16) -> Result<Option<[u8; 16]>, DecodeError> {
        let key = self.checked(self.table.bytes(slot))?;
        key.map(|key| key.try_into().map_err(|_| DecodeError::InvalidValue("idempotency key"))).transpose()
    }
}
