//! Sessions of two connections with fixed keys, recorded.

use super::keys::{self, hex};
use super::peer::{self, Material};
use bytes::Bytes;
use raystream::conn::{Connection, Event, Framing};
use raystream::wire::{
    ErrorCode, Reader, Suite,
    envelope::{
        Encoding, Event as Item, EventKind, Overflow, RpcCall, RpcError, RpcResponse, Subscribe, Subscribed,
    },
    frame::Frame,
    limits::FRAME_PAYLOAD_MAX,
};
use serde_json::{Value, json};
use std::time::Duration;

/// One record as it went over the transport.
pub(crate) struct Record {
    pub(crate) from_client: bool,
    pub(crate) body: Vec<u8>,
    /// Of transport records.
    pub(crate) plaintext: Vec<u8>,
}

/// A recorded session.
pub(crate) struct Session {
    name: String,
    pub(crate) suite: Suite,
    pub(crate) records: Vec<Record>,
    handshake_hash: Vec<u8>,
}

impl Session {
    pub(crate) fn to_json(&self) -> Value {
        let suite_bytes = |suites: &[Suite]| hex(&suites.iter().map(|suite| suite.0).collect::<Vec<_>>());
        let mut value = json!({
            "name": self.name,
            "suite": self.suite.0,
            "client_ephemeral": hex(&keys::CLIENT_EPHEMERAL),
            "server_ephemeral": hex(&keys::SERVER_EPHEMERAL),
            "server_static": hex(&keys::SERVER_STATIC),
            "offered": suite_bytes(&keys::offered(self.suite)),
            "server_suites": suite_bytes(Suite::ALL),
            "handshake_hash": hex(&self.handshake_hash),
            "records": self.records.iter().map(Record::to_json).collect::<Vec<_>>(),
        });
        if keys::is_ik(self.suite) {
            value["client_static"] = json!(hex(&keys::CLIENT_STATIC));
        }
        if keys::has_psk(self.suite) {
            value["psk"] = json!(hex(&keys::PSK));
        }
        value
    }
}

impl Record {
    fn to_json(&self) -> Value {
        let from = if self.from_client { "client" } else { "server" };
        if self.plaintext.is_empty() {
            return json!({ "from": from, "body": hex(&self.body) });
        }
        let frames: Vec<Value> = frames(&self.plaintext)
            .iter()
            .map(|frame| {
                json!({
                    "type": frame.frame_type.to_string(),
                    "flags": frame.flags,
                    "stream": frame.stream,
                    "payload": hex(frame.payload),
                })
            })
            .collect();
        json!({ "from": from, "body": hex(&self.body), "plaintext": hex(&self.plaintext), "frames": frames })
    }
}

/// The frames of a record.
pub(crate) fn frames(plaintext: &[u8]) -> Vec<Frame<'_>> {
    let mut reader = Reader::new(plaintext);
    let mut frames = Vec::new();
    while !reader.is_empty() {
        frames.push(Frame::decode(&mut reader).unwrap());
    }
    frames
}

/// Two connections and everything that went between them.
struct Stage {
    suite: Suite,
    client: Connection,
    server: Connection,
    now: Duration,
    bodies: Vec<(bool, Vec<u8>)>,
}

impl Stage {
    /// Both ends after the handshake and the client's first record, which holds `first`.
    fn open(suite: Suite, first: impl Fn(&mut Connection)) -> Self {
        let now = Duration::from_secs(1);
        let client =
            Connection::client(keys::client_config(suite), keys::client_entropy(), Framing::Messages, now);
        let server =
            Connection::server(keys::server_config(), keys::server_entropy(), Framing::Messages, now);
        let mut stage =
            Self { suite, client: client.unwrap(), server: server.unwrap(), now, bodies: Vec::new() };
        stage.send(true);
        stage.send(false);
        assert!(matches!(stage.client.poll_event(), Some(Event::Connected(..))));
        first(&mut stage.client);
        stage.send(true);
        assert!(matches!(stage.server.poll_event(), Some(Event::Established(_))));
        stage
    }

    /// Moves every record that one side has ready to the other.
    fn send(&mut self, from_client: bool) {
        self.now += Duration::from_millis(1);
        let (sender, receiver) = if from_client {
            (&mut self.client, &mut self.server)
        } else {
            (&mut self.server, &mut self.client)
        };
        let mut body = Vec::new();
        let mut any = false;
        while sender.poll_transmit(self.now, &mut body) {
            any = true;
            self.bodies.push((from_client, body.clone()));
            // The end of a connection is what some of the records say: the script looks at it itself.
            drop(receiver.handle_record(self.now, &mut body));
            body.clear();
        }
        assert!(any, "the script expects something to be sent");
    }

    /// The client closes, the server answers.
    fn close(mut self, name: &str) -> Session {
        self.client.close(ErrorCode::NO_ERROR, "done");
        self.send(true);
        self.send(false);
        assert!(self.client.is_drained() && self.server.is_drained());
        assert!(self.server.end().unwrap().is_orderly());
        self.record(name)
    }

    /// Reads along with `snow` at both ends.
    fn record(self, name: &str) -> Session {
        let head_len = 13 + keys::offered(self.suite).len();
        let init = &self.bodies[0].1;
        let material = Material {
            suite: self.suite,
            client_static: keys::is_ik(self.suite).then(|| keys::CLIENT_STATIC.to_vec()),
            psk: keys::has_psk(self.suite).then_some(keys::PSK),
            init_head: init[..head_len].to_vec(),
        };
        let (mut client, mut server) = (material.handshake(true), material.handshake(false));
        peer::write(&mut client, &[]);
        peer::read(&mut server, &init[head_len..]);
        let payload = peer::read(&mut client, &self.bodies[1].1[1..]);
        peer::write(&mut server, &payload);
        let handshake_hash = client.get_handshake_hash().to_vec();
        let (mut client, mut server) =
            (client.into_transport_mode().unwrap(), server.into_transport_mode().unwrap());
        let records = self
            .bodies
            .into_iter()
            .enumerate()
            .map(|(n, (from_client, body))| {
                let reader = if from_client { &mut server } else { &mut client };
                let plaintext = if n < 2 { Vec::new() } else { peer::open(reader, &body) };
                Record { from_client, body, plaintext }
            })
            .collect();
        Session { name: name.to_owned(), suite: self.suite, records, handshake_hash }
    }
}

fn call(method: &str, args: &str) -> RpcCall {
    RpcCall {
        method: method.to_owned(),
        encoding: Encoding::Json,
        args: Bytes::copy_from_slice(args.as_bytes()),
        deadline_ms: 5_000,
        ..RpcCall::default()
    }
}

fn response(result: &[u8]) -> RpcResponse {
    RpcResponse { result: Bytes::copy_from_slice(result), ..RpcResponse::default() }
}

fn cancelled() -> RpcError {
    RpcError {
        code: ErrorCode::CANCELLED,
        message: "cancelled by the caller".to_owned(),
        retryable: false,
        retry_after_ms: 0,
        details: Bytes::new(),
    }
}

fn item(cursor: &str, kind: EventKind, data: Option<&str>, old: Option<&str>, version: u64) -> Item {
    let bytes = |text: &str| Bytes::copy_from_slice(text.as_bytes());
    Item {
        cursor: cursor.to_owned(),
        kind,
        id: "1".to_owned(),
        data: data.map(bytes),
        old: old.map(bytes),
        version,
        dropped: 0,
        omitted: 0,
    }
}

/// Handshake, one call, CLOSE.
pub(crate) fn short(suite: Suite) -> Session {
    let mut stage = Stage::open(suite, |client| {
        client.call(&call("sys.echo", "{\"n\":1}")).unwrap();
    });
    stage.server.respond(1, &response(b"{\"n\":1}")).unwrap();
    stage.send(false);
    assert!(matches!(stage.client.poll_event(), Some(Event::HeartbeatEcho(_))));
    assert!(matches!(stage.client.poll_event(), Some(Event::Response(1, _))));
    stage.close(&format!("short {suite}"))
}

/// A message in fragments, with a shorter answer in between.
pub(crate) fn fragments(suite: Suite) -> Session {
    let mut stage = Stage::open(suite, |client| {
        client.call(&call("sys.echo", "{}")).unwrap();
        client.call(&call("sys.echo", "{}")).unwrap();
    });
    stage.server.respond(1, &response(&vec![b' '; FRAME_PAYLOAD_MAX + 1])).unwrap();
    stage.server.respond(3, &response(b"{}")).unwrap();
    stage.send(false);
    let answers: Vec<Event> = std::iter::from_fn(|| stage.client.poll_event()).collect();
    assert!(matches!(answers[..], [Event::HeartbeatEcho(_), Event::Response(3, _), Event::Response(1, _)]));
    stage.close(&format!("fragments {suite}"))
}

/// Everything that version 1 has, once.
pub(crate) fn whole(suite: Suite) -> Session {
    let mut stage = Stage::open(suite, |client| {
        client.call(&call("sys.echo", "{\"hello\":\"world\"}")).unwrap();
    });
    stage.server.respond(1, &response(b"{\"hello\":\"world\"}")).unwrap();
    stage.send(false);

    let subscribe = Subscribe {
        table: "tasks".to_owned(),
        filter: Bytes::from_static(b"{\"done\":false}"),
        cursor: None,
        snapshot: true,
        overflow: Overflow::Close,
        credit: 1,
    };
    assert_eq!(stage.client.subscribe(&subscribe), Ok(3));
    stage.send(true);
    let subscribed = |cursor: &str, snapshot_end| Subscribed { cursor: cursor.to_owned(), snapshot_end };
    let (open, done) = ("{\"done\":false}", "{\"done\":true}");
    stage.server.send_subscribed(3, &subscribed("c0", false)).unwrap();
    stage.server.send_event(3, &item("c0", EventKind::Snapshot, Some(open), None, 1)).unwrap();
    stage.server.send_subscribed(3, &subscribed("c0", true)).unwrap();
    stage.send(false);
    stage.client.credit(3, std::num::NonZeroU32::new(256).unwrap()).unwrap();
    stage.send(true);
    stage.server.send_event(3, &item("c1", EventKind::Leave, Some(done), Some(open), 2)).unwrap();
    stage.send(false);
    stage.client.unsubscribe(3).unwrap();
    stage.send(true);
    stage.send(false);

    assert_eq!(stage.client.call(&call("table.count", "{\"table\":\"tasks\"}")), Ok(5));
    stage.send(true);
    stage.client.cancel(5).unwrap();
    stage.send(true);
    stage.server.respond_error(5, &cancelled()).unwrap();
    stage.send(false);
    stage.server.go_away(ErrorCode::GOING_AWAY, Duration::from_secs(1)).unwrap();
    stage.send(false);
    stage.close(&format!("whole {suite}"))
}
