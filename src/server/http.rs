//! HTTP on the daemon's port: health, readiness, and the way into WebSocket.

use super::{
    admission::HalfOpen,
    driver,
    listener::Step,
    shared::Shared,
    transport::{rewound::Rewound, websocket},
    upgrade::{self, Refused},
};
use crate::{store::Store, wire::websocket::PATH};
use axum::{
    Router,
    extract::{Extension, Request, State},
    http::{HeaderValue, StatusCode, header},
    middleware::map_response,
    response::{IntoResponse, Response},
    routing::get,
};
use bytes::BytesMut;
use hyper::upgrade::OnUpgrade;
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

/// Longest block of request headers.
const HEADER_BYTES_MAX: usize = 16 * 1024;
/// Most request headers.
const HEADERS_MAX: usize = 100;
/// Where a handler leaves what becomes of its connection.
type Upgrade = Arc<Mutex<Option<OnUpgrade>>>;

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
        .route(PATH, get(websocket))
        .fallback(unknown)
        .layer(map_response(one_request))
        .with_state(Site { shared, store })
}

/// Serves one HTTP request; gives what serves the WebSocket connection that it has asked for.
///
/// `accepted` is when the connection came: the handshake deadline counts from there.
pub(super) async fn serve(
    shared: Arc<Shared>,
    site: Router,
    stream: Rewound,
    peer: SocketAddr,
    accepted: Duration,
    half_open: HalfOpen,
) -> Option<Step> {
    let upgrade = Upgrade::default();
    let service = TowerToHyperService::new(site.layer(Extension(upgrade.clone())));
    let connection = hyper::server::conn::http1::Builder::new()
        .timer(Timers(TokioTimer::new()))
        .header_read_timeout(shared.config.limits.handshake_deadline.get())
        .max_buf_size(HEADER_BYTES_MAX)
        .max_headers(HEADERS_MAX)
        .serve_connection(TokioIo::new(stream), service)
        .with_upgrades();
    if let Err(error) = connection.await {
        tracing::debug!(%peer, %error, "HTTP connection ended");
        return None;
    }
    let upgrade = upgrade.lock().unwrap_or_else(PoisonError::into_inner).take()?;
    let parts = upgrade.await.ok()?.downcast::<TokioIo<Rewound>>().ok()?;
    let (stream, arrived) = parts.io.into_inner().into_parts();
    let mut behind_request = BytesMut::from(parts.read_buf);
    behind_request.unsplit(arrived);
    let halves = websocket::split(stream, behind_request);
    Some(Step::last(driver::serve(shared, peer, accepted, halves, half_open)))
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
    let connection = match response.status() {
        StatusCode::SWITCHING_PROTOCOLS => return response,
        // The upgrade that it names is between these two ends (RFC 9110, section 7.8).
        StatusCode::UPGRADE_REQUIRED => "close, upgrade",
        _ => "close",
    };
    response.headers_mut().insert(header::CONNECTION, HeaderValue::from_static(connection));
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

async fn websocket(
    State(site): State<Site>,
    Extension(upgrade): Extension<Upgrade>,
    mut request: Request,
) -> Result<Response, Refused> {
    let granted = upgrade::grant(&request, &site.shared.config.websocket.origins)?;
    *upgrade.lock().unwrap_or_else(PoisonError::into_inner) = Some(hyper::upgrade::on(&mut request));
    Ok(granted)
}
