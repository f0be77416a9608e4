//! `raystream keygen`

use std::path::PathBuf;

use clap::Args;
use serde_json::json;

use super::{Failure, Output};
use crate::noise;
use crate::server::key_file;

/// Make a private key and print its public key
///
/// The file is made with mode 0600 and never overwritten. The public key names its holder: put it into a URL (a server's
/// key) or into [access.keys] of a server's configuration (a client's key).
#[derive(Debug, Args)]
pub(super) struct KeygenArguments {
    /// Where the private key goes
    #[arg(long, value_name = "FILE", default_value = "raystream.key")]
    out: PathBuf,
}

pub(super) fn run(arguments: &KeygenArguments, output: &mut Output) -> Result<(), Failure> {
    let secret = key_file::generate(&arguments.out)?;
    let public = secret.public_key(noise::rust_crypto()).to_string();
    output.remark(format!("The private key is in {}. Its public key:", arguments.out.display()));
    output.result(&public, &json!({ "public_key": public, "file": arguments.out }))
}
