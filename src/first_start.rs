//! Whether a metadata replica may begin on an empty directory: once, at its very first start.
//!
//! A replica that comes back without its log under its old id can vote for a leader that lacks what it had acknowledged, and
//! committed data are lost (openraft FAQ, wiped node). An unmounted volume looks just like that. So the authority puts a mark beside
//! a new replica's identity, which lies on another volume than its data; the first start takes the mark away.
//! Steps: 1. mark written with the identity; 2. directory begun, groups made; 3. mark removed. A crash between 2 and 3 leaves a
//! directory that is begun and a mark: the next start goes on with 2.
//! Not here: whose directory it is (`metadata_raft::identity`).

use anyhow::{Context, bail, ensure};
use std::fs::{self, File};
use std::path::Path;

const MARK: &str = "first-start";
/// Where a metadata directory keeps its log, and in it the identity and the segments.
pub(crate) const LOG_DIR: &str = "log";
const IDENTITY: &str = "identity";
const SEGMENTS: &str = "raft";

/// What a start finds.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub(crate) enum Begin {
    /// The replica has never run to the end of its first start.
    First,
    /// It has.
    Again,
}

/// Puts the mark beside a new identity.
pub(crate) fn allow(identity_dir: &Path) -> anyhow::Result<()> {
    let path = identity_dir.join(MARK);
    let write = || -> std::io::Result<()> {
        let text = "The replica of this identity has not run yet. Its first start removes this file.\n";
        fs::write(&path, text)?;
        File::open(&path)?.sync_all()?;
        File::open(identity_dir)?.sync_all()
    };
    write().with_context(|| format!("write {}", path.display()))
}

/// Whether a replica may start on `data_dir`. Changes nothing.
pub(crate) fn check(identity_dir: &Path, data_dir: &Path) -> anyhow::Result<Begin> {
    ensure!(
        data_dir.is_dir(),
        "metadata.data_dir {} is no directory; mount its volume or make it",
        data_dir.display()
    );
    if identity_dir.join(MARK).exists() {
        return Ok(Begin::First);
    }
    let log = data_dir.join(LOG_DIR);
    let has_log = fs::read_dir(log.join(SEGMENTS)).is_ok_and(|mut names| names.next().is_some());
    if !log.join(IDENTITY).exists() || !has_log {
        bail!(
            "metadata.data_dir {} holds no log, and this replica has run before; mount its volume or put the directory back; \
             a replica that lost its log must never run again under its old id",
            data_dir.display()
        );
    }
    Ok(Begin::Again)
}

/// Takes the mark away, durably on return.
pub(crate) fn done(identity_dir: &Path) -> anyhow::Result<()> {
    let path = identity_dir.join(MARK);
    let remove = || -> std::io::Result<()> {
        fs::remove_file(&path)?;
        File::open(identity_dir)?.sync_all()
    };
    remove().with_context(|| {
        format!(
            "remove {}; make identity_dir writable for the first start",
            path.display()
        )
    })
}

#[cfg(test)]
mod tests {
    use super::{Begin, allow, check, done};
    use std::fs;

    /// shows: F6 scale=1/3
    #[test]
    fn an_empty_directory_is_begun_once_and_never_again() {
        let folder = tempfile::tempdir().unwrap();
        let (identity, data) = (folder.path().join("identity"), folder.path().join("data"));
        fs::create_dir(&identity).unwrap();
        allow(&identity).unwrap();
        assert!(
            check(&identity, &data)
                .unwrap_err()
                .to_string()
                .contains("is no directory")
        );
        fs::create_dir(&data).unwrap();
        assert_eq!(check(&identity, &data).unwrap(), Begin::First);
        let log = data.join("log");
        fs::create_dir_all(log.join("raft")).unwrap();
        fs::write(log.join("identity"), "x").unwrap();
        assert_eq!(
            check(&identity, &data).unwrap(),
            Begin::First,
            "cut before the mark was removed"
        );
        done(&identity).unwrap();
        assert!(check(&identity, &data).is_err(), "an identity without its log");
        fs::write(log.join("raft").join("1"), "x").unwrap();
        assert_eq!(check(&identity, &data).unwrap(), Begin::Again);
        fs::remove_dir_all(&log).unwrap();
        let error = check(&identity, &data).unwrap_err().to_string();
        assert!(error.contains("mount its volume"), "{error}");
        assert_eq!(fs::read_dir(&data).unwrap().count(), 0, "nothing was made");
    }
}
