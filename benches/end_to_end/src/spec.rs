//! What one measurement is, on its way to the process that does it, and what it found.

use serde_json::{Value, json};
use std::{net::SocketAddr, time::Duration};

use crate::Failure;

/// What is measured of a peer.
#[derive(Debug, Clone)]
pub(crate) struct Spec {
    /// Which client: `raw-tcp`, `raw-tls`, `redis`, `grpc`, `grpc-stream`, `websocket`, `nats`, `nats-tls`, `postgres-read`,
    /// `postgres-write`.
    pub(crate) client: String,
    /// `calls`, `setup`, `idle` or `fan`.
    pub(crate) mode: String,
    pub(crate) address: Option<SocketAddr>,
    /// The folder with the certificate; for Postgres that of its socket.
    pub(crate) folder: String,
    /// Which process is the server.
    pub(crate) server: Option<u32>,
    pub(crate) connections: usize,
    pub(crate) in_flight: usize,
    pub(crate) payload: usize,
    pub(crate) aes: bool,
    pub(crate) duration: Duration,
    /// Postgres: the table to read.
    pub(crate) table: String,
}

impl Spec {
    pub(crate) fn to_json(&self) -> String {
        json!({
            "client": self.client, "mode": self.mode, "address": self.address.map(|address| address.to_string()),
            "folder": self.folder, "server": self.server, "connections": self.connections,
            "in_flight": self.in_flight, "payload": self.payload, "aes": self.aes,
            "duration": self.duration.as_secs_f64(), "table": self.table,
        })
        .to_string()
    }

    pub(crate) fn from_json(text: &str) -> Result<Self, Failure> {
        let value: Value = serde_json::from_str(text)?;
        let text = |name: &str| value[name].as_str().unwrap_or_default().to_owned();
        let count = |name: &str| value[name].as_u64().unwrap_or_default() as usize;
        Ok(Self {
            client: text("client"),
            mode: text("mode"),
            address: value["address"].as_str().map(str::parse).transpose()?,
            folder: text("folder"),
            server: value["server"].as_u64().map(|pid| pid as u32),
            connections: count("connections"),
            in_flight: count("in_flight"),
            payload: count("payload"),
            aes: value["aes"].as_bool().unwrap_or_default(),
            duration: Duration::from_secs_f64(value["duration"].as_f64().unwrap_or(1.0)),
            table: text("table"),
        })
    }

    /// The server's address.
    pub(crate) fn address(&self) -> Result<SocketAddr, Failure> {
        self.address.ok_or_else(|| "this peer has no address".into())
    }
}

/// What a measurement found. What it has no figure for is not a number.
#[derive(Debug, Clone, Copy)]
pub(crate) struct Measured {
    /// Median time of one call, in microseconds.
    pub(crate) p50_us: f64,
    /// Calls (connections, deliveries) per second.
    pub(crate) per_s: f64,
    /// Processor time of both ends for one, in microseconds.
    pub(crate) cpu_us: f64,
    /// That of the server alone.
    pub(crate) server_cpu_us: f64,
    /// Memory of the server per connection, in KiB.
    pub(crate) kib: f64,
}

impl Measured {
    pub(crate) fn none() -> Self {
        Self { p50_us: f64::NAN, per_s: f64::NAN, cpu_us: f64::NAN, server_cpu_us: f64::NAN, kib: f64::NAN }
    }

    pub(crate) fn to_json(self) -> String {
        json!({
            "p50_us": self.p50_us, "per_s": self.per_s, "cpu_us": self.cpu_us,
            "server_cpu_us": self.server_cpu_us, "kib": self.kib,
        })
        .to_string()
    }

    pub(crate) fn from_json(text: &str) -> Result<Self, Failure> {
        let value: Value = serde_json::from_str(text)?;
        let number = |name: &str| value[name].as_f64().unwrap_or(f64::NAN);
        Ok(Self {
            p50_us: number("p50_us"),
            per_s: number("per_s"),
            cpu_us: number("cpu_us"),
            server_cpu_us: number("server_cpu_us"),
            kib: number("kib"),
        })
    }
}
