//! What the tests share: a database with a table and a feed, and a reader that checks what it gets.

use std::collections::BTreeMap;
use std::sync::Arc;
use std::time::Duration;

use raystream::store::feed::{
    Change, ChangeKind, EndReason, Feed, FeedOptions, Item, Overflow, SubscribeRequest, Subscription,
};
use raystream::store::{Json, Store, StoreOptions, TableName};
use tokio::time::timeout;
use tokio_postgres::{Client, Config};

use crate::postgres;

/// Longer than anything takes; a test that waits this long has failed.
pub(crate) const PATIENCE: Duration = Duration::from_secs(120);

/// A database with the table `t`.
pub(crate) struct World {
    pub(crate) store: Store,
    pub(crate) config: Config,
    /// The physical table, quoted.
    pub(crate) t: String,
}

pub(crate) fn name(table: &str) -> TableName {
    TableName::parse(table).expect("a good name")
}

pub(crate) fn json(text: &str) -> Json {
    Json::new(text.to_owned())
}

pub(crate) fn text(json: Option<&Json>) -> Option<String> {
    json.map(|json| String::from_utf8(json.as_bytes().to_vec()).expect("JSON is UTF-8"))
}

impl World {
    pub(crate) async fn new() -> Self {
        Self::on(postgres::database().await).await
    }

    pub(crate) async fn on(config: Config) -> Self {
        let store = Store::connect(StoreOptions::new(config.clone())).await.expect("the store starts");
        store.create_table(&name("t")).await.expect("the table is made");
        let t = store.table(&name("t")).await.expect("the table is there").quoted();
        Self { store, config, t }
    }

    /// A connection of the test's own, as psql has it.
    pub(crate) async fn client(&self) -> Client {
        postgres::client(&self.config).await
    }

    pub(crate) async fn feed(&self) -> Feed {
        self.feed_with(|_| {}).await
    }

    pub(crate) async fn feed_with(&self, change: impl FnOnce(&mut FeedOptions)) -> Feed {
        let mut options = FeedOptions::default();
        change(&mut options);
        Feed::of_store(&self.store, options).await.expect("the feed starts")
    }

    /// Sets a document, or makes it, in a transaction of its own.
    pub(crate) async fn set(&self, client: &Client, id: &str, data: &str) {
        client.execute(&upsert(&self.t), &[&id, &json(data)]).await.expect("the document is written");
    }

    /// The live documents.
    pub(crate) async fn documents(&self, client: &Client) -> BTreeMap<String, (i64, String)> {
        let read = format!("SELECT id, _version, data::text FROM {} WHERE _deleted_txid IS NULL", self.t);
        let rows = client.query(&read, &[]).await.expect("the table can be read");
        rows.iter().map(|row| (row.get(0), (row.get(1), row.get(2)))).collect()
    }
}

/// Sets $1 to $2; a deleted document comes back with its next version.
pub(crate) fn upsert(t: &str) -> String {
    format!(
        "INSERT INTO {t} AS d (id, data) VALUES ($1, $2) \
         ON CONFLICT (id) DO UPDATE SET data = $2, _deleted_txid = NULL"
    )
}

/// Deletes $1 as the store does, with a tombstone.
pub(crate) fn delete(t: &str) -> String {
    format!("UPDATE {t} SET _deleted_txid = pg_current_xact_id() WHERE id = $1 AND _deleted_txid IS NULL")
}

pub(crate) fn request(table: &str) -> SubscribeRequest {
    SubscribeRequest {
        source: name(table).into(),
        filter: None,
        cursor: None,
        snapshot: false,
        overflow: Overflow::Close,
    }
}

pub(crate) async fn live(feed: &Feed) -> Subscription {
    feed.subscribe(request("t")).await.expect("the subscription begins")
}

pub(crate) async fn with_snapshot(feed: &Feed) -> Subscription {
    let request = SubscribeRequest { snapshot: true, ..request("t") };
    feed.subscribe(request).await.expect("the subscription begins")
}

pub(crate) async fn after(feed: &Feed, cursor: &str) -> Subscription {
    let request = SubscribeRequest { cursor: Some(cursor.to_owned()), ..request("t") };
    feed.subscribe(request).await.expect("the subscription begins")
}

/// Takes items until one is the last that is wanted.
pub(crate) async fn until(subscription: &mut Subscription, mut last: impl FnMut(&Item) -> bool) -> Vec<Item> {
    let mut items = Vec::new();
    let taken = timeout(PATIENCE, async {
        loop {
            let next = subscription.next(1).await;
            assert!(!next.is_empty(), "nothing more comes after {:?}", items.last());
            items.extend(next);
            if items.last().is_some_and(&mut last) {
                return;
            }
        }
    });
    if taken.await.is_err() {
        panic!("it did not come; the last of {} items was {:?}", items.len(), items.last());
    }
    items
}

/// Takes items until the event of a document.
pub(crate) async fn until_id(subscription: &mut Subscription, id: &str) -> Vec<Item> {
    until(subscription, |item| matches!(item, Item::Event(change) if &*change.id == id)).await
}

/// Takes items up to the end.
pub(crate) async fn until_end(subscription: &mut Subscription) -> (Vec<Item>, EndReason, Option<Arc<str>>) {
    let mut items = until(subscription, |item| matches!(item, Item::Ended { .. })).await;
    match items.pop() {
        Some(Item::Ended { reason, cursor }) => (items, reason, cursor),
        other => panic!("no end: {other:?}"),
    }
}

/// The changes among items.
pub(crate) fn events(items: &[Item]) -> Vec<&Change> {
    items
        .iter()
        .filter_map(|item| match item {
            Item::Event(change) => Some(change),
            _ => None,
        })
        .collect()
}

/// Ids and versions of the changes, in order.
pub(crate) fn versions(items: &[Item]) -> Vec<(String, i64)> {
    events(items).iter().map(|change| (change.id.to_string(), change.version)).collect()
}

/// The cursor of an item.
pub(crate) fn cursor_of(item: &Item) -> Option<Arc<str>> {
    match item {
        Item::Position { cursor } | Item::SnapshotEnd { cursor } => Some(Arc::clone(cursor)),
        Item::Snapshot(change) | Item::Event(change) => Some(Arc::clone(&change.cursor)),
        Item::Ended { cursor, .. } => cursor.clone(),
    }
}

/// A client's copy of a table, made from items only. It refuses what cannot be: a version that is repeated, skipped or
/// goes back, an insert of what is there, an update of what is not.
#[derive(Default)]
pub(crate) struct Copy {
    pub(crate) documents: BTreeMap<String, (i64, String)>,
    /// The last version seen of each document, also of deleted ones.
    seen: BTreeMap<String, i64>,
}

impl Copy {
    pub(crate) fn apply(&mut self, item: &Item) {
        match item {
            Item::Position { .. } | Item::SnapshotEnd { .. } => {}
            Item::Snapshot(change) => {
                assert_eq!(change.kind, ChangeKind::Snapshot);
                let twice = self.seen.insert(change.id.to_string(), change.version);
                assert_eq!(twice, None, "{} is in the snapshot once", change.id);
                self.put(change);
            }
            Item::Event(change) => self.event(change),
            Item::Ended { reason, .. } => panic!("ended: {reason:?}"),
        }
    }

    fn event(&mut self, change: &Change) {
        let id = change.id.to_string();
        if let Some(before) = self.seen.insert(id.clone(), change.version) {
            assert_eq!(change.version, before + 1, "{id}: each version once, in order ({:?})", change.kind);
        }
        let there = self.documents.contains_key(&id);
        let expected = match change.kind {
            ChangeKind::Insert => !there,
            ChangeKind::Update | ChangeKind::Delete => there,
            other => panic!("{other:?} without a filter"),
        };
        assert!(expected, "{:?} of {id}, which is there: {there}", change.kind);
        if let Some((_, old)) = self.documents.get(&id) {
            assert_eq!(text(change.old.as_ref()).as_ref(), Some(old), "{id}: `old` is what it was");
        }
        match change.kind {
            ChangeKind::Delete => {
                assert_eq!(change.data, None);
                self.documents.remove(&id);
            }
            _ => self.put(change),
        }
    }

    fn put(&mut self, change: &Change) {
        let data = text(change.data.as_ref()).expect("a document that is there has data");
        self.documents.insert(change.id.to_string(), (change.version, data));
    }
}
