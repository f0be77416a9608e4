//! Two connections in virtual time. Nothing sleeps: the clock jumps to whatever comes next.

use super::{Rng, Setup};
use bytes::BytesMut;
use raystream::conn::{Connection, ConnectionError, Event, Framing};
use std::{collections::VecDeque, time::Duration};

/// Steps at one moment after which two ends are held to be talking for ever.
const STEPS_AT_ONE_MOMENT_MAX: usize = 1_000_000;

#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub enum From {
    Client,
    Server,
}

/// A record body as it went over the wire, without its length.
#[derive(Clone, Debug)]
pub struct Record {
    pub from: From,
    pub at: Duration,
    pub body: Vec<u8>,
}

#[derive(Debug)]
enum Packet {
    Bytes(Vec<u8>),
    Fin,
}

/// One connection with what is under way to it.
pub struct End {
    pub connection: Connection,
    /// Events that were not taken yet.
    pub events: VecDeque<Event>,
    inbox: VecDeque<(Duration, Packet)>,
    input: BytesMut,
    has_sent_fin: bool,
    /// The transport takes no bytes.
    pub is_blocked: bool,
}

impl End {
    fn new(connection: Connection) -> Self {
        Self {
            connection,
            events: VecDeque::new(),
            inbox: VecDeque::new(),
            input: BytesMut::new(),
            has_sent_fin: false,
            is_blocked: false,
        }
    }

    /// Takes all events.
    pub fn take(&mut self) -> Vec<Event> {
        self.events.drain(..).collect()
    }

    /// Takes the only event there is.
    #[track_caller]
    pub fn take_one(&mut self) -> Event {
        let mut events = self.take();
        assert_eq!(events.len(), 1, "{events:?}");
        events.remove(0)
    }

    pub fn end(&self) -> Option<ConnectionError> {
        self.connection.end().cloned()
    }

    fn receive(&mut self, now: Duration, packet: Packet, framing: Framing) {
        // What the call gives is what `end` gives; both are checked here, once for every test.
        let result = match packet {
            Packet::Fin => self.connection.handle_eof(),
            Packet::Bytes(mut body) if framing == Framing::Messages => {
                self.connection.handle_record(now, &mut body)
            }
            Packet::Bytes(bytes) => {
                self.input.extend_from_slice(&bytes);
                self.connection.handle_input(now, &mut self.input)
            }
        };
        assert_eq!(result.err(), self.end());
    }
}

pub struct Pair {
    pub client: End,
    pub server: End,
    pub now: Duration,
    pub latency: Duration,
    /// Every record in the order of sending.
    pub records: Vec<Record>,
    framing: Framing,
    /// Cuts the byte stream anew when there is one.
    chunks: Option<Rng>,
    steps_at_now: usize,
}

impl Pair {
    pub fn new(setup: Setup) -> Self {
        let framing = setup.framing;
        let (client, server) = setup.connections();
        Self {
            client: End::new(client),
            server: End::new(server),
            now: Duration::ZERO,
            latency: Duration::from_millis(5),
            records: Vec::new(),
            framing,
            chunks: None,
            steps_at_now: 0,
        }
    }

    /// Cuts the byte stream at places that depend on `seed`.
    pub fn chunked(mut self, seed: u64) -> Self {
        self.chunks = Some(Rng(seed));
        self
    }

    /// A pair whose handshake is done, and whose first events are taken.
    #[track_caller]
    pub fn connected(setup: Setup) -> Self {
        let mut pair = Self::new(setup);
        pair.drive();
        assert!(pair.client.connection.is_open(), "client: {:?}", pair.client.end());
        assert!(pair.server.connection.is_open(), "server: {:?}", pair.server.end());
        let client = pair.client.take();
        assert!(matches!(client[..], [Event::Connected(..), Event::HeartbeatEcho(_)]), "{client:?}");
        let server = pair.server.take();
        assert!(matches!(server[..], [Event::Established(_)]), "{server:?}");
        pair
    }

    fn end_mut(&mut self, of: From) -> &mut End {
        match of {
            From::Client => &mut self.client,
            From::Server => &mut self.server,
        }
    }

    /// Takes what one end has to say: events to their queue, records on their way.
    fn flush(&mut self, from: From) {
        let (now, arrival, framing) = (self.now, self.now + self.latency, self.framing);
        let mut chunks = self.chunks.take();
        let mut packets = Vec::new();
        let end = self.end_mut(from);
        while let Some(event) = end.connection.poll_event() {
            end.events.push_back(event);
        }
        let mut records = Vec::new();
        let mut out = Vec::new();
        while !end.is_blocked && end.connection.poll_transmit(now, &mut out) {
            let head = if framing == Framing::Stream { 2 } else { 0 };
            records.push(Record { from, at: now, body: out[head..].to_vec() });
            packets.push(Packet::Bytes(std::mem::take(&mut out)));
        }
        assert!(out.is_empty(), "nothing is written when there is nothing to send");
        if end.connection.is_drained() && !end.has_sent_fin {
            end.has_sent_fin = true;
            packets.push(Packet::Fin);
        }
        if let (Some(rng), Framing::Stream) = (&mut chunks, framing) {
            packets = cut(packets, rng);
        }
        self.chunks = chunks;
        self.records.extend(records);
        let to = if from == From::Client { From::Server } else { From::Client };
        self.end_mut(to).inbox.extend(packets.into_iter().map(|packet| (arrival, packet)));
    }

    /// Goes to the next arrival, or to the next timer if that is allowed; `false` when there is none until `until`.
    fn step(&mut self, until: Duration, with_timers: bool) -> bool {
        self.flush(From::Client);
        self.flush(From::Server);
        let arrivals = [&self.client, &self.server].map(|end| end.inbox.front().map(|(at, _)| *at));
        let timers = [&self.client, &self.server].map(|end| end.connection.poll_timeout());
        let timers = timers.into_iter().filter(|_| with_timers);
        let Some(next) = arrivals.into_iter().chain(timers).flatten().min().filter(|next| *next <= until)
        else {
            return false;
        };
        self.steps_at_now = if next > self.now { 0 } else { self.steps_at_now + 1 };
        assert!(self.steps_at_now < STEPS_AT_ONE_MOMENT_MAX, "the clock stands still at {next:?}");
        self.now = self.now.max(next);
        let (now, framing) = (self.now, self.framing);
        for of in [From::Client, From::Server] {
            let due = self.end_mut(of).inbox.iter().take_while(|(at, _)| *at <= now).count();
            for _ in 0..due {
                let end = self.end_mut(of);
                let (_, packet) = end.inbox.pop_front().expect("it was counted");
                end.receive(now, packet, framing);
                self.flush(of);
            }
            let end = self.end_mut(of);
            if with_timers && end.connection.poll_timeout().is_some_and(|at| at <= now) {
                let result = end.connection.handle_timeout(now);
                assert_eq!(result.err(), end.end());
            }
        }
        true
    }

    /// Runs a few steps, and leaves the rest under way.
    pub fn drive_some(&mut self, steps: usize) {
        for _ in 0..steps {
            self.step(Duration::MAX, false);
        }
    }

    /// Runs until nothing is under way. Timers do not run.
    pub fn drive(&mut self) {
        while self.step(Duration::MAX, false) {}
    }

    /// Runs until nothing is under way, in at most `steps` steps.
    #[track_caller]
    pub fn drive_bounded(&mut self, steps: usize) {
        for _ in 0..steps {
            if !self.step(Duration::MAX, false) {
                return;
            }
        }
        panic!("still talking after {steps} steps");
    }

    /// Runs everything, timers too, up to a moment.
    pub fn drive_until(&mut self, until: Duration) {
        while self.step(until, true) {}
        self.now = self.now.max(until);
    }

    pub fn drive_for(&mut self, time: Duration) {
        self.drive_until(self.now + time);
    }

    /// Ends the byte stream towards `to` now, whatever was under way.
    pub fn cut(&mut self, to: From) {
        let (now, framing) = (self.now, self.framing);
        let end = self.end_mut(to);
        end.inbox.clear();
        end.receive(now, Packet::Fin, framing);
        self.flush(to);
    }

    /// Drops what is under way to `to`.
    pub fn lose(&mut self, to: From) {
        self.end_mut(to).inbox.clear();
    }

    /// Gives bytes to `to` as they are, now.
    pub fn inject(&mut self, to: From, bytes: &[u8]) {
        let (now, framing) = (self.now, self.framing);
        self.end_mut(to).receive(now, Packet::Bytes(bytes.to_vec()), framing);
        self.flush(to);
    }

    /// Everything that `from` sent so far, as record bodies.
    pub fn bodies(&self, from: From) -> Vec<Vec<u8>> {
        self.records.iter().filter(|record| record.from == from).map(|record| record.body.clone()).collect()
    }
}

/// Puts the bytes together and cuts them at other places.
fn cut(packets: Vec<Packet>, rng: &mut Rng) -> Vec<Packet> {
    let mut out = Vec::new();
    for packet in packets {
        match packet {
            Packet::Fin => out.push(Packet::Fin),
            Packet::Bytes(bytes) => {
                let mut rest = &bytes[..];
                while !rest.is_empty() {
                    let most = if rng.one_in(8) { rest.len() } else { rest.len().min(40) };
                    let (head, tail) = rest.split_at(1 + rng.below(most));
                    match out.last_mut() {
                        Some(Packet::Bytes(last)) if rng.one_in(2) => last.extend_from_slice(head),
                        _ => out.push(Packet::Bytes(head.to_vec())),
                    }
                    rest = tail;
                }
            }
        }
    }
    out
}
