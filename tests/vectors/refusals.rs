//! `refusals.json`: inputs that end a connection.

use crate::{
    bytes_of, check, read,
    support::{
        Setup, call, hex as digits,
        json::{Json, file, hex},
        raw::{NOW, Raw, framed, init},
        refusals::{Refusal, of_client, of_server},
        subscribe,
    },
};
use raystream::wire::{FrameType, Suite};

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
    let (_, mut server) = Setup::plain().connections();
    let stream = framed(body);
    let mut input = bytes::BytesMut::from(&stream[..]);
    let error = server.handle_input(NOW, &mut input).expect_err(name);
    Json::Object(vec![
        ("name", (*name).into()),
        ("rule", (*rule).into()),
        ("side", "server".into()),
        ("state", "start".into()),
        ("before", Vec::new().into()),
        ("input", hex(&stream)),
        ("code", error.code().to_string().into()),
    ])
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
            let (_, mut server) = Setup::plain().connections();
            server.handle_input(NOW, &mut bytes::BytesMut::from(&input[..])).expect_err(name).code()
        } else {
            let mut raw = receiver(vector["side"].as_str().unwrap());
            for record in vector["before"].as_array().unwrap() {
                raw.send(&bytes_of(record)).unwrap_or_else(|error| panic!("{name}: {error}"));
            }
            raw.refused(&input)
        };
        assert_eq!(vector["code"], code.to_string(), "{name}");
        assert!(digits(&input).len() < 100_000);
    }
    assert!(FrameType::ALL.len() > 10);
}
