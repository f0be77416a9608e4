//! Notifications between the daemons of one database, so that a write through one is seen at once by the others.
//!
//! NOTIFY takes a lock on the whole instance until its transaction ends, so it is never part of a write: it is sent here,
//! after the commits, once for many of them. It loses nothing when it is lost: the tailers look by themselves.

use std::sync::Arc;
use std::sync::atomic::{AtomicI32, Ordering};
use std::time::Duration;

use super::Shared;
use super::link::{Backoff, Link, LinkError};
use super::log::{ANSWER_DEADLINE, in_time};
use crate::time::sleep;

/// The least time between two notifications. Each takes a transaction id.
const EVERY: Duration = Duration::from_millis(20);

/// Listening. The session acknowledges its notifications before they are on disk: after a crash nobody needs them.
const LISTEN: &str = "SET synchronous_commit = off; LISTEN raystream_changes";

const NOTIFY: &str = "NOTIFY raystream_changes";

/// Listens and notifies for ever.
pub(super) async fn listen(shared: Arc<Shared>) {
    let mut backoff = Backoff::new();
    loop {
        match serve(&shared, &mut backoff).await {
            Ok(()) => tracing::debug!("the connection for notifications ended"),
            Err(error) => tracing::debug!(%error, "no connection for notifications"),
        }
        backoff.pause().await;
    }
}

/// Serves one connection to its end.
async fn serve(shared: &Arc<Shared>, backoff: &mut Backoff) -> Result<(), LinkError> {
    // Our own notifications come back to us; the tailer knew before.
    let own = Arc::new(AtomicI32::new(0));
    let opened = in_time(ANSWER_DEADLINE, async {
        let (heard, from) = (Arc::clone(shared), Arc::clone(&own));
        let link = Link::open(&shared.endpoint, move |sender| {
            if sender != from.load(Ordering::Relaxed) {
                heard.heard.notify_one();
            }
        })
        .await?;
        let process: i32 = link.client.query_typed_one("SELECT pg_backend_pid()", &[]).await?.try_get(0)?;
        own.store(process, Ordering::Relaxed);
        link.client.batch_execute(LISTEN).await?;
        Ok::<_, LinkError>(link)
    });
    let link = opened.await?;
    backoff.reset();
    // What was written before we listened.
    shared.heard.notify_one();
    loop {
        tokio::select! {
            () = link.ended() => return Ok(()),
            () = shared.outgoing.notified() => {
                in_time(ANSWER_DEADLINE, link.client.batch_execute(NOTIFY)).await?;
            }
        }
        sleep(EVERY).await;
    }
}
