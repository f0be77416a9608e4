//! From a method's name to its handler.

use std::collections::HashMap;
use std::future::Future;
use std::pin::Pin;
use std::task::{self, Poll};

use super::{Answer, Call, Context, Status, Untrusted};
use crate::wire::registry::ErrorCode;

/// The answer of a handler: there already, or to be awaited.
///
/// The two are kept apart so that a call that needs no waiting costs neither an allocation nor a task: the shell looks
/// at the variant first and only keeps (or spawns) the pending ones.
#[must_use = "a pending reply does nothing until it is polled"]
pub enum Reply {
    /// The result with its trailers, or the failure.
    Ready(Result<Answer, Status>),
    /// A future that gives the same. Dropping it gives the call up.
    Pending(Pin<Box<dyn Future<Output = Result<Answer, Status>> + Send>>),
}

impl Reply {
    /// Wraps work that has to be awaited: it gives an [`Answer`], or the result alone.
    pub fn pending<T: Into<Answer>>(work: impl Future<Output = Result<T, Status>> + Send + 'static) -> Self {
        Self::Pending(Box::pin(async { work.await.map(Into::into) }))
    }
}

impl<T: Into<Answer>> From<Result<T, Status>> for Reply {
    fn from(result: Result<T, Status>) -> Self {
        Self::Ready(result.map(Into::into))
    }
}

impl Future for Reply {
    type Output = Result<Answer, Status>;

    fn poll(mut self: Pin<&mut Self>, cx: &mut task::Context<'_>) -> Poll<Self::Output> {
        match &mut *self {
            // The value is cloned (the result is a reference count), so that polling again after completion is no fault.
            Self::Ready(result) => Poll::Ready(result.clone()),
            Self::Pending(work) => work.as_mut().poll(cx),
        }
    }
}

/// Names are hashed for each call, and they are the program's own: nobody can choose some that collide.
type ByName<T> = HashMap<Box<str>, T, foldhash::fast::RandomState>;

type Handler<C> = Box<dyn Fn(&Context<C>, Call) -> Reply + Send + Sync>;
type Check<C> = Box<dyn Fn(&Context<C>, &Call) -> Result<(), Status> + Send + Sync>;

/// The methods of a server and the checks before them.
pub struct Router<C> {
    checks: Vec<Check<C>>,
    methods: ByName<Method<C>>,
}

/// A handler, and which items it takes.
struct Method<C> {
    handler: Handler<C>,
    /// [`CLIENT_ITEMS`](super::CLIENT_ITEMS), [`SERVER_ITEMS`](super::SERVER_ITEMS).
    items: u8,
}

impl<C> Router<C> {
    /// Starts a router without methods.
    pub fn builder() -> RouterBuilder<C> {
        RouterBuilder { checks: Vec::new(), methods: ByName::default(), duplicate: None }
    }

    /// Runs the checks in their order, then the method's handler.
    ///
    /// The checks come before the look-up: whoever may not call a method gets the same answer whether it exists or not.
    pub fn dispatch(&self, context: &Context<C>, call: Call) -> Reply {
        for check in &self.checks {
            if let Err(status) = check(context, &call) {
                return Reply::Ready(Err(status));
            }
        }
        match self.methods.get(call.method.as_str()) {
            Some(method) if call.items.directions() & !method.items != 0 => {
                let message = format!("the method `{}` has no items in this direction", call.method);
                Reply::Ready(Err(Status::invalid(message)))
            }
            Some(method) => (method.handler)(context, call),
            None => Reply::Ready(Err(Status::new(
                ErrorCode::NOT_FOUND,
                format!("there is no method `{}`", Untrusted::new(&call.method)),
            ))),
        }
    }

    /// The names of all methods, sorted.
    pub fn methods(&self) -> Vec<&str> {
        let mut names: Vec<&str> = self.methods.keys().map(AsRef::as_ref).collect();
        names.sort_unstable();
        names
    }
}

/// Two handlers were given for one name.
#[derive(Debug, Clone, PartialEq, Eq, thiserror::Error)]
#[error("the method `{0}` is registered twice")]
pub struct DuplicateMethod(pub String);

/// Collects checks and methods.
pub struct RouterBuilder<C> {
    checks: Vec<Check<C>>,
    methods: ByName<Method<C>>,
    duplicate: Option<DuplicateMethod>,
}

impl<C> RouterBuilder<C> {
    /// Adds a check that runs before every handler, after those added earlier. Its failure is the call's failure.
    #[must_use]
    pub fn check(
        mut self,
        check: impl Fn(&Context<C>, &Call) -> Result<(), Status> + Send + Sync + 'static,
    ) -> Self {
        self.checks.push(Box::new(check));
        self
    }

    /// Adds a method without items. A handler that has to wait clones the context.
    #[must_use]
    pub fn method<R: Into<Reply>>(
        self,
        name: &str,
        handler: impl Fn(&Context<C>, Call) -> R + Send + Sync + 'static,
    ) -> Self {
        self.method_with_items(name, 0, handler)
    }

    /// Adds a method that may be called with `items` ([`CLIENT_ITEMS`](super::CLIENT_ITEMS),
    /// [`SERVER_ITEMS`](super::SERVER_ITEMS)), or without.
    #[must_use]
    pub fn method_with_items<R: Into<Reply>>(
        mut self,
        name: &str,
        items: u8,
        handler: impl Fn(&Context<C>, Call) -> R + Send + Sync + 'static,
    ) -> Self {
        let handler: Handler<C> = Box::new(move |context: &Context<C>, call| handler(context, call).into());
        if self.methods.insert(name.into(), Method { handler, items }).is_some() {
            self.duplicate = Some(DuplicateMethod(name.to_owned()));
        }
        self
    }

    /// Finishes the router.
    pub fn build(self) -> Result<Router<C>, DuplicateMethod> {
        match self.duplicate {
            Some(duplicate) => Err(duplicate),
            None => Ok(Router { checks: self.checks, methods: self.methods }),
        }
    }
}

#[cfg(test)]
mod tests {
    use super::super::{CLIENT_ITEMS, ConnectionId, Encoding, Items, SERVER_ITEMS, items};
    use super::*;
    use bytes::Bytes;

    fn context(caller: &'static str) -> Context<&'static str> {
        let (connection, cancelled) = (ConnectionId([7; 16]), Default::default());
        Context { caller, connection, deadline: None, cancelled, metadata: Vec::new() }
    }

    fn call(method: &str) -> Call {
        Call {
            method: method.into(),
            encoding: Encoding::Json,
            args: Bytes::from_static(b"{}"),
            idempotency_key: None,
            items: Items::default(),
        }
    }

    fn router() -> Router<&'static str> {
        Router::builder()
            .check(|context, _| match context.caller {
                "eve" => Err(Status::new(ErrorCode::FORBIDDEN, "no")),
                _ => Ok(()),
            })
            .method("echo", |_, call: Call| Ok(call.args))
            .method("later", |_, call: Call| {
                Reply::pending(async move {
                    tokio::task::yield_now().await;
                    Ok(call.args)
                })
            })
            .build()
            .expect("no name twice")
    }

    #[tokio::test]
    async fn a_ready_answer_is_ready_and_a_pending_one_arrives() {
        assert!(matches!(router().dispatch(&context("ann"), call("echo")), Reply::Ready(Ok(_))));
        let reply = router().dispatch(&context("ann"), call("later"));
        assert!(matches!(reply, Reply::Pending(_)));
        assert_eq!(reply.await, Ok(Bytes::from_static(b"{}").into()));
    }

    #[tokio::test]
    async fn who_is_refused_cannot_tell_whether_a_method_exists() {
        let known = router().dispatch(&context("eve"), call("echo")).await;
        let unknown = router().dispatch(&context("eve"), call("nothing")).await;
        assert_eq!(known, unknown);
        assert_eq!(known.expect_err("refused").code, ErrorCode::FORBIDDEN);
        let status = router().dispatch(&context("ann"), call("no\nthing")).await.expect_err("unknown");
        assert_eq!(status.code, ErrorCode::NOT_FOUND);
        assert_eq!(status.message, "there is no method `no\\u{a}thing`");
    }

    #[tokio::test]
    async fn a_method_without_items_refuses_a_call_with_items() {
        let router = Router::builder()
            .method("none", |_: &Context<&'static str>, call: Call| Ok(call.args))
            .method_with_items("down", SERVER_ITEMS, |_, call: Call| Ok(call.args))
            .build()
            .expect("no name twice");
        for (method, directions, is_taken) in [
            ("none", 0, true),
            ("none", SERVER_ITEMS, false),
            ("none", CLIENT_ITEMS, false),
            ("down", 0, true),
            ("down", SERVER_ITEMS, true),
            ("down", SERVER_ITEMS | CLIENT_ITEMS, false),
        ] {
            let (items, _pipes) = items(directions, &Default::default());
            let reply = router.dispatch(&context("ann"), Call { items, ..call(method) }).await;
            assert_eq!(reply.is_ok(), is_taken, "{method} {directions}");
            assert!(reply.is_ok() || reply.is_err_and(|status| status.code == ErrorCode::INVALID_REQUEST));
        }
    }

    #[test]
    fn a_name_is_taken_once() {
        let twice = Router::<()>::builder()
            .method("a", |_, call: Call| Ok(call.args))
            .method("a", |_, call: Call| Ok(call.args))
            .build();
        assert_eq!(twice.err(), Some(DuplicateMethod("a".to_owned())));
    }
}
