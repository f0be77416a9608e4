//! Making, listing and dropping indexes, and what is left when that is interrupted.

use raystream::wire::ErrorCode;
use serde_json::{Value, json};
use tokio::io::{AsyncBufReadExt, BufReader};
use tokio::process::Child;

use crate::server::{code, eventually};
use crate::world::{World, ended};

/// A transaction of somebody else that has written the table: building waits for its end.
async fn writer(world: &World) -> tokio_postgres::Client {
    let writer = crate::postgres::client(&world.database).await;
    writer
        .batch_execute(&format!("BEGIN; UPDATE {} SET data = '{{}}' WHERE id = 'd1'", world.ptr))
        .await
        .unwrap();
    writer
}

async fn is_building(world: &World) -> bool {
    let sql = "SELECT count(*) FROM pg_stat_progress_create_index WHERE phase LIKE 'waiting for writers%' \
               AND datname = current_database()";
    world.admin.query_one(sql, &[]).await.unwrap().get::<_, i64>(0) == 1
}

/// A build that waits for a writer.
async fn begin(world: &World, args: &[&str]) -> Child {
    let child = world.begin(&[&["create", "t"], args].concat());
    eventually("the build waits", async || is_building(world).await).await;
    child
}

async fn states(world: &World) -> Vec<Value> {
    world.list().await.iter().map(|index| index["state"].clone()).collect()
}

fn signal(child: &Child, name: &str) {
    let pid = child.id().unwrap().to_string();
    assert!(std::process::Command::new("kill").args([name, &pid]).status().unwrap().success());
}

#[tokio::test(flavor = "multi_thread")]
async fn an_index_is_made_once_listed_and_dropped() {
    let world = World::start().await;
    world.fill(50, "jsonb_build_object('n', n)").await;
    let made = world.index(&["create", "t", "n", "--json"]).await;
    let made_value: Value = serde_json::from_str(&made.out).unwrap();
    let name = made_value["index"].as_str().unwrap().to_owned();
    let expected = json!({"index": name, "created": true, "table": "t", "kind": "order", "paths": ["n"], "language": null});
    assert_eq!(made_value, expected);
    // Each step is told, one object a line.
    let steps: Vec<Value> = made.err.lines().map(|line| serde_json::from_str(line).unwrap()).collect();
    assert!(steps.iter().any(|step| step["progress"]["phase"] == "analyzing"), "{}", made.err);

    let again = world.index(&["create", "t", "n"]).await;
    assert_eq!((again.code, again.out.trim()), (Some(0), name.as_str()));
    assert!(again.err.contains("there already"), "{}", again.err);

    let search = world.create(&["--search", "b", "a", "--language", "german"]).await;
    assert_eq!(world.create(&["--search", "a", "b", "--language", "german"]).await, search);
    let mut listed = world.list().await;
    for index in &mut listed {
        assert!(index["bytes"].as_u64().unwrap() > 0);
        index.as_object_mut().unwrap().retain(|key, _| !["bytes", "scans"].contains(&key.as_str()));
    }
    assert_eq!(
        listed,
        [
            json!({"index": name, "table": "t", "kind": "order", "paths": ["n"], "language": null, "state": "ready"}),
            json!({"index": search, "table": "t", "kind": "search", "paths": ["a", "b"], "language": "german",
                   "state": "ready"}),
        ]
    );
    let shown = world.index(&["list", "t"]).await.out;
    assert!(shown.contains(&name) && shown.contains("search a b (german)"), "{shown}");
    assert_eq!(world.index(&["list", "other"]).await.out, "");

    for name in [&name, &search] {
        assert_eq!(world.index(&["drop", name]).await.code, Some(0));
    }
    assert!(world.list().await.is_empty() && world.in_catalogue().await.is_empty());
    let gone = world.index(&["drop", &name]).await;
    assert!(gone.code == Some(1) && gone.err.contains("there is no index"), "{gone:?}");
    // One that was dropped with SQL is made again.
    let name = world.create(&["n"]).await;
    world.admin.batch_execute(&format!("DROP INDEX raystream.{name}")).await.unwrap();
    assert_eq!(world.create(&["n"]).await, name);
    assert_eq!(states(&world).await, ["ready"]);
}

#[tokio::test(flavor = "multi_thread")]
async fn an_index_that_cannot_be_is_refused_with_its_reason() {
    let world = World::start().await;
    world.admin.batch_execute("CREATE TABLE public.orders (id int PRIMARY KEY, note text)").await.unwrap();
    world.admin.batch_execute("SELECT raystream.attach('public', 'orders', 'public.orders')").await.unwrap();
    for (args, status, reason) in [
        (&["create", "missing"][..], 1, "no table `missing`"),
        (&["create", "orders"], 1, "is attached"),
        (&["create", "orders", "--search"], 1, "is attached"),
        (&["create", "t", "a..b"], 64, "a path is"),
        (&["create", "t", "id"], 64, "have an index by `id`"),
        (&["create", "t", "a", "b"], 64, "on one path"),
        (&["create", "t", "--unique"], 64, "need a path"),
        (&["create", "t", "--unique", "--search", "a"], 64, "--search"),
        (&["create", "t", "--search", "--language", "klingon"], 64, "no language"),
        (&["create", "t; DROP", "a"], 64, "a table's name"),
        (&["drop", "ix_\"; DROP"], 1, "there is no index"),
    ] {
        let ended = world.index(args).await;
        assert!(ended.code == Some(status) && ended.err.contains(reason), "{args:?}: {ended:?}");
    }
    // A path is a path, whatever it looks like.
    let odd = r#"a'), (pg_sleep(9)); --"\"#;
    world.set("x", json!({odd: 1})).await;
    world.create(&[odd]).await;
    world.create(&["--search", odd]).await;
    world.create(&["--text", odd]).await;
    for n in 3..16 {
        world
            .admin
            .batch_execute(&format!(
                "INSERT INTO raystream.indexes SELECT 'ix_{n}', ptr, 'order', '{{a}}' \
            FROM raystream.storage WHERE name = 't'; CREATE INDEX ix_{n} ON {} (id)",
                world.ptr
            ))
            .await
            .unwrap();
    }
    let many = world.index(&["create", "t", "one.more"]).await;
    assert!(many.code == Some(1) && many.err.contains("has 16 indexes"), "{many:?}");
    assert_eq!(world.in_catalogue().await.len(), 16);
}

#[tokio::test(flavor = "multi_thread")]
async fn an_interrupted_build_leaves_nothing_behind() {
    let world = World::start().await;
    world.fill(50, "jsonb_build_object('n', n)").await;
    let holder = writer(&world).await;
    let mut child = begin(&world, &["n"]).await;
    // Whoever waits is told for what.
    let mut told = BufReader::new(child.stderr.take().unwrap()).lines();
    while !told.next_line().await.unwrap().expect("it is told").contains("waiting for writers") {}
    assert_eq!(states(&world).await, ["building"]);
    let busy = world.index(&["create", "t", "m"]).await;
    assert!(busy.code == Some(1) && busy.err.contains("somebody else works"), "{busy:?}");
    signal(&child, "-INT");
    eventually("the build stops", async || !is_building(&world).await).await;
    // What was begun is taken away once the writer has ended.
    holder.batch_execute("ROLLBACK").await.unwrap();
    let stopped = ended(child).await;
    let mut reason = String::new();
    while let Some(line) = told.next_line().await.unwrap() {
        reason = line;
    }
    assert!(stopped.code == Some(1) && reason.contains("nothing is left"), "{stopped:?} {reason}");
    assert!(world.in_catalogue().await.is_empty() && world.list().await.is_empty());
}

#[tokio::test(flavor = "multi_thread")]
async fn what_a_killed_build_leaves_is_shown_and_mended() {
    let world = World::start().await;
    world.fill(50, "jsonb_build_object('n', n)").await;
    for mend_by_drop in [true, false] {
        let holder = writer(&world).await;
        let child = begin(&world, &["n"]).await;
        signal(&child, "-KILL");
        drop(ended(child).await);
        // Nobody waits for it any more, so Postgres ends it.
        eventually("the build ends with its client", async || !is_building(&world).await).await;
        eventually("the lock is free", async || states(&world).await == ["invalid"]).await;
        holder.batch_execute("ROLLBACK").await.unwrap();
        let left = world.in_catalogue().await;
        assert!(left.len() == 1 && !left[0].1, "{left:?}");
        if mend_by_drop {
            assert_eq!(world.index(&["drop", &left[0].0]).await.code, Some(0));
            assert!(world.in_catalogue().await.is_empty() && world.list().await.is_empty());
        } else {
            assert_eq!(world.create(&["n"]).await, left[0].0);
            assert_eq!(world.in_catalogue().await, [(left[0].0.clone(), true)]);
        }
    }
}

#[tokio::test(flavor = "multi_thread")]
async fn what_has_not_begun_is_stopped_at_once() {
    let world = World::start().await;
    let name = world.create(&["m"]).await;
    let holder = crate::postgres::client(&world.database).await;
    for (args, told) in
        [(&["create", "t", "n"][..], "nothing is left"), (&["drop", &name], "is there as before")]
    {
        holder.batch_execute("BEGIN; LOCK TABLE raystream.indexes").await.unwrap();
        let child = world.begin(args);
        let sql = "SELECT count(*) FROM pg_stat_activity WHERE wait_event_type = 'Lock' AND query LIKE '%raystream.indexes%' \
                   AND datname = current_database()";
        let waits = async || world.admin.query_one(sql, &[]).await.unwrap().get::<_, i64>(0) == 1;
        eventually("it waits", waits).await;
        signal(&child, "-INT");
        let stopped = ended(child).await;
        assert!(stopped.code == Some(1) && stopped.err.contains(told), "{args:?}: {stopped:?}");
        holder.batch_execute("ROLLBACK").await.unwrap();
        assert_eq!(world.in_catalogue().await, [(name.clone(), true)]);
    }
    // Nobody's statement holds what was stopped: both work.
    world.create(&["n"]).await;
    assert_eq!(world.index(&["drop", &name]).await.code, Some(0));
}

/// A removal waits for a transaction of somebody else.
async fn is_dropping(world: &World) -> bool {
    let sql = "SELECT count(*) FROM pg_stat_activity WHERE wait_event_type = 'Lock' AND query LIKE 'DROP INDEX%' \
               AND datname = current_database()";
    world.admin.query_one(sql, &[]).await.unwrap().get::<_, i64>(0) == 1
}

#[tokio::test(flavor = "multi_thread")]
async fn a_removal_that_waits_says_so_and_is_stopped() {
    let world = World::start().await;
    world.fill(50, "jsonb_build_object('n', n)").await;
    let name = world.create(&["n"]).await;
    let holder = writer(&world).await;
    let mut child = world.begin(&["drop", &name]);
    let mut told = BufReader::new(child.stderr.take().unwrap()).lines();
    while !told.next_line().await.unwrap().expect("it is told").contains("waiting for transactions") {}
    signal(&child, "-TERM");
    let mut reason = String::new();
    while let Some(line) = told.next_line().await.unwrap() {
        reason = line;
    }
    assert!(reason.contains(&format!("`raystream index drop {name}`")), "{reason}");
    assert_eq!(ended(child).await.code, Some(1));
    assert!(!is_dropping(&world).await, "nothing goes on in Postgres");
    eventually("the lock is free", async || states(&world).await == ["invalid"]).await;

    // So does the making of an index that has to remove this one before it begins.
    let child = world.begin(&["create", "t", "n"]);
    eventually("it waits", async || is_dropping(&world).await).await;
    signal(&child, "-INT");
    let stopped = ended(child).await;
    assert!(stopped.code == Some(1) && stopped.err.contains(&format!("index drop {name}")), "{stopped:?}");
    holder.batch_execute("ROLLBACK").await.unwrap();
    assert_eq!(world.index(&["drop", &name]).await.code, Some(0));
    assert!(world.in_catalogue().await.is_empty() && world.list().await.is_empty());
}

#[tokio::test(flavor = "multi_thread")]
async fn a_value_that_no_index_holds_is_refused_in_words() {
    let world = World::start().await;
    // Nothing that could be compressed.
    let long: String = (0..900_u32).map(|n| format!("{:x}-", n.wrapping_mul(2_654_435_761))).collect();
    world.set("d1", json!({"n": long})).await;
    let refused = world.index(&["create", "t", "n"]).await;
    assert!(refused.code == Some(1) && refused.err.contains("longer than an index can hold"), "{refused:?}");
    assert!(world.in_catalogue().await.is_empty() && world.list().await.is_empty());
    world.set("d1", json!({"n": 1})).await;
    world.create(&["n"]).await;
    for text in [&long[..4_000], &long] {
        let write = json!({"table": "t", "id": "d1", "data": {"n": text}});
        assert_eq!(code(world.call("table.set", write).await), ErrorCode::INVALID_REQUEST);
    }
    // A filter and a search take any document.
    world.create(&[]).await;
    world.create(&["--search"]).await;
    world.set("d2", json!({"m": long})).await;
}
