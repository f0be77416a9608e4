//! Inputs that end a connection, each with the rule that it breaks: the tests run them, and the vectors publish them.

use super::{
    call, event,
    raw::{frame, heartbeat},
    response, subscribe, subscribed,
};
use raystream::wire::{
    ErrorCode, FrameType as F,
    envelope::{CLIENT_ITEMS, Envelope, RpcCall, SERVER_ITEMS},
    frame::{FLAG_END, FLAG_MORE},
};

/// Plaintexts of records for an established connection; all but the last are taken.
pub struct Refusal {
    pub name: &'static str,
    pub rule: &'static str,
    pub records: Vec<Vec<u8>>,
    pub code: ErrorCode,
}

fn refusal(name: &'static str, rule: &'static str, records: Vec<Vec<u8>>) -> Refusal {
    Refusal { name, rule, records, code: ErrorCode::PROTOCOL_ERROR }
}

pub fn message(value: &impl Envelope) -> Vec<u8> {
    value.to_bytes().to_vec()
}

fn call_frame(stream: u32) -> Vec<u8> {
    frame(F::RPC_CALL, 0, stream, &message(&call("m", "{}")))
}

fn items_frame(stream: u32, streams: u8, credit: u32) -> Vec<u8> {
    frame(F::RPC_CALL, 0, stream, &message(&RpcCall { streams, credit, ..call("m", "{}") }))
}

fn subscribe_frame(stream: u32, credit: u32) -> Vec<u8> {
    frame(F::SUBSCRIBE, 0, stream, &message(&subscribe("t", credit)))
}

fn credit_frame(stream: u32, items: u32) -> Vec<u8> {
    frame(F::CREDIT, 0, stream, &items.to_be_bytes())
}

/// Fragments of 16 KiB without an end, on one stream or on several.
fn fragments(streams: &[u32], each: usize) -> Vec<Vec<u8>> {
    let piece = vec![0; 16_384];
    (0..each)
        .flat_map(|_| streams.iter().map(|stream| frame(F::RPC_CALL, FLAG_MORE, *stream, &piece)))
        .collect()
}

/// Faults of bytes that either side refuses.
fn of_both() -> Vec<Refusal> {
    let mut cut_frame = heartbeat(1, false);
    cut_frame.pop();
    let mut long_frame = vec![0x30, 0, 0, 0, 0, 0, 0x40, 0x01];
    long_frame.resize(8 + 16_385, 0);
    let with_flag = |flag: u8| frame(F::HEARTBEAT, flag, 0, &[0; 8]);
    let long_reason = [&[0, 32][..], &[b'x'; 257]].concat();
    vec![
        refusal("record without a frame", "REC-5", vec![vec![]]),
        refusal("record that ends inside a frame head", "REC-5", vec![vec![0x30, 0, 0, 0]]),
        refusal("record that ends inside a payload", "REC-5", vec![cut_frame.clone()]),
        refusal("second frame is cut", "REC-5", vec![[heartbeat(1, false), cut_frame].concat()]),
        refusal("type 0x00", "FRM-1", vec![frame(F(0), 0, 1, &[])]),
        refusal("type 0x01, as of HANDSHAKE_INIT", "FRM-1", vec![frame(F(1), 0, 1, &[])]),
        refusal("type 0x02, as of HANDSHAKE_RESPONSE", "FRM-1", vec![frame(F(2), 0, 1, &[])]),
        refusal("type 0x77", "FRM-1", vec![frame(F(0x77), 0, 1, &[])]),
        refusal("flag 0x80 on HEARTBEAT", "FRM-2", vec![with_flag(0x80)]),
        refusal("MORE on HEARTBEAT", "FRM-2", vec![with_flag(FLAG_MORE)]),
        refusal("MORE on CLOSE", "FRM-2", vec![frame(F::CLOSE, FLAG_MORE, 0, &[0, 32])]),
        refusal("length over 16,384", "FRM-3", vec![long_frame]),
        refusal("length over 16,384 without a payload", "FRM-3", vec![vec![0x30, 0, 0, 0, 0, 0, 0xff, 0xff]]),
        refusal("END with an item", "FRM-5", vec![frame(F::RPC_DATA, FLAG_END, 1, b"x")]),
        refusal("END with MORE", "FRM-5", vec![frame(F::RPC_DATA, FLAG_END | FLAG_MORE, 1, b"x")]),
        refusal("END on HEARTBEAT", "FRM-2", vec![with_flag(FLAG_END)]),
        refusal("HEARTBEAT of seven bytes", "FRM-6", vec![frame(F::HEARTBEAT, 0, 0, &[0; 7])]),
        refusal("HEARTBEAT of nine bytes", "FRM-6", vec![frame(F::HEARTBEAT, 0, 0, &[0; 9])]),
        refusal("echo that answers nothing", "HBT-3", vec![heartbeat(0x77, true)]),
        refusal("CLOSE without a code", "FRM-6", vec![frame(F::CLOSE, 0, 0, &[0])]),
        refusal("CLOSE with a reason of 257 bytes", "FRM-6", vec![frame(F::CLOSE, 0, 0, &long_reason)]),
        refusal(
            "CLOSE with a reason that is not UTF-8",
            "FRM-6",
            vec![frame(F::CLOSE, 0, 0, &[0, 32, 0xff])],
        ),
        refusal(
            "frame after CLOSE",
            "CLS-3",
            vec![[frame(F::CLOSE, 0, 0, &[0, 32]), heartbeat(1, false)].concat()],
        ),
        refusal("HEARTBEAT on a stream", "STR-3", vec![frame(F::HEARTBEAT, 0, 1, &[0; 8])]),
        refusal("CLOSE on a stream", "STR-3", vec![frame(F::CLOSE, 0, 1, &[0, 32])]),
    ]
}

/// Faults of a client that a server refuses. The connection has no stream yet.
pub fn of_client() -> Vec<Refusal> {
    let mut all = of_both();
    let mut more_than_a_message = fragments(&[1], 64);
    more_than_a_message.push(frame(F::RPC_CALL, 0, 1, b"x"));
    let mut too_many_streams: Vec<_> =
        (0..65).map(|n| frame(F::RPC_CALL, FLAG_MORE, 2 * n + 1, b"x")).collect();
    let last = too_many_streams.split_off(64);
    let too_many_streams = [vec![too_many_streams.concat()], last].concat();
    let open_subscription = subscribe_frame(1, 1);
    let more = |stream, payload: &[u8]| frame(F::RPC_CALL, FLAG_MORE, stream, payload);
    all.extend([
        refusal("RPC_RESPONSE to a server", "FRM-4", vec![frame(F::RPC_RESPONSE, 0, 1, b"x")]),
        refusal("RPC_ERROR to a server", "FRM-4", vec![frame(F::RPC_ERROR, 0, 1, b"x")]),
        refusal("EVENT to a server", "FRM-4", vec![frame(F::EVENT, 0, 1, b"x")]),
        refusal("SUBSCRIBED to a server", "FRM-4", vec![frame(F::SUBSCRIBED, 0, 1, b"x")]),
        refusal("GOAWAY to a server", "FRM-4", vec![frame(F::GOAWAY, 0, 0, &[0; 10])]),
        refusal("ACK on RPC_CALL", "FRM-2", vec![frame(F::RPC_CALL, 2, 1, b"x")]),
        refusal("MORE on RPC_CANCEL", "FRM-2", vec![frame(F::RPC_CANCEL, FLAG_MORE, 1, b"x")]),
        refusal("RPC_CANCEL with a payload", "FRM-6", vec![call_frame(1), frame(F::RPC_CANCEL, 0, 1, b"x")]),
        refusal(
            "UNSUBSCRIBE with a payload",
            "FRM-6",
            vec![open_subscription.clone(), frame(F::UNSUBSCRIBE, 0, 1, b"x")],
        ),
        refusal("CREDIT of three bytes", "FRM-6", vec![frame(F::CREDIT, 0, 1, &[0, 0, 1])]),
        refusal("CREDIT of five bytes", "FRM-6", vec![frame(F::CREDIT, 0, 1, &[0, 0, 0, 1, 0])]),
        refusal("call on stream 0", "STR-3", vec![call_frame(0)]),
        refusal("call on stream 2", "STR-2", vec![call_frame(2)]),
        refusal("subscription on stream 2", "STR-2", vec![subscribe_frame(2, 0)]),
        refusal("stream number that goes back", "STR-2", vec![call_frame(5), call_frame(3)]),
        refusal("stream number used twice", "STR-2", vec![call_frame(1), call_frame(1)]),
        refusal("RPC_CANCEL on a stream never opened", "STR-5", vec![frame(F::RPC_CANCEL, 0, 1, &[])]),
        refusal(
            "RPC_CANCEL on an even stream",
            "STR-5",
            vec![call_frame(3), frame(F::RPC_CANCEL, 0, 2, &[])],
        ),
        refusal("UNSUBSCRIBE on a stream never opened", "STR-5", vec![frame(F::UNSUBSCRIBE, 0, 1, &[])]),
        refusal("CREDIT on a stream never opened", "STR-5", vec![credit_frame(1, 1)]),
        refusal(
            "RPC_CANCEL on a subscription",
            "STR-5",
            vec![open_subscription.clone(), frame(F::RPC_CANCEL, 0, 1, &[])],
        ),
        refusal("UNSUBSCRIBE on a call", "STR-5", vec![call_frame(1), frame(F::UNSUBSCRIBE, 0, 1, &[])]),
        refusal("CREDIT on a call without items", "STR-5", vec![call_frame(1), credit_frame(1, 1)]),
        refusal("RPC_DATA on a stream never opened", "STR-5", vec![frame(F::RPC_DATA, 0, 1, b"x")]),
        refusal(
            "RPC_DATA on a call without items",
            "FLW-4",
            vec![call_frame(1), frame(F::RPC_DATA, 0, 1, b"x")],
        ),
        refusal(
            "RPC_DATA on a subscription",
            "STR-5",
            vec![open_subscription.clone(), frame(F::RPC_DATA, 0, 1, b"x")],
        ),
        refusal(
            "RPC_DATA without credit",
            "FLW-4",
            vec![items_frame(1, CLIENT_ITEMS | SERVER_ITEMS, 1), frame(F::RPC_DATA, 0, 1, b"x")],
        ),
        refusal(
            "END twice",
            "FLW-4",
            vec![
                items_frame(1, CLIENT_ITEMS, 0),
                [frame(F::RPC_DATA, FLAG_END, 1, &[]), frame(F::RPC_DATA, FLAG_END, 1, &[])].concat(),
            ],
        ),
        refusal("event for a topic on stream 2", "STR-2", vec![frame(F::PUBLISH, 0, 2, b"x")]),
        refusal(
            "RPC_CANCEL inside a message",
            "STR-10",
            vec![more(1, b"x"), frame(F::RPC_CANCEL, 0, 1, &[])],
        ),
        refusal(
            "UNSUBSCRIBE inside a message",
            "STR-10",
            vec![more(1, b"x"), frame(F::UNSUBSCRIBE, 0, 1, &[])],
        ),
        refusal("fragment of another type", "STR-11", vec![more(1, b"x"), frame(F::SUBSCRIBE, 0, 1, b"y")]),
        refusal("empty fragment", "STR-12", vec![more(1, &[])]),
        refusal("message of 1,048,577 bytes", "STR-13", more_than_a_message),
        refusal("unfinished messages of more than 2 MiB", "STR-13", {
            let mut records = fragments(&[1, 3, 5], 42);
            records.push(more(7, &vec![0; 16_384]));
            records.push(more(9, &vec![0; 16_384]));
            records.push(more(11, b"x"));
            records
        }),
        refusal("unfinished messages on 65 streams", "STR-13", too_many_streams),
        refusal("CREDIT of zero", "FLW-2", vec![open_subscription.clone(), credit_frame(1, 0)]),
        refusal(
            "more open credit than fits",
            "FLW-2",
            vec![open_subscription, credit_frame(1, 0x7fff_fffe), credit_frame(1, 1)],
        ),
    ]);
    all
}

/// Faults of a server that a client refuses. The client has called on stream 1 and subscribed, with a credit of one, on
/// stream 3.
pub fn of_server() -> Vec<Refusal> {
    let answer = || message(&response("{}"));
    let item = || frame(F::EVENT, 0, 3, &message(&event(1, "{}")));
    let position = || frame(F::SUBSCRIBED, 0, 3, &message(&subscribed("c")));
    let more = |stream, payload: &[u8]| frame(F::RPC_RESPONSE, FLAG_MORE, stream, payload);
    let mut more_than_a_message: Vec<_> = (0..64).map(|_| more(1, &vec![0; 16_384])).collect();
    more_than_a_message.push(frame(F::RPC_RESPONSE, 0, 1, b"x"));
    let mut all = of_both();
    all.extend([
        refusal("RPC_CALL to a client", "FRM-4", vec![call_frame(1)]),
        refusal("SUBSCRIBE to a client", "FRM-4", vec![subscribe_frame(3, 0)]),
        refusal("RPC_CANCEL to a client", "FRM-4", vec![frame(F::RPC_CANCEL, 0, 1, &[])]),
        refusal("UNSUBSCRIBE to a client", "FRM-4", vec![frame(F::UNSUBSCRIBE, 0, 3, &[])]),
        refusal("CREDIT to a client", "FRM-4", vec![credit_frame(3, 1)]),
        refusal("GOAWAY of nine bytes", "FRM-6", vec![frame(F::GOAWAY, 0, 0, &[0; 9])]),
        refusal("GOAWAY of eleven bytes", "FRM-6", vec![frame(F::GOAWAY, 0, 0, &[0; 11])]),
        refusal("GOAWAY on a stream", "STR-3", vec![frame(F::GOAWAY, 0, 1, &[0; 10])]),
        refusal("answer on stream 0", "STR-3", vec![frame(F::RPC_RESPONSE, 0, 0, &answer())]),
        refusal("answer on a stream of a server", "STR-6", vec![frame(F::RPC_RESPONSE, 0, 2, &answer())]),
        refusal("answer on a stream never opened", "STR-6", vec![frame(F::RPC_RESPONSE, 0, 5, &answer())]),
        refusal(
            "answer of a subscription to a call",
            "STR-6",
            vec![frame(F::EVENT, 0, 1, &message(&event(1, "{}")))],
        ),
        refusal("answer of a call to a subscription", "STR-6", vec![frame(F::RPC_RESPONSE, 0, 3, &answer())]),
        refusal(
            "second answer",
            "STR-6",
            vec![frame(F::RPC_RESPONSE, 0, 1, &answer()), frame(F::RPC_RESPONSE, 0, 1, &answer())],
        ),
        refusal("answer that is no envelope", "VAL-1", vec![frame(F::RPC_RESPONSE, 0, 1, b"garbage")]),
        refusal("RPC_ERROR inside a message", "STR-11", vec![more(1, b"x"), frame(F::RPC_ERROR, 0, 1, b"y")]),
        refusal("empty fragment of an answer", "STR-12", vec![more(1, &[])]),
        refusal("answer of 1,048,577 bytes", "STR-13", more_than_a_message),
        refusal("RPC_DATA on a call without items", "FLW-4", vec![frame(F::RPC_DATA, 0, 1, b"x")]),
        refusal("END of a server", "FLW-4", vec![frame(F::RPC_DATA, FLAG_END, 1, &[])]),
        refusal("EVENT before SUBSCRIBED", "SUB-1", vec![item()]),
        refusal("EVENT without credit", "FLW-3", vec![position(), item(), item()]),
    ]);
    all
}
