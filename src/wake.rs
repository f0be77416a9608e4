//! A task that something wakes, and that says so once.
//!
//! Whoever waits for several things at a time asks all of them again each time that one has come, and each is told again
//! whom to wake: two locked instructions, which are as much as a frame costs. Nearly always it is the same task as before.
//! So what wakes keeps whom it has woken, and who waits remembers that it was told.

use std::sync::{Mutex, MutexGuard, PoisonError};
use std::task::{Context, Waker};

/// Who is woken. To wake does not forget it.
#[derive(Debug, Default)]
pub(crate) struct Listener(Mutex<Option<Waker>>);

impl Listener {
    fn lock(&self) -> MutexGuard<'_, Option<Waker>> {
        // A waker is put there whole.
        self.0.lock().unwrap_or_else(PoisonError::into_inner)
    }

    /// Wakes the task, if there is one. What it is woken for has to be there before.
    pub(crate) fn wake(&self) {
        // Woken without the lock: what that does is its own affair.
        let waker = self.lock().clone();
        if let Some(waker) = waker {
            waker.wake();
        }
    }

    /// From now on the task of `context` is woken, and no other one. Says whether that is new: what came before was told to
    /// somebody else, or to nobody, and has to be looked for.
    pub(crate) fn listen(&self, standing: &mut Standing, context: &Context<'_>) -> bool {
        let is_new = !standing.is_of(context);
        if is_new {
            *self.lock() = Some(context.waker().clone());
            standing.set(context);
        }
        is_new
    }
}

/// What a task remembers of whom it was that is woken: one place for one source, and kept by whoever asks it.
#[derive(Debug, Default)]
pub(crate) struct Standing(Option<Waker>);

impl Standing {
    /// Whether the task of `context` is woken already.
    pub(crate) fn is_of(&self, context: &Context<'_>) -> bool {
        self.0.as_ref().is_some_and(|waker| waker.will_wake(context.waker()))
    }

    /// The task of `context` is woken from now on.
    pub(crate) fn set(&mut self, context: &Context<'_>) {
        self.0 = Some(context.waker().clone());
    }

    /// Nobody may be woken any more.
    pub(crate) fn clear(&mut self) {
        self.0 = None;
    }
}

#[cfg(test)]
mod tests {
    use super::*;
    use std::sync::Arc;
    use std::sync::atomic::{AtomicUsize, Ordering};
    use std::task::Wake;

    #[derive(Default)]
    struct Count(AtomicUsize);

    impl Wake for Count {
        fn wake(self: Arc<Self>) {
            self.0.fetch_add(1, Ordering::Relaxed);
        }
    }

    #[test]
    fn a_task_says_it_once_and_is_woken_each_time() {
        let (listener, mut standing) = (Listener::default(), Standing::default());
        listener.wake();
        let (first, second) = (Arc::new(Count::default()), Arc::new(Count::default()));
        let (a, b) = (Waker::from(Arc::clone(&first)), Waker::from(Arc::clone(&second)));
        assert!(listener.listen(&mut standing, &Context::from_waker(&a)));
        for _ in 0..3 {
            listener.wake();
            assert!(!listener.listen(&mut standing, &Context::from_waker(&a)));
        }
        assert_eq!(first.0.load(Ordering::Relaxed), 3);
        // It is moved to another task.
        assert!(listener.listen(&mut standing, &Context::from_waker(&b)));
        listener.wake();
        assert_eq!((first.0.load(Ordering::Relaxed), second.0.load(Ordering::Relaxed)), (3, 1));
        standing.clear();
        assert!(listener.listen(&mut standing, &Context::from_waker(&b)));
    }
}
