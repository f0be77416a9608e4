//! The subscriptions of one connection: pulled from the feed while the peer has given credit, so that a slow reader
//! fills its own bounded queue and nothing else.

use super::{running::Running, shared::Counted};
use crate::{
    auth::{self, Access, Denied, Principal, TopicRight},
    conn::stream_map::StreamMap,
    rpc::Status,
    store::{
        StoreError,
        feed::{Feed, Given, Source, SubscribeRequest, Subscription},
    },
};
use futures_util::future::{AbortHandle, Abortable, Aborted, BoxFuture, abortable};

/// Items pulled at once: enough to fill a record, few enough to stay in the cache.
const PULL_MAX: usize = 256;

/// One subscription's place in the connection.
struct Entry {
    source: Source,
    state: State,
    _counted: Counted,
}

enum State {
    /// In the hands of a future in `running`, which is dropped when nobody wants it any more: of a quiet table it would bring
    /// nothing for as long as the connection lives, and its subscription would stay with the feed.
    Running(AbortHandle),
    /// Waits for credit.
    Parked(Box<Subscription>),
}

/// A future of `running`.
type Pull = Abortable<BoxFuture<'static, Pulled>>;

/// What it brings.
enum Pulled {
    Opened(u32, Result<Box<Subscription>, StoreError>),
    Items(u32, Box<Subscription>, Given),
}

/// What the connection has to do.
pub(super) enum Output {
    /// The subscription could not be opened.
    Refused(u32, Status),
    /// What to send, in order.
    Items(u32, Given),
}

/// Whether somebody may see what a source gives out. Judged by the rules of the moment: when the subscription is opened, for
/// every batch of events, and when the rules change.
pub(super) fn authorise_source(
    access: &Access,
    principal: &Principal,
    source: &Source,
) -> Result<(), Denied> {
    match source {
        Source::Table(name) => auth::authorise_event(access, principal, name.as_str()),
        Source::Topic(name) => {
            auth::authorise_topic(access, principal, name.as_str(), TopicRight::Subscribe).map(drop)
        }
    }
}

/// All subscriptions of one connection.
#[derive(Default)]
pub(super) struct Subscriptions {
    entries: StreamMap<Entry>,
    running: Running<Pull>,
}

impl Subscriptions {
    /// Starts to open one.
    pub(super) fn open(&mut self, stream: u32, counted: Counted, feed: Feed, request: SubscribeRequest) {
        let source = request.source.clone();
        let pull: BoxFuture<'static, Pulled> =
            Box::pin(async move { Pulled::Opened(stream, feed.subscribe(request).await.map(Box::new)) });
        let (pull, handle) = abortable(pull);
        self.running.push(pull);
        self.entries.insert(stream, Entry { source, state: State::Running(handle), _counted: counted });
    }

    /// Lets a subscription go on while there is credit: call it when credit came or items were sent.
    pub(super) fn resume(&mut self, stream: u32, credit: u32) {
        if credit == 0 {
            return;
        }
        let Some(entry) = self.entries.get_mut(stream) else { return };
        if matches!(entry.state, State::Running(_)) {
            return;
        }
        let max = usize::try_from(credit).unwrap_or(usize::MAX).min(PULL_MAX);
        let (handle, registration) = AbortHandle::new_pair();
        if let State::Parked(mut subscription) = std::mem::replace(&mut entry.state, State::Running(handle)) {
            let pull: BoxFuture<'static, Pulled> = Box::pin(async move {
                let items = subscription.next_given(max).await;
                Pulled::Items(stream, subscription, items)
            });
            self.running.push(Abortable::new(pull, registration));
        }
    }

    /// Forgets a subscription: what is on its way for it is dropped.
    pub(super) fn remove(&mut self, stream: u32) {
        if let Some(Entry { state: State::Running(pull), .. }) = self.entries.remove(stream) {
            pull.abort();
        }
    }

    /// Every subscription and what it reads.
    pub(super) fn sources(&self) -> impl Iterator<Item = (u32, &Source)> {
        self.entries.iter().map(|(stream, entry)| (stream, &entry.source))
    }

    /// What a subscription reads.
    pub(super) fn source(&self, stream: u32) -> Option<&Source> {
        self.entries.get(stream).map(|entry| &entry.source)
    }

    /// Whether [`next`](Self::next) may bring something.
    pub(super) fn is_running(&self) -> bool {
        !self.running.is_empty()
    }

    /// Gives back what it holds for subscriptions, if there are none.
    pub(super) fn rest(&mut self) {
        self.running.rest();
    }

    /// Waits for something to send. Waits for ever when nothing runs. Cancel-safe.
    pub(super) async fn next(&mut self) -> Output {
        loop {
            match self.running.next().await {
                None => std::future::pending().await,
                // Nobody wants it any more.
                Some(Err(Aborted)) => {}
                Some(Ok(pulled)) => match pulled {
                    Pulled::Opened(stream, Ok(subscription)) => {
                        if let Some(entry) = self.entries.get_mut(stream) {
                            entry.state = State::Parked(subscription);
                            // The position costs no credit, so the first pull does not wait for any.
                            self.resume(stream, 1);
                        }
                    }
                    Pulled::Opened(stream, Err(error)) => {
                        if self.entries.remove(stream).is_some() {
                            return Output::Refused(stream, error.into());
                        }
                    }
                    Pulled::Items(stream, subscription, items) => {
                        if let Some(entry) = self.entries.get_mut(stream) {
                            entry.state = State::Parked(subscription);
                            return Output::Items(stream, items);
                        }
                    }
                },
            }
        }
    }
}
