//! Two ends of a connection that do what the fuzzer says, compared with a model of what each may be told.
//!
//! As long as nobody injects anything both ends are honest: neither may accuse the other, and what is sent is what
//! arrives. After an injection only this is left: no panic, bounded state, an end that stays.

mod applications;

use super::{
    handshake::{client, server},
    operation::{End, Operation, Operations},
    provider::Transparent,
};
use crate::{
    conn::{ApiMisuse, Connection, ConnectionError, Framing},
    wire::{
        ErrorCode, Suite,
        envelope::{Event as Item, RpcError, Subscribed},
        limits::{CALLS_MAX, PARTIAL_STREAMS_MAX, SUBSCRIPTIONS_MAX},
    },
};
use bytes::{Bytes, BytesMut};
use std::{
    collections::{BTreeMap, VecDeque},
    num::NonZeroU32,
    time::Duration,
};

/// Operations of one run: more tell nothing new and only take time.
const OPERATIONS_MAX: usize = 300;
/// Bytes that all messages of one run may have.
const BYTES_MAX: usize = 6 << 20;

/// An end, and the bytes that are under way to it.
struct Side {
    connection: Connection,
    under_way: BytesMut,
    input: BytesMut,
    has_eof: bool,
}

impl Side {
    fn new(connection: Connection) -> Self {
        Self { connection, under_way: BytesMut::new(), input: BytesMut::new(), has_eof: false }
    }

    fn receive(&mut self, now: Duration, bytes: &[u8]) {
        self.input.extend_from_slice(bytes);
        let result = self.connection.handle_input(now, &mut self.input);
        assert_eq!(result.err().as_ref(), self.connection.end());
    }
}

/// A stream that the client opened, and what it has to be told.
#[derive(Default)]
struct Stream {
    /// What the client asked; a subscription asks nothing.
    args: Bytes,
    is_subscription: bool,
    /// The client has had its last event.
    is_over: bool,
    /// The answer that the server gave.
    answer: Option<Result<Bytes, ErrorCode>>,
    /// Items that were sent and did not arrive.
    items: VecDeque<Item>,
    credit: u64,
    /// Items of a call that were sent by the client, and by the server, and did not arrive.
    up: VecDeque<Bytes>,
    down: VecDeque<Bytes>,
}

impl Stream {
    fn items(&mut self, to: End) -> &mut VecDeque<Bytes> {
        match to {
            End::Client => &mut self.down,
            End::Server => &mut self.up,
        }
    }
}

/// A stream that the server's application has and may answer.
struct Served {
    is_subscription: bool,
    items_sent: u64,
}

struct Machine {
    client: Side,
    server: Side,
    now: Duration,
    streams: BTreeMap<u32, Stream>,
    served: BTreeMap<u32, Served>,
    is_honest: bool,
    /// Somebody closed, cut the transport, or let time pass: the connection may be over.
    may_end: bool,
    bytes: usize,
}

/// Runs operations read from `data`.
pub fn connection(data: &[u8]) {
    let mut machine = Machine::new();
    for operation in Operations(data).take(OPERATIONS_MAX) {
        machine.run(operation);
        machine.flush();
    }
    machine.finish();
}

/// One of the streams that fit.
fn pick<S>(streams: &BTreeMap<u32, S>, index: usize, fits: impl Fn(&S) -> bool) -> Option<u32> {
    let fitting: Vec<u32> = streams.iter().filter(|(_, s)| fits(s)).map(|(n, _)| *n).collect();
    if fitting.is_empty() { None } else { Some(fitting[index % fitting.len()]) }
}

fn fill(stream: usize, len: usize) -> Bytes {
    Bytes::from(vec![u8::try_from(stream % 251).expect("below 251"); len])
}

fn error(code: ErrorCode) -> RpcError {
    RpcError { code, message: String::new(), retryable: false, retry_after_ms: 0, details: Bytes::new() }
}

impl Machine {
    fn new() -> Self {
        let mut machine = Self {
            client: Side::new(client(&Transparent, Suite::NK_CHACHAPOLY, Framing::Stream)),
            server: Side::new(server(&Transparent, Framing::Stream)),
            now: Duration::ZERO,
            streams: BTreeMap::new(),
            served: BTreeMap::new(),
            is_honest: true,
            may_end: false,
            bytes: 0,
        };
        machine.flush();
        machine.deliver_all();
        assert!(machine.client.connection.is_open() && machine.server.connection.is_open());
        machine
    }

    fn side(&mut self, end: End) -> &mut Side {
        match end {
            End::Client => &mut self.client,
            End::Server => &mut self.server,
        }
    }

    /// One of the streams that the server's application may answer.
    fn served(&self, index: usize, is_subscription: bool) -> Option<u32> {
        pick(&self.served, index, |stream| stream.is_subscription == is_subscription)
    }

    /// One of the streams whose end the client waits for.
    fn opened(&self, index: usize, is_subscription: bool) -> Option<u32> {
        pick(&self.streams, index, |stream| !stream.is_over && stream.is_subscription == is_subscription)
    }

    fn run(&mut self, operation: Operation) {
        let now = self.now;
        match operation {
            Operation::Call(len) => self.call(len),
            Operation::Subscribe { credit } => self.subscribe(credit),
            Operation::Cancel(index) => {
                if let Some(stream) = self.opened(index, false) {
                    self.expect(End::Client, |c| c.cancel(stream));
                }
            }
            Operation::Unsubscribe(index) => {
                if let Some(stream) = self.opened(index, true) {
                    // A second time there is no such stream.
                    let _misuse = self.client.connection.unsubscribe(stream);
                }
            }
            Operation::Credit { index, items } => self.credit(index, items),
            Operation::Respond { index, len } => self.respond(index, len),
            Operation::RespondError(index) => {
                if let Some(stream) = self.served(index, false) {
                    self.expect(End::Server, |c| c.respond_error(stream, &error(ErrorCode::CONFLICT)));
                    self.end_service(stream, Some(Err(ErrorCode::CONFLICT)));
                }
            }
            Operation::SendSubscribed(index) => {
                if let Some(stream) = self.served(index, true) {
                    let position = Subscribed { cursor: "c".into(), snapshot_end: false };
                    self.expect(End::Server, |c| c.send_subscribed(stream, &position));
                }
            }
            Operation::SendEvent { index, len } => self.send_event(index, len),
            Operation::EndSubscription(index) => {
                if let Some(stream) = self.served(index, true) {
                    self.expect(End::Server, |c| c.end_subscription(stream, &error(ErrorCode::LAGGED)));
                    self.end_service(stream, None);
                }
            }
            Operation::SendItem(from, index, len) => self.send_item(from, index, len),
            Operation::EndItems(index) => {
                if let Some(stream) = self.opened(index, false) {
                    // A second time, and after a cancel, there is nothing to end.
                    let _misuse = self.client.connection.end_data(stream);
                }
            }
            Operation::CallCredit(of, index, items) => {
                let stream = match of {
                    End::Client => self.opened(index, false),
                    End::Server => self.served(index, false),
                };
                if let (Some(stream), Some(items)) = (stream, NonZeroU32::new(items)) {
                    // More than fits is refused here, and never sent.
                    let _misuse = self.side(of).connection.credit(stream, items);
                }
            }
            Operation::GoAway => {
                self.expect(End::Server, |c| c.go_away(ErrorCode::GOING_AWAY, Duration::ZERO));
            }
            Operation::Heartbeat(end) => self.expect(end, |c| c.heartbeat(now).map(|_| ())),
            Operation::Deliver(end, len) => self.deliver(end, len),
            Operation::Advance(ms) => self.advance(Duration::from_millis(ms)),
            Operation::Close(end) => {
                self.may_end = true;
                self.side(end).connection.close(ErrorCode::NO_ERROR, "done");
            }
            Operation::Eof(end) => {
                self.may_end = true;
                let side = self.side(end);
                side.has_eof = true;
                let reason = side.connection.handle_eof().expect_err("an end of the transport is an end");
                assert_eq!(side.connection.end(), Some(&reason));
            }
            Operation::InjectPlaintext(end, plaintext) => {
                let len = u16::try_from(plaintext.len() + 16).expect("at most 255 bytes of plaintext");
                let record = [&len.to_be_bytes()[..], &plaintext, &[0; 16]].concat();
                self.inject(end, &record);
            }
            Operation::InjectBytes(end, bytes) => self.inject(end, &bytes),
        }
    }

    /// Gives a command that can fail only because the connection is over.
    fn expect(&mut self, end: End, command: impl FnOnce(&mut Connection) -> Result<(), ApiMisuse>) {
        let connection = &mut self.side(end).connection;
        let is_over = connection.end().is_some();
        let result = command(connection);
        assert_eq!(result, if is_over { Err(ApiMisuse::NotOpen) } else { Ok(()) });
    }

    /// Whether a run may send so many bytes more.
    fn may_send(&mut self, len: usize) -> bool {
        self.bytes += len;
        self.bytes <= BYTES_MAX
    }

    fn deliver(&mut self, end: End, len: usize) {
        let now = self.now;
        let side = self.side(end);
        if side.has_eof {
            return;
        }
        let len = len.min(side.under_way.len());
        let bytes = side.under_way.split_to(len);
        side.receive(now, &bytes);
    }

    /// Brings everything to its end, and what that leads to.
    fn deliver_all(&mut self) {
        // Each round brings all that is under way; honest ends fall silent after a few.
        for _ in 0..10_000 {
            if self.client.under_way.is_empty() && self.server.under_way.is_empty() {
                return;
            }
            for end in [End::Client, End::Server] {
                self.deliver(end, usize::MAX);
                if self.side(end).has_eof {
                    self.side(end).under_way.clear();
                }
                self.flush();
            }
        }
        panic!("the two ends talk for ever");
    }

    fn advance(&mut self, time: Duration) {
        self.may_end = true;
        self.now += time;
        let now = self.now;
        for end in [End::Client, End::Server] {
            let connection = &mut self.side(end).connection;
            if connection.poll_timeout().is_some_and(|at| at <= now) {
                let result = connection.handle_timeout(now);
                assert_eq!(result.err().as_ref(), connection.end());
            }
            assert!(connection.poll_timeout().is_none_or(|at| at > now), "the clock stands still");
        }
    }

    fn inject(&mut self, end: End, bytes: &[u8]) {
        self.is_honest = false;
        let now = self.now;
        let side = self.side(end);
        // In front of what is under way, and of half a record that has come.
        side.input.clear();
        side.receive(now, bytes);
    }

    /// Takes what both ends have to say.
    fn flush(&mut self) {
        for end in [End::Client, End::Server] {
            let now = self.now;
            while let Some(event) = self.side(end).connection.poll_event() {
                match end {
                    End::Client => self.on_client_event(event),
                    End::Server => self.on_server_event(event),
                }
            }
            let mut out = Vec::new();
            while self.side(end).connection.poll_transmit(now, &mut out) {}
            match end {
                End::Client => self.server.under_way.extend_from_slice(&out),
                End::Server => self.client.under_way.extend_from_slice(&out),
            }
            self.check(end);
        }
    }

    fn check(&mut self, end: End) {
        let (is_honest, may_end) = (self.is_honest, self.may_end);
        let connection = &self.side(end).connection;
        let limit = usize::from(CALLS_MAX) + usize::from(SUBSCRIPTIONS_MAX) + PARTIAL_STREAMS_MAX;
        assert!(connection.open_streams() <= limit);
        assert_eq!(connection.outbound_bytes(), 0, "everything was taken");
        let Some(reason) = connection.end() else { return };
        assert_eq!((connection.poll_timeout(), connection.is_drained()), (None, true));
        if is_honest {
            let is_fair = matches!(
                reason,
                ConnectionError::ClosedHere(_)
                    | ConnectionError::ClosedByPeer(_)
                    | ConnectionError::Truncated
                    | ConnectionError::IdleTimeout
            );
            assert!(is_fair && may_end, "{reason}");
        }
    }

    /// Lets everything arrive and every call be answered, and looks whether anything is missing.
    fn finish(mut self) {
        self.deliver_all();
        self.bytes = 0;
        while let Some(stream) = self.served(0, false) {
            self.respond(0, 1);
            assert!(!self.served.contains_key(&stream));
        }
        self.flush();
        self.deliver_all();
        // Nothing more may come of an end that is over.
        for side in [&mut self.client, &mut self.server] {
            assert!(side.connection.poll_event().is_none());
            assert!(!side.connection.poll_transmit(self.now, &mut Vec::new()));
        }
        let is_over = self.client.connection.end().is_some() || self.server.connection.end().is_some();
        if self.is_honest && !is_over {
            for (number, stream) in &self.streams {
                assert!(stream.is_over || stream.is_subscription, "call {number} has no answer");
                assert!(stream.items.is_empty(), "an item on {number} did not arrive");
            }
            let open = self.streams.values().filter(|stream| !stream.is_over).count();
            assert_eq!(self.client.connection.open_streams(), open);
            assert_eq!(self.server.connection.open_streams(), open);
        }
    }
}
