//! The start: what is refused, and the migrations.

use raystream::store::{MigrationError, StartError, Store, StoreError, StoreOptions};

use crate::postgres::{client, database};
use crate::{WRITER, id, json, table};

async fn refusal(options: StoreOptions) -> StartError {
    Store::connect(options).await.expect_err("the start is refused")
}

#[tokio::test]
async fn a_postgres_that_can_lose_acknowledged_writes_is_refused() {
    for level in ["off", "local"] {
        let mut options = StoreOptions::new(database().await);
        options.config.options(format!("-c synchronous_commit={level}"));
        let error = refusal(options.clone()).await;
        assert!(matches!(&error, StartError::NotDurable { setting: "synchronous_commit", .. }), "{error}");
        assert!(error.to_string().contains(level), "{error}");
        options.unsafe_durability = true;
        Store::connect(options).await.expect("the operator allows it");
    }
}

#[tokio::test]
async fn the_setting_of_a_role_counts_too() {
    let config = database().await;
    let name = config.get_dbname().expect("the database has a name").to_owned();
    let admin = client(&config).await;
    admin
        .batch_execute(&format!("ALTER DATABASE {name} SET synchronous_commit = off"))
        .await
        .expect("it is set");
    assert!(matches!(refusal(StoreOptions::new(config)).await, StartError::NotDurable { .. }));
}

#[tokio::test]
async fn another_encoding_is_refused() {
    let mut config = database().await;
    let admin = client(&config).await;
    admin
        .batch_execute("CREATE DATABASE latin ENCODING 'LATIN1' TEMPLATE template0")
        .await
        .expect("the database is made");
    config.dbname("latin");
    assert!(matches!(refusal(StoreOptions::new(config)).await, StartError::NotUtf8 { .. }));
}

#[tokio::test]
async fn a_wrong_address_is_said_plainly() {
    let mut config = database().await;
    config.dbname("there_is_none");
    let error = refusal(StoreOptions::new(config.clone())).await;
    assert!(error.to_string().contains("there_is_none"), "{error}");
    let mut nowhere = tokio_postgres::Config::new();
    nowhere.host_path("/nonexistent").user("x");
    let error = refusal(StoreOptions::new(nowhere)).await;
    assert!(matches!(error, StartError::Unreachable(_)), "{error}");
}

#[tokio::test]
async fn many_daemons_migrate_an_empty_database_once() {
    let config = database().await;
    let starts: Vec<_> = (0..5)
        .map(|_| {
            let mut options = StoreOptions::new(config.clone());
            (options.read_connections, options.write_connections) = (1, 1);
            tokio::spawn(Store::connect(options))
        })
        .collect();
    for start in starts {
        start.await.expect("the task ends").expect("the store starts");
    }
    let row =
        client(&config).await.query_one("SELECT count(*), max(number) FROM raystream.migrations", &[]).await;
    let row = row.expect("the migrations are recorded");
    assert_eq!(row.get::<_, i64>(0), i64::from(row.get::<_, i32>(1)), "each once");
}

#[tokio::test]
async fn a_second_start_keeps_what_is_there() {
    let config = database().await;
    let mut options = StoreOptions::new(config);
    options.create_tables = true;
    let store = Store::connect(options.clone()).await.expect("the store starts");
    store.set(WRITER, &table("t"), &id("a"), json("1"), None).await.expect("it is written");
    store.close().await;
    let after = store.get(&table("t"), &id("a")).await;
    assert!(matches!(after, Err(StoreError::Unavailable { .. })), "a closed store takes nothing: {after:?}");
    let store = Store::connect(options).await.expect("the store starts again");
    assert_eq!(store.set(WRITER, &table("t"), &id("a"), json("2"), None).await, Ok(2));
}

#[tokio::test]
async fn a_schema_of_another_program_is_refused_and_left_alone() {
    let config = database().await;
    let options = StoreOptions::new(config.clone());
    Store::connect(options.clone()).await.expect("the store starts");
    let admin = client(&config).await;

    admin
        .batch_execute(
            "INSERT INTO raystream.migrations (number, name, sha256) VALUES (999, 'later', '\\x00')",
        )
        .await
        .expect("a later migration is recorded");
    let error = refusal(options.clone()).await;
    assert!(matches!(error, StartError::Migration(MigrationError::Newer { found: 999, .. })), "{error}");
    admin
        .batch_execute("DELETE FROM raystream.migrations WHERE number = 999")
        .await
        .expect("it is taken back");

    admin.batch_execute("UPDATE raystream.migrations SET sha256 = '\\x00'").await.expect("it is changed");
    let error = refusal(options.clone()).await;
    assert!(matches!(error, StartError::Migration(MigrationError::Changed { number: 1, .. })), "{error}");
}

#[tokio::test]
async fn a_migration_that_fails_leaves_nothing() {
    let config = database().await;
    let admin = client(&config).await;
    admin
        .batch_execute("CREATE SCHEMA raystream; CREATE TABLE raystream.storage (x int)")
        .await
        .expect("in the way");
    let error = refusal(StoreOptions::new(config.clone())).await;
    assert!(matches!(error, StartError::Migration(MigrationError::Failed { number: 1, .. })), "{error}");
    let row = admin
        .query_one(
            "SELECT to_regclass('raystream.meta') IS NULL AND to_regclass('raystream.migrations') IS NULL",
            &[],
        )
        .await
        .expect("the database is there");
    assert!(row.get::<_, bool>(0), "a part of it stayed");
    admin.batch_execute("DROP TABLE raystream.storage").await.expect("it is out of the way");
    Store::connect(StoreOptions::new(config)).await.expect("the schema that the operator made is used");
}
