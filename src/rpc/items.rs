//! Items of a call: the pipes between a handler and whoever has its connection. Both are bounded, and who holds the
//! other end decides when they move: that is how credit reaches a handler.

use bytes::Bytes;
use std::sync::{
    Arc,
    atomic::{AtomicU32, Ordering},
};
use tokio::sync::{Notify, mpsc};

pub use crate::wire::envelope::{CLIENT_ITEMS, SERVER_ITEMS};

/// Items of a client that may be under way or wait for the handler, on one call: the pipe holds as many, so that an item
/// that was asked for always has a place. Each may be a message of 1 MiB.
pub const CLIENT_ITEMS_WINDOW: u32 = 16;

/// Chunks that wait between a handler and its connection: one that is sent and one that is made meanwhile.
const CHUNKS_MAX: usize = 1;

/// Nobody takes items any more: the call was cancelled, or is out of time.
#[derive(Debug, Clone, Copy, PartialEq, Eq, thiserror::Error)]
#[error("nobody takes items of this call any more")]
pub struct Gone;

/// Where a handler puts the items of its answer.
#[derive(Debug)]
pub struct ItemSender(mpsc::Sender<Vec<Bytes>>);

impl ItemSender {
    /// Hands over a chunk of items, in order; waits until the one before is on its way. A chunk is memory that waits for
    /// the client: keep it to some tens of KiB, or one item.
    ///
    /// # Errors
    /// [`Gone`]: the handler should end.
    pub async fn send(&self, chunk: Vec<Bytes>) -> Result<(), Gone> {
        self.0.send(chunk).await.map_err(|_| Gone)
    }

    /// Waits until nobody takes items any more: for a handler that has other things to wait for.
    pub async fn gone(&self) {
        self.0.closed().await;
    }
}

/// How many items a handler can take more, for whoever tells the client.
#[derive(Debug)]
pub struct Demand {
    items: AtomicU32,
    bell: Arc<Notify>,
}

impl Demand {
    fn add(&self, items: u32) {
        // At most the window is asked for in all, so that the sum fits.
        self.items.fetch_add(items, Ordering::AcqRel);
        self.bell.notify_one();
    }

    /// Takes what was asked for since the last time.
    pub fn take(&self) -> u32 {
        self.items.swap(0, Ordering::AcqRel)
    }
}

/// Where a handler finds the items of its client.
#[derive(Debug)]
pub struct ItemReceiver {
    items: mpsc::Receiver<Bytes>,
    demand: Arc<Demand>,
    /// Items that were taken and not yet asked for anew; the whole window before the first.
    taken: u32,
}

impl ItemReceiver {
    /// The next item; `None` after the last one. The client is asked for items when this is first called.
    pub async fn recv(&mut self) -> Option<Bytes> {
        if self.taken >= CLIENT_ITEMS_WINDOW / 2 {
            self.demand.add(std::mem::take(&mut self.taken));
        }
        let item = self.items.recv().await;
        self.taken += u32::from(item.is_some());
        item
    }
}

/// A call's items, as its handler has them.
#[derive(Debug, Default)]
pub struct Items {
    /// Of the client.
    pub client: Option<ItemReceiver>,
    /// Of the answer.
    pub server: Option<ItemSender>,
}

impl Items {
    /// The directions that there are: [`CLIENT_ITEMS`], [`SERVER_ITEMS`].
    pub(super) fn directions(&self) -> u8 {
        let bit = |is_there: bool, bit: u8| if is_there { bit } else { 0 };
        bit(self.client.is_some(), CLIENT_ITEMS) | bit(self.server.is_some(), SERVER_ITEMS)
    }
}

/// The other ends.
#[derive(Debug, Default)]
pub struct ItemPipes {
    /// Takes items of the client: never more than were asked for.
    pub client: Option<(mpsc::Sender<Bytes>, Arc<Demand>)>,
    /// Gives items of the answer; `None` after the handler dropped its end.
    pub server: Option<mpsc::Receiver<Vec<Bytes>>>,
}

/// Makes the pipes for `directions`. The bell rings when a handler asks for items.
pub fn items(directions: u8, bell: &Arc<Notify>) -> (Items, ItemPipes) {
    let (mut items, mut pipes) = (Items::default(), ItemPipes::default());
    if directions & CLIENT_ITEMS != 0 {
        let places = usize::try_from(CLIENT_ITEMS_WINDOW).unwrap_or(usize::MAX);
        let (sender, receiver) = mpsc::channel(places);
        let demand = Arc::new(Demand { items: AtomicU32::new(0), bell: Arc::clone(bell) });
        let taken = CLIENT_ITEMS_WINDOW;
        items.client = Some(ItemReceiver { items: receiver, demand: Arc::clone(&demand), taken });
        pipes.client = Some((sender, demand));
    }
    if directions & SERVER_ITEMS != 0 {
        let (sender, receiver) = mpsc::channel(CHUNKS_MAX);
        items.server = Some(ItemSender(sender));
        pipes.server = Some(receiver);
    }
    (items, pipes)
}

#[cfg(test)]
mod tests {
    use super::*;

    #[tokio::test]
    async fn a_handler_asks_for_the_window_and_then_for_what_it_took() {
        let bell = Arc::new(Notify::new());
        let (items, pipes) = items(CLIENT_ITEMS, &bell);
        assert_eq!(items.directions(), CLIENT_ITEMS);
        let (sender, demand) = pipes.client.expect("asked for");
        let mut receiver = items.client.expect("asked for");
        assert_eq!(demand.take(), 0);
        for _ in 0..CLIENT_ITEMS_WINDOW {
            sender.try_send(Bytes::from_static(b"x")).expect("there is a place for each");
        }
        receiver.recv().await.expect("an item");
        assert_eq!(demand.take(), CLIENT_ITEMS_WINDOW);
        for _ in 1..CLIENT_ITEMS_WINDOW {
            receiver.recv().await.expect("an item");
        }
        // The half that was taken since is asked for with the next look.
        drop(sender);
        assert_eq!(receiver.recv().await, None);
        assert_eq!(demand.take(), CLIENT_ITEMS_WINDOW);
    }

    #[tokio::test]
    async fn a_sender_learns_that_nobody_takes_items() {
        let (items, pipes) = items(SERVER_ITEMS, &Arc::new(Notify::new()));
        let sender = items.server.expect("asked for");
        assert_eq!(sender.send(vec![Bytes::new()]).await, Ok(()));
        drop(pipes);
        assert_eq!(sender.send(Vec::new()).await, Err(Gone));
        sender.gone().await;
    }
}
