//! `raystream dev`

use std::net::SocketAddr;
use std::path::PathBuf;

use clap::Args;

use super::serve::verbosity_flag;
use super::{Failure, GlobalOptions, Output, daemon};
use crate::auth::Access;
use crate::server::config::{ConfigFile, Flag, Sources};

/// Start a private Postgres and a server for development
///
/// Makes what is missing on first use (a Postgres cluster and a key, both in the data folder), lets everybody in who
/// knows the URL, and prints the URL on standard output when it is ready. It listens on loopback only unless told.
/// Variables RAYSTREAM_* apply; a configuration file is not read.
#[derive(Debug, Args)]
pub(super) struct DevArguments {
    /// The folder for the database and the key [default: raystream-data]
    #[arg(long, value_name = "DIR")]
    data: Option<PathBuf>,
    /// Address and port; port 0 takes a free one [default: 127.0.0.1:7410]
    #[arg(long, value_name = "ADDR")]
    listen: Option<SocketAddr>,
}

impl DevArguments {
    /// Where the configuration comes from.
    pub(super) fn sources(&self, options: &GlobalOptions) -> Sources {
        let data = self.data.as_ref().map(|path| Flag {
            name: "--data",
            key: "data",
            value: path.to_string_lossy().into_owned(),
        });
        let listen =
            self.listen.map(|address| Flag { name: "--listen", key: "listen", value: address.to_string() });
        let flags = [data, listen, verbosity_flag(options)].into_iter().flatten().collect();
        Sources::of_process(ConfigFile::None, flags)
    }
}

pub(super) fn run(
    arguments: &DevArguments,
    options: &GlobalOptions,
    output: &mut Output,
) -> Result<(), Failure> {
    let loaded = super::config::load_without_access(&arguments.sources(options), output)?;
    if !daemon::is_loopback(loaded.config.listen) {
        output.warn(format!(
            "listening on {}: whoever has the URL may read and write everything",
            loaded.config.listen
        ));
    }
    let run = daemon::Run {
        options,
        config: loaded.config,
        access: Access::everything(),
        create_tables: true,
        reload: None,
    };
    daemon::run(run, output, |daemon, output| {
        output.remark("Ready. Everybody who has this URL may read and write everything; Ctrl-C stops.");
        output.line(daemon.url())
    })
}
