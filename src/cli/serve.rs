//! `raystream serve`

use std::net::SocketAddr;
use std::path::PathBuf;

use clap::Args;

use super::config::config_file;
use super::{Failure, GlobalOptions, Output, daemon};
use crate::server::config::{Flag, Sources};

/// Start a server
///
/// Lets in whom [access] of the configuration names, and nobody else. Values come from the defaults, the file, variables
/// RAYSTREAM_* and these flags; the later wins. See `raystream config print`. SIGHUP reads the access rules again, SIGTERM
/// lets calls finish and stops.
#[derive(Debug, Args)]
pub(super) struct ServeArguments {
    /// The file; without this, raystream.toml of the current folder if there is one
    #[arg(long, value_name = "FILE", env = "RAYSTREAM_CONFIG", hide_env_values = true)]
    config: Option<PathBuf>,
    /// Address and port; port 0 takes a free one [default: 127.0.0.1:7410]
    #[arg(long, value_name = "ADDR")]
    listen: Option<SocketAddr>,
    /// The folder for what the server keeps itself [default: raystream-data]
    #[arg(long, value_name = "DIR")]
    data: Option<PathBuf>,
}

impl ServeArguments {
    /// Where the configuration comes from.
    pub(super) fn sources(&self, options: &GlobalOptions) -> Sources {
        let listen =
            self.listen.map(|address| Flag { name: "--listen", key: "listen", value: address.to_string() });
        let data = self.data.as_ref().map(|path| Flag {
            name: "--data",
            key: "data",
            value: path.to_string_lossy().into_owned(),
        });
        let flags = [listen, data, verbosity_flag(options)].into_iter().flatten().collect();
        Sources::of_process(config_file(self.config.as_ref()), flags)
    }
}

/// The log level of `-v` and `-vv`.
pub(super) fn verbosity_flag(options: &GlobalOptions) -> Option<Flag> {
    let level = match options.verbose {
        0 => return None,
        1 => "info,raystream=debug",
        _ => "trace",
    };
    Some(Flag { name: "--verbose", key: "log.level", value: level.to_owned() })
}

pub(super) fn run(
    arguments: &ServeArguments,
    options: &GlobalOptions,
    output: &mut Output,
) -> Result<(), Failure> {
    let sources = arguments.sources(options);
    let loaded = super::config::load(&sources, output)?;
    let run = daemon::Run {
        options,
        config: loaded.config,
        access: loaded.access,
        create_tables: false,
        reload: Some(sources),
    };
    daemon::run(run, output, |daemon, output| output.line(daemon.url()))
}
