//! Clients of protocols whose request and answer have fixed lengths: plain echo, TLS echo, Redis. As many requests as were
//! answered go out in one write.

use std::time::Instant;
use tokio::{
    io::{AsyncRead, AsyncReadExt, AsyncWrite, AsyncWriteExt},
    net::TcpStream,
};

use crate::{Failure, meter::Meter, spec::Spec, tls};

/// Either stream.
pub(crate) trait Stream: AsyncRead + AsyncWrite + Unpin {}
impl<S: AsyncRead + AsyncWrite + Unpin> Stream for S {}

/// Request bytes, and how long its answer is.
pub(crate) struct Exchange {
    pub(crate) request: Vec<u8>,
    pub(crate) answer_len: usize,
}

impl Exchange {
    pub(crate) fn of(spec: &Spec) -> Self {
        let payload = vec![b'x'; spec.payload];
        if spec.client != "redis" {
            return Self { answer_len: payload.len(), request: payload };
        }
        let bulk = [format!("${}\r\n", payload.len()).as_bytes(), &payload, b"\r\n"].concat();
        let request = [b"*2\r\n$4\r\nECHO\r\n", &bulk[..]].concat();
        Self { request, answer_len: bulk.len() }
    }
}

/// Connects as the client's name says.
pub(crate) async fn connect(spec: &Spec) -> Result<Box<dyn Stream>, Failure> {
    let stream = TcpStream::connect(spec.address()?).await?;
    stream.set_nodelay(true)?;
    if spec.client == "raw-tcp" {
        return Ok(Box::new(stream));
    }
    let connector = tls::client(spec.folder.as_ref(), spec.aes)?;
    Ok(Box::new(connector.connect(tls::name(), stream).await?))
}

/// One request and its answer.
pub(crate) async fn exchange(stream: &mut dyn Stream, exchange: &Exchange) -> Result<(), Failure> {
    stream.write_all(&exchange.request).await?;
    stream.flush().await?;
    let mut answer = vec![0; exchange.answer_len];
    stream.read_exact(&mut answer).await?;
    Ok(())
}

/// Keeps `in_flight` requests under way for ever.
pub(crate) async fn drive(mut stream: Box<dyn Stream>, spec: Spec, meter: Meter) -> Result<(), Failure> {
    let exchange = Exchange::of(&spec);
    let many = exchange.request.repeat(spec.in_flight);
    let mut buffer = vec![0; (exchange.answer_len * spec.in_flight).clamp(512, 256 * 1024)];
    let (mut to_send, mut rest) = (spec.in_flight, 0);
    loop {
        let begin = Instant::now();
        stream.write_all(&many[..to_send * exchange.request.len()]).await?;
        stream.flush().await?;
        to_send = 0;
        while to_send == 0 {
            let read = stream.read(&mut buffer).await?;
            if read == 0 {
                return Err("the peer hung up".into());
            }
            rest += read;
            to_send = rest / exchange.answer_len;
            rest %= exchange.answer_len;
        }
        if spec.in_flight == 1 {
            meter.time(begin);
        } else {
            meter.add(to_send as u64);
        }
    }
}
