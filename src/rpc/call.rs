//! One call and what surrounds it.

use std::fmt;
use std::sync::Arc;
use std::time::Duration;

use bytes::Bytes;
use compact_str::CompactString;
use tokio::sync::SetOnce;

use super::items::Items;

/// How argument and result bytes are to be read: the enumeration of the envelope `RpcCall`.
pub use raystream_schema::Encoding;

/// The 16 bytes by which a connection is named in logs and in `sys.info`. The server draws them for each connection.
#[derive(Clone, Copy, PartialEq, Eq, Hash)]
pub struct ConnectionId(pub [u8; 16]);

impl Call {
    /// The same call, to be run once more: without items, which can be taken once only.
    #[must_use]
    pub fn without_items(&self) -> Self {
        Self {
            method: self.method.clone(),
            encoding: self.encoding,
            args: self.args.clone(),
            idempotency_key: self.idempotency_key,
            items: Items::default(),
        }
    }
}

impl fmt::Display for ConnectionId {
    /// 32 lower-case hexadecimal digits.
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        self.0.iter().try_for_each(|byte| write!(f, "{byte:02x}"))
    }
}

impl fmt::Debug for ConnectionId {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        write!(f, "ConnectionId({self})")
    }
}

/// A call as it came off the wire.
#[derive(Debug)]
pub struct Call {
    /// The method's full name, for instance `table.get`.
    pub method: CompactString,
    /// How `args` is to be read.
    pub encoding: Encoding,
    /// The arguments. Empty when the caller gave none.
    pub args: Bytes,
    /// Names the call, so that repeating it has no second effect. Methods that only read ignore it.
    pub idempotency_key: Option<[u8; 16]>,
    /// The items that go with it, for methods that have some.
    pub items: Items,
}

/// Told once, when the caller of a call gives it up.
pub type CancelSignal = Arc<SetOnce<()>>;

/// Who calls, over which connection, and how long the answer may take.
///
/// `C` is the caller: the identity of the connection and whatever is needed to judge it. It is cloned for each call that has
/// to wait, so it should be an `Arc`.
#[derive(Debug, Clone)]
pub struct Context<C> {
    /// Who calls.
    pub caller: C,
    /// The connection the call came over.
    pub connection: ConnectionId,
    /// What is left of the caller's time. The shell that awaits the reply enforces it; a handler gives it to work that it
    /// starts elsewhere. `None` leaves only the server's own limit.
    pub deadline: Option<Duration>,
    /// Set when the caller wants no answer any more. A handler that has work elsewhere stops it then, and ends when it has
    /// stopped: until then the call counts as running.
    pub cancelled: CancelSignal,
    /// Key and value pairs the caller sent along. Not authenticated beyond the connection itself: never a ground to
    /// grant anything.
    pub metadata: Vec<(String, String)>,
}
