//! One group's log in memory: vote, positions, and where each entry lies in the stream.
//!
//! Pure. The same `apply` runs when a change is submitted and when it is read back, so memory and stream cannot disagree.
//! Invariants (`check`): entries are consecutive and begin behind the purge point; terms never fall along the log.
//! Not here: the stream itself, waiting, the memory budget over all groups (`log_store`).

use crate::raft::record::{LogChange, StoredEntry, StoredLogId, StoredVote};
use disk::{Place, SegmentNumber};
use std::collections::{BTreeMap, VecDeque};

/// An entry: where it stands, and its content or its place or both.
#[derive(Clone, Debug)]
pub struct Slot {
    /// Its position.
    pub log_id: StoredLogId,
    /// The record that holds it; `None` until that is synced.
    pub place: Option<Place>,
    /// Its content; `None` when it was dropped to save memory, which needs a place.
    pub entry: Option<StoredEntry>,
}

/// A change that does not fit the log: a hole, or a conflict that was not truncated.
#[derive(Clone, Debug, PartialEq, Eq, thiserror::Error)]
pub enum LogFault {
    /// An entry does not follow the last one.
    #[error("entry {index} leaves a hole behind entry {last}")]
    Hole {
        /// Of the entry.
        index: u64,
        /// Of the log's last.
        last: u64,
    },
    /// Another entry stands at the position.
    #[error("entry {index} of term {term} meets another of term {found}")]
    Conflict {
        /// Of the entry.
        index: u64,
        /// Of the entry.
        term: u64,
        /// Of the one that is there.
        found: u64,
    },
    /// What must hold of any log does not.
    #[error("log does not agree with itself: {0}")]
    Broken(&'static str),
}

/// The log of one group.
#[derive(Clone, Debug, Default)]
pub struct GroupLog {
    /// The last saved vote.
    pub vote: Option<StoredVote>,
    /// Everything up to here is gone.
    pub purged: Option<StoredLogId>,
    /// The last saved committed position.
    pub committed: Option<StoredLogId>,
    slots: BTreeMap<u64, Slot>,
    /// Segments that hold the newest synced record of vote, purge point and committed position.
    facts: [Option<SegmentNumber>; 3],
    /// One for each submitted and not yet synced truncation or purge: the oldest segment that was needed before it. Until it is
    /// synced a crash brings back what it took away, and that must come back without a hole.
    held: VecDeque<Option<SegmentNumber>>,
    bytes_in_memory: usize,
}

impl GroupLog {
    /// Makes `change`, whose record lies at `place` when it was read back; a submitted one has no place until `note_place`.
    /// Nothing is changed on an error. Behind all that was read back comes `check`.
    ///
    /// # Errors
    /// When the change does not fit.
    pub fn apply(&mut self, change: LogChange, place: Option<Place>) -> Result<(), LogFault> {
        match change {
            LogChange::Vote(vote) => {
                self.vote = Some(vote);
                self.note_fact(0, place);
            }
            LogChange::Entries(entries) => self.append(entries, place)?,
            LogChange::Truncate(last) => {
                self.hold(place);
                let first_gone = last.map_or(0, |last| last.index + 1);
                let gone = self.slots.split_off(&first_gone);
                self.bytes_in_memory -= bytes_of(&gone);
            }
            LogChange::Purge(upto) => {
                self.hold(place);
                self.purge(upto);
                self.note_fact(1, place);
            }
            LogChange::Committed(committed) => {
                self.committed = committed;
                self.note_fact(2, place);
            }
            LogChange::Carried {
                vote,
                purged,
                committed,
            } => {
                self.vote = vote;
                self.committed = committed;
                if let Some(upto) = purged {
                    self.purge(upto);
                }
                (0..3).for_each(|fact| self.note_fact(fact, place));
            }
            LogChange::CarriedEntries(entries) => self.carry(entries, place),
        }
        Ok(())
    }

    fn note_fact(&mut self, fact: usize, place: Option<Place>) {
        if let Some(place) = place {
            self.facts[fact] = Some(place.segment);
        }
    }

    fn hold(&mut self, place: Option<Place>) {
        if place.is_none() {
            self.held.push_back(self.oldest_segment());
        }
    }

    fn insert(&mut self, slot: Slot) {
        self.bytes_in_memory += slot.entry.as_ref().map_or(0, StoredEntry::len_bytes);
        if let Some(old) = self.slots.insert(slot.log_id.index, slot) {
            self.bytes_in_memory -= old.entry.map_or(0, |entry| entry.len_bytes());
        }
    }

    fn append(&mut self, entries: Vec<StoredEntry>, place: Option<Place>) -> Result<(), LogFault> {
        let mut last = self.last();
        for entry in &entries {
            let StoredLogId { term, index } = entry.log_id;
            if let Some(found) = self.slots.get(&index) {
                return Err(LogFault::Conflict {
                    index,
                    term,
                    found: found.log_id.term,
                });
            }
            // What is read back may begin with an older purge point, whose next entries went with their segments: a later one covers
            // them, or `check` finds the hole.
            if let Some(last) = last.filter(|last| place.is_none() && last.index + 1 != index) {
                return Err(LogFault::Hole {
                    index,
                    last: last.index,
                });
            }
            last = Some(entry.log_id);
        }
        for entry in entries {
            let slot = Slot {
                log_id: entry.log_id,
                place,
                entry: Some(entry),
            };
            self.insert(slot);
        }
        Ok(())
    }

    /// Entries read back whose originals are perhaps gone with their segments.
    fn carry(&mut self, entries: Vec<StoredEntry>, place: Option<Place>) {
        for entry in entries {
            if self.purged.is_none_or(|purged| entry.log_id.index > purged.index) {
                let slot = Slot {
                    log_id: entry.log_id,
                    place,
                    entry: Some(entry),
                };
                self.insert(slot);
            }
        }
    }

    fn purge(&mut self, upto: StoredLogId) {
        if self.purged.is_none_or(|purged| purged.index < upto.index) {
            self.purged = Some(upto);
        }
        let kept = self.slots.split_off(&(upto.index + 1));
        self.bytes_in_memory -= bytes_of(&self.slots);
        self.slots = kept;
    }

    /// Bytes of entries whose contents are in memory.
    #[must_use]
    pub fn bytes_in_memory(&self) -> usize {
        self.bytes_in_memory
    }

    /// The last position: of the last entry, or the purge point when there is none.
    #[must_use]
    pub fn last(&self) -> Option<StoredLogId> {
        self.slots.last_key_value().map(|(_, slot)| slot.log_id).or(self.purged)
    }

    /// The last position before `index`: of an entry, or the purge point when there is none.
    #[must_use]
    pub fn last_before(&self, index: u64) -> Option<StoredLogId> {
        let before = self.slots.range(..index).next_back();
        before.map(|(_, slot)| slot.log_id).or(self.purged)
    }

    /// The entries from `from` (included) to `to` (excluded), as far as there are any.
    pub fn range(&self, from: u64, to: u64) -> impl Iterator<Item = &Slot> {
        let to = to.max(from);
        self.slots.range(from..to).map(|(_, slot)| slot)
    }

    /// All entries.
    pub fn slots(&self) -> impl Iterator<Item = &Slot> {
        self.slots.values()
    }

    /// Notes that the record of a submitted change is synced at `place`; entries changed since are left alone.
    pub fn note_place(&mut self, change: &Submitted, place: Place) {
        match change {
            Submitted::Purge => {
                self.held.pop_front();
                self.note_fact(1, Some(place));
            }
            Submitted::Fact(fact) => self.note_fact(*fact, Some(place)),
            Submitted::Facts => (0..3).for_each(|fact| self.note_fact(fact, Some(place))),
            Submitted::Entries(log_ids) => {
                for log_id in log_ids {
                    if let Some(slot) = self.slots.get_mut(&log_id.index).filter(|slot| slot.log_id == *log_id) {
                        slot.place = Some(place);
                    }
                }
            }
            Submitted::Truncation => {
                self.held.pop_front();
            }
        }
    }

    /// Drops contents of synced entries from the oldest on until `bytes` are freed; returns how many were.
    pub fn forget(&mut self, bytes: usize) -> usize {
        let mut freed = 0;
        for slot in self.slots.values_mut() {
            if freed >= bytes || slot.place.is_none() {
                break;
            }
            freed += slot.entry.take().map_or(0, |entry| entry.len_bytes());
        }
        self.bytes_in_memory -= freed;
        freed
    }

    /// The oldest segment that holds something of this group; `None` when all of it is newer than any known place.
    #[must_use]
    pub fn oldest_segment(&self) -> Option<SegmentNumber> {
        let of_facts = [self.vote.is_some(), self.purged.is_some(), self.committed.is_some()]
            .into_iter()
            .zip(self.facts)
            .filter_map(|(is_set, segment)| segment.filter(|_| is_set));
        let of_entries = self
            .slots
            .values()
            .filter_map(|slot| slot.place.map(|place| place.segment));
        of_facts
            .chain(of_entries)
            .chain(self.held.iter().flatten().copied())
            .min()
    }

    /// What must hold of any log.
    ///
    /// # Errors
    /// `Broken` with the first rule that does not hold.
    pub fn check(&self) -> Result<(), LogFault> {
        let mut last = self.purged;
        for slot in self.slots.values() {
            if last.is_some_and(|last| last.index + 1 != slot.log_id.index) {
                return Err(LogFault::Broken("entries are not consecutive"));
            }
            if last.is_some_and(|last| last.term > slot.log_id.term) {
                return Err(LogFault::Broken("terms fall"));
            }
            if slot.place.is_none() && slot.entry.is_none() {
                return Err(LogFault::Broken("an entry is nowhere"));
            }
            last = Some(slot.log_id);
        }
        Ok(())
    }
}

/// What a submitted record's place is noted for once it is synced.
#[derive(Clone, Debug)]
pub enum Submitted {
    /// Vote (0) or committed position (2).
    Fact(usize),
    /// The purge point, and what it took away.
    Purge,
    /// All three.
    Facts,
    /// These entries.
    Entries(Vec<StoredLogId>),
    /// A truncation: it is needed only as long as what it took away.
    Truncation,
}

impl Submitted {
    /// What `change` is noted for.
    #[must_use]
    pub fn of(change: &LogChange) -> Self {
        match change {
            LogChange::Vote(_) => Self::Fact(0),
            LogChange::Purge(_) => Self::Purge,
            LogChange::Committed(_) => Self::Fact(2),
            LogChange::Carried { .. } => Self::Facts,
            LogChange::Entries(entries) | LogChange::CarriedEntries(entries) => {
                Self::Entries(entries.iter().map(|entry| entry.log_id).collect())
            }
            LogChange::Truncate(_) => Self::Truncation,
        }
    }
}

fn bytes_of(slots: &BTreeMap<u64, Slot>) -> usize {
    slots
        .values()
        .filter_map(|slot| slot.entry.as_ref())
        .map(StoredEntry::len_bytes)
        .sum()
}

#[cfg(test)]
mod tests {
    use super::{GroupLog, LogFault};
    use crate::raft::record::{LogChange, StoredEntry, StoredLogId, StoredPayload};
    use disk::{Place, SegmentNumber};

    fn at(index: u64) -> StoredLogId {
        StoredLogId { term: 1, index }
    }

    fn entries(indexes: std::ops::RangeInclusive<u64>) -> LogChange {
        let entry = |index| StoredEntry {
            log_id: at(index),
            payload: StoredPayload::Blank,
        };
        LogChange::Entries(indexes.map(entry).collect())
    }

    fn in_segment(segment: u64) -> Option<Place> {
        Some(Place {
            segment: SegmentNumber(segment),
            offset: 0,
            len_bytes: 1,
        })
    }

    /// The entries between an old purge point and the first one that is left lay in segments that a later purge point let go.
    #[test]
    fn an_old_purge_point_that_is_read_back_without_the_entries_behind_it_is_covered_by_the_next_one() {
        let mut log = GroupLog::default();
        log.apply(LogChange::Purge(at(3)), in_segment(7)).unwrap();
        log.apply(entries(6..=8), in_segment(7)).unwrap();
        // Had the next one been lost, so were entries.
        assert!(matches!(log.check(), Err(LogFault::Broken(_))));
        log.apply(LogChange::Purge(at(6)), in_segment(9)).unwrap();
        log.check().unwrap();
        assert_eq!((log.purged, log.last()), (Some(at(6)), Some(at(8))));
        assert_eq!(log.oldest_segment(), Some(SegmentNumber(7)));
    }

    #[test]
    fn nobody_submits_an_entry_behind_a_hole() {
        let mut log = GroupLog::default();
        log.apply(LogChange::Purge(at(3)), None).unwrap();
        let hole = LogFault::Hole { index: 5, last: 3 };
        assert_eq!(log.apply(entries(5..=5), None), Err(hole));
        log.apply(entries(4..=4), None).unwrap();
    }
}
