//! The committed statements in every way in which a statement can come: in a transaction, in a batch, on an attached table.

use raystream::client::Error;
use raystream::wire::ErrorCode;
use serde_json::{Value, json};

use crate::inputs::{inputs, params};
use crate::server::call;
use crate::statements::{kind, sorted};
use crate::tx::Tx;
use crate::world::World;

/// How a statement is sent.
enum Way {
    Alone,
    /// In a transaction that stays open; one with a write before it, so that it has something to lose.
    Within(Tx),
    /// As the second call of a batch, behind a read.
    Batch,
}

impl Way {
    async fn exec(&self, world: &World, sql: &str, params: &[&str]) -> Result<Value, Error> {
        let args = json!({"table": "tasks", "sql": sql, "params": params});
        match self {
            Self::Alone => call(&world.client, "table.exec", args).await,
            Self::Within(tx) => tx.call("table.exec", args).await,
            Self::Batch => {
                let count = json!({"method": "table.count", "args": {"table": "users"}});
                let calls = json!({"calls": [count, {"method": "table.exec", "args": args}]});
                Ok(call(&world.client, "table.batch", calls).await?["results"][1].take())
            }
        }
    }
}

/// Sends all of them: hostile ones are refused and nothing of them reaches Postgres, the others give the right rows.
async fn all(world: &World, way: &Way, name: &str) {
    let hostile = inputs(&["hostile", "hostile_more"]);
    let before = world.recorder.count("SET LOCAL ROLE");
    for (input, sql) in &hostile {
        let error = match way.exec(world, sql, &params(input)).await {
            Ok(rows) => panic!("{name}: {input} ran: {rows}"),
            Err(error) => error,
        };
        assert_eq!(error.code(), Some(ErrorCode::INVALID_REQUEST), "{name}: {input}: {error}");
        assert!(
            ["KONTRACT_EXEC_CROSS_TABLE", "INVALID_REQUEST"].contains(&kind(&error).as_str()),
            "{name}: {input}: {error}"
        );
    }
    assert_eq!(world.recorder.count("SET LOCAL ROLE"), before, "{name}: nothing became the role");
    let allowed = inputs(&["allowed", "allowed_more"]);
    for (input, sql) in &allowed {
        let params = params(input);
        let rows = match way.exec(world, sql, &params).await {
            Ok(result) => result["rows"].clone(),
            Err(error) => panic!("{name}: {input}: {error}"),
        };
        let expected = world.reference(sql, &params).await;
        assert_eq!(sorted(&rows), sorted(&expected), "{name}: {input}");
    }
    assert_eq!(
        world.recorder.count("SET LOCAL ROLE"),
        before + allowed.len(),
        "{name}: each ran as the role"
    );
    println!("{name}: hostile refused: {0}/{0}, allowed ran: {1}/{1}", hostile.len(), allowed.len());
}

/// Begins one that has written, in a server that lets it last.
async fn written(world: &World) -> Tx {
    let tx = Tx::snapshot(&world.client).await;
    tx.call("table.set", json!({"table": "t", "id": "kept", "data": 1})).await.unwrap();
    tx
}

async fn committed(world: &World, tx: &Tx) {
    tx.commit().await.unwrap();
    let kept = call(&world.client, "table.get", json!({"table": "t", "id": "kept"})).await.unwrap();
    assert_eq!(kept, json!({"data": 1, "version": 1}), "none of the refusals has spoiled it");
}

#[tokio::test(flavor = "multi_thread")]
async fn in_a_transaction_and_in_a_batch_statements_are_guarded_as_alone() {
    let world = World::start().await;
    let tx = written(&world).await;
    all(&world, &Way::Within(tx.clone()), "in a transaction").await;
    committed(&world, &tx).await;
    all(&world, &Way::Batch, "in a batch").await;
}

#[tokio::test(flavor = "multi_thread")]
async fn an_attached_table_is_guarded_like_others() {
    let world = World::attached().await;
    all(&world, &Way::Alone, "attached").await;
    let tx = written(&world).await;
    all(&world, &Way::Within(tx.clone()), "attached, in a transaction").await;
    committed(&world, &tx).await;
    all(&world, &Way::Batch, "attached, in a batch").await;
    // Of the table behind it the role sees nothing.
    world.admin.batch_execute("SET ROLE raystream_exec").await.unwrap();
    let direct = world.admin.batch_execute("SELECT id FROM public.own_tasks").await.unwrap_err();
    assert_eq!(direct.code(), Some(&tokio_postgres::error::SqlState::INSUFFICIENT_PRIVILEGE));
    world.admin.batch_execute("RESET ROLE").await.unwrap();
}

/// The text of a migration, by its name.
fn migration(name: &str) -> String {
    let folder = concat!(env!("CARGO_MANIFEST_DIR"), "/schemas/sql");
    let mut files = std::fs::read_dir(folder).unwrap().map(|entry| entry.unwrap().path());
    let file = files.find(|path| path.to_string_lossy().ends_with(&format!("_{name}.sql")));
    std::fs::read_to_string(file.unwrap()).unwrap()
}

#[tokio::test(flavor = "multi_thread")]
async fn a_table_that_was_attached_before_is_opened_when_the_schema_is_brought_up_to_date() {
    let world = World::attached().await;
    let ptr = world.ptr("tasks").await;
    world.admin.batch_execute(&format!("REVOKE ALL ON {ptr} FROM raystream_exec")).await.unwrap();
    let count = "SELECT count(*) AS n FROM tasks";
    assert_eq!(crate::server::code(world.exec(count, &[]).await), ErrorCode::INTERNAL_ERROR);
    world.admin.batch_execute(&migration("exec_attached")).await.unwrap();
    assert_eq!(world.rows(count).await, json!([{"n": 4}]));
    // One that its owner has dropped stands in nobody's way.
    world.admin.batch_execute("DROP TABLE public.own_tasks CASCADE").await.unwrap();
    world.admin.batch_execute(&migration("exec_attached")).await.unwrap();
    assert_eq!(crate::server::code(world.exec(count, &[]).await), ErrorCode::NOT_FOUND);
    let tx = written(&world).await;
    let gone = tx.call("table.exec", json!({"table": "tasks", "sql": count})).await;
    assert_eq!(crate::tx::refused(gone), (ErrorCode::NOT_FOUND, None));
    committed(&world, &tx).await;
}

/// Rows of an attached table are short; its documents have the names of all columns.
#[tokio::test(flavor = "multi_thread")]
async fn documents_of_a_wide_attached_table_are_not_gathered_into_one() {
    let world = World::attached().await;
    let columns: Vec<_> = (0..100).map(|n| format!("ADD COLUMN {}_{n} int", "n".repeat(50))).collect();
    let sql = format!("ALTER TABLE public.own_tasks {}", columns.join(", "));
    world.admin.batch_execute(&sql).await.unwrap();
    let gather = "SELECT length(string_agg(data->>'title', ',')) AS n FROM tasks";
    assert!(world.rows(gather).await[0]["n"].as_i64().unwrap() > 10);
    let fill = "INSERT INTO public.own_tasks (id) SELECT 'x-' || n FROM generate_series(1, 8000) AS n";
    world.admin.batch_execute(fill).await.unwrap();
    assert_eq!(crate::server::code(world.exec(gather, &[]).await), ErrorCode::PAYLOAD_TOO_LARGE);
    assert_eq!(world.rows("SELECT count(*) AS n FROM tasks").await, json!([{"n": 8_004}]));
}
