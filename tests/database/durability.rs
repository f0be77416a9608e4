//! Servers that lose what they acknowledged, or that take no writes.

use raystream::store::{DocumentId, Json, StartError, Store, StoreError, TableName, Writer};

use crate::server::Server;
use crate::{connect, eventually, options, postgres, refusal};

async fn write(store: &Store) -> Result<i64, StoreError> {
    let (table, id) = (TableName::parse("t").unwrap(), DocumentId::parse("a").unwrap());
    store.set(Writer { principal: "tester" }, &table, &id, Json::new("1"), None).await
}

#[tokio::test]
async fn a_server_that_skips_the_disk_needs_the_operators_word() {
    let mut server = Server::start(None).await;
    let address = server.address("app", "sslmode=disable");
    server.stop();
    server.run(&["fsync=off", "full_page_writes=off"]).await;
    let error = refusal(&address).await;
    assert!(error.contains("fsync = off") && error.contains("unsafe_durability"), "{error}");
    let mut allowed = options(&address);
    allowed.unsafe_durability = true;
    write(&Store::connect(allowed).await.expect("the operator allows it")).await.unwrap();
}

#[tokio::test]
async fn a_standby_is_refused_with_the_way_out() {
    let mut server = Server::start(None).await;
    let address = server.address("app", "sslmode=disable");
    connect(&address).await.expect("it is a primary yet").close().await;
    server.stop();
    server.file("standby.signal", "");
    server.run(&[]).await;
    assert!(matches!(connect(&address).await, Err(StartError::Standby)));
    let error = refusal(&address).await;
    assert!(error.contains("target_session_attrs=read-write"), "{error}");
}

#[tokio::test]
async fn nothing_is_acknowledged_by_a_session_that_began_under_a_weaker_setting() {
    let config = postgres::database().await;
    let name = config.get_dbname().unwrap().to_owned();
    let admin = postgres::client(&config).await;
    let mut options = raystream::store::StoreOptions::new(config);
    options.create_tables = true;
    let store = Store::connect(options).await.unwrap();
    write(&store).await.unwrap();

    let set = format!("ALTER DATABASE {name} SET synchronous_commit = off");
    admin.batch_execute(&set).await.unwrap();
    // A session sets its own at its beginning, so those that are there keep their word.
    write(&store).await.expect("the sessions that are there are as they were");
    let cut = "SELECT pg_terminate_backend(pid) FROM pg_stat_activity WHERE datname = current_database() \
               AND pid <> pg_backend_pid()";
    admin.query(cut, &[]).await.unwrap();
    eventually("it is not ready", async || !store.is_ready()).await;
    // A new session would begin under the setting: there is none, and nothing is acknowledged. What was sent on one that ended
    // at that moment is not known.
    for _ in 0..3 {
        let refused = write(&store).await;
        let is_refused = matches!(refused, Err(StoreError::Unavailable { .. } | StoreError::UnknownOutcome));
        assert!(is_refused, "{refused:?}");
    }
    eventually("none is left", async || matches!(write(&store).await, Err(StoreError::Unavailable { .. })))
        .await;
    admin.batch_execute(&format!("ALTER DATABASE {name} RESET synchronous_commit")).await.unwrap();
    eventually("it is ready again", async || store.is_ready()).await;
    write(&store).await.expect("it goes on");
}
