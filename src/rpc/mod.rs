//! Calls: what a method is, who takes it, and what comes back.
//!
//! This room knows no socket, no SQL and no method. [`Router`] maps a method's name to a handler; whoever builds the
//! router decides what a caller is (the type parameter `C`) and which checks stand before every handler.

mod answer;
mod call;
mod items;
mod router;
mod status;
mod untrusted;

pub use answer::Answer;
pub use call::{Call, CancelSignal, ConnectionId, Context, Encoding};
pub use items::{
    CLIENT_ITEMS, CLIENT_ITEMS_WINDOW, Demand, Gone, ItemPipes, ItemReceiver, ItemSender, Items,
    SERVER_ITEMS, items,
};
pub use router::{DuplicateMethod, Reply, Router, RouterBuilder};
pub use status::Status;
pub use untrusted::{UNTRUSTED_TEXT_MAX, Untrusted};
