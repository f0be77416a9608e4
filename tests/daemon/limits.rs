//! Limits of the machine: no descriptors left, a peer that never reads.

use super::support::{PATIENCE, RAYSTREAM, TestDaemon, raystream};
use bytes::{Bytes, BytesMut};
use raystream::{
    conn::{ClientConfig, Connection, Entropy, Framing, Limits},
    wire::{Suite, envelope::RpcCall},
};
use std::{
    io::{Read, Write},
    net::TcpStream,
    process::Command,
    sync::Arc,
    time::{Duration, Instant},
};

/// Every descriptor taken: the daemon sheds, survives and serves again once there are some.
#[test]
fn without_descriptors_it_sheds_and_comes_back() {
    let mut command = Command::new("sh");
    command.args(["-c", "ulimit -n 96 && exec \"$0\" \"$@\"", RAYSTREAM]);
    let mut daemon = TestDaemon::start_with(command);
    let flood: Vec<TcpStream> = (0..300).filter_map(|_| TcpStream::connect(daemon.address).ok()).collect();
    assert!(flood.len() > 96, "more than it has descriptors for");
    let deadline = Instant::now() + Duration::from_secs(30);
    while !daemon.log().contains("accept failed") {
        assert!(Instant::now() < deadline, "it runs out of descriptors:\n{}", daemon.log());
        std::thread::sleep(Duration::from_millis(20));
    }
    drop(flood);
    let served = (0..100).any(|_| raystream(&["call", &daemon.url, "sys.echo", "{}"]).0 == Some(0));
    assert!(served && daemon.is_alive(), "{}", daemon.log());
}

/// A peer that asks for 20 MB and takes nothing: it holds a bounded amount of memory, others are served at once, and it
/// is given up after the write deadline.
#[test]
fn a_peer_that_does_not_read_holds_little_and_harms_nobody() {
    const DOCUMENT: usize = 100_000;
    const CALLS: usize = 200;
    let daemon = TestDaemon::start();
    let document = format!(r#"{{"table":"t","id":"1","data":"{}"}}"#, "x".repeat(DOCUMENT));
    let (status, _, err) = raystream(&["call", &daemon.url, "table.set", &document]);
    assert_eq!(status, Some(0), "{err}");
    let before = daemon.resident_kib();

    let mut stream = daemon.connect();
    let mut connection = deaf_client(&daemon, &mut stream);
    for _ in 0..CALLS {
        let args = Bytes::from_static(br#"{"table":"t","id":"1"}"#);
        connection.call(&RpcCall { method: "table.get".into(), args, ..RpcCall::default() }).expect("room");
    }
    send(&mut connection, &mut stream);
    for _ in 0..20 {
        let (status, _, err) = raystream(&["call", &daemon.url, "table.get", r#"{"table":"t","id":"2"}"#]);
        assert_eq!(status, Some(0), "others are served: {err}");
    }
    let held = daemon.resident_kib().saturating_sub(before);
    let asked = u64::try_from(CALLS * DOCUMENT / 1024).expect("a small number");
    assert!(held < 2 * asked, "{held} KiB are held for a peer that asked for {asked} KiB");

    let deadline = Instant::now() + PATIENCE;
    while !daemon.log().contains("the peer did not read for too long") {
        assert!(Instant::now() < deadline, "the write deadline ends it:\n{}", daemon.log());
        std::thread::sleep(Duration::from_millis(50));
    }
}

/// A connection with keys whose owner will read no more.
fn deaf_client(daemon: &TestDaemon, stream: &mut TcpStream) -> Connection {
    let key = daemon.url.trim_start_matches("raystream://").split('@').next().expect("a key");
    let config = ClientConfig {
        provider: raystream::noise::rust_crypto(),
        suites: vec![Suite::NK_CHACHAPOLY],
        suite: None,
        server_key: Some(key.parse().expect("a public key")),
        identity: None,
        psk: None,
        limits: Limits::default(),
    };
    let entropy = Entropy { ephemeral: [42; 32], connection_id: [0; 16], server_time_ms: 0 };
    let mut connection = Connection::client(Arc::new(config), entropy, Framing::Stream, Duration::ZERO)
        .expect("the configuration is sound");
    send(&mut connection, stream);
    let mut input = BytesMut::zeroed(2);
    stream.read_exact(&mut input).expect("the length of HANDSHAKE_RESPONSE");
    let len = usize::from(u16::from_be_bytes([input[0], input[1]]));
    input.resize(2 + len, 0);
    stream.read_exact(&mut input[2..]).expect("HANDSHAKE_RESPONSE");
    connection.handle_input(Duration::ZERO, &mut input).expect("the handshake is done");
    connection
}

fn send(connection: &mut Connection, stream: &mut TcpStream) {
    let mut out = Vec::new();
    while connection.poll_transmit(Duration::ZERO, &mut out) {}
    stream.write_all(&out).expect("the daemon reads");
}
