//! What the server says of itself: its processor time and its memory, by `sys.info` on a connection of its own, so that a
//! server on another machine is measured too.

use std::time::Duration;

use serde::Deserialize;

use crate::cli::Output;
use crate::client::{Client, Json};
use crate::server::usage;

/// The fields of `sys.info` that are of interest here.
#[derive(Debug, Clone, Copy, Default, Deserialize)]
struct Info {
    cpu_ms: Option<u64>,
    rss_bytes: Option<u64>,
}

/// Processor time of both processes up to a moment.
#[derive(Debug, Clone, Copy)]
pub(super) struct Sample {
    own: Duration,
    server: Option<Duration>,
    pub(super) server_rss: Option<u64>,
}

/// Processor time between two moments.
#[derive(Debug, Clone, Copy)]
pub(super) struct Used {
    pub(super) own: Duration,
    /// `None` when the server does not tell.
    pub(super) server: Option<Duration>,
}

impl Sample {
    /// What was used since an earlier moment.
    pub(super) fn since(&self, earlier: &Self) -> Used {
        let server = self.server.zip(earlier.server).map(|(now, then)| now.saturating_sub(then));
        Used { own: self.own.saturating_sub(earlier.own), server }
    }
}

/// Asks the server.
pub(super) struct ServerSide {
    client: Client,
    does_tell: bool,
}

impl ServerSide {
    /// Finds out whether the server tells, and remarks when it does not.
    pub(super) async fn new(client: Client, output: &Output) -> Self {
        let mut side = Self { client, does_tell: true };
        let info = side.info().await;
        if info.cpu_ms.is_none() {
            output.note("the server does not tell its processor time (is `sys.info` granted to you?)");
            side.does_tell = false;
        }
        side
    }

    /// The connection, for other questions.
    pub(super) fn client(&self) -> &Client {
        &self.client
    }

    /// Both sides now.
    pub(super) async fn sample(&self) -> Sample {
        let info = if self.does_tell { self.info().await } else { Info::default() };
        Sample {
            own: usage::cpu_time(),
            server: info.cpu_ms.map(Duration::from_millis),
            server_rss: info.rss_bytes,
        }
    }

    async fn info(&self) -> Info {
        let answer = self.client.call_with("sys.info", Json::new("{}"), Default::default()).await;
        answer.and_then(|info| info.decode()).unwrap_or_default()
    }
}
