//! The queue's part of the check: everything that waits is looked up in its own tables and must be covered; nothing else may be queued.

use super::{Complaints, expect};
use crate::state::age;
use crate::state::keys::{self, Key};
use crate::state::store::Outcome;
use crate::state::waiting::{self, AT_ONCE, Sweep, WaitingRecord, Work};
use bytes::Bytes;
use kv::seam::{KvRead, Scan};
use model::id::{DriveId, Slot};
use model::time::Age;
use std::collections::{BTreeMap, BTreeSet};

/// Checks the rows of one slot and adds the keys that they must have in the group's queue.
pub(super) fn check_slot(
    kv: &dyn KvRead,
    slot: Slot,
    queued: &mut BTreeSet<Bytes>,
    complaints: &mut Complaints,
) -> Outcome<()> {
    let rows: BTreeMap<Work, WaitingRecord> = waiting::of_slot(kv, slot)?.into_iter().collect();
    for (work, row) in &rows {
        queued.insert(waiting::queued_at(kv, *work, row.due)?);
        expect(complaints, work.drive.slot() == slot, || {
            format!("{work:?} waits in another slot")
        });
    }
    if !waiting::is_filled(kv)? {
        return Ok(());
    }
    let wanted = wanted(kv, slot)?;
    let now = age::of_slot(kv, slot)?;
    for (work, due) in &wanted {
        // Due at once is due by now, and no later.
        let by = if *due == AT_ONCE { now } else { *due };
        let is_covered = rows.get(work).is_some_and(|row| row.due <= by);
        expect(complaints, is_covered, || {
            format!("{work:?} is due at {due:?} and not waited for")
        });
    }
    for (work, row) in rows {
        let is_job_there = work.sweep != Sweep::Job || wanted.contains_key(&work);
        expect(complaints, is_job_there, || {
            format!("{work:?} waits for a job that is none")
        });
        check_after(kv, work, &row.after, complaints)?;
    }
    Ok(())
}

/// What waits in a slot, found the long way, with the age at which the first of it is due.
fn wanted(kv: &dyn KvRead, slot: Slot) -> Outcome<BTreeMap<Work, Age>> {
    let mut wanted = BTreeMap::new();
    for (sweep, table) in waiting::SWEEPS.into_iter().chain([(Sweep::Blocks, keys::IDLE_BLOCK)]) {
        for (key, _) in kv.scan(&Scan::prefix(&Key::of_slot(slot, table).done(), usize::MAX))? {
            let drive = DriveId(keys::u64_at(&key, 3));
            let work = match sweep {
                Sweep::Job => Work::job(drive, keys::last_u64(&key)),
                Sweep::Requests => Work::requests(slot),
                Sweep::Pages
                | Sweep::Trash
                | Sweep::Sessions
                | Sweep::Versions
                | Sweep::Dropped
                | Sweep::Feed
                | Sweep::Rewinds
                | Sweep::Blocks => Work::of(drive, sweep),
            };
            let due = waiting::due_in(kv, drive, sweep, &key)?;
            let first = wanted.entry(work).or_insert(due);
            *first = due.min(*first);
        }
    }
    Ok(wanted)
}

/// Request ids and old versions before the place where their sweep goes on would never be removed.
fn check_after(kv: &dyn KvRead, work: Work, after: &[u8], complaints: &mut Complaints) -> Outcome<()> {
    let prefix = match work.sweep {
        Sweep::Requests => Some(Key::of_slot(work.drive.slot(), keys::REQUEST_END).done()),
        Sweep::Versions => Some(Key::of_drive(work.drive, keys::OLD_VERSION).done()),
        _ => None,
    };
    if let Some(prefix) = prefix.filter(|_| !after.is_empty()) {
        let first = waiting::first(kv, &prefix, &[])?;
        let is_behind = first.is_none_or(|key| key[prefix.len()..] > *after);
        expect(complaints, is_behind, || format!("{work:?} goes on behind what waits"));
    }
    Ok(())
}

/// Checks that the group's queue is what its slots' rows say.
pub(super) fn check_queue(kv: &dyn KvRead, wanted: &BTreeSet<Bytes>, complaints: &mut Complaints) -> Outcome<()> {
    let rows = kv.scan(&Scan::prefix(&Key::of_group(keys::DUE).done(), usize::MAX))?;
    let found: BTreeSet<Bytes> = rows.into_iter().map(|(key, _)| key).collect();
    expect(complaints, found == *wanted, || {
        "the queue of waiting work lists others than the slots".to_owned()
    });
    Ok(())
}
