//! What the tests of the connection share: fixed keys, configurations, messages, a generator of repeatable numbers.
#![allow(dead_code, reason = "each test takes what it needs")]
#![allow(unreachable_pub, reason = "each test is a program of its own")]
#![allow(clippy::unwrap_used, reason = "in a test, a panic is the report")]
#![allow(clippy::print_stderr, reason = "a failing test says with which input")]

pub mod json;
pub mod memo;
pub mod pair;
pub mod raw;
pub mod refusals;
pub mod script;

use bytes::Bytes;
use raystream::{
    conn::{ClientConfig, Connection, Entropy, Framing, Limits, ServerConfig},
    noise::{CryptoProvider, Psk, PublicKey, StaticSecret},
    wire::{
        ErrorCode, Suite,
        envelope::{Event, EventKind, Overflow, RpcCall, RpcError, RpcResponse, Subscribe, Subscribed},
    },
};
use std::{sync::Arc, time::Duration};

pub const CLIENT_STATIC: [u8; 32] = [0x11; 32];
pub const SERVER_STATIC: [u8; 32] = [0x22; 32];
pub const CLIENT_EPHEMERAL: [u8; 32] = [0x33; 32];
pub const SERVER_EPHEMERAL: [u8; 32] = [0x44; 32];
pub const PSK: [u8; 32] = [0x55; 32];
pub const CONNECTION_ID: [u8; 16] = [0x66; 16];
/// 2026-01-01 00:00 UTC.
pub const SERVER_TIME_MS: u64 = 1_767_225_600_000;
pub const FRAMINGS: [Framing; 2] = [Framing::Stream, Framing::Messages];

/// Repeatable numbers: SplitMix64. Tests print the seed when they fail.
#[derive(Clone, Debug)]
pub struct Rng(pub u64);

impl Rng {
    pub fn next(&mut self) -> u64 {
        self.0 = self.0.wrapping_add(0x9e37_79b9_7f4a_7c15);
        let z = (self.0 ^ (self.0 >> 30)).wrapping_mul(0xbf58_476d_1ce4_e5b9);
        let z = (z ^ (z >> 27)).wrapping_mul(0x94d0_49bb_1331_11eb);
        z ^ (z >> 31)
    }

    /// A number below `end`.
    pub fn below(&mut self, end: usize) -> usize {
        usize::try_from(self.next() % u64::try_from(end.max(1)).unwrap()).unwrap()
    }

    pub fn one_in(&mut self, n: usize) -> bool {
        self.below(n) == 0
    }

    pub fn bytes(&mut self, len: usize) -> Bytes {
        let mut bytes = Vec::with_capacity(len + 8);
        while bytes.len() < len {
            bytes.extend_from_slice(&self.next().to_le_bytes());
        }
        bytes.truncate(len);
        bytes.into()
    }
}

/// Two configurations that fit together, to be changed by the test.
pub struct Setup {
    pub client: ClientConfig,
    pub server: ServerConfig,
    pub framing: Framing,
    /// Fresh for each connection of a simulation; fixed otherwise.
    pub ephemerals: [[u8; 32]; 2],
    pub connection_id: [u8; 16],
}

impl Setup {
    /// Both sides take `suite` and nothing else.
    pub fn new(suite: Suite, framing: Framing) -> Self {
        let provider = memo::provider();
        let server_key = StaticSecret::from_bytes(SERVER_STATIC).public_key(provider);
        Self {
            client: ClientConfig {
                provider,
                suites: vec![suite],
                suite: None,
                server_key: (suite.pattern_name() != Some("NX")).then_some(server_key),
                identity: Some(StaticSecret::from_bytes(CLIENT_STATIC)),
                psk: Some(Psk::from_bytes(PSK)),
                limits: Limits::default(),
            },
            server: ServerConfig {
                provider,
                identities: vec![StaticSecret::from_bytes(SERVER_STATIC)],
                suites: vec![suite],
                psk: Some(Psk::from_bytes(PSK)),
                limits: Limits::default(),
            },
            framing,
            ephemerals: [CLIENT_EPHEMERAL, SERVER_EPHEMERAL],
            connection_id: CONNECTION_ID,
        }
    }

    /// NK with ChaChaPoly over a byte stream.
    pub fn plain() -> Self {
        Self::new(Suite::NK_CHACHAPOLY, Framing::Stream)
    }

    pub fn provider(mut self, provider: &'static dyn CryptoProvider) -> Self {
        self.client.provider = provider;
        self.server.provider = provider;
        self
    }

    pub fn client_entropy(&self) -> Entropy {
        Entropy { ephemeral: self.ephemerals[0], connection_id: [0; 16], server_time_ms: 0 }
    }

    pub fn server_entropy(&self) -> Entropy {
        Entropy {
            ephemeral: self.ephemerals[1],
            connection_id: self.connection_id,
            server_time_ms: SERVER_TIME_MS,
        }
    }

    /// Both ends, at time zero.
    pub fn connections(self) -> (Connection, Connection) {
        let (client_entropy, server_entropy) = (self.client_entropy(), self.server_entropy());
        let (framing, now) = (self.framing, Duration::ZERO);
        let client = Connection::client(Arc::new(self.client), client_entropy, framing, now).unwrap();
        let server = Connection::server(Arc::new(self.server), server_entropy, framing, now).unwrap();
        (client, server)
    }
}

/// Runs `check` for every suite over both framings, and says which one it was when it panics.
pub fn for_each_suite(mut check: impl FnMut(Setup)) {
    for suite in Suite::ALL {
        for framing in FRAMINGS {
            let context = Context(format!("suite {suite}, framing {framing:?}"));
            check(Setup::new(*suite, framing));
            drop(context);
        }
    }
}

/// Printed when the thread panics while this lives.
pub struct Context(pub String);

impl Drop for Context {
    fn drop(&mut self) {
        if std::thread::panicking() {
            eprintln!("  with {}", self.0);
        }
    }
}

pub fn public_key(secret: [u8; 32]) -> PublicKey {
    StaticSecret::from_bytes(secret).public_key(memo::provider())
}

pub fn hex(bytes: &[u8]) -> String {
    bytes.iter().map(|byte| format!("{byte:02x}")).collect()
}

// Messages.

pub fn call(method: &str, args: impl Into<Bytes>) -> RpcCall {
    RpcCall { method: method.into(), args: args.into(), ..RpcCall::default() }
}

pub fn response(result: impl Into<Bytes>) -> RpcResponse {
    RpcResponse { result: result.into(), ..RpcResponse::default() }
}

pub fn rpc_error(code: ErrorCode, message: &str) -> RpcError {
    RpcError {
        code,
        message: message.to_owned(),
        retryable: code.is_retryable(),
        retry_after_ms: 0,
        details: Bytes::new(),
    }
}

pub fn subscribe(table: &str, credit: u32) -> Subscribe {
    Subscribe {
        table: table.to_owned(),
        filter: Bytes::new(),
        cursor: None,
        snapshot: true,
        overflow: Overflow::Close,
        credit,
        topic: None,
    }
}

pub fn subscribed(cursor: &str) -> Subscribed {
    Subscribed { cursor: cursor.to_owned(), snapshot_end: false }
}

pub fn event(n: u64, data: impl Into<Bytes>) -> Event {
    Event {
        cursor: format!("c{n}"),
        kind: EventKind::Insert,
        id: format!("document-{n}"),
        data: Some(data.into()),
        old: None,
        version: n,
        dropped: 0,
        omitted: 0,
        lag: 0,
    }
}
