//! A TCP stream from which something was read to find out what speaks on it.

use bytes::{Buf, BytesMut};
use std::{
    io::{self, IoSlice},
    pin::Pin,
    task::{Context, Poll},
};
use tokio::{
    io::{AsyncRead, AsyncWrite, ReadBuf},
    net::TcpStream,
};

/// Gives what was read first, then what the stream gives.
pub(in crate::server) struct Rewound {
    stream: TcpStream,
    arrived: BytesMut,
}

impl Rewound {
    /// `arrived` is what was read from the stream.
    pub(in crate::server) fn new(stream: TcpStream, arrived: BytesMut) -> Self {
        Self { stream, arrived }
    }

    /// The stream, and what of it was read and not taken.
    pub(in crate::server) fn into_parts(self) -> (TcpStream, BytesMut) {
        (self.stream, self.arrived)
    }
}

impl AsyncRead for Rewound {
    fn poll_read(
        mut self: Pin<&mut Self>,
        cx: &mut Context<'_>,
        out: &mut ReadBuf<'_>,
    ) -> Poll<io::Result<()>> {
        if self.arrived.is_empty() {
            return Pin::new(&mut self.stream).poll_read(cx, out);
        }
        let length = self.arrived.len().min(out.remaining());
        out.put_slice(&self.arrived[..length]);
        self.arrived.advance(length);
        if self.arrived.is_empty() {
            // What becomes a WebSocket may be there for days.
            self.arrived = BytesMut::new();
        }
        Poll::Ready(Ok(()))
    }
}

impl AsyncWrite for Rewound {
    fn poll_write(mut self: Pin<&mut Self>, cx: &mut Context<'_>, bytes: &[u8]) -> Poll<io::Result<usize>> {
        Pin::new(&mut self.stream).poll_write(cx, bytes)
    }

    fn poll_write_vectored(
        mut self: Pin<&mut Self>,
        cx: &mut Context<'_>,
        bytes: &[IoSlice<'_>],
    ) -> Poll<io::Result<usize>> {
        Pin::new(&mut self.stream).poll_write_vectored(cx, bytes)
    }

    fn is_write_vectored(&self) -> bool {
        self.stream.is_write_vectored()
    }

    fn poll_flush(mut self: Pin<&mut Self>, cx: &mut Context<'_>) -> Poll<io::Result<()>> {
        Pin::new(&mut self.stream).poll_flush(cx)
    }

    fn poll_shutdown(mut self: Pin<&mut Self>, cx: &mut Context<'_>) -> Poll<io::Result<()>> {
        Pin::new(&mut self.stream).poll_shutdown(cx)
    }
}

#[cfg(test)]
mod tests {
    use super::*;
    use tokio::{
        io::{AsyncReadExt, AsyncWriteExt},
        net::TcpListener,
    };

    #[tokio::test]
    async fn what_was_read_comes_first_however_it_is_asked_for() {
        for room in [1, 3, 64] {
            let listener = TcpListener::bind("127.0.0.1:0").await.unwrap();
            let mut peer = TcpStream::connect(listener.local_addr().unwrap()).await.unwrap();
            peer.write_all(b" /health").await.unwrap();
            peer.shutdown().await.unwrap();
            let (stream, _) = listener.accept().await.unwrap();
            let mut stream = Rewound::new(stream, BytesMut::from(&b"GET"[..]));
            let mut all = Vec::new();
            loop {
                let mut part = vec![0; room];
                match stream.read(&mut part).await.unwrap() {
                    0 => break,
                    read => all.extend_from_slice(&part[..read]),
                }
            }
            assert_eq!(all, b"GET /health");
            stream.write_all(b"ok").await.unwrap();
            stream.shutdown().await.unwrap();
            let mut answer = Vec::new();
            peer.read_to_end(&mut answer).await.unwrap();
            assert_eq!(answer, b"ok");
        }
    }
}
