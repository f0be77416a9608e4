//! What a connection tells its owner.

use crate::noise::PublicKey;
use crate::wire::{
    Suite,
    control::GoAway,
    envelope::{Event as EventMessage, Publish, RpcCall, RpcError, RpcResponse, Subscribe, Subscribed},
    handshake::ServerHello,
};
use bytes::Bytes;
use std::time::Duration;

/// The other end, once it has proved what it is.
#[derive(Clone, Debug, PartialEq, Eq)]
pub struct Peer {
    /// The peer's static key: the server's for a client; the client's in IK suites, else `None`, for a server.
    pub key: Option<PublicKey>,
    /// The suite in use.
    pub suite: Suite,
    /// The handshake hash `h`: the channel binding (Noise section 11.2).
    pub handshake_hash: [u8; 32],
    /// What names this connection in logs.
    pub connection_id: [u8; 16],
}

/// An output of [`Connection::poll_event`](super::Connection::poll_event).
#[derive(Clone, Debug, PartialEq, Eq)]
#[non_exhaustive]
pub enum Event {
    /// Server: the first transport record decrypted; only now does the peer's identity count.
    Established(Peer),
    /// Client: the handshake is done.
    Connected(Peer, ServerHello),
    /// Server: a call to answer with `respond` or `respond_error`.
    Call(u32, RpcCall),
    /// Server: the caller gave the call up; it is still to be answered.
    Cancelled(u32),
    /// Server: a subscription to serve with `send_subscribed` and `send_event`.
    Subscribe(u32, Subscribe),
    /// Server: an event for a topic, to answer like a call.
    Publish(u32, Publish),
    /// The peer gave credit: for a subscription (server), or for the items of a call (either side).
    Credit(u32),
    /// An item of a call's stream.
    Data(u32, Bytes),
    /// Server: the client has no more items for this call.
    DataEnd(u32),
    /// Server: the subscriber wants no more; answered already.
    Unsubscribed(u32),
    /// Client: the answer to a call.
    Response(u32, RpcResponse),
    /// Client: the error that ended a call or subscription.
    Error(u32, RpcError),
    /// Client: a subscription's position is fixed, or its snapshot complete.
    Subscribed(u32, Subscribed),
    /// Client: an item of a subscription.
    Item(u32, EventMessage),
    /// Client: the server takes no new stream.
    GoAway(GoAway),
    /// The echo of a HEARTBEAT came after this time.
    HeartbeatEcho(Duration),
}
