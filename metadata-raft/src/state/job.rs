//! Jobs: what is larger than one command, worked off in bounded commands.
//!
//! Invariants: a job's work is found from its record and its row in `WAITING` alone, so a repeated or interrupted command does nothing
//! twice; a command of a sweep does at most `SWEEP_OPERATIONS_MAX` sub-operations, but for what goes alone and the long commands of a
//! copy (`copy_job`).

use crate::state::age::Now;
use crate::state::change::Actor;
use crate::state::copy_job;
use crate::state::drive;
use crate::state::entry::{EntryRecord, Standing, Walk};
use crate::state::erasure;
use crate::state::keys;
use crate::state::purge::{Place, Purge};
use crate::state::retention;
use crate::state::rewind;
use crate::state::session;
use crate::state::store::{Outcome, broken, list, load, require, save};
use crate::state::tree;
use crate::state::waiting::{self, AT_ONCE, Sweep, Work};
use bytes::Bytes;
use kv::overlay::Overlay;
use kv::seam::KvRead;
use model::authorize::Principal;
use model::id::{DriveId, ROOT_ENTRY, UploadId};
use model::limits::{COMMAND_OPERATIONS_MAX, TRASH_AGE};
use model::time::Age;
use protocol::codes;
use protocol::metadata::drive::Swept;
use protocol::metadata::query::{JobFacts, ROWS_MAX};
use serde::{Deserialize, Serialize};

/// Sub-operations of one command of a job or of the reaper, far below what a command may have: while one is applied, commands of
/// others wait. Measured with the example `purge`, see decision 0033.
pub(crate) const SWEEP_OPERATIONS_MAX: usize = 50;

/// What a job does.
#[derive(Clone, Copy, Debug, PartialEq, Eq, Serialize, Deserialize)]
pub(crate) enum JobKind {
    /// Removes a detached entry with all below it, the deepest first; of a root only what is below.
    Purge {
        root: u64,
        /// The entry at work; everything visited before is gone.
        at: u64,
    },
    /// Counts down the pages of an ended session.
    Pages { upload: u64 },
    /// Takes out the versions that a drive has beyond its retention's count.
    Trim,
    /// Rewinds a folder or a file, as its row in `REWIND` says.
    Rewind,
    /// Copies a folder, as its row in `COPY` says. A copy that ends before it is whole becomes the purge of what was built.
    Copy,
}

impl JobKind {
    /// Whether a detached entry may wait for such a job. Which one is a copy's root stands in its row in `COPY`.
    pub(crate) fn may_hold(&self, detached: u64) -> bool {
        match self {
            Self::Purge { root, .. } => *root == detached,
            Self::Copy => true,
            Self::Pages { .. } | Self::Trim | Self::Rewind => false,
        }
    }
}

/// One job.
#[derive(Clone, Copy, Debug, PartialEq, Eq, Serialize, Deserialize)]
pub(crate) struct JobRecord {
    pub(crate) kind: JobKind,
    pub(crate) operations: u64,
}

pub(crate) fn is_known(kv: &dyn KvRead, drive: DriveId, job: u64) -> Outcome<bool> {
    Ok(kv.get(&keys::job(drive, job))?.is_some())
}

fn begin(tx: &mut Overlay<'_>, drive: DriveId, job: u64, kind: JobKind) -> Outcome<()> {
    require(!is_known(&*tx, drive, job)?, &codes::ID_TAKEN)?;
    waiting::note_now(tx, Work::job(drive, job))?;
    save(tx, keys::job(drive, job), &JobRecord { kind, operations: 0 })
}

/// Removes a detached entry at once when it is a small file or an empty folder; answers the job otherwise.
pub(crate) fn begin_purge(
    tx: &mut Overlay<'_>,
    drive: DriveId,
    record: &EntryRecord,
    job: u64,
) -> Outcome<Option<u64>> {
    let root = record.shown.number;
    let is_small = !record.is_folder() || waiting::first(&*tx, &keys::children(drive, root).done(), &[])?.is_none();
    let kind = JobKind::Purge { root, at: root };
    if !is_small {
        begin(tx, drive, job, kind)?;
        return Ok(Some(job));
    }
    let mut place = Place {
        root,
        at: root,
        after: Bytes::new(),
    };
    let (is_done, _) = Purge::new(tx, drive, COMMAND_OPERATIONS_MAX).run(&mut place)?;
    if is_done {
        return Ok(None);
    }
    begin(tx, drive, job, kind)?;
    Ok(Some(job))
}

/// Leaves everything below the root of an erased account's drive to a job.
pub(crate) fn begin_emptying(tx: &mut Overlay<'_>, drive: DriveId, job: u64) -> Outcome<()> {
    let kind = JobKind::Purge {
        root: ROOT_ENTRY,
        at: ROOT_ENTRY,
    };
    begin(tx, drive, job, kind)
}

/// Leaves the pages of an ended session to a job.
pub(crate) fn begin_pages(tx: &mut Overlay<'_>, upload: UploadId) -> Outcome<()> {
    begin(
        tx,
        upload.drive,
        upload.number,
        JobKind::Pages { upload: upload.number },
    )
}

/// Leaves versions beyond a count that was lowered to a job.
pub(crate) fn begin_trim(tx: &mut Overlay<'_>, drive: DriveId, job: u64) -> Outcome<()> {
    begin(tx, drive, job, JobKind::Trim)
}

/// Leaves a rewind to a job.
pub(crate) fn begin_rewind(tx: &mut Overlay<'_>, drive: DriveId, job: u64) -> Outcome<()> {
    begin(tx, drive, job, JobKind::Rewind)
}

/// Leaves a copy to a job.
pub(crate) fn begin_copy(tx: &mut Overlay<'_>, drive: DriveId, job: u64) -> Outcome<()> {
    begin(tx, drive, job, JobKind::Copy)
}

/// Has the job of a copy remove what it built, from its next command on.
pub(crate) fn undo_copy(tx: &mut Overlay<'_>, drive: DriveId, job: u64, root: u64) -> Outcome<()> {
    let record: Option<JobRecord> = load(&*tx, &keys::job(drive, job))?;
    let mut record = record.ok_or_else(|| broken("a copy has no job"))?;
    record.kind = JobKind::Purge { root, at: root };
    save(tx, keys::job(drive, job), &record)
}

/// `SweepJob`: one command of it.
pub(crate) fn sweep(tx: &mut Overlay<'_>, now: &Now, drive: DriveId, job: u64) -> Outcome<Swept> {
    let record: Option<JobRecord> = load(&*tx, &keys::job(drive, job))?;
    let mut record = record.ok_or(&codes::JOB_NOT_FOUND)?;
    let before = record;
    let work = Work::job(drive, job);
    let mut after = waiting::after(&*tx, work)?;
    let (is_done, operations) = match &mut record.kind {
        JobKind::Purge { root, at } => {
            let mut place = Place {
                root: *root,
                at: *at,
                after,
            };
            let (is_done, left) = Purge::new(tx, drive, SWEEP_OPERATIONS_MAX).run(&mut place)?;
            (*at, after) = (place.at, place.after);
            (is_done, SWEEP_OPERATIONS_MAX - left)
        }
        JobKind::Pages { upload } => {
            let upload = UploadId { drive, number: *upload };
            let released = session::release_pages(tx, upload, SWEEP_OPERATIONS_MAX)?;
            (released < SWEEP_OPERATIONS_MAX, released)
        }
        JobKind::Trim => {
            let (is_done, left) = retention::trim(tx, drive, &mut after)?;
            (is_done, SWEEP_OPERATIONS_MAX - left)
        }
        JobKind::Rewind => rewind::step(tx, now, drive, job)?,
        JobKind::Copy => {
            let (next, operations) = copy_job::step(tx, now, drive, job)?;
            if let copy_job::Next::Undo { root } = next {
                record.kind = JobKind::Purge { root, at: root };
            }
            (next == copy_job::Next::Over, operations)
        }
    };
    record.operations = record.operations.saturating_add(operations as u64);
    if is_done {
        tx.delete(keys::job(drive, job));
    } else if record != before {
        save(tx, keys::job(drive, job), &record)?;
    }
    waiting::settle(tx, work, (!is_done).then_some((AT_ONCE, after)))?;
    Ok(Swept {
        operations: u32::try_from(operations).unwrap_or(u32::MAX),
        is_done,
    })
}

/// Notes that an entry came into the trash at this age.
pub(crate) fn note_trash(tx: &mut Overlay<'_>, drive: DriveId, age: Age) -> Outcome<()> {
    waiting::note(tx, Work::of(drive, Sweep::Trash), age.after(TRASH_AGE))
}

/// `SweepTrash`: purges the oldest entry of the trash whose age is over, or erases the account. One entry a command.
pub(crate) fn sweep_trash(tx: &mut Overlay<'_>, now: &Now, drive: DriveId, job: u64) -> Outcome<Swept> {
    let prefix = keys::Key::of_drive(drive, keys::TRASH).done();
    let mut oldest = waiting::first(&*tx, &prefix, &[])?;
    let over = oldest.take_if(|key| waiting::due_of(Sweep::Trash, key) <= now.age());
    if let Some(key) = &over {
        purge_trashed(tx, now, drive, keys::last_u64(key), job)?;
        oldest = waiting::first(&*tx, &prefix, &[])?;
    }
    let rest = oldest.map(|key| (waiting::due_of(Sweep::Trash, &key), Bytes::new()));
    waiting::settle(tx, Work::of(drive, Sweep::Trash), rest)?;
    Ok(Swept {
        operations: u32::from(over.is_some()),
        is_done: over.is_none(),
    })
}

fn purge_trashed(tx: &mut Overlay<'_>, now: &Now, drive: DriveId, number: u64, job: u64) -> Outcome<()> {
    if number == ROOT_ENTRY {
        return erasure::erase(tx, drive, job);
    }
    let mut record = drive::get(&*tx, drive)?;
    let walk = Walk::new(&*tx, drive, number)?.ok_or_else(|| broken("a trashed entry is not there"))?;
    if !matches!(walk.record().standing, Standing::Trashed { .. }) {
        return Err(broken("an entry in the trash table is not trashed"));
    }
    // Nobody asked for it by name: the owner's trash empties in the owner's name.
    let owner = Principal {
        user: record.owner,
        device: None,
        is_admin: false,
    };
    tree::purge_walk(tx, &mut record, Actor { principal: &owner, now }, walk, job).map(drop)
}

/// The jobs of a drive.
pub(crate) fn all(kv: &dyn KvRead, drive: DriveId) -> Outcome<Vec<JobFacts>> {
    let rows = list::<JobRecord>(kv, &keys::Key::of_drive(drive, keys::JOB).done(), None, ROWS_MAX)?;
    Ok(rows
        .into_iter()
        .map(|(key, record)| JobFacts {
            job: keys::last_u64(&key),
            operations: record.operations,
        })
        .collect())
}
