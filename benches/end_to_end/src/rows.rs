//! The rows of the table: what is measured, of whom, and what has to be reached.

use std::collections::BTreeMap;

use crate::spec::Measured;

/// Who is measured in a row.
#[derive(Clone, Copy)]
pub(crate) enum Job {
    /// A client of this program against a server: its name, the server's, and whether AES.
    Peer { client: &'static str, server: &'static str, aes: bool },
    /// `raystream bench` with these arguments, and `websocket`, `aes` or `ik`.
    Raystream { args: &'static [&'static str], with: &'static [&'static str] },
}

/// One row.
pub(crate) struct Row {
    pub(crate) name: &'static str,
    pub(crate) title: &'static str,
    pub(crate) unit: &'static str,
    /// `calls`, `setup`, `idle` or `fan`, for the peers.
    pub(crate) mode: &'static str,
    pub(crate) connections: usize,
    pub(crate) in_flight: usize,
    pub(crate) payload: usize,
    /// Columns, in their order.
    pub(crate) peers: Vec<(&'static str, Job)>,
    pub(crate) figure: fn(&Measured) -> f64,
    pub(crate) musts: Vec<Must>,
    /// Servers are started anew for each measurement: memory that was used before would be used again.
    pub(crate) is_fresh: bool,
}

/// What has to be reached, judged within each round.
pub(crate) struct Must {
    pub(crate) text: &'static str,
    /// From the figures of one round, by column.
    pub(crate) value: fn(&BTreeMap<&str, f64>) -> f64,
    pub(crate) at_most: bool,
    pub(crate) bound: f64,
}

impl Must {
    pub(crate) fn is_reached(&self, value: f64) -> bool {
        if self.at_most { value <= self.bound } else { value >= self.bound }
    }
}

const fn peer(client: &'static str) -> Job {
    Job::Peer { client, server: client, aes: false }
}

const RAW_TCP: (&str, Job) = ("raw-tcp", peer("raw-tcp"));
const RAW_TLS: (&str, Job) = ("raw-tls", peer("raw-tls"));
const RAW_TLS_AES: (&str, Job) =
    ("raw-tls-aes", Job::Peer { client: "raw-tls", server: "raw-tls-aes", aes: true });
const REDIS: (&str, Job) = ("redis", peer("redis"));
const GRPC: (&str, Job) = ("grpc", peer("grpc"));
const GRPC_STREAM: (&str, Job) =
    ("grpc-stream", Job::Peer { client: "grpc-stream", server: "grpc", aes: false });
const READ: (&str, Job) = ("postgres", Job::Peer { client: "postgres-read", server: "postgres", aes: false });
const WRITE: (&str, Job) =
    ("postgres", Job::Peer { client: "postgres-write", server: "postgres", aes: false });

const fn ours(args: &'static [&'static str]) -> (&'static str, Job) {
    ("raystream", Job::Raystream { args, with: &[] })
}

macro_rules! must {
    ($text:literal, <= $bound:literal, $value:expr) => {
        Must { text: $text, value: $value, at_most: true, bound: $bound }
    };
    ($text:literal, >= $bound:literal, $value:expr) => {
        Must { text: $text, value: $value, at_most: false, bound: $bound }
    };
}

fn row(name: &'static str, title: &'static str, unit: &'static str, figure: fn(&Measured) -> f64) -> Row {
    Row {
        name,
        title,
        unit,
        mode: "calls",
        connections: 1,
        in_flight: 1,
        payload: 64,
        peers: Vec::new(),
        figure,
        musts: Vec::new(),
        is_fresh: false,
    }
}

/// The whole table.
pub(crate) fn all() -> Vec<Row> {
    let mut rows = calls();
    rows.extend(connections());
    rows.extend(storage());
    rows.extend(fan_out());
    rows
}

fn calls() -> Vec<Row> {
    vec![
        Row {
            peers: vec![RAW_TCP, RAW_TLS, REDIS, GRPC, GRPC_STREAM, ours(&["echo"])],
            musts: vec![
                must!("1.3 x raw-tcp", <= 1.3, |r| r["raystream"] / r["raw-tcp"]),
                must!("1.0 x raw-tls", <= 1.0, |r| r["raystream"] / r["raw-tls"]),
            ],
            ..row("one-call", "one call in flight, 64 B, p50", "us", |m| m.p50_us)
        },
        Row {
            in_flight: 64,
            peers: vec![RAW_TCP, RAW_TLS, REDIS, GRPC, GRPC_STREAM, ours(&["echo", "--in-flight", "64"])],
            musts: vec![
                must!("1.0 x redis", >= 1.0, |r| r["raystream"] / r["redis"]),
                must!("25 x grpc", >= 25.0, |r| r["raystream"] / r["grpc"]),
                must!("1.2 x grpc-stream", >= 1.2, |r| r["raystream"] / r["grpc-stream"]),
            ],
            ..row("one-64", "one connection, 64 in flight, 64 B", "calls/s", |m| m.per_s)
        },
        Row {
            connections: 16,
            in_flight: 16,
            peers: vec![
                RAW_TCP,
                RAW_TLS,
                REDIS,
                GRPC,
                GRPC_STREAM,
                ours(&["echo", "--connections", "16", "--in-flight", "16"]),
            ],
            musts: vec![
                must!("1.0 x redis", <= 1.0, |r| r["raystream"] / r["redis"]),
                must!("1.6 x raw-tls", <= 1.6, |r| r["raystream"] / r["raw-tls"]),
            ],
            ..row(
                "cpu-16x16",
                "16 connections, 16 in flight on each: processor time of both ends for a call",
                "us",
                |m| m.cpu_us,
            )
        },
        Row {
            payload: 1_024,
            peers: vec![RAW_TCP, RAW_TLS, GRPC, ours(&["echo", "--payload", "1KiB"])],
            musts: vec![must!("1.05 x raw-tls", <= 1.05, |r| r["raystream"] / r["raw-tls"])],
            ..row("one-1k", "one call in flight, 1 KiB, p50", "us", |m| m.p50_us)
        },
        Row {
            payload: 65_536,
            in_flight: 16,
            peers: vec![
                RAW_TCP,
                RAW_TLS,
                RAW_TLS_AES,
                GRPC,
                GRPC_STREAM,
                ours(&["bulk", "--in-flight", "16"]),
                ("raystream-aes", Job::Raystream { args: &["bulk", "--in-flight", "16"], with: &["aes"] }),
            ],
            musts: vec![
                must!("1.0 x raw-tls", >= 1.0, |r| r["raystream"] / r["raw-tls"]),
                must!("1.0 x raw-tls-aes (AES)", >= 1.0, |r| r["raystream-aes"] / r["raw-tls-aes"]),
            ],
            ..row("bulk", "64 KiB echo, 16 in flight, each way (grpc: AES)", "MB/s", |m| {
                m.per_s * 65_536.0 / 1e6
            })
        },
    ]
}

fn connections() -> Vec<Row> {
    vec![
        Row {
            mode: "setup",
            peers: vec![
                RAW_TCP,
                RAW_TLS,
                REDIS,
                GRPC,
                ours(&["connect"]),
                ("raystream-ik", Job::Raystream { args: &["connect"], with: &["ik"] }),
            ],
            musts: vec![
                must!("0.8 x raw-tls (NK)", <= 0.8, |r| r["raystream"] / r["raw-tls"]),
                must!("1.2 x raw-tls (IK, both ends proved)", <= 1.2, |r| r["raystream-ik"] / r["raw-tls"]),
            ],
            ..row("setup", "a connection made, one call, closed: processor time of the server", "us", |m| {
                m.server_cpu_us
            })
        },
        Row {
            mode: "idle",
            connections: 1_000,
            is_fresh: true,
            peers: vec![
                RAW_TCP,
                RAW_TLS,
                REDIS,
                GRPC,
                ours(&["idle", "--connections", "1000"]),
                (
                    "raystream-ws",
                    Job::Raystream { args: &["idle", "--connections", "1000"], with: &["websocket"] },
                ),
            ],
            musts: vec![
                must!("7 KiB", <= 7.0, |r| r["raystream"]),
                must!("12 KiB (WebSocket)", <= 12.0, |r| r["raystream-ws"]),
            ],
            ..row("idle", "memory of the server for an idle connection", "KiB", |m| m.kib)
        },
        Row {
            peers: vec![
                ("tungstenite-tls", Job::Peer { client: "websocket", server: "websocket", aes: false }),
                ("raystream", Job::Raystream { args: &["echo"], with: &["websocket"] }),
            ],
            musts: vec![must!("0.8 x tungstenite-tls", <= 0.8, |r| r["raystream"] / r["tungstenite-tls"])],
            ..row("websocket", "WebSocket, one call in flight, 64 B, p50", "us", |m| m.p50_us)
        },
    ]
}

fn storage() -> Vec<Row> {
    vec![
        Row {
            peers: vec![
                READ,
                ("raystream-echo", Job::Raystream { args: &["echo"], with: &[] }),
                ours(&["get"]),
            ],
            musts: vec![must!("1.3 x (postgres + raystream-echo)", <= 1.3, |r| {
                r["raystream"] / (r["postgres"] + r["raystream-echo"])
            })],
            ..row("read-one", "read of one row, one in flight, p50", "us", |m| m.p50_us)
        },
        Row {
            in_flight: 64,
            peers: vec![READ, ours(&["get", "--in-flight", "64"])],
            musts: vec![must!("0.9 x postgres", >= 0.9, |r| r["raystream"] / r["postgres"])],
            ..row("read-64", "read of one row, one connection, 64 in flight", "calls/s", |m| m.per_s)
        },
        Row {
            connections: 16,
            in_flight: 16,
            peers: vec![WRITE, ours(&["set", "--connections", "16", "--in-flight", "16"])],
            musts: vec![must!("1.0 x postgres", >= 1.0, |r| r["raystream"] / r["postgres"])],
            ..row(
                "write",
                "durable writes, 16 connections, 16 in flight on each; ours with the change log",
                "calls/s",
                |m| m.per_s,
            )
        },
        Row {
            peers: vec![WRITE, ours(&["sub"])],
            musts: vec![must!("100 us above postgres", <= 100.0, |r| r["raystream"] - r["postgres"])],
            ..row(
                "event",
                "a write until a subscriber has its event (postgres: until it is committed), p50",
                "us",
                |m| m.p50_us,
            )
        },
    ]
}

fn fan_out() -> Vec<Row> {
    const NATS: (&str, Job) = ("nats", peer("nats"));
    const NATS_TLS: (&str, Job) = ("nats-tls", peer("nats-tls"));
    vec![
        Row {
            mode: "fan",
            connections: 1_000,
            in_flight: 32,
            payload: 256,
            peers: vec![NATS, NATS_TLS, ours(&["sub", "--connections", "1000", "--in-flight", "32"])],
            musts: vec![
                must!("1.0 x nats", >= 1.0, |r| r["raystream"] / r["nats"]),
                must!("1.5 x nats-tls", >= 1.5, |r| r["raystream"] / r["nats-tls"]),
            ],
            ..row(
                "fan-32",
                "fan-out to 1,000 subscribers, 256 B, bursts of 32; ours durable",
                "deliveries/s",
                |m| m.per_s,
            )
        },
        Row {
            mode: "fan",
            connections: 1_000,
            payload: 256,
            peers: vec![NATS, NATS_TLS, ours(&["sub", "--connections", "1000"])],
            musts: vec![must!("0.4 x nats-tls", <= 0.4, |r| r["raystream"] / r["nats-tls"])],
            ..row("fan-one", "the same, one event: processor time of the server for a delivery", "us", |m| {
                m.server_cpu_us
            })
        },
    ]
}
