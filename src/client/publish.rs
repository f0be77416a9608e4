//! Events for topics.

use super::{CallOptions, Client, Error, Json};
use serde::{Deserialize, Serialize};
use serde_json::value::RawValue;

/// The method.
const PUBLISH: &str = "topic.publish";

/// An event that the server has made durable.
#[derive(Clone, Debug, PartialEq, Eq, Deserialize)]
#[non_exhaustive]
pub struct Published {
    /// Its id, which its subscribers get too.
    pub id: String,
    /// A position right behind it: who subscribes with this cursor, to whatever it is, gets everything that is committed
    /// after the event, and not the event itself. So an answer to the event is not missed. `None` when the database was
    /// too busy to name the position.
    pub cursor: Option<String>,
}

/// The arguments.
#[derive(Serialize)]
struct Arguments<'a> {
    topic: &'a str,
    data: &'a RawValue,
}

impl Client {
    /// Publishes an event to a topic. Returns when it is durable. Each subscriber of the topic gets it once, behind all
    /// events whose publishing had returned before this one began.
    ///
    /// It is sent once, because a repetition is another event; [`publish_with`](Self::publish_with) and a key make it
    /// repeatable.
    ///
    /// # Errors
    /// As [`call`](Self::call).
    pub async fn publish<D: Serialize + ?Sized>(&self, topic: &str, data: &D) -> Result<Published, Error> {
        self.publish_with(topic, Json::encode(data)?, CallOptions::default()).await
    }

    /// Publishes JSON text as it is. With an idempotency key among the options it is sent again when that may help, and
    /// is one event nevertheless.
    ///
    /// # Errors
    /// As [`call`](Self::call); [`Error::Arguments`] when `data` is not JSON.
    pub async fn publish_with(
        &self,
        topic: &str,
        data: Json,
        options: CallOptions,
    ) -> Result<Published, Error> {
        let args = publish_arguments(topic, &data)?;
        self.call_with(PUBLISH, args, options).await?.decode()
    }
}

/// `{topic, data}`.
fn publish_arguments(topic: &str, data: &Json) -> Result<Json, Error> {
    let data = serde_json::from_slice(data.as_bytes()).map_err(|error| Error::Arguments(error.into()))?;
    Json::encode(&Arguments { topic, data })
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn the_event_goes_out_as_it_is() {
        let args = publish_arguments("a", &Json::new(r#"{"n": 1.0}"#)).expect("it is JSON");
        assert_eq!(args.as_bytes(), br#"{"topic":"a","data":{"n": 1.0}}"#);
        assert!(matches!(publish_arguments("a", &Json::new("1,")), Err(Error::Arguments(_))));
    }
}
