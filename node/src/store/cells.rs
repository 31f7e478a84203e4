//! Sums of the fragments of a disk by cell, kept beside the place index.
//!
//! Place in the picture: made from the index when the disk is opened and brought up to date with every batch of it, so that what a disk
//! holds is compared with what groups count on without reading the index. A question names an epoch for each slot, since younger stripes
//! may be in flight; so the youngest epochs of a slot are counted apart, and older ones together.
//! Invariants: the old part of a cell counts what was born before `old_before`, the rest counts what was born since; no sum is kept of
//! nothing. All of it follows from the index: it is written nowhere.
//! Not here: what follows from a difference (the gateway's collector). Nothing on a disk is ever decided by these sums.

use model::id::Slot;
use model::inventory::{CellName, IdSum};
use model::profile::ProfileId;
use model::stripe::{FragmentName, StripeId};
use model::time::BirthEpoch;
use protocol::node::{CellSum, FragmentSums};
use std::collections::BTreeMap;
use std::ops::Bound;

/// Epochs of a slot that are counted apart, up to the newest but one that was met. A question names one that is closed, so at most the
/// open ones are younger; as many again are for a question that was long under way.
const EPOCHS_APART: u32 = 2 * BirthEpoch::OPEN_EPOCHS;
/// Cells that one answer looks at, also where it tells none of them: the disk's writer waits meanwhile, some milliseconds.
const CELLS_VISITED_MAX: usize = 65_536;

#[derive(Clone, Debug, Default, PartialEq, Eq)]
struct Cell {
    old: IdSum,
    old_before: BirthEpoch,
    /// Ascending, each epoch once. A list, since most cells have none or one, and there are hundreds of thousands.
    recent: Vec<(BirthEpoch, IdSum)>,
}

impl Cell {
    /// What of it was born in `born_by` or before; `None` when that lies within what is counted together.
    fn sum(&self, born_by: BirthEpoch) -> Option<IdSum> {
        if born_by.0.saturating_add(1) < self.old_before.0 && self.old != IdSum::ZERO {
            return None;
        }
        let recent = self.recent.iter().take_while(|(born, _)| *born <= born_by);
        Some(recent.fold(self.old, |sum, (_, part)| sum.plus(*part)))
    }

    fn part(&mut self, born: BirthEpoch) -> &mut IdSum {
        if born < self.old_before {
            return &mut self.old;
        }
        let at = self.recent.partition_point(|(known, _)| *known < born);
        if self.recent.get(at).is_none_or(|(known, _)| *known != born) {
            self.recent.reserve_exact(1);
            self.recent.insert(at, (born, IdSum::ZERO));
        }
        &mut self.recent[at].1
    }

    fn add(&mut self, stripe: StripeId) {
        let part = self.part(stripe.born());
        *part = part.plus(IdSum::of(stripe));
    }

    fn take(&mut self, stripe: StripeId) {
        let part = self.part(stripe.born());
        *part = part.minus(IdSum::of(stripe));
        self.recent.retain(|(_, part)| *part != IdSum::ZERO);
    }

    /// Counts together what lies so far behind the newest epoch of its slot.
    fn age(&mut self, newest: BirthEpoch) {
        let before = BirthEpoch(newest.0.saturating_sub(EPOCHS_APART));
        if before > self.old_before {
            let aged = self.recent.partition_point(|(born, _)| *born < before);
            for (_, part) in self.recent.drain(..aged) {
                self.old = self.old.plus(part);
            }
            self.recent.shrink_to_fit();
            self.old_before = before;
        }
    }

    fn is_empty(&self) -> bool {
        self.old == IdSum::ZERO && self.recent.is_empty()
    }
}

/// How far a slot has come.
#[derive(Clone, Copy, Debug, Default)]
struct Newest {
    /// The newest epoch that was met.
    met: BirthEpoch,
    /// The newest but one, which cells are aged by: one id that is far ahead ages nothing.
    before: BirthEpoch,
    /// The one by which all of the slot's cells were aged.
    aged: BirthEpoch,
}

impl Newest {
    fn meet(&mut self, born: BirthEpoch) {
        if born > self.met {
            (self.before, self.met) = (self.met, born);
        } else if born != self.met {
            self.before = born.max(self.before);
        }
    }
}

/// The sums of one disk.
#[derive(Clone, Debug, Default)]
pub(crate) struct Cells {
    cells: BTreeMap<CellName, Cell>,
    newest: BTreeMap<Slot, Newest>,
}

impl Cells {
    /// Counts a fragment in.
    pub(crate) fn add(&mut self, name: &FragmentName) {
        let slot = name.stripe.slot();
        let newest = self.newest.entry(slot).or_default();
        newest.meet(name.stripe.born());
        let before = newest.before;
        let cell = self.cells.entry(CellName::of(name)).or_default();
        cell.add(name.stripe);
        cell.age(before);
        // Cells that nobody writes any more would keep their epochs apart for ever.
        if before.0 - newest.aged.0 >= BirthEpoch::OPEN_EPOCHS {
            newest.aged = before;
            let cells = self
                .cells
                .range_mut((Bound::Included(first_of(slot)), Bound::Unbounded));
            for (_, cell) in cells.take_while(|(name, _)| name.slot == slot) {
                cell.age(before);
            }
        }
    }

    /// Counts out a fragment that was counted in.
    pub(crate) fn take(&mut self, name: &FragmentName) {
        let cell_name = CellName::of(name);
        let Some(cell) = self.cells.get_mut(&cell_name) else {
            return;
        };
        cell.take(name.stripe);
        if cell.is_empty() {
            self.cells.remove(&cell_name);
        }
    }

    /// Sums of the cells of these slots, each of what was born in its epoch or before, behind `after`; at most `sums_max`, at least 1,
    /// and perhaps none where many cells have nothing of it.
    pub(crate) fn sums(
        &self,
        slots: &BTreeMap<Slot, BirthEpoch>,
        after: Option<CellName>,
        sums_max: usize,
    ) -> FragmentSums {
        let mut told = FragmentSums {
            sums: Vec::new(),
            next: None,
        };
        let (mut visited, mut last) = (0, None);
        for (slot, born_by) in slots {
            let from = match after {
                Some(after) if after.slot > *slot => continue,
                Some(after) if after.slot == *slot => Bound::Excluded(after),
                _ => Bound::Included(first_of(*slot)),
            };
            let cells = self.cells.range((from, Bound::Unbounded));
            for (name, cell) in cells.take_while(|(name, _)| name.slot == *slot) {
                let sum = cell.sum(*born_by);
                let is_told = sum != Some(IdSum::ZERO);
                let is_full = is_told && !told.sums.is_empty() && told.sums.len() >= sums_max;
                if is_full || visited == CELLS_VISITED_MAX {
                    told.next = last;
                    return told;
                }
                (visited, last) = (visited + 1, Some(*name));
                if is_told {
                    told.sums.push(CellSum { cell: *name, sum });
                }
            }
        }
        told
    }
}

fn first_of(slot: Slot) -> CellName {
    let [profile, ..] = ProfileId::ALL;
    CellName {
        slot,
        profile,
        leading: 0,
        index: 0,
    }
}

#[cfg(test)]
mod tests {
    use super::{CELLS_VISITED_MAX, Cells, EPOCHS_APART};
    use model::id::Slot;
    use model::inventory::{CellName, IdSum};
    use model::profile::ProfileId;
    use model::stripe::{FragmentName, StripeId};
    use model::time::BirthEpoch;
    use proptest::prelude::{Strategy, any, prop, proptest};
    use protocol::node::CellSum;
    use std::collections::{BTreeMap, BTreeSet};

    /// Few slots, cells and epochs, so that they meet.
    fn fragment() -> impl Strategy<Value = FragmentName> {
        let parts = (0_u16..3, 0_u32..3, any::<u8>(), 0_u8..2, any::<bool>());
        parts.prop_map(|(slot, age, random, index, is_copies)| FragmentName {
            profile: if is_copies { ProfileId::Copies } else { ProfileId::Dev },
            // Two leading bits, so that cells have many.
            stripe: StripeId::new(
                u128::from(random) << 74,
                Slot::new(slot).unwrap(),
                BirthEpoch(age * EPOCHS_APART + u32::from(random % 5)),
            ),
            index,
        })
    }

    /// The naive twin: every fragment is looked at.
    fn counted(held: &BTreeSet<FragmentName>, slot: Slot, born_by: BirthEpoch) -> BTreeMap<CellName, IdSum> {
        let mut sums = BTreeMap::new();
        for name in held {
            if name.stripe.slot() == slot && name.stripe.born() <= born_by {
                let sum = sums.entry(CellName::of(name)).or_insert(IdSum::ZERO);
                *sum = sum.plus(IdSum::of(name.stripe));
            }
        }
        sums
    }

    proptest! {
        #[test]
        fn sums_are_those_of_a_list_of_fragments_and_say_when_they_cannot_be(
            changes in prop::collection::vec((fragment(), any::<bool>()), 0..120),
        ) {
            let (mut cells, mut held, mut newest) = (Cells::default(), BTreeSet::new(), BTreeMap::new());
            for (name, is_stored) in changes {
                if is_stored && held.insert(name) {
                    cells.add(&name);
                    let known = newest.entry(name.stripe.slot()).or_insert(BirthEpoch(0));
                    *known = name.stripe.born().max(*known);
                } else if !is_stored && held.remove(&name) {
                    cells.take(&name);
                }
            }
            for slot in (0..3).filter_map(Slot::new) {
                for born_by in (0..4 * EPOCHS_APART).map(BirthEpoch) {
                    let asked = BTreeMap::from([(slot, born_by)]);
                    let told = cells.sums(&asked, None, usize::MAX).sums;
                    let expected = counted(&held, slot, born_by);
                    let known: BTreeMap<CellName, Option<IdSum>> = told.iter().map(|sum| (sum.cell, sum.sum)).collect();
                    for (cell, sum) in &known {
                        assert!(sum.is_none() || *sum == expected.get(cell).copied(), "{cell:?}");
                    }
                    assert!(expected.keys().all(|cell| known.contains_key(cell)));
                    // Whoever asks for an epoch that is closed is told.
                    let of_slot = newest.get(&slot).copied().unwrap_or_default();
                    if born_by.0 + EPOCHS_APART >= of_slot.0 {
                        assert!(known.values().all(Option::is_some));
                    }
                }
            }
            held.iter().for_each(|name| cells.take(name));
            assert!(cells.cells.is_empty());
        }

        #[test]
        fn parts_of_an_answer_are_the_whole(
            held in prop::collection::btree_set(fragment(), 1..60),
            sums_max in 1_usize..5,
        ) {
            let mut cells = Cells::default();
            held.iter().for_each(|name| cells.add(name));
            let slots = (0..3).filter_map(Slot::new).map(|slot| (slot, BirthEpoch::MAX)).collect();
            let (mut parts, mut after) = (Vec::new(), None);
            loop {
                let part = cells.sums(&slots, after, sums_max);
                assert!(part.sums.len() <= sums_max);
                parts.extend(part.sums);
                after = part.next;
                if after.is_none() {
                    break;
                }
            }
            assert_eq!(parts, cells.sums(&slots, None, usize::MAX).sums);
        }
    }

    fn named(slot: u16, leading: u8, born: u32) -> FragmentName {
        let random = u128::from(leading) << 80 | u128::from(born);
        FragmentName {
            profile: ProfileId::Dev,
            stripe: StripeId::new(random, Slot::new(slot).unwrap(), BirthEpoch(born)),
            index: 0,
        }
    }

    #[test]
    fn one_id_far_ahead_leaves_the_sums_of_its_slot() {
        let mut cells = Cells::default();
        for born in [1000, 1001, BirthEpoch::MAX.0, 1002] {
            cells.add(&named(1, 7, born));
        }
        let (one, other) = (named(1, 7, 1000), named(1, 7, 1001));
        let expected = CellSum {
            cell: CellName::of(&one),
            sum: Some(IdSum::of(one.stripe).plus(IdSum::of(other.stripe))),
        };
        let asked = BTreeMap::from([(one.stripe.slot(), BirthEpoch(1001))]);
        assert_eq!(cells.sums(&asked, None, usize::MAX).sums, [expected]);
    }

    #[test]
    fn an_answer_ends_where_it_has_looked_at_many_cells_without_a_sum() {
        let slots = 0..=(CELLS_VISITED_MAX / 256) as u16;
        let mut cells = Cells::default();
        for slot in slots.clone() {
            (0..=u8::MAX).for_each(|leading| cells.add(&named(slot, leading, 5)));
        }
        let asked = slots.filter_map(Slot::new).map(|slot| (slot, BirthEpoch(4))).collect();
        let first = cells.sums(&asked, None, usize::MAX);
        assert!(first.sums.is_empty());
        assert!(first.next.is_some());
        let rest = cells.sums(&asked, first.next, usize::MAX);
        assert!(rest.sums.is_empty());
        assert_eq!(rest.next, None);
    }
}
