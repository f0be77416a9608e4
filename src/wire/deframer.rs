//! Cuts a TCP byte stream into records: `len u16 | body` (specification, "Records").

use super::{DecodeError, limits::RECORD_BODY_MAX};

/// Bytes of a record's length.
pub const RECORD_HEAD_LEN: usize = 2;

/// How long the body of the record at the front of `input` is, behind the [`RECORD_HEAD_LEN`] bytes of its length; `None`
/// when it has not arrived whole.
///
/// Reserves nothing: `input` grows by what the transport has read, not by what the peer declares. `body_max` is the
/// longest body that is allowed now.
///
/// # Errors
/// A length of zero or over `body_max`.
pub fn deframe(input: &[u8], body_max: usize) -> Result<Option<usize>, DecodeError> {
    let Some((head, rest)) = input.split_first_chunk::<RECORD_HEAD_LEN>() else { return Ok(None) };
    let len = usize::from(u16::from_be_bytes(*head));
    if len == 0 {
        return Err(DecodeError::InvalidValue("record length"));
    }
    if len > body_max.min(RECORD_BODY_MAX) {
        return Err(DecodeError::TooLong("record"));
    }
    Ok((rest.len() >= len).then_some(len))
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn every_split_of_the_stream_gives_the_same_records() {
        let stream = [&[0, 3][..], b"abc", &[0, 1], b"d", &[0, 2], b"ef"].concat();
        for first in 0..=stream.len() {
            let (head, tail) = stream.split_at(first);
            let (mut input, mut records) = (Vec::new(), Vec::new());
            for part in [head, tail] {
                for byte in part {
                    input.push(*byte);
                    while let Some(len) = deframe(&input, 16).unwrap() {
                        records.push(input[RECORD_HEAD_LEN..][..len].to_vec());
                        input.drain(..RECORD_HEAD_LEN + len);
                    }
                }
            }
            assert_eq!(records, [b"abc".to_vec(), b"d".to_vec(), b"ef".to_vec()]);
            assert!(input.is_empty());
        }
    }

    #[test]
    fn refuses_a_length_before_the_body_arrives() {
        assert_eq!(deframe(&[0, 0], 16), Err(DecodeError::InvalidValue("record length")));
        assert_eq!(deframe(&[0, 17], 16), Err(DecodeError::TooLong("record")));
    }
}
