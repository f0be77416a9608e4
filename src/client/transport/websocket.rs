//! Records as binary messages of a WebSocket (RFC 6455), subprotocol `raystream.v1`, no extensions.

use super::{Io, OUTPUT_MAX};
use crate::client::ServerUrl;
use crate::client::error::ConnectReason;
use crate::conn::Connection;
use crate::wire::limits::RECORD_BODY_MAX;
use bytes::{Bytes, BytesMut};
use futures_util::{Sink, SinkExt, StreamExt};
use std::{
    collections::VecDeque,
    pin::Pin,
    task::{Context, Poll, Waker},
    time::Duration,
};
use tokio::net::TcpStream;
use tokio_tungstenite::{
    WebSocketStream, client_async_with_config,
    tungstenite::{
        ClientRequestBuilder, Error as WebSocketError, Message, http::Uri, protocol::WebSocketConfig,
    },
};

/// Names what the binary messages are.
pub(super) const SUBPROTOCOL: &str = "raystream.v1";
/// Read buffer: grows by nothing, so it is small; longer messages are gathered piece by piece.
const READ_BUFFER: usize = 8 * 1024;
/// Messages taken at once, so that a fast sender does not keep this task from everything else.
const INPUT_MESSAGES_MAX: usize = 16;

/// Makes a WebSocket of a fresh TCP connection.
pub(super) async fn upgrade(url: &ServerUrl, stream: TcpStream) -> Result<WebSocketSocket, ConnectReason> {
    let uri: Uri = format!("ws://{}{}", url.authority(), url.path())
        .parse()
        .map_err(|_| ConnectReason::WebSocket("the path is not one of a URL".to_owned()))?;
    let request = ClientRequestBuilder::new(uri).with_sub_protocol(SUBPROTOCOL);
    let config = WebSocketConfig::default()
        .read_buffer_size(READ_BUFFER)
        .max_message_size(Some(RECORD_BODY_MAX))
        .max_frame_size(Some(RECORD_BODY_MAX));
    let (stream, _) = client_async_with_config(request, stream, Some(config)).await.map_err(|error| {
        // Words of the library and the status: nothing that the other end wrote.
        ConnectReason::WebSocket(error.to_string())
    })?;
    Ok(WebSocketSocket {
        stream,
        input: VecDeque::new(),
        output: VecDeque::new(),
        output_bytes: 0,
        must_flush: false,
        is_deaf: false,
    })
}

/// A WebSocket with the messages on their way.
pub(in crate::client) struct WebSocketSocket {
    stream: WebSocketStream<TcpStream>,
    input: VecDeque<Bytes>,
    output: VecDeque<Bytes>,
    output_bytes: usize,
    /// Messages were handed over that the transport may not have taken.
    must_flush: bool,
    is_deaf: bool,
}

impl WebSocketSocket {
    pub(super) fn has_output(&self) -> bool {
        self.must_flush || !self.output.is_empty()
    }

    pub(super) fn fill(&mut self, connection: &mut Connection, now: Duration) -> bool {
        while self.output_bytes < OUTPUT_MAX {
            let mut body = Vec::new();
            if !connection.poll_transmit(now, &mut body) {
                break;
            }
            self.output_bytes += body.len();
            self.output.push_back(body.into());
        }
        let took_all = self.output_bytes < OUTPUT_MAX;
        if self.is_deaf {
            self.output.clear();
            self.output_bytes = 0;
        }
        took_all
    }

    pub(super) fn poll_io(&mut self, context: &mut Context<'_>) -> Poll<Io> {
        let mut io = Io::default();
        if self.poll_write(context, &mut io).is_err() {
            self.fall_deaf();
        }
        while self.input.len() < INPUT_MESSAGES_MAX && !io.eof {
            match self.stream.poll_next_unpin(context) {
                Poll::Ready(Some(Ok(Message::Binary(body)))) => {
                    self.input.push_back(body);
                    io.read = true;
                }
                // The library answers pings; a close frame is followed by the end of the stream.
                Poll::Ready(Some(Ok(Message::Ping(_) | Message::Pong(_) | Message::Close(_)))) => {}
                // A text message is none of ours, and an error is the end.
                Poll::Ready(Some(Ok(Message::Text(_) | Message::Frame(_)) | Err(_)) | None) => io.eof = true,
                Poll::Pending => break,
            }
        }
        if io == Io::default() { Poll::Pending } else { Poll::Ready(io) }
    }

    /// Writes what the transport takes; says whether that was anything. Nobody is woken by it: what is left, the task asks
    /// for again, and it meets an error again.
    pub(super) fn try_write(&mut self) -> bool {
        let mut io = Io::default();
        // Before an error something may have left.
        let _met_again = self.poll_write(&mut Context::from_waker(Waker::noop()), &mut io);
        io.wrote
    }

    fn poll_write(&mut self, context: &mut Context<'_>, io: &mut Io) -> Result<(), WebSocketError> {
        while !self.output.is_empty() {
            match Pin::new(&mut self.stream).poll_ready(context) {
                Poll::Ready(ready) => ready?,
                Poll::Pending => return Ok(()),
            }
            let Some(body) = self.output.pop_front() else { break };
            self.output_bytes -= body.len();
            io.wrote = true;
            self.must_flush = true;
            self.stream.start_send_unpin(Message::Binary(body))?;
        }
        if self.must_flush
            && let Poll::Ready(flushed) = Pin::new(&mut self.stream).poll_flush(context)
        {
            flushed?;
            self.must_flush = false;
        }
        Ok(())
    }

    fn fall_deaf(&mut self) {
        self.is_deaf = true;
        self.must_flush = false;
        self.output.clear();
        self.output_bytes = 0;
    }

    pub(super) fn deliver(&mut self, connection: &mut Connection, now: Duration) {
        while let Some(body) = self.input.pop_front() {
            // The connection remembers its end.
            let _ = connection.handle_record(now, &mut BytesMut::from(body));
        }
    }

    pub(super) async fn finish(mut self) {
        if self.stream.close(None).await.is_ok() {
            while let Some(Ok(_)) = self.stream.next().await {}
        }
    }
}

#[cfg(test)]
mod tests {
    use super::*;
    use tokio::net::TcpListener;
    use tokio_tungstenite::tungstenite::handshake::server::{Request, Response};

    /// A WebSocket whose peer has cut the transport.
    async fn cut() -> WebSocketSocket {
        let listener = TcpListener::bind("127.0.0.1:0").await.unwrap();
        let address = listener.local_addr().unwrap();
        let url: ServerUrl = format!("raystream+ws://{}@{address}", "07".repeat(32)).parse().unwrap();
        let accept = async {
            let (stream, _) = listener.accept().await.unwrap();
            #[expect(clippy::result_large_err, reason = "the signature is the library's")]
            let with_subprotocol = |_: &Request, mut response: Response| {
                response.headers_mut().insert("sec-websocket-protocol", SUBPROTOCOL.parse().unwrap());
                Ok(response)
            };
            tokio_tungstenite::accept_hdr_async(stream, with_subprotocol).await.unwrap()
        };
        let stream = TcpStream::connect(address).await.unwrap();
        let (socket, peer) = tokio::join!(upgrade(&url, stream), accept);
        let socket = socket.unwrap();
        peer.get_ref().set_zero_linger().unwrap();
        drop(peer);
        socket.stream.get_ref().ready(tokio::io::Interest::ERROR).await.unwrap();
        socket
    }

    #[tokio::test]
    async fn what_was_handed_over_before_an_error_counts_as_written() {
        let mut socket = cut().await;
        socket.output.push_back(Bytes::from_static(b"a call"));
        socket.output_bytes = 6;
        assert!(socket.try_write(), "nobody knows how much of it left");
        assert!(socket.has_output(), "the task looks again, and meets the error");
        let io = std::future::poll_fn(|context| socket.poll_io(context)).await;
        assert!(io.eof && !socket.has_output());
    }
}
