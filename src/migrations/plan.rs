//! What has to be done: the lock file, the files of migrations, the schema and, when it is known, what a database has.

use std::collections::BTreeMap;

use super::change::Change;
use super::error::MigrationFault;
use super::lock::Lock;
use super::schema::Tables;
use super::source::{Migration, parse_file_name};

/// A file of the folder of migrations.
#[derive(Debug, Clone)]
pub struct MigrationFile {
    /// Its name.
    pub name: String,
    /// What is in it.
    pub text: String,
}

/// A migration that a database has.
#[derive(Debug, Clone, PartialEq, Eq)]
pub struct Applied {
    /// Its number.
    pub version: u32,
    /// Its name.
    pub name: String,
    /// Whether it is a file.
    pub reviewed: bool,
    /// [`Migration::hash`].
    pub hash: String,
    /// Its text.
    pub source: String,
    /// When, RFC 3339 by the clock of the database.
    pub applied_at: String,
}

/// A migration of the plan.
#[derive(Debug, Clone, PartialEq)]
pub struct Planned {
    /// The migration.
    pub migration: Migration,
    /// Whether the lock file has it.
    pub is_locked: bool,
    /// When the database applied it.
    pub applied_at: Option<String>,
}

/// The plan.
#[derive(Debug, Clone, PartialEq)]
pub struct Plan {
    /// All migrations, also those that are done: in order and without a gap.
    pub migrations: Vec<Planned>,
    /// The declared tables after those that are recorded or a file.
    pub declared: Tables,
    /// What separates them from the schema. When all of it is safe, the last migration makes it.
    pub changes: Vec<Change>,
}

impl Plan {
    /// The migrations that the database does not have.
    pub fn pending(&self) -> impl Iterator<Item = &Planned> {
        self.migrations.iter().filter(|planned| planned.applied_at.is_none())
    }

    /// The number that a file for [`Plan::changes`] has.
    pub fn next(&self) -> u32 {
        let is_automatic = !self.changes.is_empty() && self.changes.iter().all(Change::is_safe);
        number_after(self.migrations.len() - usize::from(is_automatic))
    }

    /// Refuses a plan that does not lead to the schema.
    ///
    /// # Errors
    /// [`MigrationFault::Dangerous`].
    pub fn require_complete(&self) -> Result<(), MigrationFault> {
        let dangerous: Vec<String> =
            self.changes.iter().filter(|change| !change.is_safe()).map(Change::to_string).collect();
        if dangerous.is_empty() { Ok(()) } else { Err(MigrationFault::Dangerous(dangerous.join(", "))) }
    }

    /// Refuses a plan with migrations that the lock file does not have.
    ///
    /// # Errors
    /// [`MigrationFault::NotLocked`].
    pub fn require_locked(&self) -> Result<(), MigrationFault> {
        match self.migrations.iter().find(|planned| !planned.is_locked) {
            None => Ok(()),
            Some(planned) => {
                let Migration { version, name, .. } = &planned.migration;
                Err(MigrationFault::NotLocked(format!("it lacks migration {version} ({name})")))
            }
        }
    }
}

fn number_after(count: usize) -> u32 {
    u32::try_from(count).map_or(u32::MAX, |count| count.saturating_add(1))
}

/// Plans. Without `applied`, what the lock file has counts as what the database has.
///
/// # Errors
/// [`MigrationFault`]: the parts do not fit together.
pub fn plan(
    schema: &Tables,
    lock: &Lock,
    files: &[MigrationFile],
    applied: Option<&[Applied]>,
) -> Result<Plan, MigrationFault> {
    let files = Files::read(files)?;
    let mut history = Vec::new();
    for locked in &lock.migrations {
        history.push(if locked.reviewed {
            files.find(locked.version, &locked.name, &locked.hash, "locked")?
        } else {
            files.refuse(
                locked.version,
                "the lock file has an automatic migration under it; rename the file",
            )?;
            locked.rendered()
        });
    }
    if let Some(applied) = applied {
        compare(&mut history, &files, applied)?;
    }
    for (version, (file, migration)) in &files.0 {
        let next = number_after(history.len());
        if *version >= next {
            if *version > next {
                let (file, found) = (file.clone(), *version);
                return Err(MigrationFault::FileNumber {
                    file,
                    found,
                    next,
                    reason: "there is a gap before it",
                });
            }
            history.push(migration.clone());
        }
    }
    let mut declared = Tables::default();
    history.iter().try_for_each(|migration| migration.apply(&mut declared))?;
    let changes = declared.diff(schema);
    if !changes.is_empty() && changes.iter().all(Change::is_safe) {
        history.push(Migration::automatic(number_after(history.len()), &declared, changes.clone())?);
    }
    let planned = |(at, migration): (usize, Migration)| {
        let locked = lock.migrations.get(at);
        let applied_at = match applied {
            Some(applied) => applied.get(at).map(|applied| applied.applied_at.clone()),
            None => locked.map(|locked| locked.timestamp.clone()),
        };
        Planned { migration, is_locked: locked.is_some(), applied_at }
    };
    Ok(Plan { migrations: history.into_iter().enumerate().map(planned).collect(), declared, changes })
}

/// Refuses a database with another history, and takes over what it has more: that of an `up` that ended before the lock file
/// was written, or of somebody else's whose files are here.
fn compare(history: &mut Vec<Migration>, files: &Files, applied: &[Applied]) -> Result<(), MigrationFault> {
    for (at, there) in applied.iter().enumerate() {
        let Applied { version, name, .. } = there;
        match history.get(at) {
            Some(here) if here.hash() == there.hash && here.version == *version => {}
            Some(here) if here.reviewed && there.reviewed && here.name == *name => {
                return Err(edited(&here.file_name(), "applied", here.hash(), &there.hash));
            }
            Some(here) => {
                let (applied, here) = (name.clone(), here.name.clone());
                return Err(MigrationFault::Diverged { version: *version, applied, here });
            }
            None if *version != number_after(at) => {
                return Err(MigrationFault::Ahead { version: *version, name: name.clone() });
            }
            None if there.reviewed => match files.find(*version, name, &there.hash, "applied") {
                Err(MigrationFault::FileMissing { .. }) => {
                    return Err(MigrationFault::Ahead { version: *version, name: name.clone() });
                }
                found => history.push(found?),
            },
            None => {
                files
                    .refuse(*version, "the database has an automatic migration under it; rename the file")?;
                history.push(Migration::parse(*version, name, false, &there.source)?);
            }
        }
    }
    Ok(())
}

fn edited(file: &str, when: &'static str, found: String, recorded: &str) -> MigrationFault {
    MigrationFault::Edited { file: file.to_owned(), when, found, recorded: recorded.to_owned() }
}

/// The files of migrations by number, with their names.
struct Files(BTreeMap<u32, (String, Migration)>);

impl Files {
    fn read(files: &[MigrationFile]) -> Result<Self, MigrationFault> {
        let mut read = BTreeMap::new();
        for file in files.iter().filter(|file| file.name.ends_with(".sql")) {
            let fault =
                |message: &str| MigrationFault::File { file: file.name.clone(), message: message.to_owned() };
            let Some((version, name)) = parse_file_name(&file.name) else {
                return Err(fault("the name of a migration is like 0012_what_it_does.sql"));
            };
            let migration = Migration::parse(version, name, true, &file.text)?;
            if let Some((other, _)) = read.insert(version, (file.name.clone(), migration)) {
                return Err(fault(&format!("it has the same number as {other}")));
            }
        }
        Ok(Self(read))
    }

    /// The file that was recorded, which has to be the same.
    fn find(
        &self,
        version: u32,
        name: &str,
        hash: &str,
        when: &'static str,
    ) -> Result<Migration, MigrationFault> {
        let found = self.0.get(&version).filter(|(_, migration)| migration.name == name);
        let Some((file, migration)) = found else {
            return Err(MigrationFault::FileMissing { file: super::source::file_name(version, name) });
        };
        if migration.hash() == hash {
            Ok(migration.clone())
        } else {
            Err(edited(file, when, migration.hash(), hash))
        }
    }

    /// Refuses a file whose number is taken.
    fn refuse(&self, version: u32, reason: &'static str) -> Result<(), MigrationFault> {
        match self.0.get(&version) {
            None => Ok(()),
            Some((file, _)) => {
                let next = version.saturating_add(1);
                Err(MigrationFault::FileNumber { file: file.clone(), found: version, next, reason })
            }
        }
    }
}

#[cfg(test)]
mod tests {
    use super::super::source::skeleton;
    use super::*;

    const ONE: &str = "[tables.t.fields]\na = 'string'";
    const TWO: &str = "[tables.t.fields]\na = 'string'\nb = 'number'";
    const RENAMED: &str = "[tables.t.fields]\nc = { type = 'string', was = 'a' }\nb = 'number'";

    fn tables(text: &str) -> Tables {
        Tables::parse(text).expect("a good schema")
    }

    /// As a database has it after the plan, and the lock file then.
    fn done(plan: &Plan) -> (Vec<Applied>, Lock) {
        let history: Vec<Migration> =
            plan.migrations.iter().map(|planned| planned.migration.clone()).collect();
        let record = |migration: &Migration| Applied {
            version: migration.version,
            name: migration.name.clone(),
            reviewed: migration.reviewed,
            hash: migration.hash(),
            source: migration.source.clone(),
            applied_at: format!("at {}", migration.version),
        };
        let applied: Vec<Applied> = history.iter().map(record).collect();
        let timestamps: Vec<String> = applied.iter().map(|applied| applied.applied_at.clone()).collect();
        let lock = Lock::of(&history, &timestamps, &BTreeMap::new()).expect("it fits");
        (applied, lock)
    }

    fn pending(plan: &Plan) -> Vec<(u32, &str)> {
        plan.pending().map(|planned| (planned.migration.version, planned.migration.name.as_str())).collect()
    }

    fn file(version: u32, text: &str) -> MigrationFile {
        MigrationFile { name: format!("{version:04}_x.sql"), text: text.to_owned() }
    }

    /// The reviewed file that leads from [`TWO`] to [`RENAMED`].
    fn review(version: u32) -> MigrationFile {
        let changes = tables(TWO).diff(&tables(RENAMED));
        file(version, &skeleton(version, "x", &tables(TWO), &changes).expect("good"))
    }

    #[test]
    fn safe_changes_plan_themselves_and_dangerous_ones_need_a_file() {
        let first = plan(&tables(ONE), &Lock::default(), &[], Some(&[])).expect("a plan");
        assert_eq!(pending(&first), [(1, "automatic")]);
        let (applied, lock) = done(&first);
        let none = plan(&tables(ONE), &lock, &[], Some(&applied)).expect("a plan");
        assert_eq!((pending(&none), none.next()), (vec![], 2));
        assert!(none.require_locked().is_ok());

        let second = plan(&tables(TWO), &lock, &[], None).expect("a plan without a database");
        assert_eq!((pending(&second), second.next()), (vec![(2, "automatic")], 2));
        assert!(second.require_locked().is_err());
        let (applied, lock) = done(&plan(&tables(TWO), &lock, &[], Some(&applied)).expect("a plan"));

        let blocked = plan(&tables(RENAMED), &lock, &[], Some(&applied)).expect("it is shown");
        assert_eq!(pending(&blocked), []);
        let fault = blocked.require_complete().expect_err("it needs a file").to_string();
        assert!(fault.contains("rename_field t.a to c"), "{fault}");
        let reviewed = plan(&tables(RENAMED), &lock, &[review(3)], Some(&applied)).expect("a plan");
        assert_eq!(pending(&reviewed), [(3, "x")]);
        assert!(reviewed.require_complete().is_ok() && reviewed.changes.is_empty());
    }

    #[test]
    fn a_database_that_lags_gets_the_history_of_the_lock_file() {
        let (applied, lock) = done(&plan(&tables(TWO), &Lock::default(), &[], Some(&[])).expect("a plan"));
        let fresh = plan(&tables(TWO), &lock, &[], Some(&[])).expect("a plan");
        assert_eq!(pending(&fresh), [(1, "automatic")]);
        assert!(fresh.require_locked().is_ok());
        assert_eq!(fresh.migrations[0].migration.hash(), applied[0].hash);
    }

    #[test]
    fn what_a_database_has_more_is_taken_over() {
        // The lock file was not written any more; then the schema went on.
        let (applied, _) = done(&plan(&tables(ONE), &Lock::default(), &[], Some(&[])).expect("a plan"));
        let next = plan(&tables(TWO), &Lock::default(), &[], Some(&applied)).expect("a plan");
        assert_eq!(pending(&next), [(2, "automatic")]);
        // The same with a file, which has to be here.
        let (_, lock) = done(&plan(&tables(TWO), &Lock::default(), &[], Some(&[])).expect("a plan"));
        let (applied, _) = done(&plan(&tables(RENAMED), &lock, &[review(2)], Some(&[])).expect("a plan"));
        let taken = plan(&tables(RENAMED), &lock, &[review(2)], Some(&applied)).expect("a plan");
        assert_eq!(pending(&taken), []);
        let ahead = plan(&tables(RENAMED), &lock, &[], Some(&applied));
        assert!(matches!(ahead, Err(MigrationFault::Ahead { version: 2, .. })), "{ahead:?}");
    }

    #[test]
    fn an_edited_or_missing_file_is_refused() {
        let (_, lock) = done(&plan(&tables(TWO), &Lock::default(), &[], None).expect("a plan"));
        let (applied, lock) = done(&plan(&tables(RENAMED), &lock, &[review(2)], None).expect("a plan"));
        let mut other = review(2);
        other.text.push_str("-- one more word\n");
        let fault = plan(&tables(RENAMED), &lock, std::slice::from_ref(&other), None).expect_err("edited");
        assert!(matches!(&fault, MigrationFault::Edited { when: "locked", .. }), "{fault}");
        let fault = plan(&tables(RENAMED), &lock, &[], None).expect_err("missing");
        assert!(matches!(&fault, MigrationFault::FileMissing { .. }), "{fault}");
        // Also when the lock file was made anew for it.
        let (_, first) = done(&plan(&tables(TWO), &Lock::default(), &[], None).expect("a plan"));
        let (_, forged) =
            done(&plan(&tables(RENAMED), &first, std::slice::from_ref(&other), None).expect("a plan"));
        let fault = plan(&tables(RENAMED), &forged, &[other], Some(&applied)).expect_err("edited");
        assert!(matches!(&fault, MigrationFault::Edited { when: "applied", .. }), "{fault}");
    }

    #[test]
    fn two_histories_gaps_and_taken_numbers_are_refused() {
        let (applied, lock) = done(&plan(&tables(ONE), &Lock::default(), &[], None).expect("a plan"));
        let (_, other) = done(&plan(&tables(TWO), &Lock::default(), &[], None).expect("a plan"));
        let fault = plan(&tables(TWO), &other, &[], Some(&applied)).expect_err("another history");
        assert!(matches!(&fault, MigrationFault::Diverged { version: 1, .. }), "{fault}");
        for (files, part) in [
            (vec![file(3, "-- up\nSELECT 1;\n-- down\n")], "there is a gap"),
            (vec![file(1, "-- up\nSELECT 1;\n-- down\n")], "the lock file has an automatic migration"),
            (
                vec![MigrationFile { name: "2_x.sql".to_owned(), text: String::new() }],
                "like 0012_what_it_does.sql",
            ),
        ] {
            let fault = plan(&tables(ONE), &lock, &files, None).expect_err(part).to_string();
            assert!(fault.contains(part), "{fault}");
        }
        let twice = [review(2), MigrationFile { name: "0002_y.sql".to_owned(), ..review(2) }];
        let fault = plan(&tables(ONE), &lock, &twice, None).expect_err("twice").to_string();
        assert!(fault.contains("the same number as 0002_x.sql"), "{fault}");
        let unfitting = [file(2, "-- change: {\"type\":\"remove_table\",\"table\":\"u\"}\n-- up\n-- down\n")];
        let fault = plan(&tables(ONE), &lock, &unfitting, None).expect_err("no such table").to_string();
        assert!(fault.contains("migration 2 (x): there is no table `u`"), "{fault}");
        assert!(
            plan(
                &tables(ONE),
                &lock,
                &[MigrationFile { name: "README.md".to_owned(), text: String::new() }],
                None
            )
            .is_ok()
        );
    }
}
