//! `raystream ping`

use std::time::{Duration, Instant};

use clap::Args;
use serde_json::json;

use super::connect::block_on;
use super::{ConnectArguments, Failure, Output};
use crate::client::{CallOptions, Client, ConnectionInfo, Error, Json};

/// Measure the handshake and round trips: minimum, median, 99th percentile
#[derive(Debug, Args)]
pub(super) struct PingArguments {
    #[command(flatten)]
    connect: ConnectArguments,
    /// How many round trips
    #[arg(short, long, value_name = "N", default_value_t = 100, value_parser = clap::value_parser!(u32).range(1..=1_000_000))]
    count: u32,
    /// Call this method with {} instead of sending HEARTBEATs, for instance sys.echo
    #[arg(long, value_name = "METHOD")]
    method: Option<String>,
}

pub(super) fn run(arguments: &PingArguments, output: &mut Output) -> Result<(), Failure> {
    let measured = block_on(async {
        // A connection that comes back by itself would hide what is measured here.
        let client = arguments.connect.connect(output, |options| options.reconnect = None).await?;
        let measured = arguments.measure(&client).await;
        client.close().await;
        measured
    })?;
    output.result(measured.text(arguments), &measured.json(arguments))
}

impl PingArguments {
    async fn measure(&self, client: &Client) -> Result<Measured, Failure> {
        let connection = client.connection().ok_or_else(|| Failure::from(Error::Closed))?;
        let count = usize::try_from(self.count).unwrap_or(usize::MAX);
        let mut round_trips = Vec::with_capacity(count);
        for _ in 0..count {
            round_trips.push(match &self.method {
                None => client.ping().await?,
                Some(method) => {
                    let started = Instant::now();
                    client.call_with(method, Json::new("{}"), CallOptions::default()).await?;
                    started.elapsed()
                }
            });
        }
        round_trips.sort_unstable();
        Ok(Measured { connection, round_trips })
    }
}

/// What was measured.
struct Measured {
    connection: ConnectionInfo,
    /// Sorted; at least one.
    round_trips: Vec<Duration>,
}

impl Measured {
    fn percentile(&self, percent: usize) -> Duration {
        percentile(&self.round_trips, percent)
    }

    fn text(&self, arguments: &PingArguments) -> String {
        let what = arguments.method.as_deref().unwrap_or("HEARTBEAT");
        format!(
            "connected   {} ms ({})\nhandshake   {} ms ({})\n{} x {what}   min {} ms   median {} ms   p99 {} ms   max {} ms",
            millis(self.connection.transport_time),
            arguments.connect.url.authority(),
            millis(self.connection.handshake_time),
            self.connection.suite,
            self.round_trips.len(),
            millis(self.percentile(0)),
            millis(self.percentile(50)),
            millis(self.percentile(99)),
            millis(self.percentile(100)),
        )
    }

    fn json(&self, arguments: &PingArguments) -> serde_json::Value {
        json!({
            "server": arguments.connect.url.authority(),
            "suite": self.connection.suite.to_string(),
            "connect_us": micros(self.connection.transport_time),
            "handshake_us": micros(self.connection.handshake_time),
            "method": arguments.method,
            "count": self.round_trips.len(),
            "min_us": micros(self.percentile(0)),
            "median_us": micros(self.percentile(50)),
            "p99_us": micros(self.percentile(99)),
            "max_us": micros(self.percentile(100)),
        })
    }
}

/// The smallest of the sorted times that so many per cent of them do not exceed (nearest rank).
fn percentile(sorted: &[Duration], percent: usize) -> Duration {
    let rank = (sorted.len() * percent).div_ceil(100).max(1);
    sorted.get(rank - 1).copied().unwrap_or_default()
}

fn millis(time: Duration) -> String {
    format!("{:.3}", time.as_secs_f64() * 1e3)
}

/// Microseconds with a tenth: the clock gives no more.
fn micros(time: Duration) -> f64 {
    (time.as_secs_f64() * 1e7).round() / 10.0
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn percentiles_are_by_nearest_rank() {
        let times = |count: u64| (1..=count).map(Duration::from_micros).collect::<Vec<_>>();
        let of = |count, percent| percentile(&times(count), percent).as_micros();
        assert_eq!([of(1, 0), of(1, 50), of(1, 99), of(1, 100)], [1; 4]);
        assert_eq!([of(100, 0), of(100, 50), of(100, 99), of(100, 100)], [1, 50, 99, 100]);
        assert_eq!([of(10_000, 50), of(10_000, 99)], [5_000, 9_900]);
    }
}
