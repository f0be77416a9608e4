//! Operations on one document, alone and at the same time.

use std::collections::HashSet;

use raystream::store::{DOCUMENT_LEN_MAX, DocumentId, Store, StoreError};
use serde_json::json as object;

use crate::postgres::{client, store, store_with};
use crate::{WRITER, get, id, json, set, table, value};

#[tokio::test]
async fn what_is_set_is_got() {
    let store = store().await;
    assert_eq!(set(&store, "t", "a", r#"{"n":1}"#).await, 1);
    assert_eq!(set(&store, "t", "a", r#"{"n":2}"#).await, 2);
    let document = get(&store, "t", "a").await;
    assert_eq!((document.id, document.version), (id("a"), 2));
    assert_eq!(value(&document.data), object!({"n": 2}));
    assert_eq!(store.get(&table("t"), &id("b")).await, Ok(None));
}

#[tokio::test]
async fn numbers_and_text_are_kept_exactly() {
    let store = store().await;
    let text = r#"{"": -0.10, "big": 123456789012345678901234567890.000000000000000000001, "e": 1e-30,
        "s": "\"\\\/\b\f\n\r\t é 𝄞 \ud834\udd1e \u202e \u007f"}"#;
    set(&store, "t", "ä 𝄞'\"\\%", text).await;
    let data = get(&store, "t", "ä 𝄞'\"\\%").await.data;
    let got = std::str::from_utf8(data.as_bytes()).expect("the store gives UTF-8").to_owned();
    for number in
        ["123456789012345678901234567890.000000000000000000001", "-0.10", "0.000000000000000000000000000001"]
    {
        assert!(got.contains(number), "{number} in {got}");
    }
    assert_eq!(value(&data)["s"], "\"\\/\u{8}\u{c}\n\r\t é 𝄞 𝄞 \u{202e} \u{7f}");
}

#[tokio::test]
async fn a_condition_on_the_version_holds() {
    let store = store().await;
    let set_if = |text: &'static str, version| {
        let store = store.clone();
        async move { store.set(WRITER, &table("t"), &id("a"), json(text), Some(version)).await }
    };
    assert_eq!(
        set_if("1", 1).await,
        Err(StoreError::NotFound),
        "there is no table: the write cannot be its first"
    );
    store.create_table(&table("t")).await.expect("it is made");
    assert_eq!(set_if("1", 1).await, Err(StoreError::Conflict), "there is no document");
    assert_eq!(set_if("1", 0).await, Ok(1));
    assert_eq!(set_if("2", 0).await, Err(StoreError::Conflict), "there is one");
    assert_eq!(set_if("2", 2).await, Err(StoreError::Conflict));
    assert_eq!(set_if("2", 1).await, Ok(2));
    assert!(matches!(set_if("3", -1).await, Err(StoreError::InvalidInput(_))));
    assert_eq!(value(&get(&store, "t", "a").await.data), 2);
    assert_eq!(store.delete(WRITER, &table("t"), &id("a")).await, Ok(true));
    assert_eq!(set_if("3", 3).await, Err(StoreError::Conflict), "a tombstone is not a document");
    assert_eq!(set_if("3", 0).await, Ok(4), "the version goes on behind a tombstone");
}

#[tokio::test]
async fn a_deleted_document_is_gone_and_can_be_set_again() {
    let store = store().await;
    set(&store, "t", "a", "1").await;
    set(&store, "t", "b", "2").await;
    assert_eq!(store.delete(WRITER, &table("t"), &id("a")).await, Ok(true));
    assert_eq!(store.delete(WRITER, &table("t"), &id("a")).await, Ok(false));
    assert_eq!(store.delete(WRITER, &table("t"), &id("never")).await, Ok(false));
    assert_eq!(store.get(&table("t"), &id("a")).await, Ok(None));
    let update = store.update(WRITER, &table("t"), &id("a"), json("{}")).await;
    assert_eq!(update, Err(StoreError::NotFound));
    assert_eq!(store.count(&table("t"), None).await, Ok(1));

    assert!(set(&store, "t", "a", "3").await > 2, "the version goes on");
    assert_eq!(value(&get(&store, "t", "a").await.data), 3);
    let last = store.pop(WRITER, &table("t")).await.expect("the table is there").expect("there are two");
    assert_eq!(last.id, id("a"), "a document that is live again is a new one in the order");
}

#[tokio::test]
async fn nothing_of_a_deleted_document_stays_in_its_table() {
    let store = store().await;
    set(&store, "t", "a", r#"{"secret":"x"}"#).await;
    store.delete(WRITER, &table("t"), &id("a")).await.expect("it is deleted");
    let ptr = store.table(&table("t")).await.expect("the table is there").quoted();
    let client = client(store.postgres_config()).await;
    let row = client
        .query_one(&format!("SELECT data::text FROM {ptr}"), &[])
        .await
        .expect("the tombstone is there");
    assert_eq!(row.get::<_, &str>(0), "null");
}

/// The examples of RFC 7386, appendix A, and one of its section 3.
#[tokio::test]
async fn an_update_is_the_merge_of_rfc_7386() {
    let store = store().await;
    let examples = [
        (r#"{"a":"b"}"#, r#"{"a":"c"}"#, r#"{"a":"c"}"#),
        (r#"{"a":"b"}"#, r#"{"b":"c"}"#, r#"{"a":"b","b":"c"}"#),
        (r#"{"a":"b"}"#, r#"{"a":null}"#, "{}"),
        (r#"{"a":"b","b":"c"}"#, r#"{"a":null}"#, r#"{"b":"c"}"#),
        (r#"{"a":["b"]}"#, r#"{"a":"c"}"#, r#"{"a":"c"}"#),
        (r#"{"a":"c"}"#, r#"{"a":["b"]}"#, r#"{"a":["b"]}"#),
        (r#"{"a":{"b":"c"}}"#, r#"{"a":{"b":"d","c":null}}"#, r#"{"a":{"b":"d"}}"#),
        (r#"{"a":[{"b":"c"}]}"#, r#"{"a":[1]}"#, r#"{"a":[1]}"#),
        (r#"["a","b"]"#, r#"["c","d"]"#, r#"["c","d"]"#),
        (r#"{"a":"b"}"#, r#"["c"]"#, r#"["c"]"#),
        (r#"{"a":"foo"}"#, "null", "null"),
        (r#"{"a":"foo"}"#, r#""bar""#, r#""bar""#),
        (r#"{"e":null}"#, r#"{"a":1}"#, r#"{"a":1,"e":null}"#),
        ("[1,2]", r#"{"a":"b","c":null}"#, r#"{"a":"b"}"#),
        ("{}", r#"{"a":{"bb":{"ccc":null}}}"#, r#"{"a":{"bb":{}}}"#),
        (
            r#"{"title":"Goodbye!","author":{"givenName":"John","familyName":"Doe"},"tags":["a","b"],"content":"c"}"#,
            r#"{"title":"Hello!","phoneNumber":"+01","author":{"familyName":null},"tags":["a"]}"#,
            r#"{"title":"Hello!","author":{"givenName":"John"},"tags":["a"],"content":"c","phoneNumber":"+01"}"#,
        ),
    ];
    for (target, patch, result) in examples {
        let before = set(&store, "t", "a", target).await;
        let after = store.update(WRITER, &table("t"), &id("a"), json(patch)).await;
        assert_eq!(after, Ok(before + 1));
        assert_eq!(
            value(&get(&store, "t", "a").await.data),
            value(&json(result)),
            "{target} merged with {patch}"
        );
    }
}

#[tokio::test]
async fn the_deepest_patch_merges() {
    let store = store().await;
    let nested = |inner: &str| format!("{}{inner}{}", r#"{"a":"#.repeat(99), "}".repeat(99));
    set(&store, "t", "a", &nested(r#"{"x":1}"#)).await;
    store.update(WRITER, &table("t"), &id("a"), json(&nested(r#"{"y":2}"#))).await.expect("the patch merges");
    assert_eq!(value(&get(&store, "t", "a").await.data), value(&json(&nested(r#"{"x":1,"y":2}"#))));
}

#[tokio::test]
async fn concurrent_updates_of_different_fields_are_all_kept() {
    let store = store_with(|options| options.write_connections = 10).await;
    set(&store, "t", "a", "{}").await;
    let updates = (0..30).map(|n| {
        let store = store.clone();
        tokio::spawn(async move {
            store.update(WRITER, &table("t"), &id("a"), json(&format!(r#"{{"f{n}":{n}}}"#))).await
        })
    });
    let mut versions = HashSet::new();
    for update in updates.collect::<Vec<_>>() {
        versions.insert(update.await.expect("the task ends").expect("the update is done"));
    }
    assert_eq!(versions, (2..=31).collect());
    assert_eq!(value(&get(&store, "t", "a").await.data).as_object().map(serde_json::Map::len), Some(30));
}

#[tokio::test]
async fn fifty_concurrent_increments_are_fifty() {
    let store = store_with(|options| options.write_connections = 10).await;
    set(&store, "t", "counter", "0").await;
    let increments: Vec<_> = (0..50)
        .map(|_| {
            let store = store.clone();
            tokio::spawn(async move {
                loop {
                    let counter = get(&store, "t", "counter").await;
                    let next = value(&counter.data).as_i64().expect("it is a number") + 1;
                    let data = json(&next.to_string());
                    match store.set(WRITER, &table("t"), &id("counter"), data, Some(counter.version)).await {
                        Err(StoreError::Conflict) => {}
                        result => return result.expect("the write is done"),
                    }
                }
            })
        })
        .collect();
    let mut versions = HashSet::new();
    for increment in increments {
        assert!(versions.insert(increment.await.expect("the task ends")), "two writes got one version");
    }
    let counter = get(&store, "t", "counter").await;
    assert_eq!((value(&counter.data).as_i64(), counter.version), (Some(50), 51));
}

async fn pop_at_once(store: &Store, count: usize) -> Vec<Option<DocumentId>> {
    let pops: Vec<_> = (0..count)
        .map(|n| {
            let store = store.clone();
            tokio::spawn(async move {
                let popped = if n % 2 == 0 {
                    store.pop(WRITER, &table("t")).await
                } else {
                    store.shift(WRITER, &table("t")).await
                };
                popped.expect("the table is there").map(|document| document.id)
            })
        })
        .collect();
    let mut popped = Vec::new();
    for pop in pops {
        popped.push(pop.await.expect("the task ends"));
    }
    popped
}

#[tokio::test]
async fn twenty_concurrent_pops_of_one_item_have_one_winner() {
    let store = store_with(|options| options.write_connections = 20).await;
    for _ in 0..5 {
        let pushed = store.push(WRITER, &table("t"), json("1")).await.expect("it is pushed");
        let winners: Vec<_> = pop_at_once(&store, 20).await.into_iter().flatten().collect();
        assert_eq!(winners, [pushed]);
    }
}

#[tokio::test]
async fn twenty_concurrent_pops_of_twenty_items_all_win() {
    let store = store_with(|options| options.write_connections = 20).await;
    for _ in 0..5 {
        let mut pushed = HashSet::new();
        for n in 0..20 {
            pushed.insert(store.push(WRITER, &table("t"), json(&n.to_string())).await.expect("it is pushed"));
        }
        let popped: Vec<_> = pop_at_once(&store, 20).await;
        assert!(popped.iter().all(Option::is_some), "a pop found nothing while there was a free item");
        assert_eq!(popped.into_iter().flatten().collect::<HashSet<_>>(), pushed);
    }
}

#[tokio::test]
async fn a_locked_item_is_passed_over() {
    let store = store().await;
    let first = store.push(WRITER, &table("t"), json("1")).await.expect("it is pushed");
    let second = store.push(WRITER, &table("t"), json("2")).await.expect("it is pushed");
    let ptr = store.table(&table("t")).await.expect("the table is there").quoted();
    let holder = client(store.postgres_config()).await;
    holder
        .batch_execute(&format!("BEGIN; SELECT FROM {ptr} WHERE id = '{first}' FOR UPDATE"))
        .await
        .expect("the row is locked");
    let got = store.shift(WRITER, &table("t")).await.expect("the table is there");
    assert_eq!(got.map(|document| document.id), Some(second));
    assert_eq!(store.shift(WRITER, &table("t")).await, Ok(None));
    holder.batch_execute("ROLLBACK").await.expect("the row is free");
    let got = store.shift(WRITER, &table("t")).await.expect("the table is there");
    assert_eq!(got.map(|document| document.id), Some(first));
}

#[tokio::test]
async fn fifty_concurrent_pushes_have_fifty_places() {
    let store = store_with(|options| options.write_connections = 10).await;
    let pushes: Vec<_> = (0..50)
        .map(|n| {
            let store = store.clone();
            tokio::spawn(async move { store.push(WRITER, &table("t"), json(&n.to_string())).await })
        })
        .collect();
    let mut ids = HashSet::new();
    for push in pushes {
        ids.insert(push.await.expect("the task ends").expect("it is pushed"));
    }
    assert_eq!(ids.len(), 50);
    let ptr = store.table(&table("t")).await.expect("the table is there").quoted();
    let row = client(store.postgres_config())
        .await
        .query_one(&format!("SELECT count(DISTINCT _order), count(*) FROM {ptr}"), &[])
        .await
        .expect("the table is there");
    assert_eq!((row.get::<_, i64>(0), row.get::<_, i64>(1)), (50, 50));
}

#[tokio::test]
async fn pop_takes_the_last_and_shift_the_first() {
    let store = store().await;
    for n in 0..4 {
        store.push(WRITER, &table("t"), json(&n.to_string())).await.expect("it is pushed");
    }
    let mut taken = Vec::new();
    for last in [true, false, true, false] {
        let document =
            if last { store.pop(WRITER, &table("t")).await } else { store.shift(WRITER, &table("t")).await };
        taken.push(value(&document.expect("the table is there").expect("it is not empty").data).as_i64());
    }
    assert_eq!(taken, [Some(3), Some(0), Some(2), Some(1)]);
    assert_eq!(store.pop(WRITER, &table("t")).await, Ok(None));
}

#[tokio::test]
async fn what_cannot_be_stored_is_refused_in_our_own_words() {
    let store = store().await;
    set(&store, "t", "a", "1").await;
    let deep = format!("{}1{}", "[".repeat(101), "]".repeat(101));
    let invalid = [
        "",
        "{",
        "nul",
        "[1,]",
        "'a'",
        "\"open",
        "1 2",
        r#""\u0000""#,
        r#""\ud834""#,
        "\"\0\"",
        "1e999999",
        &deep,
        "NaN",
        r#"{"a":1}}"#,
        "\u{feff}1",
    ];
    for text in invalid {
        let result = store.set(WRITER, &table("t"), &id("a"), json(text), None).await;
        let Err(StoreError::InvalidInput(message)) = result else { panic!("{text:?} gave {result:?}") };
        assert!(!message.contains("jsonb") && !message.contains("syntax"), "{message} is Postgres' text");
        assert!(matches!(
            store.update(WRITER, &table("t"), &id("a"), json(text)).await,
            Err(StoreError::InvalidInput(_))
        ));
        assert!(matches!(store.count(&table("t"), Some(json(text))).await, Err(StoreError::InvalidInput(_))));
    }
    let not_utf8 = raystream::store::Json::new(vec![b'"', 0xFF, b'"']);
    let result = store.push(WRITER, &table("t"), not_utf8).await;
    assert!(matches!(result, Err(StoreError::InvalidInput(_))), "{result:?}");
    assert_eq!(value(&get(&store, "t", "a").await.data), 1, "nothing was written");
}

#[tokio::test]
async fn a_document_that_could_not_be_sent_is_too_large() {
    let store = store().await;
    let longest = format!("\"{}\"", "x".repeat(DOCUMENT_LEN_MAX - 2));
    set(&store, "t", "longest", &longest).await;
    assert_eq!(get(&store, "t", "longest").await.data.as_bytes().len(), DOCUMENT_LEN_MAX);
    let write = async |text: String| store.set(WRITER, &table("t"), &id("a"), json(&text), None).await;
    let too_long = format!("\"{}\"", "x".repeat(DOCUMENT_LEN_MAX - 1));
    // Postgres writes a space behind each comma, and numbers without exponent.
    let spaced = format!("[{}]", vec!["1"; 400_000].join(","));
    let expanded = format!("[{}]", ["1e100000"; 10].join(","));
    for text in [too_long, spaced, expanded] {
        assert_eq!(write(text).await, Err(StoreError::TooLarge));
    }
    // Two halves that fit, and a whole that does not.
    let half = |key: &str| format!(r#"{{"{key}":"{}"}}"#, "x".repeat(DOCUMENT_LEN_MAX / 2));
    set(&store, "t", "a", &half("a")).await;
    let merged = store.update(WRITER, &table("t"), &id("a"), json(&half("b"))).await;
    assert_eq!(merged, Err(StoreError::TooLarge));
}

#[tokio::test]
async fn the_log_has_each_write_with_its_writer() {
    let store = store().await;
    set(&store, "t", "a", "1").await;
    store.update(WRITER, &table("t"), &id("a"), json("2")).await.expect("it is updated");
    store.pop(WRITER, &table("t")).await.expect("it is popped");
    set(&store, "t", "a", "3").await;
    let table = store.table(&table("t")).await.expect("the table is there");
    let client = client(store.postgres_config()).await;
    let psql = format!("UPDATE {0} SET data = '4'; DELETE FROM {0}", table.quoted());
    client.batch_execute(&psql).await.expect("psql writes too");
    let refused = client.batch_execute(&format!("TRUNCATE {}", table.quoted())).await;
    assert!(refused.is_err(), "a TRUNCATE would not be in the log");
    let rows = client
        .query(
            "SELECT op::text, version, coalesce(before::text, '-'), coalesce(after::text, '-'), principal \
             FROM raystream.changes WHERE ptr = $1 AND id = 'a' ORDER BY seq",
            &[&table.table],
        )
        .await
        .expect("the log is there");
    let got: Vec<(String, i64, String, String, String)> =
        rows.iter().map(|row| (row.get(0), row.get(1), row.get(2), row.get(3), row.get(4))).collect();
    let expected = [
        ("i", 1, "-", "1", "tester"),
        ("u", 2, "1", "2", "tester"),
        ("d", 3, "2", "-", "tester"),
        ("i", 4, "-", "3", "tester"),
        ("u", 5, "3", "4", "raystream"),
        ("d", 5, "4", "-", "raystream"),
    ];
    let expected = expected.map(|(op, version, before, after, principal)| {
        (op.to_owned(), version, before.to_owned(), after.to_owned(), principal.to_owned())
    });
    assert_eq!(got, expected);
}

#[tokio::test]
async fn a_write_wakes_the_reader_of_the_log_and_a_read_does_not() {
    let store = store().await;
    set(&store, "t", "a", "1").await;
    let woken = || tokio::time::timeout(std::time::Duration::from_millis(300), store.woken());
    woken().await.expect("the write before it is remembered");
    while woken().await.is_ok() {}
    get(&store, "t", "a").await;
    woken().await.expect_err("a read wakes nobody");
    store.delete(WRITER, &table("t"), &id("a")).await.expect("it is deleted");
    woken().await.expect("the delete wakes");
}
