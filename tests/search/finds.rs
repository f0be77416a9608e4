//! What a search finds, and for whom.

use std::collections::BTreeMap;

use raystream::wire::ErrorCode;
use serde_json::{Value, json};

use crate::server::{call, code, eventually};
use crate::world::{World, ids};

async fn library() -> World {
    let world = World::start().await;
    for (id, data) in [
        (
            "moby",
            json!({"title": "Moby Dick", "text": "Call me Ishmael. The whale, the white whale!", "year": 1851,
                        "tags": ["sea", "classic", "sea"], "lent": true}),
        ),
        (
            "jonah",
            json!({"title": "Jonah", "text": "A great fish, which some called a whale, swallowed him", "tags": ["sea"],
                         "lent": false}),
        ),
        (
            "walden",
            json!({"title": "Walden", "text": "I went to the woods; writing there was slow", "year": 1854,
                          "tags": "classic", "by": {"name": "Thoreau", "notes": ["whaling never"]}}),
        ),
        ("plain", json!("whales and no object")),
        ("gone", json!({"text": "whale whale whale", "tags": ["sea"]})),
    ] {
        world.set(id, data).await;
    }
    world.call("table.delete", json!({"table": "t", "id": "gone"})).await.unwrap();
    world
}

#[tokio::test(flavor = "multi_thread")]
async fn a_search_finds_words_and_the_best_come_first() {
    let world = library().await;
    let page = world.search("whale", json!({})).await;
    let items = page["items"].as_array().unwrap();
    let ranks: Vec<f64> = items.iter().map(|item| item["rank"].as_f64().unwrap()).collect();
    assert!(ranks.is_sorted_by(|a, b| a >= b) && ranks[0] > ranks[3] && ranks[3] > 0.0, "{ranks:?}");
    let place = |id: &str| ids(&page).iter().position(|found| found == id).unwrap();
    assert!(place("moby") < place("jonah"), "it has it twice");
    let mut found = ids(&page);
    found.sort();
    // By its stem; and what was deleted is gone.
    assert_eq!(found, ["jonah", "moby", "plain", "walden"]);
    assert_eq!((&page["total"], &page["complete"], &page["next"]), (&json!(4), &json!(true), &Value::Null));
    let moby = world.call("table.get", json!({"table": "t", "id": "moby"})).await.unwrap();
    let found = &items[place("moby")];
    assert_eq!((&found["data"], &found["version"]), (&moby["data"], &moby["version"]));

    for (query, more, expected) in [
        ("whale", json!({"language": "simple"}), &["jonah", "moby"][..]),
        ("WRITES", json!({}), &["walden"]),
        ("\"white whale\"", json!({}), &["moby"]),
        ("\"whale white\"", json!({}), &[]),
        ("whale -white -thoreau", json!({}), &["jonah", "plain"]),
        ("ishmael or thoreau", json!({}), &["moby", "walden"]),
        ("whale woods", json!({}), &["walden"]),
        ("1851", json!({}), &["moby"]),
        ("true", json!({}), &[]),
        ("the", json!({}), &[]),
        ("", json!({}), &[]),
        ("whale", json!({"filter": {"lent": true}}), &["moby"]),
        ("whale", json!({"filter": {"tags": ["sea"]}, "fields": ["text"]}), &["jonah", "moby"]),
    ] {
        let mut found = world.ids(query, more.clone()).await;
        found.sort();
        assert_eq!(found, expected, "{query} {more}");
    }
}

#[tokio::test(flavor = "multi_thread")]
async fn what_is_not_searched_neither_matches_nor_shows() {
    let world = library().await;
    for (query, fields, expected) in [
        ("whale", json!(["title"]), &[][..]),
        ("whale", json!(["by"]), &["walden"]),
        ("whale", json!(["by.name"]), &[]),
        ("whale", json!(["by.notes"]), &["walden"]),
        ("whale", json!(["by.notes.0", "title"]), &["walden"]),
        ("sea", json!(["title", "text"]), &[]),
        ("moby", json!(["title", "text"]), &["moby"]),
        ("whale", json!(["missing"]), &[]),
    ] {
        let more = json!({"fields": fields, "facets": ["tags"], "highlight": true, "limit": 100});
        let page = world.search(query, more).await;
        assert_eq!(ids(&page), expected, "{query} {fields}");
        if expected.is_empty() {
            assert_eq!((&page["total"], &page["facets"]), (&json!(0), &json!({"tags": []})));
        }
    }
    // The excerpt is of what was searched, and the counts are of what was found.
    let page =
        world.search("moby", json!({"fields": ["title"], "facets": ["tags"], "highlight": true})).await;
    assert_eq!(page["items"][0]["highlight"], json!(["", "Moby", " Dick"]));
    let tags = page["facets"]["tags"].as_array().unwrap();
    assert_eq!(tags.len(), 2);
    assert!(tags.iter().all(|tag| tag["count"] == 1), "once for a document: {tags:?}");
}

#[tokio::test(flavor = "multi_thread")]
async fn facets_count_the_values_of_all_that_is_found() {
    let world = World::start().await;
    let mut expected = BTreeMap::new();
    for n in 0..60_u32 {
        let group = n % 25 * (n % 3);
        *expected.entry(group).or_insert(0_u64) += 1;
        let long = "x".repeat(300);
        world
            .set(
                &format!("d{n}"),
                json!({"text": "shelf", "group": group, "kind": [n % 2 == 0, null, {"a": 1}, long]}),
            )
            .await;
    }
    let page = world
        .search("shelf", json!({"limit": 1, "facets": ["group", "kind", "text", "text", "no.where"]}))
        .await;
    assert_eq!((ids(&page).len(), &page["total"]), (1, &json!(60)));
    let counts = |path: &str| -> Vec<(Value, u64)> {
        let list = page["facets"][path].as_array().unwrap().iter();
        list.map(|entry| (entry["value"].clone(), entry["count"].as_u64().unwrap())).collect()
    };
    let mut groups: Vec<(u32, u64)> = expected.into_iter().collect();
    groups.sort_by_key(|(group, count)| (std::cmp::Reverse(*count), *group));
    assert!(groups.len() > 20);
    let groups: Vec<(Value, u64)> =
        groups.into_iter().take(20).map(|(group, count)| (json!(group), count)).collect();
    assert_eq!(counts("group"), groups);
    assert_eq!(counts("kind"), [(json!(false), 30), (json!(true), 30)]);
    assert_eq!(counts("text"), [(json!("shelf"), 60)]);
    assert_eq!(counts("no.where"), []);
    assert_eq!(page["facets"].as_object().unwrap().len(), 4);
    assert_eq!(world.search("shelf", json!({})).await.get("facets"), None);
}

#[tokio::test(flavor = "multi_thread")]
async fn an_excerpt_says_which_of_its_parts_were_found() {
    let world = World::start().await;
    let text =
        format!("{} the \u{2}needle\u{3} & <b>a needle</b> {}", "hay ".repeat(200), "straw ".repeat(200));
    world.set("stack", json!({"text": text, "n": 5})).await;
    let page = world.search("needles", json!({"highlight": true})).await;
    let parts: Vec<&str> =
        page["items"][0]["highlight"].as_array().unwrap().iter().map(|part| part.as_str().unwrap()).collect();
    assert!(parts.len() >= 5, "{parts:?}");
    for (place, part) in parts.iter().enumerate() {
        // A mark of a caller's own in the text cannot turn the one into the other.
        assert_eq!(place % 2 == 1, *part == "needle", "{parts:?}");
    }
    assert!(parts.concat().chars().count() <= 500);
    let only_not = world.search("-absent", json!({"highlight": true})).await;
    assert_eq!(only_not["items"][0]["highlight"].as_array().unwrap().len(), 1);
    assert_eq!(world.search("needles", json!({})).await["items"][0].get("highlight"), None);
}

#[tokio::test(flavor = "multi_thread")]
async fn a_search_needs_the_rights_of_a_read() {
    let world = library().await;
    call(&world.client, "table.create", json!({"table": "secret"})).await.unwrap();
    call(&world.client, "table.create", json!({"table": "closed"})).await.unwrap();
    let other = world.server.client(3).await;
    let args = |table: &str| json!({"table": table, "query": "whale", "facets": ["tags"], "highlight": true});
    assert_eq!(code(call(&other, "table.search", args("t")).await), ErrorCode::FORBIDDEN);
    world.server.reconfigure("\"changes.read\",", "\"changes.read\", \"table.search\",");
    eventually("the method is granted", async || call(&other, "table.search", args("t")).await.is_ok()).await;
    assert!(call(&other, "table.search", args("closed")).await.is_ok());
    // Whether it is there or not.
    for table in ["secret", "nowhere"] {
        assert_eq!(code(call(&other, "table.search", args(table)).await), ErrorCode::PERMISSION_DENIED);
    }
    assert_eq!(code(call(&world.client, "table.search", args("nowhere")).await), ErrorCode::NOT_FOUND);
    let in_batch = json!({"calls": [{"method": "table.search", "args": args("secret")}]});
    assert_eq!(code(call(&other, "table.batch", in_batch).await), ErrorCode::PERMISSION_DENIED);
}

#[tokio::test(flavor = "multi_thread")]
async fn a_search_sees_its_transaction_or_an_earlier_moment() {
    let world = library().await;
    let begun = world.call("tx.begin", json!({})).await.unwrap();
    let sid = begun["sid"].as_str().unwrap();
    world
        .call("table.set", json!({"table": "t", "id": "new", "data": {"text": "narwhal"}, "sid": sid}))
        .await
        .unwrap();
    assert_eq!(world.ids("narwhal", json!({"sid": sid})).await, ["new"]);
    assert!(world.ids("narwhal", json!({})).await.is_empty());
    world.call("tx.commit", json!({"sid": sid})).await.unwrap();

    let event = world.call("topic.publish", json!({"topic": "x", "data": 1})).await.unwrap();
    let at = event["cursor"].as_str().unwrap().to_owned();
    world.set("new", json!({"text": "a whale after all"})).await;
    world.call("table.delete", json!({"table": "t", "id": "moby"})).await.unwrap();
    let past =
        world.search("narwhal or ishmael", json!({"at": at, "facets": ["lent"], "highlight": true})).await;
    let mut found = ids(&past);
    found.sort();
    assert_eq!(found, ["moby", "new"]);
    assert_eq!(
        (&past["cursor"], &past["facets"]["lent"]),
        (&json!(at), &json!([{"value": true, "count": 1}]))
    );
    assert!(world.ids("narwhal or ishmael", json!({})).await.is_empty());

    let batch = json!({"calls": [
        {"method": "table.set", "args": {"table": "t", "id": "late", "data": "narwhals"}},
        {"method": "table.search", "args": {"table": "t", "query": "narwhal"}}]});
    let results = world.call("table.batch", batch).await.unwrap();
    assert_eq!(ids(&results["results"][1]), ["late"]);
}

#[tokio::test(flavor = "multi_thread")]
async fn an_attached_table_is_searched_like_others() {
    let world = World::start().await;
    let sql = "CREATE TABLE public.orders (id int PRIMARY KEY, note text, due date); \
               INSERT INTO public.orders VALUES (7, 'two whales', '2026-01-02'), (8, 'none', NULL); \
               SELECT raystream.attach('public', 'orders', 'public.orders')";
    world.admin.batch_execute(sql).await.unwrap();
    let args = json!({"table": "orders", "query": "whale", "facets": ["due"], "highlight": true});
    let page = world.call("table.search", args).await.unwrap();
    assert_eq!(ids(&page), ["7"]);
    assert_eq!(page["facets"]["due"], json!([{"value": "2026-01-02", "count": 1}]));
}

#[tokio::test(flavor = "multi_thread")]
async fn pages_have_each_document_once_and_in_order() {
    let world = World::start().await;
    // Many of the same rank, and some that are better.
    world.fill(230, "jsonb_build_object('text', 'whale ' || repeat('whale ', n % 3) || n)").await;
    world.call("table.create", json!({"table": "u"})).await.unwrap();
    let mut whole = Vec::new();
    for limit in [100, 7, 50] {
        let mut walked: Vec<String> = Vec::new();
        let mut next = Value::Null;
        loop {
            let page =
                world.search("whale", json!({"limit": limit, "after": next, "facets": ["text"]})).await;
            assert_eq!(page["total"], 230);
            walked.extend(ids(&page));
            next = page["next"].clone();
            if next.is_null() {
                break;
            }
            for (query, more) in [
                ("other", json!({})),
                ("whale", json!({"language": "simple"})),
                ("whale", json!({"fields": ["text"]})),
                ("whale", json!({"filter": {}})),
                ("whale", json!({"table": "u"})),
                ("whale", json!({"at": "2026-01-31T12:00:00Z"})),
            ] {
                let mut args = more;
                args["after"] = next.clone();
                let other = world.try_search(query, args.clone()).await;
                assert_eq!(code(other), ErrorCode::INVALID_REQUEST, "{query} {args}");
            }
        }
        assert_eq!(walked.len(), 230);
        if whole.is_empty() {
            whole = walked;
        } else {
            assert_eq!(walked, whole);
        }
    }
    whole.sort();
    whole.dedup();
    assert_eq!(whole.len(), 230);
}

#[tokio::test(flavor = "multi_thread")]
async fn pages_of_a_moment_go_on_at_that_moment() {
    let world = World::start().await;
    world.fill(7, "jsonb_build_object('text', 'whale ' || n)").await;
    let moment = async || {
        let event = world.call("topic.publish", json!({"topic": "x", "data": 1})).await.unwrap();
        event["cursor"].as_str().unwrap().to_owned()
    };
    let now = "SELECT to_char(clock_timestamp(), 'YYYY-MM-DD\"T\"HH24:MI:SS.US\"Z\"')";
    let time: String = world.admin.query_one(now, &[]).await.unwrap().get(0);
    let cursor = moment().await;
    for n in 1..=7 {
        world.set(&format!("d{n}"), json!({"text": "no fish"})).await;
    }
    let later = moment().await;
    assert_eq!(world.search("whale", json!({})).await["total"], 0);
    for at in [time, cursor] {
        let mut walked: Vec<String> = Vec::new();
        // Asked for as it was, as the cursor of the answer, or not at all.
        let mut page = world.search("whale", json!({"at": at, "limit": 2})).await;
        for asked in [Value::Null, json!(at), page["cursor"].clone()] {
            walked.extend(ids(&page));
            let next = page["next"].clone();
            let other = world.try_search("whale", json!({"after": next, "at": later})).await;
            assert_eq!(code(other), ErrorCode::INVALID_REQUEST);
            page = world.search("whale", json!({"after": next, "at": asked, "limit": 2})).await;
        }
        walked.extend(ids(&page));
        assert!(page["next"].is_null());
        assert_eq!(walked, ["d1", "d2", "d3", "d4", "d5", "d6", "d7"]);
    }
}

#[tokio::test(flavor = "multi_thread")]
async fn the_command_line_searches() {
    let world = library().await;
    let run = async |args: &[&str]| {
        let url = world.server.url.as_str();
        let mut command = tokio::process::Command::new(env!("CARGO_BIN_EXE_raystream"));
        let output = command.args([&["search", url, "t"], args].concat()).output().await.unwrap();
        let text = |bytes: Vec<u8>| String::from_utf8(bytes).unwrap();
        (output.status.code(), text(output.stdout), text(output.stderr))
    };
    let (status, out, err) = run(&["white", "whale", "--facet", "lent", "--limit", "1", "--highlight"]).await;
    assert_eq!((status, out.lines().count()), (Some(0), 1), "{out}{err}");
    let item: Value = serde_json::from_str(out.trim()).unwrap();
    assert_eq!((&item["id"], item["highlight"].is_array()), (&json!("moby"), true));
    assert!(err.contains(r#"facets: {"lent": [{"count": 1, "value": true}]}"#), "{err}");
    let (status, _, err) = run(&["whale", "--limit", "1"]).await;
    assert!(status == Some(0) && err.contains("4 were found"), "{err}");
    // As a shell gives on what README and help say.
    for (args, expected) in [
        (&["whale -white -thoreau", "--highlight"][..], &["jonah", "plain"][..]),
        (&["--highlight", "--", "whale", "-white", "-thoreau"], &["jonah", "plain"]),
        (&["\"white whale\""], &["moby"]),
        (&["\"whale white\""], &[]),
    ] {
        let (status, out, err) = run(args).await;
        let found = out.lines().map(|line| serde_json::from_str::<Value>(line).unwrap());
        let mut found: Vec<_> = found.map(|item| item["id"].as_str().unwrap().to_owned()).collect();
        found.sort();
        assert_eq!(
            (status, found),
            (Some(0), expected.iter().map(ToString::to_string).collect()),
            "{args:?}: {err}"
        );
    }
    let (mut walked, mut after) = (Vec::new(), None::<String>);
    loop {
        let mut args = vec!["whale", "--limit", "3"];
        args.extend(after.iter().flat_map(|after| ["--after", after]));
        let (status, out, err) = run(&args).await;
        assert_eq!(status, Some(0), "{err}");
        walked.extend(out.lines().map(|line| serde_json::from_str::<Value>(line).unwrap()["id"].clone()));
        after = err.lines().find_map(|line| line.strip_prefix("next: ")).map(str::to_owned);
        if after.is_none() {
            break;
        }
    }
    walked.sort_by_key(Value::to_string);
    assert_eq!(walked, ["jonah", "moby", "plain", "walden"]);
    let (status, _, err) = run(&["whale", "--language", "klingon"]).await;
    assert!(status == Some(1) && err.contains("INVALID_REQUEST"), "{err}");
}
