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
/// Bytes of items that may wait for the reader, about: as soon as it is known how long they are, so many are asked for. Enough
/// for a link of 50 ms at 600 Mbit/s.
const WAITING_BYTES: usize = 4 * 1024 * 1024;
/// Items that are asked for before that is known.
const FIRST_ITEMS: u32 = 16;
/// A length counts as much as this many before it, unless it is the longest.
const LEN_MEMORY: usize = 7;
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
    /// Items of the server that may wait for the reader. Fewer are asked for when they are long: about 4 MiB of them wait, or
    /// the first sixteen.
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
    /// Items that may wait here.
    window: u32,
    /// Asked for, and not taken by the reader.
    open: u32,
    /// How long an item is: as the last ones, and no shorter than the last.
    len: usize,
    sending: VecDeque<Bytes>,
    /// The caller has no more items.
    is_ended: bool,
    /// The server was told.
    is_end_sent: bool,
}

impl PipeState {
    /// Items that may be asked for and not taken.
    fn items(&self) -> u32 {
        let by_bytes = match self.len {
            0 => FIRST_ITEMS,
            len => u32::try_from(WAITING_BYTES / len).unwrap_or(u32::MAX).max(1),
        };
        by_bytes.min(self.window)
    }

    /// How many more to ask for: none before there is room for half of them, so that a CREDIT stands for many.
    fn due(&self) -> u32 {
        let items = self.items();
        let room = items.saturating_sub(self.open);
        if room >= items.div_ceil(2) { room } else { 0 }
    }
}

impl Pipe {
    /// The pipe of a call; `window` items of the server may wait, none when it sends none.
    fn new(window: u32) -> Self {
        let state = PipeState { window, ..PipeState::default() };
        Self { state: Mutex::new(state), ..Self::default() }
    }

    fn lock(&self) -> MutexGuard<'_, PipeState> {
        self.state.lock().unwrap_or_else(PoisonError::into_inner)
    }

    /// An item came.
    pub(super) fn receive(&self, item: Bytes) {
        let mut state = self.lock();
        let mean = (state.len * LEN_MEMORY + item.len()) / (LEN_MEMORY + 1);
        state.len = if state.len == 0 { item.len() } else { mean.max(item.len()) };
        state.received.push_back(item);
        drop(state);
        self.readable.notify_one();
    }

    /// Credit to give to the server, if there is room for some.
    pub(super) fn take_credit(&self) -> Option<NonZeroU32> {
        let mut state = self.lock();
        let due = NonZeroU32::new(state.due())?;
        state.open += due.get();
        Some(due)
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
        let direction = |is_there: bool, bit: u8| if is_there { bit } else { 0 };
        let window = if options.receives { options.window.get().min(CREDIT_MAX) } else { 0 };
        let (handle, pipe) = (self.handle(), Arc::new(Pipe::new(window)));
        let call = RpcCall {
            method: method.into(),
            args: args.into_bytes(),
            idempotency_key: options.idempotency_key.map(|key| key.0),
            metadata: options.metadata,
            streams: direction(options.sends, CLIENT_ITEMS) | direction(options.receives, SERVER_ITEMS),
            // The call carries the first credit.
            credit: pipe.take_credit().map_or(0, NonZeroU32::get),
            ..RpcCall::default()
        };
        let call = PendingCall::new(call, deadline, timeout, Some(Arc::clone(&pipe)));
        let answer = handle.make(call).await?;
        Ok(CallStream { pipe, answer, result: None, deadline, timeout, _handle: handle })
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
                state.open = state.open.saturating_sub(u32::from(item.is_some()));
                (item, state.due() > 0)
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

#[cfg(test)]
mod tests {
    use super::*;

    fn take(pipe: &Pipe) -> usize {
        let mut state = pipe.lock();
        state.open -= 1;
        state.received.pop_front().expect("an item").len()
    }

    /// Receives all that was asked for, takes all of it, and asks again: what waited at most, in bytes, and what was asked for
    /// at last.
    fn rounds(pipe: &Pipe, len: usize, count: usize) -> (usize, u32) {
        let (mut most, mut last) = (0, pipe.take_credit().map_or(0, NonZeroU32::get));
        for _ in 0..count {
            (0..last).for_each(|_| pipe.receive(Bytes::from(vec![0; len])));
            most = most.max((0..last).map(|_| take(pipe)).sum());
            last = pipe.take_credit().map_or(0, NonZeroU32::get);
        }
        (most, last)
    }

    #[test]
    fn what_waits_for_the_reader_is_bounded_by_items_and_by_bytes() {
        let (_, asked) = rounds(&Pipe::new(256), 100, 4);
        assert_eq!(asked, 256, "short ones are asked for by the window");
        let (most, asked) = rounds(&Pipe::new(256), MESSAGE_MAX, 4);
        assert_eq!((most, asked), (16 * MESSAGE_MAX, 4), "and long ones by their bytes");
        let pipe = Pipe::new(256);
        rounds(&pipe, 100, 4);
        // Once they are longer than before the first of them says so.
        pipe.receive(Bytes::from(vec![0; MESSAGE_MAX]));
        assert_eq!(pipe.lock().items(), 4);
        assert_eq!(Pipe::new(1).take_credit(), NonZeroU32::new(1));
        assert_eq!(Pipe::new(0).take_credit(), None, "of a call that receives nothing");
    }

    #[test]
    fn credit_is_given_for_half_of_the_items_at_once() {
        let pipe = Pipe::new(8);
        assert_eq!(pipe.take_credit(), NonZeroU32::new(8));
        (0..8).for_each(|_| pipe.receive(Bytes::from_static(b"{}")));
        let taken: Vec<usize> = (0..3).map(|_| take(&pipe)).collect();
        assert_eq!(taken, [2, 2, 2]);
        assert_eq!(pipe.take_credit(), None);
        take(&pipe);
        assert_eq!(pipe.take_credit(), NonZeroU32::new(4));
    }
}
