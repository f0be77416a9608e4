//! The sender of one webhook: takes changes from its subscription, in order, and does not go on before the receiver has one or it is
//! given up.
//!
//! *At least once.* The position in the database moves only behind what was delivered, or was put among the dead letters with it in
//! one statement. A daemon that dies between an answer and the next write of the position sends those events again, under the
//! ids that they had.
//!
//! *One at a time.* A sender runs only within its lease, and what is on its way ends with that.

use std::sync::Arc;
use std::time::Duration;

use bytes::Bytes;
use serde_json::value::RawValue;
use tokio::sync::{Notify, watch};
use tokio::time::Instant;

use super::attempt::{Line, Outcome};
use super::dial::Dialer;
use super::{pause, retries};
use crate::store::feed::{
    Change, ChangeKind, EndReason, Feed, Item, Overflow, Source, SubscribeRequest, Subscription,
};
use crate::store::webhooks::{Failed, Held, Webhooks};
use crate::store::{Json, StoreError};
use crate::time::{sleep, sleep_until};
use crate::webhook::{WebhookChangeEvent, WebhookChangeKind};

/// Changes that are taken from the subscription at once; the position is written behind them.
const TAKEN_MAX: usize = 32;

/// After so long the position is written, though changes that were taken are still to be sent: what is sent again after a crash.
const SAVE_EVERY: Duration = Duration::from_millis(250);

/// How often the position of a table without changes is written: far less than what the log is kept.
const POSITION_EVERY: Duration = Duration::from_secs(60);

/// The pause when the database, or the table, is not there.
const AWAY_PAUSE: Duration = Duration::from_secs(2);

/// An event that is this old is given up with the next failure, whatever attempts are left: the log keeps no more by default.
const AGE_MAX: Duration = Duration::from_secs(24 * 60 * 60);

/// What all senders of a daemon share.
#[derive(Clone)]
pub(super) struct Context {
    pub(super) store: Arc<Webhooks>,
    pub(super) feed: Feed,
    pub(super) dialer: Arc<Dialer>,
    /// When the leases end unless they are renewed.
    pub(super) valid_until: watch::Receiver<Instant>,
    /// The daemon is to end.
    pub(super) stopping: watch::Receiver<bool>,
}

/// Why a sender goes no further: the webhook is not this daemon's any more, or is to be taken anew.
#[derive(Debug)]
struct Over;

/// Sends a webhook until its lease is over.
pub(super) async fn run(context: Context, held: Held, asked: Arc<Notify>) {
    let id = held.id.clone();
    let held = Arc::new(held);
    let mut sender = Sender::new(context.clone(), Arc::clone(&held));
    tokio::select! {
        biased;
        () = expired(context.valid_until.clone()) => {
            tracing::warn!(webhook = %id, "the lease of a webhook was not renewed: it is not sent from here any more");
        }
        Over = sender.run() => {}
        never = retries::run(context.clone(), held, asked) => match never {},
    }
}

/// Waits until the leases have ended.
async fn expired(mut valid_until: watch::Receiver<Instant>) {
    loop {
        let until = *valid_until.borrow_and_update();
        tokio::select! {
            () = sleep_until(until) => return,
            changed = valid_until.changed() => if changed.is_err() { return },
        }
    }
}

/// Waits until the daemon is to end.
async fn stopped(stopping: &mut watch::Receiver<bool>) {
    // Whoever would say so is gone: that is the end too.
    let _ended = stopping.wait_for(|stop| *stop).await;
}

struct Sender {
    context: Context,
    held: Arc<Held>,
    line: Line,
    /// Everything up to here needs no more sending.
    position: Arc<str>,
    /// What of that is not written yet: whether there is anything, and the number of events.
    is_dirty: bool,
    sent: i64,
    saved: Instant,
}

impl Sender {
    fn new(context: Context, held: Arc<Held>) -> Self {
        let line = Line::new(Arc::clone(&context.dialer));
        let position = held.position.as_str().into();
        Self { context, held, line, position, is_dirty: false, sent: 0, saved: Instant::now() }
    }

    async fn run(&mut self) -> Over {
        match self.follow().await {
            Err(over) => over,
            Ok(never) => match never {},
        }
    }

    async fn follow(&mut self) -> Result<std::convert::Infallible, Over> {
        if let Some((number, reason)) = self.held.reset.clone() {
            self.tell_reset(number, &reason).await?;
        }
        loop {
            let request = SubscribeRequest {
                source: Source::Table(self.held.table.clone()),
                filter: None,
                cursor: Some(self.position.to_string()),
                snapshot: false,
                overflow: Overflow::Block,
            };
            match self.context.feed.subscribe(request).await {
                // What waits is of the former one, and so is whatever nobody logged between the two.
                Ok(subscription) if subscription.log_name() != self.held.ptr => {
                    let reason = format!("the table `{}` was made, or attached, anew", self.held.table);
                    return self.lost(subscription.log_name(), &reason).await;
                }
                Ok(mut subscription) => {
                    subscription.say_position_every(POSITION_EVERY);
                    self.take(&mut subscription).await?;
                }
                Err(StoreError::NotFound) => {
                    let trouble = format!("there is no table `{}`", self.held.table);
                    self.written(Note::Trouble(&trouble)).await?;
                }
                Err(StoreError::InvalidInput(reason)) => {
                    let same = Arc::clone(&self.held);
                    return self.lost(&same.ptr, &reason).await;
                }
                Err(error) => {
                    tracing::debug!(webhook = %self.held.id, %error, "no subscription for a webhook")
                }
            }
            self.rest(AWAY_PAUSE).await?;
        }
    }

    /// Sends what a subscription gives, until it ends.
    async fn take(&mut self, subscription: &mut Subscription) -> Result<(), Over> {
        let mut stopping = self.context.stopping.clone();
        loop {
            let items = tokio::select! {
                biased;
                () = stopped(&mut stopping) => return Err(self.leave().await),
                items = subscription.next(TAKEN_MAX) => items,
            };
            if items.is_empty() {
                return Ok(());
            }
            for item in items {
                match item {
                    Item::Event(change) => self.change(&change).await?,
                    Item::Position { cursor } => self.advance(cursor),
                    // Without a snapshot there are none.
                    Item::Snapshot(_) | Item::SnapshotEnd { .. } => {}
                    Item::Ended { reason: EndReason::Reset(reason), .. } => {
                        let same = Arc::clone(&self.held);
                        self.lost(&same.ptr, &reason).await?;
                    }
                    Item::Ended { reason, .. } => {
                        tracing::debug!(webhook = %self.held.id, ?reason, "the subscription of a webhook ended");
                    }
                }
                if *stopping.borrow() {
                    return Err(self.leave().await);
                }
                if self.saved.elapsed() >= SAVE_EVERY {
                    self.save().await?;
                }
            }
            self.save().await?;
        }
    }

    /// Tells one change.
    async fn change(&mut self, change: &Change) -> Result<(), Over> {
        let operations = self.held.operations;
        let wanted = match change.kind {
            ChangeKind::Insert => operations.insert.then_some(WebhookChangeKind::Insert),
            ChangeKind::Update => operations.update.then_some(WebhookChangeKind::Update),
            ChangeKind::Delete => operations.delete.then_some(WebhookChangeKind::Delete),
            // Not without a filter, not of a table, and not after a snapshot.
            ChangeKind::Enter | ChangeKind::Leave | ChangeKind::Publish | ChangeKind::Snapshot => None,
        };
        let sequence = self.context.feed.sequence(&change.cursor);
        let (Some(kind), Some(sequence)) = (wanted, sequence) else {
            self.advance(Arc::clone(&change.cursor));
            return Ok(());
        };
        let event = WebhookChangeEvent {
            kind,
            table: self.held.table.as_str().to_owned(),
            id: Some(change.id.to_string()),
            data: image(&change.data),
            old_data: image(&change.old),
            version: Some(change.version),
            sequence: Some(sequence),
            reason: None,
        };
        let id = self.held.id.event(sequence);
        match self.deliver(&id, event.encode().into(), &change.cursor).await? {
            Told::Delivered => {
                self.advance(Arc::clone(&change.cursor));
                self.sent += 1;
            }
            Told::Buried => {
                self.position = Arc::clone(&change.cursor);
                (self.is_dirty, self.sent) = (false, 0);
            }
        }
        Ok(())
    }

    /// Tells the receiver that changes were lost to it.
    async fn tell_reset(&mut self, number: i64, reason: &str) -> Result<(), Over> {
        let event = WebhookChangeEvent {
            kind: WebhookChangeKind::Reset,
            table: self.held.table.as_str().to_owned(),
            id: None,
            data: None,
            old_data: None,
            version: None,
            sequence: None,
            reason: Some(reason.to_owned()),
        };
        let here = Arc::clone(&self.position);
        let id = self.held.id.reset(number);
        match self.deliver(&id, event.encode().into(), &here).await? {
            Told::Delivered => self.written(Note::ResetTold).await,
            Told::Buried => Ok(()),
        }
    }

    /// Sends a message until the receiver has it or it is given up; `behind` is the position then.
    async fn deliver(&mut self, event: &str, body: Bytes, behind: &str) -> Result<Told, Over> {
        let (mut attempts, mut begun) = (0, Instant::now());
        if let Some(trying) = self.held.trying.as_ref().filter(|trying| trying.event == event) {
            attempts = trying.attempts;
            begun = begun.checked_sub(trying.age).unwrap_or(begun);
            // Not longer than it could have been said: the clock of the database may have been set.
            self.rest(trying.pause.min(pause::LONGEST)).await?;
        }
        loop {
            let (error, retry_after) = match self.line.post(&self.held, event, &body).await {
                Outcome::Delivered => return Ok(Told::Delivered),
                Outcome::Gone => return Err(self.gone().await),
                Outcome::Failed { error, retry_after } => (error, retry_after),
            };
            attempts += 1;
            let failed = Failed { event, attempts, age: begun.elapsed(), error: &error };
            if attempts >= self.held.attempts_max || failed.age >= AGE_MAX {
                self.bury(&failed, &body, behind).await?;
                return Ok(Told::Buried);
            }
            let rest = pause::after(attempts, pause::random_fraction()).max(retry_after.unwrap_or_default());
            tracing::debug!(webhook = %self.held.id, event, attempts, error, ?rest, "a receiver does not take an event");
            self.written(Note::Failed(&failed, rest)).await?;
            (self.is_dirty, self.sent) = (false, 0);
            self.rest(rest).await?;
        }
    }

    async fn bury(&mut self, failed: &Failed<'_>, body: &Bytes, behind: &str) -> Result<(), Over> {
        let (event, attempts, error) = (failed.event, failed.attempts, failed.error);
        tracing::warn!(webhook = %self.held.id, event, attempts, error, "an event was given up: it is a dead letter");
        self.save().await?;
        self.written(Note::Died { behind, failed, body }).await
    }

    async fn gone(&mut self) -> Over {
        const REASON: &str = "the receiver answered 410: it wants nothing any more";
        tracing::warn!(webhook = %self.held.id, "a webhook is disabled: {REASON}");
        // Whether it was written or the lease was over, this is the end.
        let _over = self.written(Note::Gone(REASON)).await;
        Over
    }

    /// The log does not go back to the position, or the table is another one, `ptr`: with the oldest that is kept of it, and a
    /// message about it, from the next taking on.
    async fn lost<T>(&mut self, ptr: &str, reason: &str) -> Result<T, Over> {
        tracing::warn!(webhook = %self.held.id, reason, "a webhook lost changes: it goes on with the oldest that is kept");
        self.written(Note::Lost { ptr, reason }).await?;
        Err(Over)
    }

    fn advance(&mut self, position: Arc<str>) {
        if self.position != position {
            self.position = position;
            self.is_dirty = true;
        }
    }

    async fn save(&mut self) -> Result<(), Over> {
        if self.is_dirty {
            self.written(Note::Moved).await?;
            (self.is_dirty, self.sent) = (false, 0);
        }
        self.saved = Instant::now();
        Ok(())
    }

    /// The daemon ends: what was delivered is written down, if the database answers.
    async fn leave(&mut self) -> Over {
        if self.is_dirty {
            let _or_again = self.context.store.moved(&self.held, &self.position, self.sent).await;
        }
        Over
    }

    /// Writes something down, again and again while the database is away: the lease says for how long.
    async fn written(&mut self, note: Note<'_>) -> Result<(), Over> {
        loop {
            match self.write(&note).await {
                Ok(true) => return Ok(()),
                Ok(false) => return Err(Over),
                Err(error) => {
                    tracing::debug!(webhook = %self.held.id, %error, "the state of a webhook was not written")
                }
            }
            self.rest(AWAY_PAUSE).await?;
        }
    }

    async fn write(&self, note: &Note<'_>) -> Result<bool, StoreError> {
        let (store, held, position, sent) = (&self.context.store, &self.held, &self.position, self.sent);
        match note {
            Note::Moved => store.moved(held, position, sent).await,
            Note::Failed(failed, rest) => store.failed(held, position, sent, failed, *rest).await,
            Note::Died { behind, failed, body } => store.died(held, behind, failed, body).await,
            Note::Gone(reason) => store.gone(held, position, sent, reason).await,
            Note::Lost { ptr, reason } => store.lost(held, ptr, &store.oldest().await?, reason).await,
            Note::ResetTold => store.reset_told(held).await,
            Note::Trouble(error) => store.troubled(held, error).await,
        }
    }

    /// Waits, unless the daemon is to end.
    async fn rest(&mut self, time: Duration) -> Result<(), Over> {
        let mut stopping = self.context.stopping.clone();
        tokio::select! {
            biased;
            () = stopped(&mut stopping) => Err(self.leave().await),
            () = sleep(time) => Ok(()),
        }
    }
}

/// What is written down.
enum Note<'a> {
    /// How far it came.
    Moved,
    /// An attempt failed, and the next one comes after a pause.
    Failed(&'a Failed<'a>, Duration),
    /// An event is given up.
    Died { behind: &'a str, failed: &'a Failed<'a>, body: &'a [u8] },
    /// The receiver wants nothing any more.
    Gone(&'a str),
    /// The log does not go back far enough, or the table, which is `ptr` there, is another one.
    Lost { ptr: &'a str, reason: &'a str },
    /// The receiver knows that.
    ResetTold,
    /// Nothing can be sent, which is no event's fault.
    Trouble(&'a str),
}

/// What became of an event.
enum Told {
    /// The receiver has it.
    Delivered,
    /// It is a dead letter, and the position is behind it.
    Buried,
}

/// An image as an event has it: Postgres wrote it, so it is JSON.
fn image(json: &Option<Json>) -> Option<Box<RawValue>> {
    let text = String::from_utf8(json.as_ref()?.as_bytes().to_vec()).ok()?;
    RawValue::from_string(text).ok()
}
