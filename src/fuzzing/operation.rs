//! What a fuzzer lets the two ends of a connection do, read from bytes.

/// Which end.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub(super) enum End {
    Client,
    Server,
}

/// One step. An index picks one of the streams there are.
#[derive(Clone, Debug, PartialEq, Eq)]
pub(super) enum Operation {
    /// With arguments of this length.
    Call(usize),
    Subscribe {
        credit: u32,
    },
    Cancel(usize),
    Unsubscribe(usize),
    Credit {
        index: usize,
        items: u32,
    },
    Respond {
        index: usize,
        len: usize,
    },
    RespondError(usize),
    SendSubscribed(usize),
    SendEvent {
        index: usize,
        len: usize,
    },
    EndSubscription(usize),
    /// An item of a call, from this end.
    SendItem(End, usize, usize),
    /// The client has no more items for a call.
    EndItems(usize),
    /// This end lets the other send more items of a call.
    CallCredit(End, usize, u32),
    GoAway,
    Heartbeat(End),
    /// Brings so many bytes that are under way to their end.
    Deliver(End, usize),
    /// Milliseconds.
    Advance(u64),
    Close(End),
    /// Ends the byte stream towards this end.
    Eof(End),
    /// Gives this end a record with any plaintext, as a peer without manners would.
    InjectPlaintext(End, Vec<u8>),
    /// Gives this end any bytes.
    InjectBytes(End, Vec<u8>),
}

/// Reads operations until the bytes end.
pub(super) struct Operations<'a>(pub(super) &'a [u8]);

impl Operations<'_> {
    fn u8(&mut self) -> Option<u8> {
        let (first, rest) = self.0.split_first()?;
        self.0 = rest;
        Some(*first)
    }

    fn u16(&mut self) -> Option<u16> {
        Some(u16::from_be_bytes([self.u8()?, self.u8()?]))
    }

    fn index(&mut self) -> Option<usize> {
        self.u8().map(usize::from)
    }

    fn end(&mut self) -> Option<End> {
        self.u8().map(|byte| if byte % 2 == 0 { End::Client } else { End::Server })
    }

    /// Mostly short; some around the payload of one frame, few up to a mebibyte: long messages take the fuzzer's time.
    fn len(&mut self) -> Option<usize> {
        Some(match usize::from(self.u16()?) {
            n @ 0..0xe000 => n / 8,
            n @ 0xe000..0xf800 => n - 0xe000 + 14_000,
            n => (n - 0xf800) * 512,
        })
    }

    /// Small numbers one by one, and those near the limit.
    fn credit(&mut self) -> Option<u32> {
        let n = u32::from(self.u16()?);
        Some(if n < 0x8000 { n } else { n << 16 })
    }

    fn bytes(&mut self) -> Option<Vec<u8>> {
        let len = usize::from(self.u8()?).min(self.0.len());
        let (bytes, rest) = self.0.split_at(len);
        self.0 = rest;
        Some(bytes.to_vec())
    }
}

impl Iterator for Operations<'_> {
    type Item = Operation;

    fn next(&mut self) -> Option<Operation> {
        Some(match self.u8()? % 21 {
            0 => Operation::Call(self.len()?),
            1 => Operation::Subscribe { credit: self.credit()? },
            2 => Operation::Cancel(self.index()?),
            3 => Operation::Unsubscribe(self.index()?),
            4 => Operation::Credit { index: self.index()?, items: self.credit()? },
            5 => Operation::Respond { index: self.index()?, len: self.len()? },
            6 => Operation::RespondError(self.index()?),
            7 => Operation::SendSubscribed(self.index()?),
            8 => Operation::SendEvent { index: self.index()?, len: self.len()? },
            9 => Operation::EndSubscription(self.index()?),
            10 => Operation::GoAway,
            11 => Operation::Heartbeat(self.end()?),
            12 => Operation::Deliver(self.end()?, self.len()?),
            13 => Operation::Advance(u64::from(self.u16()?)),
            14 => Operation::Close(self.end()?),
            15 => Operation::Eof(self.end()?),
            16 => Operation::InjectPlaintext(self.end()?, self.bytes()?),
            17 => Operation::InjectBytes(self.end()?, self.bytes()?),
            18 => Operation::SendItem(self.end()?, self.index()?, self.len()?),
            19 => Operation::EndItems(self.index()?),
            _ => Operation::CallCredit(self.end()?, self.index()?, self.credit()?),
        })
    }
}
