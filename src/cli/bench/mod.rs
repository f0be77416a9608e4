//! `raystream bench`: how fast a server is, over the path that every client takes.

mod arguments;
mod calls;
mod connect;
mod cores;
mod fanout;
mod fleet;
mod histogram;
mod idle;
mod load;
mod measured;
mod progress;
mod report;
mod server_side;
mod table;

use std::sync::Arc;

pub(super) use arguments::BenchArguments;
use arguments::{Scenario, length};
use calls::Calls;
use cores::Cores;
use fleet::Fleet;
use load::Plan;
use progress::Progress;
use server_side::ServerSide;

use super::{Failure, Output};

pub(super) fn run(arguments: &BenchArguments, output: &mut Output) -> Result<(), Failure> {
    arguments.check()?;
    fleet::allow_descriptors(output);
    let (runtime, cores) = crate::time::start_thread()
        .and_then(|()| Cores::start())
        .map_err(|error| Failure::failed(format!("cannot start threads: {error}")))?;
    runtime.block_on(async {
        match arguments.scenario {
            Scenario::Connect => connect::run(arguments, cores, output).await,
            Scenario::Idle => idle::run(arguments, cores, output).await,
            Scenario::Sub => fanout::run(arguments, cores, output).await,
            _ => run_calls(arguments, cores, output).await,
        }
    })
}

impl Plan {
    fn of(arguments: &BenchArguments) -> Self {
        Self {
            connections: length(arguments.connections()),
            in_flight: length(arguments.in_flight()),
            rate: arguments.rate,
            warm_up: arguments.warm_up(),
            duration: arguments.duration.get(),
        }
    }
}

/// echo, get, set, query, bulk.
async fn run_calls(arguments: &BenchArguments, cores: Cores, output: &mut Output) -> Result<(), Failure> {
    let fleet = Fleet::connect(arguments, cores.clone(), output).await?;
    let server = ServerSide::new(fleet.extra().await?, output).await;
    let payload = arguments.payload()?;
    if matches!(arguments.scenario, Scenario::Get | Scenario::Set | Scenario::Query) {
        table::fill(server.client(), payload, output).await?;
    }
    let suite = fleet.suite();
    let work = Arc::new(Calls::new(arguments.scenario, payload, fleet.clients));
    let plan = Plan::of(arguments);
    let progress = Progress::of_time(output, arguments.scenario.name(), plan.warm_up + plan.duration);
    let measured = load::run(plan, Arc::clone(&work), &cores, &server, progress).await;
    work.close().await;
    server.client().close().await;
    report::of_calls(arguments, &suite, &measured, output)
}
