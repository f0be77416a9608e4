//! What carries records: a TCP stream or a WebSocket, behind one face.
//!
//! A socket holds the bytes on their way in both directions, so that waiting for it can be given up at any moment (in a
//! `select!`) without losing any.

mod tcp;
mod websocket;

use super::error::ConnectReason;
use super::{ServerUrl, Transport};
use crate::conn::{Connection, Framing};
use bytes::BytesMut;
use std::{
    task::{Context, Poll},
    time::Duration,
};

/// Output that is prepared ahead of the transport: two of the largest records keep it busy, and what comes later than
/// that still finds its place by priority.
const OUTPUT_MAX: usize = 128 * 1024;

/// What happened on a socket.
#[derive(Clone, Copy, Debug, Default, PartialEq, Eq)]
pub(super) struct Io {
    /// Bytes left this process, or may have.
    pub(super) wrote: bool,
    /// There is input for [`Socket::deliver`].
    pub(super) read: bool,
    /// Nothing more will come: the peer ended the transport, or it failed.
    pub(super) eof: bool,
}

/// One of the transports.
pub(super) enum Socket {
    Tcp(tcp::TcpSocket),
    WebSocket(Box<websocket::WebSocketSocket>),
}

impl Socket {
    /// Reaches the server.
    pub(super) async fn connect(url: &ServerUrl) -> Result<Self, ConnectReason> {
        let stream = tcp::connect(url).await?;
        match url.transport() {
            Transport::Tcp => Ok(Self::Tcp(tcp::TcpSocket::new(stream, BytesMut::new()))),
            Transport::WebSocket => {
                websocket::upgrade(url, stream).await.map(|socket| Self::WebSocket(Box::new(socket)))
            }
        }
    }

    /// How the connection on it is to cut its records.
    pub(super) fn framing(&self) -> Framing {
        match self {
            Self::Tcp(_) => Framing::Stream,
            Self::WebSocket(_) => Framing::Messages,
        }
    }

    /// Takes what the connection has to send, as much as is good to hold; says whether that was all.
    pub(super) fn fill(&mut self, connection: &mut Connection, now: Duration) -> bool {
        match self {
            Self::Tcp(socket) => socket.fill(connection, now),
            Self::WebSocket(socket) => socket.fill(connection, now),
        }
    }

    /// Whether something waits to be written.
    pub(super) fn has_output(&self) -> bool {
        match self {
            Self::Tcp(socket) => socket.has_output(),
            Self::WebSocket(socket) => socket.has_output(),
        }
    }

    /// Writes what it can without waiting for more; says whether it wrote anything. What is left is for
    /// [`poll_io`](Self::poll_io).
    pub(super) fn try_write(&mut self) -> bool {
        match self {
            Self::Tcp(socket) => socket.try_write(),
            Self::WebSocket(socket) => socket.try_write(),
        }
    }

    /// Writes and reads what it can.
    ///
    /// A transport that takes no more bytes is read on, because the peer's last word may say why.
    pub(super) fn poll_io(&mut self, context: &mut Context<'_>) -> Poll<Io> {
        match self {
            Self::Tcp(socket) => socket.poll_io(context),
            Self::WebSocket(socket) => socket.poll_io(context),
        }
    }

    /// Gives the connection what was read. How that ended it, the connection tells.
    pub(super) fn deliver(&mut self, connection: &mut Connection, now: Duration) {
        match self {
            Self::Tcp(socket) => socket.deliver(connection, now),
            Self::WebSocket(socket) => socket.deliver(connection, now),
        }
    }

    /// Says that nothing more will be written, and drops what is still read.
    pub(super) async fn finish(self) {
        match self {
            Self::Tcp(socket) => socket.finish().await,
            Self::WebSocket(socket) => socket.finish().await,
        }
    }
}
