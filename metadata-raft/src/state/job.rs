//! Jobs: what is larger than one command, worked off in bounded commands.
//!
//! Invariants: a job's work is found from its record alone, so a repeated or interrupted command does nothing twice; a command does at
//! most `COMMAND_OPERATIONS_MAX` sub-operations.

use crate::state::age::Now;
use crate::state::change::Actor;
use crate::state::children;
use crate::state::drive;
use crate::state::entry::{self, EntryRecord, Shown, Standing, Walk};
use crate::state::erasure;
use crate::state::keys;
use crate::state::page;
use crate::state::session;
use crate::state::store::{Outcome, broken, list, load, require, save};
use crate::state::tree;
use crate::state::usage;
use crate::state::version;
use kv::overlay::Overlay;
use kv::seam::{KvRead, Scan};
use model::authorize::Principal;
use model::id::{DriveId, ROOT_ENTRY, UploadId};
use model::limits::{COMMAND_OPERATIONS_MAX, TRASH_AGE};
use model::time::Age;
use protocol::codes;
use protocol::metadata::drive::Swept;
use protocol::metadata::query::{JobFacts, ROWS_MAX};
use serde::{Deserialize, Serialize};

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
    let is_small = !record.is_folder() || first_child(&*tx, drive, root)?.is_none();
    let kind = JobKind::Purge { root, at: root };
    if !is_small {
        begin(tx, drive, job, kind)?;
        return Ok(Some(job));
    }
    let mut at = root;
    let mut left = COMMAND_OPERATIONS_MAX;
    if purge(tx, drive, root, &mut at, &mut left)? {
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

/// `SweepJob`.
pub(crate) fn sweep(tx: &mut Overlay<'_>, drive: DriveId, job: u64) -> Outcome<Swept> {
    let record: Option<JobRecord> = load(&*tx, &keys::job(drive, job))?;
    let mut record = record.ok_or(&codes::JOB_NOT_FOUND)?;
    let mut left = COMMAND_OPERATIONS_MAX;
    let is_done = match &mut record.kind {
        JobKind::Purge { root, at } => purge(tx, drive, *root, at, &mut left)?,
        JobKind::Pages { upload } => {
            let released = session::release_pages(tx, UploadId { drive, number: *upload }, left)?;
            let is_done = released < left;
            left -= released;
            is_done
        }
    };
    let operations = COMMAND_OPERATIONS_MAX - left;
    record.operations = record.operations.saturating_add(operations as u64);
    if is_done {
        tx.delete(keys::job(drive, job));
    } else {
        save(tx, keys::job(drive, job), &record)?;
    }
    Ok(Swept {
        operations: u32::try_from(operations).unwrap_or(u32::MAX),
        is_done,
    })
}

fn first_child(kv: &dyn KvRead, drive: DriveId, folder: u64) -> Outcome<Option<Shown>> {
    let rows = list(kv, &keys::children(drive, folder).done(), None, 1)?;
    Ok(rows.into_iter().next().map(|(_, shown)| shown))
}

/// Removes from the deepest upwards until nothing or no budget is left; answers whether all is gone.
fn purge(tx: &mut Overlay<'_>, drive: DriveId, root: u64, at: &mut u64, left: &mut usize) -> Outcome<bool> {
    loop {
        let record = entry::find(&*tx, drive, *at)?.ok_or_else(|| broken("a job's entry is not there"))?;
        if record.is_folder() {
            if let Some(child) = first_child(&*tx, drive, *at)? {
                *at = child.number;
                continue;
            }
        } else if !drop_versions(tx, drive, *at, left)? {
            return Ok(false);
        }
        if *at == ROOT_ENTRY {
            return Ok(true);
        }
        if *left == 0 {
            return Ok(false);
        }
        *left -= 1;
        forget(tx, drive, &record, *at == root)?;
        if *at == root {
            return Ok(true);
        }
        *at = record.shown.parent;
    }
}

/// Gives up the versions of a file, oldest first, a long one in parts; answers whether all are gone.
fn drop_versions(tx: &mut Overlay<'_>, drive: DriveId, entry: u64, left: &mut usize) -> Outcome<bool> {
    while let Some(mut version) = version::oldest(&*tx, drive, entry)? {
        while *left > 0 {
            let Some(page) = version.pages.pop() else { break };
            page::release(tx, drive, page.digest)?;
            *left -= 1;
        }
        if *left == 0 {
            version::put(tx, drive, entry, &version)?;
            return Ok(false);
        }
        tx.delete(keys::version(drive, entry, version.number));
        *left -= 1;
    }
    Ok(true)
}

fn forget(tx: &mut Overlay<'_>, drive: DriveId, record: &EntryRecord, is_root: bool) -> Outcome<()> {
    if !is_root {
        children::detach(tx, drive, &record.shown)?;
    }
    tx.delete(keys::entry(drive, record.shown.number));
    let is_folder = record.is_folder();
    usage::change(tx, drive, |usage| {
        let counter = if is_folder {
            &mut usage.folders
        } else {
            &mut usage.files
        };
        usage::shift(counter, -1)
    })
}

/// `SweepTrash`: purges the oldest entry of the trash whose age is over, or erases the account. One entry a command.
pub(crate) fn sweep_trash(tx: &mut Overlay<'_>, now: &Now, drive: DriveId, job: u64) -> Outcome<Swept> {
    let prefix = keys::Key::of_drive(drive, keys::TRASH).done();
    let rows = tx.scan(&Scan::prefix(&prefix, 1))?;
    let over = rows
        .first()
        .filter(|(key, _)| Age(keys::u64_at(key, keys::DRIVE_PREFIX_BYTES)).after(TRASH_AGE) <= now.age());
    let Some((key, _)) = over else {
        return Ok(Swept {
            operations: 0,
            is_done: true,
        });
    };
    if keys::last_u64(key) == ROOT_ENTRY {
        erasure::erase(tx, drive, job)?;
        return Ok(Swept {
            operations: 1,
            is_done: false,
        });
    }
    let mut record = drive::get(&*tx, drive)?;
    let walk = Walk::new(&*tx, drive, keys::last_u64(key))?.ok_or_else(|| broken("a trashed entry is not there"))?;
    if !matches!(walk.record().standing, Standing::Trashed { .. }) {
        return Err(broken("an entry in the trash table is not trashed"));
    }
    // Nobody asked for it by name: the owner's trash empties in the owner's name.
    let owner = Principal {
        user: record.owner,
        device: None,
        is_admin: false,
    };
    tree::purge_walk(tx, &mut record, Actor { principal: &owner, now }, walk, job)?;
    Ok(Swept {
        operations: 1,
        is_done: false,
    })
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
