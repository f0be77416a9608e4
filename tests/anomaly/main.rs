//! The ten anomalies of Hermitage (after Adya), through the real protocol: which of them each isolation that a client can
//! ask for lets happen. `cargo test --test anomaly -- --nocapture` prints the table. And random histories of appends to lists,
//! judged by a checker that finds anomalies nobody thought of.
#![cfg(feature = "server")]
#![allow(clippy::unwrap_used, reason = "in a test, a panic is the report")]
#![allow(clippy::print_stdout, reason = "it prints its table")]

#[path = "../support/postgres.rs"]
#[allow(dead_code, reason = "shared with tests that need more of it")]
mod postgres;
#[path = "../calls/server.rs"]
#[allow(dead_code, reason = "shared with tests that need more of it")]
mod server;
#[path = "../transactions/tx.rs"]
#[allow(dead_code, reason = "shared with tests that need more of it")]
mod tx;

mod checker;
mod graph;
mod history;
mod lists;
mod parties;
mod proved;
mod reads;
mod scenarios;
mod workload;
mod world;

use futures_util::future::LocalBoxFuture;
use scenarios::{g_single, g0, g1a, g1b, g1c, g2, g2_item, otv, p4, pmp};
use world::{Order, World};

/// Plays an anomaly; answers whether it happened.
type Scenario = for<'a> fn(&'a World, Order) -> LocalBoxFuture<'a, bool>;

/// Name, what it is, and whether a snapshot lets it happen. Serializable lets none.
const ANOMALIES: [(&str, &str, Scenario, bool); 10] = [
    ("G0", "write cycle", g0, false),
    ("G1a", "aborted read", g1a, false),
    ("G1b", "intermediate read", g1b, false),
    ("G1c", "circular information flow", g1c, false),
    ("OTV", "observed transaction vanishes", otv, false),
    ("PMP", "predicate-many-preceders", pmp, false),
    ("P4", "lost update", p4, false),
    ("G-single", "read skew", g_single, false),
    ("G2-item", "write skew", g2_item, true),
    ("G2", "anti-dependency cycle", g2, true),
];

#[tokio::test(flavor = "multi_thread", worker_threads = 2)]
async fn no_isolation_lets_more_happen_than_it_says() {
    let mut wrong = Vec::new();
    let server = server::Server::start_with(lists::LONG).await;
    println!("{:<10}{:<32}{:<14}{:<14}", "", "", "snapshot", "serializable");
    for (name, meaning, scenario, in_snapshot) in ANOMALIES {
        let mut cells = Vec::new();
        for (isolation, expected) in [("snapshot", in_snapshot), ("serializable", false)] {
            let mut found = Vec::new();
            for order in [Order::FirstCommitsFirst, Order::SecondCommitsFirst] {
                let world = World::new(&server, isolation).await;
                found.push(scenario(&world, order).await);
            }
            if found != [expected, expected] {
                wrong.push(format!("{name} under {isolation}: {found:?}, not {expected}"));
            }
            cells.push(match found.as_slice() {
                [false, false] => "prevented",
                [true, true] => "possible",
                _ => "in one order",
            });
        }
        println!("{name:<10}{meaning:<32}{:<14}{:<14}", cells[0], cells[1]);
    }
    assert!(wrong.is_empty(), "{}", wrong.join("\n"));
}

/// What shows the anomalies can see them: without transactions those that a single statement does not rule out happen.
#[tokio::test(flavor = "multi_thread", worker_threads = 2)]
async fn without_transactions_the_anomalies_are_seen() {
    let server = server::Server::start_with(lists::LONG).await;
    let mut seen = Vec::new();
    for (name, _, scenario, _) in ANOMALIES {
        let world = World::without_transactions(&server).await;
        if scenario(&world, Order::FirstCommitsFirst).await {
            seen.push(name);
        }
    }
    assert_eq!(seen, ["G0", "G1a", "G1b", "G1c", "OTV", "PMP", "P4", "G-single", "G2-item", "G2"]);
}
