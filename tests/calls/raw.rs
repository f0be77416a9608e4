//! A client that does what it is told and nothing by itself.

use std::io::{ErrorKind, Read, Write};
use std::net::TcpStream;
use std::sync::Arc;
use std::time::{Duration, Instant};

use bytes::{Bytes, BytesMut};
use raystream::conn::{ClientConfig, Connection, Entropy, Event, Framing, Limits};
use raystream::noise::StaticSecret;
use raystream::wire::envelope::{Publish, RpcCall, SERVER_ITEMS, Subscribe};
use raystream::wire::{ErrorCode, Suite};

use crate::server::PATIENCE;

pub(crate) struct Raw {
    connection: Connection,
    stream: TcpStream,
    input: BytesMut,
    started: Instant,
}

impl Raw {
    /// An anonymous one.
    pub(crate) fn connect(url: &str) -> Self {
        Self::connect_as(url, None)
    }

    /// One with a key, or without.
    pub(crate) fn connect_as(url: &str, identity: Option<StaticSecret>) -> Self {
        let (key, address) = url.trim_start_matches("raystream://").split_once('@').unwrap();
        let config = ClientConfig {
            provider: raystream::noise::rust_crypto(),
            suites: vec![if identity.is_some() { Suite::IK_CHACHAPOLY } else { Suite::NK_CHACHAPOLY }],
            suite: None,
            server_key: Some(key.parse().unwrap()),
            identity,
            psk: None,
            limits: Limits::default(),
        };
        let mut entropy = Entropy { ephemeral: [0; 32], connection_id: [0; 16], server_time_ms: 0 };
        getrandom::fill(&mut entropy.ephemeral).unwrap();
        let connection =
            Connection::client(Arc::new(config), entropy, Framing::Stream, Duration::ZERO).unwrap();
        let stream = TcpStream::connect(address).unwrap();
        stream.set_nodelay(true).unwrap();
        stream.set_read_timeout(Some(Duration::from_millis(50))).unwrap();
        let mut raw = Self { connection, stream, input: BytesMut::new(), started: Instant::now() };
        raw.flush();
        while !raw.receive().iter().any(|event| matches!(event, Event::Connected(..))) {}
        raw
    }

    /// Queues a call.
    pub(crate) fn call(&mut self, method: &str, args: String) -> u32 {
        let args = Bytes::from(args);
        self.connection.call(&RpcCall { method: method.into(), args, ..RpcCall::default() }).unwrap()
    }

    /// Queues a call whose answer comes in items, of which `credit` may be sent.
    pub(crate) fn call_for_items(&mut self, method: &str, args: String, credit: u32) -> u32 {
        let (method, args, streams) = (method.into(), Bytes::from(args), SERVER_ITEMS);
        self.connection.call(&RpcCall { method, args, streams, credit, ..RpcCall::default() }).unwrap()
    }

    /// Queues an event for a topic.
    pub(crate) fn publish(&mut self, publish: &Publish) -> u32 {
        self.connection.publish(publish).unwrap()
    }

    /// Queues a subscription.
    pub(crate) fn subscribe(&mut self, subscribe: &Subscribe) -> u32 {
        self.connection.subscribe(subscribe).unwrap()
    }

    /// Sends what is queued, and gives how the stream ends: the result, or the code of the error.
    pub(crate) fn answer(&mut self, stream: u32) -> Result<Bytes, ErrorCode> {
        self.flush();
        let until = Instant::now() + PATIENCE;
        loop {
            assert!(Instant::now() < until, "no answer came");
            for event in self.receive() {
                match event {
                    Event::Response(of, response) if of == stream => return Ok(response.result),
                    Event::Error(of, error) if of == stream => return Err(error.code),
                    _ => {}
                }
            }
        }
    }

    /// Queues a cancel.
    pub(crate) fn cancel(&mut self, stream: u32) {
        self.connection.cancel(stream).unwrap();
    }

    /// Sends what is queued.
    pub(crate) fn flush(&mut self) {
        let mut out = Vec::new();
        while self.connection.poll_transmit(self.started.elapsed(), &mut out) {}
        self.stream.write_all(&out).unwrap();
    }

    /// What has come, after a short wait.
    pub(crate) fn receive(&mut self) -> Vec<Event> {
        let mut buffer = [0; 64 * 1024];
        match self.stream.read(&mut buffer) {
            Ok(0) => panic!("the daemon ended the connection: {:?}", self.connection.end()),
            Ok(len) => self.input.extend_from_slice(&buffer[..len]),
            Err(error) if matches!(error.kind(), ErrorKind::WouldBlock | ErrorKind::TimedOut) => {}
            Err(error) => panic!("{error}"),
        }
        let now = self.started.elapsed();
        let handled = self.connection.handle_input(now, &mut self.input);
        let events: Vec<_> = std::iter::from_fn(|| self.connection.poll_event()).collect();
        // What came before the end is told first.
        if events.is_empty() {
            handled.unwrap();
            self.connection.handle_timeout(now).unwrap();
        }
        events
    }
}
