//! Writes orders into a table, one after the other, and prints the id of each once it is committed.
//!
//! ```text
//! orders URL FIRST COUNT [PAUSE_MS]
//! ```
//!
//! It shows how a write is repeated safely. When the connection is lost with a write on its way, nobody knows whether the
//! write was done. `if_version: 0` says "only if it is not there yet", so the write can be sent again: CONFLICT then means
//! that the first one was done.

use raystream::client::{Client, Error, Options};
use raystream::wire::ErrorCode;
use serde_json::{Value, json};
use std::io::Write as _;
use std::process::ExitCode;
use std::time::Duration;

/// Between two tries, when the server said that it cannot take the write now.
const PAUSE_AFTER_FAILURE: Duration = Duration::from_millis(100);
/// Tries of one write: together they outlast a restart of the server.
const TRIES: u32 = 300;

#[tokio::main(flavor = "current_thread")]
async fn main() -> ExitCode {
    let arguments: Vec<String> = std::env::args().skip(1).collect();
    match run(&arguments).await {
        Ok(()) => ExitCode::SUCCESS,
        Err(message) => {
            let _ = writeln!(std::io::stderr(), "orders: {message}");
            ExitCode::FAILURE
        }
    }
}

async fn run(arguments: &[String]) -> Result<(), String> {
    let (url, numbers) = arguments.split_first().ok_or("usage: orders URL FIRST COUNT [PAUSE_MS]")?;
    let numbers: Vec<u64> = numbers
        .iter()
        .map(|text| text.parse().map_err(|_| format!("{text} is no number")))
        .collect::<Result<_, _>>()?;
    let (first, count, pause) = match numbers[..] {
        [first, count] => (first, count, 0),
        [first, count, pause] => (first, count, pause),
        _ => return Err("usage: orders URL FIRST COUNT [PAUSE_MS]".to_owned()),
    };
    let client = Client::connect(url, Options::default()).await.map_err(|error| error.to_string())?;
    for number in first..first + count {
        let id = format!("order-{number:05}");
        write(&client, &id, &order(number)).await?;
        writeln!(std::io::stdout(), "{id}").map_err(|error| error.to_string())?;
        tokio::time::sleep(Duration::from_millis(pause)).await;
    }
    client.close().await;
    Ok(())
}

/// Writes one order exactly once.
async fn write(client: &Client, id: &str, order: &Value) -> Result<(), String> {
    let args = json!({ "table": "orders", "id": id, "data": order, "if_version": 0 });
    let mut may_be_there = false;
    for _ in 0..TRIES {
        match client.call("table.set", &args).await {
            Ok(_) => return Ok(()),
            // It may have happened: sent again, it finds out.
            Err(Error::UnknownOutcome { .. } | Error::Timeout(_)) => may_be_there = true,
            Err(Error::Call(error)) if error.code == ErrorCode::CONFLICT && may_be_there => return Ok(()),
            Err(Error::Call(error)) if error.code == ErrorCode::UNKNOWN_OUTCOME => may_be_there = true,
            Err(error) if error.retryable() && error.code() != Some(ErrorCode::CONFLICT) => {}
            Err(error) => return Err(format!("{id} was not written: {error}")),
        }
        tokio::time::sleep(PAUSE_AFTER_FAILURE).await;
    }
    Err(format!("{id} was not written: the server does not come back"))
}

/// An order like many others; the same number gives the same order.
fn order(number: u64) -> Value {
    const CITIES: [&str; 6] = ["Aarhus", "Bergen", "Graz", "Leipzig", "Porto", "Turin"];
    const ARTICLES: [(&str, u64); 5] =
        [("teapot", 3_400), ("kettle", 5_990), ("cup", 850), ("tray", 2_200), ("spoon", 320)];
    // A multiplicative hash spreads neighbours; nothing here has to be secret.
    let hash = |salt: u64| number.wrapping_add(salt).wrapping_mul(0x9E37_79B9_7F4A_7C15) >> 33;
    let pick = |salt: u64, of: usize| usize::try_from(hash(salt)).map_or(0, |hash| hash % of);
    let lines: Vec<_> = (0..1 + hash(1) % 3)
        .map(|line| {
            let (article, price) = ARTICLES[pick(2 + line, ARTICLES.len())];
            let quantity = 1 + hash(9 + line) % 4;
            (article, quantity, quantity * price)
        })
        .collect();
    let total: u64 = lines.iter().map(|(_, _, cents)| cents).sum();
    let lines: Vec<_> = lines
        .iter()
        .map(|(article, quantity, _)| json!({ "article": article, "quantity": quantity }))
        .collect();
    json!({
        "customer": format!("customer-{:03}", hash(20) % 80),
        "city": CITIES[pick(21, CITIES.len())],
        "status": if hash(22) % 3 == 0 { "paid" } else { "open" },
        "total_cents": total,
        "lines": lines,
    })
}
