//! `raystream pubkey`

use std::path::PathBuf;

use clap::Args;
use serde_json::json;

use super::{Failure, Output};
use crate::noise;
use crate::server::key_file;

/// Print the public key of a private key file
#[derive(Debug, Args)]
pub(super) struct PubkeyArguments {
    /// The private key file
    #[arg(value_name = "FILE")]
    file: PathBuf,
}

pub(super) fn run(arguments: &PubkeyArguments, output: &mut Output) -> Result<(), Failure> {
    let secret = key_file::read_secret(&arguments.file)?;
    let public = secret.public_key(noise::rust_crypto()).to_string();
    output.result(&public, &json!({ "public_key": public, "file": arguments.file }))
}
