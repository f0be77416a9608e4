//! TLS to Postgres: every connection of the store and the feed, who is believed, and what the operator is told.

use raystream::store::endpoint::SslMode;
use raystream::store::feed::{Feed, FeedOptions, Item, Overflow, Source, SubscribeRequest};
use raystream::store::{
    DocumentId, Isolation, Json, Store, StoreError, StreamQuery, TableName, TransactionOptions, Writer,
    Writes,
};
use tokio::sync::OnceCell;

use crate::certificates::{Certificates, HOST};
use crate::server::{PASSWORD, Server};
use crate::{PATIENCE, connect, options, refusal};

struct Shared {
    certificates: Certificates,
    server: Server,
}

/// The Postgres with TLS of these tests: it is only asked, never changed.
async fn shared() -> &'static Shared {
    static SHARED: OnceCell<Shared> = OnceCell::const_new();
    SHARED
        .get_or_init(|| async {
            let certificates = Certificates::make();
            let server = Server::start(Some(&certificates)).await;
            Shared { certificates, server }
        })
        .await
}

const ONCE: TransactionOptions =
    TransactionOptions { isolation: Isolation::Statement, writes: Writes::Allowed, is_repeatable: false };

const WRITER: Writer<'static> = Writer { principal: "tester" };

fn name() -> TableName {
    TableName::parse("t").unwrap()
}

async fn write(store: &Store, id: &str) -> Result<i64, StoreError> {
    store.set(WRITER, &name(), &DocumentId::parse(id).unwrap(), Json::new("1"), None).await
}

#[tokio::test]
async fn every_connection_is_inside_of_tls_and_bound_to_its_channel() {
    let Shared { certificates, server } = shared().await;
    let ca = certificates.parameter("sslrootcert", "ca");
    // `needs_tls` lets nobody in without TLS; `channel_binding=require` takes no password exchange without it.
    let address = server.address("needs_tls", &format!("host={HOST} channel_binding=require {ca}"));
    let options = options(&address);
    assert_eq!(options.tls.mode(), SslMode::VerifyFull, "the default for a host with a name");
    let store = Store::connect(options).await.unwrap();
    write(&store, "a").await.unwrap();
    let feed = Feed::of_store(&store, FeedOptions::default()).await.unwrap();
    let request = SubscribeRequest {
        source: Source::Table(name()),
        filter: None,
        cursor: None,
        snapshot: true,
        overflow: Overflow::default(),
    };
    let mut subscription = feed.subscribe(request).await.unwrap();
    let mut stream = store.stream(&name(), StreamQuery::default(), PATIENCE).await.unwrap();
    let in_transaction =
        store.transaction(ONCE, |inside| Box::pin(async move { write(&inside, "b").await })).await;
    assert_eq!(in_transaction, Ok(1));
    assert_eq!(stream.next().await.unwrap().unwrap().len(), 1);
    let mut seen = Vec::new();
    while !seen.iter().any(|id| id == "b") {
        let items = tokio::time::timeout(PATIENCE, subscription.next(16)).await.expect("items come");
        for item in items {
            match item {
                Item::Snapshot(change) | Item::Event(change) => seen.push(change.id.to_string()),
                Item::Ended { .. } => panic!("it ended after {seen:?}"),
                _ => {}
            }
        }
    }

    let admin = server.admin("needs_tls").await;
    let sql = "SELECT count(*) FILTER (WHERE s.ssl), count(*) FILTER (WHERE NOT s.ssl) FROM pg_stat_ssl AS s \
               JOIN pg_stat_activity AS a USING (pid) WHERE a.usename = 'ann' AND a.datname = 'needs_tls'";
    let row = admin.query_one(sql, &[]).await.unwrap();
    let (inside, outside): (i64, i64) = (row.get(0), row.get(1));
    assert_eq!(outside, 0);
    let options = store.options();
    let pipelined = options.read_connections + options.write_connections;
    assert!(inside > i64::try_from(pipelined).unwrap(), "{inside}: the feed and transactions have their own");
}

#[tokio::test]
async fn a_ca_that_did_not_sign_is_refused_where_it_counts() {
    let Shared { certificates, server } = shared().await;
    let other = certificates.parameter("sslrootcert", "other-ca");
    // With a CA file `require` verifies, as in libpq.
    for mode in ["require", "verify-ca", "verify-full"] {
        let error = refusal(&server.address("app", &format!("host={HOST} sslmode={mode} {other}"))).await;
        assert!(error.contains("not signed by a CA") && error.contains("sslrootcert"), "{mode}: {error}");
        assert!(!error.contains(PASSWORD), "{error}");
    }
    let system = refusal(&server.address("app", &format!("host={HOST} sslmode=verify-full"))).await;
    assert!(system.contains("CA"), "no public CA signed a certificate of a test: {system}");
    for mode in ["prefer", "require"] {
        connect(&server.address("app", &format!("host={HOST} sslmode={mode}"))).await.expect(mode);
    }
}

#[tokio::test]
async fn another_name_is_refused_by_verify_full_alone() {
    let Shared { certificates, server } = shared().await;
    let ca = certificates.parameter("sslrootcert", "ca");
    let address = |mode: &str| server.address("app", &format!("host=other.example.com sslmode={mode} {ca}"));
    let error = refusal(&address("verify-full")).await;
    assert!(error.contains("other.example.com") && error.contains(HOST), "it says both names: {error}");
    connect(&address("verify-ca")).await.expect("verify-ca does not look at the name");
}

#[tokio::test]
async fn a_certificate_of_the_client_lets_him_in_and_its_absence_does_not() {
    let Shared { certificates, server } = shared().await;
    let ca = certificates.parameter("sslrootcert", "ca");
    let address = |more: &str| server.address("needs_cert", &format!("host={HOST} {ca} {more}"));
    let without = refusal(&address("")).await;
    assert!(without.contains("sslcert and sslkey"), "{without}");
    let key = certificates.parameter("sslkey", "client-key");
    let stranger = certificates.parameter("sslcert", "stranger");
    let refused = refusal(&address(&format!("{stranger} {key}"))).await;
    assert!(refused.contains("ssl_ca_file"), "{refused}");
    let own = certificates.parameter("sslcert", "client");
    let store = connect(&address(&format!("{own} {key}"))).await.expect("the certificate is enough");
    write(&store, "a").await.unwrap();
}

#[tokio::test]
async fn a_server_without_tls_is_refused_unless_the_clear_is_allowed() {
    let server = Server::start(None).await;
    for mode in ["require", "verify-full"] {
        let error = refusal(&server.address("app", &format!("host={HOST} sslmode={mode}"))).await;
        assert!(error.contains("ssl = on") && error.contains("sslmode=disable"), "{mode}: {error}");
    }
    for mode in ["prefer", "disable"] {
        connect(&server.address("app", &format!("host={HOST} sslmode={mode}"))).await.expect(mode);
    }
}

#[tokio::test]
async fn what_is_printed_for_debugging_holds_no_secret() {
    let Shared { certificates, server } = shared().await;
    let parameters = [("sslrootcert", "ca"), ("sslcert", "client"), ("sslkey", "client-key")]
        .map(|(parameter, name)| certificates.parameter(parameter, name))
        .join(" ");
    let options = options(&server.address("app", &format!("host={HOST} {parameters}")));
    let printed = format!("{options:?}");
    let key = std::fs::read_to_string(certificates.file("client-key")).unwrap();
    assert!(!printed.contains(PASSWORD));
    assert!(key.lines().all(|line| line.len() < 20 || !printed.contains(line)));
    assert!(printed.contains("VerifyFull"), "{printed}");
}
