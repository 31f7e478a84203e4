//! What a store must hold: the naive twin, and the comparison.
//!
//! A write that was not acknowledged may have happened or not; so each fact is a pair: it may be so, it may be otherwise.

use super::harness::{kept_row_key, name, payload};
use crate::store::StoreError;
use crate::store::core::Core;
use crate::store::place_row;
use crate::store::read::ReadFault;
use model::inventory::{CellName, IdSum};
use model::time::BirthEpoch;
use protocol::node::ByteRange;
use std::collections::BTreeMap;

/// Whether an index that was there is looked at, or one made anew, which lacks what only an index holds.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub(super) enum Index {
    Kept,
    Lost,
}

/// It may be so, it may be otherwise.
#[derive(Clone, Copy, Debug)]
pub(super) struct Fact {
    pub(super) may_be: bool,
    pub(super) may_lack: bool,
}

impl Fact {
    const ABSENT: Self = Self {
        may_be: false,
        may_lack: true,
    };

    fn note(&mut self, is_so: bool, is_acknowledged: bool) {
        if is_acknowledged {
            (self.may_be, self.may_lack) = (is_so, !is_so);
        } else {
            self.may_be |= is_so;
            self.may_lack |= !is_so;
        }
    }
}

/// Fragments, their sequences, the damaged list and the kept row, as far as they are known.
#[derive(Clone, Debug, Default)]
pub(super) struct Truth {
    held: BTreeMap<u8, Fact>,
    sequences: BTreeMap<u8, u64>,
    listed: BTreeMap<u8, Fact>,
    /// The version that was acknowledged last and the highest that was tried.
    kept: (u64, u64),
}

impl Truth {
    /// A store (`is_there`) or a removal of `id`.
    pub(super) fn note_fragment(&mut self, id: u8, is_there: bool, is_acknowledged: bool, core: &Core) {
        self.held
            .entry(id)
            .or_insert(Fact::ABSENT)
            .note(is_there, is_acknowledged);
        // Whatever is stored or removed is not damaged; a repeat of what is whole changes nothing of it.
        self.listed
            .entry(id)
            .or_insert(Fact::ABSENT)
            .note(false, is_acknowledged);
        self.sequences.remove(&id);
        if is_acknowledged
            && is_there
            && let Ok(Some(row)) = core.row(&name(id))
        {
            self.sequences.insert(id, row.sequence);
        }
    }

    pub(super) fn note_listed(&mut self, id: u8, is_acknowledged: bool) {
        // A removal or repair whose record was synced, but which the index failed, is not acknowledged: until a start takes that
        // record in, the old one is what is listed, and with it the entry rightly goes. Only an acknowledged store settles it.
        let is_settled = self.sequences.contains_key(&id);
        self.listed
            .entry(id)
            .or_insert(Fact::ABSENT)
            .note(true, is_acknowledged && is_settled);
    }

    /// Compaction checks what it copies, so anything may have left the list.
    pub(super) fn note_compaction(&mut self) {
        self.listed.values_mut().for_each(|fact| fact.may_lack = true);
    }

    pub(super) fn note_kept(&mut self, version: u64, is_acknowledged: bool) {
        self.kept.1 = version;
        if is_acknowledged {
            self.kept.0 = version;
        }
    }

    /// The same with an index that was made anew: the damaged list and the kept row are gone.
    pub(super) fn without_index(mut self) -> Self {
        self.listed.clear();
        self.kept.0 = 0;
        self
    }

    /// Nothing is known of `id` any more.
    pub(super) fn forget(&mut self, id: u8) {
        self.held.remove(&id);
        self.sequences.remove(&id);
        self.listed.remove(&id);
    }

    /// Ids of which something is known.
    pub(super) fn ids(&self) -> impl Iterator<Item = u8> {
        self.held.keys().copied()
    }

    pub(super) fn held(&self, id: u8) -> Fact {
        self.held.get(&id).copied().unwrap_or(Fact::ABSENT)
    }

    /// The next version to be kept.
    pub(super) fn next_kept(&self) -> u64 {
        self.kept.1 + 1
    }

    /// The first thing that is not as it must be.
    pub(super) fn violation(&self, core: &Core, index: Index) -> Option<String> {
        let reader = core.reader();
        for (id, fact) in &self.held {
            let whole = ByteRange {
                offset: 0,
                len: payload(*id).len() as u32,
            };
            match reader.read(&name(*id), &[whole]) {
                Ok(read) if read.payload != payload(*id) => return Some(format!("{id} has other bytes")),
                Ok(_) if !fact.may_be => return Some(format!("{id} is back")),
                Ok(_) => {}
                Err(ReadFault::Store(StoreError::NotFound)) if fact.may_lack => {}
                Err(error) => return Some(format!("{id} does not read: {error:?}")),
            }
        }
        for (id, sequence) in &self.sequences {
            let row = core.row(&name(*id)).ok().flatten();
            if row.is_none_or(|row| row.sequence != *sequence) {
                return Some(format!("{id} has another sequence"));
            }
        }
        self.counts_violation(core).or_else(|| match index {
            Index::Kept => self.index_violation(core),
            Index::Lost => None,
        })
    }

    /// What the core counts is what the index says.
    fn counts_violation(&self, core: &Core) -> Option<String> {
        use std::sync::atomic::Ordering;
        let (mut living, mut bytes, mut fragments) = (BTreeMap::new(), BTreeMap::new(), 0_u64);
        let (mut sums, mut slots) = (BTreeMap::new(), BTreeMap::new());
        for (name, row) in core.rows_after(None).ok()? {
            if row.is_fragment() {
                let sum = sums.entry(CellName::of(&name)).or_insert(IdSum::ZERO);
                *sum = sum.plus(IdSum::of(name.stripe));
            }
            slots.insert(name.stripe.slot(), BirthEpoch::MAX);
            *living.entry(row.place.segment).or_insert(0_u64) += 1;
            *bytes.entry(row.place.segment).or_insert(0_u64) += crate::store::core::record_bytes(&row);
            fragments += u64::from(row.held != place_row::Held::Tombstone);
        }
        for (number, usage) in &core.segments {
            let expected = (
                living.get(number).copied().unwrap_or(0),
                bytes.get(number).copied().unwrap_or(0),
            );
            if (usage.living, usage.living_bytes) != expected {
                return Some(format!("segment {number} counts {usage:?}, its rows say {expected:?}"));
            }
            if usage.record_bytes < usage.living_bytes {
                return Some(format!("segment {number} has more living bytes than bytes: {usage:?}"));
            }
        }
        let counted = core.tally.fragments.load(Ordering::Relaxed);
        if counted != fragments {
            return Some(format!("{counted} fragments are counted, {fragments} are there"));
        }
        let told = core.tally.cells().sums(&slots, None, usize::MAX).sums;
        let told: BTreeMap<CellName, IdSum> = told
            .into_iter()
            .filter_map(|told| Some((told.cell, told.sum?)))
            .collect();
        if told != sums {
            return Some(format!("{told:?} are told of cells, {sums:?} are there"));
        }
        let listed = crate::store::damaged::damaged_list(core.index.as_ref(), 1000)
            .ok()?
            .len() as u64;
        let counted = core.tally.damaged.load(Ordering::Relaxed);
        (counted != listed).then(|| format!("{counted} damaged ones are counted, {listed} are listed"))
    }

    fn index_violation(&self, core: &Core) -> Option<String> {
        for (id, fact) in &self.listed {
            match core.index.get(&place_row::damaged_key(&name(*id))).ok()? {
                Some(_) if !fact.may_be => return Some(format!("{id} is on the damaged list again")),
                None if !fact.may_lack => return Some(format!("{id} has left the damaged list")),
                _ => {}
            }
        }
        let kept = core.index.get(&kept_row_key()).ok()?;
        let version = match kept.map(|bytes| place_row::decode::<place_row::LayoutRow>(&bytes)) {
            None => 0,
            Some(Ok(kept)) => kept.row.version.0,
            Some(Err(error)) => return Some(format!("the kept row does not read: {error}")),
        };
        let (acknowledged, tried) = self.kept;
        (version < acknowledged || version > tried)
            .then(|| format!("row version {version} is kept, {acknowledged} was acknowledged"))
    }
}
