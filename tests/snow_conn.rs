//! A whole [`Connection`] against the `snow` package, an independent implementation of Noise, in both roles and for every
//! suite. Records and frames of snow's side are written by hand here, from the specification.
#![allow(clippy::unwrap_used, reason = "in a test, a panic is the report")]

#[path = "support/mod.rs"]
mod support;

use raystream::{
    conn::{Connection, Event, Framing},
    wire::{
        FrameType, Suite,
        handshake::{Init, ServerHello},
    },
};
use support::{
    CLIENT_EPHEMERAL, CLIENT_STATIC, CONNECTION_ID, PSK, SERVER_EPHEMERAL, SERVER_STATIC, SERVER_TIME_MS,
    Setup, call, event, for_each_suite,
    pair::{From, Pair},
    public_key,
    raw::{NOW, frame, heartbeat, parse},
    refusals::message,
    response,
};

/// Longest Noise message.
const BUFFER_LEN: usize = 65_535;

fn snow_state(suite: Suite, is_client: bool, init_head: &[u8]) -> snow::HandshakeState {
    let name =
        format!("Noise_{}_25519_{}_SHA256", suite.pattern_name().unwrap(), suite.cipher_name().unwrap());
    let prologue = [b"raystream-v1\0", init_head].concat();
    let mut builder = snow::Builder::new(name.parse().unwrap()).prologue(&prologue).unwrap();
    let pattern = suite.pattern_name().unwrap();
    if pattern.ends_with("psk2") {
        builder = builder.psk(2, &PSK).unwrap();
    }
    let server_key = public_key(SERVER_STATIC);
    if !is_client {
        return builder
            .local_private_key(&SERVER_STATIC)
            .unwrap()
            .fixed_ephemeral_key_for_testing_only(&SERVER_EPHEMERAL)
            .build_responder()
            .unwrap();
    }
    if pattern.starts_with("IK") {
        builder = builder.local_private_key(&CLIENT_STATIC).unwrap();
    }
    if pattern != "NX" {
        builder = builder.remote_public_key(&server_key.0).unwrap();
    }
    builder.fixed_ephemeral_key_for_testing_only(&CLIENT_EPHEMERAL).build_initiator().unwrap()
}

fn write_handshake(state: &mut snow::HandshakeState, payload: &[u8]) -> Vec<u8> {
    let mut buffer = vec![0; BUFFER_LEN];
    let len = state.write_message(payload, &mut buffer).unwrap();
    buffer.truncate(len);
    buffer
}

fn read_handshake(state: &mut snow::HandshakeState, message: &[u8]) -> Vec<u8> {
    let mut buffer = vec![0; BUFFER_LEN];
    let len = state.read_message(message, &mut buffer).unwrap();
    buffer.truncate(len);
    buffer
}

/// INIT by hand: `0x01 | version | suite | flags | key_id | n | offered`, then the Noise message.
fn snow_init(suite: Suite) -> (Vec<u8>, snow::HandshakeState) {
    let mut body = vec![0x01, 0x01, suite.0, 0x00];
    if suite.pattern_name() == Some("NX") {
        body.extend_from_slice(&[0; 8]);
    } else {
        body.extend_from_slice(&public_key(SERVER_STATIC).key_id());
    }
    body.extend_from_slice(&[1, suite.0]);
    let mut state = snow_state(suite, true, &body);
    let message = write_handshake(&mut state, &[]);
    body.extend_from_slice(&message);
    (body, state)
}

/// The 64 bytes of a server's hello by hand.
fn snow_hello(suite: Suite) -> Vec<u8> {
    let mut block = vec![1, 1, suite.0];
    block.resize(16, 0);
    block.extend_from_slice(&SERVER_TIME_MS.to_be_bytes());
    block.extend_from_slice(&0x0010_0000_u32.to_be_bytes());
    block.extend_from_slice(&256_u16.to_be_bytes());
    block.extend_from_slice(&128_u16.to_be_bytes());
    block.extend_from_slice(&15_000_u32.to_be_bytes());
    block.extend_from_slice(&45_000_u32.to_be_bytes());
    block.extend_from_slice(&CONNECTION_ID);
    block.extend_from_slice(&[0; 8]);
    block
}

/// snow at one end, a connection at the other.
struct SnowPeer {
    transport: snow::TransportState,
    connection: Connection,
    buffer: Vec<u8>,
}

impl SnowPeer {
    fn write(&mut self, plaintext: &[u8]) -> Vec<u8> {
        let len = self.transport.write_message(plaintext, &mut self.buffer).unwrap();
        self.buffer[..len].to_vec()
    }

    fn send(&mut self, plaintext: &[u8]) {
        let mut body = self.write(plaintext);
        self.connection.handle_record(NOW, &mut body).unwrap();
    }

    fn receive(&mut self) -> Vec<Vec<u8>> {
        let mut plaintexts = Vec::new();
        let mut body = Vec::new();
        while self.connection.poll_transmit(NOW, &mut body) {
            let len = self.transport.read_message(&body, &mut self.buffer).unwrap();
            plaintexts.push(self.buffer[..len].to_vec());
            body.clear();
        }
        plaintexts
    }

    fn event(&mut self) -> Event {
        self.connection.poll_event().expect("an event")
    }
}

/// A snow client whose handshake with a connection is done, nothing sent yet. Gives the bodies of the handshake too.
fn snow_client(setup: Setup) -> (SnowPeer, [Vec<u8>; 2], Vec<u8>) {
    let suite = setup.server.suites[0];
    let (init, mut state) = snow_init(suite);
    let (_, mut connection) = setup.connections();
    connection.handle_record(NOW, &mut init.clone()).unwrap();
    let mut response = Vec::new();
    assert!(connection.poll_transmit(NOW, &mut response));
    assert_eq!(response[0], 0x02);
    assert_eq!(read_handshake(&mut state, &response[1..]), snow_hello(suite));
    let hash = state.get_handshake_hash().to_vec();
    let transport = state.into_transport_mode().unwrap();
    (SnowPeer { transport, connection, buffer: vec![0; BUFFER_LEN] }, [init, response], hash)
}

/// A snow server whose handshake with a connection is done.
fn snow_server(setup: Setup) -> (SnowPeer, [Vec<u8>; 2], Vec<u8>) {
    let suite = setup.client.suites[0];
    let (mut connection, _) = setup.connections();
    let mut init = Vec::new();
    assert!(connection.poll_transmit(NOW, &mut init));
    let head = 13 + usize::from(init[12]);
    let mut state = snow_state(suite, false, &init[..head]);
    assert!(read_handshake(&mut state, &init[head..]).is_empty());
    let mut response = vec![0x02];
    response.extend(write_handshake(&mut state, &snow_hello(suite)));
    let hash = state.get_handshake_hash().to_vec();
    connection.handle_record(NOW, &mut response.clone()).unwrap();
    let transport = state.into_transport_mode().unwrap();
    (SnowPeer { transport, connection, buffer: vec![0; BUFFER_LEN] }, [init, response], hash)
}

fn messages(suite: Suite) -> Setup {
    Setup::new(suite, Framing::Messages)
}

#[test]
fn snow_is_a_client_of_every_suite() {
    for suite in Suite::ALL {
        let (mut peer, _, hash) = snow_client(messages(*suite));
        let asked = call("table.get", "{\"id\":1}");
        let mut plaintext = heartbeat(7, false);
        plaintext.extend(frame(FrameType::RPC_CALL, 0, 1, &message(&asked)));
        peer.send(&plaintext);
        let Event::Established(client) = peer.event() else { panic!("not established") };
        assert_eq!(client.handshake_hash.to_vec(), hash);
        let is_known = suite.pattern_name().unwrap().starts_with("IK");
        assert_eq!(client.key, is_known.then(|| public_key(CLIENT_STATIC)));
        assert_eq!(peer.event(), Event::Call(1, asked));
        let answer = response("null");
        peer.connection.respond(1, &answer).unwrap();
        let expected = [heartbeat(7, true), frame(FrameType::RPC_RESPONSE, 0, 1, &message(&answer))].concat();
        assert_eq!(peer.receive(), [expected]);
        peer.connection.close(raystream::wire::ErrorCode::NO_ERROR, "bye");
        assert_eq!(peer.receive(), [frame(FrameType::CLOSE, 0, 0, b"\x00\x20bye")]);
    }
}

#[test]
fn snow_is_a_server_of_every_suite() {
    for suite in Suite::ALL {
        let (mut peer, _, hash) = snow_server(messages(*suite));
        let Event::Connected(server, hello) = peer.event() else { panic!("not connected") };
        assert_eq!(server.handshake_hash.to_vec(), hash);
        assert_eq!(server.key, Some(public_key(SERVER_STATIC)));
        assert_eq!(hello, ServerHello::decode(&snow_hello(*suite)).unwrap());
        let asked = call("m", vec![5; 40_000]);
        peer.connection.call(&asked).unwrap();
        let frames: Vec<_> = peer.receive().iter().flat_map(|plaintext| parse(plaintext)).collect();
        let kinds: Vec<_> = frames.iter().map(|frame| (frame.frame_type, frame.flags)).collect();
        let call_kind = FrameType::RPC_CALL;
        assert_eq!(kinds, [(FrameType::HEARTBEAT, 0), (call_kind, 1), (call_kind, 1), (call_kind, 0)]);
        let sent: Vec<u8> = frames[1..].iter().flat_map(|frame| frame.payload.clone()).collect();
        assert_eq!(sent, message(&asked));
        let answer = message(&response(vec![6; 20_000]));
        let (head, tail) = answer.split_at(16_384);
        peer.send(&frame(FrameType::RPC_RESPONSE, 1, 1, head));
        peer.send(&frame(FrameType::RPC_RESPONSE, 0, 1, tail));
        assert_eq!(peer.event(), Event::Response(1, response(vec![6; 20_000])));
    }
}

#[test]
fn snow_writes_the_same_bytes() {
    for_each_suite(|setup| {
        let suite = setup.client.suites[0];
        // Our two ends against each other, as a reference; then snow in either place, with the same plaintexts.
        let mut pair = Pair::connected(setup);
        let asked = call("m", "{}");
        pair.client.connection.call(&asked).unwrap();
        pair.drive();
        pair.server.connection.respond(1, &response("1")).unwrap();
        pair.drive();
        let (ours_up, ours_down) = (pair.bodies(From::Client), pair.bodies(From::Server));

        let (mut peer, handshake, _) = snow_client(messages(suite));
        assert_eq!(handshake, [ours_up[0].clone(), ours_down[0].clone()]);
        assert_eq!(peer.write(&heartbeat(5_000_000 * 2, false)), ours_up[1]);
        assert_eq!(peer.write(&frame(FrameType::RPC_CALL, 0, 1, &message(&asked))), ours_up[2]);

        let (mut peer, handshake, _) = snow_server(messages(suite));
        assert_eq!(handshake, [ours_up[0].clone(), ours_down[0].clone()]);
        assert_eq!(peer.write(&heartbeat(5_000_000 * 2, true)), ours_down[1]);
        assert_eq!(peer.write(&frame(FrameType::RPC_RESPONSE, 0, 1, &message(&response("1")))), ours_down[2]);
    });
}

#[test]
fn snow_rekeys_at_the_same_record() {
    const INTERVAL: u64 = 1 << 20;
    for suite in [Suite::NK_CHACHAPOLY, Suite::IK_AESGCM] {
        let (mut peer, _, _) = snow_client(messages(suite));
        // Each HEARTBEAT is echoed by one record: both directions count alike.
        for n in 1..=INTERVAL + 10 {
            peer.send(&heartbeat(n, false));
            if n == INTERVAL {
                peer.transport.rekey_outgoing();
            }
            assert_eq!(peer.receive(), [heartbeat(n, true)]);
            if n == INTERVAL {
                peer.transport.rekey_incoming();
            }
        }
        assert_eq!(peer.transport.sending_nonce(), INTERVAL + 10, "a rekey does not reset the nonce");
        assert_eq!(peer.transport.receiving_nonce(), INTERVAL + 10);
        assert!(matches!(peer.event(), Event::Established(_)));
    }
}

#[test]
fn snow_takes_a_long_subscription() {
    let (mut peer, _, _) = snow_client(messages(Suite::IKPSK2_CHACHAPOLY));
    peer.send(&frame(FrameType::SUBSCRIBE, 0, 1, &message(&support::subscribe("t", 100))));
    peer.connection.send_subscribed(1, &support::subscribed("c")).unwrap();
    for n in 0..100 {
        peer.connection.send_event(1, &event(n, vec![1; 2_000])).unwrap();
    }
    let frames: Vec<_> = peer.receive().iter().flat_map(|plaintext| parse(plaintext)).collect();
    assert_eq!(frames.len(), 101);
    for (n, frame) in (0..).zip(&frames[1..]) {
        assert_eq!(frame.payload, message(&event(n, vec![1; 2_000])));
    }
    // The length of INIT is that of the specification, byte for byte.
    let (init, _) = snow_init(Suite::IKPSK2_CHACHAPOLY);
    assert_eq!(Init::decode(&init).unwrap().noise_message.len(), 96);
}
