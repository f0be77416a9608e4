//! tungstenite over TLS: what a WebSocket service is made of without raystream.

use futures_util::{SinkExt, StreamExt};
use std::time::Instant;
use tokio_tungstenite::tungstenite::{Message, protocol::WebSocketConfig};

use crate::{
    Failure,
    meter::Meter,
    pipeline::{self, Stream},
    spec::Spec,
};

/// Read buffers of the size that raystream gives its own.
fn config() -> WebSocketConfig {
    WebSocketConfig::default().read_buffer_size(4 * 1024)
}

pub(crate) async fn serve<S: Stream>(stream: S) -> Result<(), Failure> {
    let mut socket = tokio_tungstenite::accept_async_with_config(stream, Some(config())).await?;
    while let Some(message) = socket.next().await {
        match message? {
            Message::Binary(body) => socket.send(Message::Binary(body)).await?,
            Message::Close(_) => return Ok(()),
            _ => {}
        }
    }
    Ok(())
}

/// One message at a time, for ever.
pub(crate) async fn drive(spec: Spec, meter: Meter) -> Result<(), Failure> {
    let stream = pipeline::connect(&spec).await?;
    let (mut socket, _) =
        tokio_tungstenite::client_async_with_config("ws://localhost/", stream, Some(config())).await?;
    let body = bytes::Bytes::from(vec![b'x'; spec.payload]);
    loop {
        let begin = Instant::now();
        socket.send(Message::Binary(body.clone())).await?;
        socket.next().await.ok_or("the peer hung up")??;
        meter.time(begin);
    }
}
