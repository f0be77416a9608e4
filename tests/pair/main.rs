//! Two ends of a connection against each other, and each against a hand-made peer, in virtual time.
#![allow(clippy::unwrap_used, reason = "in a test, a panic is the report")]

#[path = "../support/mod.rs"]
mod support;

mod calls;
mod closing;
mod handshake;
mod items;
mod limits;
mod rekey;
mod simulation;
mod subscriptions;
mod tables;
mod timers;
mod trust;
