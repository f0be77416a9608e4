//! The process that measures: one client, one mode.

use std::rc::Rc;
use tokio::task::LocalSet;

use crate::{
    Failure, fanout, grpc, idle,
    meter::Meter,
    pipeline, postgres, setup,
    spec::{Measured, Spec},
    websocket,
};

/// Does what the specification of the measurement says.
pub(crate) async fn measure(spec: &Spec) -> Result<Measured, Failure> {
    crate::process::allow_descriptors();
    let local = LocalSet::new();
    local
        .run_until(async {
            match spec.mode.as_str() {
                "idle" => idle::measure(spec).await,
                "fan" => fanout::measure(spec).await,
                _ => {
                    let meter = Meter::new();
                    start(spec, &meter).await?;
                    meter.run(spec.duration, spec.server).await
                }
            }
        })
        .await
}

/// Starts the tasks that call for ever.
async fn start(spec: &Spec, meter: &Meter) -> Result<(), Failure> {
    let both = || (spec.clone(), meter.clone());
    for connection in 0..spec.connections {
        let (spec, meter) = both();
        match (spec.mode.as_str(), spec.client.as_str()) {
            ("setup", _) => run(setup::drive(spec, meter)),
            (_, "raw-tcp" | "raw-tls" | "redis") => {
                let stream = pipeline::connect(&spec).await?;
                run(pipeline::drive(stream, spec, meter));
            }
            (_, "websocket") => run(websocket::drive(spec, meter)),
            (_, "grpc-stream") => {
                let channel = grpc::connect(&spec).await?;
                run(grpc::drive_stream(channel, spec, meter));
            }
            (_, "grpc") => {
                let channel = grpc::connect(&spec).await?;
                for _ in 0..spec.in_flight {
                    let (spec, meter) = both();
                    run(grpc::drive(channel.clone(), spec, meter));
                }
            }
            (_, "postgres-read" | "postgres-write") => {
                let client = Rc::new(postgres::connect(&spec.folder).await?);
                for place in 0..spec.in_flight {
                    let (spec, meter) = both();
                    // Places apart from each other: two writers of one row wait for each other.
                    let first = connection * 61 + place * 4;
                    run(postgres::drive(Rc::clone(&client), first, spec, meter));
                }
            }
            (mode, client) => return Err(format!("there is no {mode} of {client}").into()),
        }
    }
    Ok(())
}

/// Work that does not end: when it does, the measurement is worth nothing.
fn run(work: impl Future<Output = Result<(), Failure>> + 'static) {
    tokio::task::spawn_local(async move {
        if let Err(error) = work.await {
            eprintln!("a client ended: {error}");
            std::process::exit(1);
        }
    });
}
