//! `refusals.json`: inputs that end a connection.

use crate::{
    bytes_of, check, read,
    support::{
        SERVER_STATIC, Setup, call, hex as digits,
        json::{Json, file, hex},
        public_key,
        raw::{NOW, Raw, framed, handshake, hello, init, response_to},
        refusals::{Refusal, of_client, of_server},
        subscribe,
    },
};
use raystream::{
    noise::Role,
    wire::{FrameType, Suite, handshake::Init},
};

/// First bodies that a server refuses in clear; the keys are those of `handshake.json`.
fn first_bodies() -> Vec<(&'static str, &'static str, Vec<u8>)> {
    let (good, _) = init(Suite::NK_CHACHAPOLY);
    let change = |at: usize, to: u8| {
        let mut body = good.clone();
        body[at] = to;
        body
    };
    let offering = |offered: &[u8]| {
        let count = u8::try_from(offered.len()).unwrap();
        [&good[..12], &[count], offered, &good[14..]].concat()
    };
    let mut no_key_id = good.clone();
    no_key_id[4..12].fill(0);
    let mut unknown_suite = change(2, 0x7f);
    unknown_suite[13] = 0x7f;
    vec![
        ("HANDSHAKE_RESPONSE first", "HSK-3", change(0, 2)),
        ("version 2", "HSK-4", change(1, 2)),
        ("flags in HANDSHAKE_INIT", "HSK-5", change(3, 1)),
        ("no suite offered", "HSK-5", offering(&[])),
        ("nine suites offered", "HSK-5", offering(&[1, 2, 3, 4, 5, 6, 7, 8, 9])),
        ("a suite offered twice", "HSK-5", offering(&[1, 1])),
        ("suite in use not offered", "HSK-5", offering(&[2])),
        ("unknown suite", "HSK-6", unknown_suite),
        ("Noise message too short", "HSK-7", good[..good.len() - 1].to_vec()),
        ("Noise message too long", "HSK-7", [&good[..], &[0]].concat()),
        ("key_id of zeros in NK", "HSK-8", no_key_id),
        ("key_id of another server", "HSK-9", change(4, !good[4])),
        ("changed Noise message", "HSK-10", change(good.len() - 1, !good[good.len() - 1])),
        ("ephemeral key of zeros", "HSK-11", [&good[..14], &[0; 32], &good[46..]].concat()),
    ]
}

fn first_body_vector((name, rule, body): &(&'static str, &'static str, Vec<u8>)) -> Json {
    let stream = framed(body);
    Json::Object(vec![
        ("name", (*name).into()),
        ("rule", (*rule).into()),
        ("side", "server".into()),
        ("state", "start".into()),
        ("before", Vec::new().into()),
        ("input", hex(&stream)),
        ("code", refused_at_the_start("server", &stream).into()),
    ])
}

/// First bodies of a server that a client ends the connection for.
fn first_answers() -> Vec<(&'static str, &'static str, Vec<u8>)> {
    let (mut client, _) = Setup::plain().connections();
    let mut init = Vec::new();
    assert!(client.poll_transmit(NOW, &mut init));
    let good = hello(&Setup::plain()).encode();
    let saying = |payload: &[u8]| response_to(&init[2..], payload).0;
    let change = |at: usize, to: u8| {
        let mut payload = good;
        payload[at] = to;
        saying(&payload)
    };
    let answer = saying(&good);
    let mut changed = answer.clone();
    changed[112] ^= 1;
    let mut first = answer.clone();
    first[0] = 1;
    vec![
        ("HANDSHAKE_INIT from the server", "HSK-12", first),
        ("answer one byte short", "HSK-13", answer[..112].to_vec()),
        ("answer one byte long", "HSK-13", [&answer[..], &[0]].concat()),
        ("answer with a changed tag", "HSK-13", changed),
        ("version 2 in the payload", "HSK-14", change(0, 2)),
        ("no suite listed", "HSK-14", change(1, 0)),
        ("fifteen suites listed", "HSK-14", change(1, 15)),
        ("list that is not zero padded", "HSK-14", change(15, 1)),
        ("payload that is not zero padded", "HSK-14", change(63, 1)),
        ("suite in use not listed", "HSK-15", change(2, Suite::NK_AESGCM.0)),
        ("refusal in clear", "HSK-19", vec![0xff, 0, 35]),
    ]
}

fn first_answer_vector((name, rule, body): &(&'static str, &'static str, Vec<u8>)) -> Json {
    let stream = framed(body);
    Json::Object(vec![
        ("name", (*name).into()),
        ("rule", (*rule).into()),
        ("side", "client".into()),
        ("state", "start".into()),
        ("before", Vec::new().into()),
        ("input", hex(&stream)),
        ("code", refused_at_the_start("client", &stream).into()),
    ])
}

/// Gives the input to a fresh end, and tells the code by which the connection ended. A client has sent its INIT.
fn refused_at_the_start(side: &str, input: &[u8]) -> String {
    let (mut client, mut server) = Setup::plain().connections();
    assert!(client.poll_transmit(NOW, &mut Vec::new()));
    let end = if side == "client" { &mut client } else { &mut server };
    let error = end.handle_input(NOW, &mut bytes::BytesMut::from(input)).expect_err("it is refused");
    assert_eq!(end.poll_event(), None);
    error.code().to_string()
}

fn established_vector(side: &'static str, refusal: &Refusal) -> Option<Json> {
    let (input, before) = refusal.records.split_last().unwrap();
    // Those with a mebibyte of zeros are for tests that can make them, not for a file.
    if refusal.records.iter().map(Vec::len).sum::<usize>() > 40_000 {
        return None;
    }
    Some(Json::Object(vec![
        ("name", format!("{side}: {}", refusal.name).into()),
        ("rule", refusal.rule.into()),
        ("side", side.into()),
        ("state", "established".into()),
        ("before", before.iter().map(|record| hex(record)).collect::<Vec<_>>().into()),
        ("input", hex(input)),
        ("code", refusal.code.to_string().into()),
    ]))
}

#[test]
fn refusals_json_is_what_the_code_does() {
    let mut vectors: Vec<_> = first_bodies().iter().map(first_body_vector).collect();
    vectors.extend(first_answers().iter().map(first_answer_vector));
    vectors.extend(of_client().iter().filter_map(|refusal| established_vector("server", refusal)));
    vectors.extend(of_server().iter().filter_map(|refusal| established_vector("client", refusal)));
    check("vectors/refusals.json", &file(vectors));
}

/// A connection in the state that the file describes, from the side that receives.
fn receiver(side: &str) -> Raw {
    if side == "server" {
        return Raw::client(Setup::plain());
    }
    let mut raw = Raw::server(Setup::plain());
    raw.connection.call(&call("m", "")).unwrap();
    raw.connection.subscribe(&subscribe("t", 1)).unwrap();
    raw.poll();
    raw.open_all();
    raw
}

/// From nothing but the file: each input ends the connection by its code, and each one before it does not.
#[test]
fn refusals_json_reads_back() {
    for vector in read("refusals.json") {
        let name = vector["name"].as_str().unwrap();
        let input = bytes_of(&vector["input"]);
        let code = if vector["state"] == "start" {
            refused_at_the_start(vector["side"].as_str().unwrap(), &input)
        } else {
            let mut raw = receiver(vector["side"].as_str().unwrap());
            for record in vector["before"].as_array().unwrap() {
                raw.send(&bytes_of(record)).unwrap_or_else(|error| panic!("{name}: {error}"));
            }
            raw.refused(&input).to_string()
        };
        assert_eq!(vector["code"], code, "{name}");
        assert!(digits(&input).len() < 100_000);
    }
    assert!(FrameType::ALL.len() > 10);
}

/// The counterpart of a refusal: a list with suites of a later version is no fault.
#[test]
fn a_server_passes_over_suites_that_it_does_not_know() {
    let offered = [Suite(0x7f), Suite::NK_CHACHAPOLY, Suite(0x81)];
    let mut body = Init::encode_head(Suite::NK_CHACHAPOLY, public_key(SERVER_STATIC).key_id(), &offered);
    let mut state = handshake(Suite::NK_CHACHAPOLY, Role::Initiator, &body);
    state.write_message(&[], &mut body).unwrap();
    let (_, mut server) = Setup::plain().connections();
    server.handle_input(NOW, &mut bytes::BytesMut::from(&framed(&body)[..])).unwrap();
    let mut answer = Vec::new();
    assert!(server.poll_transmit(NOW, &mut answer));
    state.read_message(&answer[3..], &mut Vec::new()).unwrap();
}
