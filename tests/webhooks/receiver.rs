//! A receiver of webhooks: an HTTP server that answers as the test says and keeps what it got.

use std::collections::HashSet;
use std::sync::{Arc, Mutex};

use serde_json::Value;
use tokio::io::{AsyncRead, AsyncReadExt, AsyncWrite, AsyncWriteExt};
use tokio::net::TcpListener;
use tokio::sync::Notify;
use tokio_rustls::TlsAcceptor;

/// One request.
#[derive(Debug, Clone)]
pub(crate) struct Received {
    pub(crate) head: String,
    pub(crate) body: Vec<u8>,
}

impl Received {
    /// A header; empty when it is not there.
    pub(crate) fn header(&self, name: &str) -> &str {
        let line = self.head.lines().find_map(|line| {
            let (key, value) = line.split_once(':')?;
            key.eq_ignore_ascii_case(name).then(|| value.trim())
        });
        line.unwrap_or_default()
    }

    pub(crate) fn id(&self) -> &str {
        self.header("webhook-id")
    }

    pub(crate) fn json(&self) -> Value {
        serde_json::from_slice(&self.body).unwrap()
    }
}

/// How a request is answered.
#[derive(Debug, Clone)]
pub(crate) enum Answer {
    /// With a status and more of a head: lines that end with CR LF.
    Status(u16, String),
    /// With 200 and a body of so many bytes.
    Long(usize),
    /// Not before the gate is opened; then with 200.
    Gate,
}

pub(crate) fn status(status: u16) -> Answer {
    Answer::Status(status, String::new())
}

type Script = Box<dyn FnMut(&Received) -> Answer + Send>;

struct State {
    received: Mutex<Vec<Received>>,
    script: Mutex<Script>,
    gate: tokio::sync::watch::Sender<bool>,
    came: Notify,
}

/// The receiver. It ends with the runtime of its test.
pub(crate) struct Receiver {
    state: Arc<State>,
    pub(crate) port: u16,
}

impl Receiver {
    /// One that takes everything.
    pub(crate) async fn start() -> Self {
        Self::start_with(|_| status(204)).await
    }

    /// One that answers as a script says.
    pub(crate) async fn start_with(script: impl FnMut(&Received) -> Answer + Send + 'static) -> Self {
        Self::start_by(script, None).await
    }

    /// The same, through TLS.
    pub(crate) async fn start_by(
        script: impl FnMut(&Received) -> Answer + Send + 'static,
        tls: Option<TlsAcceptor>,
    ) -> Self {
        let listener = TcpListener::bind("127.0.0.1:0").await.unwrap();
        let port = listener.local_addr().unwrap().port();
        let state = Arc::new(State {
            received: Mutex::default(),
            script: Mutex::new(Box::new(script)),
            gate: tokio::sync::watch::channel(false).0,
            came: Notify::new(),
        });
        let shared = Arc::clone(&state);
        tokio::spawn(async move {
            while let Ok((stream, _)) = listener.accept().await {
                let (state, tls) = (Arc::clone(&shared), tls.clone());
                tokio::spawn(async move {
                    match tls {
                        None => serve(stream, &state).await,
                        Some(tls) => {
                            if let Ok(stream) = tls.accept(stream).await {
                                serve(stream, &state).await;
                            }
                        }
                    }
                });
            }
        });
        Self { state, port }
    }

    pub(crate) fn url(&self) -> String {
        format!("http://127.0.0.1:{}/hook", self.port)
    }

    /// Answers by another script from now on.
    pub(crate) fn answer(&self, script: impl FnMut(&Received) -> Answer + Send + 'static) {
        *self.state.script.lock().unwrap() = Box::new(script);
    }

    /// Lets go what waits at the gate.
    pub(crate) fn open_gate(&self) {
        self.state.gate.send_replace(true);
    }

    /// What came so far.
    pub(crate) fn received(&self) -> Vec<Received> {
        self.state.received.lock().unwrap().clone()
    }

    /// What came so far, each event once, in the order of the first time.
    pub(crate) fn events(&self) -> Vec<Received> {
        let mut seen = HashSet::new();
        let mut received = self.received();
        received.retain(|request| seen.insert(request.id().to_owned()));
        received
    }

    /// Waits for what makes a condition true.
    pub(crate) async fn until(&self, what: &str, holds: impl Fn(&[Received]) -> bool) -> Vec<Received> {
        let waited = tokio::time::timeout(crate::server::PATIENCE, async {
            loop {
                let came = self.state.came.notified();
                let received = self.received();
                if holds(&received) {
                    return received;
                }
                came.await;
            }
        });
        waited.await.unwrap_or_else(|_| panic!("{what}: {:?}", self.received()))
    }

    /// Waits for so many different events.
    pub(crate) async fn until_events(&self, count: usize) -> Vec<Received> {
        let ids = |received: &[Received]| {
            received.iter().map(|request| request.id().to_owned()).collect::<HashSet<_>>().len()
        };
        self.until(&format!("{count} events"), |received| ids(received) >= count).await;
        self.events()
    }
}

async fn serve(mut stream: impl AsyncRead + AsyncWrite + Unpin, state: &State) {
    let mut input = Vec::new();
    while let Some(request) = read(&mut stream, &mut input).await {
        let answer = (state.script.lock().unwrap())(&request);
        state.received.lock().unwrap().push(request);
        // Whoever waits looks again; who comes later finds it.
        state.came.notify_waiters();
        state.came.notify_one();
        let head = match answer {
            Answer::Status(204, head) => format!("HTTP/1.1 204 x\r\n{head}\r\n"),
            Answer::Status(status, head) => {
                format!("HTTP/1.1 {status} x\r\n{head}content-length: 6\r\n\r\nanswer")
            }
            Answer::Long(len) => {
                format!("HTTP/1.1 200 x\r\ncontent-length: {len}\r\n\r\n{}", "a".repeat(len))
            }
            Answer::Gate => {
                let mut gate = state.gate.subscribe();
                gate.wait_for(|open| *open).await.unwrap();
                "HTTP/1.1 204 x\r\n\r\n".to_owned()
            }
        };
        if stream.write_all(head.as_bytes()).await.is_err() {
            return;
        }
    }
}

async fn read(stream: &mut (impl AsyncRead + Unpin), input: &mut Vec<u8>) -> Option<Received> {
    loop {
        if let Some(end) = input.windows(4).position(|window| window == b"\r\n\r\n") {
            let head = String::from_utf8(input[..end].to_vec()).unwrap();
            let request = Received { head, body: Vec::new() };
            let len: usize = request.header("content-length").parse().unwrap_or(0);
            if input.len() >= end + 4 + len {
                let body = input[end + 4..end + 4 + len].to_vec();
                input.drain(..end + 4 + len);
                return Some(Received { body, ..request });
            }
        }
        if stream.read_buf(input).await.ok()? == 0 {
            return None;
        }
    }
}
