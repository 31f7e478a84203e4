//! Reading the feed, and dropping what is older than its age.
//!
//! Changes do not say at which age they were made; beside them stands, for each aged hour in which something changed, where the feed
//! stood before. So everything up to the next such mark is at least as old as its hour, and goes with it.
//! Invariants: changes are dropped from the beginning and only there; what a scope was told goes with the change that it was told of;
//! whoever asks behind a place that is not there any more, or never was, is told to reset.
//! Not here: writing changes (`change`), cursors and waiting (gateway), what each replica tells of what moved (`feed_watch`).

use crate::state::age::{Now, Times};
use crate::state::change::{self, ChangeRecord, ScopeChange, ScopeRecord};
use crate::state::drive::{self, DriveRecord};
use crate::state::entry::Walk;
use crate::state::job::SWEEP_OPERATIONS_MAX;
use crate::state::keys::{self, DRIVE_PREFIX_BYTES, Key};
use crate::state::store::{Outcome, Stop, broken, decode, load, require, save};
use crate::state::waiting::{self, Sweep, Work};
use bytes::Bytes;
use kv::overlay::Overlay;
use kv::seam::{KvError, KvRead};
use model::id::{DriveId, EntryId, Incarnation};
use model::time::WallTime;
use protocol::codes;
use protocol::metadata::drive::{EntryView, FeedPosition, Swept};
use protocol::metadata::query::{FeedChange, FeedPage, ROWS_MAX};
use protocol::metadata::watch::MovedScope;
use serde::{Deserialize, Serialize};
use std::collections::BTreeMap;

const HOUR_MS: u64 = 3_600_000;
/// Names and paths of one page: an answer has room for twice that.
const PAGE_BYTES_MAX: usize = 1 << 20;

/// Where a drive's feed stood before the first change of an aged hour.
#[derive(Clone, Copy, Debug, PartialEq, Eq, Serialize, Deserialize)]
pub(crate) struct FeedHour {
    pub(crate) sequence: u64,
}

/// Up to where changes were dropped.
#[derive(Clone, Copy, Debug, Default, PartialEq, Eq, Serialize, Deserialize)]
pub(crate) struct FeedDropped {
    pub(crate) sequence: u64,
}

/// Notes, before a change is added, in which aged hour it is made.
pub(crate) fn note_hour(tx: &mut Overlay<'_>, now: &Now, drive: &DriveRecord) -> Outcome<()> {
    let begun_ms = now.age().0 / HOUR_MS * HOUR_MS;
    let key = keys::feed_hour(drive.drive, begun_ms);
    if tx.get(&key)?.is_some() {
        return Ok(());
    }
    let due = waiting::due_of(Sweep::Feed, &key);
    let sequence = drive.sequence;
    save(tx, key, &FeedHour { sequence })?;
    waiting::note(tx, Work::of(drive.drive, Sweep::Feed), due)
}

/// Up to which sequence a scope's changes were dropped; the drive's own under scope 0.
pub(crate) fn dropped(kv: &dyn KvRead, drive: DriveId, scope: u64) -> Outcome<u64> {
    let dropped: FeedDropped = load(kv, &keys::feed_dropped(drive, scope))?.unwrap_or_default();
    Ok(dropped.sequence)
}

/// The scope whose feed a written row moves, if it is such a row.
pub(crate) fn moved(key: &[u8], value: &[u8]) -> Result<Option<MovedScope>, KvError> {
    if key.get(2) != Some(&keys::SCOPE) || key.starts_with(&keys::WHOLE_GROUP.to_be_bytes()) {
        return Ok(None);
    }
    let scope = EntryId {
        drive: DriveId(keys::u64_at(key, 3)),
        number: keys::u64_at(key, DRIVE_PREFIX_BYTES),
    };
    let ScopeRecord { sequence } = decode(key, value)?;
    Ok((sequence > 0).then_some(MovedScope { scope, sequence }))
}

/// A page of a scope's feed behind `after`, each change with its entry as it is now.
pub(crate) fn page(
    kv: &dyn KvRead,
    drive: &DriveRecord,
    scope: u64,
    after: Option<(Incarnation, u64)>,
    limit: usize,
) -> Outcome<FeedPage> {
    let position = change::position(kv, drive, scope)?;
    let mut page = FeedPage {
        changes: Vec::new(),
        position,
        dropped: dropped(kv, drive.drive, scope)?,
        has_more: false,
    };
    let Some((incarnation, after)) = after else {
        return Ok(page);
    };
    let is_there = (page.dropped..=position.sequence).contains(&after);
    require(incarnation == drive.incarnation && is_there, &codes::RESET)?;
    let found = change::by_scope(kv, drive, scope, after, limit)?;
    page.has_more = found.has_more;
    let mut views: BTreeMap<u64, Option<EntryView>> = BTreeMap::new();
    let mut bytes = 0;
    for change in found.changes {
        let number = change.entry.number;
        let view = match views.get(&number) {
            Some(view) => view.clone(),
            None => {
                let walk = Walk::new(kv, drive.drive, number)?;
                // What lies outside of the scope by now is not shown.
                let walk = walk.filter(|walk| !walk.is_detached() && walk.holds(scope));
                let view = walk.map(|walk| walk.view());
                views.insert(number, view.clone());
                view
            }
        };
        bytes += view.as_ref().map_or(0, |view| view.path.len() + view.entry.name.len());
        if bytes > PAGE_BYTES_MAX {
            page.has_more = true;
            break;
        }
        page.changes.push(FeedChange { change, view });
    }
    Ok(page)
}

/// `Query::FeedEnds`.
pub(crate) fn ends(kv: &dyn KvRead, times: &mut Times, scopes: &[EntryId]) -> Outcome<Vec<FeedPosition>> {
    require(scopes.len() <= ROWS_MAX, &codes::BAD_LIMIT)?;
    let mut ends = Vec::with_capacity(scopes.len());
    for scope in scopes {
        // Refused as a whole when a slot is another group's.
        times.now(kv, scope.drive.slot(), WallTime(0))?;
        let end = drive::get(kv, scope.drive).and_then(|drive| change::position(kv, &drive, scope.number));
        match end {
            Ok(end) => ends.push(end),
            Err(Stop::Refused(failure)) if codes::NOT_FOUND.is(&failure) => {}
            Err(stop) => return Err(stop),
        }
    }
    Ok(ends)
}

/// `SweepFeed`: drops the changes of hours that are older than the feed's age.
pub(crate) fn sweep(tx: &mut Overlay<'_>, now: &Now, drive: DriveId) -> Outcome<Swept> {
    let work = Work::of(drive, Sweep::Feed);
    let record = drive::get(&*tx, drive)?;
    let prefix = Key::of_drive(drive, keys::FEED_HOUR).done();
    let mut after = waiting::after(&*tx, work)?;
    let begun = dropped(&*tx, drive, 0)?;
    let (mut sequence, mut operations) = (begun, 0);
    let rest = loop {
        let marks = tx.scan(&waiting::behind(&prefix, &after, 2))?;
        let Some((key, _)) = marks.first() else {
            break None;
        };
        let due = waiting::due_of(Sweep::Feed, key);
        if due > now.age() || operations >= SWEEP_OPERATIONS_MAX {
            break Some(due);
        }
        let last = match marks.get(1) {
            Some((key, value)) => decode::<FeedHour>(key, value)?.sequence,
            None => record.sequence,
        };
        while sequence < last && operations < SWEEP_OPERATIONS_MAX {
            sequence += 1;
            operations += drop_change(tx, drive, sequence)?;
        }
        if sequence < last {
            break Some(due);
        }
        after = key.slice(prefix.len()..);
        tx.delete(key.clone());
        operations += 1;
    };
    if sequence > begun {
        save(tx, keys::feed_dropped(drive, 0), &FeedDropped { sequence })?;
    }
    waiting::settle(tx, work, rest.map(|due| (due, after)))?;
    Ok(Swept {
        operations: u32::try_from(operations).unwrap_or(u32::MAX),
        is_done: rest.is_none_or(|due| due > now.age()),
    })
}

/// Drops the drive's oldest change and what its scopes were told of it. Answers the sub-operations.
fn drop_change(tx: &mut Overlay<'_>, drive: DriveId, sequence: u64) -> Outcome<usize> {
    let key = keys::change(drive, sequence);
    let change: ChangeRecord = load(&*tx, &key)?.ok_or_else(|| broken("a change is missing in the feed"))?;
    tx.delete(key);
    let mut scopes: Vec<u64> = change.before.iter().chain(&change.after).copied().collect();
    scopes.sort_unstable();
    scopes.dedup();
    for scope in &scopes {
        let oldest = dropped(&*tx, drive, *scope)? + 1;
        let row: Bytes = keys::scope_changes(drive, *scope).u64(oldest).done();
        let told: ScopeChange = load(&*tx, &row)?.ok_or_else(|| broken("a scope was not told of a change"))?;
        if told.sequence != sequence {
            return Err(broken("a scope's oldest change is another one"));
        }
        tx.delete(row);
        let told = FeedDropped { sequence: oldest };
        save(tx, keys::feed_dropped(drive, *scope), &told)?;
    }
    Ok(1 + scopes.len())
}
