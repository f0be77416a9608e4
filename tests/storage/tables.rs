//! Names and tables.

use raystream::store::{DocumentId, Store, StoreError, StoreOptions, TableName};

use crate::postgres::{client, database, store, store_with};
use crate::{WRITER, get, id, json, set, table, value};

#[test]
fn names_and_ids_of_another_shape_are_refused() {
    let long = "a".repeat(64);
    for name in ["", "1a", "a-b", "a b", "a\"b", "a.b", "a;DROP TABLE x", "ä", "a\0", &long] {
        assert!(matches!(TableName::parse(name), Err(StoreError::InvalidInput(_))), "{name:?}");
    }
    for name in ["a", "_", "A1_b", &long[1..], "select", "storage"] {
        assert_eq!(TableName::parse(name).expect("the name is valid").as_str(), name);
    }
    let long = "a".repeat(257);
    for id in ["", "a\0", "a\nb", "\u{7f}", "\u{85}", &long] {
        assert!(matches!(DocumentId::parse(id), Err(StoreError::InvalidInput(_))), "{id:?}");
    }
    for id in ["a", " ", "'; --", "../..", "𝄞", &long[1..]] {
        assert_eq!(DocumentId::parse(id).expect("the id is valid").as_str(), id);
    }
}

#[tokio::test]
async fn names_that_sql_has_a_meaning_for_are_only_names() {
    let store = store().await;
    for name in ["select", "SELECT", "storage", "changes", "_"] {
        set(&store, name, "a", &format!("\"{name}\"")).await;
    }
    for name in ["select", "SELECT", "storage", "changes", "_"] {
        assert_eq!(value(&get(&store, name, "a").await.data), name);
    }
    let listed: Vec<String> = store
        .list_tables()
        .await
        .expect("they are listed")
        .into_iter()
        .map(|info| info.name.to_string())
        .collect();
    assert_eq!(listed, ["SELECT", "_", "changes", "select", "storage"]);
}

#[tokio::test]
async fn a_table_is_made_by_the_first_write_only_where_that_is_wanted() {
    let store = store_with(|options| options.create_tables = false).await;
    let t = table("t");
    assert_eq!(store.get(&t, &id("a")).await, Err(StoreError::NotFound));
    assert_eq!(store.set(WRITER, &t, &id("a"), json("1"), None).await, Err(StoreError::NotFound));
    assert_eq!(store.push(WRITER, &t, json("1")).await, Err(StoreError::NotFound));
    assert_eq!(store.pop(WRITER, &t).await, Err(StoreError::NotFound));
    assert_eq!(store.ptr(&t).await, Err(StoreError::NotFound));
    assert_eq!(store.create_table(&t).await, Ok(true));
    assert_eq!(store.create_table(&t).await, Ok(false));
    assert_eq!(store.set(WRITER, &t, &id("a"), json("1"), None).await, Ok(1));
    let ptr = store.ptr(&t).await.expect("it is there");
    assert!(ptr.strip_prefix("raystream.tbl_").is_some_and(|hex| hex.len() == 16), "{ptr}");
    assert_eq!(store.list_tables().await.expect("they are listed")[0].ptr.to_string(), ptr);
}

#[tokio::test]
async fn two_daemons_that_make_one_table_at_once_share_it() {
    let config = database().await;
    let connect = || async {
        let mut options = StoreOptions::new(config.clone());
        options.create_tables = true;
        Store::connect(options).await.expect("the store starts")
    };
    let (first, second) = tokio::join!(connect(), connect());
    for round in 0..10 {
        let name = table(&format!("t{round}"));
        let (made_first, made_second) = tokio::join!(first.create_table(&name), second.create_table(&name));
        let made = [made_first.expect("it is made"), made_second.expect("it is made")];
        assert_eq!(made.iter().filter(|made| **made).count(), 1, "exactly one made it");
        assert_eq!(first.ptr(&name).await, second.ptr(&name).await);
    }
    let name = table("written");
    let writes: Vec<_> = (0..20)
        .map(|n| {
            let (store, name) = (if n % 2 == 0 { first.clone() } else { second.clone() }, name.clone());
            tokio::spawn(async move { store.push(WRITER, &name, json("1")).await })
        })
        .collect();
    for write in writes {
        write.await.expect("the task ends").expect("the first write makes the table");
    }
    assert_eq!(first.count(&name, None).await, Ok(20));
}

#[tokio::test]
async fn a_table_that_another_writer_dropped_is_not_found_until_it_is_made_again() {
    let store = store().await;
    set(&store, "t", "a", "1").await;
    let client = client(store.postgres_config()).await;
    let drop = |ptr: String| async move {
        let (_, name) = ptr.split_once('.').expect("a schema and a name");
        format!("DROP TABLE {ptr}; DELETE FROM raystream.storage WHERE ptr = '{name}'")
    };
    let ptr = store.ptr(&table("t")).await.expect("it is there");
    client.batch_execute(&drop(ptr.clone()).await).await.expect("it is dropped");
    assert_eq!(store.get(&table("t"), &id("a")).await, Err(StoreError::NotFound));
    assert_eq!(set(&store, "t", "a", "2").await, 1, "it is a new table");
    assert_eq!(value(&get(&store, "t", "a").await.data), 2);
    let again = store.ptr(&table("t")).await.expect("it is there");
    assert_ne!(again, ptr);

    client.batch_execute(&format!("DROP TABLE {again}")).await.expect("it is dropped, its name is left");
    assert_eq!(store.get(&table("t"), &id("a")).await, Err(StoreError::NotFound));
    let written = store.set(WRITER, &table("t"), &id("a"), json("1"), None).await;
    assert_eq!(written, Err(StoreError::NotFound));
}

#[tokio::test]
async fn a_table_that_is_altered_meanwhile_is_read_and_written_on() {
    let store = store().await;
    set(&store, "t", "a", "1").await;
    store.query(&table("t"), Default::default()).await.expect("the statement is prepared");
    let ptr = store.table(&table("t")).await.expect("it is there").quoted();
    let client = client(store.postgres_config()).await;
    client.batch_execute(&format!("ALTER TABLE {ptr} ADD COLUMN extra int")).await.expect("it is altered");
    assert_eq!(set(&store, "t", "a", "2").await, 2);
    assert_eq!(value(&get(&store, "t", "a").await.data), 2);
    // The type of a column in the result changes: Postgres refuses the prepared statement.
    client
        .batch_execute(&format!("ALTER TABLE {ptr} ALTER COLUMN id TYPE varchar"))
        .await
        .expect("it is altered");
    for _ in 0..4 {
        let page = store.query(&table("t"), Default::default()).await.expect("it is prepared anew");
        assert_eq!(page.items.len(), 1);
    }
}
