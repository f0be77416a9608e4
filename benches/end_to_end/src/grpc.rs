//! tonic over TLS, its payload plain bytes: no time goes into Protocol Buffers.

use bytes::{Buf, BufMut, Bytes};
use http::uri::PathAndQuery;
use std::{
    convert::Infallible,
    fs,
    future::{Ready, ready},
    path::Path,
    pin::Pin,
    task::{Context, Poll},
    time::Instant,
};
use tokio::{net::TcpListener, sync::mpsc};
use tokio_stream::{
    StreamExt,
    wrappers::{ReceiverStream, TcpListenerStream},
};
use tonic::{
    Request, Response, Status, Streaming,
    body::Body,
    client,
    codec::{Codec, DecodeBuf, Decoder, EncodeBuf, Encoder},
    server::{self, NamedService, StreamingService, UnaryService},
    transport::{Certificate, Channel, ClientTlsConfig, Endpoint, Identity, Server, ServerTlsConfig},
};

use crate::{Failure, meter::Meter, spec::Spec, tls};

/// Bytes as they are.
#[derive(Clone, Copy, Default)]
struct Plain;

impl Codec for Plain {
    type Encode = Bytes;
    type Decode = Bytes;
    type Encoder = Self;
    type Decoder = Self;

    fn encoder(&mut self) -> Self {
        Self
    }

    fn decoder(&mut self) -> Self {
        Self
    }
}

impl Encoder for Plain {
    type Item = Bytes;
    type Error = Status;

    fn encode(&mut self, item: Bytes, out: &mut EncodeBuf<'_>) -> Result<(), Status> {
        out.put(item);
        Ok(())
    }
}

impl Decoder for Plain {
    type Item = Bytes;
    type Error = Status;

    fn decode(&mut self, input: &mut DecodeBuf<'_>) -> Result<Option<Bytes>, Status> {
        Ok(Some(input.copy_to_bytes(input.remaining())))
    }
}

/// What tonic's code generator would write.
#[derive(Clone)]
struct Echo;

impl NamedService for Echo {
    const NAME: &'static str = "bench.Echo";
}

impl UnaryService<Bytes> for Echo {
    type Response = Bytes;
    type Future = Ready<Result<Response<Bytes>, Status>>;

    fn call(&mut self, request: Request<Bytes>) -> Self::Future {
        ready(Ok(Response::new(request.into_inner())))
    }
}

impl StreamingService<Bytes> for Echo {
    type Response = Bytes;
    type ResponseStream = Streaming<Bytes>;
    type Future = Ready<Result<Response<Streaming<Bytes>>, Status>>;

    fn call(&mut self, request: Request<Streaming<Bytes>>) -> Self::Future {
        ready(Ok(Response::new(request.into_inner())))
    }
}

impl tower_service::Service<http::Request<Body>> for Echo {
    type Response = http::Response<Body>;
    type Error = Infallible;
    type Future = Pin<Box<dyn Future<Output = Result<Self::Response, Infallible>> + Send>>;

    fn poll_ready(&mut self, _: &mut Context<'_>) -> Poll<Result<(), Infallible>> {
        Poll::Ready(Ok(()))
    }

    fn call(&mut self, request: http::Request<Body>) -> Self::Future {
        Box::pin(async move {
            let mut grpc = server::Grpc::new(Plain);
            Ok(match request.uri().path() {
                "/bench.Echo/Stream" => grpc.streaming(Self, request).await,
                _ => grpc.unary(Self, request).await,
            })
        })
    }
}

pub(crate) async fn serve(listener: TcpListener, folder: &Path) -> Result<(), Failure> {
    let (certificate, key) = (fs::read(folder.join(tls::CERTIFICATE))?, fs::read(folder.join(tls::KEY))?);
    let config = ServerTlsConfig::new().identity(Identity::from_pem(certificate, key));
    let incoming = TcpListenerStream::new(listener).map(|stream| {
        stream.and_then(|stream| {
            stream.set_nodelay(true)?;
            Ok(stream)
        })
    });
    Server::builder().tls_config(config)?.add_service(Echo).serve_with_incoming(incoming).await?;
    Ok(())
}

pub(crate) async fn connect(spec: &Spec) -> Result<Channel, Failure> {
    let certificate = fs::read(Path::new(&spec.folder).join(tls::CERTIFICATE))?;
    let config =
        ClientTlsConfig::new().ca_certificate(Certificate::from_pem(certificate)).domain_name(tls::NAME);
    let endpoint = Endpoint::from_shared(format!("https://{}", spec.address()?))?.tcp_nodelay(true);
    Ok(endpoint.tls_config(config)?.connect().await?)
}

/// One unary call.
pub(crate) async fn call(grpc: &mut client::Grpc<Channel>, payload: Bytes) -> Result<(), Failure> {
    grpc.ready().await?;
    let path = PathAndQuery::from_static("/bench.Echo/Unary");
    let answer: Response<Bytes> = grpc.unary(Request::new(payload), path, Plain).await?;
    answer.into_inner();
    Ok(())
}

/// Unary calls for ever: one of those in flight on a channel.
pub(crate) async fn drive(channel: Channel, spec: Spec, meter: Meter) -> Result<(), Failure> {
    let mut grpc = client::Grpc::new(channel);
    let payload = Bytes::from(vec![b'x'; spec.payload]);
    loop {
        let begin = Instant::now();
        call(&mut grpc, payload.clone()).await?;
        meter.time(begin);
    }
}

/// Messages on one stream both ways, for ever.
pub(crate) async fn drive_stream(channel: Channel, spec: Spec, meter: Meter) -> Result<(), Failure> {
    let mut grpc = client::Grpc::new(channel);
    grpc.ready().await?;
    let payload = Bytes::from(vec![b'x'; spec.payload]);
    let (sender, receiver) = mpsc::channel(spec.in_flight);
    let path = PathAndQuery::from_static("/bench.Echo/Stream");
    for _ in 0..spec.in_flight {
        sender.send(payload.clone()).await?;
    }
    let mut begin = Instant::now();
    let answer = grpc.streaming(Request::new(ReceiverStream::new(receiver)), path, Plain).await?;
    let mut answers: Streaming<Bytes> = answer.into_inner();
    while let Some(message) = answers.next().await {
        message?;
        meter.time(begin);
        begin = Instant::now();
        sender.send(payload.clone()).await?;
    }
    Err("the stream ended".into())
}
