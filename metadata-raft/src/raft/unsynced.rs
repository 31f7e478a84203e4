//! What of a process's log was submitted and is not synced yet: how many bytes, and whose votes.
//!
//! All of it lies in memory, in the log and in the queues before the journal, and none of it can be let go. It is counted before a
//! command enters, since a leader whose own disk is slow or full goes on as long as others sync what it sends. A replica that saves a
//! vote does nothing else, so where the disk takes no writes it answers nobody and does not see who leads by now.
//! Invariant: what was added is taken away once its completion was told, also when that is a failure.
//! Not here: the bounds (`room`), what is written (`log_store`).

use model::id::GroupId;
use std::collections::BTreeSet;
use std::sync::atomic::{AtomicUsize, Ordering};
use std::sync::{Mutex, MutexGuard, PoisonError};

/// Counts the bytes of records, and the votes; one for all groups of a process.
#[derive(Debug, Default)]
pub struct Unsynced {
    bytes: AtomicUsize,
    votes: Mutex<BTreeSet<GroupId>>,
}

/// A vote that is being saved, until this is dropped.
pub(crate) struct SavedVote<'a> {
    unsynced: &'a Unsynced,
    group: GroupId,
}

impl Drop for SavedVote<'_> {
    fn drop(&mut self) {
        self.unsynced.votes().remove(&self.group);
    }
}

impl Unsynced {
    /// What there is now, in bytes of encoded records.
    #[must_use]
    pub fn bytes(&self) -> usize {
        self.bytes.load(Ordering::Acquire)
    }

    /// Whether the replica of `group` waits until a vote is synced.
    #[must_use]
    pub fn saves_vote(&self, group: GroupId) -> bool {
        self.votes().contains(&group)
    }

    /// So many more were submitted.
    pub(crate) fn add(&self, bytes: usize) {
        self.bytes.fetch_add(bytes, Ordering::AcqRel);
    }

    /// So many of those that were added have been told of.
    pub(crate) fn take(&self, bytes: usize) {
        self.bytes.fetch_sub(bytes, Ordering::AcqRel);
    }

    /// A vote of `group` is being saved from now on; each has one at a time.
    pub(crate) fn save_vote(&self, group: GroupId) -> SavedVote<'_> {
        self.votes().insert(group);
        SavedVote { unsynced: self, group }
    }

    fn votes(&self) -> MutexGuard<'_, BTreeSet<GroupId>> {
        // Whole entries are put and taken.
        self.votes.lock().unwrap_or_else(PoisonError::into_inner)
    }
}
