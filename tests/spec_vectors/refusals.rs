//! Inputs that end a connection, by the rule that they break; and some that do not.

use super::keys::{self, hex};
use super::peer::{self, Material};
use bytes::{Bytes, BytesMut};
use raystream::conn::{Connection, Event, Framing};
use raystream::wire::{
    ErrorCode, FrameType, Reader, Suite,
    control::Close,
    envelope::{Envelope, Event as Item, EventKind, Overflow, RpcCall, RpcResponse, Subscribe, Subscribed},
    frame::{FLAG_ACK, FLAG_MORE, Frame},
    handshake::{Init, ServerHello},
    limits::{CREDIT_MAX, UNAUTHENTICATED_BODY_MAX},
};
use serde_json::{Value, json};
use std::time::Duration;

const SUITE: Suite = Suite::NK_CHACHAPOLY;
const NOW: Duration = Duration::from_secs(1);

/// The side that receives.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub(crate) enum Side {
    Client,
    Server,
}

/// What `input` is.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub(crate) enum State {
    /// The first bytes of the byte stream from the peer.
    Start,
    /// The plaintext of one record on an established connection.
    Established,
    /// The body of one record on an established connection.
    Body,
}

/// One input.
pub(crate) struct Refusal {
    pub(crate) name: String,
    rule: &'static str,
    pub(crate) side: Side,
    pub(crate) state: State,
    input: Vec<u8>,
    pub(crate) code: ErrorCode,
}

impl Refusal {
    pub(crate) fn to_json(&self) -> Value {
        json!({
            "name": self.name,
            "rule": self.rule,
            "side": format!("{:?}", self.side).to_lowercase(),
            "state": format!("{:?}", self.state).to_lowercase(),
            "input": hex(&self.input),
            "code": self.code.to_string(),
        })
    }
}

impl Refusal {
    /// Whole frames in front of the bad one, in the same record: their effect is not taken back.
    pub(crate) fn good_frames(&self) -> usize {
        let mut reader = Reader::new(&self.input);
        let mut frames = 0_usize;
        while self.state == State::Established && !reader.is_empty() && Frame::decode(&mut reader).is_ok() {
            frames += 1;
        }
        frames.saturating_sub(usize::from(reader.is_empty()))
    }
}

/// What an input led to.
#[derive(Debug)]
pub(crate) struct Outcome {
    pub(crate) code: Option<ErrorCode>,
    pub(crate) events: Vec<Event>,
    /// Bytes of the byte stream that went back.
    pub(crate) sent: Vec<u8>,
    /// The code of the CLOSE among them.
    pub(crate) close: Option<ErrorCode>,
}

/// Gives the input to a fresh connection.
pub(crate) fn run(refusal: &Refusal) -> Outcome {
    let mut connection = match refusal.side {
        Side::Client => {
            Connection::client(keys::client_config(SUITE), keys::client_entropy(), Framing::Stream, NOW)
        }
        Side::Server => {
            Connection::server(keys::server_config(), keys::server_entropy(), Framing::Stream, NOW)
        }
    }
    .unwrap();
    let mut peer = (refusal.state != State::Start).then(|| establish(refusal.side, &mut connection));
    if peer.is_none() && refusal.side == Side::Client {
        transmit(&mut connection);
    }
    let body = match (refusal.state, &mut peer) {
        (State::Established, Some(peer)) => peer::seal(peer, &refusal.input),
        _ => refusal.input.clone(),
    };
    let mut input = if refusal.state == State::Start { BytesMut::from(&body[..]) } else { record(&body) };
    let result = connection.handle_input(NOW, &mut input);
    let events = std::iter::from_fn(|| connection.poll_event()).collect();
    let sent = transmit(&mut connection);
    let close = peer.as_mut().and_then(|peer| close_in(peer, &sent));
    Outcome { code: result.err().map(|error| error.code()), events, sent, close }
}

/// Brings a connection to the state "established" with `snow` at the other end: at a server after one HEARTBEAT; at a
/// client with a call on stream 1 and a subscription on stream 3 with a credit of 1.
fn establish(side: Side, connection: &mut Connection) -> snow::TransportState {
    let head = init_head(SUITE, key_id(), &keys::offered(SUITE));
    let material = Material { suite: SUITE, client_static: None, psk: None, init_head: head.clone() };
    let mut handshake = material.handshake(side == Side::Server);
    let mut transport;
    if side == Side::Server {
        let init = [&head[..], &peer::write(&mut handshake, &[])].concat();
        connection.handle_input(NOW, &mut record(&init)).unwrap();
        let response = transmit(connection);
        peer::read(&mut handshake, &response[3..]);
        transport = handshake.into_transport_mode().unwrap();
        let first = peer::seal(&mut transport, &frame(FrameType::HEARTBEAT, 0, 0, &[0; 8]));
        connection.handle_input(NOW, &mut record(&first)).unwrap();
    } else {
        let init = transmit(connection);
        peer::read(&mut handshake, &init[2 + head.len()..]);
        let response = [&[0x02][..], &peer::write(&mut handshake, &hello().encode())].concat();
        connection.handle_input(NOW, &mut record(&response)).unwrap();
        assert_eq!(connection.call(&RpcCall { method: "m".into(), ..RpcCall::default() }), Ok(1));
        assert_eq!(connection.subscribe(&subscribe_message(1)), Ok(3));
        transport = handshake.into_transport_mode().unwrap();
    }
    while connection.poll_event().is_some() {}
    let sent = transmit(connection);
    assert_eq!(close_in(&mut transport, &sent), None);
    transport
}

fn transmit(connection: &mut Connection) -> Vec<u8> {
    let mut out = Vec::new();
    while connection.poll_transmit(NOW, &mut out) {}
    out
}

/// Opens the records that came back, so that the peer's nonce stays right, and looks for CLOSE.
fn close_in(peer: &mut snow::TransportState, mut sent: &[u8]) -> Option<ErrorCode> {
    let mut code = None;
    while let Some((head, rest)) = sent.split_first_chunk::<2>() {
        let (body, rest) = rest.split_at(usize::from(u16::from_be_bytes(*head)));
        let plaintext = peer::open(peer, body);
        for frame in super::session::frames(&plaintext) {
            if frame.frame_type == FrameType::CLOSE {
                code = Some(Close::decode(frame.payload).unwrap().code);
            }
        }
        sent = rest;
    }
    code
}

fn record(body: &[u8]) -> BytesMut {
    let length = u16::try_from(body.len()).unwrap();
    BytesMut::from(&[&length.to_be_bytes()[..], body].concat()[..])
}

pub(crate) fn frame(frame_type: FrameType, flags: u8, stream: u32, payload: &[u8]) -> Vec<u8> {
    let mut out = Vec::new();
    Frame { frame_type, flags, stream, payload }.encode(&mut out);
    out
}

pub(crate) fn envelope(value: &impl Envelope) -> Vec<u8> {
    value.encode(&mut flatbuffers::FlatBufferBuilder::new()).to_vec()
}

fn call(stream: u32) -> Vec<u8> {
    let call = envelope(&RpcCall { method: "m".into(), ..RpcCall::default() });
    frame(FrameType::RPC_CALL, 0, stream, &call)
}

fn subscribe_message(credit: u32) -> Subscribe {
    Subscribe {
        table: "t".into(),
        filter: Bytes::new(),
        cursor: None,
        snapshot: true,
        overflow: Overflow::Close,
        credit,
    }
}

fn subscribe(stream: u32, credit: u32) -> Vec<u8> {
    frame(FrameType::SUBSCRIBE, 0, stream, &envelope(&subscribe_message(credit)))
}

fn key_id() -> [u8; 8] {
    keys::client_config(SUITE).server_key.unwrap().key_id()
}

fn init_head(suite: Suite, key_id: [u8; 8], offered: &[Suite]) -> Vec<u8> {
    Init::encode_head(suite, key_id, offered)
}

fn hello() -> ServerHello {
    ServerHello {
        suites: Suite::ALL.to_vec(),
        server_time_ms: keys::SERVER_TIME_MS,
        message_max: 1_048_576,
        calls_max: 256,
        subscriptions_max: 128,
        heartbeat_ms: 15_000,
        idle_timeout_ms: 45_000,
        connection_id: keys::CONNECTION_ID,
    }
}

/// A HANDSHAKE_INIT that is right, as a record.
fn init() -> Vec<u8> {
    init_of(&keys::offered(SUITE))
}

fn init_of(offered: &[Suite]) -> Vec<u8> {
    let head = init_head(SUITE, key_id(), offered);
    let material = Material { suite: SUITE, client_static: None, psk: None, init_head: head.clone() };
    let message = peer::write(&mut material.handshake(true), &[]);
    record(&[head, message].concat()).to_vec()
}

/// The HANDSHAKE_RESPONSE to it with a payload of our choice, as a record.
fn response(payload: &[u8]) -> Vec<u8> {
    let init = init();
    let head_len = 13 + keys::offered(SUITE).len();
    let init_head = init[2..2 + head_len].to_vec();
    let mut server = Material { suite: SUITE, client_static: None, psk: None, init_head }.handshake(false);
    peer::read(&mut server, &init[2 + head_len..]);
    record(&[&[0x02][..], &peer::write(&mut server, payload)].concat()).to_vec()
}

fn changed(mut bytes: Vec<u8>, at: usize, to: u8) -> Vec<u8> {
    bytes[at] = to;
    bytes
}

type Row = (&'static str, &'static str, Vec<u8>, ErrorCode);

fn rows(side: Side, state: State, rows: Vec<Row>) -> Vec<Refusal> {
    rows.into_iter()
        .map(|(rule, name, input, code)| Refusal { name: name.to_owned(), rule, side, state, input, code })
        .collect()
}

/// Every refusal of `refusals.json`.
pub(crate) fn all() -> Vec<Refusal> {
    let mut all = rows(Side::Server, State::Start, at_a_server());
    all.extend(rows(Side::Client, State::Start, at_a_client()));
    all.extend(rows(Side::Server, State::Established, frames_to_a_server()));
    all.extend(rows(Side::Server, State::Established, streams_at_a_server()));
    all.extend(rows(Side::Client, State::Established, frames_to_a_client()));
    all.extend(rows(Side::Server, State::Body, bodies()));
    all
}

fn at_a_server() -> Vec<Row> {
    use ErrorCode as E;
    let nx = init_head(Suite::NX_CHACHAPOLY, [7; 8], &[Suite::NX_CHACHAPOLY]);
    let unknown = init_head(Suite(0x7F), key_id(), &[Suite(0x7F)]);
    let head = |offered: &[Suite]| [init_head(SUITE, key_id(), offered), vec![0; 48]].concat();
    let mut none = head(&[SUITE]);
    none[12] = 0;
    none.remove(13);
    let nine: Vec<u8> = [&none[..12], &[9, 1, 2, 3, 4, 5, 6, 7, 8, 9], &[0; 48]].concat();
    let zero_key = {
        let init = init();
        let from = init.len() - 48;
        [&init[..from], &[0; 32], &init[from + 32..]].concat()
    };
    let last = init().len() - 1;
    let over = u16::try_from(UNAUTHENTICATED_BODY_MAX + 1).unwrap();
    vec![
        ("REC-1", "a record of no bytes", vec![0, 0], E::PROTOCOL_ERROR),
        ("REC-1", "a long record before the keys", over.to_be_bytes().to_vec(), E::PROTOCOL_ERROR),
        ("HSK-3", "a response first", changed(init(), 2, 0x02), E::PROTOCOL_ERROR),
        ("HSK-3", "a body of one byte", vec![0, 1, 0x01], E::PROTOCOL_ERROR),
        ("HSK-4", "version 2", changed(init(), 3, 2), E::UNSUPPORTED_VERSION),
        ("HSK-5", "flags", changed(init(), 5, 1), E::PROTOCOL_ERROR),
        ("HSK-5", "no suite offered", record(&none).to_vec(), E::PROTOCOL_ERROR),
        ("HSK-5", "nine suites offered", record(&nine).to_vec(), E::PROTOCOL_ERROR),
        ("HSK-5", "a suite offered twice", record(&head(&[SUITE, SUITE])).to_vec(), E::PROTOCOL_ERROR),
        (
            "HSK-5",
            "the suite in use is not offered",
            record(&head(&[Suite::NK_AESGCM])).to_vec(),
            E::PROTOCOL_ERROR,
        ),
        (
            "HSK-6",
            "an unknown suite",
            record(&[unknown, vec![0; 48]].concat()).to_vec(),
            E::UNSUPPORTED_SUITE,
        ),
        ("HSK-7", "one byte short", record(&init()[2..last]).to_vec(), E::PROTOCOL_ERROR),
        ("HSK-7", "one byte more", record(&[&init()[2..], &[0]].concat()).to_vec(), E::PROTOCOL_ERROR),
        (
            "HSK-8",
            "no key_id with NK",
            record(&[init_head(SUITE, [0; 8], &[SUITE]), vec![0; 48]].concat()).to_vec(),
            E::PROTOCOL_ERROR,
        ),
        ("HSK-8", "a key_id with NX", record(&[nx, vec![9; 32]].concat()).to_vec(), E::PROTOCOL_ERROR),
        ("HSK-9", "the key_id of somebody else", changed(init(), 6, !init()[6]), E::UNKNOWN_KEY),
        (
            "HSK-10",
            "an offered suite was changed on the way",
            changed(init(), 16, Suite::IK_AESGCM.0),
            E::DECRYPTION_FAILED,
        ),
        ("HSK-10", "the tag was changed", changed(init(), last, !init()[last]), E::DECRYPTION_FAILED),
        ("HSK-11", "an ephemeral key of zeros", zero_key, E::DECRYPTION_FAILED),
    ]
}

fn at_a_client() -> Vec<Row> {
    use ErrorCode as E;
    let good = response(&hello().encode());
    let last = good.len() - 1;
    let with = |at: usize, to: u8| response(&changed(hello().encode().to_vec(), at, to));
    let listed = |suites: &[Suite]| response(&ServerHello { suites: suites.to_vec(), ..hello() }.encode());
    vec![
        ("REC-1", "a record of no bytes from the server", vec![0, 0], E::PROTOCOL_ERROR),
        ("HSK-12", "an init from the server", changed(good.clone(), 2, 0x01), E::PROTOCOL_ERROR),
        ("HSK-13", "a response one byte short", record(&good[2..last]).to_vec(), E::PROTOCOL_ERROR),
        (
            "HSK-13",
            "a response whose tag was changed",
            changed(good.clone(), last, !good[last]),
            E::DECRYPTION_FAILED,
        ),
        ("HSK-14", "version 2 in the payload", with(0, 2), E::PROTOCOL_ERROR),
        ("HSK-14", "no suite listed", with(1, 0), E::PROTOCOL_ERROR),
        ("HSK-14", "fifteen suites listed", with(1, 15), E::PROTOCOL_ERROR),
        ("HSK-14", "padding of the list", with(15, 1), E::PROTOCOL_ERROR),
        ("HSK-14", "padding at the end", with(63, 1), E::PROTOCOL_ERROR),
        (
            "HSK-15",
            "the suite in use is not listed, the second choice is",
            listed(&[Suite::NK_AESGCM]),
            E::DOWNGRADE,
        ),
        ("HSK-15", "no suite of the client's is listed", listed(&[Suite::IK_AESGCM]), E::DOWNGRADE),
        ("HSK-19", "a refusal in clear", record(&[0xFF, 0, 35]).to_vec(), E::UNSUPPORTED_SUITE),
    ]
}

fn frames_to_a_server() -> Vec<Row> {
    use ErrorCode as E;
    use FrameType as F;
    let heartbeat = frame(F::HEARTBEAT, 0, 0, &[0; 8]);
    let rows: Vec<(&str, &str, Vec<u8>)> = vec![
        ("REC-5", "a record without a frame", vec![]),
        ("REC-5", "a frame that ends early", heartbeat[..15].to_vec()),
        ("REC-5", "a whole frame and a cut one", [&heartbeat[..], &heartbeat[..7]].concat()),
        ("FRM-1", "an unknown type", frame(F(0x77), 0, 1, &[])),
        ("FRM-1", "HANDSHAKE_INIT as a frame", frame(F(0x01), 0, 1, &[])),
        ("FRM-2", "MORE on RPC_CANCEL", frame(F::RPC_CANCEL, FLAG_MORE, 1, &[])),
        ("FRM-2", "ACK on RPC_CALL", frame(F::RPC_CALL, FLAG_ACK, 1, b"x")),
        ("FRM-2", "an unknown flag", frame(F::HEARTBEAT, 0x80, 0, &[0; 8])),
        ("FRM-3", "a length of 16,385", vec![0x10, 0, 0, 0, 0, 1, 0x40, 0x01]),
        ("FRM-4", "RPC_RESPONSE to a server", frame(F::RPC_RESPONSE, 0, 1, &[])),
        ("FRM-4", "GOAWAY to a server", frame(F::GOAWAY, 0, 0, &[0; 10])),
        ("FRM-5", "RPC_DATA", frame(F::RPC_DATA, 0, 1, b"x")),
        ("FRM-5", "PUBLISH", frame(F::PUBLISH, 0, 1, b"x")),
        ("FRM-6", "a HEARTBEAT of seven bytes", frame(F::HEARTBEAT, 0, 0, &[0; 7])),
        ("FRM-6", "a payload on RPC_CANCEL", [call(1), frame(F::RPC_CANCEL, 0, 1, b"x")].concat()),
        ("FRM-6", "a CLOSE whose reason is not UTF-8", frame(F::CLOSE, 0, 0, &[0, 32, 0xFF])),
        ("FRM-6", "a CLOSE with a long reason", frame(F::CLOSE, 0, 0, &[0; 259])),
        ("CLS-3", "a frame after CLOSE", [frame(F::CLOSE, 0, 0, &[0, 32]), heartbeat].concat()),
        ("HBT-3", "an echo that answers nothing", frame(F::HEARTBEAT, FLAG_ACK, 0, &[9; 8])),
        ("HBT-4", "HEARTBEATs without end", frame(F::HEARTBEAT, 0, 0, &[0; 8]).repeat(200)),
    ];
    rows.into_iter().map(|(rule, name, input)| (rule, name, input, E::PROTOCOL_ERROR)).collect()
}

fn streams_at_a_server() -> Vec<Row> {
    use FrameType as F;
    let started = frame(F::RPC_CALL, FLAG_MORE, 1, b"x");
    let many: Vec<u8> = (0..65).flat_map(|n| frame(F::RPC_CALL, FLAG_MORE, 2 * n + 1, b"x")).collect();
    let rows: Vec<(&str, &str, Vec<u8>)> = vec![
        ("STR-2", "a call on an even stream", call(2)),
        ("STR-2", "a stream opened twice", [call(1), call(1)].concat()),
        ("STR-2", "a lower stream after a higher one", [call(5), call(3)].concat()),
        ("STR-3", "a call on stream 0", frame(F::RPC_CALL, 0, 0, b"x")),
        ("STR-3", "a HEARTBEAT on stream 1", frame(F::HEARTBEAT, 0, 1, &[0; 8])),
        ("STR-5", "RPC_CANCEL of a stream never opened", frame(F::RPC_CANCEL, 0, 7, &[])),
        ("STR-5", "CREDIT of a stream never opened", frame(F::CREDIT, 0, 7, &[0, 0, 0, 1])),
        (
            "STR-5",
            "RPC_CANCEL of a subscription",
            [subscribe(1, 0), frame(F::RPC_CANCEL, 0, 1, &[])].concat(),
        ),
        ("STR-5", "UNSUBSCRIBE of a call", [call(1), frame(F::UNSUBSCRIBE, 0, 1, &[])].concat()),
        ("STR-5", "CREDIT for a call", [call(1), frame(F::CREDIT, 0, 1, &[0, 0, 0, 1])].concat()),
        (
            "STR-11",
            "a fragment of another type",
            [started.clone(), frame(F::SUBSCRIBE, FLAG_MORE, 1, b"y")].concat(),
        ),
        ("STR-12", "an empty fragment", frame(F::RPC_CALL, FLAG_MORE, 1, &[])),
        ("STR-13", "unfinished messages on 65 streams", many),
        ("FLW-2", "CREDIT of zero", [subscribe(1, 0), frame(F::CREDIT, 0, 1, &[0; 4])].concat()),
        (
            "FLW-2",
            "more credit than fits",
            [subscribe(1, 1), frame(F::CREDIT, 0, 1, &CREDIT_MAX.to_be_bytes())].concat(),
        ),
    ];
    rows.into_iter().map(|(rule, name, input)| (rule, name, input, ErrorCode::PROTOCOL_ERROR)).collect()
}

fn frames_to_a_client() -> Vec<Row> {
    use FrameType as F;
    let response = envelope(&RpcResponse::default());
    let item = |kind: EventKind| {
        envelope(&Item {
            cursor: "c".into(),
            kind,
            id: "1".into(),
            data: None,
            old: None,
            version: 1,
            dropped: 0,
            omitted: 0,
        })
    };
    let event = |kind: EventKind| frame(F::EVENT, 0, 3, &item(kind));
    let position = envelope(&Subscribed { cursor: "c".into(), snapshot_end: false });
    let position = frame(F::SUBSCRIBED, 0, 3, &position);
    let rows: Vec<(&str, &str, Vec<u8>)> = vec![
        ("FRM-4", "RPC_CALL to a client", call(1)),
        ("FRM-4", "CREDIT to a client", frame(F::CREDIT, 0, 3, &[0, 0, 0, 1])),
        ("STR-6", "an answer on a stream that was not opened", frame(F::RPC_RESPONSE, 0, 5, &response)),
        ("STR-6", "an answer on an even stream", frame(F::RPC_RESPONSE, 0, 2, &response)),
        ("STR-6", "two answers", frame(F::RPC_RESPONSE, 0, 1, &response).repeat(2)),
        ("STR-6", "an answer of a call on a subscription", frame(F::RPC_RESPONSE, 0, 3, &response)),
        ("STR-6", "an item on a call", frame(F::EVENT, 0, 1, &item(EventKind::Insert))),
        ("VAL-1", "an answer that is no envelope", frame(F::RPC_RESPONSE, 0, 1, b"garbage!")),
        ("VAL-2", "an item of an unknown kind", [&position[..], &event(EventKind(9))].concat()),
        ("SUB-1", "an item before its position", event(EventKind::Insert)),
        (
            "FLW-3",
            "an item without credit",
            [&position[..], &event(EventKind::Insert), &event(EventKind::Insert)].concat(),
        ),
        ("FRM-6", "a GOAWAY of nine bytes", frame(F::GOAWAY, 0, 0, &[0; 9])),
    ];
    rows.into_iter().map(|(rule, name, input)| (rule, name, input, ErrorCode::PROTOCOL_ERROR)).collect()
}

fn bodies() -> Vec<Row> {
    let init = init()[2..].to_vec();
    vec![
        ("PRO-4", "a record of another key", vec![0x5A; 40], ErrorCode::DECRYPTION_FAILED),
        ("PRO-4", "a record shorter than a tag", vec![0x5A; 15], ErrorCode::DECRYPTION_FAILED),
        ("PRO-4", "a second HANDSHAKE_INIT", init, ErrorCode::DECRYPTION_FAILED),
        ("PRO-4", "a refusal in clear, after the keys", vec![0xFF, 0, 32], ErrorCode::DECRYPTION_FAILED),
    ]
}

/// Inputs that look alike and are allowed.
pub(crate) fn allowed() -> Vec<Refusal> {
    use FrameType as F;
    let code = ErrorCode::NO_ERROR;
    let unknown = [SUITE, Suite(0x7F), Suite(0x81)];
    let late: Vec<u8> = [
        frame(F::RPC_CALL, 0, 1, b"garbage!"),
        frame(F::RPC_CANCEL, 0, 1, &[]),
        frame(F::UNSUBSCRIBE, 0, 1, &[]),
        frame(F::CREDIT, 0, 1, &[0, 0, 0, 1]),
    ]
    .concat();
    let mixed: Vec<u8> = [
        frame(F::RPC_CALL, FLAG_MORE, 1, b"a"),
        frame(F::RPC_CALL, FLAG_MORE, 3, b"b"),
        call(5),
        frame(F::RPC_CALL, 0, 1, b"c"),
    ]
    .concat();
    let mut all = rows(
        Side::Server,
        State::Start,
        vec![
            ("HSK-3", "the init that the others are made from", init(), code),
            ("EXT-1", "unknown suites are offered too", init_of(&unknown), code),
        ],
    );
    all.extend(rows(
        Side::Client,
        State::Start,
        vec![("HSK-12", "the response that the others are made from", response(&hello().encode()), code)],
    ));
    all.extend(rows(
        Side::Server,
        State::Established,
        vec![
            ("STR-4", "frames on a stream that is closed", late, code),
            ("STR-14", "fragments of two streams and a call in between", mixed, code),
        ],
    ));
    all
}
