//! The way from a read of the log or a table to its subscription: pieces of bounded size, one waiting at most.

use std::time::Duration;

use tokio::sync::mpsc;
use tokio::time::Instant;

use super::change::{EndReason, Item};
use super::frontier::Frontier;
use crate::time::timeout_at;

/// How many items a piece has at most.
const PIECE_ITEMS: usize = 64;

/// How many bytes a piece has, about: one item more than fits.
const PIECE_BYTES: usize = 256 * 1024;

/// How long a read waits for a subscription that takes nothing. It holds a connection, and in Postgres a snapshot that
/// keeps old rows from being cleaned up.
const STALL: Duration = Duration::from_secs(10);

/// What a read sends.
#[derive(Debug)]
pub(super) enum Piece {
    /// Items, in order.
    Items(Vec<Item>),
    /// Everything up to this moment was sent.
    Done(Frontier),
    /// The subscription ends here.
    Ended(EndReason),
}

/// Why a piece was not sent.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub(super) enum Blocked {
    /// The subscription takes nothing. The piece is lost: read it again.
    Stalled,
    /// The subscription is gone.
    Closed,
}

/// The sending end.
#[derive(Debug)]
pub(super) struct Outlet {
    sender: mpsc::Sender<Piece>,
    items: Vec<Item>,
    bytes: usize,
    /// When the read has to be done.
    deadline: Option<Instant>,
}

/// Makes both ends.
pub(super) fn outlet() -> (Outlet, mpsc::Receiver<Piece>) {
    let (sender, receiver) = mpsc::channel(1);
    (Outlet { sender, items: Vec::new(), bytes: 0, deadline: None }, receiver)
}

impl Outlet {
    /// Sets when the read has to be done: from then on it counts as stalled.
    pub(super) fn limit(&mut self, whole: Duration) {
        self.deadline = Some(Instant::now() + whole);
    }

    /// Adds an item of about so many bytes. Whether the piece has to be sent now.
    #[must_use]
    pub(super) fn add(&mut self, item: Item, size: usize) -> bool {
        self.items.push(item);
        self.bytes += size;
        self.items.len() >= PIECE_ITEMS || self.bytes >= PIECE_BYTES
    }

    /// Sends what was added.
    pub(super) async fn send(&mut self) -> Result<(), Blocked> {
        if self.items.is_empty() {
            return Ok(());
        }
        let items = std::mem::take(&mut self.items);
        self.bytes = 0;
        let patience = Instant::now() + STALL;
        let until = self.deadline.map_or(patience, |deadline| deadline.min(patience));
        match timeout_at(until, self.sender.reserve()).await {
            Ok(Ok(place)) => {
                place.send(Piece::Items(items));
                Ok(())
            }
            Ok(Err(_)) => Err(Blocked::Closed),
            Err(_) => Err(Blocked::Stalled),
        }
    }

    /// Forgets what was added.
    pub(super) fn discard(&mut self) {
        self.items.clear();
        self.bytes = 0;
    }

    /// Waits, without a limit, until the subscription takes something. Whether it is still there.
    pub(super) async fn wanted(&self) -> bool {
        self.sender.reserve().await.is_ok()
    }

    /// Sends the last piece. It waits as long as it takes: nothing is held any more.
    pub(super) async fn finish(self, piece: Piece) {
        // A subscription that is gone needs no end.
        let _ = self.sender.send(piece).await;
    }
}
