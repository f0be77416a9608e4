//! The change feed against a real Postgres: nothing lost, nothing doubled, in an order that is that of the commits.

#[allow(dead_code, unreachable_pub, reason = "other tests use the rest")]
#[path = "../support/postgres.rs"]
mod postgres;

#[allow(dead_code, unreachable_pub, reason = "other tests use the rest")]
#[path = "../storage/proxy.rs"]
mod proxy;

mod crash;
mod dead;
mod filter;
mod load;
mod order;
mod overflow;
mod policies;
mod reset;
mod resume;
mod shared;
mod snapshot;
mod topics;
mod unheard;
mod world;

mod figures;
