//! The anomalies, each played to its end. They are named as in Hermitage; `x` is 10 and `y` is 20 at the start.

use futures_util::FutureExt;
use futures_util::future::LocalBoxFuture;

use crate::world::{Order, World, commit_both};

/// The numbers of the connections: who is called the first.
fn roles(order: Order) -> (usize, usize) {
    match order {
        Order::FirstCommitsFirst => (0, 1),
        Order::SecondCommitsFirst => (1, 0),
    }
}

/// Write cycle: both write both documents, and in the end one is of the one and the other of the other.
pub(crate) fn g0(world: &World, order: Order) -> LocalBoxFuture<'_, bool> {
    async move {
        let (one, two) = roles(order);
        let (first, second) = (world.begin(one).await, world.begin(two).await);
        assert!(first.write("x", 11).await);
        let waiting = world.start_write(&second, "x", 12).await;
        assert!(first.write("y", 21).await);
        // Without transactions the other one may come in between here.
        if waiting.is_finished() && waiting.await.unwrap() {
            second.write("y", 22).await;
            first.write("y", 21).await;
        } else if first.commit().await && second.write("y", 22).await {
            second.commit().await;
        }
        matches!((world.committed("x").await, world.committed("y").await), (11, 22) | (12, 21))
    }
    .boxed_local()
}

/// Aborted read: what was never committed is seen.
pub(crate) fn g1a(world: &World, order: Order) -> LocalBoxFuture<'_, bool> {
    async move {
        let (first, second) = (world.begin(0).await, world.begin(1).await);
        assert!(first.write("x", 101).await);
        let before = second.read("x").await;
        if order == Order::SecondCommitsFirst {
            second.commit().await;
            first.roll_back().await;
            return before == Some(101);
        }
        first.roll_back().await;
        let after = second.read("x").await;
        second.commit().await;
        before == Some(101) || after == Some(101)
    }
    .boxed_local()
}

/// Intermediate read: a value is seen that its writer wrote over before it committed.
pub(crate) fn g1b(world: &World, order: Order) -> LocalBoxFuture<'_, bool> {
    async move {
        let (first, second) = (world.begin(0).await, world.begin(1).await);
        assert!(first.write("x", 101).await);
        let before = second.read("x").await;
        assert!(first.write("x", 11).await);
        if order == Order::SecondCommitsFirst {
            second.commit().await;
            first.commit().await;
            return before == Some(101);
        }
        first.commit().await;
        let after = second.read("x").await;
        second.commit().await;
        before == Some(101) || after == Some(101)
    }
    .boxed_local()
}

/// Circular information flow: each sees what the other wrote.
pub(crate) fn g1c(world: &World, order: Order) -> LocalBoxFuture<'_, bool> {
    async move {
        let (first, second) = (world.begin(0).await, world.begin(1).await);
        assert!(first.write("x", 11).await && second.write("y", 22).await);
        let (of_first, of_second) = (first.read("y").await, second.read("x").await);
        commit_both(&first, &second, order).await == (true, true)
            && (of_first, of_second) == (Some(22), Some(11))
    }
    .boxed_local()
}

/// Observed transaction vanishes: a third one sees a part of what the first wrote, and then what the second wrote over it.
pub(crate) fn otv(world: &World, order: Order) -> LocalBoxFuture<'_, bool> {
    async move {
        let (one, two) = roles(order);
        let (first, second) = (world.begin(one).await, world.begin(two).await);
        assert!(first.write("x", 11).await && first.write("y", 19).await);
        let waiting = world.start_write(&second, "x", 12).await;
        first.commit().await;
        let third = world.begin(2).await;
        let before = (third.read("x").await, third.read("y").await);
        if waiting.await.unwrap() && second.write("y", 18).await {
            second.commit().await;
        }
        let after = (third.read("x").await, third.read("y").await);
        // Who lost against another one has seen nothing.
        let (Some(x), Some(y), true) = (before.0, before.1, third.commit().await) else { return false };
        before != after || ![(10, 20), (11, 19), (12, 18)].contains(&(x, y))
    }
    .boxed_local()
}

/// Predicate-many-preceders: asked again, a question has another answer.
pub(crate) fn pmp(world: &World, order: Order) -> LocalBoxFuture<'_, bool> {
    async move {
        let (one, two) = roles(order);
        let (first, second) = (world.begin(one).await, world.begin(two).await);
        let before = first.count(30).await;
        assert!(second.push(30).await && second.commit().await);
        let after = first.count(30).await;
        first.commit().await;
        before == Some(0) && after == Some(1)
    }
    .boxed_local()
}

/// Lost update: both read, and the later write does not know of the earlier one.
pub(crate) fn p4(world: &World, order: Order) -> LocalBoxFuture<'_, bool> {
    async move {
        let (one, two) = roles(order);
        let (first, second) = (world.begin(one).await, world.begin(two).await);
        let (Some(read), Some(also)) = (first.read("x").await, second.read("x").await) else { return false };
        assert!(first.write("x", read + 1).await);
        let waiting = world.start_write(&second, "x", also + 1).await;
        let both = first.commit().await && waiting.await.unwrap() && second.commit().await;
        both && world.committed("x").await == 11
    }
    .boxed_local()
}

/// Read skew: of two documents one is seen before, the other one after a transaction that wrote both.
pub(crate) fn g_single(world: &World, order: Order) -> LocalBoxFuture<'_, bool> {
    async move {
        let (one, two) = roles(order);
        let (first, second) = (world.begin(one).await, world.begin(two).await);
        let x = first.read("x").await;
        assert!(second.write("x", 12).await && second.write("y", 18).await && second.commit().await);
        let y = first.read("y").await;
        first.commit().await && (x, y) == (Some(10), Some(18))
    }
    .boxed_local()
}

/// Write skew: each writes another document than the other, after it has seen both.
pub(crate) fn g2_item(world: &World, order: Order) -> LocalBoxFuture<'_, bool> {
    async move {
        let (first, second) = (world.begin(0).await, world.begin(1).await);
        for party in [&first, &second] {
            assert_eq!((party.read("x").await, party.read("y").await), (Some(10), Some(20)));
        }
        first.write("x", 11).await
            && second.write("y", 21).await
            && commit_both(&first, &second, order).await == (true, true)
    }
    .boxed_local()
}

/// Anti-dependency cycle: each adds a document that the other's question would have counted.
pub(crate) fn g2(world: &World, order: Order) -> LocalBoxFuture<'_, bool> {
    async move {
        let (first, second) = (world.begin(0).await, world.begin(1).await);
        assert_eq!((first.sum().await, second.sum().await), (Some(30), Some(30)));
        first.push(30).await
            && second.push(42).await
            && commit_both(&first, &second, order).await == (true, true)
    }
    .boxed_local()
}
