//! What Postgres says, in a file of bounded size. It comes through a pipe: the data folder is the daemon's, so Postgres
//! could not write there, and its own rotation bounds the number of files, not their size.

use std::collections::VecDeque;
use std::fs::{File, OpenOptions};
use std::io::{self, BufRead, BufReader, Read, Write};
use std::path::PathBuf;
use std::sync::{Arc, Mutex, PoisonError};

/// The longest file. Above it the file becomes `.1`, and the `.1` before it goes.
const FILE_LEN_MAX: u64 = 4 * 1024 * 1024;

/// The longest line that is kept in one piece: a writer without line ends must not fill the memory.
const LINE_LEN_MAX: u64 = 16 * 1024;

/// How many of the last lines are kept for an error message.
const TAIL_LINES: usize = 8;

/// The log. Clones write to the same file.
#[derive(Debug, Clone)]
pub(super) struct Log(Arc<Mutex<Inner>>);

#[derive(Debug)]
struct Inner {
    path: PathBuf,
    file: File,
    len: u64,
    len_max: u64,
    tail: VecDeque<String>,
}

impl Log {
    /// Opens the file, to write at its end.
    pub(super) fn open(path: PathBuf) -> io::Result<Self> {
        Self::open_bounded(path, FILE_LEN_MAX)
    }

    fn open_bounded(path: PathBuf, len_max: u64) -> io::Result<Self> {
        let file = OpenOptions::new().create(true).append(true).open(&path)?;
        let len = file.metadata()?.len();
        Ok(Self(Arc::new(Mutex::new(Inner { path, file, len, len_max, tail: VecDeque::new() }))))
    }

    /// Copies lines until the other end is closed by all who have it.
    pub(super) fn copy(&self, from: impl Read) {
        let mut from = BufReader::new(from);
        let mut line = Vec::new();
        loop {
            line.clear();
            match from.by_ref().take(LINE_LEN_MAX).read_until(b'\n', &mut line) {
                Ok(0) | Err(_) => return,
                Ok(_) => self.write(&line),
            }
        }
    }

    fn write(&self, line: &[u8]) {
        let mut inner = self.0.lock().unwrap_or_else(PoisonError::into_inner);
        if inner.tail.len() == TAIL_LINES {
            inner.tail.pop_front();
        }
        inner.tail.push_back(String::from_utf8_lossy(line).trim_end().to_owned());
        // A full disk must not stop Postgres: the line is lost.
        if let Err(error) = inner.append(line) {
            tracing::debug!(%error, "a line of Postgres' log was not written");
        }
    }

    /// Forgets the lines before: what [`Log::tail`] gives is of the process that is started next.
    pub(super) fn clear_tail(&self) {
        self.0.lock().unwrap_or_else(PoisonError::into_inner).tail.clear();
    }

    /// The last lines, as one text.
    pub(super) fn tail(&self) -> String {
        let inner = self.0.lock().unwrap_or_else(PoisonError::into_inner);
        inner.tail.iter().cloned().collect::<Vec<_>>().join(" | ")
    }
}

impl Inner {
    fn append(&mut self, line: &[u8]) -> io::Result<()> {
        if self.len >= self.len_max {
            let mut old = self.path.clone().into_os_string();
            old.push(".1");
            std::fs::rename(&self.path, old)?;
            self.file = OpenOptions::new().create(true).append(true).open(&self.path)?;
            self.len = 0;
        }
        self.file.write_all(line)?;
        self.len += u64::try_from(line.len()).unwrap_or(u64::MAX);
        Ok(())
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn two_files_of_bounded_size_hold_the_newest_lines() {
        let folder = tempfile::tempdir().expect("a temporary folder");
        let path = folder.path().join("postgres.log");
        let log = Log::open_bounded(path.clone(), 1_000).expect("the file opens");
        let lines: String = (0..500).map(|number| format!("line {number}\n")).collect();
        log.copy(lines.as_bytes());
        let read = |path: PathBuf| std::fs::read_to_string(path).expect("the file is there");
        let (new, old) = (read(path.clone()), read(folder.path().join("postgres.log.1")));
        assert!(new.len() <= 1_020 && old.len() <= 1_020, "{} and {} bytes", new.len(), old.len());
        assert!(lines.ends_with(&(old + &new)), "the files are not the last lines");
        assert!(log.tail().ends_with("line 499"), "{}", log.tail());
    }

    #[test]
    fn a_line_without_end_is_cut() {
        let folder = tempfile::tempdir().expect("a temporary folder");
        let log = Log::open(folder.path().join("log")).expect("the file opens");
        log.copy(io::repeat(b'x').take(LINE_LEN_MAX * 3));
        let written = std::fs::metadata(folder.path().join("log")).expect("the file is there").len();
        assert_eq!(written, LINE_LEN_MAX * 3);
    }
}
