//! Queries: order, filter, pages.

use std::collections::HashSet;

use raystream::store::{Order, Page, Query, Store, StoreError};

use crate::postgres::store;
use crate::{WRITER, id, json, set, table, value};

fn order(text: &str) -> Order {
    Order::parse(text).expect("the test's order is valid")
}

async fn page(store: &Store, query: Query) -> Page {
    store.query(&table("t"), query).await.expect("the query is valid")
}

fn ids(page: &Page) -> Vec<&str> {
    page.items.iter().map(|document| document.id.as_str()).collect()
}

/// All ids, page by page.
async fn walk(store: &Store, query: Query) -> Vec<String> {
    let mut all = Vec::new();
    let mut after = None;
    loop {
        let page = page(store, Query { after, ..query.clone() }).await;
        all.extend(ids(&page).into_iter().map(str::to_owned));
        after = page.next;
        if after.is_none() {
            return all;
        }
    }
}

#[tokio::test]
async fn without_an_order_documents_come_as_they_were_inserted() {
    let store = store().await;
    for name in ["c", "a", "b", "d"] {
        set(&store, "t", name, "1").await;
    }
    set(&store, "t", "c", "2").await;
    store.delete(WRITER, &table("t"), &id("a")).await.expect("it is deleted");
    assert_eq!(ids(&page(&store, Query::default()).await), ["c", "b", "d"]);
    set(&store, "t", "a", "3").await;
    assert_eq!(ids(&page(&store, Query::default()).await), ["c", "b", "d", "a"]);
}

#[tokio::test]
async fn orders_are_total_and_the_same_page_by_page() {
    let store = store().await;
    let documents = [
        ("m", r#"{"a":{"n":2}}"#),
        ("B", r#"{"a":{"n":10}}"#),
        ("b", r#"{"a":{"n":"10"}}"#),
        ("ä", r#"{"a":{"n":2.0}}"#),
        ("z", r#"{"a":{"n":null}}"#),
        ("y", "{}"),
        ("x", "[7]"),
        ("w", r#"{"a":{"n":true}}"#),
        ("v", r#"{"a":{"n":[1]}}"#),
        ("u", r#"{"a":{"n":{"k":1}}}"#),
        ("t", r#"{"a":{"n":-1e40}}"#),
    ];
    for (name, text) in documents {
        set(&store, "t", name, text).await;
    }
    let by_id = ["B", "b", "m", "t", "u", "v", "w", "x", "y", "z", "ä"];
    // null and missing, text, numbers, booleans, arrays, objects; equal ones by id.
    let by_field = ["x", "y", "z", "b", "t", "m", "ä", "B", "w", "v", "u"];
    for (text, expected) in [("id", by_id), ("a.n", by_field)] {
        let mut expected = expected.to_vec();
        for descending in [false, true] {
            let order = order(&format!("{}{text}", if descending { "-" } else { "" }));
            for limit in [1, 2, 3, 11, 1_000] {
                let query = Query { order: order.clone(), limit: Some(limit), ..Query::default() };
                assert_eq!(walk(&store, query).await, expected, "{order:?} by {limit}");
            }
            expected.reverse();
        }
    }
    let by_position = walk(&store, Query { order: order("-0"), limit: Some(2), ..Query::default() }).await;
    assert_eq!(by_position.first().map(String::as_str), Some("x"), "a step can be the place in an array");
}

#[tokio::test]
async fn a_filter_is_containment() {
    let store = store().await;
    for n in 0..30 {
        set(
            &store,
            "t",
            &format!("{n:02}"),
            &format!(r#"{{"n":{n},"even":{},"tags":["t{}"]}}"#, n % 2 == 0, n % 3),
        )
        .await;
    }
    let filtered = |text: &str| Query { filter: Some(json(text)), limit: Some(4), ..Query::default() };
    let even = walk(&store, filtered(r#"{"even":true}"#)).await;
    assert_eq!(even.len(), 15);
    assert!(even.iter().all(|id| id.ends_with(['0', '2', '4', '6', '8'])));
    let tagged = walk(&store, filtered(r#"{"even":true,"tags":["t1"]}"#)).await;
    assert_eq!(tagged, ["04", "10", "16", "22", "28"]);
    assert_eq!(walk(&store, filtered(r#"{"n":7.0}"#)).await, ["07"]);
    let descending = Query { order: order("-n"), ..filtered(r#"{"even":true}"#) };
    assert_eq!(walk(&store, descending).await, even.iter().rev().cloned().collect::<Vec<_>>());
    assert_eq!(store.count(&table("t"), Some(json(r#"{"even":true}"#))).await, Ok(15));
    assert_eq!(store.count(&table("t"), None).await, Ok(30));
}

#[tokio::test]
async fn pages_have_each_document_once_while_others_write() {
    let store = store().await;
    for n in 0..200 {
        set(&store, "t", &format!("old{n:03}"), &format!(r#"{{"k":{}}}"#, n * 7 % 200)).await;
    }
    let mut n = 0;
    for text in ["", "id", "-id", "k", "-k"] {
        let order = if text.is_empty() { Order::Insertion } else { order(text) };
        let mut all = Vec::new();
        let mut after = None;
        loop {
            let page =
                page(&store, Query { order: order.clone(), limit: Some(9), after, ..Query::default() }).await;
            all.extend(ids(&page).into_iter().map(str::to_owned));
            after = page.next;
            if after.is_none() {
                break;
            }
            let new = format!("new{n}");
            // New ones before and behind the place, one that keeps its place, one that goes, and one that was on the page.
            set(&store, "t", &new, &format!(r#"{{"k":{}}}"#, n * 13 % 200)).await;
            let touched = json(r#"{"touched":true}"#);
            store
                .update(WRITER, &table("t"), &id(&format!("old{:03}", n % 200)), touched)
                .await
                .expect("it is there");
            if n % 3 == 0 {
                store.delete(WRITER, &table("t"), &id(&new)).await.expect("the table is there");
            }
            n += 1;
        }
        let distinct: HashSet<&String> = all.iter().collect();
        assert_eq!(distinct.len(), all.len(), "a document is on two pages, ordered by {text:?}");
        assert_eq!(
            all.iter().filter(|id| id.starts_with("old")).count(),
            200,
            "one is missing, ordered by {text:?}"
        );
    }
    assert!(n > 100, "the pages were too long to write between them");
}

#[tokio::test]
async fn a_page_is_cut_where_it_would_not_fit_into_a_message() {
    let store = store().await;
    // The first kind packs well, so that its stored size says little; the second does not pack at all.
    let packs = |len: usize| format!("\"{}\"", "x".repeat(len));
    let random = |len: usize| {
        let mut state = 1_u64;
        let text: String = std::iter::repeat_with(|| {
            state = state.wrapping_mul(6_364_136_223_846_793_005).wrapping_add(1_442_695_040_888_963_407);
            char::from(b'0' + u8::try_from(state >> 58).expect("six bits fit"))
        })
        .map(|character| if character == '\\' { '-' } else { character })
        .take(len)
        .collect();
        format!("\"{text}\"")
    };
    for n in 0..4 {
        set(&store, "t", &format!("packs{n}"), &packs(300_000)).await;
        set(&store, "t", &format!("random{n}"), &random(300_000)).await;
    }
    set(&store, "t", "whole", &packs(900_000)).await;
    for order in [Order::Insertion, order("-id")] {
        let mut after = None;
        let mut pages = Vec::new();
        loop {
            let page = page(&store, Query { order: order.clone(), after, ..Query::default() }).await;
            let len: usize = page.items.iter().map(|document| document.data.as_bytes().len()).sum();
            assert!(len <= 768 * 1024 || page.items.len() == 1, "a page of {len} bytes");
            pages.push(page.items.len());
            after = page.next;
            if after.is_none() {
                break;
            }
        }
        assert_eq!(pages.iter().sum::<usize>(), 9, "{pages:?}");
        assert_eq!(pages.len(), 5, "pages that could be longer: {pages:?}");
    }
}

#[tokio::test]
async fn the_last_page_has_no_next_and_a_full_one_before_it_has() {
    let store = store().await;
    for n in 0..100 {
        store.push(WRITER, &table("t"), json(&n.to_string())).await.expect("it is pushed");
    }
    let whole = page(&store, Query::default()).await;
    assert_eq!((whole.items.len(), whole.next), (100, None), "the default limit is a hundred");
    let numbers: Vec<_> = whole.items.iter().map(|document| value(&document.data).as_i64()).collect();
    assert_eq!(numbers, (0..100).map(Some).collect::<Vec<_>>());
    store.push(WRITER, &table("t"), json("100")).await.expect("it is pushed");
    let first = page(&store, Query::default()).await;
    assert_eq!(first.items.len(), 100);
    let rest = page(&store, Query { after: first.next, ..Query::default() }).await;
    assert_eq!((rest.items.len(), rest.next), (1, None));
}

#[tokio::test]
async fn limits_and_cursors_that_do_not_fit_are_refused() {
    let store = store().await;
    for n in 0..3 {
        set(&store, "t", &n.to_string(), &format!(r#"{{"long":"{}{n}"}}"#, "x".repeat(3_000))).await;
    }
    let refused = |query| {
        let store = store.clone();
        async move {
            let result = store.query(&table("t"), query).await;
            assert!(matches!(result, Err(StoreError::InvalidInput(_))), "{result:?}");
        }
    };
    refused(Query { limit: Some(0), ..Query::default() }).await;
    refused(Query { limit: Some(1_001), ..Query::default() }).await;
    refused(Query { after: Some("???".to_owned()), ..Query::default() }).await;
    let next = page(&store, Query { limit: Some(1), ..Query::default() }).await.next;
    refused(Query { after: next.clone(), order: order("id"), ..Query::default() }).await;
    refused(Query { order: order("long"), limit: Some(1), ..Query::default() }).await;
    assert_eq!(page(&store, Query { after: next, ..Query::default() }).await.items.len(), 2);
    assert_eq!(page(&store, Query { order: order("long"), ..Query::default() }).await.items.len(), 3);
}

#[test]
fn orders_that_lead_nowhere_are_refused() {
    for text in ["", "-", ".", "a.", ".a", "a..b", "a\u{0}b", &"a".repeat(257)] {
        assert!(matches!(Order::parse(text), Err(StoreError::InvalidInput(_))), "{text:?}");
    }
    assert_eq!(Order::parse("-id"), Ok(Order::Id { descending: true }));
    let path = vec!["id".to_owned(), "x".to_owned()];
    assert_eq!(Order::parse("id.x"), Ok(Order::Field { path, descending: false }));
}
