//! Schemas of tables: what is written fits, whichever way and at whichever daemon.

use std::sync::Arc;
use std::sync::atomic::{AtomicBool, AtomicI64, Ordering};

use futures_util::future::join_all;
use raystream::client::{Client, Error, Json, StreamOptions};
use raystream::wire::ErrorCode;
use serde_json::{Value, json};

use crate::server::{Server, call, call_named, code};

/// What most of these tests want of a document.
fn counted() -> Value {
    json!({
        "type": "object", "required": ["n"], "additionalProperties": false,
        "properties": { "n": { "type": "integer", "minimum": 0 }, "deep": { "properties": { "x": { "type": "string" } } } },
    })
}

async fn ok(client: &Client, method: &str, args: Value) -> Value {
    call(client, method, args.clone()).await.unwrap_or_else(|error| panic!("{method} {args}: {error}"))
}

async fn set_schema(client: &Client, table: &str, schema: Value) {
    ok(client, "table.setSchema", json!({"table": table, "schema": schema})).await;
}

/// The details of a refusal.
fn details(result: Result<Value, Error>) -> Value {
    let Err(Error::Call(error)) = result else { panic!("{result:?}") };
    assert_eq!(error.code, ErrorCode::INVALID_REQUEST, "{error:?}");
    serde_json::from_slice(&error.details).unwrap()
}

/// Path and keyword of the only fault.
fn fault(result: Result<Value, Error>) -> (String, String) {
    let details = details(result);
    assert_eq!(
        (&details["code"], &details["errors"][1]),
        (&json!("SCHEMA_MISFIT"), &Value::Null),
        "{details}"
    );
    let text = |name: &str| details["errors"][0][name].as_str().unwrap().to_owned();
    (text("path"), text("keyword"))
}

#[tokio::test(flavor = "multi_thread", worker_threads = 2)]
async fn every_way_to_write_is_checked() {
    let server = Server::start().await;
    let client = server.client(1).await;
    assert_eq!(
        ok(&client, "table.schema", json!({"table": "t"})).await,
        json!({"schema": null, "version": 0})
    );
    set_schema(&client, "t", counted()).await;
    let shown = ok(&client, "table.schema", json!({"table": "t"})).await;
    assert_eq!(shown["schema"], counted());
    let set = |data: Value| json!({"table": "t", "id": "a", "data": data});

    assert_eq!(fault(call(&client, "table.set", set(json!({"n": "x"}))).await), ("/n".into(), "type".into()));
    assert_eq!(fault(call(&client, "table.set", set(json!({}))).await), (String::new(), "required".into()));
    let push = json!({"table": "t", "data": {"n": 1, "deep": {"x": 5}}});
    assert_eq!(fault(call(&client, "table.push", push).await), ("/deep/x".into(), "type".into()));
    let new = json!({"table": "t", "id": "a", "data": {"n": -1}, "if_version": 0});
    assert_eq!(fault(call(&client, "table.set", new).await), ("/n".into(), "minimum".into()));
    assert_eq!(ok(&client, "table.set", set(json!({"n": 1}))).await, json!({"version": 1}));
    let version = json!({"table": "t", "id": "a", "data": {"n": 1.5}, "if_version": 1});
    assert_eq!(fault(call(&client, "table.set", version).await), ("/n".into(), "type".into()));

    // What counts of a patch is what it makes.
    assert_eq!(ok(&client, "table.update", set(json!({"deep": {"x": "y"}}))).await, json!({"version": 2}));
    assert_eq!(
        fault(call(&client, "table.update", set(json!({"n": null}))).await),
        (String::new(), "required".into())
    );
    assert_eq!(
        fault(call(&client, "table.update", set(json!({"deep": {"x": 1}}))).await),
        ("/deep/x".into(), "type".into())
    );
    let missing = json!({"table": "t", "id": "none", "data": {"n": 1}});
    assert_eq!(code(call(&client, "table.update", missing).await), ErrorCode::NOT_FOUND);

    // A named call, a batch, a transaction, an import.
    let named = call_named(&client, [7; 16], "table.set", &set(json!({"n": []}))).await;
    assert_eq!(fault(named), ("/n".into(), "type".into()));
    let named = call_named(&client, [7; 16], "table.update", &set(json!({"n": 2}))).await;
    assert_eq!(named.unwrap(), json!({"version": 3}));
    let batch = json!({"calls": [
        {"method": "table.set", "args": {"table": "t", "id": "b", "data": {"n": 1}}},
        {"method": "table.update", "args": {"table": "t", "id": "b", "data": {"n": -5}}},
    ]});
    let refused = details(call(&client, "table.batch", batch).await);
    assert_eq!((&refused["index"], &refused["details"]["errors"][0]["path"]), (&json!(1), &json!("/n")));
    let sid = ok(&client, "tx.begin", json!({})).await["sid"].clone();
    let inside = |id: &str, data: Value| json!({"table": "t", "id": id, "data": data, "sid": sid});
    ok(&client, "table.set", inside("c", json!({"n": 1}))).await;
    assert_eq!(
        fault(call(&client, "table.set", inside("d", json!(1))).await),
        (String::new(), "type".into())
    );
    assert_eq!(
        fault(call(&client, "table.update", inside("c", json!({"m": 1}))).await),
        (String::new(), "additionalProperties".into())
    );
    ok(&client, "table.update", inside("c", json!({"n": 3}))).await;
    ok(&client, "tx.commit", json!({"sid": sid})).await;
    let args = Json::encode(&json!({"table": "t"})).unwrap();
    let mut import = client.open("table.import", args, StreamOptions::sending()).await.unwrap();
    import.send(Json::encode(&json!({"id": "e", "data": {"n": null}})).unwrap()).await.unwrap();
    import.end();
    let refused = details(import.result().await.map(|_| Value::Null));
    assert_eq!((&refused["written"], &refused["details"]["code"]), (&json!(0), &json!("SCHEMA_MISFIT")));

    // Many at once share transactions: each is judged by itself.
    let many = join_all((0..60).map(|n| {
        let data = if n % 3 == 0 { json!({"n": "x"}) } else { json!({"n": n}) };
        call(&client, "table.set", json!({"table": "t", "id": format!("g{}", n % 20), "data": data}))
    }));
    for (n, result) in many.await.into_iter().enumerate() {
        assert_eq!(result.is_err(), n % 3 == 0, "{n}: {result:?}");
    }
    // And so are many patches of one document, none of which is lost.
    let patches = join_all((0..20).map(|n| {
        let key = char::from(b'a' + n);
        call(
            &client,
            "table.update",
            json!({"table": "t", "id": "a", "data": {"deep": {key.to_string(): n}}}),
        )
    }));
    assert!(patches.await.iter().all(Result::is_ok));
    let document = ok(&client, "table.get", json!({"table": "t", "id": "a"})).await;
    assert_eq!(document["data"]["deep"].as_object().unwrap().len(), 21, "{document}");
    assert_eq!(document["version"], 23);

    // What removes is no document.
    ok(&client, "table.delete", json!({"table": "t", "id": "a"})).await;
    assert!(ok(&client, "table.pop", json!({"table": "t"})).await.is_object());
    set_schema(&client, "t", Value::Null).await;
    assert!(ok(&client, "table.set", set(json!("anything"))).await["version"].is_i64());
}

#[tokio::test(flavor = "multi_thread", worker_threads = 2)]
async fn a_change_is_in_force_at_every_daemon_when_it_is_answered() {
    let server = Server::start().await;
    let other = server.another();
    let (client, far) = (server.client(1).await, other.client(1).await);
    let document = |n: Value| json!({"table": "t", "id": "a", "data": {"n": n}});
    ok(&far, "table.set", document(json!("x"))).await;
    // A transaction that saw the table without a schema.
    let sid = ok(&far, "tx.begin", json!({})).await["sid"].clone();
    ok(&far, "table.get", json!({"table": "t", "id": "a", "sid": sid})).await;
    let keep = json!({"table": "t", "schema": counted(), "existing": "keep"});
    ok(&client, "table.setSchema", keep).await;
    let late = json!({"table": "t", "id": "b", "data": {"n": "x"}, "sid": sid});
    assert_eq!(code(call(&far, "table.set", late).await), ErrorCode::CONFLICT);
    assert_eq!(fault(call(&far, "table.set", document(json!("y"))).await), ("/n".into(), "type".into()));
    ok(&far, "table.update", document(json!(1))).await;
    set_schema(&client, "t", Value::Null).await;
    ok(&far, "table.set", document(json!("y"))).await;

    // Under load: after the answer to schema k nothing below k is written, by anybody.
    let (answered, is_over) = (Arc::new(AtomicI64::new(0)), Arc::new(AtomicBool::new(false)));
    let at_least =
        |k: i64| json!({"table": "u", "existing": "keep", "schema": {"properties": {"v": {"minimum": k}}}});
    ok(&client, "table.create", json!({"table": "u"})).await;
    ok(&client, "table.setSchema", at_least(0)).await;
    let writers = (0..8).map(|writer| {
        let client = if writer % 2 == 0 { client.clone() } else { far.clone() };
        let (answered, is_over) = (Arc::clone(&answered), Arc::clone(&is_over));
        tokio::spawn(async move {
            let (mut written, mut refused) = (0_u32, 0_u32);
            while !is_over.load(Ordering::SeqCst) {
                let k = answered.load(Ordering::SeqCst);
                // Too small, and large enough for every schema that is on its way.
                for v in [k - 1, 100] {
                    let id = format!("{}", (writer + written) % 5);
                    let set = json!({"table": "u", "id": id, "data": {"v": v}});
                    match call(&client, "table.set", set).await {
                        Ok(_) => {
                            assert!(v > k, "{v} was written after the schema {k} was answered");
                            written += 1;
                        }
                        Err(error) => {
                            let code = error.code();
                            let is_busy = code == Some(ErrorCode::CONFLICT);
                            assert!(
                                is_busy || v < k && code == Some(ErrorCode::INVALID_REQUEST),
                                "{v}: {error}"
                            );
                            refused += u32::from(!is_busy);
                        }
                    }
                }
            }
            (written, refused)
        })
    });
    let writers: Vec<_> = writers.collect();
    for k in 1..=15 {
        let by = if k % 2 == 0 { &client } else { &far };
        ok(by, "table.setSchema", at_least(k)).await;
        answered.store(k, Ordering::SeqCst);
        tokio::time::sleep(std::time::Duration::from_millis(20)).await;
    }
    is_over.store(true, Ordering::SeqCst);
    for writer in join_all(writers).await {
        let (written, refused) = writer.unwrap();
        assert!(written > 0 && refused > 0, "{written} written, {refused} refused");
    }
}

#[tokio::test(flavor = "multi_thread", worker_threads = 2)]
async fn documents_that_are_there_and_do_not_fit_are_counted_or_kept() {
    let server = Server::start().await;
    let client = server.client(1).await;
    for n in 0..30 {
        let data = if n % 2 == 0 { json!({"n": n}) } else { json!({"n": format!("{n}")}) };
        ok(&client, "table.set", json!({"table": "t", "id": format!("d{n:02}"), "data": data})).await;
    }
    ok(&client, "table.delete", json!({"table": "t", "id": "d01"})).await;
    let set = |existing: &str| json!({"table": "t", "schema": counted(), "existing": existing});
    let refused = details(call(&client, "table.setSchema", set("refuse")).await);
    assert_eq!((&refused["code"], &refused["count"]), (&json!("SCHEMA_UNFIT"), &json!(14)));
    let ids: Vec<String> = (1..11).map(|n| format!("d{:02}", 2 * n + 1)).collect();
    assert_eq!(refused["ids"], json!(ids));
    assert_eq!(refused["errors"][0]["path"], "/n");
    let patch = |id: &str, data: Value| json!({"table": "t", "id": id, "data": data});
    ok(&client, "table.update", patch("d02", json!({"n": "not set"}))).await;
    ok(&client, "table.update", patch("d02", json!({"n": 2}))).await;

    ok(&client, "table.setSchema", set("keep")).await;
    assert_eq!(ok(&client, "table.count", json!({"table": "t"})).await, json!({"count": 29}));
    let refused = call(&client, "table.update", patch("d03", json!({"deep": {}}))).await;
    assert_eq!(fault(refused), ("/n".into(), "type".into()));
    for n in (3..30).step_by(2) {
        ok(&client, "table.update", patch(&format!("d{n:02}"), json!({"n": n}))).await;
    }
    ok(&client, "table.setSchema", set("refuse")).await;
    assert_eq!(code(call(&client, "table.setSchema", set("drop")).await), ErrorCode::INVALID_REQUEST);
}

#[tokio::test(flavor = "multi_thread", worker_threads = 2)]
async fn who_may_not_change_a_schema_does_not_and_what_is_none_is_refused() {
    let server = Server::start().await;
    let (client, third) = (server.client(1).await, server.client(3).await);
    let set = |table: &str, schema: Value| json!({"table": table, "schema": schema});
    assert_eq!(
        code(call(&third, "table.setSchema", set("t", counted())).await),
        ErrorCode::PERMISSION_DENIED
    );
    assert_eq!(
        code(call(&third, "table.setSchema", set("none", counted())).await),
        ErrorCode::PERMISSION_DENIED
    );
    assert_eq!(code(call(&third, "table.schema", json!({"table": "t"})).await), ErrorCode::FORBIDDEN);
    assert_eq!(code(call(&client, "table.setSchema", set("none", counted())).await), ErrorCode::NOT_FOUND);
    for schema in [
        json!([]),
        json!({"type": "nothing"}),
        json!({"$ref": "http://127.0.0.1:9/x"}),
        json!({"pattern": "(?=x)"}),
        json!({"title": "x".repeat(70_000)}),
        json!({"items": {"allOf": [{"$ref": "#"}, {"$ref": "#"}]}}),
    ] {
        let refused =
            call(&client, "table.setSchema", set("t", schema.clone())).await.unwrap_err().to_string();
        assert!(refused.contains("the schema cannot be taken: "), "{schema}: {refused}");
    }
    let in_batch = json!({"calls": [{"method": "table.setSchema", "args": set("t", counted())}]});
    assert_eq!(code(call(&client, "table.batch", in_batch).await), ErrorCode::INVALID_REQUEST);
    let admin = server.admin().await;
    admin
        .batch_execute(
            "CREATE TABLE public.made (id int PRIMARY KEY); SELECT raystream.attach('public', 'made', 'public.made')",
        )
        .await
        .unwrap();
    assert_eq!(
        code(call(&client, "table.setSchema", set("made", counted())).await),
        ErrorCode::INVALID_REQUEST
    );
}

#[tokio::test(flavor = "multi_thread", worker_threads = 2)]
async fn a_table_without_a_schema_has_no_trigger_of_one_and_others_are_not_written_unchecked_with_sql() {
    let server = Server::start().await;
    let (client, admin) = (server.client(1).await, server.admin().await);
    let triggers = "SELECT count(*) FROM pg_trigger WHERE tgname LIKE 'raystream_schema%'";
    assert_eq!(admin.query_one(triggers, &[]).await.unwrap().get::<_, i64>(0), 0);
    set_schema(&client, "t", counted()).await;
    assert_eq!(admin.query_one(triggers, &[]).await.unwrap().get::<_, i64>(0), 2);
    ok(&client, "table.set", json!({"table": "t", "id": "a", "data": {"n": 1}})).await;

    let name =
        "SELECT format('%I.%I', ptr_schema, ptr), schema_version FROM raystream.storage WHERE name = 't'";
    let row = admin.query_one(name, &[]).await.unwrap();
    let (table, version): (String, i64) = (row.get(0), row.get(1));
    let insert = format!("INSERT INTO {table} (id, data) VALUES ('b', '5')");
    let update = format!("UPDATE {table} SET data = '5' WHERE id = 'a'");
    for statement in [&insert, &update] {
        let refused = admin.batch_execute(statement).await.unwrap_err();
        assert_eq!(refused.code().unwrap().code(), "RS001");
        let hint = refused.as_db_error().unwrap().hint().unwrap();
        assert!(hint.contains(&format!("SET raystream.schema = '{version}'")), "{hint}");
    }
    // What leaves the document as it is, or removes it.
    admin.batch_execute(&format!("UPDATE {table} SET _order = _order")).await.unwrap();
    let said = format!("BEGIN; SET LOCAL raystream.schema = '{version}'; {insert}; COMMIT");
    admin.batch_execute(&said).await.unwrap();
    admin.batch_execute(&format!("DELETE FROM {table} WHERE id = 'b'")).await.unwrap();

    // In one transaction what was checked says nothing of what comes behind it.
    let sid = ok(&client, "tx.begin", json!({})).await["sid"].clone();
    ok(&client, "table.set", json!({"table": "t", "id": "c", "data": {"n": 1}, "sid": sid})).await;
    let setting = "SELECT count(*) FROM pg_stat_activity WHERE query LIKE 'SET LOCAL raystream.schema%'";
    assert_eq!(admin.query_one(setting, &[]).await.unwrap().get::<_, i64>(0), 1);
    ok(&client, "tx.commit", json!({"sid": sid})).await;
}

#[tokio::test(flavor = "multi_thread", worker_threads = 2)]
async fn the_command_line_sets_shows_and_removes_a_schema() {
    let server = Server::start().await;
    let folder = tempfile::tempdir().unwrap();
    let file = folder.path().join("schema.json");
    // Its order is not that of the alphabet.
    let text = r#"{"type": "object", "required": ["n"], "additionalProperties": false}"#;
    std::fs::write(&file, text).unwrap();
    let file = file.to_str().unwrap();
    let run = |arguments: &[&str]| {
        let output = std::process::Command::new(env!("CARGO_BIN_EXE_raystream"))
            .args(["schema", arguments[0], &server.url])
            .args(&arguments[1..])
            .output()
            .unwrap();
        let text = |bytes| String::from_utf8(bytes).unwrap();
        (output.status.code(), text(output.stdout), text(output.stderr))
    };
    assert_eq!(run(&["show", "t"]).1, "null\n");
    let (status, stdout, stderr) = run(&["set", "t", file]);
    assert_eq!(status, Some(0), "{stderr}");
    assert!(stdout.starts_with(r#"{"version":"#), "{stdout}");
    assert_eq!(run(&["show", "t"]).1, format!("{text}\n"));
    let client = server.client(1).await;
    assert_eq!(fault(call(&client, "table.push", json!({"table": "t", "data": {}})).await).1, "required");
    assert_eq!(run(&["remove", "t"]).0, Some(0));
    ok(&client, "table.push", json!({"table": "t", "data": {}})).await;
    let (status, _, stderr) = run(&["set", "t", file]);
    assert!(status == Some(1) && stderr.contains("1 of the documents of the table do not fit"), "{stderr}");
    assert_eq!(run(&["set", "t", file, "--existing", "keep"]).0, Some(0));
    std::fs::write(file, "{").unwrap();
    assert_eq!(run(&["set", "t", file]).0, Some(1));
}
