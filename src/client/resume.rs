//! The task's side of subscriptions: what each has received, and how it goes on after an end.

use super::error::{CallError, Error};
use super::link::Link;
use super::reconnect::{Backoff, ReconnectPolicy};
use super::subscription::{Item, Queue, Source, SubscribeOptions, note};
use crate::conn::{ApiMisuse, stream_map::StreamMap};
use crate::wire::ErrorCode;
use crate::wire::envelope::{Event as EventMessage, EventKind, Overflow, RpcError, Subscribe, Subscribed};
use std::{collections::BTreeMap, num::NonZeroU32, sync::Arc, time::Duration};
use tokio::{sync::oneshot, time::Instant};

/// A subscription as the task of the connection knows it.
pub(super) struct Entry {
    pub(super) id: u64,
    pub(super) options: SubscribeOptions,
    pub(super) queue: Arc<Queue>,
    /// Answered once, when the server has taken or refused it for the first time.
    pub(super) started: Option<oneshot::Sender<Result<(), Error>>>,
    phase: Phase,
    /// Behind everything that was queued; `None` while only a new start is possible.
    resume: Option<String>,
    /// An interrupted snapshot left items in the queue.
    has_partial_snapshot: bool,
    /// The first position, or the one after a reset, is told to the consumer; that of a resumption is known to it.
    tells_position: bool,
    /// Items the server may still send.
    credit: usize,
    backoff: Backoff,
}

#[derive(Clone, Copy, Debug, PartialEq, Eq)]
enum Phase {
    /// To be subscribed, not before this time.
    Waiting(Option<Instant>),
    /// SUBSCRIBE is sent.
    Asked(u32),
    /// Between SUBSCRIBED and its second one.
    Snapshot(u32),
    /// Changes come.
    Live(u32),
}

/// The peer did not keep to the protocol.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub(super) struct Breach(pub(super) &'static str);

const WITHOUT_CREDIT: Breach = Breach("an EVENT without credit");

impl Entry {
    pub(super) fn new(
        id: u64,
        options: SubscribeOptions,
        queue: Arc<Queue>,
        started: oneshot::Sender<Result<(), Error>>,
    ) -> Self {
        Self {
            id,
            resume: options.cursor.clone(),
            options,
            queue,
            started: Some(started),
            phase: Phase::Waiting(None),
            has_partial_snapshot: false,
            tells_position: true,
            credit: 0,
            backoff: Backoff::new(ReconnectPolicy::default()),
        }
    }

    fn stream(&self) -> Option<u32> {
        match self.phase {
            Phase::Waiting(_) => None,
            Phase::Asked(stream) | Phase::Snapshot(stream) | Phase::Live(stream) => Some(stream),
        }
    }

    fn request(&mut self) -> Subscribe {
        self.credit = self.queue.room(0);
        let (table, topic) = match self.options.source.clone() {
            Source::Table(table) => (table, None),
            Source::Topic(topic) => (String::new(), Some(topic)),
        };
        Subscribe {
            table,
            filter: self.options.filter.clone().map(super::Json::into_bytes).unwrap_or_default(),
            cursor: self.resume.clone(),
            snapshot: self.options.snapshot,
            overflow: self.options.overflow,
            credit: u32::try_from(self.credit).unwrap_or(u32::MAX),
            topic,
        }
    }

    fn on_subscribed(&mut self, subscribed: Subscribed) -> Result<(), Breach> {
        let cursor = subscribed.cursor;
        match (self.phase, subscribed.snapshot_end) {
            (Phase::Asked(stream), false) => {
                if let Some(started) = self.started.take() {
                    let _ = started.send(Ok(()));
                }
                if self.tells_position {
                    self.tells_position = false;
                    self.queue.push([Item::Position { cursor: cursor.clone() }]);
                }
                if self.options.snapshot && self.resume.is_none() {
                    self.phase = Phase::Snapshot(stream);
                } else {
                    self.phase = Phase::Live(stream);
                    self.resume.get_or_insert(cursor);
                }
                Ok(())
            }
            (Phase::Snapshot(stream), true) => {
                self.phase = Phase::Live(stream);
                self.has_partial_snapshot = false;
                self.resume = Some(cursor.clone());
                self.backoff.reset();
                self.queue.push([Item::SnapshotEnd { cursor }]);
                Ok(())
            }
            // A quiet subscription is told where it stands, so that its position does not grow too old.
            // A second snapshot of a table that has become empty.
            (Phase::Live(stream), true) if self.options.overflow == Overflow::Resnapshot => {
                self.begin_again(stream);
                self.on_subscribed(Subscribed { cursor, snapshot_end: true })
            }
            (Phase::Live(_), false) => {
                self.resume = Some(cursor.clone());
                self.queue.push([Item::Position { cursor }]);
                Ok(())
            }
            _ => Err(Breach("SUBSCRIBED out of its turn")),
        }
    }

    /// Takes an item, and those that came behind it.
    fn on_items(
        &mut self,
        first: EventMessage,
        mut more: impl FnMut() -> Option<EventMessage>,
    ) -> Result<(), Breach> {
        let mut next = Some(first);
        while let Some(event) = next {
            next = if matches!(self.phase, Phase::Live(_)) && event.kind != EventKind::Snapshot {
                self.on_changes(event, &mut more)?
            } else {
                self.on_item(event)?;
                more()
            };
        }
        Ok(())
    }

    /// Takes changes, all that there are: the queue is locked once for them. Gives the item that ends them, if there is one.
    fn on_changes(
        &mut self,
        first: EventMessage,
        more: &mut impl FnMut() -> Option<EventMessage>,
    ) -> Result<Option<EventMessage>, Breach> {
        let Self { queue, credit, resume, .. } = self;
        let (mut next, mut result) = (Some(first), Ok(None));
        queue.push(std::iter::from_fn(|| {
            let event = next.take().or_else(&mut *more)?;
            if event.kind == EventKind::Snapshot {
                result = Ok(Some(event));
                return None;
            }
            let Some(left) = credit.checked_sub(1) else {
                result = Err(WITHOUT_CREDIT);
                return None;
            };
            *credit = left;
            note(resume, &event.cursor);
            Some(Item::Event(event.into()))
        }));
        self.backoff.reset();
        result
    }

    fn on_item(&mut self, event: EventMessage) -> Result<(), Breach> {
        self.credit = self.credit.checked_sub(1).ok_or(WITHOUT_CREDIT)?;
        match (self.phase, event.kind) {
            (Phase::Snapshot(_), EventKind::Snapshot) => {
                self.has_partial_snapshot = true;
                self.queue.push([Item::Snapshot(event.into())]);
            }
            (Phase::Live(stream), EventKind::Snapshot) if self.options.overflow == Overflow::Resnapshot => {
                self.begin_again(stream);
                self.has_partial_snapshot = true;
                self.queue.push([Item::Snapshot(event.into())]);
            }
            _ => return Err(Breach("an EVENT of a kind that is out of its turn")),
        }
        Ok(())
    }

    /// This end fell behind, and the server sends a new snapshot on the same stream.
    fn begin_again(&mut self, stream: u32) {
        self.phase = Phase::Snapshot(stream);
        self.resume = None;
        self.queue.push([Item::Reset { reason: "this end fell behind; a new snapshot follows".to_owned() }]);
    }

    /// The stream ended without fault of the request: go on after a pause.
    fn wait(&mut self, pause: Duration) {
        if self.has_partial_snapshot {
            self.restart("the snapshot was interrupted");
        }
        self.phase = Phase::Waiting((!pause.is_zero()).then(|| Instant::now() + pause));
    }

    /// Nothing that was received leads on.
    fn restart(&mut self, reason: &str) {
        self.resume = None;
        self.has_partial_snapshot = false;
        self.tells_position = true;
        self.queue.push([Item::Reset { reason: reason.to_owned() }]);
    }

    /// The server ended the stream; `Err` when that is the end of the subscription.
    fn on_error(&mut self, error: RpcError) -> Result<(), Error> {
        // The first answer is the caller's: whether to try again is not for us to decide.
        let is_first = self.started.is_some();
        match error.code {
            ErrorCode::GOING_AWAY => self.wait(Duration::ZERO),
            ErrorCode::RESET if !is_first || self.resume.is_some() => {
                let pause = if is_first { Duration::ZERO } else { self.backoff.next() };
                self.restart(&error.message);
                self.wait(pause);
            }
            _ if error.retryable && !is_first => {
                let asked = Duration::from_millis(u64::from(error.retry_after_ms));
                let pause = self.backoff.next().max(asked);
                self.wait(pause);
            }
            _ => return Err(Error::Call(CallError::from(error))),
        }
        Ok(())
    }

    fn end(mut self, error: Option<Error>) {
        if let (Some(started), Some(error)) = (self.started.take(), &error) {
            let _ = started.send(Err(error.clone()));
        }
        self.queue.end(error);
    }
}

/// The subscriptions of one client.
#[derive(Default)]
pub(super) struct Subscriptions {
    entries: BTreeMap<u64, Entry>,
    /// Streams of the connection in use.
    streams: StreamMap<u64>,
}

impl Subscriptions {
    pub(super) fn add(&mut self, entry: Entry) {
        self.entries.insert(entry.id, entry);
    }

    /// Whether some are served by the connection in use.
    pub(super) fn has_streams(&self) -> bool {
        !self.streams.is_empty()
    }

    /// When the next one is to be subscribed again.
    pub(super) fn next_due(&self) -> Option<Instant> {
        self.entries
            .values()
            .filter_map(|entry| if let Phase::Waiting(at) = entry.phase { at } else { None })
            .min()
    }

    /// Subscribes those whose time has come.
    pub(super) fn start_due(&mut self, link: &mut Link) {
        let now = link.instant();
        let is_due =
            |entry: &Entry| matches!(entry.phase, Phase::Waiting(at) if at.is_none_or(|at| at <= now));
        let due: Vec<u64> =
            self.entries.values().filter(|entry| is_due(entry)).map(|entry| entry.id).collect();
        for id in due {
            let Some(entry) = self.entries.get_mut(&id) else { continue };
            let request = entry.request();
            let error = match link.connection.subscribe(&request) {
                Ok(stream) => {
                    entry.phase = Phase::Asked(stream);
                    self.streams.insert(stream, id);
                    continue;
                }
                Err(ApiMisuse::MessageTooLarge) => Error::TooLarge,
                Err(ApiMisuse::TooManyStreams) => Error::TooManySubscriptions,
                // The connection is ending.
                Err(_) => return,
            };
            self.end(id, Some(error));
        }
    }

    pub(super) fn on_subscribed(&mut self, stream: u32, subscribed: Subscribed) -> Result<(), Breach> {
        self.of_stream(stream).map_or(Ok(()), |entry| entry.on_subscribed(subscribed))
    }

    /// An item came, and what `more` gives behind it.
    pub(super) fn on_items(
        &mut self,
        stream: u32,
        first: EventMessage,
        more: impl FnMut() -> Option<EventMessage>,
    ) -> Result<(), Breach> {
        self.of_stream(stream).map_or(Ok(()), |entry| entry.on_items(first, more))
    }

    fn of_stream(&mut self, stream: u32) -> Option<&mut Entry> {
        self.streams.get(stream).and_then(|id| self.entries.get_mut(id))
    }

    pub(super) fn on_error(&mut self, stream: u32, error: RpcError) {
        let Some(id) = self.streams.remove(stream) else { return };
        let Some(entry) = self.entries.get_mut(&id) else { return };
        if let Err(error) = entry.on_error(error) {
            self.end(id, Some(error));
        }
    }

    fn end(&mut self, id: u64, error: Option<Error>) {
        if let Some(entry) = self.entries.remove(&id) {
            entry.end(error);
        }
    }

    /// The consumer took items: gives the server what room there is.
    pub(super) fn give_credit(&mut self, link: &mut Link, id: u64) {
        let Some(entry) = self.entries.get_mut(&id) else { return };
        let Some(stream) = entry.stream() else { return };
        let room = entry.queue.room(entry.credit);
        if let Some(items) = u32::try_from(room).ok().and_then(NonZeroU32::new)
            && link.connection.credit(stream, items).is_ok()
        {
            entry.credit += room;
        }
    }

    /// The consumer is gone.
    pub(super) fn drop_entry(&mut self, link: Option<&mut Link>, id: u64) {
        let Some(entry) = self.entries.remove(&id) else { return };
        if let (Some(stream), Some(link)) = (entry.stream(), link) {
            self.streams.remove(stream);
            // What still comes on the stream is nobody's until the server confirms.
            let _ = link.connection.unsubscribe(stream);
        }
    }

    /// The connection is over.
    pub(super) fn on_loss(&mut self) {
        self.streams = StreamMap::default();
        for entry in self.entries.values_mut() {
            // One that waits for its time waits on.
            if entry.stream().is_some() {
                entry.wait(Duration::ZERO);
            }
        }
    }

    /// Ends all of them.
    pub(super) fn fail(&mut self, error: Option<&Error>) {
        self.streams = StreamMap::default();
        for entry in std::mem::take(&mut self.entries).into_values() {
            entry.end(error.cloned());
        }
    }
}

#[cfg(test)]
mod tests {
    use super::*;
    use std::num::NonZeroU16;

    fn entry(options: SubscribeOptions) -> Entry {
        let queue = Arc::new(Queue::new(options.window));
        Entry::new(1, options, queue, oneshot::channel().0)
    }

    fn asked(window: u16) -> Entry {
        let window = NonZeroU16::new(window).unwrap();
        let mut entry = entry(SubscribeOptions { window, ..SubscribeOptions::new("t") });
        assert_eq!(entry.request().credit, u32::from(window.get()));
        entry.phase = Phase::Asked(1);
        entry
    }

    fn event(kind: EventKind, cursor: &str) -> EventMessage {
        EventMessage {
            cursor: cursor.into(),
            kind,
            id: "1".into(),
            data: None,
            old: None,
            version: 1,
            dropped: 0,
            omitted: 0,
            lag: 0,
        }
    }

    fn subscribed(cursor: &str, snapshot_end: bool) -> Subscribed {
        Subscribed { cursor: cursor.into(), snapshot_end }
    }

    #[test]
    fn a_server_that_sends_more_than_its_credit_is_found() {
        let mut entry = asked(2);
        entry.on_subscribed(subscribed("0", false)).unwrap();
        entry.on_items(event(EventKind::Snapshot, "0"), || None).unwrap();
        entry.on_items(event(EventKind::Snapshot, "0"), || None).unwrap();
        assert_eq!(entry.on_items(event(EventKind::Snapshot, "0"), || None), Err(WITHOUT_CREDIT));
    }

    #[test]
    fn changes_that_come_together_are_taken_together_and_in_order() {
        let live = |credit| {
            let mut entry = asked(credit);
            entry.on_subscribed(subscribed("0", false)).unwrap();
            entry.on_subscribed(subscribed("0", true)).unwrap();
            entry.queue.drain();
            entry
        };
        let changes = |kinds: [EventKind; 3]| {
            kinds.into_iter().zip(["1", "2", "3"]).map(|(kind, cursor)| event(kind, cursor))
        };
        let cursors = |entry: &Entry| -> Vec<String> {
            let cursor = |item| match item {
                Item::Event(change) => change.cursor,
                other => format!("{other:?}"),
            };
            entry.queue.drain().into_iter().map(cursor).collect()
        };
        let mut entry = live(3);
        let mut came = changes([EventKind::Insert; 3]);
        let first = came.next().unwrap();
        entry.on_items(first, || came.next()).unwrap();
        assert_eq!(
            (cursors(&entry), entry.resume.as_deref()),
            (vec!["1".into(), "2".into(), "3".into()], Some("3"))
        );
        // What was within the credit is the consumer's, and what is wrong behind it is found.
        for (credit, last) in [(2, EventKind::Insert), (3, EventKind::Snapshot)] {
            let mut entry = live(credit);
            let mut came = changes([EventKind::Insert, EventKind::Insert, last]);
            let first = came.next().unwrap();
            assert!(entry.on_items(first, || came.next()).is_err());
            assert_eq!((cursors(&entry), entry.resume.as_deref()), (vec!["1".into(), "2".into()], Some("2")));
        }
    }

    #[test]
    fn what_comes_out_of_its_turn_is_found() {
        assert!(asked(9).on_subscribed(subscribed("0", true)).is_err());
        assert!(asked(9).on_items(event(EventKind::Snapshot, "0"), || None).is_err());
        let mut entry = asked(9);
        entry.on_subscribed(subscribed("0", false)).unwrap();
        assert!(entry.on_subscribed(subscribed("0", false)).is_err());
        assert!(entry.on_items(event(EventKind::Insert, "1"), || None).is_err());
        entry.on_subscribed(subscribed("0", true)).unwrap();
        assert!(entry.on_items(event(EventKind::Snapshot, "0"), || None).is_err());
        assert!(entry.on_subscribed(subscribed("0", true)).is_err());
    }

    #[test]
    fn the_position_to_resume_from_follows_what_is_queued() {
        let mut entry = asked(9);
        entry.on_subscribed(subscribed("0", false)).unwrap();
        entry.on_items(event(EventKind::Snapshot, "0"), || None).unwrap();
        assert_eq!(entry.resume, None, "a snapshot cannot be resumed");
        entry.on_subscribed(subscribed("0", true)).unwrap();
        assert_eq!(entry.resume.as_deref(), Some("0"));
        entry.on_items(event(EventKind::Insert, "1"), || None).unwrap();
        entry.wait(Duration::ZERO);
        let request = entry.request();
        assert_eq!(request.cursor.as_deref(), Some("1"));
        // Two items are queued and hold their part of the window.
        assert_eq!(request.credit, 7);
    }

    #[test]
    fn a_second_snapshot_is_a_reset_and_only_with_its_policy() {
        let live = |overflow| {
            let mut entry = entry(SubscribeOptions { overflow, ..SubscribeOptions::new("t") });
            entry.request();
            entry.phase = Phase::Asked(1);
            entry.on_subscribed(subscribed("0", false)).unwrap();
            entry.on_subscribed(subscribed("0", true)).unwrap();
            entry.on_items(event(EventKind::Insert, "1"), || None).unwrap();
            entry
        };
        let kinds = |entry: &Entry| {
            let items = entry.queue.drain();
            let name = |item: &Item| match item {
                Item::Position { .. } => "position",
                Item::Snapshot(_) => "snapshot",
                Item::SnapshotEnd { .. } => "end",
                Item::Event(_) => "event",
                Item::Reset { .. } => "reset",
            };
            items.iter().map(name).collect::<Vec<_>>()
        };
        let mut again = live(Overflow::Resnapshot);
        again.on_subscribed(subscribed("s", false)).unwrap();
        again.on_items(event(EventKind::Snapshot, "s"), || None).unwrap();
        assert_eq!(again.resume, None, "it cannot be resumed inside of the second one either");
        assert!(again.on_items(event(EventKind::Insert, "2"), || None).is_err());
        again.on_subscribed(subscribed("2", true)).unwrap();
        assert_eq!(again.resume.as_deref(), Some("2"));
        assert_eq!(kinds(&again), ["position", "end", "event", "reset", "snapshot", "end"]);

        let mut empty = live(Overflow::Resnapshot);
        empty.on_subscribed(subscribed("s", false)).unwrap();
        empty.on_subscribed(subscribed("2", true)).unwrap();
        assert_eq!(kinds(&empty), ["position", "end", "event", "reset", "end"]);

        for other in [Overflow::Close, Overflow::DropOldest, Overflow::Block, Overflow::Conflate] {
            assert!(live(other).on_items(event(EventKind::Snapshot, "s"), || None).is_err());
            assert!(live(other).on_subscribed(subscribed("2", true)).is_err());
        }
    }

    #[test]
    fn a_first_refusal_is_the_callers_and_a_later_one_is_waited_out() {
        let error = |code, retryable| RpcError {
            code,
            message: String::new(),
            retryable,
            retry_after_ms: 0,
            details: bytes::Bytes::new(),
        };
        assert!(asked(9).on_error(error(ErrorCode::SERVICE_UNAVAILABLE, true)).is_err());
        let mut entry = asked(9);
        entry.on_subscribed(subscribed("0", false)).unwrap();
        entry.on_error(error(ErrorCode::SERVICE_UNAVAILABLE, true)).unwrap();
        assert!(matches!(entry.phase, Phase::Waiting(_)));
        entry.phase = Phase::Asked(3);
        assert!(entry.on_error(error(ErrorCode::PERMISSION_DENIED, false)).is_err());
    }
}
