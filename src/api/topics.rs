//! `topic.publish`: events, from arguments to the store and back.

use std::borrow::Cow;

use bytes::Bytes;
use serde::Deserialize;
use serde_json::value::RawValue;

use super::args::Args;
use super::caller::Context;
use super::reply::Json as Out;
use super::tables::{in_field, writer};
use crate::auth::{AuthorisedTopic, TopicRight};
use crate::rpc::{Call, Encoding, Status};
use crate::store::{Json, Store, TopicName};
use crate::wire::envelope::Publish;

/// The method that the frame PUBLISH is a call of.
pub const PUBLISH: &str = "topic.publish";

impl AsRef<str> for TopicName {
    fn as_ref(&self) -> &str {
        self.as_str()
    }
}

/// The topic of that name, once the caller may publish to it.
fn topic(context: &Context, name: &str) -> Result<AuthorisedTopic<TopicName>, Status> {
    let name = TopicName::parse(name).map_err(|error| in_field("topic", error))?;
    context.caller.authorise_topic(name, TopicRight::Publish)
}

/// Judges the caller by the arguments as they stand: see `Method::authorise`.
pub(super) fn authorise(context: &Context, args: &str) -> Result<(), Status> {
    /// The one field that rights depend on.
    #[derive(Deserialize)]
    struct Topic<'a> {
        #[serde(borrow)]
        topic: Cow<'a, str>,
    }
    let Topic { topic: name } = serde_json::from_str(args)
        .map_err(|_| Status::invalid("the field `topic` has to be there, once, and a string"))?;
    topic(context, &name).map(drop)
}

/// `topic.publish {topic, data}`: `{id, cursor}`; `cursor` is null when too many transactions were running to name them.
pub(super) async fn publish(store: Store, context: Context, call: Call) -> Result<Bytes, Status> {
    let args = Args::parse(&call, &["topic", "data", "sid"])?;
    let topic = topic(&context, &args.string("topic")?)?;
    let data = Json::new(args.json("data")?);
    let published = store.publish(writer(&context), topic.name(), data).await?;
    let out = Out::with_room(published.cursor.as_ref().map_or(0, |cursor| cursor.len()))
        .raw(r#"{"id":"#)
        .string(published.id.as_str())
        .raw(r#","cursor":"#);
    match &published.cursor {
        Some(cursor) => out.string(cursor),
        None => out.raw("null"),
    }
    .raw("}")
    .finish()
}

/// The arguments of [`PUBLISH`] that a PUBLISH frame stands for (specification, TOP-1). The two are the same request under
/// an idempotency key.
///
/// # Errors
/// INVALID_REQUEST when the event is not one JSON value.
pub fn publish_args(publish: &Publish) -> Result<Bytes, Status> {
    if publish.encoding != Encoding::Json {
        return Err(Status::invalid("an event is JSON (encoding 0)"));
    }
    // One value and nothing behind it: what else stood there would become a part of the arguments.
    let data: &RawValue =
        serde_json::from_slice(&publish.data).map_err(|_| Status::invalid("the event is not JSON"))?;
    let args = Out::with_room(publish.topic.len() + data.get().len())
        .raw(r#"{"topic":"#)
        .string(&publish.topic)
        .raw(r#","data":"#)
        .raw(data.get())
        .raw("}");
    Ok(args.into_bytes())
}

#[cfg(test)]
mod tests {
    use super::*;

    fn args(topic: &str, data: &'static str) -> Result<String, String> {
        let publish = Publish { topic: topic.into(), data: data.into(), ..Publish::default() };
        let args = publish_args(&publish).map_err(|status| status.message.into_owned())?;
        Ok(String::from_utf8(args.into()).expect("it is text"))
    }

    #[test]
    fn a_frame_stands_for_these_arguments() {
        assert_eq!(args("a.b", r#"{"n": 1.0}"#).as_deref(), Ok(r#"{"topic":"a.b","data":{"n": 1.0}}"#));
        assert_eq!(args("a\"b", " null ").as_deref(), Ok(r#"{"topic":"a\"b","data":null}"#));
    }

    #[test]
    fn what_is_not_one_value_does_not_get_into_the_arguments() {
        for data in ["", "1,\"topic\":\"b\"", "1}", "{} {}", "{", "\"a"] {
            assert_eq!(args("a", data), Err("the event is not JSON".to_owned()), "{data}");
        }
        let raw = Publish { encoding: Encoding::Raw, data: "1".into(), ..Publish::default() };
        assert!(publish_args(&raw).is_err());
    }
}
