//! An end made by hand on the Noise engine: it holds the keys of a connection, and sends what it likes.

use super::{CLIENT_EPHEMERAL, CLIENT_STATIC, PSK, SERVER_EPHEMERAL, SERVER_STATIC, Setup, memo, public_key};
use bytes::BytesMut;
use raystream::{
    conn::{Connection, ConnectionError, Event, Framing},
    noise::{
        CipherAlgorithm, HandshakeParameters, HandshakeState, Pattern, Psk, Role, StaticSecret, Transport,
    },
    wire::{
        ErrorCode, FrameType, Reader, Suite,
        control::{Close, Heartbeat},
        frame::{FLAG_ACK, Frame},
        handshake::{Init, ServerHello, TYPE_RESPONSE, prologue},
    },
};
use std::{sync::Arc, time::Duration};

/// The time at which everything here happens.
pub const NOW: Duration = Duration::ZERO;

/// The bytes of one frame.
pub fn frame(frame_type: FrameType, flags: u8, stream: u32, payload: &[u8]) -> Vec<u8> {
    let mut out = vec![frame_type.0, flags];
    out.extend_from_slice(&stream.to_be_bytes());
    out.extend_from_slice(&u16::try_from(payload.len()).unwrap().to_be_bytes());
    out.extend_from_slice(payload);
    out
}

pub fn heartbeat(stamp: u64, is_echo: bool) -> Vec<u8> {
    let flags = if is_echo { FLAG_ACK } else { 0 };
    frame(FrameType::HEARTBEAT, flags, 0, &Heartbeat(stamp).encode())
}

/// With its length in front.
pub fn framed(body: &[u8]) -> Vec<u8> {
    [&u16::try_from(body.len()).unwrap().to_be_bytes(), body].concat()
}

/// One frame of a plaintext, copied out of it.
#[derive(Clone, Debug, PartialEq, Eq)]
pub struct Parsed {
    pub frame_type: FrameType,
    pub flags: u8,
    pub stream: u32,
    pub payload: Vec<u8>,
}

pub fn parse(plaintext: &[u8]) -> Vec<Parsed> {
    let mut reader = Reader::new(plaintext);
    let mut frames = Vec::new();
    while !reader.is_empty() {
        let Frame { frame_type, flags, stream, payload } = Frame::decode(&mut reader).unwrap();
        frames.push(Parsed { frame_type, flags, stream, payload: payload.to_vec() });
    }
    frames
}

/// The Noise state of one side, as a peer of [`Setup::new`] needs it.
pub fn handshake(suite: Suite, role: Role, init_head: &[u8]) -> HandshakeState {
    let name = suite.pattern_name().unwrap();
    let pattern = match name {
        "NK" => Pattern::NK,
        "IK" => Pattern::IK,
        "NX" => Pattern::NX,
        "IKpsk2" => Pattern::IKpsk2,
        "NKpsk2" => Pattern::NKpsk2,
        other => panic!("no pattern {other}"),
    };
    let cipher = match suite.cipher_name().unwrap() {
        "ChaChaPoly" => CipherAlgorithm::ChaChaPoly,
        _ => CipherAlgorithm::AesGcm,
    };
    let psk = Psk::from_bytes(PSK);
    let is_client = role == Role::Initiator;
    let secret = match role {
        Role::Initiator => name.starts_with("IK").then_some(CLIENT_STATIC),
        Role::Responder => Some(SERVER_STATIC),
    };
    HandshakeState::new(HandshakeParameters {
        provider: memo::provider(),
        pattern,
        cipher,
        role,
        prologue: &prologue(init_head),
        s: secret.map(StaticSecret::from_bytes).as_ref(),
        e: StaticSecret::from_bytes(if is_client { CLIENT_EPHEMERAL } else { SERVER_EPHEMERAL }),
        rs: (is_client && name != "NX").then(|| public_key(SERVER_STATIC)),
        psks: if name.ends_with("psk2") { std::slice::from_ref(&psk) } else { &[] },
    })
    .unwrap()
}

/// A whole HANDSHAKE_INIT for [`Setup::new`], and the state that awaits the answer.
pub fn init(suite: Suite) -> (Vec<u8>, HandshakeState) {
    let key_id = if suite.pattern_name() == Some("NX") { [0; 8] } else { public_key(SERVER_STATIC).key_id() };
    let mut body = Init::encode_head(suite, key_id, &[suite]);
    let mut state = handshake(suite, Role::Initiator, &body);
    state.write_message(&[], &mut body).unwrap();
    (body, state)
}

/// A hand-made end with the [`Connection`] that it talks to.
pub struct Raw {
    pub transport: Transport,
    pub connection: Connection,
    /// What the connection told since the last look.
    pub events: Vec<Event>,
    /// Record bodies of the connection that were not opened yet.
    pub received: Vec<Vec<u8>>,
}

impl Raw {
    fn new(transport: Transport, connection: Connection) -> Self {
        let mut raw = Self { transport, connection, events: Vec::new(), received: Vec::new() };
        raw.poll();
        raw
    }

    /// A client by hand, before its first transport record.
    pub fn unproved_client(setup: Setup) -> Self {
        let suite = setup.server.suites[0];
        let (init_body, mut state) = init(suite);
        let mut server = Connection::server(
            Arc::new(setup.server),
            raystream::conn::Entropy {
                ephemeral: SERVER_EPHEMERAL,
                connection_id: super::CONNECTION_ID,
                server_time_ms: super::SERVER_TIME_MS,
            },
            Framing::Messages,
            NOW,
        )
        .unwrap();
        server.handle_record(NOW, &mut init_body.clone()).unwrap();
        let mut response = Vec::new();
        assert!(server.poll_transmit(NOW, &mut response));
        let mut payload = Vec::new();
        state.read_message(&response[1..], &mut payload).unwrap();
        ServerHello::decode(&payload).unwrap();
        Self::new(state.into_transport().unwrap(), server)
    }

    /// A client by hand whose connection is established.
    pub fn client(setup: Setup) -> Self {
        let mut raw = Self::unproved_client(setup);
        raw.send(&heartbeat(1, false)).unwrap();
        assert!(matches!(raw.events[..], [Event::Established(_)]));
        raw.events.clear();
        raw.open_all();
        raw
    }

    /// A server by hand that says `hello`, with a client that has taken it.
    pub fn server_saying(setup: Setup, hello: &[u8]) -> (Connection, Result<Transport, ConnectionError>) {
        let (mut client, _) = setup.connections();
        let mut init_body = Vec::new();
        assert!(client.poll_transmit(NOW, &mut init_body));
        let (response, transport) = response_to(&init_body, hello);
        let taken = client.handle_record(NOW, &mut response.clone());
        (client, taken.map(|()| transport))
    }

    /// A server by hand whose client is connected.
    pub fn server(mut setup: Setup) -> Self {
        setup.framing = Framing::Messages;
        let hello = hello(&setup);
        let (client, transport) = Self::server_saying(setup, &hello.encode());
        let mut raw = Self::new(transport.unwrap(), client);
        assert!(matches!(raw.events[..], [Event::Connected(..)]));
        raw.events.clear();
        let frames = raw.open_all();
        let [first] = &frames[..] else { panic!("{frames:?}") };
        assert_eq!((first.frame_type, first.flags), (FrameType::HEARTBEAT, 0));
        raw
    }

    /// Takes what the connection says.
    pub fn poll(&mut self) {
        while let Some(event) = self.connection.poll_event() {
            self.events.push(event);
        }
        let mut body = Vec::new();
        while self.connection.poll_transmit(NOW, &mut body) {
            self.received.push(std::mem::take(&mut body));
        }
    }

    /// Encrypts a plaintext into a record body.
    pub fn seal(&mut self, plaintext: &[u8]) -> Vec<u8> {
        let mut body = plaintext.to_vec();
        let tag = self.transport.send.encrypt_in_place(&[], &mut body).unwrap();
        body.extend_from_slice(&tag);
        body
    }

    /// Sends a plaintext as one record.
    pub fn send(&mut self, plaintext: &[u8]) -> Result<(), ConnectionError> {
        let mut body = self.seal(plaintext);
        let result = self.connection.handle_record(NOW, &mut body);
        self.poll();
        result
    }

    /// Opens every record that came.
    pub fn open_all(&mut self) -> Vec<Parsed> {
        let mut frames = Vec::new();
        for mut body in std::mem::take(&mut self.received) {
            let (text, tag) = body.split_last_chunk_mut::<16>().unwrap();
            self.transport.receive.decrypt_in_place(&[], text, tag).unwrap();
            frames.extend(parse(text));
        }
        frames
    }

    /// The CLOSE that the connection ended with, the last and only frame of its kind.
    #[track_caller]
    pub fn close_received(&mut self) -> Close {
        let mut frames = self.open_all();
        let last = frames.pop().expect("a CLOSE");
        assert_eq!((last.frame_type, last.stream), (FrameType::CLOSE, 0), "{frames:?}");
        assert!(frames.iter().all(|frame| frame.frame_type != FrameType::CLOSE));
        assert!(self.connection.is_drained());
        Close::decode(&last.payload).unwrap()
    }

    /// Sends a plaintext that ends the connection, and says by which code; both sides say the same.
    #[track_caller]
    pub fn refused(&mut self, plaintext: &[u8]) -> ErrorCode {
        let error = self.send(plaintext).expect_err("it has to be refused");
        assert_eq!(self.connection.end(), Some(&error));
        let close = self.close_received();
        assert_eq!(close.code, error.code());
        close.code
    }
}

/// What a server with this setup says of itself.
pub fn hello(setup: &Setup) -> ServerHello {
    let limits = &setup.server.limits;
    ServerHello {
        suites: setup.server.suites.clone(),
        server_time_ms: super::SERVER_TIME_MS,
        message_max: 1 << 20,
        calls_max: limits.calls_max,
        subscriptions_max: limits.subscriptions_max,
        heartbeat_ms: 15_000,
        idle_timeout_ms: 45_000,
        connection_id: super::CONNECTION_ID,
    }
}

/// A HANDSHAKE_RESPONSE with any payload.
pub fn response_to(init_body: &[u8], payload: &[u8]) -> (Vec<u8>, Transport) {
    let init = Init::decode(init_body).unwrap();
    let mut state = handshake(init.suite, Role::Responder, init.head);
    let mut empty = Vec::new();
    state.read_message(init.noise_message, &mut empty).unwrap();
    assert!(empty.is_empty());
    let mut response = vec![TYPE_RESPONSE];
    state.write_message(payload, &mut response).unwrap();
    (response, state.into_transport().unwrap())
}

/// Feeds a byte stream at once; gives the result and everything that came out.
pub fn feed(connection: &mut Connection, bytes: &[u8]) -> (Result<(), ConnectionError>, Vec<Vec<u8>>) {
    let result = connection.handle_input(NOW, &mut BytesMut::from(bytes));
    let mut records = Vec::new();
    let mut out = Vec::new();
    while connection.poll_transmit(NOW, &mut out) {
        records.push(std::mem::take(&mut out));
    }
    (result, records)
}
