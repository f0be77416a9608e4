//! A connection that is always there again: a session serves the queue, and when it breaks the next one is opened.

use std::sync::Arc;
use std::time::{Duration, Instant};

use super::StoreOptions;
use super::dispatch::Dispatch;
use super::pipeline::Pipeline;
use super::session;

/// The pause before the first new try, and the longest one. Postgres is back in 0.2 s after a restart.
const BACK_OFF: (Duration, Duration) = (Duration::from_millis(50), Duration::from_secs(5));

/// The longest pause while a statement waits for a connection.
const BACK_OFF_WANTED: Duration = Duration::from_millis(250);

/// A session that lived this long was a good one: the next pause is short again.
const GOOD_AFTER: Duration = Duration::from_secs(5);

/// Keeps a line of the queue served, for ever.
pub(super) async fn supervise(options: StoreOptions, dispatch: Arc<Dispatch>, line: usize) {
    let access = dispatch.access;
    let mut pause = BACK_OFF.0;
    loop {
        match session::open(&options, access).await {
            Ok(session) => {
                let opened = Instant::now();
                let dispatch = Arc::clone(&dispatch);
                Pipeline::serve(dispatch, line, session, &options).await;
                tracing::warn!(?access, "a connection to Postgres broke: opening another one");
                if opened.elapsed() >= GOOD_AFTER {
                    pause = BACK_OFF.0;
                }
            }
            Err(error) => tracing::warn!(?access, %error, "no connection to Postgres"),
        }
        let short = jittered(pause.min(BACK_OFF_WANTED));
        let rest = jittered(pause).saturating_sub(short);
        crate::time::sleep(short).await;
        tokio::select! {
            () = crate::time::sleep(rest) => {}
            () = dispatch.wanted.notified() => {}
        }
        pause = pause.saturating_mul(2).min(BACK_OFF.1);
    }
}

/// Between a half and the whole of a pause, so that many daemons do not come back at one moment.
pub(super) fn jittered(pause: Duration) -> Duration {
    let mut byte = [u8::MAX];
    // Without randomness the pause is merely not spread.
    let _ = getrandom::fill(&mut byte);
    pause / 2 + (pause / 2) * u32::from(byte[0]) / u32::from(u8::MAX)
}
