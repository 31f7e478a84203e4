//! What a rewind would change: a walk over the folder and over what lay in it and is in the trash, some entries a command.
//!
//! The walk goes folder by folder in the order of names, and leaves a folder behind all that lies in it: a folder that was made since is
//! listed behind its children, and only when none of them stays. The trash is read from its newest entry on, so that a folder comes
//! out before what was trashed in it earlier; entries of one age have no order there, and work sees to that.
//! Invariants: nothing but the list is written; where the tree changes under the walk, an entry may be listed twice or not at all, and
//! the revisions of the list say at work which of it still holds.

use super::{Level, RewindRecord};
use crate::state::entry::{self, Shown, Standing, Walk};
use crate::state::keys::{self, Key};
use crate::state::store::{Outcome, broken, list};
use crate::state::version::{self, VersionRecord};
use crate::state::waiting;
use kv::overlay::Overlay;
use kv::seam::{KvRead, Scan};
use model::entry::EntryType;
use model::id::DriveId;
use model::limits::DEPTH_MAX;
use model::time::WallTime;
use protocol::metadata::rewind::RewindAction;
use std::ops::Bound;

/// Entries looked at by one command: most cost two reads and no write.
const LOOKED_AT_MAX: usize = 200;
/// Children read at a time.
const CHILDREN_RUN: usize = 64;

/// Looks on; answers how many entries were looked at, and whether those were the last.
pub(super) fn run(tx: &mut Overlay<'_>, job: u64, record: &mut RewindRecord) -> Outcome<(usize, bool)> {
    let mut look = Look {
        tx,
        job,
        record,
        left: LOOKED_AT_MAX,
    };
    let is_over = look.on()?;
    Ok((LOOKED_AT_MAX - look.left, is_over))
}

/// One command's part.
struct Look<'t, 'o, 'r> {
    tx: &'t mut Overlay<'o>,
    job: u64,
    record: &'r mut RewindRecord,
    left: usize,
}

impl Look<'_, '_, '_> {
    fn on(&mut self) -> Outcome<bool> {
        while self.left > 0 {
            if let Some(level) = self.record.path.last().cloned() {
                self.folder(&level)?;
            } else if let Some(after) = self.record.trash.clone() {
                self.trashed(&after)?;
            } else {
                return Ok(true);
            }
        }
        Ok(false)
    }

    fn drive(&self) -> DriveId {
        self.record.order.entry.drive
    }

    fn spend(&mut self, reads: usize) {
        self.left = self.left.saturating_sub(reads.max(1));
        self.record.counts.looked_at += 1;
    }

    /// Looks at children of the folder until one is a folder, the last was seen, or the command has done enough.
    fn folder(&mut self, level: &Level) -> Outcome<()> {
        let prefix = keys::children(self.drive(), level.folder).done();
        let after = (!level.after.is_empty()).then(|| [&prefix[..], &level.after[..]].concat());
        let rows_max = CHILDREN_RUN.min(self.left);
        let run = list::<Shown>(&*self.tx, &prefix, after.as_deref(), rows_max)?;
        let is_last = run.len() < rows_max;
        for (key, child) in run {
            self.spend(1);
            self.at(|level| level.after = key.slice(prefix.len()..));
            match child.entry_type {
                EntryType::File => {
                    let stays = file(self.tx, self.job, self.record, &child, child.revision)?;
                    self.at(|level| level.keeps |= stays);
                }
                EntryType::Folder if self.record.path.len() > usize::from(DEPTH_MAX) => {
                    // Only a folder that others move about under the walk seems to lie that deep.
                    self.at(|level| level.keeps = true);
                }
                EntryType::Folder => {
                    self.record.path.push(Level::of(child.number));
                    return Ok(());
                }
            }
        }
        if is_last {
            return self.leave();
        }
        Ok(())
    }

    fn at(&mut self, change: impl FnOnce(&mut Level)) {
        if let Some(level) = self.record.path.last_mut() {
            change(level);
        }
    }

    /// Everything in the innermost folder was looked at.
    fn leave(&mut self) -> Outcome<()> {
        let Some(level) = self.record.path.pop() else {
            return Ok(());
        };
        let Some(found) = entry::find(&*self.tx, self.drive(), level.folder)? else {
            return Ok(());
        };
        let order = self.record.order;
        let stays = level.keeps || order.keeps_created || found.shown.created_at <= order.to;
        if !stays {
            let seen = (found.shown.number, found.shown.revision);
            self.record.list(self.tx, self.job, seen, RewindAction::Trash)?;
        }
        self.at(|above| above.keeps |= stays);
        Ok(())
    }

    /// Looks at the entry that came into the trash before the one of this key.
    fn trashed(&mut self, before: &[u8]) -> Outcome<()> {
        let drive = self.drive();
        let prefix = Key::of_drive(drive, keys::TRASH).done();
        let mut scan = Scan::prefix(&prefix, 1);
        scan.is_reverse = true;
        if !before.is_empty() {
            scan.to = Bound::Excluded([&prefix[..], before].concat().into());
        }
        let Some((key, _)) = self.tx.scan(&scan)?.into_iter().next() else {
            self.record.trash = None;
            return Ok(());
        };
        self.record.trash = Some(key.slice(prefix.len()..));
        let walk = Walk::new(&*self.tx, drive, keys::last_u64(&key))?;
        let walk = walk.ok_or_else(|| broken("a trashed entry is not there"))?;
        self.spend(walk.upwards().len());
        let order = self.record.order;
        let since = match walk.record().standing {
            Standing::Trashed { wall, .. } => wall,
            Standing::Attached | Standing::Detached { .. } => return Ok(()),
        };
        let is_below = walk.record().shown.number != order.entry.number && walk.holds(order.entry.number);
        let shown = walk.into_record().shown;
        if !is_below || since <= order.to || shown.created_at > order.to {
            return Ok(());
        }
        let seen = (shown.number, shown.revision);
        self.record.list(self.tx, self.job, seen, RewindAction::Untrash)?;
        match shown.entry_type {
            // Coming out of the trash is a change, which its content's turn finds done.
            EntryType::File => {
                file(self.tx, self.job, self.record, &shown, shown.revision.saturating_add(1))?;
            }
            EntryType::Folder => self.record.path.push(Level::of(shown.number)),
        }
        Ok(())
    }
}

/// Lists what would be done to a file, which its turn must find at `revision`; answers whether it stays.
pub(super) fn file(
    tx: &mut Overlay<'_>,
    job: u64,
    record: &mut RewindRecord,
    shown: &Shown,
    revision: u64,
) -> Outcome<bool> {
    let (order, seen) = (record.order, (shown.number, revision));
    if shown.created_at > order.to {
        if !order.keeps_created {
            record.list(tx, job, seen, RewindAction::Trash)?;
        }
        return Ok(order.keeps_created);
    }
    match version_at(&*tx, order.entry.drive, shown, order.to)? {
        None => record.list(tx, job, seen, RewindAction::Gone)?,
        Some(then) if Some(then.digest) != shown.digest => {
            record.list(tx, job, seen, RewindAction::Content { version: then.number })?;
        }
        Some(_) => {}
    }
    Ok(true)
}

/// The version that was current at an instant: it was made by then and the one behind it was not. `None` when it is not kept.
///
/// Cost O(log versions) reads. Times of versions come from the clocks of gateways; where those went back, several versions may fit, and
/// one of them is found.
fn version_at(kv: &dyn KvRead, drive: DriveId, shown: &Shown, to: WallTime) -> Outcome<Option<VersionRecord>> {
    let current = version::find(kv, drive, shown.number, shown.version)?;
    let current = current.ok_or_else(|| broken("a file has no current version"))?;
    if current.created_at <= to {
        return Ok(Some(current));
    }
    let Some(first) = waiting::first(kv, &keys::versions(drive, shown.number).done(), &[])? else {
        return Ok(None);
    };
    let Some(mut fitting) = version::find(kv, drive, shown.number, keys::last_u64(&first))? else {
        return Ok(None);
    };
    if fitting.created_at > to {
        return Ok(None);
    }
    let mut later = current.number;
    while later.saturating_sub(fitting.number) > 1 {
        let middle = fitting.number + (later - fitting.number) / 2;
        match version::find(kv, drive, shown.number, middle)? {
            Some(found) if found.created_at <= to => fitting = found,
            _ => later = middle,
        }
    }
    Ok(Some(fitting))
}
