//! Record protection: Noise transport messages with empty associated data, rekeyed by count (specification, "Record
//! protection").

use super::{ConnectionError, Limits};
use crate::noise::{CipherState, Transport};
use crate::wire::limits::{RECORDS_MAX, TAG_LEN};

/// Both directions of an established connection.
pub(super) struct RecordLayer {
    send: Direction,
    receive: Direction,
}

struct Direction {
    cipher: CipherState,
    /// Records so far; 0 <= `records` < [`RECORDS_MAX`].
    records: u64,
    rekey_interval: u64,
}

impl Direction {
    /// Counts one record, and replaces the key after each full interval.
    fn advance(&mut self) -> Result<(), ConnectionError> {
        self.records = self.records.checked_add(1).ok_or(ConnectionError::KeysExhausted)?;
        if self.records >= RECORDS_MAX {
            return Err(ConnectionError::KeysExhausted);
        }
        if self.records.is_multiple_of(self.rekey_interval) {
            self.cipher.rekey();
        }
        Ok(())
    }
}

impl RecordLayer {
    pub(super) fn new(send: CipherState, receive: CipherState, limits: &Limits) -> Self {
        let direction =
            |cipher| Direction { cipher, records: 0, rekey_interval: limits.rekey_interval_records.max(1) };
        Self { send: direction(send), receive: direction(receive) }
    }

    pub(super) fn from_transport(transport: Transport, limits: &Limits) -> Self {
        Self::new(transport.send, transport.receive, limits)
    }

    /// Encrypts `buffer[from..]` in place and appends the tag.
    pub(super) fn seal(&mut self, buffer: &mut Vec<u8>, from: usize) -> Result<(), ConnectionError> {
        let plaintext = &mut buffer[from..];
        let tag =
            self.send.cipher.encrypt_in_place(&[], plaintext).map_err(|_| ConnectionError::KeysExhausted)?;
        buffer.extend_from_slice(&tag);
        self.send.advance()
    }

    /// Decrypts a record body in place; the plaintext is its front.
    pub(super) fn open<'a>(&mut self, body: &'a mut [u8]) -> Result<&'a [u8], ConnectionError> {
        let Some((ciphertext, tag)) = body.split_last_chunk_mut::<TAG_LEN>() else {
            return Err(ConnectionError::Decryption);
        };
        self.receive
            .cipher
            .decrypt_in_place(&[], ciphertext, tag)
            .map_err(|_| ConnectionError::Decryption)?;
        self.receive.advance()?;
        Ok(ciphertext)
    }
}

#[cfg(test)]
mod tests {
    use super::*;
    use crate::noise::{HandshakeParameters, HandshakeState, Pattern, Role, StaticSecret, rust_crypto};

    /// Both ends of one NX handshake.
    fn ends() -> [RecordLayer; 2] {
        let key = StaticSecret::from_bytes([1; 32]);
        let mut ends = [Role::Initiator, Role::Responder].map(|role| {
            HandshakeState::new(HandshakeParameters {
                provider: rust_crypto(),
                pattern: Pattern::NX,
                cipher: crate::noise::CipherAlgorithm::ChaChaPoly,
                role,
                prologue: &[],
                s: (role == Role::Responder).then_some(&key),
                e: StaticSecret::from_bytes([if role == Role::Initiator { 2 } else { 3 }; 32]),
                rs: None,
                psks: &[],
            })
            .unwrap()
        });
        for turn in [0, 1] {
            let mut message = Vec::new();
            ends[turn].write_message(&[], &mut message).unwrap();
            ends[1 - turn].read_message(&message, &mut Vec::new()).unwrap();
        }
        ends.map(|end| RecordLayer::from_transport(end.into_transport().unwrap(), &Limits::default()))
    }

    #[test]
    fn a_direction_ends_before_two_to_the_forty_records() {
        let [mut client, mut server] = ends();
        client.send.records = RECORDS_MAX - 2;
        server.receive.records = RECORDS_MAX - 2;
        let mut bodies = [b"last".to_vec(), b"over".to_vec()];
        assert_eq!(client.seal(&mut bodies[0], 0), Ok(()));
        assert_eq!(server.open(&mut bodies[0]), Ok(&b"last"[..]));
        assert_eq!(client.seal(&mut bodies[1], 0), Err(ConnectionError::KeysExhausted));
        assert_eq!(server.open(&mut bodies[1]), Err(ConnectionError::KeysExhausted));
        assert_eq!(ConnectionError::KeysExhausted.code(), crate::wire::ErrorCode::INVALID_NONCE);
    }
}
