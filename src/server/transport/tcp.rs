//! Records on a TCP stream, each with its length in front.

use super::{ReadHalf, WRITE_BATCH, WriteHalf};
use crate::conn::{Connection, ConnectionError, Framing};
use bytes::BytesMut;
use std::{io, time::Duration};
use tokio::{
    io::{AsyncReadExt, AsyncWriteExt},
    net::{
        TcpStream,
        tcp::{OwnedReadHalf, OwnedWriteHalf},
    },
};

/// First read: small, because most of the memory of an idle connection is its read buffer.
const READ_MIN: usize = 512;
/// Largest read: two of the largest records, so that one that is cut in the middle is not moved for long.
const READ_MAX: usize = 128 * 1024;

/// Splits a stream.
pub(in crate::server) fn split(stream: TcpStream) -> (TcpReadHalf, TcpWriteHalf) {
    let (reader, writer) = stream.into_split();
    let reader = TcpReadHalf { socket: reader, buffer: BytesMut::new(), read_size: READ_MIN };
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
    buffer: BytesMut,
    read_size: usize,
}

impl ReadHalf for TcpReadHalf {
    const FRAMING: Framing = Framing::Stream;

    async fn read(&mut self) -> io::Result<bool> {
        if self.buffer.is_empty() {
            if self.read_size == READ_MIN {
                // A quiet connection keeps no buffer: wait first, then make room.
                self.buffer = BytesMut::new();
            }
            self.socket.readable().await?;
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

/// Writes from one buffer: 0 <= `written` <= `buffer.len()`.
pub(in crate::server) struct TcpWriteHalf {
    socket: OwnedWriteHalf,
    buffer: Vec<u8>,
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
            self.write().await?;
        }
        self.socket.shutdown().await
    }
}
