//! Where a page of a search ended: opaque text, checked like any input.

use sha2::{Digest, Sha256};

use super::Search;
use crate::store::base64url;
use crate::store::types::DOCUMENT_ID_LEN_MAX;

/// The first byte of the form that this program writes.
const FORMAT: u8 = 1;

/// Bytes of the hash of a search: a cursor of another one is a mistake of the caller, not an attack.
const SEARCH_LEN: usize = 8;

/// The last document of a page.
#[derive(Debug, Clone, PartialEq)]
pub(super) struct SearchCursor {
    pub(super) rank: f32,
    pub(super) id: String,
}

impl SearchCursor {
    /// The text, good for the search only.
    pub(super) fn encode(&self, search: &Search) -> String {
        let mut bytes = vec![FORMAT];
        bytes.extend_from_slice(&hash(search));
        bytes.extend_from_slice(&self.rank.to_be_bytes());
        bytes.extend_from_slice(self.id.as_bytes());
        base64url::encode(&bytes)
    }

    /// Reads what [`SearchCursor::encode`] wrote for the same search; `None` for anything else.
    pub(super) fn decode(text: &str, search: &Search) -> Option<Self> {
        // Four characters for three bytes.
        if text.len() > 2 * (1 + SEARCH_LEN + size_of::<f32>() + DOCUMENT_ID_LEN_MAX) {
            return None;
        }
        let bytes = base64url::decode(text)?;
        let (&FORMAT, rest) = bytes.split_first()? else { return None };
        let (of, rest) = rest.split_first_chunk::<SEARCH_LEN>()?;
        let (rank, id) = rest.split_first_chunk::<4>()?;
        let rank = f32::from_be_bytes(*rank);
        let id = String::from_utf8(id.to_vec()).ok().filter(|id| !id.contains('\0'))?;
        (*of == hash(search) && rank.is_finite()).then_some(Self { rank, id })
    }
}

/// What decides which documents are found, and their ranks.
fn hash(search: &Search) -> [u8; SEARCH_LEN] {
    let mut hasher = Sha256::new();
    let mut put = |text: &[u8]| {
        hasher.update(u64::try_from(text.len()).unwrap_or(u64::MAX).to_be_bytes());
        hasher.update(text);
    };
    put(search.text.as_bytes());
    put(search.language.as_str().as_bytes());
    put(search.filter.as_ref().map_or(b"", |filter| filter.as_bytes()));
    for field in search.fields.as_texts() {
        put(field.as_bytes());
    }
    let hash: [u8; 32] = hasher.finalize().into();
    *hash.first_chunk().expect("a hash is longer than a part of it")
}

#[cfg(test)]
mod tests {
    use super::*;
    use crate::store::Language;

    #[test]
    fn a_cursor_is_read_back_for_its_own_search_only() {
        let search = Search::of("two words");
        let cursor = SearchCursor { rank: 0.123_456_79, id: "ä b".to_owned() };
        let text = cursor.encode(&search);
        assert_eq!(SearchCursor::decode(&text, &search), Some(cursor));
        let simple = Search { language: Language::parse("simple").expect("known"), ..search.clone() };
        for other in [Search::of("two"), simple] {
            assert_eq!(SearchCursor::decode(&text, &other), None);
        }
    }

    #[test]
    fn what_is_no_cursor_is_refused() {
        let search = Search::of("x");
        let odd = SearchCursor { rank: f32::NAN, id: "x".to_owned() }.encode(&search);
        let zero = SearchCursor { rank: 1.0, id: "\0".to_owned() }.encode(&search);
        for text in ["", "A", "AQ", "!", &"A".repeat(900), &odd, &zero] {
            assert_eq!(SearchCursor::decode(text, &search), None, "{text}");
        }
    }
}
