//! Records on a TCP stream.

use super::{Io, OUTPUT_MAX};
use crate::client::ServerUrl;
use crate::client::error::ConnectReason;
use crate::conn::Connection;
use bytes::BytesMut;
use std::{
    io,
    task::{Context, Poll, ready},
    time::Duration,
};
use tokio::{
    io::{AsyncReadExt, AsyncWriteExt},
    net::TcpStream,
};

/// The first read: a handshake, or the answer to a small call. An idle connection holds no more than this.
const READ_MIN: usize = 2 * 1024;
/// The longest read: two of the largest records.
const READ_MAX: usize = 128 * 1024;
/// Room that is kept for output: as much as there is at most, with what is written and not yet let go, so that it is not
/// made and given back with each write.
const OUTPUT_KEPT: usize = 2 * OUTPUT_MAX;
/// Output that is written and kept all the same: to let go of less would move what is behind it for little.
const WRITTEN_MAX: usize = OUTPUT_MAX / 2;

/// Resolves the name and tries its addresses in turn.
pub(super) async fn connect(url: &ServerUrl) -> Result<TcpStream, ConnectReason> {
    let addresses =
        tokio::net::lookup_host((url.host(), url.port())).await.map_err(ConnectReason::Resolve)?;
    let mut last = io::Error::new(io::ErrorKind::NotFound, "the name has no address");
    for address in addresses {
        match TcpStream::connect(address).await {
            Ok(stream) => {
                // A record is written whole: waiting for company only adds delay.
                stream.set_nodelay(true).map_err(ConnectReason::Reach)?;
                return Ok(stream);
            }
            Err(error) => last = error,
        }
    }
    Err(ConnectReason::Reach(last))
}

/// A TCP stream with the bytes on their way.
pub(in crate::client) struct TcpSocket {
    stream: TcpStream,
    pub(super) input: BytesMut,
    /// `input` has what came before this was made, and nobody was told yet.
    is_rewound: bool,
    /// Room to make for the next read: doubled when a read fills it, halved when one leaves most of it empty.
    read_size: usize,
    output: Vec<u8>,
    /// `output` up to here is written.
    written: usize,
    /// The transport takes no more bytes.
    is_deaf: bool,
}

impl TcpSocket {
    /// `input` is what was read of the stream already.
    pub(super) fn new(stream: TcpStream, input: BytesMut) -> Self {
        let is_rewound = !input.is_empty();
        Self {
            stream,
            input,
            is_rewound,
            read_size: READ_MIN,
            output: Vec::new(),
            written: 0,
            is_deaf: false,
        }
    }

    pub(super) fn has_output(&self) -> bool {
        self.written < self.output.len()
    }

    pub(super) fn fill(&mut self, connection: &mut Connection, now: Duration) -> bool {
        self.fill_by(|output| connection.poll_transmit(now, output))
    }

    /// Takes what `append` has, one record at a time, until it says that there is no more; says whether that was all.
    pub(super) fn fill_by(&mut self, mut append: impl FnMut(&mut Vec<u8>) -> bool) -> bool {
        if !self.has_output() {
            self.output.clear();
            self.written = 0;
            self.output.shrink_to(OUTPUT_KEPT);
        } else if self.written >= WRITTEN_MAX {
            // With a peer that is slower than the callers there is never a moment without output.
            self.output.drain(..self.written);
            self.written = 0;
        }
        while self.output.len() - self.written < OUTPUT_MAX && append(&mut self.output) {}
        let took_all = self.output.len() - self.written < OUTPUT_MAX;
        if self.is_deaf {
            self.output.clear();
            self.written = 0;
        }
        took_all
    }

    /// Appends what has to leave behind all else.
    pub(super) fn append(&mut self, append: impl FnOnce(&mut Vec<u8>)) {
        if !self.is_deaf {
            append(&mut self.output);
        }
    }

    pub(super) fn poll_io(&mut self, context: &mut Context<'_>) -> Poll<Io> {
        let wrote = self.poll_write(context);
        let mut io = Io { wrote, read: std::mem::take(&mut self.is_rewound), eof: false };
        match self.poll_read(context) {
            Poll::Ready(Ok(0) | Err(_)) => io.eof = true,
            Poll::Ready(Ok(_)) => io.read = true,
            Poll::Pending if io.wrote || io.read => {}
            Poll::Pending => return Poll::Pending,
        }
        Poll::Ready(io)
    }

    /// Writes once; says whether the transport took anything.
    pub(super) fn try_write(&mut self) -> bool {
        if !self.has_output() {
            return false;
        }
        let Ok(len) = self.stream.try_write(&self.output[self.written..]) else { return false };
        self.written += len;
        len > 0
    }

    /// Writes until the transport takes no more; says whether it took anything.
    pub(super) fn poll_write(&mut self, context: &mut Context<'_>) -> bool {
        let mut wrote = false;
        while self.has_output() {
            let Poll::Ready(ready) = self.stream.poll_write_ready(context) else { return wrote };
            match ready.and_then(|()| self.stream.try_write(&self.output[self.written..])) {
                Ok(0) => self.fall_deaf(),
                Ok(len) => {
                    self.written += len;
                    wrote = true;
                }
                Err(error) if error.kind() == io::ErrorKind::WouldBlock => {}
                Err(_) => self.fall_deaf(),
            }
        }
        wrote
    }

    fn fall_deaf(&mut self) {
        self.is_deaf = true;
        self.output.clear();
        self.written = 0;
    }

    fn poll_read(&mut self, context: &mut Context<'_>) -> Poll<io::Result<usize>> {
        self.input.reserve(self.read_size);
        // Not `try_read_buf`: it asks the system once more, to be told that nothing is left.
        let read = std::pin::pin!(self.stream.read_buf(&mut self.input));
        let len = ready!(read.poll(context))?;
        if len >= self.read_size {
            self.read_size = (self.read_size * 2).min(READ_MAX);
        } else if len < self.read_size / 4 {
            self.read_size = (self.read_size / 2).max(READ_MIN);
        }
        Poll::Ready(Ok(len))
    }

    pub(super) fn deliver(&mut self, connection: &mut Connection, now: Duration) {
        // The connection remembers its end.
        let _ = connection.handle_input(now, &mut self.input);
    }

    pub(super) async fn finish(mut self) {
        if self.stream.shutdown().await.is_err() {
            return;
        }
        // Closing with unread input makes the system send a reset, which can overtake our CLOSE at the peer.
        let mut rest = [0; 1024];
        loop {
            match self.stream.readable().await.and_then(|()| self.stream.try_read(&mut rest)) {
                Ok(0) => return,
                Ok(_) => {}
                Err(error) if error.kind() == io::ErrorKind::WouldBlock => {}
                Err(_) => return,
            }
        }
    }
}

#[cfg(test)]
mod tests {
    use super::*;
    use crate::conn::{ClientConfig, Entropy, Framing, Limits, ServerConfig};
    use crate::noise::{StaticSecret, rust_crypto};
    use crate::wire::{Suite, envelope::RpcCall};
    use bytes::Bytes;
    use std::sync::Arc;

    /// The client's end of a connection that can make calls.
    fn connected() -> Connection {
        let secret = StaticSecret::from_bytes([7; 32]);
        let client = ClientConfig {
            provider: rust_crypto(),
            suites: vec![Suite::NK_CHACHAPOLY],
            suite: None,
            server_key: Some(secret.public_key(rust_crypto())),
            identity: None,
            psk: None,
            limits: Limits::default(),
        };
        let server = ServerConfig {
            provider: rust_crypto(),
            identities: vec![secret],
            suites: vec![Suite::NK_CHACHAPOLY],
            psk: None,
            limits: Limits::default(),
        };
        let entropy = |n| Entropy { ephemeral: [n; 32], connection_id: [3; 16], server_time_ms: 5 };
        let now = Duration::ZERO;
        let mut client = Connection::client(Arc::new(client), entropy(1), Framing::Stream, now).unwrap();
        let mut server = Connection::server(Arc::new(server), entropy(2), Framing::Stream, now).unwrap();
        for is_from_client in [true, false, true] {
            let ends = (&mut client, &mut server);
            let (from, to) = if is_from_client { ends } else { (ends.1, ends.0) };
            let mut sent = Vec::new();
            while from.poll_transmit(now, &mut sent) {}
            to.handle_input(now, &mut BytesMut::from(&sent[..])).unwrap();
        }
        client
    }

    #[tokio::test]
    async fn what_is_written_is_let_go_although_there_is_always_more() {
        const SYSTEM_BUFFER: u32 = 16 * 1024;
        let listener = tokio::net::TcpListener::bind("127.0.0.1:0").await.unwrap();
        let socket = tokio::net::TcpSocket::new_v4().unwrap();
        socket.set_send_buffer_size(SYSTEM_BUFFER).unwrap();
        let address = listener.local_addr().unwrap();
        let (stream, accepted) = tokio::join!(socket.connect(address), listener.accept());
        let (mut peer, mut connection) = (accepted.unwrap().0, connected());
        let mut socket = TcpSocket::new(stream.unwrap(), BytesMut::new());
        let call = RpcCall { args: Bytes::from(vec![0; 100_000]), ..RpcCall::default() };
        let mut written = 0;
        // Without a moment in which all was written.
        while written < 4 * OUTPUT_KEPT {
            while connection.outbound_bytes() < OUTPUT_MAX {
                connection.call(&call).unwrap();
            }
            let _takes_no_more = socket.fill(&mut connection, Duration::ZERO);
            assert!(socket.output.len() <= OUTPUT_KEPT, "{} bytes after {written}", socket.output.len());
            let before = socket.output.len() - socket.written;
            if socket.try_write() {
                let left = socket.output.len() - socket.written;
                written = if left > 0 { written + before - left } else { 0 };
                continue;
            }
            let mut piece = [0; 4 * 1024];
            tokio::select! {
                read = peer.read(&mut piece) => assert!(read.unwrap() > 0),
                ready = socket.stream.writable() => ready.unwrap(),
            }
        }
    }
}
