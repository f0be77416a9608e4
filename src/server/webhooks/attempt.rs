//! One message to one receiver: a request, and what its answer means. What the answer says beside its status is not kept: a
//! webhook must not be a way to read what stands behind a URL.

use std::future::poll_fn;
use std::pin::Pin;
use std::sync::Arc;
use std::time::{Duration, SystemTime, UNIX_EPOCH};

use axum::body::Body;
use bytes::Bytes;
use hyper::body::{Body as _, Incoming};
use hyper::client::conn::http1::{self, SendRequest};
use hyper::{Request, Response, StatusCode, header};
use hyper_util::rt::TokioIo;
use tokio::task::JoinHandle;
use tokio::time::Instant;

use super::dial::{DialError, Dialer};
use super::pause;
use crate::store::webhooks::Held;
use crate::time::timeout;
use crate::webhook::{HEADER_ID, HEADER_SIGNATURE, HEADER_TIMESTAMP};

/// How long a receiver may take, from the first packet to the status of its answer.
const ATTEMPT_TIMEOUT: Duration = Duration::from_secs(15);

/// The longest head of an answer, in bytes, and its most headers: what a proxy's is, several times over.
const HEAD_LEN_MAX: usize = 16 * 1024;
const HEADERS_MAX: usize = 64;

/// How much of an answer is read, and passed over, to have the connection free for the next message; and for how long. What is
/// longer ends with the connection.
const ANSWER_LEN_MAX: usize = 64 * 1024;
const ANSWER_TIMEOUT: Duration = Duration::from_secs(1);

/// How long a connection may wait for the next message: shorter than receivers wait, so that theirs rarely ends first.
const IDLE_MAX: Duration = Duration::from_secs(4);

/// How long a connection is used, however busy it is: names are resolved, and addresses judged, at least this often.
const OPEN_MAX: Duration = Duration::from_secs(60);

/// What became of a message.
#[derive(Debug, PartialEq, Eq)]
pub(super) enum Outcome {
    /// The receiver has it.
    Delivered,
    /// The receiver wants no more of them: 410.
    Gone,
    /// It has to be sent again.
    Failed {
        /// What went wrong, for the operator.
        error: String,
        /// How long the receiver asks to be left alone.
        retry_after: Option<Duration>,
    },
}

/// The way to a receiver, kept open from message to message.
pub(super) struct Line {
    dialer: Arc<Dialer>,
    open: Option<Open>,
}

struct Open {
    sender: SendRequest<Body>,
    driver: JoinHandle<()>,
    opened: Instant,
    used: Instant,
}

/// Whether a connection may take one more message.
fn is_fresh(opened: Instant, used: Instant, now: Instant) -> bool {
    now.duration_since(used) < IDLE_MAX && now.duration_since(opened) < OPEN_MAX
}

impl Drop for Open {
    fn drop(&mut self) {
        self.driver.abort();
    }
}

/// Why there is no answer.
#[derive(Debug, thiserror::Error)]
enum AttemptError {
    #[error(transparent)]
    Dial(#[from] DialError),
    #[error("the request failed: {0}")]
    Http(#[from] hyper::Error),
    #[error("the request cannot be written: {0}")]
    Request(#[from] hyper::http::Error),
}

impl Line {
    pub(super) fn new(dialer: Arc<Dialer>) -> Self {
        Self { dialer, open: None }
    }

    /// Sends a message once.
    pub(super) async fn post(&mut self, held: &Held, event: &str, body: &Bytes) -> Outcome {
        let failed = |error: String| Outcome::Failed { error, retry_after: None };
        let now = Instant::now();
        let open = self.open.take().filter(|open| is_fresh(open.opened, open.used, now));
        match timeout(ATTEMPT_TIMEOUT, self.exchange(open, held, event, body)).await {
            Ok(Ok((open, response))) => {
                let outcome = judge(&response, SystemTime::now());
                self.open = finish(open, response.into_body()).await;
                outcome
            }
            Ok(Err(error)) => failed(error.to_string()),
            Err(_) => failed(format!("no answer within {} s", ATTEMPT_TIMEOUT.as_secs())),
        }
    }

    async fn exchange(
        &self,
        open: Option<Open>,
        held: &Held,
        event: &str,
        body: &Bytes,
    ) -> Result<(Open, Response<Incoming>), AttemptError> {
        // A connection that waited may have been ended by the other side: then, once, a new one.
        if let Some(mut open) = open
            && open.sender.ready().await.is_ok()
            && let Ok(response) = open.sender.send_request(request(held, event, body)?).await
        {
            return Ok((open, response));
        }
        let stream = self.dialer.connect(&held.target).await?;
        let (sender, connection) = http1::Builder::new()
            .max_buf_size(HEAD_LEN_MAX)
            .max_headers(HEADERS_MAX)
            .handshake(TokioIo::new(stream))
            .await?;
        let driver = tokio::spawn(async move {
            if let Err(error) = connection.await {
                tracing::debug!(%error, "a connection to a receiver ended");
            }
        });
        let now = Instant::now();
        let mut open = Open { sender, driver, opened: now, used: now };
        let response = open.sender.send_request(request(held, event, body)?).await?;
        Ok((open, response))
    }
}

/// The request, with the time of this attempt and its signature.
fn request(held: &Held, event: &str, body: &Bytes) -> Result<Request<Body>, hyper::http::Error> {
    let now = SystemTime::now().duration_since(UNIX_EPOCH).map_or(0, |since| since.as_secs());
    Request::post(held.target.path())
        .header(header::HOST, held.target.authority())
        .header(header::USER_AGENT, concat!("raystream/", env!("CARGO_PKG_VERSION")))
        .header(header::CONTENT_TYPE, "application/json")
        .header(HEADER_ID, event)
        .header(HEADER_TIMESTAMP, now)
        .header(HEADER_SIGNATURE, held.secret.sign(event, now, body))
        .body(Body::from(body.clone()))
}

/// What an answer means. A redirect is a failure: where it points to was not what the operator named.
fn judge<B>(response: &Response<B>, now: SystemTime) -> Outcome {
    let status = response.status();
    if status.is_success() {
        return Outcome::Delivered;
    }
    if status == StatusCode::GONE {
        return Outcome::Gone;
    }
    let asked = response.headers().get(header::RETRY_AFTER).and_then(|value| value.to_str().ok());
    let retry_after = asked.and_then(|text| pause::asked_for(text, now));
    let redirect = if status.is_redirection() { ", and redirects are not followed" } else { "" };
    Outcome::Failed { error: format!("the receiver answered {}{redirect}", status.as_u16()), retry_after }
}

/// Reads the rest of an answer; gives the connection back when it is free then.
async fn finish(mut open: Open, mut body: Incoming) -> Option<Open> {
    let read = async {
        let mut left = ANSWER_LEN_MAX;
        loop {
            match poll_fn(|cx| Pin::new(&mut body).poll_frame(cx)).await {
                None => return true,
                Some(Ok(frame)) => {
                    let len = frame.data_ref().map_or(0, Bytes::len);
                    match left.checked_sub(len) {
                        Some(rest) => left = rest,
                        None => return false,
                    }
                }
                Some(Err(_)) => return false,
            }
        }
    };
    let is_free = timeout(ANSWER_TIMEOUT, read).await.unwrap_or(false);
    open.used = Instant::now();
    is_free.then_some(open)
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn a_connection_is_left_when_it_waited_or_is_old() {
        let opened = Instant::now();
        let at = |seconds: u64| opened + Duration::from_secs(seconds);
        assert!(is_fresh(opened, opened, opened));
        assert!(is_fresh(opened, at(58), at(59)), "busy, and young enough");
        assert!(!is_fresh(opened, at(59), at(60)), "busy, and too old");
        assert!(!is_fresh(opened, at(1), at(5)), "it waited for too long");
    }

    #[test]
    fn only_success_is_success() {
        let outcome = |status: u16, retry_after: Option<&str>| {
            let mut response = Response::builder().status(status);
            if let Some(value) = retry_after {
                response = response.header(header::RETRY_AFTER, value);
            }
            judge(&response.body(()).unwrap(), UNIX_EPOCH)
        };
        for status in [200, 201, 202, 204, 299] {
            assert_eq!(outcome(status, None), Outcome::Delivered, "{status}");
        }
        assert_eq!(outcome(410, None), Outcome::Gone);
        for status in [301, 302, 307, 308] {
            let Outcome::Failed { error, .. } = outcome(status, None) else { panic!("{status}") };
            assert!(error.contains(&status.to_string()) && error.contains("not followed"), "{error}");
        }
        for status in [400, 401, 404, 429, 500, 503] {
            let failed = Outcome::Failed {
                error: format!("the receiver answered {status}"),
                retry_after: Some(Duration::from_secs(9)),
            };
            assert_eq!(outcome(status, Some("9")), failed);
        }
    }
}
