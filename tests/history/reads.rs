//! Ways to ask for the documents of a table, and what they answer.

use raystream::client::{Client, Error, Json, StreamOptions};
use serde_json::{Value, json};

use crate::server::call;

/// The arguments, with those of `more`.
pub(crate) fn with(mut args: Value, more: &Value) -> Value {
    let object = args.as_object_mut().unwrap();
    object.extend(more.as_object().unwrap().clone());
    args
}

/// All pages of a query, and the cursor of the last one.
pub(crate) async fn pages(client: &Client, args: &Value) -> Result<(Vec<Value>, Value), Error> {
    let (mut items, mut after) = (Vec::new(), Value::Null);
    loop {
        let page = call(client, "table.query", with(args.clone(), &json!({"after": after}))).await?;
        items.extend(page["items"].as_array().unwrap().clone());
        after = page["next"].clone();
        if after.is_null() {
            return Ok((items, page["cursor"].clone()));
        }
    }
}

/// All items of a call, and its answer.
pub(crate) async fn stream(
    client: &Client,
    method: &str,
    args: &Value,
) -> Result<(Vec<Value>, Value), Error> {
    let mut open = client.open(method, Json::encode(args)?, StreamOptions::receiving()).await?;
    let mut items = Vec::new();
    while let Some(item) = open.next().await? {
        items.push(item.decode()?);
    }
    Ok((items, open.result().await?.decode()?))
}
