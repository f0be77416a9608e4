//! Where a page ended: opaque text that the caller gives back for the next one.
//!
//! It is the place of the last document in the order, value and id, so that the next page begins behind it whatever was
//! written meanwhile. It is signed, together with the query that it belongs to, by a key that the servers of the database
//! share: a cursor that was changed, or is given to another query, is refused and does not begin somewhere else.

use hmac::{Hmac, KeyInit, Mac};
use sha2::Sha256;
use tokio_postgres::Client;

use super::base64url;
use super::error::StoreError;
use super::feed::Moment;
use super::json::Json;
use super::search::{Search, SearchHash};
use super::types::{Order, Query, TableName};

/// The first byte of the form that this program writes.
const FORMAT: u8 = 2;

/// What is signed begins with this, so that a signature is one of nothing else.
const DOMAIN: &[u8] = b"raystream page cursor v2";

/// How much of a signature is in a cursor, in bytes: 2^128 tries to make one up.
const TAG_LEN: usize = 16;

/// The longest value to order by that a cursor takes, in bytes of JSON text: cursors travel with each page.
const KEY_LEN_MAX: usize = 2_048;

/// The longest cursor, in characters: the longest key and id, and a moment, which may be as long as a cursor of the feed.
const TEXT_LEN_MAX: usize = 10_240;

/// The key that cursors are signed with.
const KEY: &str = "SELECT page_key FROM raystream.meta";

/// What signs cursors.
#[derive(Clone)]
pub(super) struct PageKey(Hmac<Sha256>);

impl std::fmt::Debug for PageKey {
    fn fmt(&self, f: &mut std::fmt::Formatter<'_>) -> std::fmt::Result {
        f.write_str("PageKey")
    }
}

impl PageKey {
    /// The one of the database.
    pub(super) async fn of(client: &Client) -> Result<Self, tokio_postgres::Error> {
        let row = client.query_typed_one(KEY, &[]).await?;
        Ok(Self::new(row.try_get(0)?))
    }

    pub(super) fn new(secret: &[u8]) -> Self {
        Self(Hmac::new_from_slice(secret).expect("HMAC takes a key of any length"))
    }

    /// Signs a place in a query.
    fn sign(&self, query: &Paged<'_>, body: &[u8]) -> Hmac<Sha256> {
        let mut mac = self.0.clone();
        mac.update(DOMAIN);
        let filter = query.filter.map(canonical).unwrap_or_default();
        for part in [query.table.as_str().as_bytes(), &by_bytes(query.by), &filter, body] {
            mac.update(&u64::try_from(part.len()).unwrap_or(u64::MAX).to_be_bytes());
            mac.update(part);
        }
        mac
    }
}

/// A filter whatever its spaces and the order of its keys. One that is no JSON is refused by the database.
fn canonical(filter: &Json) -> Vec<u8> {
    let value: Option<serde_json::Value> = serde_json::from_slice(filter.as_bytes()).ok();
    value.map_or_else(|| filter.as_bytes().to_vec(), |value| value.to_string().into_bytes())
}

/// What a cursor belongs to: the limit may change from page to page.
#[derive(Clone, Copy)]
pub(super) struct Paged<'a> {
    pub(super) table: &'a TableName,
    pub(super) by: By<'a>,
    pub(super) filter: Option<&'a Json>,
}

/// What decides which documents come in which order, besides the filter.
#[derive(Clone, Copy)]
pub(super) enum By<'a> {
    Order(&'a Order),
    Search(&'a SearchHash),
}

impl<'a> Paged<'a> {
    pub(super) fn of(table: &'a TableName, query: &'a Query) -> Self {
        Self::in_order(table, &query.order, query.filter.as_ref())
    }

    pub(super) fn in_order(table: &'a TableName, order: &'a Order, filter: Option<&'a Json>) -> Self {
        Self { table, by: By::Order(order), filter }
    }

    /// Of a search, by its [`Search::hash`].
    pub(super) fn of_search(table: &'a TableName, search: &'a Search, hash: &'a SearchHash) -> Self {
        Self { table, by: By::Search(hash), filter: search.filter.as_ref() }
    }
}

/// The last document of a page, by what its order needs: a search the bits of its rank.
#[derive(Debug, Clone, PartialEq, Eq)]
pub(super) enum Place {
    Insertion { order: i64, id: String },
    Id { id: String },
    Field { key: String, id: String },
    Ranked { rank: u32, id: String },
}

/// The moment that pages are of, as a cursor of the feed, and how it was asked for.
#[derive(Debug, Clone, PartialEq, Eq)]
pub(super) struct Pinned {
    pub(super) cursor: String,
    pub(super) asked: String,
}

/// Where a page ended.
#[derive(Debug, Clone, PartialEq, Eq)]
pub(super) struct PageCursor {
    pub(super) place: Place,
    pub(super) at: Option<Pinned>,
}

impl PageCursor {
    /// A place in the documents as they are, or as they were at a moment.
    pub(super) fn new(place: Place, at: Option<&Moment>) -> Self {
        let at = at.map(|at| Pinned { cursor: at.cursor().to_owned(), asked: at.asked().to_owned() });
        Self { place, at }
    }

    /// The text, good for the query only.
    pub(super) fn encode(&self, key: &PageKey, query: &Paged<'_>) -> Result<String, StoreError> {
        let mut body = Vec::new();
        let (cursor, asked) = self.at.as_ref().map_or(("", ""), |at| (&at.cursor, &at.asked));
        put(&mut body, cursor.as_bytes())?;
        put(&mut body, asked.as_bytes())?;
        match &self.place {
            Place::Insertion { order, id } => {
                body.extend_from_slice(&order.to_be_bytes());
                body.extend_from_slice(id.as_bytes());
            }
            Place::Id { id } => body.extend_from_slice(id.as_bytes()),
            Place::Ranked { rank, id } => {
                body.extend_from_slice(&rank.to_be_bytes());
                body.extend_from_slice(id.as_bytes());
            }
            Place::Field { key, id } => {
                if key.len() > KEY_LEN_MAX {
                    return Err(StoreError::invalid(format!(
                        "the values to order by are too long to page by: {KEY_LEN_MAX} bytes at most"
                    )));
                }
                put(&mut body, key.as_bytes())?;
                body.extend_from_slice(id.as_bytes());
            }
        }
        let tag = key.sign(query, &body).finalize().into_bytes();
        let mut bytes = vec![FORMAT];
        bytes.extend_from_slice(&tag[..TAG_LEN]);
        bytes.extend_from_slice(&body);
        Ok(base64url::encode(&bytes))
    }

    /// Reads what [`PageCursor::encode`] wrote for the same query.
    pub(super) fn decode(text: &str, key: &PageKey, query: &Paged<'_>) -> Result<Self, StoreError> {
        Self::read(text, key, query).ok_or_else(other_query)
    }

    fn read(text: &str, key: &PageKey, query: &Paged<'_>) -> Option<Self> {
        if text.len() > TEXT_LEN_MAX {
            return None;
        }
        let bytes = base64url::decode(text)?;
        let (&FORMAT, signed) = bytes.split_first()? else { return None };
        let (tag, mut rest) = signed.split_at_checked(TAG_LEN)?;
        key.sign(query, rest).verify_truncated_left(tag).ok()?;
        let (cursor, asked) = (string(take(&mut rest)?)?, string(take(&mut rest)?)?);
        let at = (!cursor.is_empty()).then_some(Pinned { cursor, asked });
        let place = match query.by {
            By::Order(Order::Insertion) => {
                let (order, id) = rest.split_first_chunk::<8>()?;
                Place::Insertion { order: i64::from_be_bytes(*order), id: string(id)? }
            }
            By::Order(Order::Id { .. }) => Place::Id { id: string(rest)? },
            By::Order(Order::Field { .. }) => {
                Place::Field { key: string(take(&mut rest)?)?, id: string(rest)? }
            }
            By::Search(_) => {
                let (rank, id) = rest.split_first_chunk::<4>()?;
                Place::Ranked { rank: u32::from_be_bytes(*rank), id: string(id)? }
            }
        };
        Some(Self { place, at })
    }

    /// Whether it is of the moment that the query asks for.
    pub(super) fn fits(&self, at: Option<&Moment>) -> bool {
        self.at.as_ref().map(|at| &*at.cursor) == at.map(Moment::cursor)
    }
}

/// The refusal of a cursor.
pub(super) fn other_query() -> StoreError {
    StoreError::invalid(
        "`after` is not the `next` of a page of this query: it was changed, or table, filter, order, words or `at` are others",
    )
}

/// What is signed of [`By`]. No text of an order begins as that of a search does.
fn by_bytes(by: By<'_>) -> Vec<u8> {
    match by {
        By::Order(order) => order_text(order).into_bytes(),
        By::Search(hash) => [b"?", hash.as_slice()].concat(),
    }
}

/// The order as text: a cursor of one order says nothing in another. No path has the separator, a control character.
fn order_text(order: &Order) -> String {
    match order {
        Order::Insertion => String::new(),
        Order::Id { descending } => format!("{}id", if *descending { "-" } else { "+" }),
        Order::Field { path, descending } => {
            format!("{}field\u{1}{}", if *descending { "-" } else { "+" }, path.join("\u{1}"))
        }
    }
}

/// Appends bytes behind their length.
fn put(out: &mut Vec<u8>, bytes: &[u8]) -> Result<(), StoreError> {
    let len = u16::try_from(bytes.len())
        .map_err(|_| StoreError::invalid("the place of the page is too long for a cursor"))?;
    out.extend_from_slice(&len.to_be_bytes());
    out.extend_from_slice(bytes);
    Ok(())
}

/// Takes bytes behind their length.
fn take<'a>(rest: &mut &'a [u8]) -> Option<&'a [u8]> {
    let (len, tail) = rest.split_first_chunk::<2>()?;
    let (bytes, tail) = tail.split_at_checked(usize::from(u16::from_be_bytes(*len)))?;
    *rest = tail;
    Some(bytes)
}

/// Text that a Postgres `text` can hold.
fn string(bytes: &[u8]) -> Option<String> {
    String::from_utf8(bytes.to_vec()).ok().filter(|text| !text.contains('\0'))
}

#[cfg(test)]
mod tests {
    use super::*;

    fn field(path: &str) -> Order {
        Order::parse(path).expect("the test's path is valid")
    }

    fn table(name: &str) -> TableName {
        TableName::parse(name).expect("the test's name is valid")
    }

    fn key(secret: u8) -> PageKey {
        PageKey::new(&[secret; 32])
    }

    fn cursors() -> Vec<(Order, PageCursor)> {
        let at = || Some(Pinned { cursor: "abc".to_owned(), asked: "2026-01-31T12:00:00Z".to_owned() });
        vec![
            (
                Order::Insertion,
                PageCursor { place: Place::Insertion { order: -7, id: "ä b".to_owned() }, at: None },
            ),
            (
                Order::Id { descending: true },
                PageCursor { place: Place::Id { id: "x".to_owned() }, at: at() },
            ),
            (
                field("a.b"),
                PageCursor {
                    place: Place::Field { key: "{\"n\": [1]}".to_owned(), id: "y".to_owned() },
                    at: at(),
                },
            ),
            (
                field("-a.b"),
                PageCursor { place: Place::Field { key: "null".to_owned(), id: "y".to_owned() }, at: None },
            ),
        ]
    }

    #[test]
    fn a_cursor_is_read_back_for_its_own_query_only() {
        let (name, other_name) = (table("t"), table("u"));
        let filters = [None, Some(Json::new(r#"{"a":1,"b":2}"#)), Some(Json::new(r#"{"a":1}"#))];
        for (order, cursor) in &cursors() {
            for filter in &filters {
                let own = Paged::in_order(&name, order, filter.as_ref());
                let text = cursor.encode(&key(1), &own).expect("the cursor is short");
                assert_eq!(PageCursor::decode(&text, &key(1), &own).as_ref(), Ok(cursor));
                assert!(PageCursor::decode(&text, &key(2), &own).is_err(), "another database");
                let of_other_table = Paged { table: &other_name, ..own };
                assert!(PageCursor::decode(&text, &key(1), &of_other_table).is_err());
                for (other, _) in &cursors() {
                    let of_other_order = Paged { by: By::Order(other), ..own };
                    assert_eq!(PageCursor::decode(&text, &key(1), &of_other_order).is_ok(), other == order);
                }
                for other in &filters {
                    let of_other_filter = Paged { filter: other.as_ref(), ..own };
                    assert_eq!(PageCursor::decode(&text, &key(1), &of_other_filter).is_ok(), other == filter);
                }
            }
            let spaced = Json::new(" { \"b\" : 2, \"a\" : 1 } ");
            let own = Paged::in_order(&name, order, filters[1].as_ref());
            let text = cursor.encode(&key(1), &own).expect("the cursor is short");
            let same = Paged { filter: Some(&spaced), ..own };
            assert_eq!(PageCursor::decode(&text, &key(1), &same).as_ref(), Ok(cursor));
        }
    }

    #[test]
    fn a_cursor_of_a_search_is_read_back_for_its_own_search_only() {
        let (name, other_name) = (table("t"), table("u"));
        let search = Search::of("two words");
        let hash = search.hash();
        let own = Paged::of_search(&name, &search, &hash);
        let place = Place::Ranked { rank: 0.123_456_79_f32.to_bits(), id: "ä b".to_owned() };
        let pinned = Pinned { cursor: "abc".to_owned(), asked: "2026-01-31T12:00:00Z".to_owned() };
        for at in [None, Some(pinned)] {
            let cursor = PageCursor { place: place.clone(), at };
            let text = cursor.encode(&key(1), &own).expect("the cursor is short");
            assert_eq!(PageCursor::decode(&text, &key(1), &own).as_ref(), Ok(&cursor));
            assert!(PageCursor::decode(&text, &key(2), &own).is_err(), "another database");
            let of_other_table = Paged { table: &other_name, ..own };
            assert!(PageCursor::decode(&text, &key(1), &of_other_table).is_err());
            let of_no_search = Paged { by: By::Order(&Order::Insertion), ..own };
            assert!(PageCursor::decode(&text, &key(1), &of_no_search).is_err());
            let other_hash = Search::of("two").hash();
            assert!(
                PageCursor::decode(&text, &key(1), &Paged::of_search(&name, &search, &other_hash)).is_err()
            );
        }
    }

    #[test]
    fn every_change_of_a_cursor_is_refused() {
        let name = table("t");
        for (order, cursor) in &cursors() {
            let own = Paged::in_order(&name, order, None);
            let text = cursor.encode(&key(1), &own).expect("the cursor is short");
            let bytes = base64url::decode(&text).expect("it is base64url");
            for at in 0..bytes.len() {
                let mut changed = bytes.clone();
                changed[at] ^= 1;
                assert!(
                    PageCursor::decode(&base64url::encode(&changed), &key(1), &own).is_err(),
                    "byte {at}"
                );
                assert!(
                    PageCursor::decode(&base64url::encode(&bytes[..at]), &key(1), &own).is_err(),
                    "{at} bytes"
                );
            }
        }
        for text in ["", "A", "AA", "AQ", "AQAA", "!", &"A".repeat(TEXT_LEN_MAX + 1)] {
            let own = Paged::in_order(&name, &Order::Insertion, None);
            assert!(PageCursor::decode(text, &key(1), &own).is_err(), "{text}");
        }
    }

    #[test]
    fn a_long_key_is_refused_and_not_cut() {
        let name = table("t");
        let place = Place::Field { key: "1".repeat(KEY_LEN_MAX + 1), id: "x".to_owned() };
        let order = field("a");
        let own = Paged::in_order(&name, &order, None);
        let encoded = PageCursor { place, at: None }.encode(&key(1), &own);
        assert!(matches!(encoded, Err(StoreError::InvalidInput(_))));
    }
}
