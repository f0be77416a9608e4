//! State x event of a whole connection, as the specification has it: what each end sends, or ends with.

use crate::support::{
    Setup,
    raw::{NOW, Raw, frame, heartbeat, hello, init, response_to},
};
use raystream::{
    conn::{Connection, Framing},
    noise::Transport,
    wire::{
        ErrorCode, FrameType, Suite,
        control::{Close, GoAway},
        handshake::{TYPE_RESPONSE, decode_refusal, encode_refusal},
    },
};
use std::time::Duration;

fn setup() -> Setup {
    Setup::new(Suite::NK_CHACHAPOLY, Framing::Messages)
}

/// What the connection sends, else what it ends with, else `-`.
fn outcome(connection: &mut Connection, transport: &mut Transport, was_over: bool) -> String {
    let mut sent = Vec::new();
    let mut body = Vec::new();
    while connection.poll_transmit(NOW, &mut body) {
        if let Some(code) = decode_refusal(&body) {
            sent.push(format!("refusal {code}"));
        } else if body.len() == 113 && body[0] == TYPE_RESPONSE {
            sent.push("RESPONSE".into());
        } else {
            let (text, tag) = body.split_last_chunk_mut::<16>().unwrap();
            transport.receive.decrypt_in_place(&[], text, tag).unwrap();
            for frame in crate::support::raw::parse(text) {
                sent.push(match frame.frame_type {
                    FrameType::CLOSE => format!("CLOSE {}", Close::decode(&frame.payload).unwrap().code),
                    other => other.to_string(),
                });
            }
        }
        body.clear();
    }
    match (connection.end(), sent.is_empty()) {
        (Some(end), true) if !was_over => end.code().to_string(),
        (_, true) => "-".into(),
        _ => sent.join(", "),
    }
}

fn event(name: &str, connection: &mut Connection, transport: &mut Transport) {
    let mut seal = |plaintext: &[u8]| {
        let mut body = plaintext.to_vec();
        let tag = transport.send.encrypt_in_place(&[], &mut body).unwrap();
        body.extend_from_slice(&tag);
        body
    };
    let close = Close { code: ErrorCode::NO_ERROR, reason: String::new() };
    let go_away = GoAway { delay_ms: 0, last_stream: 0, code: ErrorCode::GOING_AWAY };
    let init = init(Suite::NK_CHACHAPOLY).0;
    let mut body = match name {
        "INIT" => init,
        "RESPONSE" => response_to(&init, &hello(&setup()).encode()).0,
        "refusal" => encode_refusal(ErrorCode::UNKNOWN_KEY).to_vec(),
        "HEARTBEAT" => seal(&heartbeat(1, false)),
        "CLOSE" => seal(&frame(FrameType::CLOSE, 0, 0, &close.encode())),
        "GOAWAY" => seal(&frame(FrameType::GOAWAY, 0, 0, &go_away.encode())),
        "garbage" => vec![0x5a; 40],
        "empty" => Vec::new(),
        "end" => {
            connection.handle_eof().unwrap_err();
            return;
        }
        "timeout" => {
            // Later than every deadline; the age of keys is another table.
            let _over = connection.handle_timeout(Duration::from_secs(60));
            return;
        }
        "close" => {
            connection.close(ErrorCode::GOING_AWAY, "");
            return;
        }
        other => panic!("no event {other}"),
    };
    // What it gives is what `end` gives.
    let result = connection.handle_record(NOW, &mut body);
    assert_eq!(result.err().as_ref(), connection.end());
}

/// Runs one cell of a table. `over` is what the state is made of, after the end is sent.
fn cell(make: impl Fn() -> (Connection, Transport), state: &str, name: &str) -> String {
    let (mut connection, mut transport) = make();
    let was_over = matches!(state, "closing" | "over");
    if was_over {
        connection.close(ErrorCode::GOING_AWAY, "");
    }
    if state == "over" {
        outcome(&mut connection, &mut transport, false);
    }
    event(name, &mut connection, &mut transport);
    outcome(&mut connection, &mut transport, was_over)
}

fn server_in(state: &str) -> (Connection, Transport) {
    match state {
        "await INIT" => {
            let (_, server) = setup().connections();
            (server, Raw::unproved_client(setup()).transport)
        }
        "unproved" => {
            let raw = Raw::unproved_client(setup());
            (raw.connection, raw.transport)
        }
        _ => {
            let raw = Raw::client(setup());
            (raw.connection, raw.transport)
        }
    }
}

#[test]
fn state_event_table_server_connection() {
    let events =
        ["INIT", "RESPONSE", "refusal", "HEARTBEAT", "CLOSE", "garbage", "empty", "end", "timeout", "close"];
    let states = ["await INIT", "unproved", "open", "closing", "over"];
    let table: Vec<Vec<String>> = states
        .iter()
        .map(|state| events.iter().map(|name| cell(|| server_in(state), state, name)).collect())
        .collect();
    const REFUSED: &str = "refusal PROTOCOL_ERROR";
    const FORGED: &str = "CLOSE DECRYPTION_FAILED";
    const FAULT: &str = "CLOSE PROTOCOL_ERROR";
    const BYE: &str = "CLOSE GOING_AWAY";
    assert_eq!(
        table,
        [
            [
                "RESPONSE",
                REFUSED,
                REFUSED,
                REFUSED,
                REFUSED,
                REFUSED,
                REFUSED,
                "TRUNCATED",
                "refusal HANDSHAKE_TIMEOUT",
                "refusal GOING_AWAY"
            ],
            [
                FORGED,
                FORGED,
                FORGED,
                "HEARTBEAT",
                "CLOSE NO_ERROR",
                FORGED,
                FAULT,
                "TRUNCATED",
                "CLOSE HANDSHAKE_TIMEOUT",
                BYE
            ],
            [
                FORGED,
                FORGED,
                FORGED,
                "HEARTBEAT",
                "CLOSE NO_ERROR",
                FORGED,
                FAULT,
                "TRUNCATED",
                "CLOSE IDLE_TIMEOUT",
                BYE
            ],
            // The owner has closed: nothing that comes changes that; a transport that is gone takes no CLOSE.
            [BYE, BYE, BYE, BYE, BYE, BYE, BYE, "-", BYE, BYE],
            ["-", "-", "-", "-", "-", "-", "-", "-", "-", "-"],
        ]
    );
}

fn client_in(state: &str) -> (Connection, Transport) {
    if state == "await RESPONSE" {
        let (mut client, _) = setup().connections();
        assert!(client.poll_transmit(NOW, &mut Vec::new()));
        let transport = response_to(&init(Suite::NK_CHACHAPOLY).0, &hello(&setup()).encode()).1;
        return (client, transport);
    }
    let raw = Raw::server(setup());
    (raw.connection, raw.transport)
}

#[test]
fn state_event_table_client_connection() {
    let events = [
        "INIT",
        "RESPONSE",
        "refusal",
        "HEARTBEAT",
        "CLOSE",
        "GOAWAY",
        "garbage",
        "empty",
        "end",
        "timeout",
        "close",
    ];
    let states = ["await RESPONSE", "open", "closing", "over"];
    let table: Vec<Vec<String>> = states
        .iter()
        .map(|state| events.iter().map(|name| cell(|| client_in(state), state, name)).collect())
        .collect();
    const FAULT: &str = "PROTOCOL_ERROR";
    const FORGED: &str = "CLOSE DECRYPTION_FAILED";
    const BYE: &str = "CLOSE GOING_AWAY";
    assert_eq!(
        table,
        [
            [
                FAULT,
                "HEARTBEAT",
                "UNKNOWN_KEY",
                FAULT,
                FAULT,
                FAULT,
                FAULT,
                FAULT,
                "TRUNCATED",
                "HANDSHAKE_TIMEOUT",
                "GOING_AWAY"
            ],
            [
                FORGED,
                FORGED,
                FORGED,
                "HEARTBEAT",
                "CLOSE NO_ERROR",
                "-",
                FORGED,
                "CLOSE PROTOCOL_ERROR",
                "TRUNCATED",
                "CLOSE IDLE_TIMEOUT",
                BYE
            ],
            [BYE, BYE, BYE, BYE, BYE, BYE, BYE, BYE, "-", BYE, BYE],
            ["-", "-", "-", "-", "-", "-", "-", "-", "-", "-", "-"],
        ]
    );
}
