//! Transports: what carries records. Each is two halves, so that a peer that does not read cannot stop us from reading.

pub(super) mod rewound;
pub(super) mod tcp;
pub(super) mod websocket;

use crate::conn::{Connection, ConnectionError, Framing};
use bytes::Bytes;
use std::{io, time::Duration};

/// Bytes a writer takes from the connection before they are on the wire: a few records, so that one write carries what
/// many calls answered, and the rest stays where it is counted.
const WRITE_BATCH: usize = 256 * 1024;

/// How long the peer has to take our last words and hang up.
pub(super) const LINGER: Duration = Duration::from_secs(1);

/// What a transport itself has to answer.
pub(super) enum Reply {
    /// To a ping, with its payload.
    Pong(Bytes),
    /// At the end, to the end of what the peer sends or to what it must not send: the status.
    Close(Option<u16>),
}

/// The half that bytes come from.
pub(super) trait ReadHalf: Send {
    /// How records are cut.
    const FRAMING: Framing;

    /// Waits for input; `false` is the end. Cancel-safe: what has arrived is kept.
    ///
    /// Bytes that break the transport's own protocol are an error of kind `InvalidData`; [`reply`](Self::reply) has what is to
    /// be said to the peer.
    fn read(&mut self) -> impl Future<Output = io::Result<bool>> + Send;

    /// Reads and forgets until the peer ends. Closing a socket that still has something to read resets the connection,
    /// and the last words on it may never arrive. Cancel-safe.
    fn discard(&mut self) -> impl Future<Output = ()> + Send;

    /// Gives back buffers that hold nothing: the connection has been quiet for as long as a heartbeat takes to be due.
    fn rest(&mut self) {}

    /// Gives the connection what has arrived.
    fn hand_over(&mut self, connection: &mut Connection, now: Duration) -> Result<(), ConnectionError>;

    /// What the transport has to answer to what was handed over, one after the other; it is for [`WriteHalf::reply`].
    fn reply(&mut self) -> Option<Reply> {
        None
    }
}

/// The half that bytes go to.
pub(super) trait WriteHalf: Send {
    /// Takes records from the connection.
    fn take(&mut self, connection: &mut Connection, now: Duration);

    /// Takes what the transport has to answer.
    fn reply(&mut self, _reply: Reply) {}

    /// Whether something waits to be written.
    fn has_output(&self) -> bool;

    /// Makes progress with what waits, at least a part of it. Cancel-safe.
    fn write(&mut self) -> impl Future<Output = io::Result<()>> + Send;

    /// Gives back buffers that hold nothing, as [`ReadHalf::rest`] does.
    fn rest(&mut self) {}

    /// Writes everything that still waits, and ends the transport.
    fn finish(&mut self) -> impl Future<Output = io::Result<()>> + Send;
}
