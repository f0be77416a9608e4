//! What a run prints.

use serde_json::{Map, Value, json};

use super::arguments::{BenchArguments, Meaning, Scenario};
use super::histogram;
use super::measured::{Measured, NO_CONNECTION, PERCENTILES, Tally, float};
use super::server_side::Used;
use crate::cli::{Failure, Output};
use crate::client::Transport;

/// Calls that processor time is told for.
const PER: f64 = 100_000.0;

/// What was asked for: the start of every object of `--json`. What means nothing for the scenario is null.
pub(super) fn head(arguments: &BenchArguments, suite: &str) -> Value {
    json!({
        "scenario": arguments.scenario.name(),
        "server": arguments.connect.url.authority(),
        "transport": match arguments.connect.url.transport() {
            Transport::Tcp => "tcp",
            Transport::WebSocket => "websocket",
        },
        "suite": suite,
        "connections": arguments.connections(),
        "in_flight": arguments.has(Meaning::InFlight).then(|| arguments.in_flight()),
        "rate": arguments.rate,
        "payload": arguments.payload().ok().filter(|_| arguments.has(Meaning::Payload)),
    })
}

/// The result of a scenario that is calls.
///
/// # Errors
/// No connection was left before the end; nothing was done; or nobody reads what is printed.
pub(super) fn of_calls(
    arguments: &BenchArguments,
    suite: &str,
    measured: &Measured,
    output: &mut Output,
) -> Result<(), Failure> {
    let tally = &measured.tally;
    let unit = if arguments.scenario == Scenario::Connect { "connections" } else { "calls" };
    let rate = measured.rate();
    let megabytes = (arguments.scenario == Scenario::Bulk).then(|| {
        rate * float(arguments.payload().map_or(0, |bytes| u64::try_from(bytes).unwrap_or(0))) / 1e6
    });
    let mut value = head(arguments, suite);
    value["elapsed_s"] = json!(measured.elapsed.as_secs_f64());
    value[unit] = json!(tally.done());
    value[format!("{unit}_per_s")] = json!(rate);
    if let Some(megabytes) = megabytes {
        value["mb_per_s"] = json!(megabytes);
    }
    value["latency_us"] = latency_json(tally);
    value["errors"] = json!(tally.errors());
    value["unsent"] = json!(measured.unsent);
    value["cpu_s_per_100k"] = cpu_json(&measured.used, tally.done());
    value["histogram"] = histogram_json(tally);
    let in_all = megabytes.map(|megabytes| format!("   {megabytes:.0} MB/s each way")).unwrap_or_default();
    let (connections, in_flight) = (arguments.connections(), arguments.in_flight());
    let at_a_time = match arguments.scenario {
        Scenario::Connect => format!(", {in_flight} at a time"),
        _ => format!(" over {connections} connections, {in_flight} in flight on each"),
    };
    let text = format!(
        "{}{at_a_time}{} ({suite})\n{} {unit}   {rate:.0} {unit}/s{in_all}\n{}\n{}{}{}{}",
        arguments.scenario.name(),
        arguments.rate.map(|rate| format!(", {rate} {unit}/s asked for")).unwrap_or_default(),
        tally.done(),
        latency_text(tally),
        cpu_text(&measured.used, tally.done(), unit),
        errors_text(tally),
        unsent_text(measured.unsent),
        histogram::draw(tally),
    );
    output.result(text, &value)?;
    if let Some(error) = &measured.lost {
        return Err(Failure::connection(format!("no connection was left: {error}")));
    }
    expect_any(tally)
}

/// A run in which nothing was done is a failure of the command.
///
/// # Errors
/// Nothing was done.
pub(super) fn expect_any(tally: &Tally) -> Result<(), Failure> {
    if tally.done() > 0 {
        return Ok(());
    }
    let codes: Vec<&str> = tally.errors().keys().map(String::as_str).collect();
    let why = if codes.is_empty() { "no answer in time".to_owned() } else { codes.join(", ") };
    let why = format!("nothing was done: {why}");
    Err(if codes == [NO_CONNECTION] { Failure::connection(why) } else { Failure::failed(why) })
}

pub(super) fn latency_json(tally: &Tally) -> Value {
    let mut values = Map::new();
    values.insert("min".to_owned(), json!(tally.min_micros()));
    for (name, percentile) in PERCENTILES {
        values.insert(name.to_owned(), json!(tally.micros_at(percentile)));
    }
    values.insert("max".to_owned(), json!(tally.max_micros()));
    Value::Object(values)
}

pub(super) fn latency_text(tally: &Tally) -> String {
    let shown = PERCENTILES.map(|(name, percentile)| {
        format!("{} {}", name.replace('_', "."), histogram::time(tally.micros_at(percentile)))
    });
    format!("latency   {}   max {}", shown.join("   "), histogram::time(tally.max_micros()))
}

/// Processor seconds for 100,000 pieces of work: of this process, and of the server's where it tells.
pub(super) fn cpu_json(used: &Used, done: u64) -> Value {
    json!({
        "client": per_100k(used.own.as_secs_f64(), done),
        "server": used.server.and_then(|server| per_100k(server.as_secs_f64(), done)),
    })
}

pub(super) fn cpu_text(used: &Used, done: u64, unit: &str) -> String {
    let shown = |seconds: Option<f64>| match seconds.and_then(|seconds| per_100k(seconds, done)) {
        Some(seconds) => format!("{seconds:.3} s"),
        None => "not known".to_owned(),
    };
    format!(
        "processor time per 100,000 {unit}   client {}   server {}",
        shown(Some(used.own.as_secs_f64())),
        shown(used.server.map(|server| server.as_secs_f64())),
    )
}

fn per_100k(seconds: f64, done: u64) -> Option<f64> {
    (done > 0).then(|| seconds * PER / float(done))
}

pub(super) fn errors_text(tally: &Tally) -> String {
    if !tally.has_errors() {
        return "\nno errors".to_owned();
    }
    let each: Vec<String> = tally.errors().iter().map(|(code, count)| format!("{code} {count}")).collect();
    format!("\nerrors   {}", each.join("   "))
}

fn unsent_text(unsent: u64) -> String {
    match unsent {
        0 => String::new(),
        _ => format!("\nunsent   {unsent}, which were due before the end"),
    }
}

pub(super) fn histogram_json(tally: &Tally) -> Value {
    let row = |(edge, count): &(f64, u64)| json!({ "up_to_us": edge, "count": count });
    histogram::rows(tally).iter().map(row).collect()
}
