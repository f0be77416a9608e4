//! What a connection does for its subscriptions.

use super::Driver;
use crate::{
    api,
    conn::ApiMisuse,
    rpc::Status,
    server::{
        messages::{end_status, event_message, prepared_event, rpc_error, source},
        shared::Counted,
        subscriptions::{Output, authorise_source},
        transport::{ReadHalf, WriteHalf},
    },
    store::{
        Json,
        feed::{Given, Item, Overflow, SharedChange, SubscribeRequest},
    },
    wire::{
        ErrorCode,
        envelope::{self, Subscribe, Subscribed},
        prepared::PreparedEvent,
    },
};
use bytes::Bytes;

/// The filter of a subscription. Whether it is JSON is found out later; anything but an object would match documents that are no
/// objects, by rules that no other method has.
fn filter(text: Bytes) -> Result<Option<Json>, Status> {
    match text.iter().find(|byte| !byte.is_ascii_whitespace()) {
        None if text.is_empty() => Ok(None),
        Some(b'{') => Ok(Some(Json::new(text))),
        _ => Err(Status::invalid("the filter has to be a JSON object")),
    }
}

impl<R: ReadHalf, W: WriteHalf> Driver<R, W> {
    pub(super) fn on_subscribe(&mut self, stream: u32, subscribe: Subscribe) {
        match self.open_subscription(stream, subscribe) {
            Ok(()) => {}
            Err(status) => self.end_subscription(stream, status),
        }
    }

    pub(super) fn open_subscription(&mut self, stream: u32, subscribe: Subscribe) -> Result<(), Status> {
        let Some(established) = &self.established else { return Ok(()) };
        let source = source(&subscribe)?;
        let caller = &established.caller;
        authorise_source(&caller.access.load(), &caller.principal, &source)?;
        let max = self.shared.config.limits.subscriptions;
        let counted =
            Counted::take(&self.shared, |counters| &counters.subscriptions, max).ok_or_else(|| {
                Status::new(ErrorCode::RATE_LIMITED, "the server has no place for more subscriptions")
            })?;
        let filter = filter(subscribe.filter)?;
        let request = SubscribeRequest {
            source,
            filter,
            cursor: subscribe.cursor,
            snapshot: subscribe.snapshot,
            overflow: match subscribe.overflow {
                envelope::Overflow::DropOldest => Overflow::DropOldest,
                envelope::Overflow::Block => Overflow::Block,
                envelope::Overflow::Conflate => Overflow::Conflate,
                envelope::Overflow::Resnapshot => Overflow::Resnapshot,
                _ => Overflow::Close,
            },
        };
        let feed = self.shared.feed.clone();
        self.subscriptions.open(stream, counted, feed, request);
        Ok(())
    }

    /// There is credit, for a call or for a subscription.
    pub(super) fn resume(&mut self, stream: u32) {
        self.advance(stream);
        let credit = self.connection.subscription_credit(stream).unwrap_or(0);
        self.subscriptions.resume(stream, credit);
    }

    pub(super) fn on_subscription(&mut self, output: Output) {
        match output {
            Output::Refused(stream, status) => self.end_subscription(stream, status),
            Output::Items(stream, items) => {
                if let Err(status) = self.authorise_events(stream) {
                    self.end_subscription(stream, status);
                    return;
                }
                match items {
                    Given::Items(items) => {
                        for item in items {
                            self.send_item(stream, item);
                        }
                    }
                    Given::Changes(changes) => self.send_changes(stream, &changes),
                }
                self.resume(stream);
            }
        }
    }

    /// Every batch of events is judged by the rules of its moment.
    pub(super) fn authorise_events(&self, stream: u32) -> Result<(), Status> {
        match (&self.established, self.subscriptions.source(stream)) {
            (Some(api::Context { caller, .. }), Some(source)) => {
                Ok(authorise_source(&caller.access.load(), &caller.principal, source)?)
            }
            _ => Ok(()),
        }
    }

    pub(super) fn send_item(&mut self, stream: u32, item: Item) {
        let sent = match item {
            Item::Position { cursor } => {
                let subscribed = Subscribed { cursor: cursor.to_string(), snapshot_end: false };
                self.connection.send_subscribed(stream, &subscribed)
            }
            Item::SnapshotEnd { cursor } => {
                let subscribed = Subscribed { cursor: cursor.to_string(), snapshot_end: true };
                self.connection.send_subscribed(stream, &subscribed)
            }
            Item::Snapshot(change) | Item::Event(change) => {
                self.connection.send_event(stream, &event_message(change))
            }
            Item::Ended { reason, cursor } => {
                self.end_subscription(stream, end_status(reason, cursor.as_deref()));
                Ok(())
            }
        };
        self.on_sent(stream, sent);
    }

    /// Sends changes, each from what was written for all who are given it.
    fn send_changes(&mut self, stream: u32, changes: &[SharedChange]) {
        // Changes that come together are mostly of one length; where not, the memory grows as it has to.
        let len = changes.first().and_then(prepared_event).and_then(PreparedEvent::frame_len);
        self.connection.make_room(len.unwrap_or(0).saturating_mul(changes.len()));
        for change in changes {
            let sent = match prepared_event(change) {
                Some(event) => self.connection.send_prepared(stream, event, change.lag),
                None => self.connection.send_event(stream, &event_message(change.to_change())),
            };
            if !self.on_sent(stream, sent) {
                return;
            }
        }
    }

    /// Ends a subscription of which an item could not be sent; says whether it goes on.
    fn on_sent(&mut self, stream: u32, sent: Result<(), ApiMisuse>) -> bool {
        if let Err(misuse) = &sent
            && self.connection.is_open()
        {
            tracing::error!(stream, %misuse, "an item of a subscription could not be sent");
            self.end_subscription(stream, Status::internal());
        }
        sent.is_ok()
    }

    pub(super) fn end_subscription(&mut self, stream: u32, status: Status) {
        self.subscriptions.remove(stream);
        // The peer may have unsubscribed at the same moment: then it has its answer.
        let _gone_already = self.connection.end_subscription(stream, &rpc_error(status));
    }
}
