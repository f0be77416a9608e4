//! Accepts connections and tells binary from HTTP by the first byte.

use super::{
    driver, http,
    shared::Shared,
    transport::{LINGER, rewound::Rewound, tcp},
};
use crate::wire::{ErrorCode, handshake::encode_refusal};
use axum::Router;
use futures_util::{FutureExt, future::BoxFuture};
use std::{
    fs::File,
    io,
    net::SocketAddr,
    panic::AssertUnwindSafe,
    sync::{
        Arc,
        atomic::{AtomicU64, Ordering},
    },
    time::Duration,
};
use tokio::{
    io::AsyncWriteExt,
    net::{TcpListener, TcpSocket, TcpStream},
};

/// Connections that may wait in the kernel while every place is taken.
const BACKLOG: u32 = 1_024;
/// First wait after accept failed.
const ACCEPT_BACKOFF_MIN: Duration = Duration::from_millis(10);
/// Longest wait after accept failed again and again.
const ACCEPT_BACKOFF_MAX: Duration = Duration::from_secs(1);

/// Whether accepted sockets have the TCP_NODELAY of the one that listens, so that it is not set on each of them.
const NODELAY_IS_INHERITED: bool = cfg!(target_os = "linux");

/// Bytes that the system takes of what a peer has no room for yet: two records of the longest. Behind them frames wait in our own queue,
/// where a heartbeat's echo goes before the rest of a long answer; by itself the system takes megabytes.
#[cfg(target_os = "linux")]
const UNSENT_MAX: u32 = 128 * 1024;

/// How long a port that is taken is tried again: a daemon that was killed a moment ago still holds it while it dies.
const BIND_PATIENCE: Duration = Duration::from_secs(2);
/// Between two tries.
const BIND_PAUSE: Duration = Duration::from_millis(50);

/// Binds the daemon's port.
///
/// # Errors
/// The address is taken or not ours.
pub(super) async fn bind(address: SocketAddr) -> io::Result<TcpListener> {
    let give_up = tokio::time::Instant::now() + BIND_PATIENCE;
    loop {
        match try_bind(address) {
            Err(error)
                if error.kind() == io::ErrorKind::AddrInUse && tokio::time::Instant::now() < give_up =>
            {
                crate::time::sleep(BIND_PAUSE).await;
            }
            bound => return bound,
        }
    }
}

fn try_bind(address: SocketAddr) -> io::Result<TcpListener> {
    let socket = if address.is_ipv4() { TcpSocket::new_v4()? } else { TcpSocket::new_v6()? };
    socket.set_reuseaddr(true)?;
    socket.set_nodelay(true)?;
    // Accepted sockets have it of this one.
    #[cfg(target_os = "linux")]
    socket2::SockRef::from(&socket).set_tcp_notsent_lowat(UNSENT_MAX)?;
    socket.bind(address)?;
    socket.listen(BACKLOG)
}

/// Accepts until the daemon drains, then waits for every connection to end.
pub(super) async fn run(shared: Arc<Shared>, listener: TcpListener, site: Router) {
    accept(&shared, listener, &site).await;
    shared.admission.all_connections_ended().await;
}

async fn accept(shared: &Arc<Shared>, listener: TcpListener, site: &Router) {
    let mut drain = shared.drain.clone();
    let mut backoff = ACCEPT_BACKOFF_MIN;
    let mut spare = SpareDescriptor::open();
    loop {
        let permit = tokio::select! {
            permit = shared.admission.connection() => permit,
            _ = drain.wait_for(Option::is_some) => return,
        };
        let accepted = tokio::select! {
            accepted = listener.accept() => accepted,
            _ = drain.wait_for(Option::is_some) => return,
        };
        match accepted {
            Ok((stream, peer)) => {
                backoff = ACCEPT_BACKOFF_MIN;
                let (shared, site) = (shared.clone(), site.clone());
                // Its permit is what says that it has ended: a set of tasks would wake this one for each end.
                tokio::spawn(async move {
                    let _permit = permit;
                    let panics = &shared.counters.panics;
                    let mut next = Some(Step::new(greet(shared.clone(), site, stream, peer)));
                    while let Some(Step(step)) = next {
                        next = isolated(panics, peer, step).await.flatten();
                    }
                });
            }
            Err(error) => {
                tracing::warn!(%error, "accept failed");
                spare.shed(&listener, &error);
                crate::time::sleep(backoff).await;
                backoff = (backoff * 2).min(ACCEPT_BACKOFF_MAX);
            }
        }
    }
}

/// What is done for a connection, and what comes behind it. One after the other on the heap, so that a connection holds no
/// room for its greeting.
pub(super) struct Step(BoxFuture<'static, Option<Step>>);

impl Step {
    pub(super) fn new(step: impl Future<Output = Option<Self>> + Send + 'static) -> Self {
        Self(Box::pin(step))
    }

    /// Nothing comes behind it.
    pub(super) fn last(step: impl Future<Output = ()> + Send + 'static) -> Self {
        // Not a block of its own, which would have room for the step twice.
        Self::new(step.map(|()| None))
    }
}

/// Runs a connection so that its panic is its own end and nobody else's.
async fn isolated<T>(panics: &AtomicU64, peer: SocketAddr, connection: impl Future<Output = T>) -> Option<T> {
    let ended = AssertUnwindSafe(connection).catch_unwind().await;
    if ended.is_err() {
        let panics = panics.fetch_add(1, Ordering::Relaxed) + 1;
        tracing::error!(%peer, panics, "a connection panicked; the others go on");
    }
    ended.ok()
}

/// Looks at the first byte, and gives what serves the connection from there on.
async fn greet(shared: Arc<Shared>, site: Router, mut stream: TcpStream, peer: SocketAddr) -> Option<Step> {
    let accepted = shared.clock.now();
    let half_open = match shared.admission.half_open(peer.ip(), accepted) {
        Ok(half_open) => half_open,
        Err(reason) => {
            tracing::debug!(%peer, %reason, "connection turned away");
            return Some(Step::last(refuse(stream, ErrorCode::RATE_LIMITED)));
        }
    };
    if !NODELAY_IS_INHERITED && let Err(error) = stream.set_nodelay(true) {
        tracing::debug!(%peer, %error, "TCP_NODELAY could not be set");
    }
    let deadline = shared.config.limits.handshake_deadline.get();
    let arrived = match crate::time::timeout(deadline, tcp::first_bytes(&mut stream)).await {
        Ok(arrived) => arrived.ok()?,
        Err(_) => {
            tracing::debug!(%peer, "nothing came within the handshake deadline");
            return Some(Step::last(refuse(stream, ErrorCode::HANDSHAKE_TIMEOUT)));
        }
    };
    Some(match *arrived.first()? {
        // HANDSHAKE_INIT is shorter than 256 bytes, so the first byte of its length is zero.
        0 => Step::last(driver::serve(shared, peer, accepted, tcp::split(stream, arrived), half_open)),
        b'A'..=b'Z' => {
            let stream = Rewound::new(stream, arrived);
            Step::new(http::serve(shared, site, stream, peer, accepted, half_open))
        }
        other => {
            tracing::info!(%peer, first_byte = other, "neither raystream nor HTTP");
            Step::last(refuse(stream, ErrorCode::PROTOCOL_ERROR))
        }
    })
}

/// Says no in clear and hangs up.
async fn refuse(mut stream: TcpStream, code: ErrorCode) {
    let body = encode_refusal(code);
    let record = [&[0, 3], &body[..]].concat();
    // Whoever does not take five bytes does not get them.
    let _told = crate::time::timeout(LINGER, async {
        stream.write_all(&record).await?;
        stream.shutdown().await?;
        tcp::discard(&mut stream).await;
        io::Result::Ok(())
    })
    .await;
}

/// A descriptor to give up when there are none left: with it one more connection can be taken off the backlog and
/// closed, instead of leaving its peer to wait.
struct SpareDescriptor(Option<File>);

impl SpareDescriptor {
    fn open() -> Self {
        Self(File::open("/dev/null").ok())
    }

    fn shed(&mut self, listener: &TcpListener, error: &io::Error) {
        const EMFILE: i32 = 24;
        const ENFILE: i32 = 23;
        if !matches!(error.raw_os_error(), Some(EMFILE | ENFILE)) {
            return;
        }
        self.0 = None;
        if let Some(Ok((stream, _))) = listener.accept().now_or_never() {
            drop(stream);
        }
        *self = Self::open();
    }
}

#[cfg(test)]
mod tests {
    use super::*;
    use tokio::task::JoinSet;

    #[tokio::test]
    async fn an_accepted_socket_does_not_wait_to_fill_segments_and_takes_little_ahead() {
        let listener = bind(SocketAddr::from(([127, 0, 0, 1], 0))).await.unwrap();
        let peer = TcpStream::connect(listener.local_addr().unwrap()).await.unwrap();
        let (stream, _) = listener.accept().await.unwrap();
        assert_eq!(stream.nodelay().unwrap(), NODELAY_IS_INHERITED);
        #[cfg(target_os = "linux")]
        assert_eq!(socket2::SockRef::from(&stream).tcp_notsent_lowat().unwrap(), UNSENT_MAX);
        drop(peer);
    }

    #[tokio::test]
    async fn a_panic_ends_its_own_connection_and_is_counted() {
        let (panics, peer) = (AtomicU64::new(0), SocketAddr::from(([127, 0, 0, 1], 1)));
        let mut connections = JoinSet::new();
        let panics: &'static AtomicU64 = Box::leak(Box::new(panics));
        connections.spawn(isolated(panics, peer, async { panic!("this test wants it") }));
        connections.spawn(isolated(panics, peer, async {}));
        while let Some(ended) = connections.join_next().await {
            ended.expect("the task itself does not panic");
        }
        assert_eq!(panics.load(Ordering::Relaxed), 1);
    }
}
