//! The file `identity` of a metadata directory: which cluster and which replica it is.
//!
//! Form: one line of text, `holdfast metadata 1 <cluster> <replica>`, ended by a line feed.
//! Invariants: written once, synced, then named; a directory that holds a log and no identity is refused, never adopted, since a
//! replica that comes back without its log under its old id can lose committed data (openraft FAQ, wiped node).
//! Not here: the log and the state beside it.

use disk::{Disk, DiskError};
use model::id::{ClusterId, RaftId};
use thiserror::Error;

const NAME: &str = "identity";
const NAME_UNFINISHED: &str = "identity.new";
const BYTES_MAX: u64 = 256;

/// Why a directory is not this replica's.
#[derive(Clone, Debug, PartialEq, Eq, Error)]
pub enum IdentityError {
    /// Another replica's or another cluster's data lies there.
    #[error(
        "the metadata directory says `{found}`, wanted `{wanted}`; correct metadata.data_dir or put the right directory back"
    )]
    Other {
        /// What the file says.
        found: String,
        /// What it should say.
        wanted: String,
    },
    /// There is a log without a name.
    #[error(
        "the metadata directory holds a log and no identity; restore the file `identity`, or bring the replica back under a new id"
    )]
    Nameless,
    /// The disk itself failed.
    #[error("metadata directory: {0}")]
    Disk(#[from] DiskError),
}

/// What was found.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub enum Found {
    /// The directory was empty and is this replica's from now on.
    Fresh,
    /// It was this replica's before.
    Known,
}

/// Checks that `disk` is the replica's or empty, and changes nothing.
pub fn check(disk: &dyn Disk, cluster: ClusterId, replica: RaftId, log_dir: &str) -> Result<Found, IdentityError> {
    let wanted = line(cluster, replica);
    match disk.open(NAME) {
        Ok(file) => {
            let length = file.len_bytes()?.min(BYTES_MAX);
            let bytes = file.read_at(0, usize::try_from(length).unwrap_or(0))?;
            let found = String::from_utf8_lossy(&bytes).trim_end().to_owned();
            if found == wanted {
                Ok(Found::Known)
            } else {
                Err(IdentityError::Other { found, wanted })
            }
        }
        Err(DiskError::NotFound(_)) => match disk.list(log_dir) {
            Ok(names) if !names.is_empty() => Err(IdentityError::Nameless),
            Ok(_) | Err(DiskError::NotFound(_)) => Ok(Found::Fresh),
            Err(error) => Err(error.into()),
        },
        Err(error) => Err(error.into()),
    }
}

/// Checks that `disk` is the replica's; an empty one becomes it, durably on return.
pub fn check_or_write(
    disk: &dyn Disk,
    cluster: ClusterId,
    replica: RaftId,
    log_dir: &str,
) -> Result<Found, IdentityError> {
    let found = check(disk, cluster, replica, log_dir)?;
    if found == Found::Fresh {
        write(disk, &line(cluster, replica))?;
    }
    Ok(found)
}

fn line(cluster: ClusterId, replica: RaftId) -> String {
    format!("holdfast metadata 1 {cluster} {replica}")
}

fn write(disk: &dyn Disk, text: &str) -> Result<(), DiskError> {
    // 1. A leftover of a crash goes. 2. The text, synced. 3. The name, synced: from then on the directory is the replica's.
    match disk.remove(NAME_UNFINISHED) {
        Ok(()) | Err(DiskError::NotFound(_)) => {}
        Err(error) => return Err(error),
    }
    let file = disk.create(NAME_UNFINISHED)?;
    file.write_at(0, &[text.as_bytes(), b"\n"])?;
    file.sync()?;
    disk.rename(NAME_UNFINISHED, NAME)?;
    disk.sync_dir("")
}

#[cfg(test)]
mod tests {
    use super::{Found, IdentityError, check_or_write};
    use disk::{Disk, RealDisk};
    use model::id::{ClusterId, RaftId};

    #[test]
    fn a_directory_belongs_to_one_replica_of_one_cluster() {
        let dir = tempfile::tempdir().unwrap();
        let disk = RealDisk::open(&dir.path().join("d")).unwrap();
        let check = |cluster, replica| check_or_write(&disk, ClusterId(cluster), RaftId(replica), "raft");
        assert_eq!(check(1, 1), Ok(Found::Fresh));
        assert_eq!(check(1, 1), Ok(Found::Known));
        assert!(matches!(check(2, 1), Err(IdentityError::Other { .. })));
        assert!(matches!(check(1, 2), Err(IdentityError::Other { .. })));
    }

    /// shows: F6 scale=1/2
    #[test]
    fn a_log_without_identity_is_refused() {
        let dir = tempfile::tempdir().unwrap();
        let disk = RealDisk::open(&dir.path().join("d")).unwrap();
        disk.make_dir("raft").unwrap();
        disk.create("raft/0001").unwrap();
        assert_eq!(
            check_or_write(&disk, ClusterId(1), RaftId(1), "raft"),
            Err(IdentityError::Nameless)
        );
    }
}
