//! Removing a detached entry with all below it, the deepest first, some at a time.
//!
//! A folder is worked off in the order of its listing, a run of children with each read, behind the last one that went: what is
//! removed stays in the store as a mark for a while, and reading from the folder's beginning would step over all of these each time.
//! Invariants: nothing joins what is detached, nor the tree of an erased account, so nothing appears before the place of work; what
//! is counted of the drive is brought up to date once a command, before it ends.
//! Not here: what begins and ends a job (`job`).

use crate::state::children;
use crate::state::entry::{self, Shown};
use crate::state::keys;
use crate::state::page;
use crate::state::retention;
use crate::state::store::{Outcome, broken, list};
use crate::state::usage;
use crate::state::version::{self, VersionRecord};
use crate::state::waiting;
use bytes::Bytes;
use kv::overlay::Overlay;
use model::entry::EntryType;
use model::id::{DriveId, ROOT_ENTRY};

/// Children read at a time: most commands end within two runs.
const CHILDREN_RUN: usize = 64;
/// Versions of a file read at a time. A guess: most files have few.
const VERSIONS_RUN: usize = 8;

/// Where a purge is at work.
pub(crate) struct Place {
    pub(crate) root: u64,
    pub(crate) at: u64,
    /// The name key of the last child of `at` that went; empty at its beginning.
    pub(crate) after: Bytes,
}

/// One command's part of a purge.
pub(crate) struct Purge<'t, 'o> {
    tx: &'t mut Overlay<'o>,
    drive: DriveId,
    left: usize,
    files: i64,
    folders: i64,
}

/// How a folder or file was left.
enum Left {
    /// Nothing is in it.
    Empty,
    /// This child has children of its own, which go first.
    Below(u64),
    /// The command has done enough.
    Spent,
}

impl<'t, 'o> Purge<'t, 'o> {
    /// Of at most `operations` sub-operations.
    pub(crate) fn new(tx: &'t mut Overlay<'o>, drive: DriveId, operations: usize) -> Self {
        Self {
            tx,
            drive,
            left: operations,
            files: 0,
            folders: 0,
        }
    }

    /// Removes until nothing or no budget is left; answers whether all is gone and how many sub-operations are left.
    pub(crate) fn run(mut self, place: &mut Place) -> Outcome<(bool, usize)> {
        let is_done = self.remove(place)?;
        let (files, folders) = (self.files, self.folders);
        usage::change(self.tx, self.drive, |usage| {
            usage::shift(&mut usage.files, -files)?;
            usage::shift(&mut usage.folders, -folders)
        })?;
        Ok((is_done, self.left))
    }

    fn remove(&mut self, place: &mut Place) -> Outcome<bool> {
        loop {
            let record = entry::find(&*self.tx, self.drive, place.at)?;
            let shown = record.ok_or_else(|| broken("a job's entry is not there"))?.shown;
            let left = match shown.entry_type {
                EntryType::Folder => self.empty(place)?,
                EntryType::File => self.drop_versions(place.at)?,
            };
            match left {
                Left::Spent => return Ok(false),
                Left::Below(child) => {
                    place.at = child;
                    place.after = Bytes::new();
                    continue;
                }
                Left::Empty if place.at == ROOT_ENTRY => return Ok(true),
                Left::Empty if self.left == 0 => return Ok(false),
                Left::Empty => {}
            }
            let is_root = place.at == place.root;
            let name_key = entry::stored_name(&shown.name)?.key();
            self.forget(&shown, is_root)?;
            if is_root {
                return Ok(true);
            }
            place.at = shown.parent;
            place.after = Bytes::copy_from_slice(name_key.as_bytes());
        }
    }

    /// Removes the files and empty folders of the folder at work.
    fn empty(&mut self, place: &mut Place) -> Outcome<Left> {
        let prefix = keys::children(self.drive, place.at).done();
        loop {
            let after = (!place.after.is_empty()).then(|| [&prefix[..], &place.after[..]].concat());
            let run = list::<Shown>(&*self.tx, &prefix, after.as_deref(), CHILDREN_RUN)?;
            let is_last = run.len() < CHILDREN_RUN;
            for (key, child) in run {
                let left = match child.entry_type {
                    EntryType::Folder => self.look_into(child.number)?,
                    EntryType::File => self.drop_versions(child.number)?,
                };
                match left {
                    Left::Empty if self.left == 0 => return Ok(Left::Spent),
                    Left::Empty => self.forget(&child, false)?,
                    full => return Ok(full),
                }
                place.after = key.slice(prefix.len()..);
            }
            if is_last {
                return Ok(Left::Empty);
            }
        }
    }

    /// Whether a folder has children.
    fn look_into(&self, folder: u64) -> Outcome<Left> {
        let record = entry::find(&*self.tx, self.drive, folder)?;
        let record = record.ok_or_else(|| broken("a listed entry is not there"))?;
        // The bound of heights is above zero wherever something hangs, and saves a scan for each folder that was always empty.
        let has_children =
            record.height > 0 && waiting::first(&*self.tx, &keys::children(self.drive, folder).done(), &[])?.is_some();
        Ok(if has_children { Left::Below(folder) } else { Left::Empty })
    }

    /// Gives up the versions of a file, oldest first, a long one in parts.
    fn drop_versions(&mut self, entry: u64) -> Outcome<Left> {
        let prefix = keys::versions(self.drive, entry).done();
        loop {
            let run = list::<VersionRecord>(&*self.tx, &prefix, None, VERSIONS_RUN)?;
            let is_last = run.len() < VERSIONS_RUN;
            for (key, mut version) in run {
                while self.left > 0 {
                    let Some(page) = version.pages.pop() else { break };
                    page::release(self.tx, self.drive, page.digest)?;
                    self.left -= 1;
                }
                if self.left == 0 {
                    version::put(self.tx, self.drive, entry, &version)?;
                    return Ok(Left::Spent);
                }
                retention::forget_age(self.tx, self.drive, entry, version.number)?;
                self.tx.delete(key);
                self.left -= 1;
            }
            if is_last {
                return Ok(Left::Empty);
            }
        }
    }

    fn forget(&mut self, shown: &Shown, is_root: bool) -> Outcome<()> {
        if !is_root {
            children::detach(self.tx, self.drive, shown)?;
        }
        self.tx.delete(keys::entry(self.drive, shown.number));
        self.left -= 1;
        match shown.entry_type {
            EntryType::Folder => self.folders += 1,
            EntryType::File => self.files += 1,
        }
        Ok(())
    }
}
