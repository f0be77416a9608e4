//! Filters: the same answer as Postgres, and what a change is to one who sees a part.

use proptest::prelude::*;
use proptest::strategy::ValueTree;
use proptest::test_runner::TestRunner;
use raystream::store::StoreError;
use raystream::store::feed::{ChangeKind, Item, SubscribeRequest, json_contains};

use crate::postgres;
use crate::world::{World, json, request, text, until_id};

/// A JSON value, as a tree of texts: numbers keep the form in which they were written.
#[derive(Debug, Clone)]
enum Value {
    Scalar(String),
    Array(Vec<Value>),
    /// Keys as they are written, with their quotes.
    Object(Vec<(String, Value)>),
}

impl Value {
    fn text(&self) -> String {
        match self {
            Self::Scalar(text) => text.clone(),
            Self::Array(values) => {
                let values: Vec<_> = values.iter().map(Self::text).collect();
                format!("[{}]", values.join(","))
            }
            Self::Object(members) => {
                let members: Vec<_> =
                    members.iter().map(|(key, value)| format!("{key}: {}", value.text())).collect();
                format!("{{{}}}", members.join(" , "))
            }
        }
    }
}

/// Few values, so that they meet; several texts of one value.
fn scalar() -> impl Strategy<Value = Value> {
    prop::sample::select(vec![
        "null",
        "true",
        "false",
        "0",
        "-0",
        "0.0",
        "0e5",
        "1",
        "1.0",
        "1e0",
        "10e-1",
        "0.1E+1",
        "-1",
        "-1.50",
        "-15e-1",
        "10",
        "1e1",
        "100",
        "1e2",
        "0.01",
        "1e-2",
        "9007199254740993",
        "9007199254740992",
        "9007199254740993.0",
        "123456789012345678901234567890",
        "1.23456789012345678901234567890e29",
        "1e300",
        "10e299",
        "0.1",
        "0.1000000000000000055511151231257827",
        r#""""#,
        r#""a""#,
        r#""b""#,
        r#""1""#,
        r#""\u0061""#,
        r#""ä""#,
        r#""\u00e4""#,
        r#""😀""#,
        r#""\ud83d\ude00""#,
        r#""\n\t\"\\/""#,
        r#""\u000a\u0009\u0022\u005c\/""#,
        r#""\u0001""#,
        r#""null""#,
    ])
    .prop_map(|text| Value::Scalar(text.to_owned()))
}

fn key() -> impl Strategy<Value = String> {
    prop::sample::select(vec![r#""a""#, r#""b""#, r#""\u0061""#, r#""aa""#, r#""""#, r#""ä""#, r#""\n""#])
        .prop_map(str::to_owned)
}

fn value() -> impl Strategy<Value = Value> {
    scalar().prop_recursive(4, 24, 4, |inner| {
        prop_oneof![
            prop::collection::vec(inner.clone(), 0..4).prop_map(Value::Array),
            prop::collection::vec((key(), inner), 0..4).prop_map(Value::Object),
        ]
    })
}

/// A part of a document, which it contains but for the changes: a member less, an element less or twice, another number.
fn part(value: Value) -> BoxedStrategy<Value> {
    match value {
        Value::Scalar(text) => prop_oneof![6 => Just(Value::Scalar(text)), 1 => scalar()].boxed(),
        Value::Array(values) => {
            let elements = prop::sample::subsequence(values.clone(), 0..=values.len())
                .prop_flat_map(|some| some.into_iter().map(part).collect::<Vec<_>>());
            let reversed = elements.prop_map(|mut values| {
                values.reverse();
                Value::Array(values)
            });
            let one = (!values.is_empty()).then(|| prop::sample::select(values).boxed());
            // The rule for scalars in arrays, at the top and below.
            match one {
                Some(one) => prop_oneof![6 => reversed, 1 => one].boxed(),
                None => reversed.boxed(),
            }
        }
        Value::Object(members) => {
            let some = prop::sample::subsequence(members.clone(), 0..=members.len());
            some.prop_flat_map(|members| {
                members.into_iter().map(|(key, value)| (Just(key), part(value))).collect::<Vec<_>>()
            })
            .prop_map(Value::Object)
            .boxed()
        }
    }
}

fn pair() -> impl Strategy<Value = (String, String)> {
    let related = value().prop_flat_map(|value| (Just(value.clone()), part(value)));
    prop_oneof![4 => related, 1 => (value(), value())].prop_map(|(a, b)| (a.text(), b.text()))
}

#[tokio::test]
async fn containment_is_that_of_postgres() {
    const ROUNDS: usize = 6;
    const PAIRS: usize = 1_000;
    let client = postgres::client(&postgres::database().await).await;
    let mut runner = TestRunner::default();
    let (mut contained, mut not) = (0, 0);
    for _ in 0..ROUNDS {
        let (documents, filters): (Vec<String>, Vec<String>) =
            (0..PAIRS).map(|_| pair().new_tree(&mut runner).expect("a pair is made").current()).unzip();
        let ask = "SELECT d::jsonb @> f::jsonb, d::jsonb::text, f::jsonb::text, d, f \
            FROM unnest($1::text[], $2::text[]) AS p (d, f)";
        for row in client.query(ask, &[&documents, &filters]).await.expect("Postgres reads them") {
            let expected: bool = row.get(0);
            let (document, filter): (&str, &str) = (row.get(1), row.get(2));
            assert_eq!(json_contains(document, filter), Some(expected), "{document} @> {filter}");
            *(if expected { &mut contained } else { &mut not }) += 1;
        }
    }
    assert!(contained > 1_000 && not > 1_000, "both answers are tried: {contained} and {not}");
}

#[tokio::test(flavor = "multi_thread", worker_threads = 2)]
async fn documents_enter_and_leave() {
    let world = World::new().await;
    let feed = world.feed().await;
    let client = world.client().await;
    world.set(&client, "in", r#"{"open": true, "n": 1}"#).await;
    world.set(&client, "out", r#"{"open": false}"#).await;
    let request = SubscribeRequest { filter: Some(json(r#"{"open":true}"#)), snapshot: true, ..request("t") };
    let mut subscription = feed.subscribe(request.clone()).await.expect("it begins");
    let begun = crate::world::until(&mut subscription, |item| matches!(item, Item::SnapshotEnd { .. })).await;
    let cursor = crate::world::cursor_of(begun.last().expect("it ends")).expect("a cursor");
    let matching: Vec<_> = begun
        .iter()
        .filter_map(|item| match item {
            Item::Snapshot(change) => Some(change.id.to_string()),
            _ => None,
        })
        .collect();
    assert_eq!(matching, ["in"]);

    for (id, data) in [
        ("new", r#"{"open": true}"#),
        ("new", r#"{"open": true, "n": 2}"#),
        ("out", r#"{"open": false, "n": 1}"#),
        ("out", r#"{"open": true, "n": 1}"#),
        ("in", r#"{"open": false, "secret": 1}"#),
        ("in", r#"{"open": false, "secret": 2}"#),
        ("other", r#"{"open": 1}"#),
    ] {
        world.set(&client, id, data).await;
    }
    for id in ["new", "in", "other"] {
        client.execute(&crate::world::delete(&world.t), &[&id]).await.expect("it is deleted");
    }
    world.set(&client, "end", r#"{"open": true}"#).await;

    let expected = [
        ("new", ChangeKind::Insert, Some(r#"{"open": true}"#), None),
        ("new", ChangeKind::Update, Some(r#"{"n": 2, "open": true}"#), Some(r#"{"open": true}"#)),
        ("out", ChangeKind::Enter, Some(r#"{"n": 1, "open": true}"#), None),
        ("in", ChangeKind::Leave, None, Some(r#"{"n": 1, "open": true}"#)),
        ("new", ChangeKind::Delete, None, Some(r#"{"n": 2, "open": true}"#)),
        ("end", ChangeKind::Insert, Some(r#"{"open": true}"#), None),
    ];
    let resumed = SubscribeRequest { cursor: Some(cursor.to_string()), ..request };
    let mut resumed = feed.subscribe(resumed).await.expect("it begins");
    for subscription in [&mut subscription, &mut resumed] {
        let items = until_id(subscription, "end").await;
        let seen: Vec<_> = crate::world::events(&items)
            .iter()
            .map(|change| {
                (change.id.to_string(), change.kind, text(change.data.as_ref()), text(change.old.as_ref()))
            })
            .collect();
        let expected: Vec<_> = expected
            .iter()
            .map(|(id, kind, data, old)| {
                ((*id).to_owned(), *kind, data.map(str::to_owned), old.map(str::to_owned))
            })
            .collect();
        assert_eq!(seen, expected);
    }
}

#[tokio::test(flavor = "multi_thread", worker_threads = 2)]
async fn what_is_no_filter_is_refused() {
    let world = World::new().await;
    let feed = world.feed().await;
    let deep = format!("{}{}", "[".repeat(65), "]".repeat(65));
    let many = format!("[{}1]", "1,".repeat(256));
    let long = format!("\"{}\"", "x".repeat(16 * 1024));
    for bad in ["", "{", "{\"a\":1,}", "nul", "\"\\u0000\"", "1e200000", &deep, &many, &long] {
        let request = SubscribeRequest { filter: Some(json(bad)), ..request("t") };
        let refused = feed.subscribe(request).await.map(|_| ());
        assert!(matches!(refused, Err(StoreError::InvalidInput(_))), "{:.40}: {refused:?}", bad);
    }
    assert_eq!(feed.subscriptions(), 0);
}
