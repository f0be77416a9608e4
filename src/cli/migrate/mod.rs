//! `raystream migrate`

mod files;
mod show;

use std::path::PathBuf;

use clap::{Args, Subcommand};
use serde_json::json;

use super::attach::DatabaseArguments;
use super::{Failure, Output};
use crate::migrations::{Applied, Lock, Migration, MigrationFault, Planned, file_name, skeleton};
use crate::store::StartError;
use crate::store::migrations::{MigrateError, Migrator, applied};
use files::Folder;

/// Bring tables to what raystream.schema.toml declares
///
/// Changes that lose nothing are made by themselves. Those that can (removing, renaming, another type) are made by a file in
/// migrations/ that `create` writes and you read. What was applied is recorded in the database and in raystream.lock.json,
/// which belongs to the schema file.
#[derive(Debug, Args)]
pub(super) struct MigrateArguments {
    #[command(subcommand)]
    command: MigrateCommand,
}

#[derive(Debug, Subcommand)]
enum MigrateCommand {
    /// Show what `up` would do, by the files alone
    Plan(FolderArguments),
    /// Write the file of a migration that you review
    Create(CreateArguments),
    /// Apply what the database lacks
    Up(UpArguments),
    /// Revert the newest migration
    Down(DownArguments),
    /// Show what the database has
    Status(StatusArguments),
}

#[derive(Debug, Args)]
struct FolderArguments {
    /// The folder of raystream.schema.toml, raystream.lock.json and migrations/
    #[arg(long, value_name = "DIR", default_value = ".")]
    dir: PathBuf,
}

#[derive(Debug, Args)]
struct CreateArguments {
    #[command(flatten)]
    folder: FolderArguments,
    /// What it does, in letters, digits, - and _: a part of the file's name
    #[arg(value_name = "NAME")]
    name: String,
}

#[derive(Debug, Args)]
struct UpArguments {
    #[command(flatten)]
    folder: FolderArguments,
    #[command(flatten)]
    database: DatabaseArguments,
    /// Apply only what raystream.lock.json has, and refuse when that is not all: for servers
    #[arg(long)]
    locked: bool,
}

#[derive(Debug, Args)]
struct DownArguments {
    #[command(flatten)]
    folder: FolderArguments,
    #[command(flatten)]
    database: DatabaseArguments,
}

#[derive(Debug, Args)]
struct StatusArguments {
    #[command(flatten)]
    folder: FolderArguments,
    #[command(flatten)]
    database: DatabaseArguments,
}

pub(super) fn run(arguments: &MigrateArguments, output: &mut Output) -> Result<(), Failure> {
    match &arguments.command {
        MigrateCommand::Plan(folder) => plan(&Folder::new(&folder.dir), output),
        MigrateCommand::Create(arguments) => create(arguments, output),
        MigrateCommand::Up(arguments) => up(arguments, output),
        MigrateCommand::Down(arguments) => down(arguments, output),
        MigrateCommand::Status(arguments) => status(arguments, output),
    }
}

fn plan(folder: &Folder, output: &mut Output) -> Result<(), Failure> {
    let plan = folder.read()?.plan(None)?;
    output.result(show::plan_text(&plan), &show::plan_value(&plan))?;
    Ok(plan.require_complete()?)
}

/// Everything that is not locked and in no file yet goes into the file: also the safe changes belong to the one who reviews.
fn create(arguments: &CreateArguments, output: &mut Output) -> Result<(), Failure> {
    let folder = Folder::new(&arguments.folder.dir);
    let plan = folder.read()?.plan(None)?;
    let version = plan.next();
    let text = skeleton(version, &arguments.name, &plan.declared, &plan.changes)?;
    let path = folder.create(&file_name(version, &arguments.name), &text)?;
    let changes: Vec<_> = plan.changes.iter().map(show::change_value).collect();
    output
        .result(path.display().to_string(), &json!({ "file": path, "version": version, "changes": changes }))
}

fn up(arguments: &UpArguments, output: &mut Output) -> Result<(), Failure> {
    let folder = Folder::new(&arguments.folder.dir);
    let content = folder.read()?;
    let endpoint = arguments.database.resolve(output)?;
    let (done, version, lock, error) = block_on(async {
        let mut migrator = Migrator::start(&endpoint).await?;
        let plan = content.plan(Some(&migrator.applied().await?))?;
        plan.require_complete()?;
        if arguments.locked {
            plan.require_locked()?;
        }
        let (mut done, mut error) = (Vec::new(), None);
        for planned in plan.pending() {
            match migrator.apply(&planned.migration).await {
                Ok(()) => done.push(planned.migration.clone()),
                Err(failed) => {
                    error = Some(failed);
                    break;
                }
            }
        }
        // What was applied before a failure is done, and is recorded. Where the connection broke the next `up` records it.
        let recorded = async {
            let applied = migrator.applied().await?;
            let lock = match applied.len() > content.lock.migrations.len() {
                true => {
                    lock_of(&migrator, &content.lock, &plan.migrations[..applied.len()], &applied).await?
                }
                false => content.lock.clone(),
            };
            Ok::<_, MigrateError>((u32::try_from(applied.len()).ok(), lock))
        };
        let (version, lock) = recorded.await.unwrap_or_else(|unread| {
            error.get_or_insert(unread);
            (None, content.lock.clone())
        });
        Ok((done, version, lock, error))
    })?;
    if lock != content.lock {
        folder.write_lock(&lock)?;
    }
    if error.is_none() || !done.is_empty() {
        output.result(
            show::done_text("applied", &done, version),
            &show::done_value("applied", &done, version),
        )?;
    }
    error.map_or(Ok(()), |error| Err(error.into()))
}

/// The lock file of a history that the database has. What the file had before keeps its time.
async fn lock_of(
    migrator: &Migrator,
    before: &Lock,
    history: &[Planned],
    applied: &[Applied],
) -> Result<Lock, MigrateError> {
    let timestamp = |(at, there): (usize, &Applied)| match before.migrations.get(at) {
        Some(locked) => locked.timestamp.clone(),
        None => there.applied_at.clone(),
    };
    let timestamps: Vec<String> = applied.iter().enumerate().map(timestamp).collect();
    let history: Vec<Migration> = history.iter().map(|planned| planned.migration.clone()).collect();
    Ok(Lock::of(&history, &timestamps, &migrator.ptrs().await?)?)
}

fn down(arguments: &DownArguments, output: &mut Output) -> Result<(), Failure> {
    let folder = Folder::new(&arguments.folder.dir);
    let content = folder.read()?;
    let endpoint = arguments.database.resolve(output)?;
    let (reverted, lock) = block_on(async {
        let mut migrator = Migrator::start(&endpoint).await?;
        let applied = migrator.applied().await?;
        // An edited file, or another history, is no reason to guess.
        let plan = content.plan(Some(&applied))?;
        let newest = applied.len().checked_sub(1).ok_or(MigrateError::Nothing)?;
        let migration = plan.migrations[newest].migration.clone();
        migrator.revert(&migration).await?;
        // Of a lock file that goes on, or that a later file goes on from, nothing is taken away: only a file can be read again.
        let goes_on = applied.len() < content.lock.migrations.len();
        if goes_on || !migration.reviewed && content.has_file_after(migration.version) {
            return Ok((migration, content.lock.clone()));
        }
        let left = &plan.migrations[..newest];
        Ok((migration, lock_of(&migrator, &content.lock, left, &applied).await?))
    })?;
    if lock != content.lock {
        folder.write_lock(&lock)?;
    }
    let version = Some(reverted.version.saturating_sub(1));
    let done = [reverted];
    output.result(show::done_text("reverted", &done, version), &show::done_value("reverted", &done, version))
}

fn status(arguments: &StatusArguments, output: &mut Output) -> Result<(), Failure> {
    let content = Folder::new(&arguments.folder.dir).read()?;
    let endpoint = arguments.database.resolve(output)?;
    let there = block_on(applied(&endpoint))?;
    let plan = content.plan(Some(&there))?;
    output.result(show::status_text(&plan), &show::status_value(&plan))
}

fn block_on<T>(work: impl Future<Output = Result<T, MigrateError>>) -> Result<T, Failure> {
    let runtime = super::runtime::build();
    let runtime = runtime.map_err(|error| Failure::failed(format!("cannot start threads: {error}")))?;
    Ok(runtime.block_on(work)?)
}

impl From<MigrateError> for Failure {
    fn from(error: MigrateError) -> Self {
        match error {
            MigrateError::Fault(fault) => fault.into(),
            MigrateError::Start(StartError::Unreachable(_)) | MigrateError::Unknown { .. } => {
                Self::connection(error.to_string())
            }
            _ => Self::failed(error.to_string()),
        }
    }
}

impl From<MigrationFault> for Failure {
    fn from(fault: MigrationFault) -> Self {
        let hint = match &fault {
            MigrationFault::Dangerous(_) => {
                Some("raystream migrate create NAME writes it, for you to read and change")
            }
            MigrationFault::NotLocked(_) => {
                Some("raystream migrate up without --locked, where the schema is worked on")
            }
            _ => None,
        };
        Self::failed(fault.to_string()).with_optional_hint(hint.map(str::to_owned))
    }
}
