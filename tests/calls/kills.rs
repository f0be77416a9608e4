//! A daemon that is killed at any point of a call, and a client that repeats it.

use std::time::Duration;

use raystream::client::Client;
use serde_json::{Value, json};

use crate::server::{Server, call, call_named, connect};

/// How many calls are hit in CI, and the furthest point of a call at which the daemon is killed: after it, calls are done.
const KILLS: u32 = 24;
const SPREAD: Duration = Duration::from_millis(6);

/// Pushes while the daemon is killed `after` some time, and repeats the push until it is answered.
async fn push_over_kill(server: &mut Server, client: &mut Client, n: u32, named: bool, after: Duration) {
    let item = json!({"table": "t", "data": {"n": n, "named": named}});
    let mut key = [u8::from(named); 16];
    key[..4].copy_from_slice(&n.to_be_bytes());
    let push = async |client: &Client| match named {
        true => call_named(client, key, "table.push", &item).await,
        false => call(client, "table.push", item.clone()).await,
    };
    let first = {
        let kill = async {
            tokio::time::sleep(after).await;
            server.kill();
        };
        tokio::join!(push(client), kill).0
    };
    server.restart();
    *client = connect(&server.url, 1).await.expect("the daemon is there again");
    if first.is_err() || named {
        let again = push(client).await.expect("it is answered");
        // Who had an answer before gets the same again.
        assert!(first.is_err() || first.is_ok_and(|first| first == again), "{again}");
    }
}

async fn kills(count: u32) {
    let mut server = Server::start().await;
    let mut client = server.client(1).await;
    for n in 0..count {
        let after = SPREAD * n / count;
        push_over_kill(&mut server, &mut client, n, true, after).await;
        push_over_kill(&mut server, &mut client, n, false, after).await;
    }
    let mut items: Vec<(u64, bool)> = Vec::new();
    loop {
        let item: Value = call(&client, "table.shift", json!({"table": "t"})).await.unwrap();
        let Some(data) = item.get("data") else { break };
        items.push((data["n"].as_u64().unwrap(), data["named"].as_bool().unwrap()));
    }
    let named: Vec<u64> = items.iter().filter(|(_, named)| *named).map(|(n, _)| *n).collect();
    let unnamed = items.len() - named.len();
    println!("{count} pushes over kills: {} items with keys, {unnamed} without", named.len());
    assert_eq!(named, (0..u64::from(count)).collect::<Vec<_>>(), "each exactly once, in order");
    assert!(unnamed >= usize::try_from(count).unwrap(), "without a key each is done at least once");
}

#[tokio::test(flavor = "multi_thread", worker_threads = 2)]
async fn a_push_with_a_key_is_done_once_wherever_the_daemon_is_killed() {
    kills(KILLS).await;
}

/// `cargo test --release --test calls a_thousand_kills -- --ignored --nocapture`
#[tokio::test(flavor = "multi_thread", worker_threads = 2)]
#[ignore = "takes minutes"]
async fn a_thousand_kills() {
    kills(1_000).await;
}
