//! Where the programs of Postgres are.

use std::ffi::OsStr;
use std::path::{Path, PathBuf};
use std::process::Command;

use super::error::EmbeddedError;

/// The oldest usable version.
const MAJOR_LEAST: u32 = 14;

/// Where Debian and Ubuntu put the programs of each version; they are not in PATH there.
const DEBIAN: &str = "/usr/lib/postgresql";

/// The programs of one version.
#[derive(Debug, Clone, PartialEq, Eq)]
pub(super) struct Programs {
    folder: PathBuf,
    pub(super) major: u32,
}

impl Programs {
    pub(super) fn initdb(&self) -> PathBuf {
        self.folder.join("initdb")
    }

    pub(super) fn postgres(&self) -> PathBuf {
        self.folder.join("postgres")
    }
}

/// Finds programs: those in the folder that the operator names, else the first in PATH, else the highest of Debian's. With
/// a cluster's folder, the first that are of the version of its data.
pub(super) fn find(named: Option<&Path>, cluster: &Path) -> Result<Programs, EmbeddedError> {
    let found: Vec<Programs> = match named {
        Some(folder) => vec![probe(folder).ok_or_else(|| EmbeddedError::NotPrograms(folder.to_owned()))?],
        None => {
            let path = std::env::var_os("PATH").unwrap_or_default();
            candidates(&path, Path::new(DEBIAN)).iter().filter_map(|folder| probe(folder)).collect()
        }
    };
    choose(found, data_major(cluster), cluster)
}

/// The first programs that can run the data, or the first at all.
fn choose(found: Vec<Programs>, data: Option<u32>, cluster: &Path) -> Result<Programs, EmbeddedError> {
    let majors = found.iter().map(|programs| programs.major.to_string()).collect::<Vec<_>>().join(", ");
    let Some(data) = data else {
        return found.into_iter().next().ok_or(EmbeddedError::NoPrograms);
    };
    if found.is_empty() {
        return Err(EmbeddedError::NoPrograms);
    }
    found.into_iter().find(|programs| programs.major == data).ok_or_else(|| EmbeddedError::OtherVersion {
        folder: cluster.to_owned(),
        data,
        found: majors,
    })
}

/// The folders to look into, the best first.
fn candidates(path: &OsStr, debian: &Path) -> Vec<PathBuf> {
    let mut folders: Vec<PathBuf> =
        std::env::split_paths(path).filter(|folder| folder.is_absolute()).collect();
    let mut versions: Vec<(u32, PathBuf)> = std::fs::read_dir(debian)
        .into_iter()
        .flatten()
        .filter_map(|entry| {
            let entry = entry.ok()?;
            let version = entry.file_name().to_str()?.parse().ok()?;
            Some((version, entry.path().join("bin")))
        })
        .collect();
    versions.sort_by_key(|(version, _)| std::cmp::Reverse(*version));
    folders.extend(versions.into_iter().map(|(_, folder)| folder));
    folders
}

/// The programs in a folder, when they are both there and new enough.
fn probe(folder: &Path) -> Option<Programs> {
    let postgres = folder.join("postgres");
    if !postgres.is_file() || !folder.join("initdb").is_file() {
        return None;
    }
    let output = Command::new(&postgres).arg("--version").output().ok()?;
    let major = major_of(std::str::from_utf8(&output.stdout).ok()?)?;
    (major >= MAJOR_LEAST).then(|| Programs { folder: folder.to_owned(), major })
}

/// The major version in `postgres (PostgreSQL) 15.18 (Debian ..)`, also of a beta, `18beta1`.
fn major_of(text: &str) -> Option<u32> {
    let version = text.split_whitespace().nth(2)?;
    let digits = version.split(|character: char| !character.is_ascii_digit()).next()?;
    digits.parse().ok()
}

/// The version that made the data in a cluster's folder.
fn data_major(cluster: &Path) -> Option<u32> {
    std::fs::read_to_string(cluster.join("PG_VERSION")).ok()?.trim().parse().ok()
}

#[cfg(test)]
mod tests {
    use super::*;

    fn programs(major: u32) -> Programs {
        Programs { folder: PathBuf::from(format!("/pg/{major}")), major }
    }

    #[test]
    fn versions_are_read() {
        assert_eq!(major_of("postgres (PostgreSQL) 15.18 (Debian 15.18-0+deb12u1)\n"), Some(15));
        assert_eq!(major_of("postgres (PostgreSQL) 18beta1"), Some(18));
        assert_eq!(major_of("something else"), None);
    }

    #[test]
    fn the_highest_of_debians_versions_comes_first_and_after_path() {
        let debian = tempfile::tempdir().expect("a temporary folder");
        for version in ["9.6", "14", "100", "16", "notes"] {
            std::fs::create_dir(debian.path().join(version)).expect("a folder in it");
        }
        let found = candidates(OsStr::new("/first:relative:/second"), debian.path());
        let expected: Vec<PathBuf> = ["/first", "/second"].iter().map(PathBuf::from).collect();
        assert_eq!(found[..2], expected);
        let versions: Vec<PathBuf> =
            ["100", "16", "14"].iter().map(|v| debian.path().join(v).join("bin")).collect();
        assert_eq!(found[2..], versions);
    }

    #[test]
    fn data_gets_programs_of_its_version_or_an_error_that_names_both() {
        let cluster = Path::new("/data/postgres");
        let both = || vec![programs(16), programs(15)];
        assert_eq!(choose(both(), None, cluster).expect("the first"), programs(16));
        assert_eq!(choose(both(), Some(15), cluster).expect("its own"), programs(15));
        let error = choose(both(), Some(14), cluster).expect_err("there are none of 14");
        assert!(error.to_string().contains("postgresql-14"), "{error}");
        assert!(error.to_string().contains("16, 15"), "{error}");
        let none = choose(Vec::new(), None, cluster).expect_err("there are none at all");
        assert!(none.to_string().contains("apt-get install postgresql"), "{none}");
    }

    #[test]
    fn a_named_folder_without_programs_is_an_error_and_not_passed_over() {
        let folder = tempfile::tempdir().expect("a temporary folder");
        let error = find(Some(folder.path()), folder.path()).expect_err("the folder is empty");
        assert!(matches!(error, EmbeddedError::NotPrograms(_)), "{error}");
    }
}
