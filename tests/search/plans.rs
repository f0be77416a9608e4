//! The indexes are used by the statements that the daemon sends, and by the daemon itself.

use serde_json::json;

use crate::postgres::database;
use crate::recorder::Recorder;
use crate::server::eventually;
use crate::world::World;

/// Documents of a table: so many that reading all of them is never the cheapest.
const DOCUMENTS: u32 = 4_000;

const DATA: &str = "jsonb_build_object('n', (n * 7919) % 4000, 'rare', n % 1000 = 0, 'a', jsonb_build_object('b''\"', n), \
                    'title', 'word' || n % 400 || ' and more text', 'note', 'word' || n % 300)";

/// The plan of a statement for these parameters, written as SQL, in a session that is set up as the daemon's.
async fn plan(world: &World, statement: &str, params: &str) -> String {
    let sql = format!(
        "DEALLOCATE ALL; SET search_path = pg_catalog; SET plan_cache_mode = force_custom_plan; PREPARE q AS {statement}"
    );
    world.admin.batch_execute(&sql).await.unwrap_or_else(|error| panic!("{statement}: {error:?}"));
    let rows = world.admin.simple_query(&format!("EXPLAIN EXECUTE q({params})")).await.unwrap();
    let lines = rows.iter().filter_map(|row| match row {
        tokio_postgres::SimpleQueryMessage::Row(row) => row.get(0),
        _ => None,
    });
    lines.collect::<Vec<_>>().join("\n")
}

#[tokio::test(flavor = "multi_thread")]
async fn indexes_serve_the_statements_that_the_daemon_sends() {
    let database = database().await;
    let (recorder, through) = Recorder::start(&database);
    let world = World::on(database, through).await;
    world.fill(DOCUMENTS, DATA).await;
    let filter = world.create(&[]).await;
    let order = world.create(&["n"]).await;
    let quoted = world.create(&["a.b'\""]).await;
    let search = world.create(&["--search"]).await;
    let fields = world.create(&["--search", "title", "note", "--language", "simple"]).await;

    let text = world.create(&["title", "--text"]).await;
    let nested = world.create(&["a.b'\"", "--text"]).await;

    let ask = async || {
        let rare = json!({"table": "t", "filter": {"rare": true}});
        assert_eq!(
            world.call("table.query", rare.clone()).await.unwrap()["items"].as_array().unwrap().len(),
            4
        );
        assert_eq!(world.call("table.count", rare).await.unwrap()["count"], 4);
        for order in ["n", "-n", "a.b'\""] {
            let page =
                world.call("table.query", json!({"table": "t", "order": order, "limit": 5})).await.unwrap();
            let next = json!({"table": "t", "order": order, "limit": 5, "after": page["next"]});
            assert_eq!(world.call("table.query", next).await.unwrap()["items"].as_array().unwrap().len(), 5);
        }
        assert_eq!(world.ids("word77", json!({})).await.len(), 20);
        let in_fields =
            json!({"fields": ["note", "title"], "language": "simple", "facets": ["n"], "highlight": true});
        assert_eq!(world.search("word299", in_fields).await["total"], 10 + 13 - 4);
        for (sql, value, found) in [
            ("SELECT id FROM t WHERE data->>'title' = $1", "word77 and more text", 10),
            (r#"SELECT id FROM t WHERE data->'a'->>'b''"' = $1"#, "42", 1),
        ] {
            let exec = json!({"table": "t", "sql": sql, "params": [value]});
            assert_eq!(
                world.call("table.exec", exec).await.unwrap()["rows"].as_array().unwrap().len(),
                found
            );
        }
    };
    // More often than Postgres tries out plans for the values of a statement.
    for _ in 0..8 {
        ask().await;
    }

    let one = |needle: &str| {
        let found = recorder.prepared(needle);
        assert_eq!(found.len(), 1, "{needle}: {found:?}");
        found[0].clone()
    };
    // The one on one key, and the one on two.
    for (keys, params, index) in
        [(1, "'title', 'word77 and more text'", &text), (2, r#"'a', 'b''"', '42'"#, &nested)]
    {
        let statements = recorder.prepared("OPERATOR(\"pg_catalog\".->>)");
        let mut of_keys = statements.iter().filter(|text| {
            text.contains(&format!("${}", keys + 1)) && !text.contains(&format!("${}", keys + 2))
        });
        let plan = plan(&world, of_keys.next().unwrap(), params).await;
        assert!(plan.contains(&format!(" {index} ")), "not {index}:\n{plan}");
    }
    let page = "SELECT id, text, _version, _order, key::text, found FROM ";
    let ordered = "AS key FROM \"raystream\"";
    assert!(recorder.prepared(ordered).iter().all(|text| text.starts_with(page)));
    let expected = [
        (one("data @> $1 ORDER BY _order, id LIMIT $2"), r#"'{"rare": true}', 101"#, &filter),
        (one("SELECT count(*) FROM \"raystream\""), r#"'{"rare": true}'"#, &filter),
        (one("_deleted_txid IS NULL ORDER BY key, id LIMIT $2"), "'{n}', 6", &order),
        (one("_deleted_txid IS NULL ORDER BY key DESC, id DESC LIMIT $2"), "'{n}', 6", &order),
        (one("($2::jsonb, $3::text) ORDER BY key, id LIMIT"), "'{n}', '3000', 'd1', 6", &order),
        (one("($2::jsonb, $3::text) ORDER BY key DESC"), "'{n}', '1000', 'd1', 6", &order),
        (one("_deleted_txid IS NULL ORDER BY key, id LIMIT $2"), r#"ARRAY['a', 'b''"'], 6"#, &quoted),
        (one("'pg_catalog.english'"), "'{}', 'word77', 21", &search),
        (one("'pg_catalog.simple'"), "'{note,title}', 'word299', 21, '{n}'", &fields),
    ];
    for (statement, params, index) in expected {
        let plan = plan(&world, &statement, params).await;
        assert!(plan.contains(&format!(" {index} ")), "not {index}: {statement}\n{plan}");
    }
    // And not only could be. The counts of a session come a moment later, and those of Postgres 14 with its next statement.
    eventually("every index was used by the daemon", async || {
        ask().await;
        let used = world.list().await;
        assert_eq!(used.len(), 7);
        used.iter().all(|index| index["scans"].as_u64().unwrap() >= 8)
    })
    .await;
}

#[tokio::test(flavor = "multi_thread")]
async fn answers_are_the_same_with_indexes_and_without() {
    let world = World::start().await;
    world.fill(600, DATA).await;
    world.admin.batch_execute(&format!("DELETE FROM {} WHERE id LIKE 'd1%7'", world.ptr)).await.unwrap();
    world.call("table.delete", json!({"table": "t", "id": "d77"})).await.unwrap();
    let ask = async || {
        let mut all = Vec::new();
        for args in [
            json!({"table": "t", "filter": {"rare": false}, "order": "n", "limit": 50}),
            json!({"table": "t", "filter": {"n": 7, "a": {}}}),
            json!({"table": "t", "order": "-a.b'\"", "limit": 50}),
            json!({"table": "t", "order": "missing", "limit": 50}),
        ] {
            all.push(world.call("table.query", args).await.unwrap());
        }
        for (query, more) in [
            ("word77", json!({"facets": ["rare"], "highlight": true})),
            ("word77 or word12", json!({"fields": ["title"], "limit": 3})),
            ("\"more text\" -word3", json!({"facets": ["title", "n"], "limit": 100})),
            ("-word3", json!({})),
            ("", json!({})),
        ] {
            all.push(world.search(query, more).await);
        }
        all
    };
    let without = ask().await;
    for args in [&[][..], &["n"], &["a.b'\""], &["missing"], &["--search"], &["--search", "title"]] {
        world.create(args).await;
    }
    assert_eq!(ask().await, without);
    for found in [0, 4, 5, 6] {
        assert_ne!(without[found]["items"], json!([]), "a question that finds nothing shows nothing");
    }
}
