//! Records as binary messages of a WebSocket (RFC 6455), subprotocol `raystream.v1`, no extensions.

use super::{Io, tcp::TcpSocket};
use crate::client::ServerUrl;
use crate::client::error::ConnectReason;
use crate::conn::Connection;
use crate::wire::websocket::{
    Decoder, Received, SUBPROTOCOL, Sender, append_close, append_message, append_pong, close_code,
};
use bytes::{Buf, Bytes, BytesMut};
use std::{
    future::poll_fn,
    io,
    pin::Pin,
    task::{Context, Poll, ready},
    time::Duration,
};
use tokio::{
    io::{AsyncRead, AsyncWrite, ReadBuf},
    net::TcpStream,
};
use tokio_tungstenite::{
    client_async_with_config,
    tungstenite::{ClientRequestBuilder, http::Uri},
};

/// Makes a WebSocket of a fresh TCP connection.
pub(super) async fn upgrade(url: &ServerUrl, stream: TcpStream) -> Result<WebSocketSocket, ConnectReason> {
    let uri: Uri = format!("ws://{}{}", url.authority(), url.path())
        .parse()
        .map_err(|_| ConnectReason::WebSocket("the path is not one of a URL".to_owned()))?;
    let request = ClientRequestBuilder::new(uri).with_sub_protocol(SUBPROTOCOL);
    let stream = Upgrading { stream, line: Line::Begun, behind: BytesMut::new() };
    let (upgraded, _) = client_async_with_config(request, stream, None).await.map_err(|error| {
        // Words of the library and the status: nothing that the other end wrote.
        ConnectReason::WebSocket(error.to_string())
    })?;
    let Upgrading { stream, behind, .. } = upgraded.into_inner();
    Ok(WebSocketSocket {
        tcp: TcpSocket::new(stream, behind),
        decoder: Decoder::new(Sender::Server),
        masks: Masks::default(),
        pong: None,
        close: None,
    })
}

/// A stream on which the head of an HTTP response arrives, and keeps what comes behind the head.
struct Upgrading {
    stream: TcpStream,
    line: Line,
    behind: BytesMut,
}

/// Where in the head of a response the bytes have come to.
#[derive(Clone, Copy, PartialEq, Eq)]
enum Line {
    Begun,
    /// Behind the end of a line.
    Ended,
    /// Behind the end of a line and the first byte of another.
    EndsAgain,
    /// Behind an empty line.
    Empty,
}

/// How many of these bytes belong to the head, which came to `line` before them.
fn head_len(line: &mut Line, bytes: &[u8]) -> usize {
    let end = bytes.iter().position(|byte| {
        *line = match (byte, *line) {
            (b'\n', Line::Begun) => Line::Ended,
            (b'\n', _) => Line::Empty,
            (b'\r', Line::Ended) => Line::EndsAgain,
            _ => Line::Begun,
        };
        *line == Line::Empty
    });
    end.map_or(bytes.len(), |at| at + 1)
}

impl AsyncRead for Upgrading {
    fn poll_read(
        mut self: Pin<&mut Self>,
        context: &mut Context<'_>,
        out: &mut ReadBuf<'_>,
    ) -> Poll<io::Result<()>> {
        let this = &mut *self;
        if this.line == Line::Empty {
            return Poll::Ready(Ok(()));
        }
        let from = out.filled().len();
        ready!(Pin::new(&mut this.stream).poll_read(context, out))?;
        let end = from + head_len(&mut this.line, &out.filled()[from..]);
        this.behind.extend_from_slice(&out.filled()[end..]);
        out.set_filled(end);
        Poll::Ready(Ok(()))
    }
}

impl AsyncWrite for Upgrading {
    fn poll_write(
        mut self: Pin<&mut Self>,
        context: &mut Context<'_>,
        bytes: &[u8],
    ) -> Poll<io::Result<usize>> {
        Pin::new(&mut self.stream).poll_write(context, bytes)
    }

    fn poll_flush(mut self: Pin<&mut Self>, context: &mut Context<'_>) -> Poll<io::Result<()>> {
        Pin::new(&mut self.stream).poll_flush(context)
    }

    fn poll_shutdown(mut self: Pin<&mut Self>, context: &mut Context<'_>) -> Poll<io::Result<()>> {
        Pin::new(&mut self.stream).poll_shutdown(context)
    }
}

/// Keys of a client's frames: from the system's generator, so that nobody can foresee one (RFC 6455, section 5.3).
#[derive(Default)]
struct Masks {
    /// Asked for together, because each question is a system call.
    pool: [[u8; 4]; 32],
    /// The first `left` of `pool` have not been used.
    left: usize,
}

impl Masks {
    /// The key of the next frame: the same until [`use_up`](Self::use_up).
    fn peek(&mut self) -> Result<[u8; 4], getrandom::Error> {
        if self.left == 0 {
            getrandom::fill(self.pool.as_flattened_mut())?;
            self.left = self.pool.len();
        }
        Ok(self.pool[self.left - 1])
    }

    fn use_up(&mut self) {
        self.left = self.left.saturating_sub(1);
    }
}

/// A WebSocket with the bytes on their way.
pub(in crate::client) struct WebSocketSocket {
    tcp: TcpSocket,
    decoder: Decoder,
    masks: Masks,
    /// The payload of the latest ping, which waits for room as records do.
    pong: Option<Bytes>,
    /// Nothing more is taken: the server said so, or broke the protocol. What the close frame of this side says to it.
    close: Option<Option<u16>>,
}

impl WebSocketSocket {
    pub(super) fn has_output(&self) -> bool {
        self.tcp.has_output()
    }

    pub(super) fn fill(&mut self, connection: &mut Connection, now: Duration) -> bool {
        let Self { tcp, masks, pong, .. } = self;
        tcp.fill_by(|output| {
            // Without randomness nothing can be sent, and silence ends the connection.
            let Ok(mask) = masks.peek() else { return false };
            let is_appended = match pong.take() {
                Some(payload) => {
                    append_pong(output, Some(mask), &payload);
                    true
                }
                None => append_message(output, Some(mask), |output| connection.poll_transmit(now, output)),
            };
            if is_appended {
                masks.use_up();
            }
            is_appended
        })
    }

    pub(super) fn poll_io(&mut self, context: &mut Context<'_>) -> Poll<Io> {
        match self.tcp.poll_io(context) {
            Poll::Ready(io) => Poll::Ready(Io { eof: io.eof || self.close.is_some(), ..io }),
            Poll::Pending if self.close.is_some() => Poll::Ready(Io { eof: true, ..Io::default() }),
            Poll::Pending => Poll::Pending,
        }
    }

    pub(super) fn try_write(&mut self) -> bool {
        self.tcp.try_write()
    }

    pub(super) fn deliver(&mut self, connection: &mut Connection, now: Duration) {
        while self.close.is_none() {
            let used = match self.decoder.decode(&mut self.tcp.input, connection.record_body_max()) {
                Ok(Some((used, received))) => {
                    match received {
                        // The connection remembers its end.
                        Received::Message(body) => drop(connection.handle_record(now, body)),
                        Received::Fragment | Received::Pong => {}
                        // Of several the latest is enough (RFC 6455, section 5.5.3).
                        Received::Ping(payload) => self.pong = Some(Bytes::copy_from_slice(payload)),
                        Received::Close(code) => self.close = Some(code),
                    }
                    used
                }
                Ok(None) => return,
                Err(error) => {
                    self.close = Some(Some(error.close_code()));
                    break;
                }
            };
            self.tcp.input.advance(used);
        }
        self.tcp.input.clear();
    }

    pub(super) async fn finish(mut self) {
        // What still waits is not to be sent, and a close frame cannot overtake it.
        if !self.tcp.has_output()
            && let Ok(mask) = self.masks.peek()
        {
            let code = self.close.unwrap_or(Some(close_code::NORMAL));
            self.tcp.append(|output| append_close(output, Some(mask), code));
            poll_fn(|context| {
                self.tcp.poll_write(context);
                if self.tcp.has_output() { Poll::Pending } else { Poll::Ready(()) }
            })
            .await;
        }
        self.tcp.finish().await;
    }
}

#[cfg(test)]
mod tests {
    use super::*;
    use crate::conn::{ClientConfig, ConnectionError, Entropy, Framing, Limits};
    use crate::noise::{StaticSecret, rust_crypto};
    use crate::wire::{ErrorCode, Suite};
    use std::sync::Arc;
    use tokio::{
        io::{AsyncReadExt, AsyncWriteExt},
        net::TcpListener,
    };

    /// The server of a WebSocket: grants the upgrade, and says so much behind it at once, in pieces of so many bytes.
    async fn server(listener: TcpListener, behind: &[u8], piece: usize) -> TcpStream {
        let (mut stream, _) = listener.accept().await.unwrap();
        stream.set_nodelay(true).unwrap();
        let mut request = Vec::new();
        while !request.ends_with(b"\r\n\r\n") {
            request.push(stream.read_u8().await.unwrap());
        }
        let request = String::from_utf8(request).unwrap();
        let key = request.lines().find_map(|line| line.strip_prefix("Sec-WebSocket-Key: ")).unwrap();
        let accept = tokio_tungstenite::tungstenite::handshake::derive_accept_key(key.as_bytes());
        let head = format!(
            "HTTP/1.1 101 Switching Protocols\r\nConnection: upgrade\r\nUpgrade: websocket\r\n\
             Sec-WebSocket-Accept: {accept}\r\nSec-WebSocket-Protocol: {SUBPROTOCOL}\r\n\r\n"
        );
        for piece in [head.as_bytes(), behind].concat().chunks(piece) {
            stream.write_all(piece).await.unwrap();
            tokio::task::yield_now().await;
        }
        stream
    }

    async fn connected(behind: &[u8], piece: usize) -> (WebSocketSocket, TcpStream) {
        let listener = TcpListener::bind("127.0.0.1:0").await.unwrap();
        let address = listener.local_addr().unwrap();
        let url: ServerUrl = format!("raystream+ws://{}@{address}", "07".repeat(32)).parse().unwrap();
        let stream = TcpStream::connect(address).await.unwrap();
        let (socket, peer) = tokio::join!(upgrade(&url, stream), server(listener, behind, piece));
        (socket.unwrap(), peer)
    }

    /// A refusal and the end of the stream, in one read with the response: the client hears why.
    #[tokio::test]
    async fn what_comes_behind_the_response_is_told() {
        let [high, low] = ErrorCode::GOING_AWAY.0.to_be_bytes();
        let behind = [0x82, 3, 0xff, high, low, 0x88, 2, 0x03, 0xe8];
        for piece in [30, 64, 4_096] {
            let (mut socket, mut peer) = connected(&behind, piece).await;
            peer.shutdown().await.unwrap();
            let mut connection = connection();
            socket.fill(&mut connection, Duration::ZERO);
            while connection.end().is_none() {
                let io = poll_fn(|context| socket.poll_io(context)).await;
                if io.read {
                    socket.deliver(&mut connection, Duration::ZERO);
                }
                if io.eof {
                    let _end = connection.handle_eof();
                }
            }
            let end = connection.end().cloned();
            assert!(matches!(end, Some(ConnectionError::Refused(ErrorCode::GOING_AWAY))), "{piece}: {end:?}");
        }
    }

    /// The client's end of a connection that has not begun.
    fn connection() -> Connection {
        let secret = StaticSecret::from_bytes([7; 32]);
        let config = ClientConfig {
            provider: rust_crypto(),
            suites: vec![Suite::NK_CHACHAPOLY],
            suite: None,
            server_key: Some(secret.public_key(rust_crypto())),
            identity: None,
            psk: None,
            limits: Limits::default(),
        };
        let entropy = Entropy { ephemeral: [1; 32], connection_id: [3; 16], server_time_ms: 5 };
        Connection::client(Arc::new(config), entropy, Framing::Messages, Duration::ZERO).unwrap()
    }

    #[test]
    fn the_head_ends_with_an_empty_line() {
        for (bytes, head) in [
            (&b"a\r\nb\r\n\r\nbehind"[..], 8),
            (b"a\nb\n\nbehind", 5),
            (b"a\n\r\nbehind", 4),
            (b"a\r\n\r\r\nb", 7),
        ] {
            let mut line = Line::Begun;
            let found = head_len(&mut line, bytes);
            assert_eq!(found, head, "{bytes:?}");
        }
    }

    #[tokio::test]
    async fn a_transport_that_is_cut_takes_nothing_more() {
        let (mut socket, peer) = connected(b"", 4_096).await;
        peer.set_zero_linger().unwrap();
        drop(peer);
        let end = poll_fn(|context| socket.poll_io(context)).await;
        assert!(end.eof);
        socket.tcp.append(|output| output.extend_from_slice(b"a call"));
        assert!(socket.has_output());
        let io = poll_fn(|context| socket.poll_io(context)).await;
        assert!(io.eof && !socket.has_output(), "deaf from here on");
    }

    #[test]
    fn no_key_of_a_frame_is_used_twice() {
        let (mut masks, mut seen) = (Masks::default(), std::collections::HashSet::new());
        for _ in 0..100 {
            let mask = masks.peek().unwrap();
            assert_eq!(mask, masks.peek().unwrap());
            masks.use_up();
            seen.insert(mask);
        }
        assert!(seen.len() > 98, "{} of 100", seen.len());
    }
}
