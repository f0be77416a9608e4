//! Why the private cluster did not start. For the operator.

use std::io;
use std::path::{Path, PathBuf};

use thiserror::Error;

/// Why the private cluster did not start.
#[derive(Debug, Error)]
pub enum EmbeddedError {
    /// There are no Postgres server programs.
    #[error(
        "no Postgres server programs (initdb and postgres, version 14 or newer) in RAYSTREAM_PG_BIN, in PATH or in \
         /usr/lib/postgresql/*/bin. On Debian or Ubuntu install them with `apt-get install postgresql`; elsewhere install \
         the PostgreSQL server and set RAYSTREAM_PG_BIN to the folder of its programs. Or give raystream the URL of a \
         Postgres that runs"
    )]
    NoPrograms,
    /// The folder that the operator named has no usable programs.
    #[error("RAYSTREAM_PG_BIN is {}, but there are no `initdb` and `postgres` of version 14 or newer", .0.display())]
    NotPrograms(PathBuf),
    /// The data needs programs of its own major version.
    #[error(
        "the data in {} is of Postgres {data}, and the programs found are of {found}. Install the programs of Postgres \
         {data} (Debian: `apt-get install postgresql-{data}`), or upgrade the data with pg_upgrade", folder.display()
    )]
    OtherVersion {
        /// The cluster's folder.
        folder: PathBuf,
        /// The major version of the data.
        data: u32,
        /// The major versions of the programs, as text.
        found: String,
    },
    /// Another daemon works on the folder.
    #[error("another raystream (process {pid}) uses the data folder {}", data.display())]
    AlreadyRunning {
        /// The data folder.
        data: PathBuf,
        /// What the lock file says.
        pid: String,
    },
    /// Postgres does not run as root, and the user it runs as cannot get to its folder.
    #[error(
        "Postgres runs as the user `{user}`, who may not pass through {}: allow it (`chmod o+x {}`), or use another data \
         folder", folder.display(), folder.display()
    )]
    NotTraversable {
        /// The folder in the way.
        folder: PathBuf,
        /// The user.
        user: String,
    },
    /// There is no user to run Postgres as.
    #[error(
        "Postgres does not run as root, and there is neither a user `postgres` nor `nobody` to run it as"
    )]
    NoUser,
    /// A unix socket's path has to fit into 107 bytes.
    #[error("there is no folder with a path short enough for a unix socket: set TMPDIR to a short one")]
    SocketPathTooLong,
    /// The cluster was not made.
    #[error("initdb failed: {0}")]
    Initdb(String),
    /// Postgres ended before it was ready.
    #[error("Postgres did not start: {0}")]
    Start(String),
    /// Something of the file system or the processes.
    #[error("{what} {}: {source}", path.display())]
    Io {
        /// What was tried.
        what: &'static str,
        /// On what.
        path: PathBuf,
        /// Why not.
        source: io::Error,
    },
}

/// Names what was tried on which path.
pub(super) trait Context<T> {
    /// Turns an IO error into one that names the path.
    fn context(self, what: &'static str, path: &Path) -> Result<T, EmbeddedError>;
}

impl<T> Context<T> for io::Result<T> {
    fn context(self, what: &'static str, path: &Path) -> Result<T, EmbeddedError> {
        self.map_err(|source| EmbeddedError::Io { what, path: path.to_owned(), source })
    }
}
