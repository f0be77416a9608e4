//! `table.search`: full-text search, from arguments to the store and back.

use bytes::Bytes;

use super::args::Args;
use super::caller::Context;
use super::reply::Json as Out;
use super::tables::{self, document, in_field};
use crate::auth::TableRight;
use crate::rpc::{Call, Status};
use crate::store::{FACETS_MAX, Fields, Found, Json, Language, SEARCH_FIELDS_MAX, Search, Store};

/// The fields of its arguments.
const FIELDS: &[&str] =
    &["table", "query", "fields", "filter", "facets", "language", "limit", "after", "highlight", "sid", "at"];

/// Room for rank and punctuation of an item.
const ITEM_ROOM: usize = 64;

/// `table.search {table, query, fields?, filter?, facets?, language?, limit?, after?, highlight?, at?}`:
/// `{items: [{id, data, version, rank, highlight?}], next, total, complete, facets?}`; with `at` also `{cursor}`.
pub(super) async fn search(store: Store, context: Context, call: Call) -> Result<Bytes, Status> {
    let args = Args::parse(&call, FIELDS)?;
    let table = tables::table(&context, &args, TableRight::Read)?;
    let language = args.optional_string("language")?;
    let search = Search {
        text: args.string("query")?.into_owned(),
        language: language
            .map_or(Ok(Language::default()), |name| Language::parse(&name))
            .map_err(|error| in_field("language", error))?,
        fields: paths(&args, "fields", SEARCH_FIELDS_MAX)?,
        filter: args.optional_object("filter")?.map(Json::new),
        limit: args.optional_count("limit")?,
        after: args.optional_string("after")?.map(std::borrow::Cow::into_owned),
        facets: paths(&args, "facets", FACETS_MAX)?,
        highlight: args.optional_bool("highlight")?.unwrap_or(false),
        at: None,
    };
    let at = tables::at(&args)?;
    let at = store.moment_of_search(table.name(), &search, at.as_ref()).await?;
    let page = store.search(table.name(), Search { at: at.clone(), ..search }).await?;

    let room = page.items.iter().map(|found| found.document.data.as_bytes().len() + ITEM_ROOM).sum();
    let mut out = Out::with_room(room).raw(r#"{"items":["#);
    for (position, found) in page.items.iter().enumerate() {
        out = item(if position == 0 { out } else { out.raw(",") }, found);
    }
    out = out.raw(r#"],"next":"#);
    out = match &page.next {
        Some(next) => out.string(next),
        None => out.raw("null"),
    };
    out = out.raw(r#","total":"#).integer(page.total.into());
    out = out.raw(if page.is_complete { r#","complete":true"# } else { r#","complete":false"# });
    if let Some(facets) = &page.facets {
        out = out.raw(r#","facets":"#).raw(facets.as_bytes());
    }
    tables::with_moment(out, at.as_ref()).raw("}").finish()
}

fn paths(args: &Args<'_>, name: &'static str, max: usize) -> Result<Fields, Status> {
    let paths = args.optional_names(name)?.unwrap_or_default();
    Fields::parse(&paths, max).map_err(|error| in_field(name, error))
}

/// `{"id":..,"data":..,"version":..,"rank":..}`, and its excerpt.
fn item(out: Out, found: &Found) -> Out {
    // A rank is finite, and Rust writes such a number as JSON does.
    let mut out = document(out, &found.document)
        .raw(r#","version":"#)
        .integer(found.document.version)
        .raw(r#","rank":"#)
        .raw(found.rank.to_string());
    if let Some(parts) = &found.highlight {
        out = out.raw(r#","highlight":["#);
        for (position, part) in parts.iter().enumerate() {
            out = if position == 0 { out } else { out.raw(",") }.string(part);
        }
        out = out.raw("]");
    }
    out.raw("}")
}
