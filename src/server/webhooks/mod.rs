//! Webhooks: the changes of tables, posted to URLs. This daemon sends those whose lease it holds, each in a task of its own with a
//! subscription of its own, so that a receiver that is slow holds up nobody else; and its queue is bounded like that of any
//! subscriber, the rest waits in the change log.

mod attempt;
mod dial;
mod pause;
mod retries;
mod sender;
mod tls;

use std::collections::HashMap;
use std::sync::Arc;
use std::time::Duration;

use tokio::sync::{Notify, watch};
use tokio::task::JoinHandle;
use tokio::time::Instant;

use crate::store::feed::Feed;
use crate::store::webhooks::{Held, LEASE, WebhookId, Webhooks};
use crate::store::{Store, StoreError};
use crate::time::{sleep, timeout};

use sender::Context;

pub(super) use dial::Dialer;
pub use tls::{TlsError, check_ca_file};

/// How often the leases are renewed, and what an operator did is seen: several times in a lease, so that one try may fail.
const ROUND_EVERY: Duration = Duration::from_secs(2);

/// How long before its end a lease counts as ended here: what is on the wire then reaches the receiver before another daemon begins.
const LEASE_SLACK: Duration = Duration::from_secs(2);

/// How long the senders may take to end when the daemon does: an attempt that is under way is waited for, but not a slow one.
const STOP_DEADLINE: Duration = Duration::from_secs(5);

/// A webhook that this daemon sends.
struct Running {
    epoch: i64,
    task: JoinHandle<()>,
    /// There are dead letters to send again.
    retries: Arc<Notify>,
}

/// The part of the daemon that sends webhooks.
pub(super) struct WebhookSender {
    stop: watch::Sender<bool>,
    task: JoinHandle<()>,
}

impl WebhookSender {
    /// Starts to send.
    ///
    /// # Errors
    /// [`StoreError::Internal`]: the system gives no randomness.
    pub(super) fn start(store: &Store, feed: &Feed, dialer: Dialer) -> Result<Self, StoreError> {
        let (stop, stopping) = watch::channel(false);
        let (valid, valid_until) = watch::channel(Instant::now());
        let context = Context {
            store: Arc::new(Webhooks::of_store(store)?),
            feed: feed.clone(),
            dialer: Arc::new(dialer),
            valid_until,
            stopping,
        };
        let rounds = Rounds { context, valid, running: HashMap::new() };
        Ok(Self { stop, task: tokio::spawn(rounds.run()) })
    }

    /// Ends the senders and lets go of the leases, so that another daemon goes on at once.
    pub(super) async fn stop(self) {
        self.stop.send_replace(true);
        if let Err(error) = self.task.await {
            tracing::error!(%error, "the webhooks failed");
        }
    }
}

/// Takes webhooks, and looks after those that are taken.
struct Rounds {
    context: Context,
    valid: watch::Sender<Instant>,
    running: HashMap<WebhookId, Running>,
}

impl Rounds {
    async fn run(mut self) {
        let mut stopping = self.context.stopping.clone();
        loop {
            if let Err(error) = self.round().await {
                tracing::debug!(%error, "the leases of the webhooks were not renewed");
            }
            tokio::select! {
                biased;
                _ = stopping.wait_for(|stop| *stop) => break,
                () = sleep(ROUND_EVERY) => {}
            }
        }
        self.end().await;
    }

    async fn round(&mut self) -> Result<(), StoreError> {
        let begun = Instant::now();
        let standing = self.context.store.renew().await?;
        self.valid.send_replace(begun + LEASE.saturating_sub(LEASE_SLACK));
        let mut dropped = Vec::new();
        for id in self.running.keys().cloned().collect::<Vec<_>>() {
            let Some(running) = self.running.get(&id) else { continue };
            let found = standing.iter().find(|standing| standing.id == id);
            match found {
                Some(standing) if standing.epoch == running.epoch && !running.task.is_finished() => {
                    if standing.retry {
                        running.retries.notify_one();
                    }
                }
                found => {
                    if found.is_none() {
                        dropped.push(id.clone());
                    }
                    self.cut(&id).await;
                }
            }
        }
        if !dropped.is_empty() {
            self.context.store.release(Some(&dropped)).await?;
        }
        let again: Vec<WebhookId> = standing
            .into_iter()
            .map(|standing| standing.id)
            .filter(|id| !self.running.contains_key(id))
            .collect();
        for held in self.context.store.take(&again).await? {
            self.start(held).await;
        }
        Ok(())
    }

    async fn start(&mut self, held: Held) {
        // Two senders of one webhook would break its order.
        self.cut(&held.id).await;
        tracing::info!(webhook = %held.id, table = %held.table, "sending a webhook");
        let (id, epoch, retries) = (held.id.clone(), held.epoch, Arc::new(Notify::new()));
        let task = tokio::spawn(sender::run(self.context.clone(), held, Arc::clone(&retries)));
        self.running.insert(id, Running { epoch, task, retries });
    }

    /// Ends a sender, and waits until it has ended.
    async fn cut(&mut self, id: &WebhookId) {
        let Some(running) = self.running.remove(id) else { return };
        running.task.abort();
        if let Err(error) = running.task.await
            && error.is_panic()
        {
            tracing::error!(webhook = %id, "the sender of a webhook panicked: this is a bug");
        }
    }

    async fn end(&mut self) {
        let until = Instant::now() + STOP_DEADLINE;
        for (id, mut running) in self.running.drain() {
            let left = until.saturating_duration_since(Instant::now());
            if timeout(left, &mut running.task).await.is_err() {
                tracing::debug!(webhook = %id, "an attempt was cut off");
                running.task.abort();
                let _cut = running.task.await;
            }
        }
        if let Err(error) = self.context.store.release(None).await {
            tracing::debug!(%error, "the leases of the webhooks end by themselves");
        }
    }
}
