//! One command's part of a copy: a walk over the source in the order of names that makes what is not made yet.
//!
//! The number of an entry's copy follows from the entry's own, so an entry that is moved about under the walk and met twice is copied
//! once, and a repeated command finds what it made.
//! Invariants: what is copied of a file is its current version, whole or not at all; a folder whose purge has begun is left, since its
//! files go piece by piece; a command does at most `SWEEP_OPERATIONS_MAX` sub-operations, or one file of more pages alone, and near
//! its end, or while it does not gain on the changes, at most `LAST_OPERATIONS_MAX`; alone goes as well a file whose pages are exchanged:
//! about 2,000 page counts when it has 1,000.
//! Not here: what changes behind the walk (`follow`).

use super::{CopyRecord, Level};
use crate::state::change::Actor;
use crate::state::copy;
use crate::state::drive::DriveRecord;
use crate::state::entry::{Shown, Standing, Walk, stored_name};
use crate::state::job::SWEEP_OPERATIONS_MAX;
use crate::state::keys;
use crate::state::store::{Outcome, broken, list, require};
use crate::state::tree;
use kv::overlay::Overlay;
use model::entry::EntryType;
use model::hash::stable_hash;
use model::id::ROOT_ENTRY;
use model::limits::{COMMAND_OPERATIONS_MAX, COPY_ENTRIES_MAX};
use protocol::codes;

/// Entries and changes looked at by one command: most cost a few reads and no write.
const LOOKED_AT_MAX: usize = 200;
/// Sub-operations of one command near the end, where users who write meanwhile would be ahead again after each shorter one: half of
/// what a command of theirs may have.
const LAST_OPERATIONS_MAX: usize = COMMAND_OPERATIONS_MAX / 2;
/// Entries and changes looked at by one command near the end.
const LAST_LOOKED_AT_MAX: usize = COMMAND_OPERATIONS_MAX;
/// Children read at a time.
const CHILDREN_RUN: usize = 64;

/// How the copy of an entry stands.
pub(super) enum CopyOf {
    /// There is none.
    Absent,
    /// It is part of what is built.
    Part(Walk),
    /// It was taken out again, and its purge is not done yet.
    Leaving,
}

/// A copy under way in one command.
pub(super) struct Build<'t, 'o, 'a> {
    pub(super) tx: &'t mut Overlay<'o>,
    pub(super) drive: &'a DriveRecord,
    actor: Actor<'a>,
    pub(super) record: &'a mut CopyRecord,
    spent: usize,
    pub(super) looked_at: usize,
    is_full: bool,
    /// Whether it is no less far behind than it was already.
    is_losing: bool,
}

impl<'t, 'o, 'a> Build<'t, 'o, 'a> {
    /// `drive` is the drive's record as this command found it.
    pub(super) fn new(
        tx: &'t mut Overlay<'o>,
        drive: &'a DriveRecord,
        actor: Actor<'a>,
        record: &'a mut CopyRecord,
    ) -> Self {
        Self {
            tx,
            drive,
            actor,
            record,
            spent: 0,
            looked_at: 0,
            is_full: false,
            is_losing: false,
        }
    }

    /// Builds until the copy is what the source is, or the command has done enough; answers which, and the sub-operations.
    pub(super) fn run(mut self) -> Outcome<(bool, usize)> {
        let behind = self.drive.sequence.saturating_sub(self.record.followed);
        self.is_losing = self.record.least.is_some_and(|least| behind >= least);
        while !self.is_over() {
            if let Some(level) = self.record.path.last().cloned() {
                self.fill(&level)?;
            } else if self.record.followed < self.drive.sequence {
                let followed = self.record.followed;
                self.follow()?;
                // A command that only waits writes nothing.
                let least = self.record.least.get_or_insert(behind);
                if self.record.followed > followed {
                    *least = behind.min(*least);
                }
            } else {
                return Ok((true, self.spent));
            }
        }
        Ok((false, self.spent))
    }

    /// Whether the command has done enough.
    pub(super) fn is_over(&self) -> bool {
        self.is_full || self.spent >= self.operations_max() || self.looked_at >= self.looked_at_max()
    }

    /// Whether nothing is left but changes, and no more of them than a user's command may make, or the copy does not gain on them.
    fn is_near(&self) -> bool {
        let behind = self.drive.sequence.saturating_sub(self.record.followed);
        self.is_losing || self.record.path.is_empty() && behind <= COMMAND_OPERATIONS_MAX as u64
    }

    fn operations_max(&self) -> usize {
        if self.is_near() {
            LAST_OPERATIONS_MAX
        } else {
            SWEEP_OPERATIONS_MAX
        }
    }

    fn looked_at_max(&self) -> usize {
        if self.is_near() {
            LAST_LOOKED_AT_MAX
        } else {
            LOOKED_AT_MAX
        }
    }

    /// How much this command may still look at.
    pub(super) fn looks_left(&self) -> usize {
        self.looked_at_max().saturating_sub(self.looked_at)
    }

    /// Notes that one entry or change was looked at.
    pub(super) fn look(&mut self) {
        self.looked_at += 1;
    }

    /// Takes this many sub-operations; false when they must wait for the next command. What passes one goes alone.
    pub(super) fn afford(&mut self, operations: usize) -> Outcome<bool> {
        require(operations <= COMMAND_OPERATIONS_MAX, &codes::COPY_TOO_LARGE)?;
        if self.spent > 0 && self.spent + operations > self.operations_max() {
            self.wait();
            return Ok(false);
        }
        self.spent += operations;
        Ok(true)
    }

    /// The number of an entry's copy, whether it is there or not.
    pub(super) fn number_of(&self, source: u64) -> u64 {
        if source == self.record.source.number {
            return self.record.root;
        }
        self.drawn(self.record.seed, source)
    }

    /// A number that nobody else knows, for this copy and these two.
    pub(super) fn drawn(&self, first: u64, second: u64) -> u64 {
        stable_hash(&[first.to_le_bytes(), second.to_le_bytes()].concat()).max(ROOT_ENTRY + 1)
    }

    /// Has the rest wait for the next command.
    pub(super) fn wait(&mut self) {
        self.is_full = true;
    }

    /// How the copy of an entry stands.
    pub(super) fn copy_of(&self, source: u64) -> Outcome<CopyOf> {
        let Some(walk) = Walk::new(&*self.tx, self.drive.drive, self.number_of(source))? else {
            return Ok(CopyOf::Absent);
        };
        let upwards = walk.upwards();
        let root = upwards.iter().position(|above| above.shown.number == self.record.root);
        let own = &upwards[..root.unwrap_or(upwards.len())];
        // What was taken out may outlive the folder that it was in: its purge ends first.
        if own
            .iter()
            .any(|above| matches!(above.standing, Standing::Detached { .. }))
        {
            return Ok(CopyOf::Leaving);
        }
        require(root.is_some(), &codes::ID_TAKEN)?;
        Ok(CopyOf::Part(walk))
    }

    /// The walk from the copy of a folder that is copied.
    pub(super) fn folder(&self, source: u64) -> Outcome<Walk> {
        match self.copy_of(source)? {
            CopyOf::Part(walk) => Ok(walk),
            CopyOf::Absent | CopyOf::Leaving => Err(broken("what lies in a folder is copied before the folder")),
        }
    }

    /// Copies children of the innermost folder until one is a folder, the last was seen, or the command has done enough.
    fn fill(&mut self, level: &Level) -> Outcome<()> {
        let id = self.drive.drive;
        let from = Walk::new(&*self.tx, id, level.folder)?;
        if from.is_none_or(|from| from.is_detached()) {
            self.record.path.pop();
            return Ok(());
        }
        let into = self.folder(level.folder)?;
        let prefix = keys::children(id, level.folder).done();
        let after = (!level.after.is_empty()).then(|| [&prefix[..], &level.after[..]].concat());
        let rows_max = CHILDREN_RUN.min(self.looks_left());
        let run = list::<Shown>(&*self.tx, &prefix, after.as_deref(), rows_max)?;
        let is_last = run.len() < rows_max;
        for (key, child) in run {
            self.look();
            let is_new = match self.copy_of(child.number)? {
                CopyOf::Absent => true,
                // It came here from another folder; its own change says so and is followed.
                CopyOf::Part(_) => false,
                CopyOf::Leaving => {
                    self.wait();
                    return Ok(());
                }
            };
            if is_new && !self.make(&into, &child)? {
                return Ok(());
            }
            if let Some(level) = self.record.path.last_mut() {
                level.after = key.slice(prefix.len()..);
            }
            if is_new && child.entry_type == EntryType::Folder {
                self.enter(child.number);
                return Ok(());
            }
            if self.is_over() {
                return Ok(());
            }
        }
        if is_last {
            self.record.path.pop();
        }
        Ok(())
    }

    /// Has the children of a folder copied next.
    pub(super) fn enter(&mut self, folder: u64) {
        self.record.path.push(Level {
            folder,
            after: bytes::Bytes::new(),
        });
    }

    /// Makes the copy of an entry in a folder of the copy; false when that must wait for the next command.
    pub(super) fn make(&mut self, into: &Walk, source: &Shown) -> Outcome<bool> {
        let id = self.drive.drive;
        let content = match source.entry_type {
            EntryType::File => Some(copy::current(&*self.tx, id, source)?),
            EntryType::Folder => None,
        };
        let pages = content.as_ref().map_or(0, |content| content.pages.len());
        let made = self.record.files.saturating_add(self.record.folders);
        require(made < COPY_ENTRIES_MAX, &codes::COPY_TOO_LARGE)?;
        if !self.afford(1 + pages)? {
            return Ok(false);
        }
        let (name, number) = (stored_name(&source.name)?, self.number_of(source.number));
        self.put_aside(into, &name, number)?;
        let new = copy::new_entry(source);
        let made = tree::create_one(self.tx, self.drive, self.actor, into, &name, number, &new)?;
        match content {
            Some(content) => {
                copy::give(self.tx, id, self.actor, content, made)?;
                self.record.files += 1;
            }
            None => self.record.folders += 1,
        }
        Ok(true)
    }

    /// Who makes what is built, as if all of it were made when the copy was asked for.
    pub(super) fn actor(&self) -> Actor<'a> {
        self.actor
    }
}
