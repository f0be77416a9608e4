//! As whom Postgres runs: as the daemon's own user, or, since it refuses to run as root, as one with no other rights.

use std::fs::{self, Metadata, Permissions};
use std::os::unix::fs::{MetadataExt, PermissionsExt};
use std::path::Path;

use super::error::{Context, EmbeddedError};

/// A user that Postgres is run as by a daemon that is root.
#[derive(Debug, Clone, PartialEq, Eq)]
pub(super) struct Account {
    pub(super) name: String,
    pub(super) uid: u32,
    pub(super) gid: u32,
}

/// The user to run Postgres as, or `None`: the daemon's own. A cluster that exists stays with the user it belongs to.
pub(super) fn choose(cluster: &Path) -> Result<Option<Account>, EmbeddedError> {
    if !rustix::process::geteuid().is_root() {
        return Ok(None);
    }
    let users = fs::read_to_string("/etc/passwd").context("cannot read", Path::new("/etc/passwd"))?;
    if let Ok(owner) = fs::metadata(cluster)
        && owner.uid() != 0
    {
        let name = parse(&users).find(|account| account.uid == owner.uid()).map(|account| account.name);
        let name = name.unwrap_or_else(|| owner.uid().to_string());
        return Ok(Some(Account { name, uid: owner.uid(), gid: owner.gid() }));
    }
    let by_name = |name: &str| parse(&users).find(|account| account.name == name && account.uid != 0);
    by_name("postgres").or_else(|| by_name("nobody")).map(Some).ok_or(EmbeddedError::NoUser)
}

/// The users of an `/etc/passwd`.
fn parse(users: &str) -> impl Iterator<Item = Account> + '_ {
    users.lines().filter_map(|line| {
        let mut fields = line.split(':');
        let name = fields.next()?.to_owned();
        let uid = fields.nth(1)?.parse().ok()?;
        let gid = fields.next()?.parse().ok()?;
        Some(Account { name, uid, gid })
    })
}

/// Makes sure that the user can get to what is in `data`: lets others pass through it (and not list it), and refuses a
/// folder above it that does not.
pub(super) fn make_reachable(data: &Path, account: &Account) -> Result<(), EmbeddedError> {
    let metadata = fs::metadata(data).context("cannot look at", data)?;
    if !may_pass(&metadata, account) {
        let mode = metadata.permissions().mode() | 0o011;
        fs::set_permissions(data, Permissions::from_mode(mode)).context("cannot change the mode of", data)?;
    }
    for folder in data.ancestors().skip(1) {
        let metadata = fs::metadata(folder).context("cannot look at", folder)?;
        if !may_pass(&metadata, account) {
            return Err(EmbeddedError::NotTraversable {
                folder: folder.to_owned(),
                user: account.name.clone(),
            });
        }
    }
    Ok(())
}

/// Whether the user may pass through a folder, by its mode.
fn may_pass(folder: &Metadata, account: &Account) -> bool {
    let bit = if folder.uid() == account.uid {
        0o100
    } else if folder.gid() == account.gid {
        0o010
    } else {
        0o001
    };
    folder.permissions().mode() & bit != 0
}

#[cfg(test)]
mod tests {
    use super::*;

    /// A user that owns nothing here.
    fn stranger() -> Account {
        Account { name: "stranger".to_owned(), uid: 4_000_000, gid: 4_000_000 }
    }

    #[test]
    fn users_are_read() {
        let users: Vec<Account> =
            parse("root:x:0:0:root:/root:/bin/sh\nbroken\nnobody:x:65534:65533::/:/bin/false\n").collect();
        assert_eq!(users.len(), 2);
        assert_eq!(users[1], Account { name: "nobody".to_owned(), uid: 65534, gid: 65533 });
    }

    #[test]
    fn the_folder_itself_is_opened_for_passing_only() {
        let data =
            tempfile::Builder::new().permissions(Permissions::from_mode(0o700)).tempdir().expect("a folder");
        make_reachable(data.path(), &stranger()).expect("the temporary folder is reachable");
        let mode = fs::metadata(data.path()).expect("it is there").permissions().mode();
        assert_eq!(mode & 0o777, 0o711);
    }

    #[test]
    fn a_closed_folder_above_is_named() {
        let above =
            tempfile::Builder::new().permissions(Permissions::from_mode(0o700)).tempdir().expect("a folder");
        let data = above.path().join("data");
        fs::create_dir(&data).expect("a folder in it");
        let error = make_reachable(&data, &stranger()).expect_err("the folder above is closed");
        assert!(error.to_string().contains(&above.path().display().to_string()), "{error}");
        let mode = fs::metadata(above.path()).expect("it is there").permissions().mode();
        assert_eq!(mode & 0o777, 0o700, "a folder that is not ours was changed");
    }
}
