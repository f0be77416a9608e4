//! The handshake as it should go, and the refusals of what should not.

use crate::support::{
    CLIENT_STATIC, CONNECTION_ID, SERVER_STATIC, SERVER_TIME_MS, Setup, for_each_suite,
    pair::{From, Pair},
    public_key,
    raw::{NOW, Raw, feed, framed, hello, init},
};
use raystream::{
    conn::{ConnectionError, Event, Framing},
    noise::StaticSecret,
    wire::{
        DecodeError, ErrorCode, Suite,
        handshake::{Init, decode_refusal},
    },
};
use std::time::Duration;

#[test]
fn every_suite_connects_over_both_framings() {
    for_each_suite(|setup| {
        let suite = setup.client.suites[0];
        let pattern = suite.pattern_name().unwrap();
        let mut pair = Pair::new(setup);
        pair.drive();
        let client = pair.client.take();
        let [Event::Connected(server_seen, hello), Event::HeartbeatEcho(rtt)] = &client[..] else {
            panic!("{client:?}")
        };
        let Event::Established(client_seen) = pair.server.take_one() else { panic!("not established") };
        assert_eq!(*rtt, pair.latency * 2);
        assert_eq!(server_seen.key, Some(public_key(SERVER_STATIC)));
        assert_eq!(client_seen.key, pattern.starts_with("IK").then(|| public_key(CLIENT_STATIC)));
        assert_eq!((server_seen.suite, client_seen.suite), (suite, suite));
        assert_eq!(server_seen.handshake_hash, client_seen.handshake_hash);
        assert_eq!(server_seen.connection_id, CONNECTION_ID);
        assert_eq!(hello.suites, [suite]);
        assert_eq!((hello.server_time_ms, hello.message_max), (SERVER_TIME_MS, 1 << 20));
        assert_eq!((hello.calls_max, hello.subscriptions_max), (256, 128));
        assert_eq!((hello.heartbeat_ms, hello.idle_timeout_ms), (15_000, 45_000));
        // The lengths of the specification.
        let lengths: Vec<_> = pair.records.iter().map(|record| (record.from, record.body.len())).collect();
        let message_1 = match pattern {
            "NX" => 32,
            "IK" | "IKpsk2" => 96,
            _ => 48,
        };
        let response = if pattern == "NX" { 161 } else { 113 };
        let heartbeat = 8 + 8 + 16;
        assert_eq!(
            lengths,
            [
                (From::Client, 14 + message_1),
                (From::Server, response),
                (From::Client, heartbeat),
                (From::Server, heartbeat)
            ]
        );
    });
}

#[test]
fn the_peer_counts_only_when_its_first_record_decrypts() {
    for_each_suite(|setup| {
        let mut raw = Raw::unproved_client(setup);
        assert!(!raw.connection.is_open());
        assert!(raw.events.is_empty());
        // A forged first record: nothing was acted upon.
        let mut forged = raw.seal(&crate::support::raw::heartbeat(1, false));
        forged[0] ^= 1;
        let refused = raw.connection.handle_record(NOW, &mut forged);
        raw.poll();
        assert_eq!(refused, Err(ConnectionError::Decryption));
        assert!(raw.events.is_empty());
        assert_eq!(raw.close_received().code, ErrorCode::DECRYPTION_FAILED);
    });
}

#[test]
fn a_client_sends_a_record_at_once() {
    for_each_suite(|setup| {
        let raw = Raw::server(setup);
        // `Raw::server` has seen that the first record is a HEARTBEAT; nobody asked the client to send it.
        assert!(raw.connection.is_open());
    });
}

#[test]
fn a_retired_key_of_the_server_still_works() {
    let mut setup = Setup::plain();
    setup.server.identities.insert(0, StaticSecret::from_bytes([0x77; 32]));
    Pair::connected(setup);
    // NX means no key: it gets the current one.
    let mut setup = Setup::new(Suite::NX_AESGCM, Framing::Stream);
    setup.server.identities.insert(0, StaticSecret::from_bytes([0x77; 32]));
    let mut pair = Pair::new(setup);
    pair.drive();
    let Some(Event::Connected(peer, _)) = pair.client.events.pop_front() else { panic!("not connected") };
    assert_eq!(peer.key, Some(public_key([0x77; 32])));
}

/// Both ends of a handshake that fails, and what the server said in clear.
fn failed(setup: Setup) -> (Option<ConnectionError>, Option<ConnectionError>, Option<ErrorCode>) {
    let mut pair = Pair::new(setup);
    pair.drive();
    assert!(pair.client.take().is_empty() && pair.server.take().is_empty());
    let refusals: Vec<_> = pair.bodies(From::Server).iter().filter_map(|body| decode_refusal(body)).collect();
    assert!(refusals.len() <= 1);
    (pair.client.end(), pair.server.end(), refusals.first().copied())
}

#[test]
fn a_wrong_server_key_is_refused_as_unknown() {
    for_each_suite(|mut setup| {
        if setup.client.server_key.is_none() {
            return;
        }
        setup.client.server_key = Some(public_key([0x77; 32]));
        let (client, server, code) = failed(setup);
        assert_eq!(client, Some(ConnectionError::Refused(ErrorCode::UNKNOWN_KEY)));
        assert_eq!(server, Some(ConnectionError::UnknownKey));
        assert_eq!(code, Some(ErrorCode::UNKNOWN_KEY));
    });
}

#[test]
fn a_suite_that_the_server_does_not_take_is_refused() {
    for_each_suite(|mut setup| {
        let suite = setup.client.suites[0];
        setup.server.suites.clear();
        setup.server.suites.extend(Suite::ALL.iter().filter(|other| **other != suite));
        let (client, server, code) = failed(setup);
        assert_eq!(client, Some(ConnectionError::Refused(ErrorCode::UNSUPPORTED_SUITE)));
        assert_eq!(server, Some(ConnectionError::UnsupportedSuite(suite.0)));
        assert_eq!(code, Some(ErrorCode::UNSUPPORTED_SUITE));
    });
}

#[test]
fn another_shared_secret_does_not_connect() {
    for suite in [Suite::IKPSK2_CHACHAPOLY, Suite::NKPSK2_AESGCM] {
        let mut setup = Setup::new(suite, Framing::Stream);
        setup.server.psk = Some(raystream::noise::Psk::from_bytes([0x78; 32]));
        let (client, server, code) = failed(setup);
        // The server has answered before it could know; the client finds out, and goes without a word.
        assert_eq!(client, Some(ConnectionError::Decryption));
        assert_eq!(server, Some(ConnectionError::Truncated));
        assert_eq!(code, None);
    }
}

#[test]
fn a_changed_byte_of_the_head_ends_the_handshake() {
    for suite in Suite::ALL {
        let (body, _) = init(*suite);
        let noise = body.len() - Init::decode(&body).unwrap().noise_message.len();
        for at in 0..noise {
            for bit in 0..8 {
                let mut changed = body.clone();
                changed[at] ^= 1 << bit;
                let mut setup = Setup::new(*suite, Framing::Messages);
                setup.server.suites = Suite::ALL.to_vec();
                let (_, mut server) = setup.connections();
                let refused = server.handle_record(NOW, &mut changed);
                let error = refused.err();
                if *suite == Suite::NX_CHACHAPOLY || *suite == Suite::NX_AESGCM {
                    // The first message of NX is in clear: the client finds out.
                    let mut response = Vec::new();
                    assert!(server.poll_transmit(NOW, &mut response));
                    if error.is_none() {
                        let (mut client, _) = Setup::new(*suite, Framing::Messages).connections();
                        assert!(client.poll_transmit(NOW, &mut Vec::new()));
                        let refused = client.handle_record(NOW, &mut response);
                        assert!(matches!(
                            refused,
                            Err(ConnectionError::Decryption | ConnectionError::Decode(_))
                        ));
                    }
                } else {
                    assert!(error.is_some(), "suite {suite}, byte {at}, bit {bit}");
                }
                assert!(server.poll_event().is_none());
            }
        }
    }
}

/// Points of small order (RFC 7748 section 6.1): every secret gives zeros with them.
fn small_order_points() -> Vec<[u8; 32]> {
    let mut one = [0; 32];
    one[0] = 1;
    // p - 1, p and p + 1 with p = 2^255 - 19.
    let near_p = |last: u8| {
        let mut point = [0xff; 32];
        point[0] = last;
        point[31] = 0x7f;
        point
    };
    vec![[0; 32], one, near_p(0xec), near_p(0xed), near_p(0xee)]
}

#[test]
fn keys_that_give_zeros_are_refused_like_any_other_forgery() {
    for suite in Suite::ALL {
        for point in small_order_points() {
            let (mut body, _) = init(*suite);
            let at = body.len() - Init::decode(&body).unwrap().noise_message.len();
            body[at..at + 32].copy_from_slice(&point);
            let (_, mut server) = Setup::new(*suite, Framing::Messages).connections();
            let refused = server.handle_record(NOW, &mut body);
            assert_eq!(refused, Err(ConnectionError::Decryption), "suite {suite}");
            let mut refusal = Vec::new();
            assert!(server.poll_transmit(NOW, &mut refusal));
            assert_eq!(decode_refusal(&refusal), Some(ErrorCode::DECRYPTION_FAILED));

            let setup = Setup::new(*suite, Framing::Messages);
            let block = hello(&setup).encode();
            let (mut client, _) = setup.connections();
            let mut init_body = Vec::new();
            assert!(client.poll_transmit(NOW, &mut init_body));
            let (mut response, _) = crate::support::raw::response_to(&init_body, &block);
            response[1..33].copy_from_slice(&point);
            let refused = client.handle_record(NOW, &mut response);
            assert_eq!(refused, Err(ConnectionError::Decryption), "suite {suite}");
        }
    }
}

#[test]
fn malformed_inits_are_refused_by_their_codes() {
    let (good, _) = init(Suite::NK_CHACHAPOLY);
    let change = |at: usize, to: u8| {
        let mut body = good.clone();
        body[at] = to;
        body
    };
    let with_offer = |offered: &[u8]| {
        let mut body = good[..12].to_vec();
        body.push(u8::try_from(offered.len()).unwrap());
        body.extend_from_slice(offered);
        body.extend_from_slice(&good[14..]);
        body
    };
    let mut zero_key_id = good.clone();
    zero_key_id[4..12].fill(0);
    let (mut nx_with_key_id, _) = init(Suite::NX_CHACHAPOLY);
    nx_with_key_id[4] = 1;
    let mut unknown_suite = change(2, 0x7f);
    unknown_suite[13] = 0x7f;
    let longer = [&good[..], &[0]].concat();
    let cases = [
        ("HSK-3 type", change(0, 0x02), ErrorCode::PROTOCOL_ERROR),
        ("HSK-3 garbage", vec![0x5a; 60], ErrorCode::PROTOCOL_ERROR),
        ("HSK-3 a refusal", vec![0xff, 0, 33], ErrorCode::PROTOCOL_ERROR),
        ("HSK-4 version 0", change(1, 0), ErrorCode::UNSUPPORTED_VERSION),
        ("HSK-4 version 2", change(1, 2), ErrorCode::UNSUPPORTED_VERSION),
        ("HSK-5 flags", change(3, 0x80), ErrorCode::PROTOCOL_ERROR),
        ("HSK-5 none offered", with_offer(&[]), ErrorCode::PROTOCOL_ERROR),
        ("HSK-5 nine offered", with_offer(&[1, 2, 3, 4, 5, 6, 7, 8, 9]), ErrorCode::PROTOCOL_ERROR),
        ("HSK-5 twice", with_offer(&[1, 1]), ErrorCode::PROTOCOL_ERROR),
        ("HSK-5 not in use", with_offer(&[2]), ErrorCode::PROTOCOL_ERROR),
        ("HSK-6 unknown", unknown_suite, ErrorCode::UNSUPPORTED_SUITE),
        ("HSK-7 short", good[..good.len() - 1].to_vec(), ErrorCode::PROTOCOL_ERROR),
        ("HSK-7 long", longer, ErrorCode::PROTOCOL_ERROR),
        ("HSK-8 zeros in NK", zero_key_id, ErrorCode::PROTOCOL_ERROR),
        ("HSK-8 a key in NX", nx_with_key_id, ErrorCode::PROTOCOL_ERROR),
        ("HSK-9", change(4, good[4] ^ 1), ErrorCode::UNKNOWN_KEY),
        ("HSK-10", change(40, good[40] ^ 1), ErrorCode::DECRYPTION_FAILED),
    ];
    for (name, body, code) in cases {
        let mut setup = Setup::plain();
        setup.server.suites = Suite::ALL.to_vec();
        let (_, mut server) = setup.connections();
        let (result, records) = feed(&mut server, &framed(&body));
        assert_eq!(result.unwrap_err().code(), code, "{name}");
        let [high, low] = code.0.to_be_bytes();
        assert_eq!(records, [framed(&[0xff, high, low])], "{name}");
        assert!(server.is_drained() && server.poll_event().is_none(), "{name}");
    }
}

#[test]
fn malformed_responses_are_refused() {
    for suite in Suite::ALL {
        let setup = || Setup::new(*suite, Framing::Messages);
        let good = hello(&setup()).encode();
        let mut version = good;
        version[0] = 2;
        let mut no_suites = good;
        no_suites[1] = 0;
        let mut many_suites = good;
        many_suites[1] = 15;
        let mut padding = good;
        padding[15] = 1;
        let mut reserved = good;
        reserved[63] = 1;
        let short = &good[..63];
        let long = [&good[..], &[0]].concat();
        for block in [&version[..], &no_suites, &many_suites, &padding, &reserved, short, &long] {
            let (mut client, result) = Raw::server_saying(setup(), block);
            assert!(matches!(result, Err(ConnectionError::Decode(_))), "{suite}");
            // A client without a server to trust says nothing.
            assert!(client.is_drained() && client.poll_event().is_none());
            assert!(!client.poll_transmit(NOW, &mut Vec::new()));
        }
        let (_, taken) = Raw::server_saying(setup(), &good);
        assert!(taken.is_ok());
        for body in [&[0x01, 0, 0][..], &[0x02], &[0x7f; 113], &[0xff, 0], &[0xff, 0, 33, 0]] {
            let (mut client, _) = setup().connections();
            assert!(client.poll_transmit(NOW, &mut Vec::new()));
            let refused = client.handle_record(NOW, &mut body.to_vec());
            let expected = DecodeError::InvalidValue("HANDSHAKE_RESPONSE");
            assert_eq!(refused, Err(ConnectionError::Decode(expected)));
        }
    }
}

#[test]
fn the_handshake_deadline_covers_everything_before_the_first_record() {
    let deadline = Duration::from_secs(3);
    let just_before = deadline - Duration::from_nanos(1);
    // Nothing comes; half an INIT comes, byte by byte; a whole INIT comes, and no record after it.
    let (body, _) = init(Suite::NK_CHACHAPOLY);
    let stream = framed(&body);
    for (bytes, has_keys) in [(&[][..], false), (&stream[..40], false), (&stream[..], true)] {
        let (_, mut server) = Setup::plain().connections();
        let mut input = bytes::BytesMut::new();
        for (n, byte) in bytes.iter().enumerate() {
            let now = Duration::from_millis(40) * u32::try_from(n).unwrap();
            input.extend_from_slice(&[*byte]);
            server.handle_input(now, &mut input).unwrap();
            assert_eq!(server.poll_timeout(), Some(deadline));
        }
        let mut out = Vec::new();
        assert_eq!(server.poll_transmit(NOW, &mut out), has_keys);
        assert_eq!(server.handle_timeout(just_before), Ok(()));
        assert_eq!(server.handle_timeout(deadline), Err(ConnectionError::HandshakeTimeout));
        out.clear();
        assert!(server.poll_transmit(deadline, &mut out));
        let refusal = framed(&[0xff, 0, 42]);
        assert_eq!(out == refusal, !has_keys, "with keys CLOSE is encrypted");
        assert_eq!((server.is_drained(), server.poll_timeout()), (true, None));
    }
    let (mut client, _) = Setup::plain().connections();
    assert_eq!(client.poll_timeout(), Some(deadline));
    assert_eq!(client.handle_timeout(just_before), Ok(()));
    assert_eq!(client.handle_timeout(deadline), Err(ConnectionError::HandshakeTimeout));
    assert!(!client.poll_transmit(deadline, &mut Vec::new()));
}

#[test]
fn a_long_record_is_refused_before_it_arrives_until_the_peer_is_proved() {
    let too_long = 4_097_u16.to_be_bytes();
    let refused = |connection: &mut raystream::conn::Connection| {
        let (result, _) = feed(connection, &too_long);
        assert_eq!(result, Err(ConnectionError::Decode(DecodeError::TooLong("record"))));
    };
    let (mut client, mut server) = Setup::plain().connections();
    refused(&mut server);
    refused(&mut client);
    // With keys, but without proof.
    let (_, mut server) = Setup::plain().connections();
    let (body, mut state) = init(Suite::NK_CHACHAPOLY);
    let (taken, records) = feed(&mut server, &framed(&body));
    taken.unwrap();
    refused(&mut server);
    // With proof, records of every length are taken; a record of no length never is.
    let (_, mut server) = Setup::plain().connections();
    feed(&mut server, &framed(&body)).0.unwrap();
    state.read_message(&records[0][3..], &mut Vec::new()).unwrap();
    let mut transport = state.into_transport().unwrap();
    let mut record = crate::support::raw::heartbeat(1, false);
    let tag = transport.send.encrypt_in_place(&[], &mut record).unwrap();
    record.extend_from_slice(&tag);
    feed(&mut server, &framed(&record)).0.unwrap();
    assert!(feed(&mut server, &[0xff, 0xff, 1, 2, 3]).0.is_ok());
    let (result, _) = feed(&mut server, &[0, 0]);
    assert_eq!(result, Err(ConnectionError::Decode(DecodeError::InvalidValue("record length"))));
}
