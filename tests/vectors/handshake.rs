//! `handshake.json`: one short session of each suite, from fixed keys.

use crate::{
    bytes_of, check, read,
    support::{
        CLIENT_EPHEMERAL, CLIENT_STATIC, CONNECTION_ID, PSK, SERVER_EPHEMERAL, SERVER_STATIC, SERVER_TIME_MS,
        Setup, call,
        json::{Json, file, hex, large},
        pair::{From, Pair},
        raw::{Parsed, parse},
        response,
    },
};
use raystream::{
    conn::{Event, Framing},
    noise::{CipherState, Role, Transport},
    wire::{ErrorCode, Suite, handshake::Init},
};

/// Opens records of both directions with the keys of a session. It is made from the recorded handshake by the engine
/// alone, without a connection.
pub(crate) struct Opener {
    from_client: CipherState,
    from_server: CipherState,
    pub(crate) hash: [u8; 32],
}

impl Opener {
    pub(crate) fn new(init: &[u8], response: &[u8]) -> Self {
        let parsed = Init::decode(init).unwrap();
        let transport = |role| -> Transport {
            let mut state = crate::support::raw::handshake(parsed.suite, role, parsed.head);
            let (mut out, mut payload) = (Vec::new(), Vec::new());
            if role == Role::Initiator {
                state.write_message(&[], &mut out).unwrap();
                state.read_message(&response[1..], &mut payload).unwrap();
            } else {
                state.read_message(parsed.noise_message, &mut payload).unwrap();
                // The hello does not enter the keys, only the hash.
                state.write_message(&hello_of(init, response), &mut out).unwrap();
                assert_eq!(out, response[1..]);
            }
            state.into_transport().unwrap()
        };
        let (server, client) = (transport(Role::Responder), transport(Role::Initiator));
        assert_eq!(server.handshake_hash, client.handshake_hash);
        Self { from_client: server.receive, from_server: client.receive, hash: client.handshake_hash }
    }

    pub(crate) fn open(&mut self, from: From, body: &[u8]) -> Vec<u8> {
        let cipher = if from == From::Client { &mut self.from_client } else { &mut self.from_server };
        let mut text = body.to_vec();
        let (text, tag) = text.split_last_chunk_mut::<16>().unwrap();
        cipher.decrypt_in_place(&[], text, tag).unwrap();
        text.to_vec()
    }
}

/// The 64 bytes inside HANDSHAKE_RESPONSE.
pub(crate) fn hello_of(init: &[u8], response: &[u8]) -> Vec<u8> {
    let parsed = Init::decode(init).unwrap();
    let mut state = crate::support::raw::handshake(parsed.suite, Role::Initiator, parsed.head);
    state.write_message(&[], &mut Vec::new()).unwrap();
    let mut payload = Vec::new();
    state.read_message(&response[1..], &mut payload).unwrap();
    payload
}

fn frame_json(frame: &Parsed) -> Json {
    Json::Object(vec![
        ("type", frame.frame_type.to_string().into()),
        ("flags", u32::from(frame.flags).into()),
        ("stream", frame.stream.into()),
        ("payload", hex(&frame.payload)),
    ])
}

fn session(suite: Suite) -> Json {
    let mut setup = Setup::new(suite, Framing::Messages);
    // More than one on either side, so that the lists are seen to matter.
    let other = if suite == Suite::NX_CHACHAPOLY { Suite::NX_AESGCM } else { Suite::NX_CHACHAPOLY };
    setup.client.suites.push(other);
    setup.server.suites.push(other);
    let (offered, listed) = (setup.client.suites.clone(), setup.server.suites.clone());
    let mut pair = Pair::connected(setup);
    pair.client.connection.call(&call("sys.echo", "{\"a\":1}")).unwrap();
    pair.drive();
    let Event::Call(stream, asked) = pair.server.take_one() else { panic!("not a call") };
    pair.server.connection.respond(stream, &response(asked.args)).unwrap();
    pair.drive();
    pair.client.connection.close(ErrorCode::NO_ERROR, "done");
    pair.drive();
    let (init, answer) = (&pair.records[0].body, &pair.records[1].body);
    let mut opener = Opener::new(init, answer);
    let records = pair.records.iter().enumerate().map(|(n, record)| {
        let from = if record.from == From::Client { "client" } else { "server" };
        let mut fields = vec![("from", Json::from(from)), ("body", hex(&record.body))];
        if n >= 2 {
            let plaintext = opener.open(record.from, &record.body);
            fields.push(("plaintext", hex(&plaintext)));
            fields.push(("frames", parse(&plaintext).iter().map(frame_json).collect::<Vec<_>>().into()));
        }
        Json::Object(fields)
    });
    let records: Vec<_> = records.collect();
    let pattern = suite.pattern_name().unwrap();
    let bytes = |suites: &[Suite]| hex(&suites.iter().map(|suite| suite.0).collect::<Vec<_>>());
    Json::Object(vec![
        ("name", suite.name().unwrap().into()),
        ("suite", u32::from(suite.0).into()),
        ("client_ephemeral", hex(&CLIENT_EPHEMERAL)),
        ("server_ephemeral", hex(&SERVER_EPHEMERAL)),
        ("server_static", hex(&SERVER_STATIC)),
        ("client_static", pattern.starts_with("IK").then(|| hex(&CLIENT_STATIC)).into()),
        ("psk", pattern.ends_with("psk2").then(|| hex(&PSK)).into()),
        ("offered", bytes(&offered)),
        ("server_suites", bytes(&listed)),
        ("server_time_ms", large(SERVER_TIME_MS)),
        ("connection_id", hex(&CONNECTION_ID)),
        ("server_hello", hex(&hello_of(init, answer))),
        ("handshake_hash", hex(&opener.hash)),
        ("records", records.into()),
    ])
}

#[test]
fn handshake_json_is_what_the_code_does() {
    check("vectors/handshake.json", &file(Suite::ALL.iter().map(|suite| session(*suite)).collect()));
}

/// snow at both ends, from nothing but the file.
#[test]
fn snow_agrees_with_handshake_json() {
    let vectors = read("handshake.json");
    assert_eq!(vectors.len(), Suite::ALL.len());
    for vector in vectors {
        let suite = Suite(u8::try_from(vector["suite"].as_u64().unwrap()).unwrap());
        let records = vector["records"].as_array().unwrap();
        let (init, answer) = (bytes_of(&records[0]["body"]), bytes_of(&records[1]["body"]));
        let head = 13 + usize::from(init[12]);
        assert_eq!(init[13..head], bytes_of(&vector["offered"]));
        let name = suite.noise_name().unwrap();
        let prologue = [b"raystream-v1\0", &init[..head]].concat();
        let key = |field: &str| (!vector[field].is_null()).then(|| bytes_of(&vector[field]));
        let array = |bytes: Vec<u8>| <[u8; 32]>::try_from(bytes).unwrap();
        let psk = key("psk").map(array);
        let (server_static, client_static) = (key("server_static").unwrap(), key("client_static"));
        let (client_ephemeral, server_ephemeral) =
            (key("client_ephemeral").unwrap(), key("server_ephemeral").unwrap());
        let server_public = crate::support::public_key(array(server_static.clone())).0;
        let builder = || {
            let builder = snow::Builder::new(name.parse().unwrap()).prologue(&prologue).unwrap();
            match &psk {
                Some(psk) => builder.psk(2, psk).unwrap(),
                None => builder,
            }
        };
        let mut client = builder().fixed_ephemeral_key_for_testing_only(&client_ephemeral);
        if let Some(client_static) = &client_static {
            client = client.local_private_key(client_static).unwrap();
        }
        if init[4..12] != [0; 8] {
            client = client.remote_public_key(&server_public).unwrap();
        }
        let server = builder().fixed_ephemeral_key_for_testing_only(&server_ephemeral);
        let mut server = server.local_private_key(&server_static).unwrap().build_responder().unwrap();
        let mut client = client.build_initiator().unwrap();
        let mut buffer = vec![0; 65_535];
        let len = client.write_message(&[], &mut buffer).unwrap();
        assert_eq!(buffer[..len], init[head..]);
        assert_eq!(server.read_message(&init[head..], &mut buffer).unwrap(), 0);
        let hello = bytes_of(&vector["server_hello"]);
        let len = server.write_message(&hello, &mut buffer).unwrap();
        assert_eq!((answer[0], &answer[1..]), (0x02, &buffer[..len]));
        let len = client.read_message(&answer[1..], &mut buffer).unwrap();
        assert_eq!(buffer[..len], hello);
        assert_eq!(client.get_handshake_hash(), bytes_of(&vector["handshake_hash"]));
        let mut client = client.into_transport_mode().unwrap();
        let mut server = server.into_transport_mode().unwrap();
        for record in &records[2..] {
            let (plaintext, body) = (bytes_of(&record["plaintext"]), bytes_of(&record["body"]));
            let (from, to) = match record["from"].as_str().unwrap() {
                "client" => (&mut client, &mut server),
                _ => (&mut server, &mut client),
            };
            let len = from.write_message(&plaintext, &mut buffer).unwrap();
            assert_eq!(buffer[..len], body);
            let len = to.read_message(&body, &mut buffer).unwrap();
            assert_eq!(buffer[..len], plaintext);
        }
    }
}
