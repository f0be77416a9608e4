//! Accepts connections and tells binary from HTTP by the first byte.

use super::{
    driver, http,
    shared::Shared,
    transport::{LINGER, tcp},
};
use crate::wire::{ErrorCode, handshake::encode_refusal};
use axum::Router;
use futures_util::FutureExt;
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
    task::JoinSet,
};

/// Connections that may wait in the kernel while every place is taken.
const BACKLOG: u32 = 1_024;
/// First wait after accept failed.
const ACCEPT_BACKOFF_MIN: Duration = Duration::from_millis(10);
/// Longest wait after accept failed again and again.
const ACCEPT_BACKOFF_MAX: Duration = Duration::from_secs(1);

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
                tokio::time::sleep(BIND_PAUSE).await;
            }
            bound => return bound,
        }
    }
}

fn try_bind(address: SocketAddr) -> io::Result<TcpListener> {
    let socket = if address.is_ipv4() { TcpSocket::new_v4()? } else { TcpSocket::new_v6()? };
    socket.set_reuseaddr(true)?;
    socket.bind(address)?;
    socket.listen(BACKLOG)
}

/// Accepts until the daemon drains, then waits for every connection to end.
pub(super) async fn run(shared: Arc<Shared>, listener: TcpListener, site: Router) {
    let mut connections = JoinSet::new();
    accept(&shared, listener, &site, &mut connections).await;
    while connections.join_next().await.is_some() {}
}

async fn accept(shared: &Arc<Shared>, listener: TcpListener, site: &Router, connections: &mut JoinSet<()>) {
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
            Some(_) = connections.join_next() => continue,
        };
        match accepted {
            Ok((stream, peer)) => {
                backoff = ACCEPT_BACKOFF_MIN;
                let (shared, site) = (shared.clone(), site.clone());
                connections.spawn(async move {
                    let _permit = permit;
                    let panics = &shared.counters.panics;
                    isolated(panics, peer, greet(shared.clone(), site, stream, peer)).await;
                });
            }
            Err(error) => {
                tracing::warn!(%error, "accept failed");
                spare.shed(&listener, &error);
                tokio::time::sleep(backoff).await;
                backoff = (backoff * 2).min(ACCEPT_BACKOFF_MAX);
            }
        }
    }
}

/// Runs a connection so that its panic is its own end and nobody else's.
async fn isolated(panics: &AtomicU64, peer: SocketAddr, connection: impl Future<Output = ()>) {
    if AssertUnwindSafe(connection).catch_unwind().await.is_err() {
        let panics = panics.fetch_add(1, Ordering::Relaxed) + 1;
        tracing::error!(%peer, panics, "a connection panicked; the others go on");
    }
}

/// Looks at the first byte and hands the connection on.
async fn greet(shared: Arc<Shared>, site: Router, stream: TcpStream, peer: SocketAddr) {
    let accepted = shared.clock.now();
    let half_open = match shared.admission.half_open(peer.ip(), accepted) {
        Ok(half_open) => half_open,
        Err(reason) => {
            tracing::debug!(%peer, %reason, "connection turned away");
            return Box::pin(refuse(stream, ErrorCode::RATE_LIMITED)).await;
        }
    };
    if let Err(error) = stream.set_nodelay(true) {
        tracing::debug!(%peer, %error, "TCP_NODELAY could not be set");
    }
    let deadline = shared.config.limits.handshake_deadline.get();
    let mut first = [0; 1];
    match tokio::time::timeout(deadline, stream.peek(&mut first)).await {
        Ok(Ok(1)) => {}
        Ok(Ok(_) | Err(_)) => return,
        Err(_) => {
            tracing::debug!(%peer, "nothing came within the handshake deadline");
            return Box::pin(refuse(stream, ErrorCode::HANDSHAKE_TIMEOUT)).await;
        }
    }
    match first[0] {
        // HANDSHAKE_INIT is shorter than 256 bytes, so the first byte of its length is zero.
        // On the heap: what waits here would otherwise hold the room of all three, twice, for as long as it lives.
        0 => Box::pin(driver::serve(shared, peer, accepted, tcp::split(stream), half_open)).await,
        b'A'..=b'Z' => Box::pin(http::serve(site, stream, peer, accepted, half_open, deadline)).await,
        other => {
            tracing::info!(%peer, first_byte = other, "neither raystream nor HTTP");
            Box::pin(refuse(stream, ErrorCode::PROTOCOL_ERROR)).await;
        }
    }
}

/// Says no in clear and hangs up.
async fn refuse(mut stream: TcpStream, code: ErrorCode) {
    let body = encode_refusal(code);
    let record = [&[0, 3], &body[..]].concat();
    // Whoever does not take five bytes does not get them.
    let _told = tokio::time::timeout(LINGER, async {
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
