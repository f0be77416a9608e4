//! One call and what surrounds it.

use std::fmt;
use std::time::Duration;

use bytes::Bytes;

use super::items::Items;

/// How argument and result bytes are to be read: the enumeration of the envelope `RpcCall`.
pub use raystream_schema::Encoding;

/// The 16 bytes by which a connection is named in logs and in `sys.info`. The server draws them for each connection.
#[derive(Clone, Copy, PartialEq, Eq, Hash)]
pub struct ConnectionId(pub [u8; 16]);

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
    pub method: String,
    /// How `args` is to be read.
    pub encoding: Encoding,
    /// The arguments. Empty when the caller gave none.
    pub args: Bytes,
    /// Names the call for a retry. No reply is kept under it yet: the specification promises nothing for it in version 1.
    pub idempotency_key: Option<[u8; 16]>,
    /// The items that go with it, for methods that have some.
    pub items: Items,
}

/// Who calls, over which connection, and how long the answer may take.
///
/// `C` is the caller: the identity of the connection and whatever is needed to judge it. It is cloned for each call, so
/// it should be an `Arc`.
#[derive(Debug, Clone)]
pub struct Context<C> {
    /// Who calls.
    pub caller: C,
    /// The connection the call came over.
    pub connection: ConnectionId,
    /// What is left of the caller's time. The shell that awaits the reply enforces it; a handler may use it to give a
    /// bound to work that it starts elsewhere. `None` leaves only the server's own limit.
    pub deadline: Option<Duration>,
    /// Key and value pairs the caller sent along. Not authenticated beyond the connection itself: never a ground to
    /// grant anything.
    pub metadata: Vec<(String, String)>,
}
