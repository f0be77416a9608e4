//! Calls that are cancelled as soon as they are made: what is known against HTTP/2 as Rapid Reset.

use std::collections::{HashSet, VecDeque};
use std::sync::Arc;
use std::sync::atomic::{AtomicBool, Ordering};
use std::time::{Duration, Instant};

use raystream::conn::Event;
use raystream::wire::ErrorCode;
use serde_json::json;

use crate::raw::Raw;
use crate::server::{Server, active, call, lock_row};

/// Calls of one connection at the same time: what the daemon allows.
const SLOTS: usize = 256;

/// What a flood came to.
#[derive(Debug, Default)]
struct Tally {
    cancelled: usize,
    done: usize,
    live_max: usize,
}

/// Makes calls that wait for a lock or read, and cancels each: every second one in the record that brings it, the others
/// when they are on their way to Postgres.
fn flood(url: &str, count: usize) -> Tally {
    let mut raw = Raw::connect(url);
    let mut tally = Tally::default();
    let mut live = HashSet::new();
    let mut later = VecDeque::new();
    let mut made = 0;
    while made < count || !live.is_empty() {
        for stream in later.drain(..) {
            // An answer may have come first.
            if live.contains(&stream) {
                raw.cancel(stream);
            }
        }
        while live.len() < SLOTS && made < count {
            let stream = match made % 8 {
                7 => raw.call("table.get", r#"{"table":"t","id":"a"}"#.to_owned()),
                _ => raw.call("table.set", r#"{"table":"t","id":"a","data":3}"#.to_owned()),
            };
            assert!(live.insert(stream));
            if made % 2 == 0 {
                raw.cancel(stream);
            } else {
                later.push_back(stream);
            }
            made += 1;
        }
        tally.live_max = tally.live_max.max(live.len());
        raw.flush();
        for event in raw.receive() {
            match event {
                Event::Response(stream, _) => {
                    assert!(live.remove(&stream), "one answer for each call");
                    tally.done += 1;
                }
                Event::Error(stream, error) => {
                    assert!(live.remove(&stream), "one answer for each call");
                    assert_eq!(error.code, ErrorCode::CANCELLED, "{}", error.message);
                    tally.cancelled += 1;
                }
                _ => {}
            }
        }
    }
    tally
}

async fn call_and_cancel(count: usize) {
    let server = Server::start_with("lock_timeout = \"10m\"\nstatement_timeout = \"10m\"").await;
    let holder = lock_row(&server, "a").await;
    let admin = server.admin().await;
    // Somebody else on the same daemon, all the while.
    let is_over = Arc::new(AtomicBool::new(false));
    let neighbour = {
        let (client, is_over) = (server.client(2).await, Arc::clone(&is_over));
        tokio::spawn(async move {
            let mut served = 0;
            while !is_over.load(Ordering::Relaxed) {
                let set = json!({"table": "t", "id": "neighbour", "data": served});
                // Behind statements that wait for the lock, until those are stopped.
                call(&client, "table.set", set).await.expect("a neighbour is served");
                served += 1;
            }
            served
        })
    };
    let sampler = {
        let is_over = Arc::clone(&is_over);
        tokio::spawn(async move {
            let mut most = 0;
            while !is_over.load(Ordering::Relaxed) {
                most = most.max(active(&admin).await.0);
                tokio::time::sleep(Duration::from_millis(5)).await;
            }
            (admin, most)
        })
    };
    let began = Instant::now();
    let url = server.url.clone();
    let tally = tokio::task::spawn_blocking(move || flood(&url, count)).await.expect("the flood ends");
    let took = began.elapsed();
    is_over.store(true, Ordering::Relaxed);
    let served = neighbour.await.expect("the neighbour was served to the end");
    let (admin, most) = sampler.await.expect("Postgres was watched");
    let stopped = Instant::now();
    while active(&admin).await.0 > 0 {
        assert!(stopped.elapsed() < Duration::from_secs(1), "statements are left 1 s after the last answer");
        tokio::time::sleep(Duration::from_millis(1)).await;
    }
    println!(
        "{count} calls, each cancelled, in {took:.1?}: {} answered CANCELLED, {} done before that; at most {} live, {most} \
         statements in Postgres at once; none left after {:.1?}; {served} writes of a neighbour meanwhile",
        tally.cancelled,
        tally.done,
        tally.live_max,
        stopped.elapsed(),
    );
    assert_eq!(tally.cancelled + tally.done, count);
    assert_eq!(tally.live_max, SLOTS);
    holder.batch_execute("ROLLBACK").await.unwrap();
    let client = server.client(1).await;
    let document = call(&client, "table.get", json!({"table": "t", "id": "a"})).await.unwrap();
    assert_eq!(document, json!({"data": 1, "version": 1}), "nothing of it was written");
}

#[tokio::test(flavor = "multi_thread", worker_threads = 2)]
async fn calls_that_are_cancelled_at_once_never_hold_more_than_their_slots() {
    call_and_cancel(3_000).await;
}

/// `cargo test --release --test calls a_hundred_thousand -- --ignored --nocapture`
#[tokio::test(flavor = "multi_thread", worker_threads = 2)]
#[ignore = "takes its time on a build without optimisation"]
async fn a_hundred_thousand_calls_that_are_cancelled_at_once() {
    call_and_cancel(100_000).await;
}
