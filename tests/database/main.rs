//! Postgres as operators have it: behind TLS and poolers, restarted, set up wrongly, and asked for more than it can do.
#![cfg(feature = "server")]
#![allow(clippy::unwrap_used, clippy::print_stdout, reason = "in a test, a panic and figures are the report")]

#[path = "../support/postgres.rs"]
#[allow(dead_code, reason = "not every helper is used here")]
mod postgres;

mod cancels;
mod certificates;
mod daemon;
mod durability;
mod overload;
mod poolers;
mod restart;
mod server;
mod tls;

use std::time::Duration;

use raystream::store::endpoint::{Address, TlsOptions};
use raystream::store::{StartError, Store, StoreOptions};

/// How long anything of a test may take before it counts as hung: generous, because machines are shared.
const PATIENCE: Duration = Duration::from_secs(120);

/// The options of a store at an address.
fn options(address: &str) -> StoreOptions {
    let address = Address::parse(address, &TlsOptions::default()).expect("the test's address makes sense");
    let mut options = StoreOptions::new(address.endpoint().expect("the test's files are sound"));
    options.create_tables = true;
    options
}

/// Connects a store.
async fn connect(address: &str) -> Result<Store, StartError> {
    Store::connect(options(address)).await
}

/// Why a store was not connected.
async fn refusal(address: &str) -> String {
    connect(address).await.expect_err("the start is refused").to_string()
}

/// Waits until something holds.
async fn eventually(what: &str, mut holds: impl AsyncFnMut() -> bool) {
    let waited = async {
        while !holds().await {
            tokio::time::sleep(Duration::from_millis(20)).await;
        }
    };
    assert!(tokio::time::timeout(PATIENCE, waited).await.is_ok(), "it never came: {what}");
}
