//! A cancel request is a connection of its own: it goes inside of TLS as the others do.

use std::sync::atomic::{AtomicU32, Ordering};
use std::sync::{Arc, Mutex};

use raystream::store::{
    DocumentId, Isolation, Json, Scope, StopSignal, Store, StoreError, TableName, TransactionOptions, Writer,
    Writes,
};
use tokio::io::{AsyncReadExt, AsyncWriteExt, copy_bidirectional};
use tokio::net::{TcpListener, TcpStream};

use crate::certificates::{Certificates, HOST};
use crate::server::Server;
use crate::{PATIENCE, eventually, options};

/// What a client says first, in the second word: SSLRequest.
const SSL_REQUEST: u32 = 80_877_103;

/// Notes the first message of every connection, and passes everything on.
async fn listen_in(port: u16) -> (u16, Arc<Mutex<Vec<u32>>>) {
    let listener = TcpListener::bind("127.0.0.1:0").await.unwrap();
    let here = listener.local_addr().unwrap().port();
    let heard = Arc::new(Mutex::new(Vec::new()));
    let notes = Arc::clone(&heard);
    tokio::spawn(async move {
        while let Ok((mut client, _)) = listener.accept().await {
            let notes = Arc::clone(&notes);
            tokio::spawn(async move {
                let mut first = [0; 8];
                client.read_exact(&mut first).await?;
                let [.., a, b, c, d] = first;
                notes.lock().unwrap().push(u32::from_be_bytes([a, b, c, d]));
                let mut server = TcpStream::connect(("127.0.0.1", port)).await?;
                server.write_all(&first).await?;
                copy_bidirectional(&mut client, &mut server).await
            });
        }
    });
    (here, heard)
}

#[tokio::test]
async fn a_statement_is_stopped_through_tls() {
    let certificates = Certificates::make();
    let server = Server::start(Some(&certificates)).await;
    let (port, heard) = listen_in(server.port).await;
    let ca = certificates.parameter("sslrootcert", "ca");
    let address = server.address("needs_tls", &format!("host={HOST} {ca}"));
    let mut options = options(&address.replace(&format!("port={}", server.port), &format!("port={port}")));
    // Nothing but the cancel request can end the wait in time.
    (options.lock_timeout, options.statement_timeout) = (PATIENCE * 10, PATIENCE * 10);
    let store = Store::connect(options).await.unwrap();
    let (table, id) = (TableName::parse("t").unwrap(), DocumentId::parse("a").unwrap());
    let writer = Writer { principal: "tester" };
    store.set(writer, &table, &id, Json::new("1"), None).await.unwrap();
    let admin = server.admin("needs_tls").await;
    let physical: String = admin
        .query_one("SELECT format('%I.%I', ptr_schema, ptr) FROM raystream.storage WHERE name = 't'", &[])
        .await
        .unwrap()
        .get(0);
    admin.batch_execute(&format!("BEGIN; UPDATE {physical} SET data = '2'")).await.unwrap();
    let before = heard.lock().unwrap().len();

    // Not a deadline: Postgres knows those by itself.
    let waits = "SELECT count(*) FROM pg_stat_activity WHERE wait_event_type = 'Lock'";
    // Of its own: inside a transaction Postgres shows the sessions as they were at the first look.
    let looker = server.admin("needs_tls").await;
    let waiting = async || looker.query_one(waits, &[]).await.unwrap().get::<_, i64>(0);
    let cancel_once_it_waits = async |signal: StopSignal| {
        eventually("it waits", async || waiting().await == 1).await;
        signal.set(()).unwrap();
    };
    let signal = StopSignal::default();
    let scoped = store.scoped(Scope::default().cancelled_by(Arc::clone(&signal)));
    let write = tokio::time::timeout(PATIENCE, scoped.set(writer, &table, &id, Json::new("3"), None));
    let (stopped, ()) = tokio::join!(write, cancel_once_it_waits(signal));
    assert_eq!(stopped.expect("Postgres stopped it"), Err(StoreError::Cancelled));
    assert_eq!(waiting().await, 0);
    assert!(heard.lock().unwrap().len() > before, "a connection was made for the request");

    // The transactions' connections cancel by another way.
    let asked = Arc::new(AtomicU32::new(0));
    let (count, inner_table, inner_id) = (Arc::clone(&asked), table.clone(), id.clone());
    let signal = StopSignal::default();
    let scoped = store.scoped(Scope::default().cancelled_by(Arc::clone(&signal)));
    let once =
        TransactionOptions { isolation: Isolation::Statement, writes: Writes::Allowed, is_repeatable: false };
    let in_transaction = scoped.transaction(once, move |inside| {
        count.fetch_add(1, Ordering::Relaxed);
        let (table, id) = (inner_table.clone(), inner_id.clone());
        Box::pin(async move { inside.set(writer, &table, &id, Json::new("4"), None).await })
    });
    let in_transaction = tokio::time::timeout(PATIENCE, in_transaction);
    let (stopped, ()) = tokio::join!(in_transaction, cancel_once_it_waits(signal));
    assert_eq!(stopped.expect("Postgres stopped it"), Err(StoreError::Cancelled));
    assert_eq!(asked.load(Ordering::Relaxed), 1);
    eventually("nobody waits", async || waiting().await == 0).await;
    admin.batch_execute("ROLLBACK").await.unwrap();

    let heard = heard.lock().unwrap();
    assert!(heard.iter().all(|first| *first == SSL_REQUEST), "one was in the clear: {heard:?}");
}
