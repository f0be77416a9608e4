//! The built-in methods: the only place where calls meet stored documents.

mod args;
mod caller;
mod reply;
mod store_status;
mod sys;
mod tables;

use std::sync::Arc;

use crate::rpc::{self, Call, Reply, Status};
use crate::store::Store;

pub use args::JSON_DEPTH_MAX;
pub use caller::{Caller, Context, Router};
pub use reply::RESULT_MAX;
pub use sys::{Clock, PROTOCOL};

/// The server's router: `sys.*` and `table.*`, each call authorised before its method is looked up.
pub fn router(store: &Store, clock: Arc<dyn Clock>) -> Router {
    with_sys(rpc::Router::builder(), clock)
        .method("table.get", on(store, tables::get))
        .method("table.set", on(store, tables::set))
        .method("table.update", on(store, tables::update))
        .method("table.delete", on(store, tables::delete))
        .method("table.push", on(store, tables::push))
        .method("table.pop", on(store, tables::pop))
        .method("table.shift", on(store, tables::shift))
        .method("table.query", on(store, tables::query))
        .method("table.count", on(store, tables::count))
        .method("table.ptr", on(store, tables::ptr))
        .method("table.create", on(store, tables::create))
        .method("table.list", on(store, tables::list))
        .build()
        .expect("every name is given once in this function")
}

/// The methods that need no store, for a shell that has none: tests of the transport, and benchmarks of the path.
pub fn sys_router(clock: Arc<dyn Clock>) -> Router {
    with_sys(rpc::Router::builder(), clock).build().expect("every name is given once")
}

fn with_sys(
    builder: rpc::RouterBuilder<Arc<Caller>>,
    clock: Arc<dyn Clock>,
) -> rpc::RouterBuilder<Arc<Caller>> {
    builder
        .check(|context, call| context.caller.authorise_call(&call.method))
        .method("sys.echo", sys::echo)
        .method("sys.info", move |context: Context, call: Call| sys::info(&clock, &context, &call))
}

/// A handler that awaits the store.
fn on<F, W>(store: &Store, method: F) -> impl Fn(Context, Call) -> Reply + Send + Sync + 'static
where
    F: Fn(Store, Context, Call) -> W + Send + Sync + 'static,
    W: Future<Output = Result<bytes::Bytes, Status>> + Send + 'static,
{
    let store = store.clone();
    move |context, call| Reply::pending(method(store.clone(), context, call))
}
