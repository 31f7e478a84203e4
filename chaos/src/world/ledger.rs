//! What the users of a world of collection were told: which files there are, what they may hold, and which are gone for good.
//!
//! Only what was acknowledged is held against the cluster: a file whose removal was asked for and not answered may be there or not,
//! and one whose making was not answered is in no ledger.
//! Not here: what was found in the end, and what must hold of it (`oracle::collection`).

use crate::world::history::Tag;
use crate::world::proof::CONCURRENCY_MIN;
use daemon::random::Random;
use model::id::EntryId;
use std::collections::{BTreeMap, BTreeSet};
use std::sync::{Arc, Mutex, MutexGuard, PoisonError};

/// Of how many of the last contents one is written again: those that somebody is just writing or removing, or some that have died.
const WRITTEN_AGAIN: [u64; 2] = [32, 2048];
/// A tag says by its remainder how long its content is (`history::content`).
const CLASSES: u64 = 5;
/// Of twenty contents so many have which class: mostly small ones, all of them often enough.
const CLASS_OF: [u64; 20] = [0, 0, 1, 1, 1, 1, 1, 2, 2, 2, 2, 2, 2, 3, 3, 3, 3, 3, 4, 4];

/// What is known of a file's end.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub enum Fate {
    /// Nobody asked to remove it for good.
    Kept,
    /// Somebody did, and has no answer.
    Doubtful,
    /// It is gone.
    Gone,
}

/// One file.
#[derive(Clone, Debug, PartialEq, Eq)]
pub struct File {
    /// Versions that were acknowledged, with the content of each.
    pub versions: BTreeMap<u64, Tag>,
    /// Every content that some version of it may have.
    pub tags: BTreeSet<Tag>,
    /// What is known of its end.
    pub fate: Fate,
    /// Whether it went into the trash last, as far as was told.
    pub is_trashed: bool,
}

impl File {
    /// A file that may have these contents, and of which nothing else is known.
    #[must_use]
    pub fn of(tags: BTreeSet<Tag>) -> Self {
        Self {
            versions: BTreeMap::new(),
            tags,
            fate: Fate::Kept,
            is_trashed: false,
        }
    }
}

/// The ledger; clones are the same.
#[derive(Clone, Default)]
pub struct Ledger {
    inner: Arc<Mutex<Inner>>,
}

#[derive(Default)]
struct Inner {
    files: BTreeMap<EntryId, File>,
    /// Files of which nobody asked to remove them, in the order in which they came.
    kept: Vec<EntryId>,
    /// Copied folders, the same.
    shelves: Vec<EntryId>,
    drawn: u64,
    written: Vec<Tag>,
    open: usize,
    open_max: usize,
    overlapping: usize,
    returned: usize,
    unknown: usize,
    violations: Vec<String>,
}

/// How much was done.
#[derive(Clone, Copy, Debug, Default, PartialEq, Eq)]
pub struct Done {
    /// Operations that returned.
    pub returned: usize,
    /// Of these, of which nobody knows whether they happened.
    pub unknown: usize,
    /// How many overlapped at most.
    pub concurrency: usize,
    /// How many began beside enough others (`proof`).
    pub overlapping: usize,
}

fn at(random: &Random, count: usize) -> usize {
    usize::try_from(random.below(count as u64)).expect("below a usize")
}

impl Ledger {
    fn inner(&self) -> MutexGuard<'_, Inner> {
        // Counters and whole elements.
        self.inner.lock().unwrap_or_else(PoisonError::into_inner)
    }

    /// A number that nothing else has, for names.
    #[must_use]
    pub fn number(&self) -> u64 {
        let mut inner = self.inner();
        inner.drawn += 1;
        inner.drawn
    }

    /// A content to write: one of three was written before, perhaps dead by now.
    #[must_use]
    pub fn tag(&self, random: &Random) -> Tag {
        let mut inner = self.inner();
        let recent = (inner.written.len() as u64).min(WRITTEN_AGAIN[at(random, WRITTEN_AGAIN.len())]);
        if recent > 0 && random.below(3) == 0 {
            let back = usize::try_from(1 + random.below(recent)).expect("as many as were written");
            return inner.written[inner.written.len() - back];
        }
        inner.drawn += 1;
        let tag = inner.drawn * CLASSES + CLASS_OF[at(random, CLASS_OF.len())];
        inner.written.push(tag);
        tag
    }

    /// An operation is called.
    pub fn called(&self) {
        let mut inner = self.inner();
        inner.open += 1;
        inner.open_max = inner.open_max.max(inner.open);
        inner.overlapping += usize::from(inner.open >= CONCURRENCY_MIN);
    }

    /// It returned.
    pub fn returned(&self, is_unknown: bool) {
        let mut inner = self.inner();
        inner.open -= 1;
        inner.returned += 1;
        inner.unknown += usize::from(is_unknown);
    }

    /// How many operations have an answer.
    #[must_use]
    pub fn answered(&self) -> usize {
        let inner = self.inner();
        inner.returned - inner.unknown
    }

    /// Something that must never be was answered.
    pub fn accuse(&self, violation: String) {
        self.inner().violations.push(violation);
    }

    /// How many files there surely are.
    #[must_use]
    pub fn crowd(&self) -> usize {
        self.inner().kept.len()
    }

    /// One of the files that nobody asked to remove, with its newest version that is known; none when there is none.
    #[must_use]
    pub fn pick(&self, random: &Random) -> Option<(EntryId, u64)> {
        self.pick_where(random, |_| true)
    }

    /// The same of files of a sort, or of another when some draws have met none.
    #[must_use]
    pub fn pick_where(&self, random: &Random, is_wanted: impl Fn(&File) -> bool) -> Option<(EntryId, u64)> {
        /// How often another one is drawn.
        const DRAWS: usize = 8;
        let inner = self.inner();
        let mut found = None;
        for _ in 0..DRAWS {
            let id = *inner.kept.get(at(random, inner.kept.len()))?;
            let file = inner.files.get(&id)?;
            found = Some((id, file.versions.last_key_value().map_or(1, |(newest, _)| *newest)));
            if is_wanted(file) {
                break;
            }
        }
        found
    }

    /// A file was made, or a version of it, with this content.
    pub fn wrote(&self, entry: EntryId, version: u64, tag: Tag) {
        let mut guard = self.inner();
        let inner = &mut *guard;
        let file = inner.files.entry(entry).or_insert_with(|| {
            inner.kept.push(entry);
            File::of(BTreeSet::new())
        });
        file.tags.insert(tag);
        if let Some(other) = file.versions.insert(version, tag).filter(|other| *other != tag) {
            let violation = format!("entry {entry} version {version} was acknowledged with {other} and with {tag}");
            inner.violations.push(violation);
        }
    }

    /// A content may be in a file from now on.
    pub fn may_hold(&self, entry: EntryId, tag: Tag) {
        if let Some(file) = self.inner().files.get_mut(&entry) {
            file.tags.insert(tag);
        }
    }

    /// A file was read with this content, or (`None`) was not there.
    pub fn read_as(&self, entry: EntryId, seen: Option<Tag>) {
        let mut inner = self.inner();
        let Some(file) = inner.files.get(&entry) else { return };
        let violation = match seen {
            Some(tag) if !file.tags.contains(&tag) => format!("entry {entry} reads as {tag}, which nobody wrote there"),
            None if file.fate == Fate::Kept => format!("entry {entry} is lost: not found, and nobody removed it"),
            _ => return,
        };
        inner.violations.push(violation);
    }

    /// A file was copied: the copy has one of the contents that its source had by then.
    pub fn copied(&self, source: EntryId, copy: EntryId) {
        let mut inner = self.inner();
        let tags = inner.files.get(&source).map(|file| file.tags.clone());
        inner.files.insert(copy, File::of(tags.unwrap_or_default()));
        inner.kept.push(copy);
    }

    /// A folder was copied.
    pub fn shelved(&self, shelf: EntryId) {
        self.inner().shelves.push(shelf);
    }

    /// A copied folder that is to be removed for good: nobody else is given it.
    #[must_use]
    pub fn take_shelf(&self, random: &Random) -> Option<EntryId> {
        let mut inner = self.inner();
        let count = inner.shelves.len();
        (count > 0).then(|| inner.shelves.swap_remove(at(random, count)))
    }

    /// A file went into the trash, or came out of it.
    pub fn trashed(&self, entry: EntryId, is_trashed: bool) {
        if let Some(file) = self.inner().files.get_mut(&entry) {
            file.is_trashed = is_trashed;
        }
    }

    /// Somebody is about to remove a file for good.
    pub fn removing(&self, entry: EntryId) {
        let mut inner = self.inner();
        inner.kept.retain(|kept| *kept != entry);
        if let Some(file) = inner.files.get_mut(&entry).filter(|file| file.fate == Fate::Kept) {
            file.fate = Fate::Doubtful;
        }
    }

    /// It is gone.
    pub fn removed(&self, entry: EntryId) {
        if let Some(file) = self.inner().files.get_mut(&entry) {
            file.fate = Fate::Gone;
        }
    }

    /// Every file, and what must never have been answered.
    #[must_use]
    pub fn read(&self) -> (BTreeMap<EntryId, File>, Vec<String>) {
        let inner = self.inner();
        (inner.files.clone(), inner.violations.clone())
    }

    /// How much was done.
    #[must_use]
    pub fn done(&self) -> Done {
        let inner = self.inner();
        Done {
            returned: inner.returned,
            unknown: inner.unknown,
            concurrency: inner.open_max,
            overlapping: inner.overlapping,
        }
    }
}

#[cfg(test)]
mod tests {
    use super::{Fate, Ledger};
    use daemon::random::Random;
    use model::id::{DriveId, EntryId};

    const ENTRY: EntryId = EntryId {
        drive: DriveId(1),
        number: 5,
    };
    const COPY: EntryId = EntryId { number: 6, ..ENTRY };

    #[test]
    fn two_contents_of_a_version_a_foreign_one_and_a_file_that_vanished_are_seen() {
        let (ledger, random) = (Ledger::default(), Random::seeded(1));
        let accused = |ledger: &Ledger| ledger.read().1.len();
        ledger.wrote(ENTRY, 1, 7);
        ledger.wrote(ENTRY, 1, 7);
        ledger.read_as(ENTRY, Some(7));
        assert_eq!((accused(&ledger), ledger.pick(&random)), (0, Some((ENTRY, 1))));
        ledger.copied(ENTRY, COPY);
        ledger.may_hold(ENTRY, 9);
        ledger.read_as(ENTRY, Some(9));
        assert_eq!(accused(&ledger), 0);
        ledger.read_as(COPY, Some(9));
        assert_eq!(accused(&ledger), 1, "what came after the copy is not in it");
        ledger.wrote(ENTRY, 1, 8);
        assert_eq!(accused(&ledger), 2);
        ledger.read_as(COPY, None);
        assert_eq!(accused(&ledger), 3);
        ledger.removing(COPY);
        ledger.read_as(COPY, None);
        ledger.removing(ENTRY);
        ledger.removed(ENTRY);
        assert_eq!((accused(&ledger), ledger.pick(&random)), (3, None));
        let files = ledger.read().0;
        assert_eq!((files[&COPY].fate, files[&ENTRY].fate), (Fate::Doubtful, Fate::Gone));
    }
}
