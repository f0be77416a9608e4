//! Bad input over real sockets: each a clear error, the daemon alive, its memory flat.
use super::support::{TestDaemon, raystream};
use raystream::wire::ErrorCode;
use std::io::{Read, Write};

/// The refusal in clear: `len | 0xFF | code`.
fn refusal(code: ErrorCode) -> Vec<u8> {
    [&[0, 3, 0xFF][..], &code.0.to_be_bytes()].concat()
}

/// Pseudo-random bytes: the same in every run.
fn noise(len: usize, mut seed: u64) -> Vec<u8> {
    let mut next = || {
        seed ^= seed << 13;
        seed ^= seed >> 7;
        seed ^= seed << 17;
        seed.to_le_bytes()[0]
    };
    (0..len).map(|_| next()).collect()
}

/// One daemon for all: starting one takes a second, and it has to survive all of it anyway.
#[test]
fn bad_input_gets_clear_errors_and_harms_nobody() {
    let mut daemon = TestDaemon::start();
    let url = daemon.url.clone();
    let (status, out, err) = raystream(&["call", &url, "sys.echo", r#"{"a":1}"#]);
    assert_eq!((status, out.trim()), (Some(0), r#"{"a":1}"#), "{err}");

    plain_http_on_the_binary_port(&daemon);
    binary_where_http_was_begun(&daemon);
    garbage_and_lying_lengths(&daemon);
    wrong_keys_and_suites(&daemon);
    frames_that_do_not_exist(&daemon);
    calls_that_make_no_sense(&url);

    let before = daemon.resident_kib();
    for seed in 1..200 {
        daemon.exchange(&noise(65_536, seed));
        let mut lying = vec![0, 200];
        lying.extend(noise(199, seed));
        drop(daemon.connect().write_all(&lying));
    }
    let after = daemon.resident_kib();
    assert!(after < before + 16 * 1024, "{before} KiB, then {after} KiB");
    assert!(daemon.is_alive());
    let (status, out, err) = raystream(&["call", &url, "sys.echo", r#"{"still":"here"}"#]);
    assert_eq!((status, out.trim()), (Some(0), r#"{"still":"here"}"#), "{err}");

    let log = daemon.log();
    assert!(!log.chars().any(|c| c.is_control() && c != '\n'), "no control character of a peer in the log");
    assert!(!log.contains("panicked"), "{log}");
    daemon.terminate();
}

fn plain_http_on_the_binary_port(daemon: &TestDaemon) {
    let get = |path: &str| {
        let request = format!("GET {path} HTTP/1.1\r\nHost: x\r\n\r\n");
        String::from_utf8(daemon.exchange(request.as_bytes())).unwrap()
    };
    assert!(get("/health").starts_with("HTTP/1.1 200"), "{}", get("/health"));
    assert!(get("/ready").starts_with("HTTP/1.1 200"), "{}", get("/ready"));
    let other = get("/");
    assert!(other.starts_with("HTTP/1.1 404") && other.contains("raystream://"), "{other}");
    let plain = get("/raystream");
    assert!(plain.starts_with("HTTP/1.1 4"), "not an upgrade: {plain}");
    let long = format!("GET / HTTP/1.1\r\nHost: x\r\nX: {}\r\n\r\n", "a".repeat(100_000));
    let refused = String::from_utf8_lossy(&daemon.exchange(long.as_bytes())).into_owned();
    assert!(refused.is_empty() || refused.starts_with("HTTP/1.1 4"), "{refused}");
}

fn binary_where_http_was_begun(daemon: &TestDaemon) {
    let upgrade = |protocol: &str| {
        format!(
            "GET /raystream HTTP/1.1\r\nHost: x\r\nConnection: Upgrade\r\nUpgrade: websocket\r\n\
             Sec-WebSocket-Version: 13\r\nSec-WebSocket-Key: dGhlIHNhbXBsZSBub25jZQ==\r\n{protocol}\r\n"
        )
    };
    let without = String::from_utf8(daemon.exchange(upgrade("").as_bytes())).unwrap();
    assert!(without.starts_with("HTTP/1.1 400") && without.contains("raystream.v1"), "{without}");
    let foreign = upgrade("Origin: https://evil.test\r\nSec-WebSocket-Protocol: raystream.v1\r\n");
    let foreign = String::from_utf8(daemon.exchange(foreign.as_bytes())).unwrap();
    assert!(foreign.starts_with("HTTP/1.1 403"), "{foreign}");

    // Upgraded, then bytes that are no WebSocket frame: unmasked, reserved bits.
    let mut stream = daemon.connect();
    stream.write_all(upgrade("Sec-WebSocket-Protocol: raystream.v1\r\n").as_bytes()).unwrap();
    let mut head = [0; 12];
    stream.read_exact(&mut head).unwrap();
    assert_eq!(&head, b"HTTP/1.1 101");
    stream.write_all(&noise(4_096, 7)).unwrap();
    let mut rest = Vec::new();
    let _may_be_reset = stream.read_to_end(&mut rest);
}

fn garbage_and_lying_lengths(daemon: &TestDaemon) {
    let mut garbage = noise(65_536, 42);
    garbage[0] = 0x16;
    assert_eq!(daemon.exchange(&garbage), refusal(ErrorCode::PROTOCOL_ERROR), "TLS, by its first byte");
    garbage[0] = 0;
    garbage[1] = 0;
    assert_eq!(daemon.exchange(&garbage), refusal(ErrorCode::PROTOCOL_ERROR), "a record of no length");
    garbage[1] = 100;
    assert_eq!(daemon.exchange(&garbage), refusal(ErrorCode::PROTOCOL_ERROR), "a record of garbage");
    // A length that is never filled: the handshake deadline ends it.
    assert_eq!(daemon.exchange(&[0, 117, 1, 1]), refusal(ErrorCode::HANDSHAKE_TIMEOUT));
}

fn wrong_keys_and_suites(daemon: &TestDaemon) {
    let wrong = format!("raystream://{}@{}", "09".repeat(32), daemon.address);
    let (status, _, err) = raystream(&["call", &wrong, "sys.info"]);
    assert_eq!(status, Some(2), "{err}");
    assert!(err.contains("UNKNOWN_KEY") || err.contains("another key"), "{err}");
    let without = format!("raystream://{}", daemon.address);
    let (status, _, err) = raystream(&["call", &without, "sys.info"]);
    assert!(status != Some(0) && err.contains("--trust-on-first-use"), "{status:?} {err}");

    // INIT of a suite, a version and a length that do not exist.
    let init = |version: u8, suite: u8, noise_len: usize| {
        let mut body = vec![1, version, suite, 0];
        body.extend([7; 8]);
        body.extend([1, suite]);
        body.extend(vec![9; noise_len]);
        [&u16::try_from(body.len()).unwrap().to_be_bytes()[..], &body].concat()
    };
    assert_eq!(daemon.exchange(&init(1, 0x7f, 48)), refusal(ErrorCode::UNSUPPORTED_SUITE));
    assert_eq!(daemon.exchange(&init(9, 0x01, 48)), refusal(ErrorCode::UNSUPPORTED_VERSION));
    assert_eq!(daemon.exchange(&init(1, 0x01, 47)), refusal(ErrorCode::PROTOCOL_ERROR));
    assert_eq!(daemon.exchange(&init(1, 0x01, 48)), refusal(ErrorCode::UNKNOWN_KEY));
}

/// A peer that is `snow` and a few lines, so that it can say what our own connection never would.
fn frames_that_do_not_exist(daemon: &TestDaemon) {
    let key: Vec<u8> = {
        let hex = daemon.url.trim_start_matches("raystream://").split('@').next().unwrap();
        (0..32).map(|at| u8::from_str_radix(&hex[2 * at..2 * at + 2], 16).unwrap()).collect()
    };
    let key_id = raystream::noise::PublicKey(key.clone().try_into().unwrap()).key_id();
    let said = |plaintext: &[u8]| -> (u16, String) {
        let mut head = vec![1, 1, 1, 0];
        head.extend(key_id);
        head.extend([1, 1]);
        let prologue = [&b"raystream-v1\0"[..], &head].concat();
        let mut noise = snow::Builder::new("Noise_NK_25519_ChaChaPoly_SHA256".parse().unwrap())
            .prologue(&prologue)
            .unwrap()
            .remote_public_key(&key)
            .unwrap()
            .build_initiator()
            .unwrap();
        let mut buffer = vec![0; 65_535];
        let len = noise.write_message(&[], &mut buffer).unwrap();
        head.extend(&buffer[..len]);
        let mut stream = daemon.connect();
        let mut send = |body: &[u8]| {
            stream.write_all(&u16::try_from(body.len()).unwrap().to_be_bytes()).unwrap();
            stream.write_all(body).unwrap();
        };
        send(&head);
        let mut len = [0; 2];
        stream.read_exact(&mut len).unwrap();
        let mut body = vec![0; usize::from(u16::from_be_bytes(len))];
        stream.read_exact(&mut body).unwrap();
        assert_eq!(body[0], 2, "HANDSHAKE_RESPONSE");
        noise.read_message(&body[1..], &mut buffer).unwrap();
        let mut noise = noise.into_transport_mode().unwrap();
        let len = noise.write_message(plaintext, &mut buffer).unwrap();
        stream.write_all(&u16::try_from(len).unwrap().to_be_bytes()).unwrap();
        stream.write_all(&buffer[..len]).unwrap();
        let mut answer = Vec::new();
        stream.read_to_end(&mut answer).unwrap();
        let len = noise.read_message(&answer[2..], &mut buffer).unwrap();
        let frame = &buffer[..len];
        assert_eq!(frame[0], 0xFF, "CLOSE comes before the end");
        (u16::from_be_bytes([frame[8], frame[9]]), String::from_utf8(frame[10..].to_vec()).unwrap())
    };
    let (code, reason) = said(&[0x77, 0, 0, 0, 0, 1, 0, 0]);
    assert_eq!(code, ErrorCode::PROTOCOL_ERROR.0);
    assert!(reason.contains("0x77"), "{reason}");
    let (code, reason) = said(&[0x10, 0, 0, 0, 0, 1, 0xFF, 0xFF, 1, 2, 3]);
    assert_eq!(code, ErrorCode::PROTOCOL_ERROR.0, "a frame that lies about its length");
    assert!(reason.contains("frame"), "{reason}");
    let (code, _) = said(&[0x14, 0, 0, 0, 0, 1, 0, 0]);
    assert_eq!(code, ErrorCode::PROTOCOL_ERROR.0, "an item of a call that nobody made");
    let (code, _) = said(&[]);
    assert_eq!(code, ErrorCode::PROTOCOL_ERROR.0, "a record without a frame");
}

fn calls_that_make_no_sense(url: &str) {
    let call = |args: &[&str]| {
        let (status, out, err) = raystream(&[&["call", url], args].concat());
        assert_eq!((status, out.as_str()), (Some(1), ""), "{args:?}: {err}");
        err
    };
    let starts = |err: String, code: &str| assert!(err.starts_with(&format!("{code}: ")), "{code}: {err}");
    starts(call(&["sys.echo", "{not json"]), "INVALID_REQUEST");
    starts(call(&["no.such.method"]), "NOT_FOUND");
    starts(call(&["table.get", r#"{"table":"a\"b","id":"1"}"#]), "INVALID_REQUEST");
    starts(call(&["table.set", r#"{"table":"a'; drop table x; --","id":"1","data":{}}"#]), "INVALID_REQUEST");
    starts(call(&["table.get", r#"{"table":"nothing_here","id":"1"}"#]), "NOT_FOUND");
    starts(call(&["table.get", r#"{"table":"t","id":1}"#]), "INVALID_REQUEST");
    starts(call(&["table.get", r#"{"table":"t","id":"1","more":true}"#]), "INVALID_REQUEST");
    starts(call(&["table.set", r#"{"table":"t","id":"1","data":{"a":"\u0000"}}"#]), "INVALID_REQUEST");
}
