//! What a connection does for its calls.

use super::{Driver, flows};
use crate::{
    api,
    rpc::{Answer, Call, Reply, Status},
    server::{
        calls,
        messages::{rpc_error, rpc_response},
        stages::Stopwatch,
        transport::{ReadHalf, WriteHalf},
    },
    wire::{
        ErrorCode,
        envelope::{Publish, RpcCall},
    },
};
use std::time::Duration;

impl<R: ReadHalf, W: WriteHalf> Driver<R, W> {
    pub(super) fn on_call(&mut self, stream: u32, call: RpcCall, opened_at: Duration) {
        let Some(context) = &mut self.established else { return };
        let limits = &self.shared.config.limits;
        if self.calls.len() >= usize::from(limits.calls_per_connection) {
            let message = "too many calls are still running on this connection";
            self.answer(stream, Err(Status::new(ErrorCode::RATE_LIMITED, message)));
            return;
        }
        let limit = if call.streams == 0 { limits.call_deadline } else { limits.stream_deadline }.get();
        let deadline = match call.deadline_ms {
            0 => limit,
            ms => Duration::from_millis(ms.into()).min(limit),
        };
        calls::reuse(&mut context.cancelled);
        context.deadline = Some(deadline);
        context.metadata = call.metadata;
        let stopwatch = call.times.then(|| Stopwatch::start(&self.shared.clock, self.read_at, opened_at));
        let has_items = call.streams != 0;
        let call = Call {
            method: call.method,
            encoding: call.encoding,
            args: call.args,
            idempotency_key: call.idempotency_key,
            items: self.flows.open(stream, call.streams, deadline),
        };
        let reply = self.shared.router.dispatch(context, call);
        context.metadata = Vec::new();
        let reply = match stopwatch {
            Some(stopwatch) => stopwatch.follow(reply),
            None => reply,
        };
        match reply {
            Reply::Ready(result) if has_items => self.finish(stream, result),
            Reply::Ready(result) => self.answer(stream, result),
            Reply::Pending(work) => {
                let cancelled = std::mem::take(&mut context.cancelled);
                self.calls.start(stream, work, cancelled, deadline);
                // And its items are waited for.
                self.advance(stream);
            }
        }
    }

    /// The caller wants no answer. The work is stopped and then answered: its slot is free no sooner.
    pub(super) fn on_cancelled(&mut self, stream: u32) {
        if self.flows.cancel(stream) {
            self.answer(stream, Err(flows::cancelled()));
        } else {
            self.calls.cancel(stream);
        }
    }

    pub(super) fn on_items(&mut self, output: flows::Output) {
        match output {
            flows::Output::Advance(stream) => self.advance(stream),
            flows::Output::Ask => self.flows.ask(&mut self.connection),
            flows::Output::OutOfTime(stream) => {
                let message = "the deadline passed before the items were taken";
                self.answer(stream, Err(Status::new(ErrorCode::TIMEOUT, message)));
            }
        }
    }

    /// Sends items of a call, and its answer when they are all sent.
    pub(super) fn advance(&mut self, stream: u32) {
        if let Some(result) = self.flows.advance(stream, &mut self.connection) {
            self.answer(stream, result);
        }
    }

    /// A handler answered: its items go first.
    pub(super) fn finish(&mut self, stream: u32, result: Result<Answer, Status>) {
        match self.flows.answer(stream, result) {
            Some(result) => self.answer(stream, result),
            None => self.advance(stream),
        }
    }

    /// An event is a call by another frame.
    pub(super) fn on_publish(&mut self, stream: u32, publish: Publish, opened_at: Duration) {
        match api::publish_args(&publish) {
            Err(status) => self.answer(stream, Err(status)),
            Ok(args) => {
                let call = RpcCall {
                    method: api::PUBLISH.into(),
                    args,
                    deadline_ms: publish.deadline_ms,
                    idempotency_key: publish.idempotency_key,
                    ..RpcCall::default()
                };
                self.on_call(stream, call, opened_at);
            }
        }
    }

    pub(super) fn answer(&mut self, stream: u32, result: Result<Answer, Status>) {
        let sent = match result {
            Ok(answer) => self.connection.respond(stream, &rpc_response(answer)),
            Err(status) => self.connection.respond_error(stream, &rpc_error(status)),
        };
        if let Err(misuse) = sent
            && self.connection.is_open()
        {
            tracing::error!(stream, %misuse, "an answer had no stream to go to");
        }
    }
}
