//! Calls with items: many out, many in, or both, as far as each side gives credit.

use super::client::{Client, Handle};
use super::pending::{OwnedAnswer, PendingCall};
use super::{Error, IdempotencyKey, Json};
use crate::time::timeout_at;
use crate::wire::envelope::{CLIENT_ITEMS, RpcCall, RpcResponse, SERVER_ITEMS};
use crate::wire::limits::{CREDIT_MAX, MESSAGE_MAX};
use bytes::Bytes;
use std::collections::VecDeque;
use std::num::NonZeroU32;
use std::sync::{Arc, Mutex, MutexGuard, PoisonError};
use std::time::Duration;
use tokio::sync::Notify;
use tokio::time::Instant;

/// What a server gives a call with items that names no time itself.
const STREAM_TIMEOUT: Duration = Duration::from_secs(3_600);
/// Items that may wait for the reader; the server stops beyond it. As for subscriptions.
const WINDOW: NonZeroU32 = NonZeroU32::new(256).expect("not zero");
/// Items of the caller that may wait for credit; behind them the caller waits.
const SENDING_MAX: usize = 16;

/// What a call with items asks for beyond its method and arguments.
#[derive(Clone, Debug)]
#[non_exhaustive]
pub struct StreamOptions {
    /// From now to the answer, after the last item; `None` is one hour.
    pub timeout: Option<Duration>,
    /// At most 32 pairs that travel with the call.
    pub metadata: Vec<(String, String)>,
    /// Names the call for a safe retry.
    pub idempotency_key: Option<IdempotencyKey>,
    /// Whether this side sends items.
    pub sends: bool,
    /// Whether the server sends items.
    pub receives: bool,
    /// Items of the server that may wait for the reader: the memory of the call, at up to 1 MiB for each item.
    pub window: NonZeroU32,
}

impl StreamOptions {
    fn new(sends: bool, receives: bool) -> Self {
        Self { timeout: None, metadata: Vec::new(), idempotency_key: None, sends, receives, window: WINDOW }
    }

    /// The answer comes in items.
    pub fn receiving() -> Self {
        Self::new(false, true)
    }

    /// The caller sends items, and gets one answer.
    pub fn sending() -> Self {
        Self::new(true, false)
    }

    /// Items go both ways.
    pub fn both_ways() -> Self {
        Self::new(true, true)
    }
}

/// What the caller and the task of the connection share of a call.
#[derive(Debug, Default)]
pub(super) struct Pipe {
    state: Mutex<PipeState>,
    /// Rung when an item came.
    readable: Notify,
    /// Rung when an item was sent.
    writable: Notify,
}

#[derive(Debug, Default)]
struct PipeState {
    received: VecDeque<Bytes>,
    /// Taken by the reader, and no credit given for it yet.
    taken: u32,
    sending: VecDeque<Bytes>,
    /// The caller has no more items.
    is_ended: bool,
    /// The server was told.
    is_end_sent: bool,
}

impl Pipe {
    fn lock(&self) -> MutexGuard<'_, PipeState> {
        self.state.lock().unwrap_or_else(PoisonError::into_inner)
    }

    /// An item came.
    pub(super) fn receive(&self, item: Bytes) {
        self.lock().received.push_back(item);
        self.readable.notify_one();
    }

    /// Credit to give to the server, once the reader has taken half a window.
    pub(super) fn take_credit(&self, window: u32) -> Option<NonZeroU32> {
        let mut state = self.lock();
        if state.taken < window.div_ceil(2) {
            return None;
        }
        NonZeroU32::new(std::mem::take(&mut state.taken))
    }

    /// The next item to send.
    pub(super) fn take_sending(&self) -> Option<Bytes> {
        let item = self.lock().sending.pop_front();
        if item.is_some() {
            self.writable.notify_one();
        }
        item
    }

    /// Whether everything is sent and the server is to be told now that this was the last item.
    pub(super) fn take_end(&self) -> bool {
        let mut state = self.lock();
        let is_due = state.is_ended && !state.is_end_sent && state.sending.is_empty();
        state.is_end_sent |= is_due;
        is_due
    }
}

/// A call with items. Dropping it gives the call up and tells the server so.
#[derive(Debug)]
pub struct CallStream {
    pipe: Arc<Pipe>,
    answer: OwnedAnswer,
    /// The answer, once it is there.
    result: Option<Result<RpcResponse, Error>>,
    deadline: Instant,
    timeout: Duration,
    window: u32,
    /// Keeps the connection.
    _handle: Arc<Handle>,
}

impl Client {
    /// Calls a method with items. A call with items is never made twice.
    ///
    /// # Errors
    /// [`Error::Closed`]. Everything else comes out of the [`CallStream`].
    pub async fn open(&self, method: &str, args: Json, options: StreamOptions) -> Result<CallStream, Error> {
        let timeout = options.timeout.unwrap_or(STREAM_TIMEOUT);
        let deadline = Instant::now() + timeout;
        let (handle, pipe) = (self.handle(), Arc::new(Pipe::default()));
        let direction = |is_there: bool, bit: u8| if is_there { bit } else { 0 };
        let window = options.window.get().min(CREDIT_MAX);
        let call = RpcCall {
            method: method.into(),
            args: args.into_bytes(),
            idempotency_key: options.idempotency_key.map(|key| key.0),
            metadata: options.metadata,
            streams: direction(options.sends, CLIENT_ITEMS) | direction(options.receives, SERVER_ITEMS),
            credit: if options.receives { window } else { 0 },
            ..RpcCall::default()
        };
        let call = PendingCall::new(call, deadline, timeout, Some(Arc::clone(&pipe)));
        let answer = handle.make(call).await?;
        Ok(CallStream { pipe, answer, result: None, deadline, timeout, window, _handle: handle })
    }
}

impl CallStream {
    /// The next item of the server; `None` after the last one, when [`result`](Self::result) has the answer.
    ///
    /// # Errors
    /// How the call ended, when it did not end well. [`Error::Timeout`].
    pub async fn next(&mut self) -> Result<Option<Json>, Error> {
        loop {
            // A caller may stop after any item; what it took is counted in the same step.
            let (item, asks) = {
                let mut state = self.pipe.lock();
                let item = state.received.pop_front();
                state.taken += u32::from(item.is_some());
                (item, state.taken >= self.window.div_ceil(2))
            };
            if let Some(item) = item {
                if asks && self.result.is_none() {
                    self.answer.touch();
                }
                return Ok(Some(Json::new(item)));
            }
            match &self.result {
                Some(Ok(_)) => return Ok(None),
                Some(Err(error)) => return Err(error.clone()),
                None => {}
            }
            let Self { pipe, answer, result, .. } = self;
            let woken = timeout_at(self.deadline, async {
                tokio::select! {
                    // An item that came with the answer is taken before it: the loop looks for items first.
                    answered = answer => *result = Some(answered),
                    () = pipe.readable.notified() => {}
                }
            });
            woken.await.map_err(|_| Error::Timeout(self.timeout))?;
        }
    }

    /// Sends an item; waits while the server gives no credit.
    ///
    /// # Errors
    /// How the call ended, when it ended before; [`Error::TooLarge`] over 1 MiB; [`Error::Timeout`].
    pub async fn send(&mut self, item: Json) -> Result<(), Error> {
        let item = item.into_bytes();
        if item.len() > MESSAGE_MAX {
            return Err(Error::TooLarge);
        }
        loop {
            if let Some(result) = &self.result {
                return Err(result.as_ref().err().cloned().unwrap_or(Error::Closed));
            }
            {
                let mut state = self.pipe.lock();
                if state.sending.len() < SENDING_MAX {
                    state.sending.push_back(item);
                    break;
                }
            }
            let Self { pipe, answer, result, .. } = self;
            let woken = timeout_at(self.deadline, async {
                tokio::select! {
                    answered = answer => *result = Some(answered),
                    () = pipe.writable.notified() => {}
                }
            });
            woken.await.map_err(|_| Error::Timeout(self.timeout))?;
        }
        self.answer.touch();
        Ok(())
    }

    /// Says that there are no more items of this side.
    pub fn end(&mut self) {
        self.pipe.lock().is_ended = true;
        self.answer.touch();
    }

    /// The answer, after the items. Items of the server that were not taken are dropped.
    ///
    /// # Errors
    /// How the call ended, when it did not end well. [`Error::Timeout`].
    pub async fn result(mut self) -> Result<Json, Error> {
        while self.next().await?.is_some() {}
        match self.result.take() {
            Some(Ok(response)) => Ok(Json::new(response.result)),
            Some(Err(error)) => Err(error),
            None => Err(Error::Closed),
        }
    }
}
