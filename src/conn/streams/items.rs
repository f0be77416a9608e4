//! The items of a call's stream, counted by credit in each direction (specification, "Flow control").

use crate::conn::{ApiMisuse, ConnectionError};
use crate::wire::{
    envelope::{CLIENT_ITEMS, RpcCall, SERVER_ITEMS},
    limits::CREDIT_MAX,
};

/// One direction of one call.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
enum Direction {
    /// The call has no items in this direction, or the last one came.
    Closed,
    /// The last item was sent; the peer may have given credit before it learned that.
    Ended,
    /// So many items may still be sent; at most [`CREDIT_MAX`].
    Open(u32),
}

impl Direction {
    fn new(is_open: bool, credit: u32) -> Self {
        if is_open { Self::Open(credit) } else { Self::Closed }
    }
}

/// Both directions, as one end sees them.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub(super) struct Items {
    sends: Direction,
    receives: Direction,
}

impl Items {
    pub(super) fn of_client(call: &RpcCall) -> Self {
        Self {
            sends: Direction::new(call.streams & CLIENT_ITEMS != 0, 0),
            receives: Direction::new(call.streams & SERVER_ITEMS != 0, call.credit),
        }
    }

    pub(super) fn of_server(call: &RpcCall) -> Self {
        let client = Self::of_client(call);
        Self { sends: client.receives, receives: client.sends }
    }

    /// Items that this end may send now; `None` when it sends none (any more).
    pub(super) fn credit(&self) -> Option<u32> {
        match self.sends {
            Direction::Open(credit) => Some(credit),
            Direction::Closed | Direction::Ended => None,
        }
    }

    /// CREDIT of the peer. One that crossed the end of the items means nothing.
    pub(super) fn recv_credit(&mut self, items: u32) -> Result<(), ConnectionError> {
        match &mut self.sends {
            Direction::Open(credit) => {
                *credit = sum(*credit, items).ok_or(ConnectionError::Protocol("more credit than fits"))?;
                Ok(())
            }
            Direction::Ended => Ok(()),
            Direction::Closed => Err(ConnectionError::Protocol("CREDIT on a call without items")),
        }
    }

    /// Whether the peer may send an item now: asked at each of its fragments.
    pub(super) fn check_recv(&self) -> Result<(), ConnectionError> {
        match self.receives {
            Direction::Closed | Direction::Ended => {
                Err(ConnectionError::Protocol("an item where none is sent"))
            }
            Direction::Open(0) => Err(ConnectionError::Protocol("an item without credit")),
            Direction::Open(_) => Ok(()),
        }
    }

    /// A whole item came.
    pub(super) fn recv_item(&mut self) -> Result<(), ConnectionError> {
        self.check_recv()?;
        if let Direction::Open(credit) = &mut self.receives {
            *credit -= 1;
        }
        Ok(())
    }

    /// The peer has no more items.
    pub(super) fn recv_end(&mut self) -> Result<(), ConnectionError> {
        match std::mem::replace(&mut self.receives, Direction::Closed) {
            Direction::Open(_) => Ok(()),
            Direction::Closed | Direction::Ended => {
                Err(ConnectionError::Protocol("an end of items where none are sent"))
            }
        }
    }

    /// This end lets the peer send more. `Ok(false)` when the peer has no more to send: then there is nobody to tell.
    pub(super) fn grant(&mut self, items: u32) -> Result<bool, ApiMisuse> {
        match &mut self.receives {
            Direction::Open(credit) => {
                *credit = sum(*credit, items).ok_or(ApiMisuse::TooMuchCredit)?;
                Ok(true)
            }
            Direction::Closed | Direction::Ended => Ok(false),
        }
    }

    /// This end sends an item.
    pub(super) fn send(&mut self) -> Result<(), ApiMisuse> {
        match &mut self.sends {
            Direction::Open(credit) => {
                *credit = credit.checked_sub(1).ok_or(ApiMisuse::NoCredit)?;
                Ok(())
            }
            Direction::Closed | Direction::Ended => Err(ApiMisuse::NoSuchStream),
        }
    }

    /// This end has no more items.
    pub(super) fn end(&mut self) -> Result<(), ApiMisuse> {
        match self.sends {
            Direction::Open(_) => {
                self.sends = Direction::Ended;
                Ok(())
            }
            Direction::Closed | Direction::Ended => Err(ApiMisuse::NoSuchStream),
        }
    }
}

fn sum(credit: u32, items: u32) -> Option<u32> {
    credit.checked_add(items).filter(|sum| *sum <= CREDIT_MAX)
}

#[cfg(test)]
mod tests {
    use super::*;

    fn ends(streams: u8, credit: u32) -> [Items; 2] {
        let call = RpcCall { streams, credit, ..RpcCall::default() };
        [Items::of_client(&call), Items::of_server(&call)]
    }

    #[test]
    fn each_direction_has_its_own_credit() {
        let [mut client, mut server] = ends(CLIENT_ITEMS | SERVER_ITEMS, 1);
        assert_eq!((client.credit(), server.credit()), (Some(0), Some(1)));
        assert_eq!(client.send(), Err(ApiMisuse::NoCredit));
        assert_eq!((server.grant(2), client.recv_credit(2)), (Ok(true), Ok(())));
        assert_eq!((client.send(), server.recv_item()), (Ok(()), Ok(())));
        assert_eq!((client.credit(), server.credit()), (Some(1), Some(1)));
        assert_eq!((server.send(), client.recv_item()), (Ok(()), Ok(())));
        assert_eq!(server.send(), Err(ApiMisuse::NoCredit));
        assert!(client.recv_item().is_err());
        assert_eq!((client.end(), server.recv_end()), (Ok(()), Ok(())));
        assert_eq!(
            (client.send(), client.end()),
            (Err(ApiMisuse::NoSuchStream), Err(ApiMisuse::NoSuchStream))
        );
        assert!(server.recv_item().is_err() && server.recv_end().is_err());
        // A grant that crosses the end is no fault of anybody.
        assert_eq!(server.grant(1), Ok(false));
    }

    #[test]
    fn credit_that_crossed_the_end_is_ignored() {
        let [mut client, mut server] = ends(CLIENT_ITEMS, 0);
        assert_eq!((server.grant(1), client.recv_credit(1)), (Ok(true), Ok(())));
        // The client ends while more credit is on its way, with some left or none.
        assert_eq!((client.end(), server.grant(2), client.recv_credit(2)), (Ok(()), Ok(true), Ok(())));
        assert_eq!((client.credit(), client.send()), (None, Err(ApiMisuse::NoSuchStream)));
        assert_eq!((server.recv_end(), server.grant(1)), (Ok(()), Ok(false)));
    }

    #[test]
    fn a_call_without_items_has_none() {
        let [mut client, mut server] = ends(0, 0);
        assert_eq!((client.credit(), server.credit()), (None, None));
        assert!(server.recv_item().is_err() && client.recv_item().is_err());
        assert!(server.recv_credit(1).is_err() && client.recv_credit(1).is_err());
    }

    #[test]
    fn credit_stays_within_its_bound() {
        let [mut client, mut server] = ends(CLIENT_ITEMS | SERVER_ITEMS, CREDIT_MAX);
        assert!(server.recv_credit(1).is_err());
        assert_eq!(client.grant(1), Err(ApiMisuse::TooMuchCredit));
    }
}
