//! The two messages that nearly all calls are made of, written and read each as one piece: a call that has a method,
//! arguments and a deadline, and a response that has a result.
//!
//! They are the bytes that the general way writes, field by field, and what differs in anything is left to it: neither who
//! writes nor who reads can tell them apart but by the time.

use super::{Encoding, RpcCall, RpcResponse, Source};
use crate::wire::limits::{MESSAGE_MAX, NAME_MAX};
use bytes::Bytes;
use compact_str::CompactString;

/// Bytes of an offset, and of the length of a vector.
const OFFSET_LEN: usize = 4;

/// A call up to where its fields differ: the offset to the table; the list of slots (its length, the table's, then method,
/// encoding, arguments and deadline); filling; and of the table the offset to the list and that to the method.
const CALL: [u8; 28] = *b"\x14\0\0\0\x0c\0\x10\0\x04\0\0\0\x08\0\x0c\0\0\0\0\0\x10\0\0\0\x0c\0\0\0";
/// Where the offset to the arguments is, then the deadline, then the length of the method and the method.
const ARGS_PLACE: usize = CALL.len();
const DEADLINE: usize = ARGS_PLACE + OFFSET_LEN;
const METHOD_LEN: usize = DEADLINE + 4;
const METHOD: usize = METHOD_LEN + OFFSET_LEN;
/// Longest method that is written this way: no built-in one is half as long.
const METHOD_MAX: usize = 47;
/// A call without the bytes of its arguments, with the longest method.
const CALL_MAX: usize = METHOD + METHOD_MAX + 1 + OFFSET_LEN;

/// A response up to the length of its result: as [`CALL`], with the slots of encoding and result.
const RESPONSE: [u8; 20] = *b"\x0c\0\0\0\x08\0\x08\0\0\0\x04\0\x08\0\0\0\x04\0\0\0";

/// Where the arguments of a call are whose method has so many bytes: behind it and its zero byte, aligned.
#[inline]
const fn args_at(method_len: usize) -> usize {
    (METHOD + method_len + 1).next_multiple_of(OFFSET_LEN)
}

/// Appends a call all but the bytes of its arguments, which are given back; `None` when it is not of this kind.
#[inline]
pub(super) fn write_call<'a>(call: &'a RpcCall, out: &mut Vec<u8>) -> Option<&'a Bytes> {
    let RpcCall { method, encoding, args, deadline_ms, idempotency_key, metadata, streams, credit, times } =
        call;
    let has_more = *encoding != Encoding::Json
        || idempotency_key.is_some()
        || !metadata.is_empty()
        || *streams != 0
        || *credit != 0
        || *times;
    if has_more || *deadline_ms == 0 || args.is_empty() || method.len() > METHOD_MAX {
        return None;
    }
    let args_at = args_at(method.len());
    let mut head = [0; CALL_MAX];
    head[..CALL.len()].copy_from_slice(&CALL);
    put(&mut head, ARGS_PLACE, narrow(args_at - ARGS_PLACE)?);
    put(&mut head, DEADLINE, *deadline_ms);
    put(&mut head, METHOD_LEN, narrow(method.len())?);
    head[METHOD..METHOD + method.len()].copy_from_slice(method.as_bytes());
    put(&mut head, args_at, narrow(args.len())?);
    out.extend_from_slice(&head[..args_at + OFFSET_LEN]);
    Some(args)
}

/// Reads a call that [`write_call`] may have written; `None` when it is not, or is not valid.
#[inline]
pub(super) fn read_call(message: Source<'_>) -> Option<RpcCall> {
    let bytes = message.bytes();
    let (head, behind) = bytes.split_first_chunk::<METHOD>()?;
    if head[..CALL.len()] != CALL || bytes.len() > MESSAGE_MAX {
        return None;
    }
    let method_len = usize::try_from(number(head, METHOD_LEN)?).ok().filter(|len| *len <= NAME_MAX)?;
    let args_at = args_at(method_len);
    if number(head, ARGS_PLACE)? != narrow(args_at - ARGS_PLACE)? || behind.get(method_len) != Some(&0) {
        return None;
    }
    let method = std::str::from_utf8(&behind[..method_len]).ok()?;
    let args = vector(bytes, args_at)?;
    Some(RpcCall {
        method: CompactString::from(method),
        args: message.field(args),
        deadline_ms: number(head, DEADLINE)?,
        ..RpcCall::default()
    })
}

/// Appends a response all but the bytes of its result, which are given back; `None` when it is not of this kind.
#[inline]
pub(super) fn write_response<'a>(response: &'a RpcResponse, out: &mut Vec<u8>) -> Option<&'a Bytes> {
    let RpcResponse { encoding, result, trailers } = response;
    if *encoding != Encoding::Json || result.is_empty() || !trailers.is_empty() {
        return None;
    }
    let mut head = [0; RESPONSE.len() + OFFSET_LEN];
    head[..RESPONSE.len()].copy_from_slice(&RESPONSE);
    put(&mut head, RESPONSE.len(), narrow(result.len())?);
    out.extend_from_slice(&head);
    Some(result)
}

/// Reads a response that [`write_response`] may have written; `None` when it is not, or is not valid.
#[inline]
pub(super) fn read_response(message: Source<'_>) -> Option<RpcResponse> {
    let bytes = message.bytes();
    if !bytes.starts_with(&RESPONSE) || bytes.len() > MESSAGE_MAX {
        return None;
    }
    let result = vector(bytes, RESPONSE.len())?;
    Some(RpcResponse { result: message.field(result), ..RpcResponse::default() })
}

/// The bytes of the vector whose length is at `at`.
#[inline]
fn vector(bytes: &[u8], at: usize) -> Option<&[u8]> {
    let len = usize::try_from(number(bytes, at)?).ok()?;
    bytes.get(at + OFFSET_LEN..)?.get(..len)
}

#[inline]
fn number(bytes: &[u8], at: usize) -> Option<u32> {
    bytes.get(at..)?.first_chunk().map(|bytes| u32::from_le_bytes(*bytes))
}

#[inline]
fn put(bytes: &mut [u8], at: usize, number: u32) {
    bytes[at..at + OFFSET_LEN].copy_from_slice(&number.to_le_bytes());
}

/// `None` for what no message can hold.
#[inline]
fn narrow(len: usize) -> Option<u32> {
    u32::try_from(len).ok()
}

#[cfg(test)]
mod tests {
    use super::*;
    use crate::wire::{envelope::messages, flatbuffer};
    use proptest::prelude::*;

    fn call() -> impl Strategy<Value = RpcCall> {
        let method = prop_oneof!["[a-z.é]{0,60}", Just("sys.echo".to_owned())];
        let args = prop::collection::vec(any::<u8>(), 0..70);
        (method, args, prop_oneof![Just(0), any::<u32>()], 0..12_u8).prop_map(
            |(method, args, deadline_ms, more)| {
                let mut call =
                    RpcCall { method: method.into(), args: args.into(), deadline_ms, ..RpcCall::default() };
                match more {
                    1 => call.encoding = Encoding::Raw,
                    2 => call.idempotency_key = Some([1; 16]),
                    3 => call.metadata = vec![("a".into(), "b".into())],
                    4 => call.streams = 1,
                    5 => call.credit = 9,
                    6 => call.times = true,
                    _ => {}
                }
                call
            },
        )
    }

    fn response() -> impl Strategy<Value = RpcResponse> {
        (prop::collection::vec(any::<u8>(), 0..70), 0..6_u8).prop_map(|(result, more)| {
            let mut response = RpcResponse { result: result.into(), ..RpcResponse::default() };
            match more {
                1 => response.encoding = Encoding::Raw,
                2 => response.trailers = vec![("a".into(), "b".into())],
                _ => {}
            }
            response
        })
    }

    /// The message as one of the two ways writes it, behind something else.
    fn written<'a>(write: impl FnOnce(&mut Vec<u8>) -> Option<&'a Bytes>) -> Vec<u8> {
        let mut out = b"abc".to_vec();
        if let Some(document) = write(&mut out) {
            out.extend_from_slice(document);
        }
        out.split_off(3)
    }

    #[test]
    fn what_nearly_all_calls_are_is_of_this_kind() {
        let call = RpcCall {
            method: "table.get".into(),
            args: Bytes::from_static(b"{}"),
            deadline_ms: 30_000,
            ..RpcCall::default()
        };
        assert!(write_call(&call, &mut Vec::new()).is_some());
        let response = RpcResponse { result: Bytes::from_static(b"{}"), ..RpcResponse::default() };
        assert!(write_response(&response, &mut Vec::new()).is_some());
    }

    proptest! {
        #[test]
        fn a_call_is_the_bytes_that_the_general_way_gives(call in call(), at: prop::sample::Index, change: u8) {
            let general = written(|out| flatbuffer::write(out, &call));
            if write_call(&call, &mut Vec::new()).is_some() {
                prop_assert_eq!(&written(|out| write_call(&call, out)), &general);
                prop_assert_eq!(read_call(Source::Borrowed(&general)), Some(call));
            }
            // Whatever is changed in it: it is read as the general way reads it, or left to that.
            let mut changed = general;
            let at = at.index(changed.len());
            changed[at] = change;
            for end in [changed.len(), at] {
                if let Some(read) = read_call(Source::Borrowed(&changed[..end])) {
                    prop_assert_eq!(messages::read_call(Source::Borrowed(&changed[..end])), Ok(read));
                }
            }
        }

        #[test]
        fn a_response_is_the_bytes_that_the_general_way_gives(response in response(), at: prop::sample::Index, change: u8) {
            let general = written(|out| flatbuffer::write(out, &response));
            if write_response(&response, &mut Vec::new()).is_some() {
                prop_assert_eq!(&written(|out| write_response(&response, out)), &general);
                prop_assert_eq!(read_response(Source::Borrowed(&general)), Some(response));
            }
            let mut changed = general;
            let at = at.index(changed.len());
            changed[at] = change;
            for end in [changed.len(), at] {
                if let Some(read) = read_response(Source::Borrowed(&changed[..end])) {
                    prop_assert_eq!(messages::read_response(Source::Borrowed(&changed[..end])), Ok(read));
                }
            }
        }
    }
}
