//! The face of the client.

use super::connector::Connector;
use super::driver::{Control, Driver, Status};
use super::link::ConnectionInfo;
use super::options::{CallOptions, Options};
use super::pending::{Answer, PendingCall};
use super::response::Response;
use super::resume::Entry;
use super::retry::{Attempts, Bucket, RetryPolicy};
use super::signals::Signals;
use super::subscription::{Queue, SubscribeOptions, Subscription};
use super::{Error, Json, ServerUrl};
use crate::wire::envelope::RpcCall;
use crate::wire::limits::CALLS_MAX;
use serde::{Serialize, de::DeserializeOwned};
use std::sync::Arc;
use std::sync::atomic::{AtomicU64, Ordering};
use std::time::Duration;
use tokio::sync::{Semaphore, TryAcquireError, mpsc, oneshot, watch};
use tokio::time::{Instant, timeout_at};

/// Places for calls that wait for the connection; behind them callers wait. As many as a connection takes: a full line then
/// means one connection's worth under way and one in line.
const CALLS_WAITING_MAX: usize = CALLS_MAX as usize;
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
    places: Arc<Semaphore>,
    control: mpsc::Sender<Control>,
    pub(super) signals: Arc<Signals>,
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
        let driver =
            Driver::new(connector, Arc::clone(&places), control_waiting, Arc::clone(&signals), status_sender);
        tokio::spawn(driver.run(link));
        let next_id = AtomicU64::new(0);
        Ok(Self(Arc::new(Handle { places, control, signals, status, call_timeout, retry, retries, next_id })))
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
        self.call_response(method, args, options).await.map(|response| response.result)
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
        let timeout = options.timeout.unwrap_or(self.0.call_timeout);
        let deadline = Instant::now() + timeout;
        let call = RpcCall {
            method: method.into(),
            args: args.into_bytes(),
            idempotency_key: options.idempotency_key.map(|key| key.0),
            metadata: options.metadata,
            times: options.times,
            ..RpcCall::default()
        };
        let policy = options.retry.as_ref().unwrap_or(&self.0.retry);
        self.attempts(policy, call, deadline, timeout).await
    }

    /// Sends a call, and again as long as that is right.
    async fn attempts(
        &self,
        policy: &RetryPolicy,
        call: RpcCall,
        deadline: Instant,
        timeout: Duration,
    ) -> Result<Response, Error> {
        self.0.retries.earn();
        let mut attempts = Attempts::new(policy, &self.0.retries, deadline);
        let mut call = call;
        loop {
            let made = self.0.make(PendingCall::new(call, deadline, timeout, None)).await;
            let mut answer = made.map_err(|error| attempts.end(error))?;
            let error = match (&mut answer).await {
                Ok(response) => return Ok(Response::new(response, attempts.made())),
                Err(error) => error,
            };
            call = answer.into_call();
            let pause = attempts.after(error, &call, Instant::now())?;
            tracing::debug!(method = call.method.as_str(), attempt = attempts.made(), ?pause, "a call is sent again");
            tokio::time::sleep(pause).await;
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
            self.0.control.send(command).await.map_err(|_| self.0.closed())?;
            // From here on, giving up is telling the server.
            let subscription = Subscription::new(id, Arc::clone(&self.0), queue, cursor);
            answer.await.unwrap_or_else(|_| Err(self.0.closed()))?;
            Ok(subscription)
        };
        let limit = self.0.call_timeout;
        tokio::time::timeout(limit, asked).await.unwrap_or(Err(Error::Timeout(limit)))
    }

    /// Sends a HEARTBEAT and waits for its echo: the time of one round trip on the wire.
    ///
    /// # Errors
    /// [`Error::Timeout`] after [`Options::call_timeout`], also while there is no connection.
    pub async fn ping(&self) -> Result<Duration, Error> {
        let (reply, answer) = oneshot::channel();
        self.0.control.send(Control::Ping(reply)).await.map_err(|_| self.0.closed())?;
        let limit = self.0.call_timeout;
        let answered = tokio::time::timeout(limit, answer).await.map_err(|_| Error::Timeout(limit))?;
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
        if self.0.control.send(Control::Close(done)).await.is_ok() {
            let _ = closed.await;
        }
    }
}

impl Handle {
    /// Hands a call to the task, once there is a place for it.
    pub(super) async fn make(&self, call: PendingCall) -> Result<Answer, Error> {
        match self.places.try_acquire() {
            Ok(place) => place.forget(),
            Err(TryAcquireError::Closed) => return Err(self.closed()),
            Err(TryAcquireError::NoPermits) => match timeout_at(call.deadline, self.places.acquire()).await {
                Ok(Ok(place)) => place.forget(),
                Ok(Err(_)) => return Err(self.closed()),
                Err(_) => return Err(call.timed_out()),
            },
        }
        let call = Arc::new(call);
        if !self.signals.add_call(Arc::clone(&call)) {
            return Err(self.closed());
        }
        Ok(Answer::new(call, Arc::clone(&self.signals)))
    }

    pub(super) fn next_id(&self) -> u64 {
        self.next_id.fetch_add(1, Ordering::Relaxed)
    }

    /// Why the task is gone.
    fn closed(&self) -> Error {
        match &*self.status.borrow() {
            Status::Closed(Some(reason)) => Error::Connect(Arc::clone(reason)),
            _ => Error::Closed,
        }
    }
}
