//! Memory of the server for connections that were used once.

use std::time::Duration;

use crate::{
    Failure, grpc,
    pipeline::{self, Exchange},
    process::resident_kib,
    spec::{Measured, Spec},
};

/// Until what is given back is given back.
const SETTLE: Duration = Duration::from_millis(500);

pub(crate) async fn measure(spec: &Spec) -> Result<Measured, Failure> {
    let server = spec.server.ok_or("idle needs the server's process")?;
    let exchange = Exchange::of(spec);
    let (mut channels, mut streams) = (Vec::new(), Vec::new());
    let mut before = 0.0;
    for n in 0..=spec.connections {
        if spec.client == "grpc" {
            let channel = grpc::connect(spec).await?;
            let mut client = tonic::client::Grpc::new(channel.clone());
            grpc::call(&mut client, exchange.request.clone().into()).await?;
            channels.push(channel);
        } else {
            let mut stream = pipeline::connect(spec).await?;
            pipeline::exchange(&mut *stream, &exchange).await?;
            streams.push(stream);
        }
        if n == 0 {
            // What the first connection makes for all is not its own.
            before = resident_kib(server)?;
        }
    }
    tokio::time::sleep(SETTLE).await;
    let kib = (resident_kib(server)? - before) / spec.connections as f64;
    Ok(Measured { kib, ..Measured::none() })
}
