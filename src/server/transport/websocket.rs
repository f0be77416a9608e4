//! Records in binary WebSocket messages: one message, one body.

use super::{ReadHalf, WRITE_BATCH, WriteHalf};
use crate::conn::{Connection, ConnectionError, Framing};
use axum::extract::ws::{CloseFrame, Message, WebSocket, close_code};
use bytes::Bytes;
use futures_util::{
    Sink, SinkExt, StreamExt,
    stream::{SplitSink, SplitStream},
};
use std::{collections::VecDeque, future::poll_fn, io, pin::Pin, task::ready, time::Duration};

/// Splits a socket.
pub(in crate::server) fn split(socket: WebSocket) -> (WebSocketReadHalf, WebSocketWriteHalf) {
    let (sink, stream) = socket.split();
    let reader = WebSocketReadHalf { stream, message: None };
    (reader, WebSocketWriteHalf { sink, queue: VecDeque::new(), unflushed: false })
}

/// Takes one message at a time.
pub(in crate::server) struct WebSocketReadHalf {
    stream: SplitStream<WebSocket>,
    message: Option<Bytes>,
}

impl ReadHalf for WebSocketReadHalf {
    const FRAMING: Framing = Framing::Messages;

    async fn read(&mut self) -> io::Result<bool> {
        loop {
            match self.stream.next().await {
                Some(Ok(Message::Binary(body))) => {
                    self.message = Some(body);
                    return Ok(true);
                }
                // The library answers pings by itself.
                Some(Ok(Message::Ping(_) | Message::Pong(_))) => {}
                Some(Ok(Message::Text(_))) => {
                    return Err(io::Error::new(
                        io::ErrorKind::InvalidData,
                        "a text message: records are binary",
                    ));
                }
                Some(Ok(Message::Close(_))) | None => return Ok(false),
                Some(Err(error)) => return Err(io::Error::other(error)),
            }
        }
    }

    async fn discard(&mut self) {
        while let Some(Ok(_)) = self.stream.next().await {}
    }

    fn hand_over(&mut self, connection: &mut Connection, now: Duration) -> Result<(), ConnectionError> {
        match self.message.take() {
            Some(body) => {
                let mut body = body.try_into_mut().unwrap_or_else(|shared| shared[..].into());
                connection.handle_record(now, &mut body)
            }
            None => Ok(()),
        }
    }
}

/// Queues bodies and gives them to the socket one by one.
pub(in crate::server) struct WebSocketWriteHalf {
    sink: SplitSink<WebSocket, Message>,
    queue: VecDeque<Bytes>,
    unflushed: bool,
}

impl WriteHalf for WebSocketWriteHalf {
    fn take(&mut self, connection: &mut Connection, now: Duration) {
        let mut queued: usize = self.queue.iter().map(Bytes::len).sum();
        while queued < WRITE_BATCH {
            let mut body = Vec::new();
            if !connection.poll_transmit(now, &mut body) {
                return;
            }
            queued += body.len();
            self.queue.push_back(body.into());
        }
    }

    fn has_output(&self) -> bool {
        self.unflushed || !self.queue.is_empty()
    }

    async fn write(&mut self) -> io::Result<()> {
        poll_fn(|cx| {
            let mut sink = Pin::new(&mut self.sink);
            while !self.queue.is_empty() {
                ready!(sink.as_mut().poll_ready(cx)).map_err(io::Error::other)?;
                if let Some(body) = self.queue.pop_front() {
                    sink.as_mut().start_send(Message::Binary(body)).map_err(io::Error::other)?;
                    self.unflushed = true;
                }
            }
            ready!(sink.as_mut().poll_flush(cx)).map_err(io::Error::other)?;
            self.unflushed = false;
            Ok(()).into()
        })
        .await
    }

    async fn finish(&mut self) -> io::Result<()> {
        while self.has_output() {
            self.write().await?;
        }
        let frame = CloseFrame { code: close_code::NORMAL, reason: "".into() };
        self.sink.send(Message::Close(Some(frame))).await.map_err(io::Error::other)
    }
}
