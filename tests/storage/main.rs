//! The store against a real Postgres.

#[path = "../support/postgres.rs"]
mod postgres;

mod dead;
mod documents;
mod embedded;
mod failures;
mod groups;
mod proxy;
mod queries;
mod start;
mod stopping;
mod tables;
mod transactions;

use raystream::store::{Document, DocumentId, Json, Store, TableName, Writer};

/// Who writes in these tests.
const WRITER: Writer<'static> = Writer { principal: "tester" };

fn table(name: &str) -> TableName {
    TableName::parse(name).expect("the test's name is valid")
}

fn id(id: &str) -> DocumentId {
    DocumentId::parse(id).expect("the test's id is valid")
}

fn json(text: &str) -> Json {
    Json::new(text.to_owned().into_bytes())
}

/// JSON as a value, to compare whatever the spaces.
fn value(json: &Json) -> serde_json::Value {
    serde_json::from_slice(json.as_bytes()).expect("the store gives JSON")
}

/// The document, which has to be there.
async fn get(store: &Store, name: &str, document: &str) -> Document {
    let found = store.get(&table(name), &id(document)).await.expect("the table is there");
    found.expect("the document is there")
}

/// Writes a document without a condition.
async fn set(store: &Store, name: &str, document: &str, text: &str) -> i64 {
    store.set(WRITER, &table(name), &id(document), json(text), None).await.expect("the document is written")
}
