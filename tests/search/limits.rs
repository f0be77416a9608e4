//! What a search takes, and what it may cost.

use std::time::{Duration, Instant};

use raystream::client::{CallOptions, Json};
use raystream::wire::ErrorCode;
use serde_json::json;

use crate::server::{call, code};
use crate::world::World;

#[tokio::test(flavor = "multi_thread")]
async fn every_text_is_a_search() {
    let world = World::start().await;
    world.set("a", json!({"text": "one two three o'clock 50% C++ foo@example.com straße"})).await;
    let long = "x".repeat(2_048);
    let words = "a ".repeat(1_024);
    let quotes = "\"".repeat(2_048);
    let parens = "(".repeat(2_048);
    for text in [
        "",
        " ",
        "\0",
        "one\0two",
        "'",
        "''; DROP TABLE x; --",
        "\"",
        "\"un closed",
        "\\",
        "\\'",
        "& | ! <-> :* ()",
        "!!!",
        "-",
        "--",
        "- -",
        "or",
        "or or or",
        "and",
        "one:*",
        "one & ",
        ":a",
        "$1",
        "%",
        "%s",
        "\u{1f433}",
        "\u{202e}one",
        "\u{fffd}",
        "a-b-c",
        "-\"x y\"",
        "\n\t",
        "http://[::1]/?q=<b>",
        "{\"a\":1}",
        &long,
        &words,
        &quotes,
        &parens,
    ] {
        let found = world.try_search(text, json!({"highlight": true, "facets": ["text"]})).await;
        assert!(found.is_ok(), "{text:?}: {found:?}");
    }
    for (text, finds) in
        [("one\0two", true), ("o'clock", true), ("C++", true), ("foo@example.com", true), ("four", false)]
    {
        assert_eq!(!world.ids(text, json!({})).await.is_empty(), finds, "{text:?}");
    }
}

#[tokio::test(flavor = "multi_thread")]
async fn a_search_that_asks_for_too_much_is_refused() {
    let world = World::start().await;
    let paths = |count: usize| (0..count).map(|n| format!("p{n}")).collect::<Vec<_>>();
    world.search("x", json!({"limit": 100, "fields": paths(16), "facets": paths(8)})).await;
    for more in [
        json!({"limit": 0}),
        json!({"limit": 101}),
        json!({"limit": -1}),
        json!({"fields": paths(17)}),
        json!({"facets": paths(9)}),
        json!({"fields": ["a..b"]}),
        json!({"fields": "a"}),
        json!({"facets": [""]}),
        json!({"facets": ["x".repeat(257)]}),
        json!({"language": "klingon"}),
        json!({"language": "english'::regconfig"}),
        json!({"after": "AQ"}),
        json!({"filter": []}),
        json!({"highlight": "yes"}),
        json!({"order": "n"}),
    ] {
        assert_eq!(code(world.try_search("x", more.clone()).await), ErrorCode::INVALID_REQUEST, "{more}");
    }
    let long = "x".repeat(2_049);
    assert_eq!(code(world.try_search(&long, json!({})).await), ErrorCode::INVALID_REQUEST);
    assert_eq!(code(world.call("table.search", json!({"table": "t"})).await), ErrorCode::INVALID_REQUEST);
}

#[tokio::test(flavor = "multi_thread")]
async fn more_than_can_be_ranked_is_said_and_not_counted() {
    let world = World::start().await;
    world.fill(5_001, "jsonb_build_object('t', 'whale', 'same', 1)").await;
    let page = world.search("whale", json!({"limit": 1, "facets": ["same"]})).await;
    assert_eq!((&page["total"], &page["complete"]), (&json!(5_000), &json!(false)));
    assert_eq!(page["facets"]["same"], json!([{"value": 1, "count": 5_000}]));
    world.call("table.delete", json!({"table": "t", "id": "d1"})).await.unwrap();
    let page = world.search("whale", json!({"limit": 1})).await;
    assert_eq!((&page["total"], &page["complete"]), (&json!(5_000), &json!(true)));
}

#[tokio::test(flavor = "multi_thread")]
async fn a_page_of_long_documents_is_cut_and_goes_on() {
    let world = World::start().await;
    for n in 0..4 {
        world.set(&format!("d{n}"), json!({"text": "whale", "rest": "z".repeat(300_000)})).await;
    }
    let mut next = serde_json::Value::Null;
    for n in 0..4 {
        let page = world.search("whale", json!({"after": next, "highlight": true})).await;
        assert_eq!(crate::world::ids(&page), [format!("d{n}")]);
        next = page["next"].clone();
        assert_eq!(next.is_null(), n == 3);
    }
}

#[tokio::test(flavor = "multi_thread")]
async fn the_longest_document_is_stored_and_found_under_an_index() {
    let world = World::start().await;
    world.create(&["--search"]).await;
    // Of words that are all different, with as many lexemes as letters can make.
    let dense: String = (0..)
        .map(|n: u32| format!("{n:x}-{:x} ", n ^ 0xfff))
        .scan(0, |len, word| {
            *len += word.len();
            (*len < 982_000).then_some(word)
        })
        .collect();
    let wide: String =
        (0..100_000_u32).filter_map(|n| char::from_u32(0x1_0400 + n % 0x50)).flat_map(|c| [c, '-']).collect();
    for (id, text) in [("dense", dense), ("wide", wide), ("one", "w".repeat(980_000))] {
        world.set(id, json!({"first": "aardvark", "text": text})).await;
    }
    assert_eq!(world.search("aardvark", json!({"highlight": true, "facets": ["text"]})).await["total"], 3);
}

#[tokio::test(flavor = "multi_thread")]
async fn a_search_ends_with_its_deadline_and_keeps_no_page_waiting() {
    let world = World::start().await;
    call(&world.client, "table.create", json!({"table": "other"})).await.unwrap();
    world.set("a", json!({"text": "whale"})).await;
    let holder = crate::postgres::client(&world.database).await;
    holder.batch_execute(&format!("BEGIN; LOCK TABLE {}", world.ptr)).await.unwrap();
    let mut stuck = Vec::new();
    for _ in 0..8 {
        let options = CallOptions { timeout: Some(Duration::from_millis(1_500)), ..CallOptions::default() };
        let args = Json::encode(&json!({"table": "t", "query": "whale"})).unwrap();
        stuck.push(world.client.call_with("table.search", args, options));
    }
    let stuck = futures_util::future::join_all(stuck);
    let pages = async {
        for _ in 0..20 {
            for more in [json!({}), json!({"filter": {"n": 1}}), json!({"order": "n"})] {
                let mut args = json!({"table": "other"});
                args.as_object_mut().unwrap().extend(more.as_object().unwrap().clone());
                let begun = Instant::now();
                call(&world.client, "table.query", args).await.unwrap();
                let took = begun.elapsed();
                assert!(took < Duration::from_secs(1), "{more} took {took:?}");
            }
            let args = json!({"table": "other", "filter": {"n": 1}});
            call(&world.client, "table.count", args).await.unwrap();
        }
    };
    let (stuck, ()) = tokio::join!(stuck, pages);
    for answer in stuck {
        let code = answer.expect_err("it waits for a lock").code().unwrap();
        assert!(
            [ErrorCode::TIMEOUT, ErrorCode::CONFLICT, ErrorCode::SERVICE_UNAVAILABLE].contains(&code),
            "{code}"
        );
    }
    holder.batch_execute("ROLLBACK").await.unwrap();
    assert_eq!(world.ids("whale", json!({})).await, ["a"]);
}
