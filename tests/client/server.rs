//! A server that does what its test says.

use bytes::{Bytes, BytesMut};
use futures_util::{SinkExt, StreamExt};
use raystream::client::{Client, Options};
use raystream::conn::{Connection, ConnectionError, Entropy, Event, Framing, Limits, Peer, ServerConfig};
use raystream::noise::{Psk, PublicKey, StaticSecret, rust_crypto};
use raystream::wire::envelope::{
    Event as EventMessage, EventKind, RpcCall, RpcError, RpcResponse, Subscribe, Subscribed,
};
use raystream::wire::{ErrorCode, Suite};
use std::{io::ErrorKind, os::fd::AsFd, sync::Arc, time::Duration};
use tokio::io::{AsyncReadExt, AsyncWriteExt};
use tokio::net::{TcpListener, TcpStream};
use tokio::time::Instant;
use tokio_tungstenite::{WebSocketStream, tungstenite::Message};

/// A test that hangs is a test that fails.
const PATIENCE: Duration = Duration::from_secs(20);

pub(crate) const SECRET: [u8; 32] = [7; 32];
pub(crate) const PSK: [u8; 32] = [8; 32];

pub(crate) fn public(secret: [u8; 32]) -> PublicKey {
    StaticSecret::from_bytes(secret).public_key(rust_crypto())
}

pub(crate) fn config() -> ServerConfig {
    ServerConfig {
        provider: rust_crypto(),
        identities: vec![StaticSecret::from_bytes(SECRET)],
        suites: Suite::ALL.to_vec(),
        psk: Some(Psk::from_bytes(PSK)),
        limits: Limits::default(),
    }
}

pub(crate) struct Server {
    listener: TcpListener,
    pub(crate) config: Arc<ServerConfig>,
}

impl Server {
    pub(crate) async fn start(config: ServerConfig) -> Self {
        Self { listener: TcpListener::bind("127.0.0.1:0").await.unwrap(), config: Arc::new(config) }
    }

    pub(crate) fn port(&self) -> u16 {
        self.listener.local_addr().unwrap().port()
    }

    pub(crate) fn url(&self) -> String {
        format!("raystream://{}@127.0.0.1:{}", public(SECRET), self.port())
    }

    pub(crate) async fn accept_raw(&self) -> TcpStream {
        within(self.listener.accept()).await.unwrap().0
    }

    /// The next connection, up to and including its handshake.
    pub(crate) async fn accept(&self) -> Session {
        self.accept_with(Arc::clone(&self.config)).await.unwrap()
    }

    pub(crate) async fn accept_with(&self, config: Arc<ServerConfig>) -> Result<Session, ConnectionError> {
        let stream = self.accept_raw().await;
        Session::start(Wire::Tcp(stream), Framing::Stream, config).await
    }

    pub(crate) async fn accept_websocket(&self) -> Session {
        use tokio_tungstenite::tungstenite::handshake::server::{Request, Response};
        let stream = self.accept_raw().await;
        #[expect(clippy::result_large_err, reason = "the signature is the library's")]
        let with_subprotocol = |request: &Request, mut response: Response| {
            assert_eq!(request.uri().path(), "/raystream");
            assert_eq!(request.headers()["sec-websocket-protocol"], "raystream.v1");
            assert!(request.headers().get("sec-websocket-extensions").is_none());
            response.headers_mut().insert("sec-websocket-protocol", "raystream.v1".parse().unwrap());
            Ok(response)
        };
        let stream = tokio_tungstenite::accept_hdr_async(stream, with_subprotocol).await.unwrap();
        let wire = Wire::WebSocket(Box::new(stream));
        Session::start(wire, Framing::Messages, Arc::clone(&self.config)).await.unwrap()
    }

    /// A client and the server's end of its first connection.
    pub(crate) async fn connect(&self) -> (Client, Session) {
        self.connect_with(Options::default()).await
    }

    pub(crate) async fn connect_with(&self, options: Options) -> (Client, Session) {
        let url = self.url();
        let (client, session) = tokio::join!(Client::connect(&url, options), self.accept());
        (client.unwrap(), session)
    }

    /// Frees the port, and takes it again later.
    pub(crate) fn stop(self) -> (u16, Arc<ServerConfig>) {
        (self.port(), self.config)
    }

    pub(crate) async fn restart((port, config): (u16, Arc<ServerConfig>)) -> Self {
        let socket = tokio::net::TcpSocket::new_v4().unwrap();
        socket.set_reuseaddr(true).unwrap();
        socket.bind(([127, 0, 0, 1], port).into()).unwrap();
        Self { listener: socket.listen(16).unwrap(), config }
    }
}

enum Wire {
    Tcp(TcpStream),
    WebSocket(Box<WebSocketStream<TcpStream>>),
}

/// The server's end of one connection.
pub(crate) struct Session {
    wire: Wire,
    pub(crate) connection: Connection,
    pub(crate) peer: Peer,
    input: BytesMut,
    started: Instant,
}

impl Session {
    async fn start(wire: Wire, framing: Framing, config: Arc<ServerConfig>) -> Result<Self, ConnectionError> {
        let entropy = Entropy { ephemeral: [9; 32], connection_id: [3; 16], server_time_ms: 5 };
        let connection = Connection::server(config, entropy, framing, Duration::ZERO).unwrap();
        let peer = Peer { key: None, suite: Suite(0), handshake_hash: [0; 32], connection_id: [0; 16] };
        let mut session = Self { wire, connection, peer, input: BytesMut::new(), started: Instant::now() };
        match session.next().await? {
            Event::Established(peer) => session.peer = peer,
            other => panic!("{other:?} before the connection is established"),
        }
        Ok(session)
    }

    fn now(&self) -> Duration {
        self.started.elapsed()
    }

    /// Sends what is ready.
    pub(crate) async fn flush(&mut self) {
        let now = self.now();
        loop {
            let mut out = Vec::new();
            if !self.connection.poll_transmit(now, &mut out) {
                return;
            }
            match &mut self.wire {
                Wire::Tcp(stream) => stream.write_all(&out).await.unwrap(),
                Wire::WebSocket(stream) => stream.send(Message::Binary(out.into())).await.unwrap(),
            }
        }
    }

    /// The next event, or the end of the connection.
    pub(crate) async fn next(&mut self) -> Result<Event, ConnectionError> {
        within(self.wait()).await
    }

    async fn wait(&mut self) -> Result<Event, ConnectionError> {
        loop {
            if let Some(event) = self.connection.poll_event() {
                return Ok(event);
            }
            self.flush().await;
            if let Some(end) = self.connection.end() {
                return Err(end.clone());
            }
            let now = self.now();
            let _ = match &mut self.wire {
                Wire::Tcp(stream) => match stream.read_buf(&mut self.input).await {
                    Ok(0) | Err(_) => self.connection.handle_eof(),
                    Ok(_) => self.connection.handle_input(now, &mut self.input),
                },
                Wire::WebSocket(stream) => match stream.next().await {
                    Some(Ok(Message::Binary(body))) => {
                        self.connection.handle_record(now, &mut BytesMut::from(body))
                    }
                    Some(Ok(_)) => Ok(()),
                    None | Some(Err(_)) => self.connection.handle_eof(),
                },
            };
        }
    }

    /// The next call.
    pub(crate) async fn call(&mut self) -> (u32, RpcCall) {
        match self.next().await {
            Ok(Event::Call(stream, call)) => (stream, call),
            other => panic!("{other:?} instead of a call"),
        }
    }

    pub(crate) async fn respond(&mut self, stream: u32, result: &str) {
        let response = RpcResponse { result: Bytes::from(result.to_owned()), ..RpcResponse::default() };
        self.connection.respond(stream, &response).unwrap();
        self.flush().await;
    }

    /// Answers the next call with its own arguments.
    pub(crate) async fn echo(&mut self) -> RpcCall {
        let (stream, call) = self.call().await;
        let response = RpcResponse { result: call.args.clone(), ..RpcResponse::default() };
        self.connection.respond(stream, &response).unwrap();
        self.flush().await;
        call
    }

    /// The next subscription.
    pub(crate) async fn subscription(&mut self) -> (u32, Subscribe) {
        match self.next().await {
            Ok(Event::Subscribe(stream, subscribe)) => (stream, subscribe),
            other => panic!("{other:?} instead of a subscription"),
        }
    }

    pub(crate) async fn subscribed(&mut self, stream: u32, cursor: &str, snapshot_end: bool) {
        let subscribed = Subscribed { cursor: cursor.to_owned(), snapshot_end };
        self.connection.send_subscribed(stream, &subscribed).unwrap();
        self.flush().await;
    }

    /// Sends one item whose id and cursor are the same.
    pub(crate) async fn item(&mut self, stream: u32, kind: EventKind, id: &str) {
        let event = EventMessage {
            cursor: id.to_owned(),
            kind,
            id: id.to_owned(),
            data: Some(Bytes::from_static(b"{}")),
            old: None,
            version: 1,
            dropped: 0,
            omitted: 0,
            lag: 0,
        };
        self.connection.send_event(stream, &event).unwrap();
        self.flush().await;
    }

    pub(crate) async fn end_subscription(&mut self, stream: u32, code: ErrorCode) {
        self.connection.end_subscription(stream, &rpc_error(code)).unwrap();
        self.flush().await;
    }

    pub(crate) async fn close(&mut self, code: ErrorCode) {
        self.connection.close(code, "because");
        self.flush().await;
    }

    /// The end of the connection, whatever comes before it.
    pub(crate) async fn end(&mut self) -> ConnectionError {
        loop {
            if let Err(end) = self.next().await {
                return end;
            }
        }
    }

    /// Bytes that have arrived and are not read; waits until there are some, and lets nothing else on this thread go on.
    pub(crate) fn arrived(&self) -> usize {
        let Wire::Tcp(stream) = &self.wire else { panic!("messages cannot be looked at") };
        let stream = std::net::TcpStream::from(stream.as_fd().try_clone_to_owned().unwrap());
        let begun = Instant::now();
        loop {
            match stream.peek(&mut [0; 65_536]) {
                Ok(len) => return len,
                Err(error) if error.kind() == ErrorKind::WouldBlock && begun.elapsed() < PATIENCE => {
                    std::thread::sleep(Duration::from_millis(1));
                }
                Err(error) => panic!("{error}"),
            }
        }
    }

    /// Pulls the plug: no CLOSE, and a reset instead of an end.
    pub(crate) fn cut(self) {
        if let Wire::Tcp(stream) = self.wire {
            stream.set_zero_linger().unwrap();
        }
    }
}

pub(crate) fn rpc_error(code: ErrorCode) -> RpcError {
    RpcError {
        code,
        message: "in the server's words".into(),
        retryable: code.is_retryable(),
        retry_after_ms: 0,
        details: Bytes::new(),
    }
}

/// What should happen soon.
pub(crate) async fn within<T>(work: impl Future<Output = T>) -> T {
    tokio::time::timeout(PATIENCE, work).await.expect("the other side hangs")
}
