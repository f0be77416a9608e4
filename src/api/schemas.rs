//! `table.schema` and `table.setSchema`: what the documents of a table have to look like.

use bytes::Bytes;

use super::args::Args;
use super::caller::Context;
use super::reply::Json as Out;
use super::streams::STREAM_LONGEST;
use super::tables;
use crate::auth::TableRight;
use crate::rpc::{Call, Status};
use crate::store::{Existing, Json, Misfits, SchemaError, Store, Unfit};

/// `table.schema {table}`: `{schema, version}`; `schema` is null when there is none.
pub(super) async fn schema(store: Store, context: Context, call: Call) -> Result<Bytes, Status> {
    let args = Args::parse(&call, &["table"])?;
    let table = tables::table(&context, &args, TableRight::Read)?;
    let found = store.schema(table.name()).await?;
    let schema = found.schema.unwrap_or_else(|| Json::new("null"));
    Out::with_room(schema.as_bytes().len())
        .raw(r#"{"schema":"#)
        .raw(schema.as_bytes())
        .raw(r#","version":"#)
        .integer(found.version)
        .raw("}")
        .finish()
}

/// `table.setSchema {table, schema, existing?}`: `{version}`; with `schema` null the table has none any more.
pub(super) async fn set_schema(store: Store, context: Context, call: Call) -> Result<Bytes, Status> {
    let args = Args::parse(&call, &["table", "schema", "existing"])?;
    let table = tables::table(&context, &args, TableRight::Manage)?;
    let existing = match args.optional_string("existing")?.as_deref() {
        None | Some("refuse") => Existing::Refuse,
        Some("keep") => Existing::Keep,
        Some(_) => return Err(Status::invalid("the field `existing` has to be `refuse` or `keep`")),
    };
    let schema = Some(args.json("schema")?).filter(|schema| &schema[..] != b"null").map(Json::new);
    let longest = context.deadline.unwrap_or(STREAM_LONGEST);
    let version = store.set_schema(table.name(), schema, existing, longest).await?;
    Out::with_room(0).raw(r#"{"version":"#).integer(version).raw("}").finish()
}

/// `"errors":[{path, keyword, schema_path, message}, ..],"more":..`.
fn errors(mut out: Out, misfits: &Misfits) -> Out {
    out = out.raw(r#""errors":["#);
    for (place, misfit) in misfits.list.iter().enumerate() {
        out = out
            .raw(if place == 0 { r#"{"path":"# } else { r#",{"path":"# })
            .string(&misfit.path)
            .raw(r#","keyword":"#)
            .string(&misfit.keyword)
            .raw(r#","schema_path":"#)
            .string(&misfit.schema_path)
            .raw(r#","message":"#)
            .string(&misfit.message)
            .raw("}");
    }
    out.raw(r#"],"more":"#).raw(misfits.more.to_string())
}

/// A document that does not fit.
pub(super) fn misfit(misfits: &Misfits) -> Status {
    let details = errors(Out::with_room(0).raw(r#"{"code":"SCHEMA_MISFIT","#), misfits).raw("}");
    Status::invalid(misfits.to_string()).with_details(details.into_bytes())
}

/// Documents that are there and do not fit.
fn unfit(unfit: &Unfit) -> Status {
    let mut out = Out::with_room(0).raw(r#"{"code":"SCHEMA_UNFIT","count":"#).raw(unfit.count.to_string());
    out = out.raw(r#","ids":["#);
    for (place, id) in unfit.ids.iter().enumerate() {
        out = if place == 0 { out } else { out.raw(",") }.string(id.as_str());
    }
    let details = errors(out.raw("],"), &unfit.first).raw("}");
    let message = format!(
        "{} of the documents of the table do not fit the schema, which was not set; of the first: {}",
        unfit.count, unfit.first
    );
    Status::invalid(message).with_details(details.into_bytes())
}

impl From<SchemaError> for Status {
    fn from(error: SchemaError) -> Self {
        match error {
            SchemaError::Store(error) => error.into(),
            SchemaError::Unfit(documents) => unfit(&documents),
        }
    }
}
