//! Where a page ended: opaque text that the caller gives back for the next one. It holds nothing that the caller has not
//! seen, and is checked like any input, so it needs no signature.

use super::base64url;
use super::error::StoreError;
use super::json::Json;
use super::types::Order;

/// The first byte of the form that this program writes.
const FORMAT: u8 = 1;

/// The longest value to order by that a cursor takes, in bytes of JSON text: cursors travel with each page.
const KEY_LEN_MAX: usize = 2_048;

/// The longest cursor, in characters: the longest key, id and path with room.
const TEXT_LEN_MAX: usize = 4_096;

/// The last document of a page, by what its order needs.
#[derive(Debug, Clone, PartialEq, Eq)]
pub(super) enum PageCursor {
    Insertion { order: i64, id: String },
    Id { id: String },
    Field { key: String, id: String },
}

impl PageCursor {
    /// The text, good for the order only.
    pub(super) fn encode(&self, order: &Order) -> Result<String, StoreError> {
        let mut bytes = vec![FORMAT];
        put(&mut bytes, order_text(order).as_bytes())?;
        match self {
            Self::Insertion { order, id } => {
                bytes.extend_from_slice(&order.to_be_bytes());
                bytes.extend_from_slice(id.as_bytes());
            }
            Self::Id { id } => bytes.extend_from_slice(id.as_bytes()),
            Self::Field { key, id } => {
                if key.len() > KEY_LEN_MAX {
                    return Err(StoreError::invalid(format!(
                        "the values to order by are too long to page by: {KEY_LEN_MAX} bytes at most"
                    )));
                }
                put(&mut bytes, key.as_bytes())?;
                bytes.extend_from_slice(id.as_bytes());
            }
        }
        Ok(base64url::encode(&bytes))
    }

    /// Reads what [`PageCursor::encode`] wrote for the same order.
    pub(super) fn decode(text: &str, order: &Order) -> Result<Self, StoreError> {
        Self::read(text, order)
            .ok_or_else(|| StoreError::invalid("`after` is not the `next` of a page of this query"))
    }

    fn read(text: &str, order: &Order) -> Option<Self> {
        if text.len() > TEXT_LEN_MAX {
            return None;
        }
        let bytes = base64url::decode(text)?;
        let (&FORMAT, mut rest) = bytes.split_first()? else { return None };
        if take(&mut rest)? != order_text(order).as_bytes() {
            return None;
        }
        let cursor = match order {
            Order::Insertion => {
                let (order, id) = rest.split_first_chunk::<8>()?;
                Self::Insertion { order: i64::from_be_bytes(*order), id: string(id)? }
            }
            Order::Id { .. } => Self::Id { id: string(rest)? },
            Order::Field { .. } => {
                let key = string(take(&mut rest)?)?;
                Json::new(key.clone().into_bytes()).check().ok()?;
                Self::Field { key, id: string(rest)? }
            }
        };
        Some(cursor)
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
    let len = u16::try_from(bytes.len()).map_err(|_| StoreError::invalid("the order has too long a path"))?;
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

    #[test]
    fn a_cursor_is_read_back_for_its_own_order_only() {
        let cursors = [
            (Order::Insertion, PageCursor::Insertion { order: -7, id: "ä b".to_owned() }),
            (Order::Id { descending: true }, PageCursor::Id { id: "x".to_owned() }),
            (field("a.b"), PageCursor::Field { key: "{\"n\": [1]}".to_owned(), id: "y".to_owned() }),
            (field("-a.b"), PageCursor::Field { key: "null".to_owned(), id: "y".to_owned() }),
        ];
        for (order, cursor) in &cursors {
            let text = cursor.encode(order).expect("the cursor is short");
            for (other, _) in &cursors {
                let read = PageCursor::decode(&text, other);
                if other == order {
                    assert_eq!(read.as_ref(), Ok(cursor));
                } else {
                    assert!(matches!(read, Err(StoreError::InvalidInput(_))), "{order:?} read as {other:?}");
                }
            }
        }
    }

    #[test]
    fn what_is_no_cursor_is_refused() {
        for text in ["", "A", "AA", "AQ", "AQAA", "AQAAAAAAAAAAAA", "!", &"A".repeat(5_000)] {
            assert!(PageCursor::decode(text, &Order::Insertion).is_err(), "{text}");
        }
        assert!(PageCursor::decode("AQD__w", &Order::Insertion).is_err(), "a length beyond the end");
    }

    #[test]
    fn a_long_key_is_refused_and_not_cut() {
        let cursor = PageCursor::Field { key: "1".repeat(KEY_LEN_MAX + 1), id: "x".to_owned() };
        assert!(matches!(cursor.encode(&field("a")), Err(StoreError::InvalidInput(_))));
    }
}
