//! The files that migrations are made of.

use std::fs::{self, File, OpenOptions};
use std::io::{self, ErrorKind, Write as _};
use std::path::{Path, PathBuf};

use crate::cli::Failure;
use crate::migrations::{
    Applied, LOCK_FILE, Lock, MigrationFault, MigrationFile, Plan, SCHEMA_FILE, Tables, parse_file_name, plan,
};

/// The folder of the files of migrations.
const MIGRATIONS: &str = "migrations";

/// A folder with a schema.
pub(super) struct Folder(PathBuf);

/// What is in it.
pub(super) struct Content {
    schema: Tables,
    pub(super) lock: Lock,
    files: Vec<MigrationFile>,
}

impl Content {
    pub(super) fn plan(&self, applied: Option<&[Applied]>) -> Result<Plan, MigrationFault> {
        plan(&self.schema, &self.lock, &self.files, applied)
    }

    /// Whether there is a file of a later migration.
    pub(super) fn has_file_after(&self, version: u32) -> bool {
        self.files.iter().filter_map(|file| parse_file_name(&file.name)).any(|(number, _)| number > version)
    }
}

fn unusable(path: &Path, what: &str, error: &io::Error) -> Failure {
    Failure::failed(format!("{} cannot be {what}: {error}", path.display()))
}

impl Folder {
    pub(super) fn new(path: &Path) -> Self {
        Self(path.to_owned())
    }

    /// Reads and checks all of it.
    pub(super) fn read(&self) -> Result<Content, Failure> {
        let path = self.0.join(SCHEMA_FILE);
        let schema = fs::read_to_string(&path).map_err(|error| {
            let failure = unusable(&path, "read", &error);
            match error.kind() {
                ErrorKind::NotFound => {
                    failure.with_hint("docs/migrations.md shows one; --dir says in which folder it is")
                }
                _ => failure,
            }
        })?;
        let path = self.0.join(LOCK_FILE);
        let lock = match fs::read_to_string(&path) {
            Ok(text) => Lock::parse(&text)?,
            Err(error) if error.kind() == ErrorKind::NotFound => Lock::default(),
            Err(error) => return Err(unusable(&path, "read", &error)),
        };
        Ok(Content { schema: Tables::parse(&schema)?, lock, files: self.files()? })
    }

    fn files(&self) -> Result<Vec<MigrationFile>, Failure> {
        let folder = self.0.join(MIGRATIONS);
        let entries = match fs::read_dir(&folder) {
            Ok(entries) => entries,
            Err(error) if error.kind() == ErrorKind::NotFound => return Ok(Vec::new()),
            Err(error) => return Err(unusable(&folder, "read", &error)),
        };
        let mut files = Vec::new();
        for entry in entries {
            let path = entry.map_err(|error| unusable(&folder, "read", &error))?.path();
            let name = path.file_name().map(|name| name.to_string_lossy().into_owned()).unwrap_or_default();
            if name.ends_with(".sql") {
                let text = fs::read_to_string(&path).map_err(|error| unusable(&path, "read", &error))?;
                files.push(MigrationFile { name, text });
            }
        }
        // Of two that are wrong, always the same one is told.
        files.sort_by(|a, b| a.name.cmp(&b.name));
        Ok(files)
    }

    /// Writes a file that is not there yet.
    pub(super) fn create(&self, name: &str, text: &str) -> Result<PathBuf, Failure> {
        let folder = self.0.join(MIGRATIONS);
        fs::create_dir_all(&folder).map_err(|error| unusable(&folder, "made", &error))?;
        let path = folder.join(name);
        let file = OpenOptions::new().write(true).create_new(true).open(&path);
        let written = file.and_then(|mut file| file.write_all(text.as_bytes()));
        written.map_err(|error| unusable(&path, "written", &error))?;
        Ok(path)
    }

    /// Writes the lock file: whoever reads it sees the old one or the new one, whatever happens to us.
    pub(super) fn write_lock(&self, lock: &Lock) -> Result<(), Failure> {
        let path = self.0.join(LOCK_FILE);
        // Of this process, so that two that end at the same time do not write into one file.
        let next = self.0.join(format!("{LOCK_FILE}.{}", std::process::id()));
        let write = || -> io::Result<()> {
            let mut file = File::create(&next)?;
            file.write_all(lock.to_text().as_bytes())?;
            file.sync_all()?;
            fs::rename(&next, &path)
        };
        write().map_err(|error| {
            let _ = fs::remove_file(&next);
            unusable(&path, "written", &error)
                .with_hint("the database has it nevertheless; when the file can be written, `raystream migrate up` writes it")
        })
    }
}
