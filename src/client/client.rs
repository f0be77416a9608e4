//! The face of the client.

use super::connector::Connector;
use super::driver::{Control, Driver, Status};
use super::link::ConnectionInfo;
use super::making::{CALLS_WAITING_MAX, KeptCall};
use super::options::{CallOptions, Options};
use super::pending::Failure;
use super::response::Response;
use super::resume::Entry;
use super::retry::{Attempts, Bucket, RetryPolicy};
use super::signals::Signals;
use super::state::Shared;
use super::subscription::{Queue, SubscribeOptions, Subscription};
use super::{Error, Json, ServerUrl};
use crate::wire::envelope::RpcCall;
use serde::{Serialize, de::DeserializeOwned};
use std::future::poll_fn;
use std::sync::Arc;
use std::sync::atomic::{AtomicU64, Ordering};
use std::time::Duration;
use tokio::sync::{Semaphore, mpsc, oneshot, watch};
use tokio::time::Instant;

/// Other commands that wait for the task.
const CONTROL_WAITING_MAX: usize = 64;

/// A client of one server. Clones share the connection; it is closed when the last clone and the last
/// [`Subscription`] are gone, or by [`close`](Self::close).
///
/// ```no_run
/// # async fn example() -> Result<(), raystream::client::Error> {
/// use raystream::client::{Client, Options};
/// use serde_json::json;
///
/// let url = "raystream://PUBLICKEY@127.0.0.1:7410";
/// let client = Client::connect(url, Options::default()).await?;
/// client.call("table.set", &json!({"table": "orders", "id": "1", "data": {"total": 12}})).await?;
/// let order: serde_json::Value =
///     client.call_typed("table.get", &json!({"table": "orders", "id": "1"})).await?;
/// assert_eq!(order["data"]["total"], 12);
/// # Ok(())
/// # }
/// ```
#[derive(Clone, Debug)]
pub struct Client(Arc<Handle>);

/// What reaches the task.
#[derive(Debug)]
pub(super) struct Handle {
    pub(super) places: Arc<Semaphore>,
    control: mpsc::Sender<Control>,
    pub(super) signals: Arc<Signals>,
    pub(super) shared: Arc<Shared>,
    status: watch::Receiver<Status>,
    call_timeout: Duration,
    retry: RetryPolicy,
    retries: Bucket,
    next_id: AtomicU64,
}

impl Client {
    /// Connects: one attempt. What is lost later is found again by itself ([`Options::reconnect`]).
    ///
    /// # Errors
    /// [`Error::Url`]; [`Error::Connect`], whose [`hint`](super::ConnectError::hint) says what to do about it.
    pub async fn connect(url: &str, options: Options) -> Result<Self, Error> {
        Self::connect_url(url.parse()?, options).await
    }

    /// [`connect`](Self::connect) to a URL that is parsed already.
    ///
    /// # Errors
    /// As `connect`.
    pub async fn connect_url(url: ServerUrl, options: Options) -> Result<Self, Error> {
        options.check(&url)?;
        let call_timeout = options.call_timeout;
        let (retry, retries) = (options.retry.clone(), Bucket::new(options.retry_budget));
        let mut connector = Connector::new(url, options);
        // A future of many buffers is kept off the caller's.
        let link = Box::pin(connector.connect()).await?;
        let places = Arc::new(Semaphore::new(CALLS_WAITING_MAX));
        let (control, control_waiting) = mpsc::channel(CONTROL_WAITING_MAX);
        let (status_sender, status) = watch::channel(Status::Connected(link.info.clone()));
        let signals = Arc::new(Signals::default());
        let shared = Arc::new(Shared::default());
        let ends = (Arc::clone(&places), Arc::clone(&signals), Arc::clone(&shared));
        tokio::spawn(Driver::new(connector, control_waiting, status_sender, ends).run(link));
        let next_id = AtomicU64::new(0);
        let handle =
            Handle { places, control, signals, shared, status, call_timeout, retry, retries, next_id };
        Ok(Self(Arc::new(handle)))
    }

    /// Calls a method. Dropping the future gives the call up and tells the server so.
    ///
    /// A call that fails is sent again when that is safe and may help ([`Options::retry`]).
    ///
    /// # Errors
    /// [`Error::Call`] from the server, [`Error::Timeout`], [`Error::UnknownOutcome`] when the connection was lost
    /// with the call on its way, [`Error::Arguments`].
    pub async fn call<A: Serialize + ?Sized>(&self, method: &str, args: &A) -> Result<Json, Error> {
        self.call_with(method, Json::encode(args)?, CallOptions::default()).await
    }

    /// Calls a method and reads its result.
    ///
    /// # Errors
    /// As [`call`](Self::call), and [`Error::Result`].
    pub async fn call_typed<A, R>(&self, method: &str, args: &A) -> Result<R, Error>
    where
        A: Serialize + ?Sized,
        R: DeserializeOwned,
    {
        self.call(method, args).await?.decode()
    }

    /// Calls a method with JSON text as it is.
    ///
    /// # Errors
    /// As [`call`](Self::call).
    pub async fn call_with(&self, method: &str, args: Json, options: CallOptions) -> Result<Json, Error> {
        self.attempts(method, args, options).await.map(|response| response.result)
    }

    /// Calls a method and gives the whole answer: the result, the trailers and how many attempts it took.
    ///
    /// # Errors
    /// As [`call`](Self::call).
    pub async fn call_response(
        &self,
        method: &str,
        args: Json,
        options: CallOptions,
    ) -> Result<Response, Error> {
        self.attempts(method, args, options).await
    }

    /// Sends a call, and again as long as that is right.
    async fn attempts(&self, method: &str, args: Json, options: CallOptions) -> Result<Response, Error> {
        let handle = &*self.0;
        let mut now = Instant::now();
        let timeout = options.timeout.unwrap_or(handle.call_timeout);
        let call = RpcCall {
            method: method.into(),
            args: args.into_bytes(),
            idempotency_key: options.idempotency_key.map(|key| key.0),
            metadata: options.metadata,
            times: options.times,
            ..RpcCall::default()
        };
        let mut call = KeptCall { call, deadline: now + timeout, timeout };
        let policy = options.retry.as_ref().unwrap_or(&handle.retry);
        handle.retries.earn();
        let mut attempts = Attempts::new(policy, &handle.retries, call.deadline);
        loop {
            let started = poll_fn(|context| handle.start(&mut call, now, context.waker()).into());
            let (failure, is_repeated) = match started.await {
                Some(mut answer) => match poll_fn(|context| answer.poll_outcome(context)).await {
                    Ok(response) => return Ok(Response::new(response, attempts.made())),
                    Err(failure) => (failure, true),
                },
                None => (Failure::NotTaken, false),
            };
            let error = match failure {
                // A future that most calls have no need of is kept off this one.
                Failure::NotTaken => match Box::pin(handle.wait_in_line(&mut call, is_repeated)).await {
                    Ok(response) => return Ok(Response::new(response, attempts.made())),
                    Err(error) => error,
                },
                failure => failure.into_error(method),
            };
            let pause = attempts.after(error, &call.call, Instant::now())?;
            tracing::debug!(method, attempt = attempts.made(), ?pause, "a call is sent again");
            crate::time::sleep(pause).await;
            now = Instant::now();
        }
    }

    pub(super) fn handle(&self) -> Arc<Handle> {
        Arc::clone(&self.0)
    }

    /// Subscribes to a table or a topic: returns when the server has taken the subscription.
    ///
    /// # Errors
    /// [`Error::Call`] when the server refuses it, [`Error::TooManySubscriptions`], [`Error::Timeout`] after
    /// [`Options::call_timeout`].
    pub async fn subscribe(&self, options: SubscribeOptions) -> Result<Subscription, Error> {
        let id = self.0.next_id();
        let queue = Arc::new(Queue::new(options.window));
        let cursor = options.cursor.clone();
        let (started, answer) = oneshot::channel();
        let entry = Entry::new(id, options, Arc::clone(&queue), started);
        let asked = async {
            let command = Control::Subscribe(Box::new(entry));
            if !self.0.tell(command).await {
                return Err(self.0.closed());
            }
            // From here on, giving up is telling the server.
            let subscription = Subscription::new(id, Arc::clone(&self.0), queue, cursor);
            answer.await.unwrap_or_else(|_| Err(self.0.closed()))?;
            Ok(subscription)
        };
        let limit = self.0.call_timeout;
        crate::time::timeout(limit, asked).await.unwrap_or(Err(Error::Timeout(limit)))
    }

    /// Sends a HEARTBEAT and waits for its echo: the time of one round trip on the wire.
    ///
    /// # Errors
    /// [`Error::Timeout`] after [`Options::call_timeout`], also while there is no connection.
    pub async fn ping(&self) -> Result<Duration, Error> {
        let (reply, answer) = oneshot::channel();
        if !self.0.tell(Control::Ping(reply)).await {
            return Err(self.0.closed());
        }
        let limit = self.0.call_timeout;
        let answered = crate::time::timeout(limit, answer).await.map_err(|_| Error::Timeout(limit))?;
        answered.map_err(|_| match self.0.closed() {
            Error::Closed if !matches!(*self.0.status.borrow(), Status::Closed(_)) => Error::Timeout(limit),
            error => error,
        })
    }

    /// The connection in use; `None` while there is none.
    pub fn connection(&self) -> Option<ConnectionInfo> {
        match &*self.0.status.borrow() {
            Status::Connected(info) => Some(info.clone()),
            _ => None,
        }
    }

    /// Follows the connection: up, lost, tried again, over.
    pub fn status(&self) -> watch::Receiver<Status> {
        self.0.status.clone()
    }

    /// Ends the connection in order: CLOSE goes out before the transport ends. Calls that wait end with
    /// [`Error::Closed`], subscriptions just end.
    pub async fn close(&self) {
        let (done, closed) = oneshot::channel();
        if self.0.tell(Control::Close(done)).await {
            let _ = closed.await;
        }
    }
}

impl Drop for Handle {
    fn drop(&mut self) {
        self.signals.abandon();
    }
}

impl Handle {
    /// Tells the task what is wanted besides calls. `false`: it is gone.
    async fn tell(&self, command: Control) -> bool {
        let is_told = self.control.send(command).await.is_ok();
        self.signals.tell();
        is_told
    }

    pub(super) fn next_id(&self) -> u64 {
        self.next_id.fetch_add(1, Ordering::Relaxed)
    }

    /// Why the task is gone.
    pub(super) fn closed(&self) -> Error {
        match &*self.status.borrow() {
            Status::Closed(Some(reason)) => Error::Connect(Arc::clone(reason)),
            _ => Error::Closed,
        }
    }
}
