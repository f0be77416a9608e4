//! The private cluster: its life, its crashes, and those of the daemon.

use std::fs;
use std::io::{BufRead, BufReader};
use std::os::unix::fs::PermissionsExt;
use std::path::Path;
use std::process::{Child, Command, Stdio};
use std::time::{Duration, Instant};

use raystream::store::embedded::{Embedded, EmbeddedError, EmbeddedOptions};
use raystream::store::{Query, Store, StoreError, StoreOptions};
use rustix::process::{Pid, Signal, geteuid, kill_process};

use crate::postgres::{client, folder_with_reaper};
use crate::{WRITER, get, id, json, set, table, value};

/// Names the data folder to the helper process.
const HELPER_DATA: &str = "RAYSTREAM_TEST_DATA";

async fn start(data: &Path) -> Embedded {
    Embedded::start(EmbeddedOptions::new(data)).await.expect("the private Postgres starts")
}

async fn connect(embedded: &Embedded) -> Store {
    let mut options = StoreOptions::new(embedded.config());
    options.create_tables = true;
    Store::connect(options).await.expect("the store starts")
}

fn kill(pid: i32, signal: Signal) {
    kill_process(Pid::from_raw(pid).expect("a process number"), signal).expect("the process is there");
}

/// Whether any Postgres process works on the data.
fn postgres_runs(data: &Path) -> bool {
    let cluster = data.canonicalize().expect("the folder is there").join("postgres");
    fs::read_dir("/proc").expect("there is /proc").flatten().any(|process| {
        fs::read_link(process.path().join("cwd")).is_ok_and(|folder| folder == cluster)
            && fs::read_to_string(process.path().join("comm")).is_ok_and(|name| name.starts_with("postgres"))
    })
}

async fn eventually(what: &str, mut holds: impl FnMut() -> bool) {
    let until = Instant::now() + Duration::from_secs(30);
    while !holds() {
        assert!(Instant::now() < until, "{what}");
        tokio::time::sleep(Duration::from_millis(10)).await;
    }
}

#[tokio::test]
async fn it_starts_stops_and_starts_again_with_its_data() {
    let (data, _reaper) = folder_with_reaper();
    let began = Instant::now();
    let embedded = start(&data).await;
    println!("cold start, with initdb: {:?}", began.elapsed());
    let store = connect(&embedded).await;
    println!("first store on it: {:?}", began.elapsed());
    set(&store, "t", "a", "1").await;

    let client = client(&embedded.config()).await;
    for (setting, value) in [
        ("listen_addresses", ""),
        ("unix_socket_permissions", "0700"),
        ("synchronous_commit", "on"),
        ("fsync", "on"),
        ("data_checksums", "on"),
        ("max_connections", "80"),
    ] {
        let row = client.query_one("SELECT current_setting($1)", &[&setting]).await.expect("it is a setting");
        assert_eq!(row.get::<_, &str>(0), value, "{setting}");
    }
    let mode = fs::metadata(embedded.socket_folder()).expect("the folder is there").permissions().mode();
    assert_eq!(mode & 0o777, 0o700);
    let postmaster = embedded.postmaster().expect("it runs");
    let status = fs::read_to_string(format!("/proc/{postmaster}/status")).expect("the process is there");
    let line = |name: &str| {
        let line = status.lines().find(|line| line.starts_with(name)).expect("the status has it");
        line.split_whitespace().skip(1).map(str::to_owned).collect::<Vec<_>>()
    };
    assert!(!line("Uid:").contains(&"0".to_owned()) && !line("Gid:").contains(&"0".to_owned()));
    if geteuid().is_root() {
        assert_eq!(line("Groups:"), Vec::<String>::new());
    }

    drop((store, client));
    let began = Instant::now();
    embedded.stop().await;
    println!("stop: {:?}", began.elapsed());
    assert!(!postgres_runs(&data));
    let began = Instant::now();
    let embedded = start(&data).await;
    println!("warm start: {:?}", began.elapsed());
    let store = connect(&embedded).await;
    println!("warm start and store: {:?}", began.elapsed());
    assert_eq!(value(&get(&store, "t", "a").await.data), 1);
}

#[tokio::test]
async fn a_postmaster_that_is_killed_comes_back_with_every_acknowledged_write() {
    let (data, _reaper) = folder_with_reaper();
    let embedded = start(&data).await;
    let store = connect(&embedded).await;
    set(&store, "t", "first", "1").await;
    let stop = std::sync::Arc::new(std::sync::atomic::AtomicBool::new(false));
    // More than there are connections, so that writes share transactions.
    let writers: Vec<_> = (0..32)
        .map(|writer| {
            let (store, stop) = (store.clone(), std::sync::Arc::clone(&stop));
            tokio::spawn(async move {
                let (mut acknowledged, mut refused) = (Vec::new(), Vec::new());
                let mut n = 0;
                while !stop.load(std::sync::atomic::Ordering::Relaxed) {
                    let name = format!("{writer}-{n}");
                    match store.set(WRITER, &table("t"), &id(&name), json(&n.to_string()), None).await {
                        Ok(version) => {
                            assert_eq!(version, 1);
                            acknowledged.push(name);
                        }
                        Err(StoreError::Unavailable { retry_after }) => {
                            refused.push(name);
                            tokio::time::sleep(retry_after).await;
                        }
                        Err(StoreError::UnknownOutcome) => {}
                        Err(error) => panic!("{error}"),
                    }
                    n += 1;
                }
                (acknowledged, refused)
            })
        })
        .collect();
    for round in 1..=3 {
        tokio::time::sleep(Duration::from_millis(300)).await;
        kill(embedded.postmaster().expect("it runs"), Signal::KILL);
        let began = Instant::now();
        eventually("it is started again", || embedded.starts() > round && embedded.postmaster().is_some())
            .await;
        let until = Instant::now() + Duration::from_secs(30);
        while store.set(WRITER, &table("t"), &id("probe"), json("1"), None).await.is_err() {
            assert!(Instant::now() < until, "the store does not take writes again");
        }
        while store.get(&table("t"), &id("probe")).await.is_err() {
            assert!(Instant::now() < until, "the store does not take reads again");
        }
        println!("killed, and taking writes and reads again after {:?}", began.elapsed());
    }
    stop.store(true, std::sync::atomic::Ordering::Relaxed);
    let mut count = 0;
    for writer in writers {
        let (acknowledged, refused) = writer.await.expect("the writer ends");
        count += acknowledged.len();
        for name in acknowledged {
            get(&store, "t", &name).await;
        }
        for name in refused {
            let found = store.get(&table("t"), &id(&name)).await;
            assert_eq!(found, Ok(None), "{name} was refused as not done");
        }
    }
    assert!(count > 100, "only {count} writes were acknowledged");
    println!("{count} acknowledged writes over three kills");
}

/// What is killed in the test below: a daemon in short, in a process of its own.
#[tokio::test]
#[ignore = "the helper process of another test"]
async fn helper_daemon() {
    let Some(data) = std::env::var_os(HELPER_DATA) else { return };
    let embedded = start(Path::new(&data)).await;
    let store = connect(&embedded).await;
    for n in 0.. {
        store.push(WRITER, &table("t"), json(&n.to_string())).await.expect("it is pushed");
        println!("acknowledged {n}");
    }
}

fn spawn_helper(data: &Path) -> (Child, BufReader<std::process::ChildStdout>) {
    let mut child = Command::new(std::env::current_exe().expect("the test is a program"))
        .args(["--exact", "embedded::helper_daemon", "--ignored", "--nocapture"])
        .env(HELPER_DATA, data)
        .stdout(Stdio::piped())
        .stderr(Stdio::null())
        .spawn()
        .expect("the helper starts");
    let out = BufReader::new(child.stdout.take().expect("it is a pipe"));
    (child, out)
}

#[tokio::test]
async fn a_daemon_that_is_killed_takes_postgres_along_and_starts_again() {
    let (data, _reaper) = folder_with_reaper();
    let mut total = 0;
    for round in 0..3 {
        let (mut helper, mut out) = spawn_helper(&data);
        let mut acknowledged = 0;
        let mut line = String::new();
        while acknowledged < 20 {
            line.clear();
            assert!(out.read_line(&mut line).expect("the helper writes text") > 0, "the helper ended");
            acknowledged += usize::from(line.starts_with("acknowledged "));
        }
        helper.kill().expect("it runs");
        helper.wait().expect("it ends");
        while {
            line.clear();
            out.read_line(&mut line).expect("the helper wrote text") > 0
        } {
            acknowledged += usize::from(line.starts_with("acknowledged ") && line.ends_with('\n'));
        }
        total += acknowledged;
        // The first time Postgres is given no time to stop by itself.
        if round > 0 {
            eventually("Postgres ends with the daemon", || !postgres_runs(&data)).await;
        }
        let began = Instant::now();
        let embedded = start(&data).await;
        println!("start after a kill: {:?}", began.elapsed());
        let store = connect(&embedded).await;
        let count = store.count(&table("t"), None).await.expect("the table is there");
        let count = usize::try_from(count).expect("it is a small number");
        // The one write that was under way may have been done.
        assert!(total <= count && count <= total + 1, "{total} acknowledged, {count} there");
        total = count;
        embedded.stop().await;
    }
}

#[tokio::test]
async fn a_second_daemon_on_the_folder_is_refused_and_the_first_goes_on() {
    let (data, _reaper) = folder_with_reaper();
    let embedded = start(&data).await;
    let error = Embedded::start(EmbeddedOptions::new(&data)).await.expect_err("the folder is in use");
    assert!(
        matches!(&error, EmbeddedError::AlreadyRunning { pid, .. } if *pid == std::process::id().to_string())
    );
    let store = connect(&embedded).await;
    set(&store, "t", "a", "1").await;
}

#[tokio::test]
async fn a_postgres_that_was_left_over_is_stopped_first() {
    let (data, _reaper) = folder_with_reaper();
    start(&data).await.stop().await;
    // One that no daemon watches, as if the death signal had not come.
    let found = fs::read_to_string("/proc/self/status").is_ok();
    assert!(found, "there is /proc");
    let cluster = data.canonicalize().expect("the folder is there").join("postgres");
    let programs = programs();
    let mut command = if geteuid().is_root() {
        use std::os::unix::fs::MetadataExt;
        let owner = fs::metadata(&cluster).expect("the cluster is there");
        let mut command = Command::new("setpriv");
        command.args([
            format!("--reuid={}", owner.uid()),
            format!("--regid={}", owner.gid()),
            "--clear-groups".into(),
        ]);
        command.arg(programs.join("postgres"));
        command
    } else {
        Command::new(programs.join("postgres"))
    };
    let mut left_over = command
        .arg("-D")
        .arg(&cluster)
        .args(["-c", "listen_addresses=", "-c", "unix_socket_directories=."])
        .stdout(Stdio::null())
        .stderr(Stdio::null())
        .spawn()
        .expect("Postgres starts");
    eventually("it is up", || {
        fs::read_to_string(cluster.join("postmaster.pid")).is_ok_and(|text| text.contains("ready"))
    })
    .await;
    let collector = std::thread::spawn(move || left_over.wait());
    let embedded = start(&data).await;
    assert!(
        collector.join().expect("the thread ends").expect("it ended").success(),
        "it was stopped cleanly"
    );
    connect(&embedded).await;
}

/// The folder of the programs, as Debian has it or as the variable says.
fn programs() -> std::path::PathBuf {
    if let Some(folder) = std::env::var_os("RAYSTREAM_PG_BIN") {
        return folder.into();
    }
    let path = std::env::var_os("PATH").unwrap_or_default();
    let mut folders: Vec<_> = std::env::split_paths(&path).collect();
    for version in fs::read_dir("/usr/lib/postgresql").into_iter().flatten().flatten() {
        folders.push(version.path().join("bin"));
    }
    let has_both =
        |folder: &std::path::PathBuf| folder.join("postgres").is_file() && folder.join("initdb").is_file();
    folders.into_iter().find(has_both).expect("the Postgres programs are installed")
}

#[tokio::test]
async fn a_stale_process_number_and_an_unfinished_initdb_do_not_stop_it() {
    let (data, _reaper) = folder_with_reaper();
    fs::create_dir(data.join("postgres.new")).expect("the folder can be written");
    fs::write(data.join("postgres.new/half"), "").expect("the folder can be written");
    start(&data).await.stop().await;
    assert!(!data.join("postgres.new").exists());

    // A process of Postgres' user that has the number now.
    use std::os::unix::fs::MetadataExt;
    use std::os::unix::process::CommandExt;
    let owner = fs::metadata(data.join("postgres")).expect("the cluster is there");
    let mut other = Command::new("sleep");
    if geteuid().is_root() {
        other.uid(owner.uid()).gid(owner.gid());
    }
    let mut other = other.arg("100").spawn().expect("there is sleep");
    let cluster = data.join("postgres");
    fs::write(
        cluster.join("postmaster.pid"),
        format!("{}\n{}\n0\n5432\n\n\n\n", other.id(), cluster.display()),
    )
    .expect("the folder can be written");
    let embedded = start(&data).await;
    connect(&embedded).await;
    assert!(other.try_wait().expect("it is our child").is_none(), "a stranger was stopped");
    other.kill().expect("it runs");
    other.wait().expect("it ends");
}

#[tokio::test]
async fn a_setting_that_postgres_refuses_is_said_in_its_words() {
    let (data, _reaper) = folder_with_reaper();
    fs::write(data.join("postgres.conf"), "shared_buffers = much\n").expect("the folder can be written");
    let error = Embedded::start(EmbeddedOptions::new(&data)).await.expect_err("the settings are wrong");
    assert!(error.to_string().contains("shared_buffers"), "{error}");
    fs::remove_file(data.join("postgres.conf")).expect("it is there");
    start(&data).await;
}

#[tokio::test]
async fn without_programs_the_error_says_what_to_install() {
    let (data, _reaper) = folder_with_reaper();
    let empty = tempfile::tempdir().expect("a temporary folder");
    let options = EmbeddedOptions { data: data.clone(), programs: Some(empty.path().to_owned()) };
    let error = Embedded::start(options).await.expect_err("there are no programs");
    assert!(error.to_string().contains("RAYSTREAM_PG_BIN"), "{error}");
    start(&data).await;
}

#[tokio::test]
async fn nothing_of_a_document_is_in_postgres_log() {
    let (data, _reaper) = folder_with_reaper();
    let embedded = start(&data).await;
    let store = connect(&embedded).await;
    set(&store, "t", "a", r#"{"u":"TOPSECRET"}"#).await;
    let ptr = store.table(&table("t")).await.expect("the table is there").quoted();
    let client = client(&embedded.config()).await;
    client
        .batch_execute(&format!("CREATE UNIQUE INDEX ON {ptr} ((data ->> 'u'))"))
        .await
        .expect("the index is made");
    let twice = store.set(WRITER, &table("t"), &id("b"), json(r#"{"u":"TOPSECRET"}"#), None).await;
    assert_eq!(twice, Err(StoreError::Taken));
    let wrong = store.set(WRITER, &table("t"), &id("b"), json(r#"{"u":"TOPSECRET}"#), None).await;
    assert!(matches!(wrong, Err(StoreError::InvalidInput(_))));
    store.query(&table("t"), Query::default()).await.expect("the table is there");
    embedded.stop().await;
    let log = fs::read_to_string(data.join("postgres.log")).expect("there is a log");
    assert!(log.contains("ready to accept connections"), "the log is empty: {log}");
    assert!(!log.contains("TOPSECRET") && !log.contains("INSERT"), "{log}");
}
