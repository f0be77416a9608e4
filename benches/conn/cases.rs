//! The cases: things that can be done a number of times.

use bytes::Bytes;
use raystream::{
    conn::{ClientConfig, Connection, Entropy, Event, Framing, Limits, ServerConfig},
    noise::{
        CipherAlgorithm, CryptoProvider, HandshakeParameters, HandshakeState, Pattern, Role, StaticSecret,
        Transport, rust_crypto,
    },
    wire::{
        FrameType, Reader, Suite,
        envelope::{Encode, Envelope, RpcCall, RpcResponse},
        frame::Frame,
    },
};
use std::{hint::black_box, sync::Arc, time::Duration};

const NOW: Duration = Duration::ZERO;

/// Something that can be done a number of times. What it needs is made once, by `new`.
pub(crate) struct Case {
    pub(crate) name: String,
    /// What one iteration does.
    pub(crate) unit: &'static str,
    pub(crate) new: Box<dyn Fn() -> Box<dyn FnMut(u64)>>,
}

/// All of them.
pub(crate) fn all() -> Vec<Case> {
    let mut cases = Vec::new();
    codec_cases(&mut cases);
    record_cases(&mut cases);
    connection_cases(&mut cases);
    #[cfg(feature = "server")]
    dispatch_cases(&mut cases);
    cases
}

fn providers() -> Vec<&'static dyn CryptoProvider> {
    vec![
        rust_crypto(),
        #[cfg(feature = "server")]
        raystream::noise::aws_lc(),
    ]
}

fn case(name: String, unit: &'static str, new: impl Fn() -> Box<dyn FnMut(u64)> + 'static) -> Case {
    Case { name, unit, new: Box::new(new) }
}

/// A call as the Rust client makes it.
fn call(args: usize) -> RpcCall {
    let args = Bytes::from(vec![b'x'; args]);
    RpcCall { method: "sys.echo".into(), args, deadline_ms: 30_000, ..RpcCall::default() }
}

fn codec_cases(cases: &mut Vec<Case>) {
    cases.push(case("codec: frame of 100 bytes, written and read".into(), "frame", || {
        let payload = [7; 100];
        let mut out = Vec::new();
        Box::new(move |n| {
            for stream in 1..=n {
                out.clear();
                let stream = u32::try_from(stream).unwrap_or(1);
                Frame { frame_type: FrameType::RPC_CALL, flags: 0, stream, payload: &payload }
                    .encode(&mut out);
                black_box(Frame::decode(&mut Reader::new(black_box(&out))).unwrap());
            }
        })
    }));
    for size in [64, 16_000] {
        cases.push(case(format!("codec: RpcCall of {size} bytes, written"), "message", move || {
            let (call, mut out) = (call(size), Vec::new());
            Box::new(move |n| {
                for _ in 0..n {
                    out.clear();
                    black_box(&call).encode(&mut out);
                    black_box(out.len());
                }
            })
        }));
        cases.push(case(
            format!("codec: RpcCall of {size} bytes, verified and read"),
            "message",
            move || {
                let message = call(size).to_bytes();
                Box::new(move |n| {
                    for _ in 0..n {
                        black_box(RpcCall::decode(black_box(&message)).unwrap());
                    }
                })
            },
        ));
    }
}

/// Both ends of an NK handshake.
fn transports(provider: &'static dyn CryptoProvider, cipher: CipherAlgorithm) -> (Transport, Transport) {
    let secret = StaticSecret::from_bytes([0x22; 32]);
    let public = secret.public_key(provider);
    let state = |role| {
        HandshakeState::new(HandshakeParameters {
            provider,
            pattern: Pattern::NK,
            cipher,
            role,
            prologue: b"",
            s: (role == Role::Responder).then_some(&secret),
            e: StaticSecret::from_bytes([if role == Role::Responder { 0x44 } else { 0x33 }; 32]),
            rs: (role == Role::Initiator).then_some(public),
            psks: &[],
        })
        .unwrap()
    };
    let (mut client, mut server) = (state(Role::Initiator), state(Role::Responder));
    let mut message = Vec::new();
    client.write_message(&[], &mut message).unwrap();
    server.read_message(&message, &mut Vec::new()).unwrap();
    message.clear();
    server.write_message(&[], &mut message).unwrap();
    client.read_message(&message, &mut Vec::new()).unwrap();
    (client.into_transport().unwrap(), server.into_transport().unwrap())
}

fn record_cases(cases: &mut Vec<Case>) {
    for provider in providers() {
        for cipher in [CipherAlgorithm::ChaChaPoly, CipherAlgorithm::AesGcm] {
            for size in [64, 1_024, 65_519] {
                let name = format!("record: {size} bytes, sealed, {} {}", cipher.name(), provider.name());
                cases.push(case(name, "record", move || {
                    let (mut client, _) = transports(provider, cipher);
                    let mut text = vec![7; size];
                    Box::new(move |n| {
                        for _ in 0..n {
                            black_box(client.send.encrypt_in_place(&[], &mut text).unwrap());
                        }
                    })
                }));
                let name =
                    format!("record: {size} bytes, sealed and opened, {} {}", cipher.name(), provider.name());
                cases.push(case(name, "record", move || {
                    let (mut client, mut server) = transports(provider, cipher);
                    let mut text = vec![7; size];
                    Box::new(move |n| {
                        for _ in 0..n {
                            let tag = client.send.encrypt_in_place(&[], &mut text).unwrap();
                            server.receive.decrypt_in_place(&[], &mut text, &tag).unwrap();
                        }
                    })
                }));
            }
        }
    }
}

fn connections(provider: &'static dyn CryptoProvider, suite: Suite) -> (Connection, Connection) {
    let server_secret = StaticSecret::from_bytes([0x22; 32]);
    let server_key = server_secret.public_key(provider);
    let client = ClientConfig {
        provider,
        suites: vec![suite],
        suite: None,
        server_key: Some(server_key),
        identity: Some(StaticSecret::from_bytes([0x11; 32])),
        psk: None,
        limits: Limits::default(),
    };
    let server = ServerConfig {
        provider,
        identities: vec![server_secret],
        suites: vec![suite],
        psk: None,
        limits: Limits::default(),
    };
    let entropy = |byte| Entropy { ephemeral: [byte; 32], connection_id: [byte; 16], server_time_ms: 0 };
    let client = Connection::client(Arc::new(client), entropy(0x33), Framing::Messages, NOW).unwrap();
    let server = Connection::server(Arc::new(server), entropy(0x44), Framing::Messages, NOW).unwrap();
    (client, server)
}

/// Moves every record of one end to the other.
fn pass(from: &mut Connection, to: &mut Connection, body: &mut Vec<u8>) {
    body.clear();
    while from.poll_transmit(NOW, body) {
        to.handle_record(NOW, body).unwrap();
        body.clear();
    }
}

fn connect(provider: &'static dyn CryptoProvider, suite: Suite) -> (Connection, Connection) {
    let (mut client, mut server) = connections(provider, suite);
    let mut body = Vec::new();
    for _ in 0..2 {
        pass(&mut client, &mut server, &mut body);
        pass(&mut server, &mut client, &mut body);
    }
    while client.poll_event().is_some() || server.poll_event().is_some() {}
    (client, server)
}

/// Calls until `n` are answered, `in_flight` of them at a time.
fn make_calls(client: &mut Connection, server: &mut Connection, n: u64, in_flight: u64, asked: &RpcCall) {
    let (mut sent, mut answered) = (0, 0);
    let mut body = Vec::new();
    let mut answer = RpcResponse::default();
    while answered < n {
        while sent < n && sent - answered < in_flight {
            client.call(asked).unwrap();
            sent += 1;
        }
        pass(client, server, &mut body);
        while let Some(event) = server.poll_event() {
            if let Event::Call(stream, call) = event {
                answer.result = call.args;
                server.respond(stream, &answer).unwrap();
            }
        }
        pass(server, client, &mut body);
        while let Some(event) = client.poll_event() {
            answered += u64::from(matches!(event, Event::Response(..)));
        }
    }
}

fn connection_cases(cases: &mut Vec<Case>) {
    for provider in providers() {
        for suite in [Suite::NK_CHACHAPOLY, Suite::IK_CHACHAPOLY] {
            let name = format!("handshake: both ends, {suite} {}", provider.name());
            cases.push(case(name, "handshake", move || {
                Box::new(move |n| {
                    for _ in 0..n {
                        black_box(connect(provider, suite));
                    }
                })
            }));
        }
        for suite in [Suite::NK_CHACHAPOLY, Suite::NK_AESGCM] {
            for (in_flight, args) in [(1, 64), (64, 64), (1, 65_536)] {
                let name = format!(
                    "calls: {args} bytes there and back, {in_flight} in flight, {suite} {}",
                    provider.name()
                );
                cases.push(case(name, "call", move || {
                    let (mut client, mut server) = connect(provider, suite);
                    let asked = call(args);
                    Box::new(move |n| make_calls(&mut client, &mut server, n, in_flight, &asked))
                }));
            }
        }
    }
}

/// From a call that was taken off the wire to its answer: access rules, method, arguments.
#[cfg(feature = "server")]
fn dispatch_cases(cases: &mut Vec<Case>) {
    use raystream::{
        api::{Caller, Clock, sys_router},
        auth::{Access, AccessHandle, Principal},
        rpc::{Call, ConnectionId, Context, Encoding, Reply},
    };
    struct Stopped;
    impl Clock for Stopped {
        fn server_time_ms(&self) -> u64 {
            0
        }
        fn uptime_ms(&self) -> u64 {
            0
        }
    }
    cases.push(case("dispatch: sys.echo of 64 bytes".into(), "call", || {
        let router = sys_router(Arc::new(Stopped));
        let access = AccessHandle::new(Access::everything());
        // As the daemon has it: one for a connection.
        let context = Context {
            caller: Arc::new(Caller::new(Principal::from_handshake(None), access)),
            connection: ConnectionId([7; 16]),
            cancelled: Default::default(),
            deadline: None,
            metadata: Vec::new(),
        };
        let args = Bytes::from(format!("{{\"x\":\"{}\"}}", "x".repeat(56)));
        Box::new(move |n| {
            for _ in 0..n {
                let call = Call {
                    method: "sys.echo".into(),
                    encoding: Encoding::Json,
                    args: args.clone(),
                    idempotency_key: None,
                    items: Default::default(),
                };
                assert!(matches!(router.dispatch(&context, call), Reply::Ready(Ok(_))));
            }
        })
    }));
}
