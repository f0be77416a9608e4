//! `idle`: what an open connection costs the server when nothing happens on it.

use std::time::Duration;

use serde_json::json;

use super::arguments::BenchArguments;
use super::cores::Cores;
use super::fleet::Fleet;
use super::measured::float;
use super::report;
use super::server_side::ServerSide;
use crate::cli::{Failure, Output};
use crate::client::{CallOptions, Json};

/// Between the last call and the look at the memory: what an idle connection gives back is given back by then.
const SETTLE: Duration = Duration::from_millis(500);

pub(super) async fn run(
    arguments: &BenchArguments,
    cores: Cores,
    output: &mut Output,
) -> Result<(), Failure> {
    let first = Fleet::prepare(arguments, cores.clone(), output).await?;
    let server = ServerSide::new(first.extra().await?, output).await;
    // A connection before the first look: what the first one makes for all is not its own.
    let before = server.sample().await;
    let fleet = Fleet::connect(arguments, cores, output).await?;
    for client in &fleet.clients {
        client.call_with("sys.echo", Json::new("{}"), CallOptions::default()).await?;
    }
    crate::time::sleep(SETTLE).await;
    let after = server.sample().await;
    let held = before.server_rss.zip(after.server_rss).map(|(before, after)| after.saturating_sub(before));
    let each = held.and_then(|held| each_of(held, arguments.connections()));
    let suite = fleet.suite();
    let memory = match (each, after.server_rss) {
        (_, None) => "not told".to_owned(),
        (None, Some(all)) => format!("too few connections to measure   {:.1} MiB in all", mebibytes(all)),
        (Some(each), Some(all)) => {
            format!("{:.1} KiB per connection   {:.1} MiB in all", each / 1024.0, mebibytes(all))
        }
    };
    let text = format!("{} idle connections ({suite})\nserver memory   {memory}", arguments.connections());
    let mut value = report::head(arguments, &suite);
    value["server_rss_bytes"] = json!(after.server_rss);
    value["server_bytes_per_connection"] = json!(each);
    for client in first.clients.iter().chain(&fleet.clients) {
        client.close().await;
    }
    server.client().close().await;
    output.result(text, &value)
}

/// What each of the connections holds; `None` when the server had room for all of them in the memory that it had.
fn each_of(held: u64, connections: u32) -> Option<f64> {
    (held > 0).then(|| float(held) / f64::from(connections))
}

fn mebibytes(bytes: u64) -> f64 {
    float(bytes) / 1024.0 / 1024.0
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn memory_that_did_not_grow_measures_no_connection() {
        assert_eq!((each_of(0, 20), each_of(4096, 2)), (None, Some(2048.0)));
    }
}
