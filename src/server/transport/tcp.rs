//! Records on a TCP stream, each with its length in front.

use super::{ReadHalf, WRITE_BATCH, WriteHalf};
use crate::conn::{Connection, ConnectionError, Framing};
use bytes::BytesMut;
use std::{future::poll_fn, io, time::Duration};
use tokio::{
    io::{AsyncReadExt, AsyncWriteExt, Interest},
    net::{
        TcpStream,
        tcp::{OwnedReadHalf, OwnedWriteHalf},
    },
};

/// First read: small, because most of the memory of an idle connection is its read buffer.
const READ_MIN: usize = 512;
/// Largest read: two of the largest records, so that one that is cut in the middle is not moved for long.
const READ_MAX: usize = 128 * 1024;

/// Waits for the first bytes of a connection. No bytes: the peer ended.
///
/// They are read rather than looked at, so that no second system call has to fetch them.
pub(in crate::server) async fn first_bytes(stream: &mut TcpStream) -> io::Result<BytesMut> {
    let mut arrived = BytesMut::with_capacity(READ_MIN);
    stream.read_buf(&mut arrived).await?;
    Ok(arrived)
}

/// Splits a stream from which something was read already.
pub(in crate::server) fn split(stream: TcpStream, arrived: BytesMut) -> (TcpReadHalf, TcpWriteHalf) {
    let (reader, writer) = stream.into_split();
    let is_rewound = !arrived.is_empty();
    let reader = TcpReadHalf { socket: reader, buffer: arrived, is_rewound, read_size: READ_MIN };
    (reader, TcpWriteHalf { socket: writer, buffer: Vec::new(), written: 0 })
}

/// Reads and forgets until the peer ends or fails.
pub(in crate::server) async fn discard(socket: &mut (impl AsyncReadExt + Unpin)) {
    let mut scratch = [0; READ_MIN];
    while socket.read(&mut scratch).await.is_ok_and(|read| read > 0) {}
}

/// Reads with a buffer that grows with what arrives and goes when nothing is in it.
pub(in crate::server) struct TcpReadHalf {
    socket: OwnedReadHalf,
    pub(super) buffer: BytesMut,
    /// `buffer` has what came before the stream was split, and nobody was told yet.
    is_rewound: bool,
    read_size: usize,
}

impl ReadHalf for TcpReadHalf {
    const FRAMING: Framing = Framing::Stream;

    async fn read(&mut self) -> io::Result<bool> {
        if std::mem::take(&mut self.is_rewound) {
            return Ok(true);
        }
        if self.buffer.is_empty() {
            if self.read_size == READ_MIN {
                // A quiet connection keeps no buffer: wait first, then make room.
                self.buffer = BytesMut::new();
            }
            // The registration that belongs to the one task that reads; `readable` would add a waiter to a list.
            poll_fn(|cx| self.socket.as_ref().poll_read_ready(cx)).await?;
        }
        self.buffer.reserve(self.read_size);
        let room = self.buffer.capacity() - self.buffer.len();
        let read = self.socket.read_buf(&mut self.buffer).await?;
        if read == room {
            self.read_size = (self.read_size * 2).min(READ_MAX);
        } else if read < self.read_size / 4 {
            self.read_size = (self.read_size / 2).max(READ_MIN);
        }
        Ok(read > 0)
    }

    async fn discard(&mut self) {
        discard(&mut self.socket).await;
    }

    fn rest(&mut self) {
        if self.buffer.is_empty() {
            self.buffer = BytesMut::new();
            self.read_size = READ_MIN;
        }
    }

    fn hand_over(&mut self, connection: &mut Connection, now: Duration) -> Result<(), ConnectionError> {
        connection.handle_input(now, &mut self.buffer)
    }
}

/// Sends what the end of the stream follows at once: the system keeps it for so long, and both are one segment.
#[cfg(target_os = "linux")]
fn send_before_end(stream: &TcpStream, bytes: &[u8]) -> io::Result<usize> {
    use rustix::net::{SendFlags, send};
    Ok(send(stream, bytes, SendFlags::MORE | SendFlags::NOSIGNAL)?)
}

/// Elsewhere the two are sent one after the other.
#[cfg(not(target_os = "linux"))]
fn send_before_end(stream: &TcpStream, bytes: &[u8]) -> io::Result<usize> {
    socket2::SockRef::from(stream).send(bytes)
}

/// Writes from one buffer: 0 <= `written` <= `buffer.len()`.
pub(in crate::server) struct TcpWriteHalf {
    socket: OwnedWriteHalf,
    pub(super) buffer: Vec<u8>,
    written: usize,
}

impl WriteHalf for TcpWriteHalf {
    fn take(&mut self, connection: &mut Connection, now: Duration) {
        while self.buffer.len() < WRITE_BATCH && connection.poll_transmit(now, &mut self.buffer) {}
    }

    fn has_output(&self) -> bool {
        self.written < self.buffer.len()
    }

    async fn write(&mut self) -> io::Result<()> {
        let written = self.socket.write(&self.buffer[self.written..]).await?;
        if written == 0 {
            return Err(io::ErrorKind::WriteZero.into());
        }
        self.written += written;
        if self.written == self.buffer.len() {
            self.written = 0;
            self.buffer.clear();
        }
        Ok(())
    }

    fn rest(&mut self) {
        if self.buffer.is_empty() {
            self.buffer = Vec::new();
        }
    }

    async fn finish(&mut self) -> io::Result<()> {
        while self.has_output() {
            let (stream, waiting) = (self.socket.as_ref(), &self.buffer[self.written..]);
            self.written += stream.async_io(Interest::WRITABLE, || send_before_end(stream, waiting)).await?;
        }
        self.socket.shutdown().await
    }
}

#[cfg(test)]
mod tests {
    use super::*;
    use tokio::net::TcpListener;

    async fn pair() -> (TcpStream, TcpStream) {
        let listener = TcpListener::bind("127.0.0.1:0").await.unwrap();
        let peer = TcpStream::connect(listener.local_addr().unwrap()).await.unwrap();
        (listener.accept().await.unwrap().0, peer)
    }

    #[tokio::test]
    async fn what_came_before_the_split_is_read_once_and_first() {
        let (mut stream, mut peer) = pair().await;
        peer.write_all(b"first").await.unwrap();
        let arrived = first_bytes(&mut stream).await.unwrap();
        assert_eq!(arrived, b"first"[..]);
        let (mut reader, _writer) = split(stream, arrived);
        assert!(reader.read().await.unwrap());
        assert_eq!(reader.buffer, b"first"[..]);
        peer.write_all(b" then").await.unwrap();
        assert!(reader.read().await.unwrap());
        assert_eq!(reader.buffer, b"first then"[..]);
        drop(peer);
        assert!(!reader.read().await.unwrap());
    }

    #[tokio::test]
    async fn everything_that_waits_arrives_before_the_end() {
        // The longer one is more than the system takes before the peer reads.
        for length in [0, 5, 16 << 20] {
            let (stream, mut peer) = pair().await;
            let (_reader, mut writer) = split(stream, BytesMut::new());
            writer.buffer = (0..=u8::MAX).cycle().take(length).collect();
            let expected = writer.buffer.clone();
            let reading = tokio::spawn(async move {
                let mut all = Vec::new();
                peer.read_to_end(&mut all).await.unwrap();
                all
            });
            writer.finish().await.unwrap();
            assert!(!writer.has_output());
            assert!(reading.await.unwrap() == expected, "{length}");
        }
    }
}
