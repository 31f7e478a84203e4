//! Doing to a copy what was done to its source since the copy began: from the drive's feed, each change with its entry as it is now.
//!
//! A changed entry is put right from the source downwards, each folder above it first, so that it comes to lie where it lies in the
//! source and nothing comes to lie below itself; folders that one walk shows to be right are passed over. A name that is still borne
//! by the copy of an entry which has another one by now, and whose own change is yet to come, is freed by giving that copy a name that
//! nobody knows.
//! An entry that is out of the source takes the folders above it that are out as well with it: were one of them kept until its own
//! change, and back in the source by then, it would lack what was not put right in it meanwhile.
//! Invariants: when the last change was followed and no folder is half copied, the copy has the tree, the contents and the content types
//! that the source has; what leaves the source leaves the copy.
//! Not here: dates, devices, revisions and old versions, which a copy has of its own.

use super::build::{Build, CopyOf};
use crate::state::change::ChangeRecord;
use crate::state::children;
use crate::state::copy;
use crate::state::entry::{self, EntryRecord, Shown, Standing, Walk, stored_name};
use crate::state::job;
use crate::state::keys::{self, Key};
use crate::state::page;
use crate::state::store::{Outcome, broken, list, require};
use crate::state::version::{self, VersionRecord};
use model::entry::EntryType;
use model::limits::COMMAND_OPERATIONS_MAX;
use model::name::EntryName;
use protocol::codes;

/// Changes read at a time.
const CHANGES_RUN: usize = 64;

/// Where an entry lies.
enum Way {
    /// Below the source: the entries from there down to it.
    In(Vec<Shown>),
    /// Elsewhere: it, and the folders above it that do not lie below the source either, the outermost first.
    Out(Vec<u64>),
}

impl Build<'_, '_, '_> {
    /// Follows some changes, up to one that has a folder to be copied.
    pub(super) fn follow(&mut self) -> Outcome<()> {
        let id = self.drive.drive;
        let prefix = Key::of_drive(id, keys::CHANGE).done();
        let after = keys::change(id, self.record.followed);
        let rows_max = CHANGES_RUN.min(self.looks_left());
        let run = list::<ChangeRecord>(&*self.tx, &prefix, Some(&after), rows_max)?;
        // The feed drops what is older than its age.
        require(!run.is_empty(), &codes::SOURCE_CHANGED)?;
        for (key, change) in run {
            let sequence = keys::last_u64(&key);
            require(sequence == self.record.followed + 1, &codes::SOURCE_CHANGED)?;
            self.look();
            if !self.put_right(change.entry)? {
                return Ok(());
            }
            self.record.followed = sequence;
            if self.is_over() || !self.record.path.is_empty() {
                return Ok(());
            }
        }
        Ok(())
    }

    /// Makes the copy of an entry, and of the folders above it, what the entry is; false when the change must be looked at again.
    fn put_right(&mut self, number: u64) -> Outcome<bool> {
        let walk = Walk::new(&*self.tx, self.drive.drive, number)?;
        let way = match walk.map(|walk| self.way_to(&walk)) {
            Some(Way::In(way)) => way,
            Some(Way::Out(out)) => return self.remove(&out),
            None => return self.remove(&[number]),
        };
        // Each walk reads every folder on the way.
        self.looked_at += way.len() / 16;
        let above = &way[..way.len().saturating_sub(1)];
        let first = if self.is_right(above)? { above.len() } else { 0 };
        for source in &way[first..] {
            // Each costs a walk of its own.
            self.look();
            let into = self.folder(source.parent)?;
            let is_right = match self.copy_of(source.number)? {
                CopyOf::Part(copied) => self.amend(&into, copied.into_record(), source)?,
                CopyOf::Absent => {
                    let is_made = self.make(&into, source)?;
                    let is_folder = source.entry_type == EntryType::Folder;
                    if is_made && is_folder {
                        // What lies in it comes first, and what is copied from elsewhere and lies in it by now is met again then.
                        self.enter(source.number);
                    }
                    is_made && !is_folder
                }
                CopyOf::Leaving => {
                    self.wait();
                    false
                }
            };
            if !is_right {
                return Ok(false);
            }
        }
        Ok(true)
    }

    /// Whether the copies of folders from the source downwards lie and are named as they do and are: one walk for all of them.
    fn is_right(&self, way: &[Shown]) -> Outcome<bool> {
        let Some(last) = way.last() else {
            return Ok(true);
        };
        let CopyOf::Part(copied) = self.copy_of(last.number)? else {
            return Ok(false);
        };
        let mut pairs = copied.upwards().iter().zip(way.iter().rev());
        let is_same = |(copied, source): (&EntryRecord, &Shown)| {
            copied.shown.number == self.number_of(source.number) && copied.shown.name == source.name
        };
        Ok(usize::from(copied.depth()) == way.len() && pairs.all(is_same))
    }

    fn way_to(&self, walk: &Walk) -> Way {
        let upwards = walk.upwards();
        let source = self.record.source.number;
        let source = upwards.iter().position(|above| above.shown.number == source);
        let below = &upwards[..source.unwrap_or(upwards.len())];
        let is_off = |above: &EntryRecord| above.standing != Standing::Attached;
        let out = match source {
            Some(_) => below.iter().rposition(is_off).map_or(0, |last| last + 1),
            None => below.len(),
        };
        if source.is_some() && out == 0 {
            return Way::In(below.iter().rev().map(|above| above.shown.clone()).collect());
        }
        Way::Out(below[..out].iter().rev().map(|above| above.shown.number).collect())
    }

    /// Gives a copy the place, name and content of its source.
    fn amend(&mut self, into: &Walk, copied: EntryRecord, source: &Shown) -> Outcome<bool> {
        let (parent, shown) = (into.record().shown.number, &copied.shown);
        let is_in_place = shown.parent == parent && shown.name == source.name;
        let is_same = shown.digest == source.digest && shown.content_type == source.content_type;
        let number = shown.number;
        if !is_in_place {
            if !self.afford(1)? {
                return Ok(false);
            }
            self.hang(into, copied, source)?;
        }
        if is_same || source.entry_type == EntryType::Folder {
            return Ok(true);
        }
        self.give_again(number, source)
    }

    fn hang(&mut self, into: &Walk, mut copied: EntryRecord, source: &Shown) -> Outcome<()> {
        let id = self.drive.drive;
        let name = stored_name(&source.name)?;
        let number = copied.shown.number;
        require(!into.holds(number), &codes::SOURCE_CHANGED)?;
        self.put_aside(into, &name, number)?;
        children::require_room(into, &name, copied.height)?;
        children::detach(self.tx, id, &copied.shown)?;
        copied.shown.parent = into.record().shown.number;
        copied.shown.name = name.as_str().to_owned();
        entry::put(self.tx, id, &copied)?;
        children::attach(self.tx, id, into, &copied)
    }

    /// Gives the copy of a file the content that its source has by now in place of the one it was copied with.
    fn give_again(&mut self, number: u64, source: &Shown) -> Outcome<bool> {
        let id = self.drive.drive;
        let copied = entry::find(&*self.tx, id, number)?;
        let mut copied = copied.ok_or_else(|| broken("a copy is not there"))?;
        let old = copy::current(&*self.tx, id, &copied.shown)?;
        let new = copy::current(&*self.tx, id, source)?;
        let operations = 1 + new.pages.len();
        require(operations <= COMMAND_OPERATIONS_MAX, &codes::COPY_TOO_LARGE)?;
        // What a file may have is exchanged by one command, however much it had before.
        if !self.afford((operations + old.pages.len()).min(COMMAND_OPERATIONS_MAX))? {
            return Ok(false);
        }
        copied.shown.content_type = source.content_type.clone();
        let actor = self.actor();
        copy::give(self.tx, id, actor, new, copied)?;
        for page in &old.pages {
            page::release(self.tx, id, page.digest)?;
        }
        Ok(true)
    }

    /// Takes the copies of these entries out again; false when the rest waits for the next command.
    fn remove(&mut self, out: &[u64]) -> Outcome<bool> {
        for source in out {
            if !self.remove_one(*source)? {
                return Ok(false);
            }
        }
        Ok(true)
    }

    /// What is below the copy is purged by a job of its own.
    fn remove_one(&mut self, source: u64) -> Outcome<bool> {
        let id = self.drive.drive;
        // What was never copied costs a read and no look: most of what is written elsewhere in the drive.
        let mut record = match self.copy_of(source)? {
            CopyOf::Absent => return Ok(true),
            CopyOf::Leaving => {
                self.look();
                return Ok(true);
            }
            CopyOf::Part(walk) => {
                self.look();
                walk.into_record()
            }
        };
        let shown = &record.shown;
        // The root's own source is looked after by each command.
        require(shown.number != self.record.root, &codes::SOURCE_CHANGED)?;
        let content: Option<VersionRecord> = match shown.entry_type {
            EntryType::File => version::find(&*self.tx, id, shown.number, shown.version)?,
            EntryType::Folder => None,
        };
        if !self.afford(1 + content.map_or(0, |content| content.pages.len()))? {
            return Ok(false);
        }
        children::detach(self.tx, id, shown)?;
        let job = self.drawn(shown.number, self.record.seed);
        record.standing = Standing::Detached { job };
        entry::put(self.tx, id, &record)?;
        job::begin_purge(self.tx, id, &record, job)?;
        Ok(true)
    }

    /// Frees a name in a folder of the copy for the copy of this number.
    pub(super) fn put_aside(&mut self, folder: &Walk, name: &EntryName, number: u64) -> Outcome<()> {
        let (id, parent) = (self.drive.drive, folder.record().shown.number);
        let taken = children::find(&*self.tx, id, parent, name)?;
        let Some(taken) = taken.filter(|taken| taken.number != number) else {
            return Ok(());
        };
        let record = entry::find(&*self.tx, id, taken.number)?;
        let mut record = record.ok_or_else(|| broken("a listed entry is not there"))?;
        let aside = stored_name(&format!("{:016x}", self.drawn(taken.number, self.record.seed)))?;
        children::require_free(&*self.tx, id, parent, &aside, None)?;
        children::detach(self.tx, id, &record.shown)?;
        record.shown.name = aside.as_str().to_owned();
        entry::put(self.tx, id, &record)?;
        children::attach(self.tx, id, folder, &record)
    }
}
