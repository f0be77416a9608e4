//! Connections made, used once and closed, one after the other.

use std::time::Instant;

use crate::{
    Failure, grpc,
    meter::Meter,
    pipeline::{self, Exchange},
    spec::Spec,
};

pub(crate) async fn drive(spec: Spec, meter: Meter) -> Result<(), Failure> {
    let exchange = Exchange::of(&spec);
    loop {
        let begin = Instant::now();
        if spec.client == "grpc" {
            let mut client = tonic::client::Grpc::new(grpc::connect(&spec).await?);
            grpc::call(&mut client, exchange.request.clone().into()).await?;
        } else {
            let mut stream = pipeline::connect(&spec).await?;
            pipeline::exchange(&mut *stream, &exchange).await?;
        }
        meter.time(begin);
    }
}
