//! How long versions stay behind which another came: by count with the commit, by age with a sweep, both as their drive says.
//!
//! A version is old from the command on that puts another behind it; `OLD_SINCE` keeps the age at which that was, and `OLD_VERSION`
//! has a drive's old versions in that order. What is taken out is gone for readers with one command; its pages are counted down in the
//! same one when they are few, else by sweeps, from its row in `DROPPED_VERSION`.
//! Invariants: the current version is never taken out, and of a file always the oldest go first; time is the slot's age, never a
//! clock.
//! Not here: what becomes of pages that nobody counts (`page`), removal of whole files (`purge`).

use crate::state::age::Now;
use crate::state::drive;
use crate::state::entry;
use crate::state::job::{self, SWEEP_OPERATIONS_MAX};
use crate::state::keys::{self, DRIVE_PREFIX_BYTES, Key};
use crate::state::page;
use crate::state::store::{Outcome, broken, list, load, require, save};
use crate::state::version::VersionRecord;
use crate::state::waiting::{self, AT_ONCE, Sweep, Work};
use bytes::Bytes;
use kv::overlay::Overlay;
use kv::seam::KvRead;
use model::authorize::{Action, Principal};
use model::id::DriveId;
use model::limits::{VERSION_AGE_MAX, VERSIONS_KEPT_MAX};
use model::time::Age;
use protocol::codes;
use protocol::metadata::drive::{Retention, Swept};
use std::time::Duration;

/// Pages that are counted down at once with their version; a version of more leaves them to a sweep. A guess: as many have files of
/// about 2 GiB, and what a commit does beside its own work stays small.
const PAGES_AT_ONCE: usize = 16;
/// Versions that a commit takes out: one in all but the rare case, more while the job of a lowered count has not come by.
const TAKEN_OUT_AT_ONCE: usize = 4;
/// Versions of a file read at a time.
const VERSIONS_RUN: usize = 8;

/// What a drive keeps.
pub(crate) fn of(kv: &dyn KvRead, drive: DriveId) -> Outcome<Retention> {
    Ok(load(kv, &keys::retention(drive))?.unwrap_or_default())
}

/// When the version of a row of `OLD_VERSION` is to go.
pub(crate) fn due(retention: &Retention, key: &[u8]) -> Age {
    after(retention, Age(keys::u64_at(key, DRIVE_PREFIX_BYTES)))
}

fn after(retention: &Retention, since: Age) -> Age {
    since.after(Duration::from_secs(retention.version_age_s))
}

/// `SetRetention`: what is too old by now goes with the next sweep, what is too much with a job.
pub(crate) fn set(
    tx: &mut Overlay<'_>,
    principal: &Principal,
    drive: DriveId,
    (versions_max, version_age_s): (Option<u32>, Option<u64>),
    job: u64,
) -> Outcome<()> {
    drive::authorised(&*tx, drive, principal, Action::Share)?;
    let known = of(&*tx, drive)?;
    let wanted = Retention {
        versions_max: versions_max.unwrap_or(known.versions_max),
        version_age_s: version_age_s.unwrap_or(known.version_age_s),
    };
    let is_allowed = (1..=VERSIONS_KEPT_MAX).contains(&wanted.versions_max)
        && (1..=VERSION_AGE_MAX.as_secs()).contains(&wanted.version_age_s);
    require(is_allowed, &codes::BAD_RETENTION)?;
    if wanted == known {
        return Ok(());
    }
    save(tx, keys::retention(drive), &wanted)?;
    let Some(oldest) = waiting::first(&*tx, &Key::of_drive(drive, keys::OLD_VERSION).done(), &[])? else {
        return Ok(());
    };
    waiting::note(tx, Work::of(drive, Sweep::Versions), due(&wanted, &oldest))?;
    if wanted.versions_max < known.versions_max {
        job::begin_trim(tx, drive, job)?;
    }
    Ok(())
}

/// Notes that version `number` gets one behind it, and takes out what the file then has beyond its drive's count.
pub(crate) fn supersede(tx: &mut Overlay<'_>, now: &Now, drive: DriveId, entry: u64, number: u64) -> Outcome<()> {
    let (retention, since) = (of(&*tx, drive)?, now.age());
    tx.put(keys::old_version(drive, since.0, entry, number), Bytes::new());
    save(tx, keys::old_since(drive, entry, number), &since)?;
    waiting::note(tx, Work::of(drive, Sweep::Versions), after(&retention, since))?;
    let count = number.saturating_add(1);
    let newest_beyond = count.saturating_sub(u64::from(retention.versions_max));
    if newest_beyond == 0 {
        return Ok(());
    }
    let prefix = keys::versions(drive, entry).done();
    for (_, record) in list::<VersionRecord>(&*tx, &prefix, None, TAKEN_OUT_AT_ONCE)? {
        if record.number <= newest_beyond {
            take_out(tx, drive, entry, &record)?;
        }
    }
    Ok(())
}

/// Takes the rows away by which a version would go at its age.
pub(crate) fn forget_age(tx: &mut Overlay<'_>, drive: DriveId, entry: u64, number: u64) -> Outcome<()> {
    let key = keys::old_since(drive, entry, number);
    if let Some(since) = load::<Age>(&*tx, &key)? {
        tx.delete(keys::old_version(drive, since.0, entry, number));
        tx.delete(key);
    }
    Ok(())
}

/// Answers the sub-operations.
fn take_out(tx: &mut Overlay<'_>, drive: DriveId, entry: u64, record: &VersionRecord) -> Outcome<usize> {
    forget_age(tx, drive, entry, record.number)?;
    tx.delete(keys::version(drive, entry, record.number));
    if record.pages.len() > PAGES_AT_ONCE {
        save(tx, keys::dropped_version(drive, entry, record.number), record)?;
        waiting::note_now(tx, Work::of(drive, Sweep::Dropped))?;
        return Ok(1);
    }
    for page in &record.pages {
        page::release(tx, drive, page.digest)?;
    }
    Ok(1 + record.pages.len())
}

/// Takes out some of a file's versions up to `last`, the oldest first: of an earlier release some may have no rows by age. Answers the
/// sub-operations, at least one.
fn take_out_up_to(tx: &mut Overlay<'_>, drive: DriveId, entry: u64, last: u64) -> Outcome<usize> {
    let current = entry::find(&*tx, drive, entry)?.map(|entry| entry.shown.version);
    if current.is_some_and(|current| last >= current) {
        return Err(broken("the current version would be taken out"));
    }
    let prefix = keys::versions(drive, entry).done();
    let run = list::<VersionRecord>(&*tx, &prefix, None, VERSIONS_RUN)?;
    let mut operations = 0;
    for (_, record) in run.into_iter().filter(|(_, record)| record.number <= last) {
        operations += take_out(tx, drive, entry, &record)?;
        if operations >= SWEEP_OPERATIONS_MAX {
            break;
        }
    }
    if operations == 0 {
        // The version went without its rows, which must not hold up those behind them.
        forget_age(tx, drive, entry, last)?;
        operations = 1;
    }
    Ok(operations)
}

/// `SweepVersions`: takes out versions that are old for longer than their drive keeps them.
pub(crate) fn sweep(tx: &mut Overlay<'_>, now: &Now, drive: DriveId) -> Outcome<Swept> {
    let work = Work::of(drive, Sweep::Versions);
    let prefix = Key::of_drive(drive, keys::OLD_VERSION).done();
    let retention = of(&*tx, drive)?;
    let mut after = waiting::after(&*tx, work)?;
    let mut operations = 0;
    let rest = loop {
        let Some(key) = waiting::first(&*tx, &prefix, &after)? else {
            break None;
        };
        let due = due(&retention, &key);
        if due > now.age() || operations >= SWEEP_OPERATIONS_MAX {
            break Some(due);
        }
        let entry = keys::u64_at(&key, DRIVE_PREFIX_BYTES + 8);
        operations += take_out_up_to(tx, drive, entry, keys::last_u64(&key))?;
        if tx.get(&key)?.is_none() {
            after = key.slice(prefix.len()..);
        }
    };
    waiting::settle(tx, work, rest.map(|due| (due, after)))?;
    Ok(Swept {
        operations: u32::try_from(operations).unwrap_or(u32::MAX),
        is_done: rest.is_none_or(|due| due > now.age()),
    })
}

/// `SweepDropped`: counts down pages of versions that were taken out.
pub(crate) fn sweep_dropped(tx: &mut Overlay<'_>, drive: DriveId) -> Outcome<Swept> {
    let prefix = Key::of_drive(drive, keys::DROPPED_VERSION).done();
    let mut left = SWEEP_OPERATIONS_MAX;
    let is_done = loop {
        let Some((key, mut record)) = list::<VersionRecord>(&*tx, &prefix, None, 1)?.pop() else {
            break true;
        };
        while left > 0 {
            let Some(page) = record.pages.pop() else { break };
            page::release(tx, drive, page.digest)?;
            left -= 1;
        }
        if left == 0 {
            save(tx, key, &record)?;
            break false;
        }
        tx.delete(key);
        left -= 1;
    };
    let rest = (!is_done).then_some((AT_ONCE, Bytes::new()));
    waiting::settle(tx, Work::of(drive, Sweep::Dropped), rest)?;
    Ok(Swept {
        operations: u32::try_from(SWEEP_OPERATIONS_MAX - left).unwrap_or(u32::MAX),
        is_done,
    })
}

/// Part of a job: takes out what files have beyond their drive's count, on behind `after`, the end of a key of `OLD_SINCE`. Answers
/// whether all files were looked at and how many sub-operations are left.
pub(crate) fn trim(tx: &mut Overlay<'_>, drive: DriveId, after: &mut Bytes) -> Outcome<(bool, usize)> {
    let prefix = Key::of_drive(drive, keys::OLD_SINCE).done();
    let versions_max = u64::from(of(&*tx, drive)?.versions_max);
    let mut left = SWEEP_OPERATIONS_MAX;
    while left > 0 {
        let Some(key) = waiting::first(&*tx, &prefix, after)? else {
            return Ok((true, left));
        };
        let (entry, number) = (keys::u64_at(&key, DRIVE_PREFIX_BYTES), keys::last_u64(&key));
        let current = entry::find(&*tx, drive, entry)?.map_or(0, |record| record.shown.version);
        if current.saturating_sub(number) >= versions_max {
            left = left.saturating_sub(take_out_up_to(tx, drive, entry, number)?);
        } else {
            // The file's other versions are younger.
            left -= 1;
            *after = keys::old_since(drive, entry, u64::MAX).slice(prefix.len()..);
        }
    }
    Ok((false, 0))
}
