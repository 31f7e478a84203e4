//! Does a group's whole state agree with itself? Reads everything; for tests after applies, and for an operator's check of a replica.
//!
//! Invariant: an empty answer means that tree, versions, pages, blocks, stripes, sessions, feeds, queues and usage agree, that
//! (entry, version) is unique and that nothing is an orphan.
//! Not here: whether the bytes of stripes are there (scrub).

mod contents;
mod copies;
mod packing;
mod rewinds;
mod versions;
mod waiting;

use crate::state::age;
use crate::state::change::{ChangeRecord, ScopeChange, ScopeRecord};
use crate::state::content_counts::ContentCounts;
use crate::state::drive::DriveRecord;
use crate::state::entry::{EntryRecord, Shown, Standing, Walk, stored_name};
use crate::state::feed;
use crate::state::job::JobRecord;
use crate::state::keys::{self, DRIVE_PREFIX_BYTES, Key};
use crate::state::packing::InlineCounts;
use crate::state::query::all_entries;
use crate::state::request::RequestRow;
use crate::state::store::{Outcome, Stop, list};
use crate::state::usage;
use kv::seam::{KvError, KvRead, Scan};
use model::entry::EntryType;
use model::id::{DriveId, ROOT_ENTRY, Slot};
use std::collections::{BTreeMap, BTreeSet};

/// What does not agree, a sentence each.
pub(crate) type Complaints = Vec<String>;

/// Everything that does not agree in a group's state, a sentence each; empty when all is well.
///
/// Reads the whole state into memory. The error is the store's own.
pub fn check(kv: &dyn KvRead) -> Result<Vec<String>, KvError> {
    let mut complaints = Complaints::new();
    match check_all(kv, &mut complaints) {
        Ok(()) => {}
        Err(Stop::Refused(failure)) => complaints.push(failure.to_string()),
        Err(Stop::Store(error)) => return Err(error),
    }
    Ok(complaints)
}

/// Every record of a drive's table with its key.
pub(crate) fn table<T: serde::de::DeserializeOwned>(
    kv: &dyn KvRead,
    drive: DriveId,
    table: u8,
) -> Outcome<Vec<(bytes::Bytes, T)>> {
    list(kv, &Key::of_drive(drive, table).done(), None, usize::MAX)
}

/// Every key of a drive's table that has no record.
pub(crate) fn rows(kv: &dyn KvRead, drive: DriveId, table: u8) -> Outcome<Vec<bytes::Bytes>> {
    let rows = kv.scan(&Scan::prefix(&Key::of_drive(drive, table).done(), usize::MAX))?;
    Ok(rows.into_iter().map(|(key, _)| key).collect())
}

/// Complains unless `is_met`.
pub(crate) fn expect(complaints: &mut Complaints, is_met: bool, what: impl FnOnce() -> String) {
    if !is_met {
        complaints.push(what());
    }
}

fn check_all(kv: &dyn KvRead, complaints: &mut Complaints) -> Outcome<()> {
    let (mut queued, mut stripes, mut packable) =
        (BTreeSet::new(), contents::QueuedStripes::default(), BTreeSet::new());
    for slot in age::describe(kv)?.slots {
        let drives = list::<DriveRecord>(kv, &Key::of_slot(slot, keys::DRIVE).done(), None, usize::MAX)?;
        let (mut living, mut counted) = (BTreeMap::new(), ContentCounts::default());
        let mut inline = InlineCounts::default();
        for (_, drive) in &drives {
            check_tree(kv, drive, complaints)?;
            check_feed(kv, drive, complaints)?;
            counted = counted.plus(contents::check(kv, drive, complaints, &mut living)?);
            packing::check(kv, drive.drive, complaints, &mut inline, &mut packable)?;
            versions::check(kv, drive.drive, complaints)?;
            rewinds::check(kv, drive.drive, complaints)?;
            copies::check(kv, drive.drive, complaints)?;
        }
        contents::check_stripes(kv, slot, (&living, counted), &mut stripes, complaints)?;
        packing::check_counts(kv, slot, inline, complaints)?;
        packing::check_bytes(kv, slot, complaints)?;
        check_requests(kv, slot, complaints)?;
        waiting::check_slot(kv, slot, &mut queued, complaints)?;
    }
    contents::check_queued(kv, &stripes, complaints)?;
    packing::check_queue(kv, &packable, complaints)?;
    waiting::check_queue(kv, &queued, complaints)
}

fn check_tree(kv: &dyn KvRead, drive: &DriveRecord, complaints: &mut Complaints) -> Outcome<()> {
    let id = drive.drive;
    let entries: BTreeMap<u64, EntryRecord> = all_entries(kv, id)?
        .into_iter()
        .map(|record| (record.shown.number, record))
        .collect();
    expect(complaints, entries.contains_key(&ROOT_ENTRY), || {
        format!("drive {id} has no root")
    });
    let jobs = table::<JobRecord>(kv, id, keys::JOB)?;
    let mut children = 0;
    let mut expected_trash = BTreeSet::new();
    let mut expected_twins = BTreeSet::new();
    for record in entries.values() {
        let number = record.shown.number;
        // A walk that does not end is a complaint of its own.
        Walk::new(kv, id, number)?;
        match record.standing {
            Standing::Attached if number == ROOT_ENTRY => {}
            Standing::Attached => {
                children += 1;
                let name = stored_name(&record.shown.name)?;
                let parent = entries.get(&record.shown.parent);
                let is_held = parent.is_some_and(|parent| parent.is_folder() && parent.height > record.height);
                expect(complaints, is_held, || {
                    format!("entry {number} hangs in nothing or in too low a bound")
                });
                expected_twins.insert(keys::twin(id, record.shown.parent, &name.folded(), number));
                let key = keys::child(id, record.shown.parent, &name.key());
                let row: Option<Shown> = crate::state::store::load(kv, &key)?;
                let is_shown = row.as_ref() == Some(&record.shown);
                expect(complaints, is_shown, || format!("entry {number} is shown otherwise"));
            }
            Standing::Trashed { age, .. } => {
                expected_trash.insert(keys::trash(id, age.0, number));
            }
            Standing::Detached { job } => {
                let is_worked = jobs
                    .iter()
                    .any(|(key, record)| keys::last_u64(key) == job && record.kind.may_hold(number));
                expect(complaints, is_worked, || {
                    format!("entry {number} is detached without a job")
                });
            }
        }
    }
    let shown = table::<Shown>(kv, id, keys::CHILD)?.len();
    expect(complaints, shown == children, || {
        format!("drive {id} shows {shown} children of {children}")
    });
    let trash: BTreeSet<_> = rows(kv, id, keys::TRASH)?.into_iter().collect();
    expect(complaints, trash == expected_trash, || {
        format!("the trash of drive {id} lists other entries")
    });
    let twins: BTreeSet<_> = rows(kv, id, keys::TWIN)?.into_iter().collect();
    expect(complaints, twins == expected_twins, || {
        format!("the twins of drive {id} are others")
    });
    let files = entries
        .values()
        .filter(|record| record.shown.entry_type == EntryType::File)
        .count() as u64;
    let counted = usage::get(kv, id)?;
    let folders = (entries.len() as u64).saturating_sub(files + 1);
    let is_counted = counted.files == files && counted.folders == folders;
    expect(complaints, is_counted, || {
        format!("drive {id} has {files} files and {folders} folders, not {counted:?}")
    });
    Ok(())
}

fn check_feed(kv: &dyn KvRead, drive: &DriveRecord, complaints: &mut Complaints) -> Outcome<()> {
    let id = drive.drive;
    let changes = table::<ChangeRecord>(kv, id, keys::CHANGE)?;
    let is_whole = changes
        .iter()
        .map(|(key, _)| keys::last_u64(key))
        .eq(feed::dropped(kv, id, 0)? + 1..=drive.sequence);
    expect(complaints, is_whole, || format!("the feed of drive {id} has a hole"));
    for (key, scope) in table::<ScopeRecord>(kv, id, keys::SCOPE)? {
        let number = keys::last_u64(&key);
        let prefix = keys::scope_changes(id, number).done();
        let told = list::<ScopeChange>(kv, &prefix, None, usize::MAX)?;
        let first = feed::dropped(kv, id, number)? + 1;
        let is_whole = told
            .iter()
            .map(|(key, _)| keys::last_u64(key))
            .eq(first..=scope.sequence);
        expect(complaints, is_whole, || {
            format!("the feed of scope {number} has a hole")
        });
        let wanted: Vec<u64> = changes
            .iter()
            .filter(|(_, change)| change.before.contains(&number) || change.after.contains(&number))
            .map(|(key, _)| keys::last_u64(key))
            .collect();
        let is_told = told.iter().map(|(_, row)| row.sequence).eq(wanted);
        expect(complaints, is_told, || format!("scope {number} was told other changes"));
    }
    Ok(())
}

fn check_requests(kv: &dyn KvRead, slot: Slot, complaints: &mut Complaints) -> Outcome<()> {
    let prefix = Key::of_slot(slot, keys::REQUEST).done();
    let ends: BTreeSet<_> = kv
        .scan(&Scan::prefix(&Key::of_slot(slot, keys::REQUEST_END).done(), usize::MAX))?
        .into_iter()
        .map(|(key, _)| key)
        .collect();
    let mut wanted = BTreeSet::new();
    for (key, row) in list::<RequestRow>(kv, &prefix, None, usize::MAX)? {
        let name = key.get(prefix.len()..).unwrap_or_default();
        wanted.insert(
            Key::of_slot(slot, keys::REQUEST_END)
                .u32(row.end_hour)
                .bytes(name)
                .done(),
        );
    }
    expect(complaints, ends == wanted, || {
        format!("request ids of slot {} end otherwise", slot.number())
    });
    Ok(())
}

/// The number behind the drive in a key.
pub(crate) fn first_u64(key: &[u8]) -> u64 {
    keys::u64_at(key, DRIVE_PREFIX_BYTES)
}
