//! The committed statements: hostile ones never reach Postgres, the others give what Postgres gives for them.

use raystream::client::Error;
use raystream::wire::ErrorCode;
use serde_json::{Value, json};

use crate::inputs::{inputs, params};
use crate::server::{call, code};
use crate::world::World;

/// The name of a refusal in its details.
pub(crate) fn kind(error: &Error) -> String {
    let details: Value = match error {
        Error::Call(error) => serde_json::from_slice(&error.details).unwrap(),
        other => panic!("{other} is no answer"),
    };
    // A batch, and a transaction that is over, put their own words around those of the call.
    let mut inner = &details;
    while let Some(deeper) = inner.get("details") {
        inner = deeper;
    }
    inner["code"].as_str().unwrap_or_else(|| panic!("{details}")).to_owned()
}

/// Sorted by their text: a statement without ORDER BY has no order.
pub(crate) fn sorted(rows: &Value) -> Vec<String> {
    let mut rows: Vec<_> = rows.as_array().unwrap().iter().map(Value::to_string).collect();
    rows.sort();
    rows
}

#[tokio::test(flavor = "multi_thread")]
async fn hostile_statements_do_not_reach_postgres_and_allowed_ones_give_the_right_rows() {
    let world = World::start().await;

    let hostile = inputs(&["hostile", "hostile_more"]);
    let mut refused = 0;
    for (name, sql) in &hostile {
        let error = match world.exec(sql, &params(name)).await {
            Ok(rows) => panic!("{name} ran: {rows}"),
            Err(error) => error,
        };
        assert_eq!(error.code(), Some(ErrorCode::INVALID_REQUEST), "{name}: {error}");
        assert!(
            ["KONTRACT_EXEC_CROSS_TABLE", "INVALID_REQUEST"].contains(&kind(&error).as_str()),
            "{name}: {error}"
        );
        refused += 1;
    }
    for name in
        ["cross-table-from", "comma-join", "union", "subquery-in-order-by", "pg-catalog", "info-schema"]
    {
        let (_, sql) = hostile.iter().find(|(other, _)| other == name).unwrap();
        let error = world.exec(sql, &[]).await.unwrap_err();
        assert_eq!(kind(&error), "KONTRACT_EXEC_CROSS_TABLE", "{name}");
    }
    // Not a byte of exec went to Postgres so far: no session of it was opened, and nothing became its role.
    assert_eq!(world.recorder.count("raystream exec"), 0);
    assert_eq!(world.recorder.count("SET LOCAL ROLE"), 0);
    let sessions = "SELECT count(*) FROM pg_stat_activity WHERE application_name = 'raystream exec' \
                    AND datname = current_database()";
    assert_eq!(world.admin.query_one(sessions, &[]).await.unwrap().get::<_, i64>(0), 0);

    let allowed = inputs(&["allowed", "allowed_more"]);
    let mut ran = 0;
    for (name, sql) in &allowed {
        let params = params(name);
        let rows = match world.exec(sql, &params).await {
            Ok(result) => result["rows"].clone(),
            Err(error) => panic!("{name}: {error}"),
        };
        let expected = world.reference(sql, &params).await;
        if sql.contains("ORDER BY") && !sql.contains("OVER") {
            assert_eq!(rows, expected, "{name}");
        } else {
            assert_eq!(sorted(&rows), sorted(&expected), "{name}");
        }
        ran += 1;
    }
    assert_eq!(world.recorder.count("SET LOCAL ROLE raystream_exec"), allowed.len(), "each ran as the role");
    assert_eq!(world.recorder.count("/* users; DROP TABLE x */"), 0, "the caller's text is not forwarded");
    println!("hostile refused: {refused}/{}, allowed ran: {ran}/{}", hostile.len(), allowed.len());
}

#[tokio::test(flavor = "multi_thread")]
async fn rows_are_objects_of_the_live_documents() {
    let world = World::start().await;
    assert_eq!(world.rows("SELECT count(*) FROM tasks").await, json!([{"count": 4}]));
    let own = "SELECT id, data->>'title' AS title, data->'n' AS n, data->'nothing' AS nothing, now() > '2026-01-01' AS b \
               FROM tasks WHERE id = 't-3'";
    assert_eq!(
        world.rows(own).await,
        json!([{"id": "t-3", "title": " Größe \"x\"", "n": 3, "nothing": null, "b": true}])
    );
    assert_eq!(
        world.rows("SELECT id, id, length(id) FROM tasks LIMIT 1 OFFSET 3").await,
        json!([{"id": "t-4", "id_2": "t-4", "length": 3}])
    );
    assert_eq!(world.rows("SELECT id FROM tasks WHERE id = 't-5'").await, json!([]));
    let typed = "SELECT $1 = 4 AS a, data->'n' = $2 AS b, id = ANY($3) AS c, data @> $4 AS d, $5::text AS e, $6 IS NULL AS f \
                 FROM tasks WHERE id = 't-4'";
    let params = json!([4, 4, ["t-4", "a\"b"], {"done": false}, 1.5, null]);
    let result =
        call(&world.client, "table.exec", json!({"table": "tasks", "sql": typed, "params": params})).await;
    assert_eq!(
        result.unwrap()["rows"],
        json!([{"a": true, "b": true, "c": true, "d": true, "e": "1.5", "f": true}])
    );
}

#[tokio::test(flavor = "multi_thread")]
async fn a_table_is_authorised_before_its_statement_is_read() {
    let world = World::start().await;
    // Key 3 has the table `t` only, and not this method.
    let stranger = world.server.client(3).await;
    let args = json!({"table": "tasks", "sql": "SELECT nonsense"});
    assert_eq!(code(call(&stranger, "table.exec", args.clone()).await), ErrorCode::FORBIDDEN);
    let missing = json!({"table": "missing", "sql": "SELECT id FROM missing"});
    assert_eq!(code(call(&world.client, "table.exec", missing).await), ErrorCode::NOT_FOUND);
    for args in [
        json!({"table": "tasks"}),
        json!({"table": "tasks", "sql": 1}),
        json!({"table": "tasks", "sql": "SELECT id FROM tasks", "params": {}}),
        json!({"table": "tasks", "sql": "SELECT id FROM tasks", "params": vec![1; 65]}),
    ] {
        assert_eq!(code(call(&world.client, "table.exec", args).await), ErrorCode::INVALID_REQUEST);
    }
}

/// What a command prints, and on which stream.
async fn command(arguments: &[&str]) -> (bool, String, String) {
    let mut command = tokio::process::Command::new(env!("CARGO_BIN_EXE_raystream"));
    let output = command.args(arguments).output().await.unwrap();
    let text = |bytes: Vec<u8>| String::from_utf8(bytes).unwrap();
    (output.status.success(), text(output.stdout), text(output.stderr))
}

#[tokio::test(flavor = "multi_thread")]
async fn the_command_line_runs_statements() {
    let world = World::start().await;
    let url = world.server.url.as_str();
    let args = r#"{"table":"tasks","sql":"SELECT count(*) FROM tasks"}"#;
    let (done, out, err) = command(&["call", url, "table.exec", args]).await;
    assert!(done && out.trim() == r#"{"rows":[{"count":4}]}"#, "{out}{err}");
    let sql = "SELECT id, data->'n' AS n FROM tasks WHERE data->>'done' = $1 AND id <> $2 ORDER BY id";
    let (done, out, err) = command(&["exec", url, "tasks", sql, "true", "t-9"]).await;
    assert!(done, "{err}");
    assert_eq!(out, "{\"id\":\"t-2\",\"n\":2}\n{\"id\":\"t-3\",\"n\":3}\n");
    let (done, out, err) = command(&["exec", url, "tasks", "SELECT * FROM users"]).await;
    assert!(!done && out.is_empty() && err.contains("INVALID_REQUEST"), "{err}");
}
