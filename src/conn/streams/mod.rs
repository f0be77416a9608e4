//! Streams: what each end may send on a stream, and when it is over (specification, "Streams").

pub(super) mod client;
mod items;
pub(super) mod server;

/// Whether a stream number is one a client may open.
fn is_client_stream(stream: u32) -> bool {
    stream % 2 == 1
}
