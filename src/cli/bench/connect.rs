//! `connect`: a new connection each time: TCP, the handshake, one call that shows that it works, and an orderly end.

use std::sync::Arc;

use super::arguments::{BenchArguments, length};
use super::cores::Cores;
use super::fleet::Fleet;
use super::load::{self, Plan, Work};
use super::measured::Fault;
use super::progress::Progress;
use super::report;
use super::server_side::ServerSide;
use crate::cli::{Failure, Output};
use crate::client::{CallOptions, Client, Error, Json, Options, ServerUrl};

struct Handshakes {
    url: ServerUrl,
    options: Options,
}

impl Work for Handshakes {
    /// One connection.
    async fn once(&self, _: usize, _: u64) -> Result<(), Fault> {
        let client = Client::connect_url(self.url.clone(), self.options.clone()).await?;
        let answer = client.call_with("sys.echo", Json::new("{}"), CallOptions::default()).await;
        client.close().await;
        answer?;
        Ok(())
    }

    /// The next call has a connection of its own.
    fn lost(&self, _: &Fault) -> Option<Error> {
        None
    }
}

pub(super) async fn run(
    arguments: &BenchArguments,
    cores: Cores,
    output: &mut Output,
) -> Result<(), Failure> {
    let fleet = Fleet::prepare(arguments, cores.clone(), output).await?;
    let suite = fleet.suite();
    let (url, options) = fleet.target();
    let server = ServerSide::new(fleet.extra().await?, output).await;
    // As many at a time in all: each is a connection, on the core whose turn it is.
    let plan = Plan { connections: length(arguments.in_flight()), in_flight: 1, ..Plan::of(arguments) };
    let progress = Progress::of_time(output, "connect", plan.warm_up + plan.duration);
    let work = Arc::new(Handshakes { url, options });
    let mut measured = load::run(plan, Arc::clone(&work), &cores, &server, progress).await;
    if measured.tally.has_errors() {
        // Some may be refused in a run; a server that is gone makes none of them any more.
        measured.lost = work.once(0, 0).await.err().and_then(|fault| fault.lost().cloned());
    }
    for client in fleet.clients {
        client.close().await;
    }
    server.client().close().await;
    report::of_calls(arguments, &suite, &measured, output)
}
