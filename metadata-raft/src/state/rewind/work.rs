//! Carrying out a rewind's list, some entries a command.
//!
//! Invariants: an entry is changed only at the revision at which it was listed; one that cannot be changed is left with the reason and
//! holds up no other.

use super::{ItemRecord, RewindRecord};
use crate::state::change::Actor;
use crate::state::entry;
use crate::state::job::SWEEP_OPERATIONS_MAX;
use crate::state::keys;
use crate::state::restore;
use crate::state::store::{Outcome, attempt, broken, load, require, save};
use crate::state::tree;
use crate::state::version;
use crate::state::waiting;
use bytes::Bytes;
use kv::overlay::Overlay;
use kv::seam::KvRead;
use model::id::{DriveId, EntryId};
use protocol::codes;
use protocol::metadata::rewind::{RewindAction, RewindOutcome};
use serde::{Deserialize, Serialize};

/// Items passed by for one sub-operation, in a turn after the first: each is one read.
const PASSED_BY: u64 = 16;

/// One way through the list.
///
/// What lies in the trash with a folder above it waits until that folder is out, and the trash of one age has no order. So an item that
/// finds itself in the trash waits for another turn, as long as turns take something out.
#[derive(Clone, Copy, Debug, Default, PartialEq, Eq, Serialize, Deserialize)]
pub(super) struct Turn {
    /// The first item that was not worked on.
    next: u64,
    /// The first item that waits for another turn.
    again: Option<u64>,
    /// Whether something came out of the trash since.
    has_moved: bool,
    /// Whether nothing waits any more.
    is_last: bool,
}

impl Turn {
    /// Begins the next one; false when there is none.
    fn turn(&mut self) -> bool {
        let Some(again) = self.again else {
            return false;
        };
        *self = Self {
            next: again,
            is_last: !self.has_moved,
            ..Self::default()
        };
        true
    }
}

/// Works on; answers the sub-operations, and whether all of the list is done.
pub(super) fn run(
    tx: &mut Overlay<'_>,
    actor: Actor<'_>,
    job: u64,
    record: &mut RewindRecord,
) -> Outcome<(usize, bool)> {
    let drive = record.order.entry.drive;
    let mut spent = 0;
    loop {
        let at = record.turn.next;
        if at == record.counts.listed {
            if record.turn.turn() {
                continue;
            }
            return Ok((spent, true));
        }
        let key = keys::rewind_item(drive, job, at);
        let item: Option<ItemRecord> = load(&*tx, &key)?;
        let item = item.ok_or_else(|| broken("a rewind's list has a hole"))?;
        let cost = cost(&*tx, drive, at, &item)?;
        // One of more pages than that goes alone.
        if spent > 0 && spent + cost > SWEEP_OPERATIONS_MAX {
            return Ok((spent, false));
        }
        spent += cost;
        record.turn.next = at + 1;
        if item.outcome == RewindOutcome::Planned {
            work(tx, actor, record, key, item)?;
        }
    }
}

fn work(
    tx: &mut Overlay<'_>,
    actor: Actor<'_>,
    record: &mut RewindRecord,
    key: Bytes,
    mut item: ItemRecord,
) -> Outcome<()> {
    let drive = record.order.entry.drive;
    item.outcome = match attempt(tx, |own| change(own, actor, drive, &item))? {
        Ok(()) => {
            record.counts.done += 1;
            record.turn.has_moved |= record.turn.again.is_some() && item.action == RewindAction::Untrash;
            RewindOutcome::Done
        }
        Err(failure) if codes::IN_TRASH.is(&failure) && !record.turn.is_last => {
            record.turn.again.get_or_insert(keys::last_u64(&key));
            return Ok(());
        }
        Err(failure) => {
            record.counts.left += 1;
            RewindOutcome::Left(failure.code)
        }
    };
    save(tx, key, &item)
}

/// Sub-operations that an item takes: one, and one for each page.
fn cost(kv: &dyn KvRead, drive: DriveId, at: u64, item: &ItemRecord) -> Outcome<usize> {
    if item.outcome != RewindOutcome::Planned {
        return Ok(usize::from(at.is_multiple_of(PASSED_BY)));
    }
    let RewindAction::Content { version } = item.action else {
        return Ok(1);
    };
    let version = version::find(kv, drive, item.entry, version)?;
    Ok(1 + version.map_or(0, |version| version.pages.len()))
}

fn change(tx: &mut Overlay<'_>, actor: Actor<'_>, drive: DriveId, item: &ItemRecord) -> Outcome<()> {
    let id = EntryId {
        drive,
        number: item.entry,
    };
    let walk = entry::walk(&*tx, id)?;
    let shown = &walk.record().shown;
    if item.action != RewindAction::Untrash {
        require(!walk.is_in_trash(), &codes::IN_TRASH)?;
    }
    require(shown.revision == item.revision, &codes::REVISION_CONFLICT)?;
    match item.action {
        RewindAction::Content { version } => restore::restore(tx, actor, id, version, Some(shown.version)).map(drop),
        RewindAction::Trash => {
            let children = keys::children(drive, item.entry).done();
            require(
                waiting::first(&*tx, &children, &[])?.is_none(),
                &codes::FOLDER_NOT_EMPTY,
            )?;
            tree::trash(tx, actor, id, Some(item.revision)).map(drop)
        }
        RewindAction::Untrash => tree::restore(tx, actor, id, None, None).map(drop),
        RewindAction::Gone => Ok(()),
    }
}
