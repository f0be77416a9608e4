//! Recorded sessions of every suite: fed byte by byte, cut at every offset, with flipped bits. The applications at both
//! ends only react, so that the bytes of the other side are all that a session depends on.
#![allow(clippy::unwrap_used, reason = "in a test, a panic is the report")]

#[path = "support/mod.rs"]
mod support;

use bytes::BytesMut;
use raystream::{
    conn::{Connection, ConnectionError, Event, Framing},
    wire::{ErrorCode, Suite},
};
use support::{
    Context, Rng, Setup,
    raw::NOW,
    script::{ClientScript, Script, ServerScript},
};

/// One end with its application.
struct End<S> {
    connection: Connection,
    script: S,
    input: BytesMut,
    events: Vec<Event>,
    /// Everything it sent, record by record with their lengths.
    sent: Vec<Vec<u8>>,
}

impl<S: Script> End<S> {
    fn new(connection: Connection) -> Self {
        let mut end = Self {
            connection,
            script: S::default(),
            input: BytesMut::new(),
            events: Vec::new(),
            sent: Vec::new(),
        };
        end.react();
        end
    }

    fn react(&mut self) {
        while let Some(event) = self.connection.poll_event() {
            self.script.on_event(&mut self.connection, &event);
            self.events.push(event);
        }
        let mut out = Vec::new();
        while self.connection.poll_transmit(NOW, &mut out) {
            self.sent.push(std::mem::take(&mut out));
        }
    }

    fn feed(&mut self, bytes: &[u8]) {
        self.input.extend_from_slice(bytes);
        let _ended = self.connection.handle_input(NOW, &mut self.input);
        self.react();
    }

    fn end(&self) -> Option<&ConnectionError> {
        self.connection.end()
    }
}

fn client(suite: Suite) -> End<ClientScript> {
    End::new(Setup::new(suite, Framing::Stream).connections().0)
}

fn server(suite: Suite) -> End<ServerScript> {
    End::new(Setup::new(suite, Framing::Stream).connections().1)
}

/// A whole session: what each end sent, and what each was told.
struct Session {
    from_client: Vec<Vec<u8>>,
    from_server: Vec<Vec<u8>>,
    client_events: Vec<Event>,
    server_events: Vec<Event>,
    /// How many events there were before each record of the other side.
    client_told: Vec<usize>,
    server_told: Vec<usize>,
}

/// Runs a session; each record is taken and reacted to before the next one.
fn record(suite: Suite) -> Session {
    let (mut client, mut server) = (client(suite), server(suite));
    let (mut client_told, mut server_told) = (Vec::new(), Vec::new());
    loop {
        if let Some(record) = client.sent.get(server_told.len()) {
            server_told.push(server.events.len());
            server.feed(record);
        } else if let Some(record) = server.sent.get(client_told.len()) {
            client_told.push(client.events.len());
            client.feed(record);
        } else {
            break;
        }
    }
    assert!(client.end().is_some_and(ConnectionError::is_orderly), "{:?}", client.end());
    assert!(server.end().is_some_and(ConnectionError::is_orderly), "{:?}", server.end());
    Session {
        from_client: client.sent,
        from_server: server.sent,
        client_events: client.events,
        server_events: server.events,
        client_told,
        server_told,
    }
}

fn each_session(mut check: impl FnMut(Suite, &Session)) {
    for suite in Suite::ALL {
        let _context = Context(format!("suite {suite}"));
        check(*suite, &record(*suite));
    }
}

#[test]
fn a_session_is_what_the_script_says() {
    each_session(|_, session| {
        let names = |events: &[Event]| {
            events.iter().map(|event| format!("{event:?}").split('(').next().unwrap().to_owned()).collect()
        };
        let client: Vec<String> = names(&session.client_events);
        let server: Vec<String> = names(&session.server_events);
        assert_eq!(client.iter().filter(|name| *name == "Item").count(), 5, "{client:?}");
        for name in ["Connected", "Response", "Error", "Subscribed", "HeartbeatEcho"] {
            assert!(client.iter().any(|event| event == name), "{name} is not in {client:?}");
        }
        for name in ["Established", "Call", "Subscribe", "Credit", "Unsubscribed"] {
            assert!(server.iter().any(|event| event == name), "{name} is not in {server:?}");
        }
        assert!(session.from_client.concat().len() + session.from_server.concat().len() > 1_000);
    });
}

#[test]
fn a_session_byte_by_byte_is_the_same() {
    each_session(|suite, session| {
        let mut again = server(suite);
        session.from_client.concat().chunks(1).for_each(|byte| again.feed(byte));
        assert_eq!(again.events, session.server_events);
        assert_eq!(again.sent, session.from_server);
        let mut again = client(suite);
        session.from_server.concat().chunks(1).for_each(|byte| again.feed(byte));
        assert_eq!(again.events, session.client_events);
        assert_eq!(again.sent, session.from_client);
    });
}

#[test]
fn a_session_in_random_pieces_tells_the_same() {
    each_session(|suite, session| {
        for seed in 0..50 {
            let _context = Context(format!("seed {seed}"));
            let mut rng = Rng(seed);
            let bytes = session.from_client.concat();
            let mut again = server(suite);
            let mut rest = &bytes[..];
            while !rest.is_empty() {
                let (head, tail) = rest.split_at(1 + rng.below(rest.len()));
                again.feed(head);
                rest = tail;
            }
            assert_eq!(again.events, session.server_events);
        }
    });
}

/// Whether `events` is the beginning of `whole`.
#[track_caller]
fn assert_prefix(events: &[Event], whole: &[Event]) {
    assert!(whole.starts_with(events), "an event that was not sent: {events:?}");
}

/// Feeds one end a session that ends at every offset in turn.
fn cut_everywhere<S: Script>(new: impl Fn() -> End<S>, records: &[Vec<u8>], whole: &[Event]) {
    let bytes = records.concat();
    // The last record holds CLOSE: whoever has all of it has an orderly end.
    for offset in 0..=bytes.len() {
        let mut end = new();
        end.feed(&bytes[..offset]);
        assert_prefix(&end.events, whole);
        let told = end.events.len();
        if offset < bytes.len() && end.end().is_none() {
            assert_eq!(end.connection.handle_eof(), Err(ConnectionError::Truncated), "offset {offset}");
        }
        end.react();
        assert_eq!(end.events.len(), told, "an event after the end");
        let orderly = end.end().is_some_and(ConnectionError::is_orderly);
        assert!(!orderly || end.events.len() == whole.len(), "an orderly end at offset {offset}");
    }
}

#[test]
fn a_session_cut_at_every_offset_is_truncated() {
    each_session(|suite, session| {
        cut_everywhere(|| server(suite), &session.from_client, &session.server_events);
        cut_everywhere(|| client(suite), &session.from_server, &session.client_events);
    });
}

/// Feeds one end a session with one bit flipped. It may wait for bytes that do not come; it may end with an error; what
/// it was told is what was sent before the record that is changed: `told` events at most.
fn flip<S: Script>(mut end: End<S>, bytes: &[u8], at: usize, bit: u32, whole: &[Event], told: usize) {
    let mut changed = bytes.to_vec();
    changed[at] ^= 1 << bit;
    end.feed(&changed);
    if end.end().is_none() {
        let _truncated = end.connection.handle_eof();
        end.react();
    }
    let reason = end.end().expect("every session ends").clone();
    if reason.is_orderly() {
        // The length, 14 bytes of head and 32 of key end here.
        assert_eq!((at, bit), (2 + 14 + 31, 7));
        assert_eq!(end.events[1..], whole[1..]);
        client_refuses(&end.sent[0]);
        return;
    }
    assert_prefix(&end.events, whole);
    let code = reason.code();
    assert!(
        matches!(
            code,
            ErrorCode::PROTOCOL_ERROR
                | ErrorCode::DECRYPTION_FAILED
                | ErrorCode::TRUNCATED
                | ErrorCode::UNKNOWN_KEY
                | ErrorCode::UNSUPPORTED_SUITE
                | ErrorCode::UNSUPPORTED_VERSION
        ),
        "byte {at}, bit {bit}: {code}"
    );
    assert!(end.events.len() <= told, "byte {at}, bit {bit}: {:?}", end.events);
}

/// The first message of NX is an ephemeral key in clear, whose highest bit X25519 ignores. A server that got it flipped
/// has the right keys and another transcript: it cannot know, and a replay cannot show what the client does about it,
/// which is to refuse the answer.
#[track_caller]
fn client_refuses(response: &[u8]) {
    let mut refused = 0;
    for suite in [Suite::NX_CHACHAPOLY, Suite::NX_AESGCM] {
        let mut client = client(suite);
        client.feed(response);
        assert!(client.events.is_empty());
        refused += usize::from(client.end() == Some(&ConnectionError::Decryption));
    }
    assert_eq!(refused, 2);
}

/// Flips bits everywhere: all eight of each byte of the first record, which is the handshake, one of every other.
fn flip_everywhere<S: Script>(
    new: impl Fn() -> End<S>,
    records: &[Vec<u8>],
    told: &[usize],
    whole: &[Event],
    rng: &mut Rng,
) {
    let bytes = records.concat();
    let mut at = 0;
    for (record, told) in records.iter().zip(told) {
        for _ in record {
            let one = u32::try_from(rng.below(8)).unwrap();
            let bits = if at < records[0].len() { 0..8 } else { one..one + 1 };
            bits.for_each(|bit| flip(new(), &bytes, at, bit, whole, *told));
            at += 1;
        }
    }
}

#[test]
fn a_flipped_bit_ends_the_session_and_changes_nothing_before() {
    each_session(|suite, session| {
        let mut rng = Rng(u64::from(suite.0));
        let (up, down) = (&session.from_client, &session.from_server);
        flip_everywhere(|| server(suite), up, &session.server_told, &session.server_events, &mut rng);
        flip_everywhere(|| client(suite), down, &session.client_told, &session.client_events, &mut rng);
    });
}

#[test]
fn records_of_two_sessions_do_not_mix() {
    // Same keys, other ephemerals: a record of one session put into the other.
    let session = record(Suite::IK_CHACHAPOLY);
    let mut setup = Setup::new(Suite::IK_CHACHAPOLY, Framing::Stream);
    setup.ephemerals[1] = [0x99; 32];
    let mut other = End::<ServerScript>::new(setup.connections().1);
    other.feed(&session.from_client[0]);
    other.feed(&session.from_client[1]);
    assert_eq!(other.end(), Some(&ConnectionError::Decryption));
    assert!(other.events.is_empty());
}
