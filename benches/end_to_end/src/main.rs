//! raystream beside what it is compared with: one table, from one run.
//!
//! ```text
//! cargo bench --bench end_to_end                     the whole table, about twenty minutes
//! cargo bench --bench end_to_end -- --quick          the same rows, short and with fewer rounds
//! cargo bench --bench end_to_end -- one-64 bulk      rows whose name holds one of the words
//! cargo bench --bench end_to_end -- --markdown       the table as it stands in docs/performance.md
//! ```
//!
//! Server and client run on one core: latency is the path through both, calls per second is what one core does for both
//! ends, and no figure depends on how fast a sleeping core wakes. Within a round every peer of a row is measured once, one
//! after the other; the table has medians over the rounds, and the ratios are medians of the ratios within a round, so
//! that a neighbour who slows the machine down slows both sides of a ratio.
//!
//! raystream is the built binary with its private Postgres, measured by `raystream bench`: the path of every client. The
//! peers are servers in processes of their own (this program again, redis-server, nats-server), measured by this program
//! in another process of its own, so that the processor time of both ends can be told apart.

mod calls;
mod fanout;
mod grpc;
mod idle;
mod meter;
mod peers;
mod pipeline;
mod postgres;
mod process;
mod raystream;
mod rows;
mod setup;
mod spec;
mod table;
mod tls;
mod websocket;

use std::error::Error;

/// Whatever went wrong: a benchmark ends with it.
pub(crate) type Failure = Box<dyn Error + Send + Sync>;

fn main() -> Result<(), Failure> {
    let arguments: Vec<String> = std::env::args().skip(1).collect();
    match arguments.first().map(String::as_str) {
        Some("peer") => process::runtime()?.block_on(peers::serve(&arguments[1..])),
        Some("measure") => {
            let spec = spec::Spec::from_json(&arguments[1])?;
            let measured = process::runtime()?.block_on(calls::measure(&spec))?;
            println!("{}", measured.to_json());
            Ok(())
        }
        _ => table::run(&arguments),
    }
}
