//! Key files: 32 secret bytes as 64 hexadecimal digits, readable by their owner alone.
//!
//! The format of a private key, and of a pre-shared key (which has no public half to name):
//!
//! ```text
//! # raystream private key; public key 4f1c...
//! 9d3e...
//! ```
//!
//! Lines that start with `#` are comments. A `public key` named in one has to belong to the secret: a file whose halves
//! were mixed up is refused, not used.

use std::fs::{self, File, OpenOptions};
use std::io::{self, Read as _, Write as _};
use std::os::unix::fs::{MetadataExt as _, OpenOptionsExt as _};
use std::path::{Path, PathBuf};

use zeroize::Zeroizing;

use crate::noise::{self, Psk, PublicKey, StaticSecret};

/// Bits of a mode that let group or others do something.
const OTHERS: u32 = 0o077;
/// The mode a key file is made with.
const OWNER_ONLY: u32 = 0o600;
/// No key file is longer: what is, is something else and is not read into memory.
const FILE_MAX: u64 = 4096;
/// Names the public key in the comment.
const PUBLIC_KEY_LABEL: &str = "public key ";

/// Why a key file cannot be used or made.
#[derive(Debug, thiserror::Error)]
pub enum KeyFileError {
    /// It cannot be opened or read.
    #[error("cannot read the key file {}: {source}", path.display())]
    Read {
        /// The file.
        path: PathBuf,
        /// What the system says.
        source: io::Error,
    },
    /// Group or others may read or write it.
    #[error("the key file {} is open to others (mode {mode:04o}): run `chmod 600 {}`", path.display(), path.display())]
    TooOpen {
        /// The file.
        path: PathBuf,
        /// Its permission bits.
        mode: u32,
    },
    /// Its content is no key.
    #[error("{} is no key file: {reason}", path.display())]
    Malformed {
        /// The file.
        path: PathBuf,
        /// What is wrong; never a part of the content.
        reason: &'static str,
    },
    /// There is something already.
    #[error("{} exists and is not overwritten: a lost private key cannot be made again", path.display())]
    Exists {
        /// The file.
        path: PathBuf,
    },
    /// It cannot be written.
    #[error("cannot write the key file {}: {source}", path.display())]
    Write {
        /// The file.
        path: PathBuf,
        /// What the system says.
        source: io::Error,
    },
    /// There is no file for the pre-shared key.
    #[error("{}: there is no such file, and with it no pre-shared key", .path.display())]
    NoPsk {
        /// Which file.
        path: PathBuf,
    },
    /// The system gives no random bytes.
    #[error("the system's random generator failed: {0}")]
    Random(getrandom::Error),
}

impl KeyFileError {
    /// What to do about it, as one command or sentence.
    pub fn hint(&self) -> Option<String> {
        match self {
            Self::TooOpen { path, .. } => Some(format!("chmod 600 {}", path.display())),
            Self::Exists { .. } => {
                Some("choose another file with --out, or move the old key away first".to_owned())
            }
            Self::NoPsk { path } => {
                Some(format!("(umask 077; openssl rand -hex 32 > {}) makes one", path.display()))
            }
            Self::Read { source, .. } if source.kind() == io::ErrorKind::NotFound => {
                Some("`raystream keygen --out FILE` makes a key".to_owned())
            }
            _ => None,
        }
    }
}

/// Reads a private key.
///
/// # Errors
/// [`KeyFileError`]; a file that others may read is refused.
pub fn read_secret(path: &Path) -> Result<StaticSecret, KeyFileError> {
    let content = read(path)?;
    let secret = StaticSecret::from_bytes(*content.secret);
    let public = secret.public_key(noise::rust_crypto());
    if content.public.is_some_and(|named| named != public) {
        let reason = "the public key in its comment does not belong to the private key";
        return Err(KeyFileError::Malformed { path: path.to_owned(), reason });
    }
    Ok(secret)
}

/// Reads a pre-shared key.
///
/// # Errors
/// [`KeyFileError`]; a file that others may read is refused.
pub fn read_psk(path: &Path) -> Result<Psk, KeyFileError> {
    let content = read(path).map_err(|error| match error {
        KeyFileError::Read { path, source } if source.kind() == io::ErrorKind::NotFound => {
            KeyFileError::NoPsk { path }
        }
        error => error,
    })?;
    if content.public.is_some() {
        let reason = "it holds a private key, not a pre-shared one";
        return Err(KeyFileError::Malformed { path: path.to_owned(), reason });
    }
    Ok(Psk::from_bytes(*content.secret))
}

/// Makes a new private key and its file.
///
/// # Errors
/// [`KeyFileError::Exists`] when something has that name, and nothing is changed.
pub fn generate(path: &Path) -> Result<StaticSecret, KeyFileError> {
    let mut bytes = Zeroizing::new([0; 32]);
    getrandom::fill(&mut *bytes).map_err(KeyFileError::Random)?;
    let secret = StaticSecret::from_bytes(*bytes);
    let public = secret.public_key(noise::rust_crypto());
    let mut text = Zeroizing::new(format!("# raystream private key; {PUBLIC_KEY_LABEL}{public}\n"));
    // Reserved first, so that growing leaves no copy of the secret behind.
    text.reserve_exact(65);
    bytes.iter().for_each(|byte| {
        text.push(hex_digit(byte >> 4));
        text.push(hex_digit(byte & 0x0f));
    });
    text.push('\n');
    write_new(path, text.as_bytes())?;
    Ok(secret)
}

/// Reads the private key, or makes one when there is no file. The flag is whether it was made.
///
/// # Errors
/// [`KeyFileError`]
pub fn read_or_generate(path: &Path) -> Result<(StaticSecret, bool), KeyFileError> {
    match generate(path) {
        Ok(secret) => Ok((secret, true)),
        Err(KeyFileError::Exists { .. }) => read_secret(path).map(|secret| (secret, false)),
        Err(error) => Err(error),
    }
}

struct Content {
    secret: Zeroizing<[u8; 32]>,
    public: Option<PublicKey>,
}

fn read(path: &Path) -> Result<Content, KeyFileError> {
    let failed = |source| KeyFileError::Read { path: path.to_owned(), source };
    let file = File::open(path).map_err(failed)?;
    // Asked of the open file: nobody can put another one in its place in between.
    let metadata = file.metadata().map_err(failed)?;
    if !metadata.is_file() {
        return Err(KeyFileError::Malformed { path: path.to_owned(), reason: "it is no regular file" });
    }
    let mode = metadata.mode() & 0o7777;
    if mode & OTHERS != 0 {
        return Err(KeyFileError::TooOpen { path: path.to_owned(), mode });
    }
    let mut text = Zeroizing::new(String::with_capacity(512));
    match file.take(FILE_MAX).read_to_string(&mut text) {
        Ok(_) => parse(&text).map_err(|reason| KeyFileError::Malformed { path: path.to_owned(), reason }),
        Err(error) if error.kind() == io::ErrorKind::InvalidData => {
            Err(KeyFileError::Malformed { path: path.to_owned(), reason: "it is not text" })
        }
        Err(error) => Err(failed(error)),
    }
}

fn parse(text: &str) -> Result<Content, &'static str> {
    let mut public = None;
    let mut secret = None;
    for line in text.lines().map(str::trim).filter(|line| !line.is_empty()) {
        if let Some(comment) = line.strip_prefix('#') {
            let named = comment.split_once(PUBLIC_KEY_LABEL);
            public = named.and_then(|(_, key)| key.trim().parse().ok()).or(public);
        } else if secret.is_some() {
            return Err("it has more than one line beside the comments");
        } else {
            secret = Some(parse_digits(line).ok_or("a key is 64 hexadecimal digits")?);
        }
    }
    Ok(Content { secret: secret.ok_or("it has no key")?, public })
}

fn parse_digits(text: &str) -> Option<Zeroizing<[u8; 32]>> {
    let mut bytes = Zeroizing::new([0; 32]);
    let digits = text.as_bytes();
    if digits.len() != 64 {
        return None;
    }
    for (byte, pair) in bytes.iter_mut().zip(digits.chunks_exact(2)) {
        *byte = pair.iter().try_fold(0, |value, digit| {
            let digit = char::from(*digit).to_digit(16).and_then(|digit| u8::try_from(digit).ok())?;
            Some(value << 4 | digit)
        })?;
    }
    Some(bytes)
}

fn hex_digit(nibble: u8) -> char {
    char::from_digit(u32::from(nibble), 16).expect("a nibble is a hexadecimal digit")
}

/// Writes a file that did not exist, whole or not at all, never readable by others.
fn write_new(path: &Path, content: &[u8]) -> Result<(), KeyFileError> {
    let failed = |source| KeyFileError::Write { path: path.to_owned(), source };
    // A dangling symbolic link counts as something that is there.
    if path.symlink_metadata().is_ok() {
        return Err(KeyFileError::Exists { path: path.to_owned() });
    }
    let name = path.file_name().ok_or_else(|| failed(io::ErrorKind::InvalidInput.into()))?;
    let folder = match path.parent() {
        Some(parent) if !parent.as_os_str().is_empty() => parent,
        _ => Path::new("."),
    };
    let mut temporary_name = std::ffi::OsString::from(".");
    temporary_name.push(name);
    temporary_name.push(format!(".{}.new", std::process::id()));
    let temporary = folder.join(temporary_name);
    let mut file =
        OpenOptions::new().write(true).create_new(true).mode(OWNER_ONLY).open(&temporary).map_err(failed)?;
    let written = file.write_all(content).and_then(|()| file.sync_all()).and_then(|()| {
        // A link fails when the name is taken, whoever was faster; a rename would replace what is there.
        fs::hard_link(&temporary, path)
    });
    let removed = fs::remove_file(&temporary);
    match written.and(removed) {
        Ok(()) => File::open(folder).and_then(|folder| folder.sync_all()).map_err(failed),
        Err(error) if error.kind() == io::ErrorKind::AlreadyExists => {
            Err(KeyFileError::Exists { path: path.to_owned() })
        }
        Err(error) => Err(failed(error)),
    }
}

#[cfg(test)]
mod tests {
    use std::os::unix::fs::PermissionsExt as _;

    use super::*;

    fn file(folder: &tempfile::TempDir, content: &str) -> PathBuf {
        let path = folder.path().join("key");
        fs::write(&path, content).expect("the folder is writable");
        fs::set_permissions(&path, fs::Permissions::from_mode(0o600)).expect("it is ours");
        path
    }

    #[test]
    fn the_hints_of_a_file_that_is_not_there_make_what_is_wanted() {
        let folder = tempfile::tempdir().expect("a folder");
        let path = folder.path().join("none");
        let hint = |error: KeyFileError| error.hint().expect("there is something to do");
        assert!(hint(read_secret(&path).map(drop).expect_err("no file")).contains("raystream keygen"));
        assert!(hint(read_psk(&path).map(drop).expect_err("no file")).contains("openssl rand -hex 32"));
    }

    #[test]
    fn a_new_key_is_private_complete_and_never_replaces_another() {
        let folder = tempfile::tempdir().expect("a folder");
        let path = folder.path().join("key");
        let made = generate(&path).expect("made");
        assert_eq!(fs::metadata(&path).expect("it is there").permissions().mode() & 0o7777, 0o600);
        assert_eq!(read_secret(&path).expect("readable").as_bytes(), made.as_bytes());
        let before = fs::read(&path).expect("readable");
        assert!(matches!(generate(&path), Err(KeyFileError::Exists { .. })));
        assert_eq!(fs::read(&path).expect("readable"), before);
        assert_eq!(fs::read_dir(&folder).expect("a folder").count(), 1, "nothing is left lying about");
        let (again, is_new) = read_or_generate(&path).expect("readable");
        assert!(!is_new && again.as_bytes() == made.as_bytes());
        assert_ne!(generate(&folder.path().join("other")).expect("made").as_bytes(), made.as_bytes());
    }

    #[test]
    fn a_file_that_others_may_read_is_refused_with_the_command_that_helps() {
        let folder = tempfile::tempdir().expect("a folder");
        let path = folder.path().join("key");
        generate(&path).expect("made");
        for mode in [0o640, 0o604, 0o620, 0o644, 0o660] {
            fs::set_permissions(&path, fs::Permissions::from_mode(mode)).expect("it is ours");
            let error = read_secret(&path).expect_err("open to others");
            assert!(error.to_string().contains("chmod 600"), "{error}");
        }
        for mode in [0o600, 0o400] {
            fs::set_permissions(&path, fs::Permissions::from_mode(mode)).expect("it is ours");
            assert!(read_secret(&path).is_ok());
        }
    }

    #[test]
    fn what_is_no_key_is_refused_without_showing_it() {
        let folder = tempfile::tempdir().expect("a folder");
        let digits = "9d".repeat(32);
        for content in [
            String::new(),
            "# only a comment\n".to_owned(),
            digits[1..].to_owned(),
            format!("{digits}0"),
            digits.replace('9', "g"),
            format!("{digits}\n{digits}\n"),
            format!("# public key {}\n{digits}\n", "00".repeat(32)),
        ] {
            let error = read_secret(&file(&folder, &content)).expect_err("no key").to_string();
            assert!(error.contains("is no key file") && !error.contains("9d9d"), "{error}");
        }
        assert!(read_secret(folder.path()).is_err());
        assert!(read_secret(&file(&folder, &format!("\n# mine\n  {digits} \r\n"))).is_ok());
        assert!(read_psk(&file(&folder, &digits)).is_ok());
    }

    #[test]
    fn a_private_key_is_not_taken_for_a_shared_one() {
        let folder = tempfile::tempdir().expect("a folder");
        let path = folder.path().join("key");
        generate(&path).expect("made");
        assert!(read_psk(&path).is_err());
    }
}
