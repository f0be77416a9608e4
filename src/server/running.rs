//! A set of futures that takes no memory before the first one.

use futures_util::{StreamExt, stream::FuturesUnordered};

/// Most connections never need the set, or need it for a moment, and the library's takes 170 bytes and more while it is
/// empty.
pub(super) struct Running<F>(Option<FuturesUnordered<F>>);

impl<F> Default for Running<F> {
    fn default() -> Self {
        Self(None)
    }
}

impl<F: Future> Running<F> {
    /// Adds one.
    pub(super) fn push(&mut self, future: F) {
        self.0.get_or_insert_default().push(future);
    }

    /// How many there are.
    pub(super) fn len(&self) -> usize {
        self.0.as_ref().map_or(0, FuturesUnordered::len)
    }

    /// Whether there is none.
    pub(super) fn is_empty(&self) -> bool {
        self.len() == 0
    }

    /// What the next one that is done gives; `None` when there is none. Cancel-safe.
    pub(super) async fn next(&mut self) -> Option<F::Output> {
        match &mut self.0 {
            Some(running) => running.next().await,
            None => None,
        }
    }

    /// Gives the memory back, if there is none in it.
    pub(super) fn rest(&mut self) {
        if self.is_empty() {
            self.0 = None;
        }
    }
}

impl<F: Unpin> Running<F> {
    /// All of them.
    pub(super) fn iter(&self) -> impl Iterator<Item = &F> {
        self.0.iter().flatten()
    }
}
