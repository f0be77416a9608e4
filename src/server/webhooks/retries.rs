//! Dead letters that an operator wants sent again: each once, beside the live events, whose turn they do not take.

use std::convert::Infallible;
use std::sync::Arc;

use tokio::sync::Notify;

use super::attempt::{Line, Outcome};
use super::sender::Context;
use crate::store::webhooks::Held;

/// Sends what is asked for, for as long as it is polled.
pub(super) async fn run(context: Context, held: Arc<Held>, asked: Arc<Notify>) -> Infallible {
    let mut line = Line::new(context.dialer.clone());
    loop {
        asked.notified().await;
        // Away: the next round asks again.
        while let Ok(Some((event, body))) = context.store.next_retry(&held).await {
            let outcome = line.post(&held, &event, &body.into()).await;
            let error = match outcome {
                Outcome::Delivered => None,
                Outcome::Gone => Some("the receiver answered 410".to_owned()),
                Outcome::Failed { error, .. } => Some(error),
            };
            match &error {
                None => tracing::info!(webhook = %held.id, event, "a dead letter was delivered"),
                Some(error) => {
                    tracing::warn!(webhook = %held.id, event, error, "a dead letter was not delivered")
                }
            }
            if !context.store.retried(&held, &event, error.as_deref()).await.unwrap_or(false) {
                break;
            }
        }
    }
}
