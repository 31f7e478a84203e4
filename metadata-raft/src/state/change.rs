//! The change feed: one record by the drive's sequence, one row for each scope that held the entry before or after.
//!
//! Invariants: both sequences count from 1 without holes; entering a scope is told as `created`, leaving as `deleted`.
//! Not here: pages and ageing of the feed (`feed`), cursors and waiting (gateway).

use crate::state::age::Now;
use crate::state::drive::{self, DriveRecord};
use crate::state::entry::Shown;
use crate::state::feed;
use crate::state::keys;
use crate::state::store::{Outcome, broken, list, load, save};
use kv::overlay::Overlay;
use kv::seam::KvRead;
use model::authorize::Principal;
use model::entry::EntryType;
use model::id::{DeviceId, DriveId, EntryId, UserId};
use model::time::WallTime;
use protocol::metadata::drive::FeedPosition;
use protocol::metadata::query::{Change, ChangeType, Changes};
use serde::{Deserialize, Serialize};

/// A subtree that somebody may follow.
#[derive(Clone, Copy, Debug, PartialEq, Eq, Serialize, Deserialize)]
pub(crate) struct ScopeRecord {
    /// Sequence of its last change.
    pub(crate) sequence: u64,
}

/// One change of a drive.
#[derive(Clone, Debug, PartialEq, Eq, Serialize, Deserialize)]
pub(crate) struct ChangeRecord {
    pub(crate) change: ChangeType,
    pub(crate) entry: u64,
    pub(crate) entry_type: EntryType,
    pub(crate) version: u64,
    pub(crate) actor: UserId,
    pub(crate) device: Option<DeviceId>,
    pub(crate) wall: WallTime,
    /// Scopes that held the entry before.
    pub(crate) before: Vec<u64>,
    /// Scopes that hold it after.
    pub(crate) after: Vec<u64>,
}

/// What a scope is told of a change.
#[derive(Clone, Copy, Debug, PartialEq, Eq, Serialize, Deserialize)]
pub(crate) struct ScopeChange {
    pub(crate) sequence: u64,
    pub(crate) change: ChangeType,
}

/// Who does it and when.
#[derive(Clone, Copy)]
pub(crate) struct Actor<'a> {
    pub(crate) principal: &'a Principal,
    pub(crate) now: &'a Now,
}

/// Adds a change to the drive's feed and to its scopes'.
pub(crate) fn record(
    tx: &mut Overlay<'_>,
    drive: &mut DriveRecord,
    actor: Actor<'_>,
    change: ChangeType,
    shown: &Shown,
    scopes: (&[u64], &[u64]),
) -> Outcome<()> {
    let (before, after) = scopes;
    feed::note_hour(tx, actor.now, drive)?;
    drive.sequence = drive
        .sequence
        .checked_add(1)
        .ok_or_else(|| broken("a drive's sequence is used up"))?;
    let record = ChangeRecord {
        change,
        entry: shown.number,
        entry_type: shown.entry_type,
        version: shown.version,
        actor: actor.principal.user,
        device: actor.principal.device,
        wall: actor.now.wall,
        before: before.to_vec(),
        after: after.to_vec(),
    };
    save(tx, keys::change(drive.drive, drive.sequence), &record)?;
    let mut scopes: Vec<u64> = before.iter().chain(after).copied().collect();
    scopes.sort_unstable();
    scopes.dedup();
    for scope in scopes {
        let told = match (before.contains(&scope), after.contains(&scope)) {
            (true, false) if change == ChangeType::Moved => ChangeType::Deleted,
            (false, true) if change == ChangeType::Moved => ChangeType::Created,
            _ => change,
        };
        let key = keys::scope(drive.drive, scope);
        let known: ScopeRecord = load(&*tx, &key)?.ok_or_else(|| broken("a scope has no record"))?;
        let sequence = known
            .sequence
            .checked_add(1)
            .ok_or_else(|| broken("a scope's sequence is used up"))?;
        save(tx, key, &ScopeRecord { sequence })?;
        let row = keys::scope_changes(drive.drive, scope).u64(sequence).done();
        save(
            tx,
            row,
            &ScopeChange {
                sequence: drive.sequence,
                change: told,
            },
        )?;
    }
    drive::put(tx, drive)
}

/// Where a scope's feed stands.
pub(crate) fn position(kv: &dyn KvRead, drive: &DriveRecord, scope: u64) -> Outcome<FeedPosition> {
    let record: ScopeRecord = load(kv, &keys::scope(drive.drive, scope))?.ok_or(&protocol::codes::NOT_FOUND)?;
    let scope = EntryId {
        drive: drive.drive,
        number: scope,
    };
    Ok(FeedPosition {
        scope,
        incarnation: drive.incarnation,
        sequence: record.sequence,
    })
}

fn told(drive: DriveId, sequence: u64, change: ChangeType, record: ChangeRecord) -> Change {
    Change {
        sequence,
        change,
        entry: EntryId {
            drive,
            number: record.entry,
        },
        entry_type: record.entry_type,
        version: record.version,
        actor: record.actor,
        device: record.device,
        time: record.wall,
    }
}

/// Changes by the drive's own sequence, above `after`.
pub(crate) fn by_sequence(kv: &dyn KvRead, drive: &DriveRecord, after: u64, limit: usize) -> Outcome<Changes> {
    let prefix = keys::Key::of_drive(drive.drive, keys::CHANGE).done();
    let mut rows = list::<ChangeRecord>(kv, &prefix, Some(&keys::change(drive.drive, after)), limit + 1)?;
    let has_more = rows.len() > limit;
    rows.truncate(limit);
    let changes = rows
        .into_iter()
        .map(|(key, record)| told(drive.drive, keys::last_u64(&key), record.change, record))
        .collect();
    let mut position = position(kv, drive, model::id::ROOT_ENTRY)?;
    position.sequence = drive.sequence;
    Ok(Changes {
        changes,
        position,
        has_more,
    })
}

/// Changes of a scope by its sequence, above `after`.
pub(crate) fn by_scope(kv: &dyn KvRead, drive: &DriveRecord, scope: u64, after: u64, limit: usize) -> Outcome<Changes> {
    let position = position(kv, drive, scope)?;
    let prefix = keys::scope_changes(drive.drive, scope).done();
    let from = keys::scope_changes(drive.drive, scope).u64(after).done();
    let mut rows = list::<ScopeChange>(kv, &prefix, Some(&from), limit + 1)?;
    let has_more = rows.len() > limit;
    rows.truncate(limit);
    let mut changes = Vec::with_capacity(rows.len());
    for (key, row) in rows {
        let record: ChangeRecord = load(kv, &keys::change(drive.drive, row.sequence))?
            .ok_or_else(|| broken("a scope's change has no record"))?;
        changes.push(told(drive.drive, keys::last_u64(&key), row.change, record));
    }
    Ok(Changes {
        changes,
        position,
        has_more,
    })
}
