//! HTTP on the daemon's port: health, readiness, and the way into WebSocket.

use super::{
    admission::HalfOpen,
    driver,
    shared::Shared,
    transport::{rewound::Rewound, websocket},
};
use crate::{store::Store, wire::limits::RECORD_BODY_MAX};
use axum::{
    Router,
    extract::{Extension, State, WebSocketUpgrade, ws::rejection::WebSocketUpgradeRejection},
    http::{HeaderMap, HeaderValue, StatusCode, header},
    middleware::map_response,
    response::{IntoResponse, Response},
    routing::get,
};
use hyper_util::{
    rt::{TokioIo, TokioTimer},
    service::TowerToHyperService,
};
use std::{
    net::SocketAddr,
    pin::Pin,
    sync::{Arc, Mutex, PoisonError},
    time::{Duration, Instant},
};

/// Where WebSocket connections are made.
pub const WEBSOCKET_PATH: &str = "/raystream";
/// The subprotocol that both ends must name.
pub const SUBPROTOCOL: &str = "raystream.v1";
/// Longest block of request headers.
const HEADER_BYTES_MAX: usize = 16 * 1024;
/// Most request headers.
const HEADERS_MAX: usize = 100;
/// Read buffer of a WebSocket; the library's own default takes 128 KiB per connection at once.
const READ_BUFFER: usize = 4 * 1024;
/// Bytes the WebSocket library may hold unwritten: our own queue is the bound, this one only has to hold a record.
const WRITE_BUFFER_MAX: usize = 2 * 1024 * 1024;

/// What a handler knows of the connection it runs on.
#[derive(Clone)]
struct Arrival {
    peer: SocketAddr,
    /// When the connection was accepted: the handshake deadline counts from here.
    accepted: Duration,
    /// Taken by the upgrade; else given back when the connection ends.
    half_open: Arc<Mutex<Option<HalfOpen>>>,
}

#[derive(Clone)]
struct Site {
    shared: Arc<Shared>,
    store: Store,
}

/// The routes.
pub(super) fn site(shared: Arc<Shared>, store: Store) -> Router {
    Router::new()
        .route("/health", get(health))
        .route("/ready", get(ready))
        .route(WEBSOCKET_PATH, get(upgrade))
        .fallback(unknown)
        .layer(map_response(one_request))
        .with_state(Site { shared, store })
}

/// Serves one HTTP request, or the WebSocket connection it becomes.
pub(super) async fn serve(
    site: Router,
    stream: Rewound,
    peer: SocketAddr,
    accepted: Duration,
    half_open: HalfOpen,
    deadline: Duration,
) {
    let arrival = Arrival { peer, accepted, half_open: Arc::new(Mutex::new(Some(half_open))) };
    let service = TowerToHyperService::new(site.layer(Extension(arrival)));
    let connection = hyper::server::conn::http1::Builder::new()
        .timer(Timers(TokioTimer::new()))
        .header_read_timeout(deadline)
        .max_buf_size(HEADER_BYTES_MAX)
        .max_headers(HEADERS_MAX)
        .serve_connection(TokioIo::new(stream), service)
        .with_upgrades();
    if let Err(error) = connection.await {
        tracing::debug!(%peer, %error, "HTTP connection ended");
    }
}

/// The timers of hyper, kept where all are.
#[derive(Clone, Debug)]
struct Timers(TokioTimer);

impl hyper::rt::Timer for Timers {
    fn sleep(&self, duration: Duration) -> Pin<Box<dyn hyper::rt::Sleep>> {
        crate::time::made(|| self.0.sleep(duration))
    }

    fn sleep_until(&self, deadline: Instant) -> Pin<Box<dyn hyper::rt::Sleep>> {
        crate::time::made(|| self.0.sleep_until(deadline))
    }
}

/// One request for each connection: a probe does not keep a place. What becomes a WebSocket stays.
async fn one_request(mut response: Response) -> Response {
    if response.status() != StatusCode::SWITCHING_PROTOCOLS {
        response.headers_mut().insert(header::CONNECTION, HeaderValue::from_static("close"));
    }
    response
}

async fn health() -> &'static str {
    "ok\n"
}

async fn ready(State(site): State<Site>) -> Response {
    if site.shared.drain.borrow().is_some() {
        return (StatusCode::SERVICE_UNAVAILABLE, "shutting down\n").into_response();
    }
    if !site.store.is_ready() {
        return (StatusCode::SERVICE_UNAVAILABLE, "the database cannot be reached\n").into_response();
    }
    "ready\n".into_response()
}

async fn unknown() -> (StatusCode, &'static str) {
    (
        StatusCode::NOT_FOUND,
        "This is a raystream server. Connect with raystream://KEY@HOST:PORT, or over WebSocket with \
         raystream+ws://KEY@HOST:PORT. Over HTTP there are only /health and /ready.\n",
    )
}

async fn upgrade(
    State(site): State<Site>,
    Extension(arrival): Extension<Arrival>,
    headers: HeaderMap,
    upgrade: Result<WebSocketUpgrade, WebSocketUpgradeRejection>,
) -> Response {
    let upgrade = match upgrade {
        Ok(upgrade) => upgrade,
        Err(rejection) => return rejection.into_response(),
    };
    if !origin_is_allowed(&headers, &site.shared.config.websocket.origins) {
        return (StatusCode::FORBIDDEN, "this origin is not allowed\n").into_response();
    }
    let upgrade = upgrade.protocols([SUBPROTOCOL]);
    if upgrade.selected_protocol().is_none() {
        return (StatusCode::BAD_REQUEST, "the subprotocol raystream.v1 is required\n").into_response();
    }
    let half_open = arrival.half_open.lock().unwrap_or_else(PoisonError::into_inner).take();
    let Some(half_open) = half_open else {
        return (StatusCode::BAD_REQUEST, "upgraded already\n").into_response();
    };
    upgrade
        .max_message_size(RECORD_BODY_MAX)
        .max_frame_size(RECORD_BODY_MAX)
        .read_buffer_size(READ_BUFFER)
        .write_buffer_size(0)
        .max_write_buffer_size(WRITE_BUFFER_MAX)
        .on_upgrade(move |socket| async move {
            let halves = websocket::split(socket);
            driver::serve(site.shared, arrival.peer, arrival.accepted, halves, half_open).await;
        })
}

/// A browser always names its origin, a native client never does.
fn origin_is_allowed(headers: &HeaderMap, allowed: &[String]) -> bool {
    match headers.get(header::ORIGIN) {
        None => true,
        Some(origin) => allowed.iter().any(|one| one.as_bytes() == origin.as_bytes()),
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn only_listed_origins_and_native_clients_come_in() {
        let allowed = ["https://app.example.com".to_owned()];
        let mut headers = HeaderMap::new();
        assert!(origin_is_allowed(&headers, &allowed));
        headers.insert(header::ORIGIN, "https://app.example.com".parse().unwrap());
        assert!(origin_is_allowed(&headers, &allowed));
        headers.insert(header::ORIGIN, "https://app.example.com.evil.test".parse().unwrap());
        assert!(!origin_is_allowed(&headers, &allowed));
        headers.insert(header::ORIGIN, "null".parse().unwrap());
        assert!(!origin_is_allowed(&headers, &allowed));
    }
}
