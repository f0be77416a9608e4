//! `sys.*`: the server about itself.

use std::sync::Arc;

use bytes::Bytes;

use super::args::{self, Args};
use super::caller::Context;
use super::reply::Json;
use crate::rpc::{Answer, Call, Status};

/// The version of the wire protocol, as `sys.info` gives it.
pub const PROTOCOL: &str = "raystream-v1";

/// The time, and what the process has used, from whoever can ask the system: this floor cannot.
pub trait Clock: Send + Sync + 'static {
    /// Milliseconds since 1970-01-01T00:00:00Z.
    fn server_time_ms(&self) -> u64;
    /// Milliseconds since the server started.
    fn uptime_ms(&self) -> u64;
    /// Milliseconds of processor time that the server's process has used; `None` where that is not known.
    fn cpu_ms(&self) -> Option<u64> {
        None
    }
    /// Bytes of memory that the server's process holds; `None` where that is not known.
    fn rss_bytes(&self) -> Option<u64> {
        None
    }
}

/// `sys.echo {..}`: the same object, byte for byte, and the call's metadata as trailers: what the other side sees of both.
pub(super) fn echo(context: &Context, call: Call) -> Result<Answer, Status> {
    args::check_object(&call)?;
    let result = if call.args.is_empty() { Bytes::from_static(b"{}") } else { call.args };
    Ok(Answer { result, trailers: context.metadata.clone() })
}

/// `sys.info`: `{name, version, protocol, server_time_ms, uptime_ms, cpu_ms?, rss_bytes?, connection, principal}`.
pub(super) fn info(clock: &Arc<dyn Clock>, context: &Context, call: &Call) -> Result<Bytes, Status> {
    Args::parse(call, &[])?;
    let number = |value: u64| value.to_string();
    let optional = |out: Json, name: &str, value: Option<u64>| match value {
        Some(value) => out.raw(format!(",\"{name}\":{value}")),
        None => out,
    };
    let out = Json::with_room(256)
        .raw(r#"{"name":"raystream","version":"#)
        .string(env!("CARGO_PKG_VERSION"))
        .raw(r#","protocol":"#)
        .string(PROTOCOL)
        .raw(r#","server_time_ms":"#)
        .raw(number(clock.server_time_ms()))
        .raw(r#","uptime_ms":"#)
        .raw(number(clock.uptime_ms()));
    let out = optional(out, "cpu_ms", clock.cpu_ms());
    optional(out, "rss_bytes", clock.rss_bytes())
        .raw(r#","connection":"#)
        .string(&context.connection.to_string())
        .raw(r#","principal":"#)
        .string(context.caller.principal.name())
        .raw("}")
        .finish()
}
