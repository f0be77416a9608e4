//! The `[limits]` section: every bound an operator may move, its default, and why it is that.

use serde::{Deserialize, Serialize};

use super::quantity::{ByteSize, Period};
use crate::wire::limits as wire;

/// Connections at the same time. One costs a few tens of KiB: this many fit on a small machine, and a file descriptor
/// limit of 16,384 leaves room for everything else.
pub const CONNECTIONS: u32 = 10_000;
/// Connections whose handshake is not finished, over all addresses: what strangers can make the server hold at a time.
/// Each may have 4 KiB of input that nobody has authenticated.
pub const HALF_OPEN: u32 = 1_024;
/// The same for one address: a network behind one address reconnects together, a flood does not get far.
pub const HALF_OPEN_PER_IP: u32 = 32;
/// Handshakes one address may start in a second, in the long run. A handshake costs about 0.4 ms of processor time: an
/// address can take less than 1 % of a core.
pub const HANDSHAKES_PER_IP_PER_SECOND: u32 = 20;
/// Handshakes one address may start at once, before the rate applies.
pub const HANDSHAKES_PER_IP_BURST: u32 = 50;
/// Calls in flight on one connection. Enough for a busy service, and more would only queue before Postgres.
pub const CALLS_PER_CONNECTION: u16 = wire::CALLS_MAX;
/// Open subscriptions on one connection.
pub const SUBSCRIPTIONS_PER_CONNECTION: u16 = wire::SUBSCRIPTIONS_MAX;
/// Open subscriptions of the whole server. Each may hold a queue: together with its size this bounds the memory.
pub const SUBSCRIPTIONS: u32 = 100_000;
/// Transactions that clients of the whole server may keep open. Each has a connection to Postgres, beside those that batches
/// and named calls have for themselves.
pub const TRANSACTIONS: u16 = 12;
/// Transactions that one connection may keep open.
pub const TRANSACTIONS_PER_CONNECTION: u16 = crate::api::TRANSACTIONS_PER_CONNECTION;
/// How long a transaction may wait for its next call: its locks hold up others, and a client that thinks for longer is
/// a person, or gone.
pub const TRANSACTION_IDLE: Period = Period::from_secs(5);
/// How long a transaction may last: as long as it does, Postgres keeps what was deleted since.
pub const TRANSACTION_TIME: Period = Period::from_secs(30);
/// From accept to the first record that decrypts, in total and not for each read: a peer that sends one byte a second
/// gets nowhere.
pub const HANDSHAKE_DEADLINE: Period = Period::new(wire::HANDSHAKE_DEADLINE);
/// How long nothing has to be sent before a heartbeat is. Below the shortest idle time of common middle boxes (30 s).
pub const HEARTBEAT: Period = Period::new(wire::HEARTBEAT_INTERVAL);
/// How long nothing has to be heard before a connection counts as dead: three heartbeats, so that one may be lost.
pub const IDLE_TIMEOUT: Period = Period::new(wire::IDLE_TIMEOUT);
/// How old keys may get before the server asks for a new handshake.
pub const KEY_AGE: Period = Period::new(wire::KEY_AGE_MAX);
/// How long a write to the socket may be stuck: a peer that does not read for that long is gone or hostile.
pub const WRITE_DEADLINE: Period = Period::from_secs(10);
/// How long calls may go on after the signal to stop. What orchestrators give a process by default.
pub const DRAIN: Period = Period::from_secs(30);
/// How long a call may take when the caller names no shorter deadline.
pub const CALL_DEADLINE: Period = Period::from_secs(30);
/// How long a call with items may take when the caller names no shorter deadline: ten million documents to a reader that
/// takes some thousands a second. As long as it runs Postgres keeps what was deleted since.
pub const STREAM_DEADLINE: Period = Period::from_secs(3_600);
/// Bytes that wait to be sent on one connection before it counts as a slow consumer. One message of the largest size.
pub const OUTBOUND: ByteSize = ByteSize::from_bytes(1 << 20);

/// The `[limits]` section.
#[derive(Debug, Clone, PartialEq, Eq, Serialize, Deserialize)]
#[serde(default, deny_unknown_fields)]
pub struct LimitsConfig {
    /// See [`CONNECTIONS`].
    pub connections: u32,
    /// See [`HALF_OPEN`].
    pub half_open: u32,
    /// See [`HALF_OPEN_PER_IP`]. Loopback is exempt: whoever is on the machine has shorter ways to load it, and all
    /// clients behind a local proxy share that address.
    pub half_open_per_ip: u32,
    /// See [`HANDSHAKES_PER_IP_PER_SECOND`]. Loopback is exempt.
    pub handshakes_per_ip_per_second: u32,
    /// See [`HANDSHAKES_PER_IP_BURST`]. Loopback is exempt.
    pub handshakes_per_ip_burst: u32,
    /// See [`CALLS_PER_CONNECTION`].
    pub calls_per_connection: u16,
    /// See [`SUBSCRIPTIONS_PER_CONNECTION`].
    pub subscriptions_per_connection: u16,
    /// See [`SUBSCRIPTIONS`].
    pub subscriptions: u32,
    /// See [`TRANSACTIONS`].
    pub transactions: u16,
    /// See [`TRANSACTIONS_PER_CONNECTION`].
    pub transactions_per_connection: u16,
    /// See [`TRANSACTION_IDLE`].
    pub transaction_idle: Period,
    /// See [`TRANSACTION_TIME`].
    pub transaction_time: Period,
    /// See [`HANDSHAKE_DEADLINE`].
    pub handshake_deadline: Period,
    /// See [`HEARTBEAT`].
    pub heartbeat: Period,
    /// See [`IDLE_TIMEOUT`].
    pub idle_timeout: Period,
    /// See [`KEY_AGE`].
    pub key_age: Period,
    /// See [`WRITE_DEADLINE`].
    pub write_deadline: Period,
    /// See [`CALL_DEADLINE`].
    pub call_deadline: Period,
    /// See [`STREAM_DEADLINE`].
    pub stream_deadline: Period,
    /// See [`DRAIN`].
    pub drain: Period,
    /// See [`OUTBOUND`].
    pub outbound: ByteSize,
}

impl Default for LimitsConfig {
    fn default() -> Self {
        Self {
            connections: CONNECTIONS,
            half_open: HALF_OPEN,
            half_open_per_ip: HALF_OPEN_PER_IP,
            handshakes_per_ip_per_second: HANDSHAKES_PER_IP_PER_SECOND,
            handshakes_per_ip_burst: HANDSHAKES_PER_IP_BURST,
            calls_per_connection: CALLS_PER_CONNECTION,
            subscriptions_per_connection: SUBSCRIPTIONS_PER_CONNECTION,
            subscriptions: SUBSCRIPTIONS,
            transactions: TRANSACTIONS,
            transactions_per_connection: TRANSACTIONS_PER_CONNECTION,
            transaction_idle: TRANSACTION_IDLE,
            transaction_time: TRANSACTION_TIME,
            handshake_deadline: HANDSHAKE_DEADLINE,
            heartbeat: HEARTBEAT,
            idle_timeout: IDLE_TIMEOUT,
            key_age: KEY_AGE,
            write_deadline: WRITE_DEADLINE,
            call_deadline: CALL_DEADLINE,
            stream_deadline: STREAM_DEADLINE,
            drain: DRAIN,
            outbound: OUTBOUND,
        }
    }
}
