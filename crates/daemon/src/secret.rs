//! Secrets in files: read only when nobody else can read them, written whole or not at all.
//!
//! Invariants: a secret file is a regular file of mode 0600 or stricter; a name never shows half a secret; an existing secret is
//! never overwritten; the bytes are wiped when dropped and never printed.
//! There is no default secret: a missing one is an error, or is made at random by whoever starts first.
//! Not here: what a secret means (keys in codec and gateway, certificates in rpc).

use crate::random::Random;
use rustix::fs::{CWD, RenameFlags, renameat_with};
use std::fmt;
use std::fs::{File, OpenOptions};
use std::io::{self, Read, Write};
use std::os::unix::fs::{MetadataExt, OpenOptionsExt, PermissionsExt};
use std::path::{Path, PathBuf};
use zeroize::Zeroizing;

/// Largest secret file: a chain of certificates fits many times.
pub const SECRET_BYTES_MAX: u64 = 64 << 10;
/// Shortest secret that is accepted: 128 bits.
pub const SECRET_BYTES_MIN: usize = 16;

/// Bytes nobody may see; wiped when dropped.
pub struct Secret {
    bytes: Zeroizing<Vec<u8>>,
}

impl Secret {
    /// Takes `bytes` over.
    #[must_use]
    pub fn new(bytes: Vec<u8>) -> Self {
        Self {
            bytes: Zeroizing::new(bytes),
        }
    }

    /// The bytes themselves: hand them to cryptography, never to a log.
    #[must_use]
    pub fn expose(&self) -> &[u8] {
        &self.bytes
    }
}

impl fmt::Debug for Secret {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        f.write_str("Secret(..)")
    }
}

/// Why a secret file cannot be used; its text is for the operator.
#[derive(Debug)]
pub enum SecretError {
    /// There is no such file.
    Missing(PathBuf),
    /// There is a file of this name already; it was left alone.
    Exists(PathBuf),
    /// Others than the owner may read or write it; carries the mode.
    TooOpen(PathBuf, u32),
    /// It belongs to another user; carries the owner's id.
    Foreign(PathBuf, u32),
    /// A link, a folder or a device instead of a file.
    NotAFile(PathBuf),
    /// Longer than `SECRET_BYTES_MAX`.
    TooLong(PathBuf),
    /// Shorter than `SECRET_BYTES_MIN`, or one byte repeated.
    Weak(PathBuf),
    /// Reading or writing it went wrong.
    Io(PathBuf, io::Error),
}

impl fmt::Display for SecretError {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        match self {
            Self::Missing(path) => {
                write!(
                    f,
                    "secret file {} is missing; restore it from where you keep it, there is no default",
                    path.display()
                )
            }
            Self::Exists(path) => {
                write!(
                    f,
                    "secret file {} exists; move it away if you mean to replace it",
                    path.display()
                )
            }
            Self::TooOpen(path, mode) => {
                write!(
                    f,
                    "secret file {0} has mode {mode:04o}; run `chmod 600 {0}`",
                    path.display()
                )
            }
            Self::Foreign(path, owner) => {
                write!(
                    f,
                    "secret file {} belongs to user {owner}; chown it to the user of this process",
                    path.display()
                )
            }
            Self::NotAFile(path) => {
                write!(
                    f,
                    "secret {} is no regular file; put the file itself there, not a link",
                    path.display()
                )
            }
            Self::TooLong(path) => {
                write!(
                    f,
                    "secret file {} is longer than {SECRET_BYTES_MAX} bytes; check the path",
                    path.display()
                )
            }
            Self::Weak(path) => write!(
                f,
                "secret file {} is a default or too weak; put the right file back from where you keep it (a good one has at least \
                 {SECRET_BYTES_MIN} bytes, and not one byte repeated)",
                path.display()
            ),
            Self::Io(path, error) => write!(f, "use secret file {}: {error}", path.display()),
        }
    }
}

impl std::error::Error for SecretError {}

/// Reads the secret in `path`.
///
/// Errors: missing, readable by others, owned by another user (unless by root), no regular file, too long, weak, or unreadable.
pub fn read(path: &Path) -> Result<Secret, SecretError> {
    let io_error = |error| SecretError::Io(path.to_owned(), error);
    let flags = i32::try_from(rustix::fs::OFlags::NOFOLLOW.bits() | rustix::fs::OFlags::NONBLOCK.bits())
        .expect("open flags are small positive numbers");
    // Opened without following links, and checked on the open file: between a check by name and the open it could be swapped.
    let file = OpenOptions::new()
        .read(true)
        .custom_flags(flags)
        .open(path)
        .map_err(|error| match error.raw_os_error() {
            Some(code) if code == rustix::io::Errno::LOOP.raw_os_error() => SecretError::NotAFile(path.to_owned()),
            _ if error.kind() == io::ErrorKind::NotFound => SecretError::Missing(path.to_owned()),
            _ => io_error(error),
        })?;
    let metadata = file.metadata().map_err(io_error)?;
    if !metadata.is_file() {
        return Err(SecretError::NotAFile(path.to_owned()));
    }
    let mode = metadata.permissions().mode() & 0o7777;
    if mode & 0o077 != 0 {
        return Err(SecretError::TooOpen(path.to_owned(), mode));
    }
    let own = rustix::process::geteuid().as_raw();
    if metadata.uid() != own && metadata.uid() != 0 {
        return Err(SecretError::Foreign(path.to_owned(), metadata.uid()));
    }
    if metadata.len() > SECRET_BYTES_MAX {
        return Err(SecretError::TooLong(path.to_owned()));
    }
    let mut bytes = Zeroizing::new(Vec::with_capacity(usize::try_from(metadata.len()).unwrap_or(0) + 1));
    file.take(SECRET_BYTES_MAX).read_to_end(&mut bytes).map_err(io_error)?;
    if is_weak(&bytes) {
        return Err(SecretError::Weak(path.to_owned()));
    }
    Ok(Secret { bytes })
}

/// Makes the file `path` with `secret`, mode 0600. On return it is durable; on error there is no file of that name, unless
/// there was one before, which is left alone.
///
/// Errors: there is such a file, the secret is weak or too long, or writing went wrong.
pub fn create(path: &Path, secret: &Secret, random: &Random) -> Result<(), SecretError> {
    if is_weak(secret.expose()) {
        return Err(SecretError::Weak(path.to_owned()));
    }
    if u64::try_from(secret.expose().len()).unwrap_or(u64::MAX) > SECRET_BYTES_MAX {
        return Err(SecretError::TooLong(path.to_owned()));
    }
    let folder = match path.parent() {
        Some(parent) if !parent.as_os_str().is_empty() => parent,
        _ => Path::new("."),
    };
    let draft = folder.join(format!(".secret-{:016x}.tmp", random.u64()));
    let result = write_and_name(&draft, path, folder, secret);
    if result.is_err() {
        // The draft may not exist, or have become the secret; either way there is nothing of ours left to remove then.
        let _ = std::fs::remove_file(&draft);
    }
    result.map_err(|error| match error.kind() {
        io::ErrorKind::AlreadyExists => SecretError::Exists(path.to_owned()),
        _ => SecretError::Io(path.to_owned(), error),
    })
}

/// Reads the secret in `path`, or makes one of `len` random bytes there when the file is missing. For first starts only.
///
/// Errors: as `read` and `create`, a missing file excepted.
pub fn read_or_create(path: &Path, len: usize, random: &Random) -> Result<Secret, SecretError> {
    match read(path) {
        Err(SecretError::Missing(_)) => {
            let mut secret = Secret::new(vec![0; len]);
            random.fill(&mut secret.bytes);
            match create(path, &secret, random) {
                // Another process was first: its secret is the one.
                Err(SecretError::Exists(_)) => read(path),
                result => result.map(|()| secret),
            }
        }
        result => result,
    }
}

/// A crash after 1 or 2 leaves a draft and no secret; after 3 the whole secret, perhaps not durable; after 4 it is durable.
fn write_and_name(draft: &Path, path: &Path, folder: &Path, secret: &Secret) -> io::Result<()> {
    // 1. The bytes, under a name that nobody reads.
    let mut file = OpenOptions::new()
        .write(true)
        .create_new(true)
        .mode(0o600)
        .open(draft)?;
    file.write_all(secret.expose())?;
    // 2. Durable before they get their name.
    file.sync_all()?;
    // 3. The name, refused when it is taken.
    renameat_with(CWD, draft, CWD, path, RenameFlags::NOREPLACE)?;
    // 4. The name is durable too.
    File::open(folder)?.sync_all()
}

fn is_weak(bytes: &[u8]) -> bool {
    bytes.len() < SECRET_BYTES_MIN || bytes.iter().all(|byte| *byte == bytes[0])
}

#[cfg(test)]
mod tests {
    use super::{Secret, SecretError, create, read, read_or_create};
    use crate::random::Random;
    use std::os::unix::fs::PermissionsExt;
    use std::path::Path;

    fn set_mode(path: &Path, mode: u32) {
        std::fs::set_permissions(path, std::fs::Permissions::from_mode(mode)).unwrap();
    }

    #[test]
    fn a_secret_reads_back_and_its_file_is_for_the_owner_only() {
        let folder = tempfile::tempdir().unwrap();
        let path = folder.path().join("kek");
        let made = read_or_create(&path, 32, &Random::system()).unwrap();
        assert_eq!(std::fs::metadata(&path).unwrap().permissions().mode() & 0o7777, 0o600);
        assert_eq!(
            read_or_create(&path, 32, &Random::system()).unwrap().expose(),
            made.expose()
        );
        assert_eq!(std::fs::read_dir(folder.path()).unwrap().count(), 1);
        assert_eq!(format!("{made:?}"), "Secret(..)");
    }

    /// shows: F39
    #[test]
    fn an_absent_a_weak_and_an_open_secret_are_refused() {
        let folder = tempfile::tempdir().unwrap();
        let path = folder.path().join("kek");
        assert!(matches!(read(&path), Err(SecretError::Missing(_))));
        for weak in [&b""[..], b"changeme", &[0; 32], &[b'a'; 64]] {
            std::fs::write(&path, weak).unwrap();
            set_mode(&path, 0o600);
            assert!(matches!(read(&path), Err(SecretError::Weak(_))));
        }
        std::fs::write(&path, b"a secret that is long enough").unwrap();
        for mode in [0o644, 0o640, 0o660, 0o604, 0o620] {
            set_mode(&path, mode);
            assert!(matches!(read(&path), Err(SecretError::TooOpen(_, found)) if found == mode));
        }
        set_mode(&path, 0o400);
        assert_eq!(read(&path).unwrap().expose(), b"a secret that is long enough");
    }

    #[test]
    fn an_existing_secret_is_never_overwritten() {
        let folder = tempfile::tempdir().unwrap();
        let path = folder.path().join("kek");
        let random = Random::seeded(1);
        create(&path, &Secret::new((0..32).collect()), &random).unwrap();
        let again = create(&path, &Secret::new((1..33).collect()), &random);
        assert!(matches!(again, Err(SecretError::Exists(_))));
        assert_eq!(read(&path).unwrap().expose()[0], 0);
        assert_eq!(std::fs::read_dir(folder.path()).unwrap().count(), 1);
    }

    #[test]
    fn a_link_a_folder_and_an_over_long_file_are_refused() {
        let folder = tempfile::tempdir().unwrap();
        let (path, link) = (folder.path().join("kek"), folder.path().join("link"));
        create(&path, &Secret::new((0..32).collect()), &Random::seeded(1)).unwrap();
        std::os::unix::fs::symlink(&path, &link).unwrap();
        assert!(matches!(read(&link), Err(SecretError::NotAFile(_))));
        assert!(matches!(read(folder.path()), Err(SecretError::NotAFile(_))));
        std::fs::write(&path, vec![7; 1 << 17]).unwrap();
        assert!(matches!(read(&path), Err(SecretError::TooLong(_))));
        let lost = folder.path().join("absent").join("kek");
        assert!(matches!(
            create(&lost, &Secret::new((0..32).collect()), &Random::seeded(2)),
            Err(SecretError::Io(..))
        ));
    }
}
