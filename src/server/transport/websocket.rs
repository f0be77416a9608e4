//! Records in binary WebSocket messages, one body in each, on a TCP stream that was upgraded.

use super::{
    ReadHalf, Reply, WRITE_BATCH, WriteHalf,
    tcp::{self, TcpReadHalf, TcpWriteHalf},
};
use crate::{
    conn::{Connection, ConnectionError, Framing},
    wire::websocket::{
        Decoder, Received, Sender, WebSocketError, append_close, append_message, append_pong, close_code,
    },
};
use bytes::{Buf, Bytes, BytesMut};
use std::{io, time::Duration};
use tokio::net::TcpStream;

/// A server's frames have no mask (RFC 6455, section 5.1).
const MASK: Option<[u8; 4]> = None;

/// Splits a stream. `arrived` is what was read of it behind the request.
pub(in crate::server) fn split(
    stream: TcpStream,
    arrived: BytesMut,
) -> (WebSocketReadHalf, WebSocketWriteHalf) {
    let (input, output) = tcp::split(stream, arrived);
    let decoder = Decoder::new(Sender::Client);
    let reader = WebSocketReadHalf { input, decoder, pong: None, close: None, end: None };
    (reader, WebSocketWriteHalf { output, pong: None, close: Some(close_code::NORMAL) })
}

/// Takes frames from what is read.
pub(in crate::server) struct WebSocketReadHalf {
    input: TcpReadHalf,
    decoder: Decoder,
    /// The payload of the latest ping.
    pong: Option<Bytes>,
    /// What the close frame of this side is to say.
    close: Option<Option<u16>>,
    /// Nothing more is taken: the peer said so, or broke the protocol.
    end: Option<Result<(), WebSocketError>>,
}

impl ReadHalf for WebSocketReadHalf {
    const FRAMING: Framing = Framing::Messages;

    async fn read(&mut self) -> io::Result<bool> {
        match self.end {
            None => self.input.read().await,
            Some(Ok(())) => Ok(false),
            Some(Err(error)) => Err(io::Error::new(io::ErrorKind::InvalidData, error)),
        }
    }

    async fn discard(&mut self) {
        self.input.discard().await;
    }

    fn rest(&mut self) {
        self.input.rest();
    }

    fn hand_over(&mut self, connection: &mut Connection, now: Duration) -> Result<(), ConnectionError> {
        while self.end.is_none() {
            let (used, handled) =
                match self.decoder.decode(&mut self.input.buffer, connection.record_body_max()) {
                    Ok(Some((used, received))) => {
                        let handled = match received {
                            Received::Message(body) => connection.handle_record(now, body),
                            Received::Fragment | Received::Pong => Ok(()),
                            // Of several the latest is enough (RFC 6455, section 5.5.3).
                            Received::Ping(payload) => {
                                self.pong = Some(Bytes::copy_from_slice(payload));
                                Ok(())
                            }
                            Received::Close(code) => {
                                self.close = Some(code);
                                self.end = Some(Ok(()));
                                Ok(())
                            }
                        };
                        (used, handled)
                    }
                    Ok(None) => return Ok(()),
                    Err(error) => {
                        self.close = Some(Some(error.close_code()));
                        self.end = Some(Err(error));
                        break;
                    }
                };
            self.input.buffer.advance(used);
            handled?;
        }
        self.input.buffer.clear();
        Ok(())
    }

    fn reply(&mut self) -> Option<Reply> {
        self.pong.take().map(Reply::Pong).or_else(|| self.close.take().map(Reply::Close))
    }
}

/// Puts each body into a frame, and what answers a control frame between two of them.
pub(in crate::server) struct WebSocketWriteHalf {
    output: TcpWriteHalf,
    /// Waits for room, as records do: a peer that pings and does not read gets the latest.
    pong: Option<Bytes>,
    /// What the close frame says. It is the last, behind all that is queued by then: there is always room to come.
    close: Option<u16>,
}

impl WriteHalf for WebSocketWriteHalf {
    fn take(&mut self, connection: &mut Connection, now: Duration) {
        let out = &mut self.output.buffer;
        if out.len() < WRITE_BATCH
            && let Some(payload) = self.pong.take()
        {
            append_pong(out, MASK, &payload);
        }
        while out.len() < WRITE_BATCH && append_message(out, MASK, |out| connection.poll_transmit(now, out)) {
        }
    }

    fn reply(&mut self, reply: Reply) {
        match reply {
            Reply::Pong(payload) => self.pong = Some(payload),
            Reply::Close(code) => self.close = code,
        }
    }

    fn has_output(&self) -> bool {
        self.output.has_output()
    }

    async fn write(&mut self) -> io::Result<()> {
        self.output.write().await
    }

    fn rest(&mut self) {
        self.output.rest();
    }

    async fn finish(&mut self) -> io::Result<()> {
        append_close(&mut self.output.buffer, MASK, self.close);
        self.output.finish().await
    }
}
