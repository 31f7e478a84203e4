//! Commands and answers about the tree of a drive: folders, names, places, trash.
//!
//! Invariants: every command of a user carries the principal and is authorised in `apply`; new entries' numbers are drawn by the
//! gateway, and a number that is taken is `Busy` (`id_taken`): draw again.
//! Not here: contents (`upload`).

use crate::metadata::rewind::RewindOrder;
use model::authorize::Principal;
use model::entry::Entry;
use model::id::{DriveId, EntryId, Incarnation};
use model::limits::{VERSION_AGE_DEFAULT, VERSIONS_KEPT_DEFAULT};
use model::name::{DrivePath, EntryName};
use serde::{Deserialize, Serialize};

/// Where an entry is or is to be.
#[derive(Clone, Debug, PartialEq, Eq, Serialize, Deserialize)]
pub enum Place {
    /// From the root downwards.
    Path(DrivePath),
    /// A name in a folder.
    In {
        /// The folder.
        parent: EntryId,
        /// The name.
        name: EntryName,
    },
}

/// Which entry is meant.
#[derive(Clone, Debug, PartialEq, Eq, Serialize, Deserialize)]
pub enum EntryRef {
    /// By its id, in the trash too.
    Id(EntryId),
    /// By its path; what is in the trash has none.
    Path(DrivePath),
}

/// A command about the tree of a drive.
#[derive(Clone, Debug, PartialEq, Eq, Serialize, Deserialize)]
pub enum DriveCommand {
    /// Makes a folder.
    CreateFolder {
        /// Who asks.
        principal: Principal,
        /// In which drive.
        drive: DriveId,
        /// Where.
        place: Place,
        /// Whether missing folders of a path are made too.
        with_parents: bool,
        /// Random numbers for new entries: one, or as many as the path has names with `with_parents`.
        fresh: Vec<u64>,
    },
    /// Renames, moves or both in one.
    PatchEntry {
        /// Who asks.
        principal: Principal,
        /// Which.
        entry: EntryId,
        /// Refused as `revision_conflict` when the entry has another one.
        base_revision: Option<u64>,
        /// The new place.
        to: PatchTo,
    },
    /// Puts an entry into the trash with all below it.
    TrashEntry {
        /// Who asks.
        principal: Principal,
        /// Which.
        entry: EntryId,
        /// Refused as `revision_conflict` when the entry has another one.
        base_revision: Option<u64>,
    },
    /// Takes an entry out of the trash, to where it was or where it is told.
    RestoreEntry {
        /// Who asks.
        principal: Principal,
        /// Which; it must be in the trash itself.
        entry: EntryId,
        /// Another folder than the one it was in.
        parent: Option<EntryId>,
        /// Another name than the one it had.
        name: Option<EntryName>,
    },
    /// Removes an entry for good, from the tree or the trash; what is below it is swept by a job.
    PurgeEntry {
        /// Who asks.
        principal: Principal,
        /// Which.
        entry: EntryId,
        /// Refused as `revision_conflict` when the entry has another one.
        base_revision: Option<u64>,
        /// A random number for the job, if one is needed.
        job: u64,
    },
    /// Works a job on by at most 1,000 sub-operations; by a worker of the group's leader.
    SweepJob {
        /// In which drive.
        drive: DriveId,
        /// Which job.
        job: u64,
    },
    /// Purges what has been in the trash for its age, by at most 1,000 sub-operations.
    SweepTrash {
        /// In which drive.
        drive: DriveId,
        /// A random number for a job, if one is needed.
        job: u64,
    },
    /// Gives up the block references of pages that nobody counts, at most 1,000 references.
    ReapPages {
        /// In which drive.
        drive: DriveId,
    },
    /// Forgets request ids whose life is over, at most 1,000.
    SweepRequests {
        /// A drive of the slot that is meant.
        drive: DriveId,
    },
    /// Makes a file or folder anew that shares its pages with the one it is copied from. One of more than 1,000 sub-operations is
    /// `copy_too_large`; `BeginCopy` takes such a folder.
    CopyEntry {
        /// Who asks.
        principal: Principal,
        /// What is copied.
        entry: EntryId,
        /// Where the copy goes, in the same drive.
        place: Place,
        /// Whether missing folders of a path are made too.
        with_parents: bool,
        /// Random numbers for the copy and the folders above it, as in `CreateFolder`.
        fresh: Vec<u64>,
        /// From which the numbers of what lies below a copied folder are drawn.
        seed: u64,
    },
    /// Changes how long a drive keeps old versions; what is `None` stays.
    SetRetention {
        /// Who asks.
        principal: Principal,
        /// Which drive.
        drive: DriveId,
        /// Versions of a file that are kept, the current one counted.
        versions_max: Option<u32>,
        /// Aged seconds for which a version is kept after another took its place.
        version_age_s: Option<u64>,
        /// A random number for the job that takes out what is too much, if one is needed.
        job: u64,
    },
    /// Takes versions out whose age is over, a bounded number of them.
    SweepVersions {
        /// In which drive.
        drive: DriveId,
    },
    /// Counts down pages of versions that were taken out, a bounded number of them.
    SweepDropped {
        /// In which drive.
        drive: DriveId,
    },
    /// Makes blocks dead whose grace is over: from then on the drive does not have them.
    SweepBlocks {
        /// In which drive.
        drive: DriveId,
    },
    /// Drops changes that are older than the feed's age, by at most 1,000 sub-operations.
    SweepFeed {
        /// In which drive.
        drive: DriveId,
    },
    /// Begins a job that makes what lies in a folder, or a file, what it was at an instant. One a drive is under way at a time.
    BeginRewind {
        /// Who asks.
        principal: Principal,
        /// What is wanted.
        order: RewindOrder,
        /// A random number for the job.
        job: u64,
    },
    /// Has a dry run's list carried out as it is.
    RunRewind {
        /// Who asks.
        principal: Principal,
        /// In which drive.
        drive: DriveId,
        /// Which dry run.
        job: u64,
    },
    /// Forgets rewinds that ended long ago, by at most 1,000 sub-operations.
    SweepRewinds {
        /// In which drive.
        drive: DriveId,
    },
    /// Begins a job that copies a folder of any size: out of sight, until all of it is there.
    BeginCopy {
        /// Who asks.
        principal: Principal,
        /// What is copied.
        entry: EntryId,
        /// Where the copy goes, in the same drive.
        place: Place,
        /// Whether missing folders of a path are made too, when the copy comes to its place.
        with_parents: bool,
        /// Random numbers for the copy and the folders above it, as in `CreateFolder`.
        fresh: Vec<u64>,
        /// From which the numbers of what lies below the copy are drawn.
        seed: u64,
        /// A random number for the job.
        job: u64,
    },
    /// Ends a copy that is under way; what was built of it is removed by its job. One that has ended stays as it is.
    CancelCopy {
        /// Who asks.
        principal: Principal,
        /// In which drive.
        drive: DriveId,
        /// Which.
        job: u64,
    },
}

impl DriveCommand {
    /// The drive that it is about.
    #[must_use]
    pub fn drive(&self) -> DriveId {
        match self {
            Self::CreateFolder { drive, .. }
            | Self::SweepJob { drive, .. }
            | Self::SweepTrash { drive, .. }
            | Self::ReapPages { drive }
            | Self::SweepRequests { drive }
            | Self::SetRetention { drive, .. }
            | Self::SweepVersions { drive }
            | Self::SweepDropped { drive }
            | Self::SweepBlocks { drive }
            | Self::SweepFeed { drive }
            | Self::RunRewind { drive, .. }
            | Self::SweepRewinds { drive }
            | Self::CancelCopy { drive, .. } => *drive,
            Self::BeginRewind { order, .. } => order.entry.drive,
            Self::PatchEntry { entry, .. }
            | Self::TrashEntry { entry, .. }
            | Self::RestoreEntry { entry, .. }
            | Self::PurgeEntry { entry, .. }
            | Self::CopyEntry { entry, .. }
            | Self::BeginCopy { entry, .. } => entry.drive,
        }
    }
}

/// How long a drive keeps versions of its files beside the current ones.
#[derive(Clone, Copy, Debug, PartialEq, Eq, Serialize, Deserialize)]
pub struct Retention {
    /// Versions of a file that are kept, the current one counted.
    pub versions_max: u32,
    /// Aged seconds for which a version is kept after another took its place.
    pub version_age_s: u64,
}

impl Default for Retention {
    fn default() -> Self {
        Self {
            versions_max: VERSIONS_KEPT_DEFAULT,
            version_age_s: VERSION_AGE_DEFAULT.as_secs(),
        }
    }
}

/// The new place of an entry.
#[derive(Clone, Debug, PartialEq, Eq, Serialize, Deserialize)]
pub enum PatchTo {
    /// What is `Some` changes; another drive's folder is `cross_drive`.
    Parts {
        /// The new name.
        name: Option<EntryName>,
        /// The new folder.
        parent: Option<EntryId>,
    },
    /// The whole new path; its folder must exist.
    Path(DrivePath),
}

/// An entry with its path.
#[derive(Clone, Debug, PartialEq, Eq, Serialize, Deserialize)]
pub struct EntryView {
    /// The entry.
    pub entry: Entry,
    /// Absolute, from the root; of what is in the trash, the path that it had.
    pub path: String,
    /// Whether it or a folder above it is in the trash.
    pub is_in_trash: bool,
}

/// The answer to a change of the tree.
#[derive(Clone, Debug, PartialEq, Eq, Serialize, Deserialize)]
pub struct EntryChanged {
    /// The entry after the change.
    pub view: EntryView,
    /// Where the root scope's feed stands after it.
    pub position: FeedPosition,
}

/// A place in the feed of a drive's root scope.
#[derive(Clone, Copy, Debug, PartialEq, Eq, Serialize, Deserialize)]
pub struct FeedPosition {
    /// Which scope: its entry.
    pub scope: EntryId,
    /// The drive's incarnation.
    pub incarnation: Incarnation,
    /// The scope's sequence of the last change.
    pub sequence: u64,
}

/// The answer to a removal for good.
#[derive(Clone, Copy, Debug, PartialEq, Eq, Serialize, Deserialize)]
pub struct Purged {
    /// The job that sweeps what is left; `None` when nothing is.
    pub job: Option<u64>,
    /// Where the root scope's feed stands after it.
    pub position: FeedPosition,
}

/// What one sweep did.
#[derive(Clone, Copy, Debug, PartialEq, Eq, Serialize, Deserialize)]
pub struct Swept {
    /// Sub-operations of this command.
    pub operations: u32,
    /// Whether nothing is left to do.
    pub is_done: bool,
}
