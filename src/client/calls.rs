//! Calls in flight: who waits for which stream, and what becomes of them when the connection is lost.
//!
//! Here a call runs at most once. When a connection is lost, calls of which no byte can have left this process are made
//! again on the next one, and so are calls that the server says it has not taken (GOAWAY, GOING_AWAY). Every other call ends
//! with [`Error::UnknownOutcome`]: it may have run. Whether it is sent again nevertheless, `retry` decides.

use super::error::{CallError, Error};
use super::link::Link;
use super::stream::Pipe;
use crate::conn::{ApiMisuse, ConnectionError, stream_map::StreamMap};
use crate::wire::ErrorCode;
use crate::wire::envelope::{RpcCall, RpcError, RpcResponse};
use bytes::Bytes;
use std::collections::VecDeque;
use std::sync::Arc;
use tokio::{sync::oneshot, time::Instant};

/// A call on its way to the server.
pub(super) struct CallCommand {
    pub(super) id: u64,
    pub(super) call: RpcCall,
    /// When the caller stops waiting.
    pub(super) deadline: Instant,
    pub(super) reply: oneshot::Sender<Result<RpcResponse, Box<Failed>>>,
    /// The items of a call that has some.
    pub(super) pipe: Option<Arc<Pipe>>,
}

/// A call that failed comes back with its error, so that nothing is copied for an attempt that may follow.
#[derive(Debug)]
pub(super) struct Failed {
    pub(super) error: Error,
    /// `None` when it was never looked at, because the client is over.
    pub(super) call: Option<RpcCall>,
}

impl CallCommand {
    pub(super) fn fail(self, error: Error) {
        let failed = Failed { error, call: Some(self.call) };
        // Nobody waits any more: nobody is to be told.
        let _ = self.reply.send(Err(Box::new(failed)));
    }
}

struct InFlight {
    command: CallCommand,
    /// [`Link::writes`] when the call was handed to the connection.
    opened_at: u64,
}

/// The calls of one client.
#[derive(Default)]
pub(super) struct Calls {
    in_flight: StreamMap<InFlight>,
    /// Not sent, or not taken: to be made on the next connection, before new ones. At most one connection's worth.
    again: VecDeque<CallCommand>,
}

impl Calls {
    pub(super) fn in_flight(&self) -> usize {
        self.in_flight.len()
    }

    pub(super) fn pop_again(&mut self) -> Option<CallCommand> {
        self.again.pop_front()
    }

    /// Hands a call to the connection.
    ///
    /// # Errors
    /// The connection takes no more; the call waits to be made again.
    pub(super) fn start(&mut self, link: &mut Link, mut command: CallCommand) -> Result<(), ApiMisuse> {
        if command.reply.is_closed() {
            return Ok(());
        }
        let left = command.deadline.saturating_duration_since(Instant::now());
        command.call.deadline_ms = u32::try_from(left.as_millis()).unwrap_or(u32::MAX).max(1);
        match link.connection.call(&command.call) {
            Ok(stream) => {
                self.in_flight.insert(stream, InFlight { command, opened_at: link.writes() });
                self.move_items(link, stream);
            }
            Err(ApiMisuse::MessageTooLarge) => {
                command.fail(Error::TooLarge);
            }
            Err(error) => {
                self.again.push_front(command);
                return Err(error);
            }
        }
        Ok(())
    }

    pub(super) fn on_response(&mut self, stream: u32, response: RpcResponse) {
        if let Some(InFlight { command, .. }) = self.in_flight.remove(&stream) {
            let _ = command.reply.send(Ok(response));
        }
    }

    /// Says whether the stream is a call.
    pub(super) fn on_error(&mut self, stream: u32, error: RpcError) -> Result<(), RpcError> {
        let Some(InFlight { command, .. }) = self.in_flight.remove(&stream) else { return Err(error) };
        if error.code == ErrorCode::GOING_AWAY {
            self.again.push_back(command);
        } else {
            command.fail(Error::Call(CallError::from(error)));
        }
        Ok(())
    }

    /// Tells the server that nobody waits for this call. Its stream stays until it is answered.
    pub(super) fn cancel(&mut self, link: &mut Link, id: u64) {
        let found = self.in_flight.iter().find(|(_, in_flight)| in_flight.command.id == id);
        if let Some((stream, _)) = found {
            // The stream is open, and a connection that is ending needs no cancel.
            let _ = link.connection.cancel(*stream);
        }
    }

    /// An item of the server.
    pub(super) fn on_data(&mut self, stream: u32, item: Bytes) {
        let in_flight = self.in_flight.get(&stream);
        if let Some(pipe) = in_flight.and_then(|in_flight| in_flight.command.pipe.as_ref()) {
            pipe.receive(item);
        }
    }

    /// The caller took or gave items.
    pub(super) fn touch(&mut self, link: &mut Link, id: u64) {
        let found = self.in_flight.iter().find(|(_, in_flight)| in_flight.command.id == id);
        if let Some((stream, _)) = found {
            self.move_items(link, *stream);
        }
    }

    /// Sends items as far as there is credit, and gives credit for those that were taken.
    pub(super) fn move_items(&mut self, link: &mut Link, stream: u32) {
        let Some(InFlight { command, .. }) = self.in_flight.get(&stream) else { return };
        let Some(pipe) = &command.pipe else { return };
        if let Some(items) = pipe.take_credit(command.call.credit) {
            // The call may be given up, or the connection over: then there is nobody to tell.
            let _over = link.connection.credit(stream, items);
        }
        while link.connection.call_credit(stream).is_some_and(|credit| credit > 0)
            && let Some(item) = pipe.take_sending()
        {
            if link.connection.send_data(stream, item).is_err() {
                return;
            }
        }
        if pipe.take_end() {
            let _over = link.connection.end_data(stream);
        }
    }

    /// The connection is over.
    pub(super) fn on_loss(&mut self, link: &Link, last_taken: Option<u32>, cause: &ConnectionError) {
        let mut lost: Vec<_> = self.in_flight.drain().collect();
        lost.sort_unstable_by_key(|(stream, _)| *stream);
        for (stream, InFlight { command, opened_at }) in lost {
            let was_sent = opened_at != link.writes();
            let was_taken = last_taken.is_none_or(|last| stream <= last);
            if was_sent && was_taken {
                let method = command.call.method.clone();
                command.fail(Error::UnknownOutcome { method, cause: cause.clone() });
            } else if !command.reply.is_closed() {
                self.again.push_back(command);
            }
        }
    }

    /// Ends every call that waits.
    pub(super) fn fail(&mut self, error: &Error) {
        let waiting = self.in_flight.drain().map(|(_, in_flight)| in_flight.command);
        for command in waiting.chain(self.again.drain(..)) {
            command.fail(error.clone());
        }
    }
}
