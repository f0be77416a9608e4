//! A Postgres on a port of its own, set up by the test, as an operator would have one.

use std::fs;
use std::io::{BufRead, BufReader};
use std::net::TcpListener;
use std::os::unix::fs::{PermissionsExt, chown};
use std::os::unix::process::CommandExt;
use std::path::{Path, PathBuf};
use std::process::{Child, Command, Stdio};

use tokio_postgres::{Client, Config, NoTls};

use crate::certificates::Certificates;
use crate::{PATIENCE, postgres};

/// The user of the tests, and the password that no log may hold.
pub(crate) const USER: &str = "ann";
pub(crate) const PASSWORD: &str = "s3cret-of-ann";

/// Who gets in over TCP: with a password, but to `needs_cert` only over TLS with a certificate.
const HBA: &str = "local all all trust\n\
                   hostssl needs_cert all 127.0.0.1/32 cert\n\
                   hostnossl needs_tls all 127.0.0.1/32 reject\n\
                   host app,needs_tls,postgres all 127.0.0.1/32 scram-sha-256\n";

const SETTINGS: &str = "max_connections = 200\nshared_buffers = 32MB\ntimezone = 'UTC'\nlog_timezone = 'UTC'\n\
                        password_encryption = 'scram-sha-256'\n";

/// A Postgres. It stops when this is dropped, or when the process of the tests ends.
pub(crate) struct Server {
    pub(crate) port: u16,
    folder: PathBuf,
    programs: PathBuf,
    account: Option<(u32, u32)>,
    child: Option<Child>,
    /// Removes the folder once this process and the server are gone.
    _reaper: Child,
}

impl Server {
    /// Makes a cluster and starts it: with TLS when there are certificates.
    pub(crate) async fn start(certificates: Option<&Certificates>) -> Self {
        Self::start_on(certificates, |_, _| {}, &[]).await
    }

    /// The same in a folder that is prepared before, with more arguments for `initdb`. The preparation gets the folder and
    /// the user and group that it belongs to, `None` when that is our own.
    pub(crate) async fn start_on(
        certificates: Option<&Certificates>,
        prepare: impl FnOnce(&Path, Option<(u32, u32)>),
        initdb: &[&str],
    ) -> Self {
        let (folder, reaper) = postgres::folder_with_reaper();
        // The postmaster's user passes through; what is inside has its own permissions.
        fs::set_permissions(&folder, fs::Permissions::from_mode(0o711)).unwrap();
        let port = TcpListener::bind("127.0.0.1:0").unwrap().local_addr().unwrap().port();
        let account = account();
        let mut server = Self { port, folder, programs: programs(), account, child: None, _reaper: reaper };
        server.folder_of_postgres("postgres");
        server.folder_of_postgres("socket");
        prepare(&server.data(), account);
        let made = server
            .command("initdb")
            .args([
                "--username",
                "admin",
                "--auth",
                "trust",
                "--encoding",
                "UTF8",
                "--locale",
                "C",
                "--no-sync",
            ])
            .args(initdb)
            .arg("--pgdata")
            .arg(server.data())
            .output()
            .unwrap();
        assert!(made.status.success(), "{}", String::from_utf8_lossy(&made.stderr));
        let mut settings = SETTINGS.to_owned();
        if let Some(certificates) = certificates {
            server.file("server.crt", &certificates.server_cert);
            server.file("server.key", &certificates.server_key);
            server.file("ca.crt", &certificates.ca);
            settings.push_str("ssl = on\nssl_ca_file = 'ca.crt'\n");
        }
        server.file("postgresql.conf", &settings);
        server.file("pg_hba.conf", HBA);
        server.run(&[]).await;
        let admin = server.admin("postgres").await;
        for statement in [
            &format!("CREATE ROLE {USER} LOGIN SUPERUSER PASSWORD '{PASSWORD}'"),
            "CREATE DATABASE app",
            "CREATE DATABASE needs_cert",
            "CREATE DATABASE needs_tls",
        ] {
            admin.batch_execute(statement).await.unwrap();
        }
        server
    }

    /// Starts the postmaster, with settings beside those of the file, and waits until it takes connections.
    pub(crate) async fn run(&mut self, settings: &[&str]) {
        let mut command = self.command("postgres");
        command.arg("-D").arg(self.data()).args(["-p", &self.port.to_string(), "-h", "127.0.0.1", "-k"]);
        command.arg(self.folder.join("socket"));
        for setting in settings {
            command.args(["-c", setting]);
        }
        let mut child = command.stderr(Stdio::piped()).process_group(0).spawn().unwrap();
        let mut log = BufReader::new(child.stderr.take().unwrap());
        self.child = Some(child);
        let file = self.folder.join("log");
        // Reads to the end: a postmaster that cannot write its log would stand still.
        let (ready, is_ready) = tokio::sync::oneshot::channel();
        std::thread::spawn(move || {
            let (mut text, mut ready) = (String::new(), Some(ready));
            while log.read_line(&mut text).is_ok_and(|len| len > 0) {
                if text.contains("ready to accept")
                    && let Some(ready) = ready.take()
                {
                    let _nobody_waits = ready.send(());
                }
                let _folder_is_gone = fs::write(&file, &text);
            }
        });
        let waited = tokio::time::timeout(PATIENCE, is_ready).await;
        assert!(matches!(waited, Ok(Ok(()))), "Postgres does not start: {}", self.log());
    }

    /// Stops the postmaster at once: sessions are cut.
    pub(crate) fn stop(&mut self) {
        if let Some(mut child) = self.child.take() {
            let sent = Command::new("kill").args(["-INT", &child.id().to_string()]).status();
            assert!(sent.is_ok_and(|status| status.success()));
            child.wait().unwrap();
        }
    }

    /// What the postmaster has logged.
    pub(crate) fn log(&self) -> String {
        fs::read_to_string(self.folder.join("log")).unwrap_or_default()
    }

    /// The cluster.
    pub(crate) fn data(&self) -> PathBuf {
        self.folder.join("postgres")
    }

    /// A session of the superuser, over the socket.
    pub(crate) async fn admin(&self, database: &str) -> Client {
        let mut config = Config::new();
        config.host_path(self.folder.join("socket")).port(self.port).user("admin").dbname(database);
        let (client, connection) = config.connect(NoTls).await.expect("the superuser gets in");
        tokio::spawn(connection);
        client
    }

    /// An address over TCP, with further parameters.
    pub(crate) fn address(&self, database: &str, more: &str) -> String {
        format!(
            "hostaddr=127.0.0.1 port={} user={USER} password='{PASSWORD}' dbname={database} {more}",
            self.port
        )
    }

    /// A file of the postmaster's user in the cluster.
    pub(crate) fn file(&self, name: &str, text: &str) {
        let path = self.data().join(name);
        fs::write(&path, text).unwrap();
        fs::set_permissions(&path, fs::Permissions::from_mode(0o600)).unwrap();
        self.give(&path);
    }

    /// A program of Postgres, as a user that it runs as.
    fn command(&self, program: &str) -> Command {
        let mut command = self.command_of(&self.programs.join(program));
        command.env("LC_ALL", "C").current_dir(self.data()).stdin(Stdio::null()).stdout(Stdio::null());
        command
    }

    /// Any program as the user of Postgres: PgBouncer, too, does not run as root.
    pub(crate) fn command_of(&self, program: &Path) -> Command {
        let mut command = Command::new(program);
        if let Some((uid, gid)) = self.account {
            command.uid(uid).gid(gid);
        }
        command
    }

    /// A folder of the postmaster's user beside the cluster.
    pub(crate) fn folder_of_postgres(&self, name: &str) -> PathBuf {
        let path = self.folder.join(name);
        fs::create_dir(&path).unwrap();
        fs::set_permissions(&path, fs::Permissions::from_mode(0o700)).unwrap();
        self.give(&path);
        path
    }

    fn give(&self, path: &Path) {
        if let Some((uid, gid)) = self.account {
            chown(path, Some(uid), Some(gid)).unwrap();
        }
    }
}

impl Drop for Server {
    fn drop(&mut self) {
        self.stop();
    }
}

/// The user to run Postgres as, which refuses to be root; `None`: our own.
fn account() -> Option<(u32, u32)> {
    let ours = std::os::unix::fs::MetadataExt::uid(&fs::metadata("/proc/self").unwrap());
    if ours != 0 {
        return None;
    }
    let users = fs::read_to_string("/etc/passwd").unwrap();
    let of = |name: &str| {
        let fields: Vec<&str> = users
            .lines()
            .map(|line| line.split(':'))
            .find_map(|mut fields| (fields.next() == Some(name)).then(|| fields.collect()))?;
        Some((fields[1].parse().unwrap(), fields[2].parse().unwrap()))
    };
    Some(of("postgres").or_else(|| of("nobody")).expect("a user to run Postgres as"))
}

/// The folder of the server programs, looked for as the daemon does.
fn programs() -> PathBuf {
    let path = std::env::var_os("PATH").unwrap_or_default();
    let mut versions: Vec<PathBuf> = fs::read_dir("/usr/lib/postgresql")
        .map(|entries| entries.filter_map(|entry| Some(entry.ok()?.path().join("bin"))).collect())
        .unwrap_or_default();
    versions.sort();
    let named = std::env::var_os("RAYSTREAM_PG_BIN").map(PathBuf::from);
    named
        .into_iter()
        .chain(std::env::split_paths(&path))
        .chain(versions.into_iter().rev())
        .find(|folder| folder.join("postgres").exists() && folder.join("initdb").exists())
        .expect("the Postgres server programs are installed: .ci/setup")
}
