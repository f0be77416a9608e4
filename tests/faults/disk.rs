//! A disk of its own for a cluster, which can be made full at once and empty again.
//!
//! It is a file system in memory whose size is changed while it is used, so that being full costs no memory. Mounting needs
//! root; without it there is no such disk, and the run says so and does without this fault.

use std::fs;
use std::path::{Path, PathBuf};
use std::process::{Child, Command, Stdio};

/// The size of the disk when it is not full: more than the longest run writes. It takes what is written and no more.
const SIZE: &str = "2g";

/// How often to try to catch the size that the disk has just now.
const TRIES: usize = 100;

/// The disk. It goes when this is dropped, or when the process of the tests ends.
pub(crate) struct Disk {
    path: PathBuf,
    /// Takes the disk away when this process ends, however it ends.
    _reaper: Child,
}

impl Disk {
    /// Puts one where a folder is, for a user and group.
    pub(crate) fn mount(path: &Path, account: Option<(u32, u32)>) -> Option<Self> {
        let (uid, gid) = account?;
        let options = format!("size={SIZE},mode=0700,uid={uid},gid={gid}");
        let mount = Command::new("mount")
            .args(["-t", "tmpfs", "-o", &options, "tmpfs"])
            .arg(path)
            .stderr(Stdio::null())
            .status();
        if !mount.is_ok_and(|status| status.success()) {
            return None;
        }
        let reaper = Command::new("sh")
            .args(["-c", "cat >/dev/null; umount -l \"$0\""])
            .arg(path)
            .stdin(Stdio::piped())
            .stderr(Stdio::null())
            .spawn()
            .expect("there is a shell");
        Some(Self { path: path.to_owned(), _reaper: reaper })
    }

    fn resize(&self, size: &str) -> bool {
        let mount = Command::new("mount")
            .args(["-o", &format!("remount,size={size}")])
            .arg(&self.path)
            .stderr(Stdio::null())
            .status();
        mount.is_ok_and(|status| status.success())
    }

    /// From now on nothing fits that is not there yet.
    pub(crate) fn fill(&self) {
        let is_full = (0..TRIES).any(|_| {
            let output = Command::new("df").args(["-k", "--output=used"]).arg(&self.path).output();
            let used = String::from_utf8(output.expect("there is a df").stdout).expect("df writes text");
            let used: u64 = used.lines().nth(1).and_then(|line| line.trim().parse().ok()).expect("a number");
            // A size below what is used is refused: Postgres wrote in between.
            self.resize(&format!("{used}k")) && !self.has_room()
        });
        assert!(is_full, "the disk cannot be filled");
    }

    /// Whether a megabyte fits. Postgres may have removed something in the last moment.
    fn has_room(&self) -> bool {
        let probe = self.path.join("probe");
        let written = fs::write(&probe, vec![1; 1 << 20]);
        let _may_not_be_there = fs::remove_file(probe);
        written.is_ok()
    }

    /// There is room again.
    pub(crate) fn free(&self) {
        assert!(self.resize(SIZE), "a disk can be made larger");
    }
}

impl Drop for Disk {
    fn drop(&mut self) {
        let _may_be_gone = Command::new("umount").arg("-l").arg(&self.path).stderr(Stdio::null()).status();
    }
}
