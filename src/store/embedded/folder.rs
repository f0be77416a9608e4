//! The data folder: its lock, the cluster in it, the settings, and the folder of the socket.
//!
//! ```text
//! DATA/lock            held while a daemon runs on the folder; has its process id
//! DATA/postgres/       the cluster, owned by the user that Postgres runs as
//! DATA/postgres.conf   its settings; written once, then the operator's
//! DATA/postgres.log    what Postgres says, with postgres.log.1
//! DATA/socket/         the unix socket, when the path is short enough; else socket.path names a folder elsewhere
//! ```

use std::fs::{self, DirBuilder, File, OpenOptions, TryLockError};
use std::io::{Read, Seek, Write};
use std::os::unix::fs::{DirBuilderExt, chown};
use std::path::{Path, PathBuf};

use super::account::{self, Account};
use super::error::{Context, EmbeddedError};

/// The longest path of a unix socket: `sun_path` has 108 bytes, the last of them zero.
const SOCKET_PATH_LEN_MAX: usize = 107;

/// The name of the socket for Postgres' port 5432, which is its default.
const SOCKET_NAME: &str = ".s.PGSQL.5432";

/// The settings of a private cluster: small, and durable. Nothing of a document gets into the log: no statements, no
/// DETAIL, no errors of callers.
const SETTINGS: &str = "\
# The settings of raystream's private cluster. Written once: change what you need, and restart raystream.
# The socket and the addresses are set by raystream itself.
max_connections = 80
shared_buffers = 64MB
max_wal_size = 512MB
min_wal_size = 80MB
wal_compression = on
# An acknowledged write survives a crash. raystream refuses to start when these are off.
fsync = on
full_page_writes = on
synchronous_commit = on
autovacuum = on
timezone = 'UTC'
log_timezone = 'UTC'
log_line_prefix = '%m [%p] '
log_min_messages = log
log_min_error_statement = panic
log_error_verbosity = terse
log_checkpoints = off
log_autovacuum_min_duration = -1
";

/// The data folder, locked.
#[derive(Debug)]
pub(super) struct Folder {
    data: PathBuf,
    /// Whose cluster it is; `None`: the daemon's own user's.
    pub(super) account: Option<Account>,
    /// The folder of the socket.
    pub(super) socket: PathBuf,
    // Unlocked when it is closed. Children do not inherit it.
    _lock: File,
}

impl Folder {
    /// Makes the data folder if it is not there, locks it, and makes it reachable for Postgres' user.
    pub(super) fn open(data: &Path) -> Result<Self, EmbeddedError> {
        DirBuilder::new()
            .recursive(true)
            .mode(0o711)
            .create(data)
            .context("cannot make the data folder", data)?;
        let data = data.canonicalize().context("cannot find", data)?;
        let lock = lock(&data)?;
        let account = account::choose(&data.join("postgres"))?;
        if let Some(account) = &account {
            account::make_reachable(&data, account)?;
        }
        let socket = socket_folder(&data, account.as_ref(), &std::env::temp_dir())?;
        Ok(Self { data, account, socket, _lock: lock })
    }

    /// The cluster.
    pub(super) fn cluster(&self) -> PathBuf {
        self.data.join("postgres")
    }

    /// Where the cluster is made, before it gets its name: one that was not finished is never used.
    pub(super) fn cluster_draft(&self) -> PathBuf {
        self.data.join("postgres.new")
    }

    /// The file of its settings.
    pub(super) fn settings(&self) -> PathBuf {
        self.data.join("postgres.conf")
    }

    /// The file of its log.
    pub(super) fn log(&self) -> PathBuf {
        self.data.join("postgres.log")
    }

    /// Makes an empty folder for a new cluster.
    pub(super) fn prepare_draft(&self) -> Result<PathBuf, EmbeddedError> {
        let draft = self.cluster_draft();
        if draft.exists() {
            fs::remove_dir_all(&draft).context("cannot remove the unfinished", &draft)?;
        }
        private_folder(&draft, self.account.as_ref())?;
        Ok(draft)
    }

    /// Gives a finished cluster its name, for good.
    pub(super) fn adopt_draft(&self) -> Result<(), EmbeddedError> {
        let (draft, cluster) = (self.cluster_draft(), self.cluster());
        fs::rename(&draft, &cluster).context("cannot rename", &draft)?;
        File::open(&self.data).and_then(|folder| folder.sync_all()).context("cannot sync", &self.data)
    }

    /// Writes the settings unless there are some.
    pub(super) fn write_settings(&self) -> Result<(), EmbeddedError> {
        let path = self.settings();
        if path.exists() {
            return Ok(());
        }
        let draft = path.with_extension("conf.new");
        fs::write(&draft, SETTINGS).context("cannot write", &draft)?;
        fs::rename(&draft, &path).context("cannot rename", &draft)
    }
}

/// Locks the folder for this process.
fn lock(data: &Path) -> Result<File, EmbeddedError> {
    let path = data.join("lock");
    let mut file = OpenOptions::new()
        .read(true)
        .write(true)
        .create(true)
        .truncate(false)
        .open(&path)
        .context("cannot open the lock file", &path)?;
    match file.try_lock() {
        Ok(()) => {}
        Err(TryLockError::WouldBlock) => {
            let mut pid = String::new();
            // What it says is only for the message.
            let _ = file.read_to_string(&mut pid);
            return Err(EmbeddedError::AlreadyRunning { data: data.to_owned(), pid: pid.trim().to_owned() });
        }
        Err(TryLockError::Error(source)) => {
            return Err(EmbeddedError::Io { what: "cannot lock", path, source });
        }
    }
    file.set_len(0)
        .and_then(|()| file.rewind())
        .and_then(|()| writeln!(file, "{}", std::process::id()))
        .context("cannot write", &path)?;
    Ok(file)
}

/// Makes the folder for the socket: only Postgres' user (and root) may enter it, so that whoever reaches the socket may
/// use the database.
fn socket_folder(data: &Path, account: Option<&Account>, temporary: &Path) -> Result<PathBuf, EmbeddedError> {
    let elsewhere = data.join("socket.path");
    // A folder of a run that was killed.
    if let Ok(old) = fs::read_to_string(&elsewhere) {
        let _ = fs::remove_dir_all(old.trim_end_matches('\n'));
        let _ = fs::remove_file(&elsewhere);
    }
    let inside = data.join("socket");
    if fits(&inside) {
        if inside.exists() {
            // With a stale socket of another owner in it.
            fs::remove_dir_all(&inside).context("cannot remove", &inside)?;
        }
        private_folder(&inside, account)?;
        return Ok(inside);
    }
    let mut random = [0_u8; 8];
    getrandom::fill(&mut random).map_err(|_| EmbeddedError::SocketPathTooLong)?;
    let name = format!("raystream-{:016x}", u64::from_be_bytes(random));
    let folder = [temporary, Path::new("/tmp")]
        .iter()
        .map(|parent| parent.join(&name))
        .find(|folder| fits(folder))
        .ok_or(EmbeddedError::SocketPathTooLong)?;
    private_folder(&folder, account)?;
    fs::write(&elsewhere, format!("{}\n", folder.display())).context("cannot write", &elsewhere)?;
    Ok(folder)
}

/// Whether a socket in the folder has a path that is short enough. It also has to be text for the settings.
fn fits(folder: &Path) -> bool {
    let path = folder.join(SOCKET_NAME);
    path.to_str().is_some_and(|path| path.len() <= SOCKET_PATH_LEN_MAX)
}

/// Makes a folder that only Postgres' user may enter. It must not be there: nobody else made it.
fn private_folder(folder: &Path, account: Option<&Account>) -> Result<(), EmbeddedError> {
    DirBuilder::new().mode(0o700).create(folder).context("cannot make", folder)?;
    if let Some(account) = account {
        chown(folder, Some(account.uid), Some(account.gid)).context("cannot change the owner of", folder)?;
    }
    Ok(())
}

#[cfg(test)]
mod tests {
    use std::os::unix::fs::PermissionsExt;

    use super::*;

    #[test]
    fn a_second_daemon_on_the_folder_is_told_of_the_first() {
        let data = tempfile::tempdir().expect("a temporary folder");
        let first = lock(data.path()).expect("the first one locks it");
        let error = lock(data.path()).expect_err("it is locked");
        assert!(error.to_string().contains(&std::process::id().to_string()), "{error}");
        drop(first);
        lock(data.path()).expect("it is free again");
    }

    #[test]
    fn a_long_data_path_gets_a_socket_elsewhere_that_is_cleaned_up() {
        let folder = tempfile::tempdir().expect("a temporary folder");
        let data = folder.path().join("x".repeat(100));
        fs::create_dir(&data).expect("a folder in it");
        let socket = socket_folder(&data, None, folder.path()).expect("there is a short path");
        assert!(fits(&socket), "{}", socket.display());
        let mode = fs::metadata(&socket).expect("it is there").permissions().mode();
        assert_eq!(mode & 0o777, 0o700);
        let next = socket_folder(&data, None, folder.path()).expect("again");
        assert!(!socket.exists() && next.exists() && next != socket);
        fs::remove_dir_all(&next).expect("it is ours");
    }

    #[test]
    fn the_settings_are_the_operators_once_they_are_written() {
        let data = tempfile::tempdir().expect("a temporary folder");
        let path = data.path().join("data");
        let folder = Folder::open(&path).expect("the folder opens");
        folder.write_settings().expect("they are written");
        fs::write(folder.settings(), "max_connections = 7\n").expect("they can be changed");
        folder.write_settings().expect("they are left");
        assert_eq!(fs::read_to_string(folder.settings()).expect("they are there"), "max_connections = 7\n");
    }
}
