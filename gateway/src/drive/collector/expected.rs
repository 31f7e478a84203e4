//! What each disk should hold of some slots, cell by cell, and which cells are not as the disk tells.
//!
//! Pure. A group knows its stripes and which of their fragments are astray, and no rows; the rows say which disks hold the others.
//! Sums add up: placement groups of one cell, parts of one count, and several groups where their slots are compared together.
//! Invariants: what is told of a cell that is equal needs no names; a cell that cannot be compared counts as one that differs, since
//! names decide and sums never do.
//! Not here: asking groups and disks (`inventory`), what is removed (`orphans`).

use model::id::{DiskId, Slot};
use model::inventory::{CELL_BITS, CellName, IdSum};
use model::layout::{Layout, Row};
use model::profile::ProfileId;
use model::stripe::Astray;
use protocol::metadata::inventory::PgSum;
use std::collections::{BTreeMap, BTreeSet};

/// What a disk tells of its cells; `None` where only names tell.
pub(super) type Told = BTreeMap<CellName, Option<IdSum>>;

/// What disks should hold.
#[derive(Debug, Default)]
pub(super) struct Expected {
    sums: BTreeMap<DiskId, BTreeMap<CellName, IdSum>>,
    /// Cells in which a row is being filled: some of their stripes lie on the one disk and some on the other.
    filling: BTreeSet<(DiskId, CellName)>,
    /// How many stripes begin with the same bits, by slot and profile.
    stripes: BTreeMap<(Slot, ProfileId, u8), u64>,
}

impl Expected {
    /// Adds stripes of a placement group. Nothing when the layout has no row of it: what disks hold of it differs then, and is named.
    pub(super) fn add(&mut self, layout: &Layout, counted: &PgSum) {
        let Some(table) = layout.tables.get(&counted.profile) else {
            return;
        };
        let Some(row) = table.rows.get(counted.pg as usize) else {
            return;
        };
        let cell = |index| CellName {
            slot: counted.slot,
            profile: counted.profile,
            leading: (counted.pg >> table.pg_bits.saturating_sub(CELL_BITS)) as u8,
            index,
        };
        let of_cell = cell(0);
        let stripes = self.stripes.entry((counted.slot, counted.profile, of_cell.leading));
        let stripes = stripes.or_default();
        *stripes = stripes.saturating_add(counted.all.count);
        for (index, disk) in (0_u8..).zip(&row.disks) {
            self.shift(*disk, cell(index), |sum| sum.plus(counted.all));
            if let Some(before) = row.filling_from.get(&index) {
                self.filling.extend([*disk, *before].map(|disk| (disk, cell(index))));
            }
        }
        for astray in &counted.astray {
            if let Some(disk) = row.disks.get(usize::from(astray.index)) {
                self.shift(*disk, cell(astray.index), |sum| sum.minus(astray.sum));
            }
            if let Some(disk) = astray.disk {
                self.shift(disk, cell(astray.index), |sum| sum.plus(astray.sum));
            }
        }
    }

    fn shift(&mut self, disk: DiskId, cell: CellName, change: impl FnOnce(IdSum) -> IdSum) {
        let sum = self.sums.entry(disk).or_default().entry(cell).or_default();
        *sum = change(*sum);
    }

    /// Disks that should hold something.
    pub(super) fn disks(&self) -> impl Iterator<Item = DiskId> {
        self.sums.keys().copied()
    }

    /// How many stripes a cell is of.
    pub(super) fn stripes(&self, cell: &CellName) -> u64 {
        let of_cell = (cell.slot, cell.profile, cell.leading);
        self.stripes.get(&of_cell).copied().unwrap_or(0)
    }

    /// The cells of a disk that are not as it tells, and how many are.
    pub(super) fn differing(&self, disk: DiskId, told: &Told) -> (BTreeSet<CellName>, usize) {
        let none = BTreeMap::new();
        let sums = self.sums.get(&disk).unwrap_or(&none);
        let cells: BTreeSet<CellName> = sums.keys().chain(told.keys()).copied().collect();
        let all = cells.len();
        let is_other = |cell: &CellName| {
            let expected = sums.get(cell).copied().unwrap_or_default();
            let found = told.get(cell).copied().unwrap_or(Some(IdSum::ZERO));
            found != Some(expected) || self.filling.contains(&(disk, *cell))
        };
        let differing: BTreeSet<CellName> = cells.into_iter().filter(is_other).collect();
        let equal = all - differing.len();
        (differing, equal)
    }
}

/// Where a fragment may lie: first where it is counted. Empty when it is known to be missing.
pub(super) fn places(row: &Row, astray: &[Astray], index: u8) -> Vec<DiskId> {
    let planned = row.disks.get(usize::from(index)).copied();
    let before = row.filling_from.get(&index).copied();
    let elsewhere = astray.iter().find(|astray| astray.index == index);
    let first = match elsewhere {
        Some(Astray { disk: None, .. }) => return Vec::new(),
        Some(Astray { disk, .. }) => *disk,
        None => None,
    };
    let mut places: Vec<DiskId> = Vec::new();
    for disk in [first, planned, before].into_iter().flatten() {
        if !places.contains(&disk) {
            places.push(disk);
        }
    }
    places
}

#[cfg(test)]
mod tests {
    use super::{Expected, Told, places};
    use model::id::{DiskId, MapVersion, RowVersion, Slot};
    use model::inventory::{CellName, IdSum};
    use model::layout::{Layout, LayoutTable, Row};
    use model::profile::ProfileId;
    use model::stripe::{Astray, FragmentName, StripeId};
    use model::time::BirthEpoch;
    use proptest::prelude::{any, prop, proptest};
    use protocol::metadata::inventory::{AstraySum, PgSum};
    use std::collections::{BTreeMap, BTreeSet};

    const PROFILE: ProfileId = ProfileId::Single;
    const INDEXES: u8 = 3;
    const DISKS: u32 = 7;

    /// Rows of three disks out of seven, turned by one from row to row.
    fn layout(pg_bits: u8) -> Layout {
        let row = |pg: u32| Row {
            version: RowVersion(1),
            disks: (0..u32::from(INDEXES))
                .map(|index| DiskId((pg + index) % DISKS))
                .collect(),
            filling_from: BTreeMap::new(),
        };
        let table = LayoutTable {
            profile: PROFILE,
            pg_bits,
            rows: (0..1 << pg_bits).map(row).collect(),
        };
        Layout {
            planned_from: MapVersion(1),
            tables: BTreeMap::from([(PROFILE, table)]),
        }
    }

    fn stripe(random: u64) -> StripeId {
        StripeId::new(u128::from(random) << 24, Slot::new(5).unwrap(), BirthEpoch(3))
    }

    /// A stripe as a group would count it, alone.
    fn counted(stripe: StripeId, pg_bits: u8, astray: &[Astray]) -> PgSum {
        let all = IdSum::of(stripe);
        PgSum {
            slot: stripe.slot(),
            profile: PROFILE,
            pg: stripe.pg(pg_bits),
            all,
            astray: astray
                .iter()
                .map(|astray| AstraySum {
                    index: astray.index,
                    disk: astray.disk,
                    sum: all,
                })
                .collect(),
        }
    }

    /// The fragments of a stripe where they should lie.
    fn lying(layout: &Layout, stripe: StripeId, astray: &[Astray]) -> Vec<(DiskId, FragmentName)> {
        let row = layout.row(PROFILE, stripe).unwrap();
        let name = |index| FragmentName {
            profile: PROFILE,
            stripe,
            index,
        };
        let placed = |index| places(row, astray, index).first().map(|disk| (*disk, name(index)));
        (0..INDEXES).filter_map(placed).collect()
    }

    fn told(held: &BTreeSet<(DiskId, FragmentName)>, disk: DiskId) -> Told {
        let mut told = Told::new();
        for (_, name) in held.iter().filter(|(on, _)| *on == disk) {
            let sum = told.entry(CellName::of(name)).or_insert(Some(IdSum::ZERO));
            *sum = sum.map(|sum| sum.plus(IdSum::of(name.stripe)));
        }
        told
    }

    proptest! {
        /// Cells differ exactly where a fragment was taken away or put beside.
        #[test]
        fn what_lies_as_it_should_is_equal_and_what_is_lost_or_beside_is_seen(
            stripes in prop::collection::btree_map(any::<u64>(), (0_u8..2 * INDEXES, prop::option::of(0..DISKS)), 1..30),
            pg_bits in 8_u8..11,
            lost in any::<prop::sample::Index>(),
            beside in (any::<u64>(), 0..INDEXES, 0..DISKS),
        ) {
            let layout = layout(pg_bits);
            let (mut expected, mut held) = (Expected::default(), BTreeSet::new());
            for (random, (index, disk)) in &stripes {
                let astray = Astray { index: *index, disk: disk.map(DiskId) };
                let astray: Vec<Astray> = (*index < INDEXES).then_some(astray).into_iter().collect();
                expected.add(&layout, &counted(stripe(*random), pg_bits, &astray));
                held.extend(lying(&layout, stripe(*random), &astray));
            }
            let differing = |held: &BTreeSet<(DiskId, FragmentName)>| -> BTreeSet<(DiskId, CellName)> {
                let of = |disk| expected.differing(disk, &told(held, disk)).0.into_iter().map(move |cell| (disk, cell));
                (0..DISKS).map(DiskId).flat_map(of).collect()
            };
            assert_eq!(differing(&held), BTreeSet::new());
            let (disk, name) = *held.iter().nth(lost.index(held.len())).unwrap();
            let mut less = held.clone();
            less.remove(&(disk, name));
            assert_eq!(differing(&less), BTreeSet::from([(disk, CellName::of(&name))]));
            let (random, index, disk) = beside;
            let name = FragmentName { profile: PROFILE, stripe: stripe(random), index };
            if held.insert((DiskId(disk), name)) {
                assert_eq!(differing(&held), BTreeSet::from([(DiskId(disk), CellName::of(&name))]));
            }
        }
    }

    #[test]
    fn a_cell_whose_row_is_filled_or_whose_old_epochs_are_not_told_apart_is_never_equal() {
        let mut layout = layout(8);
        let (whole, id) = (layout.clone(), stripe(1 << 60));
        let pg = id.pg(8) as usize;
        let table = layout.tables.get_mut(&PROFILE).unwrap();
        table.rows[pg].filling_from.insert(1, DiskId(99));
        let held: BTreeSet<(DiskId, FragmentName)> = lying(&layout, id, &[]).into_iter().collect();
        let (mut still, mut filled) = (Expected::default(), Expected::default());
        still.add(&whole, &counted(id, 8, &[]));
        filled.add(&layout, &counted(id, 8, &[]));
        for (disk, name) in &held {
            let (differing, equal) = filled.differing(*disk, &told(&held, *disk));
            assert_eq!((differing.len(), equal), if name.index == 1 { (1, 0) } else { (0, 1) });
            let vague = Told::from([(CellName::of(name), None)]);
            assert_eq!(still.differing(*disk, &vague).0.len(), 1);
            assert_eq!(still.differing(*disk, &Told::new()).0.len(), 1);
        }
    }

    #[test]
    fn a_fragment_is_looked_for_where_it_is_counted_and_then_where_it_may_have_gone() {
        let row = Row {
            version: RowVersion(2),
            disks: [1, 2, 3].map(DiskId).to_vec(),
            filling_from: BTreeMap::from([(2, DiskId(9))]),
        };
        let astray = |index, disk: Option<u32>| {
            [Astray {
                index,
                disk: disk.map(DiskId),
            }]
        };
        let at = |astray: &[Astray], index| {
            places(&row, astray, index)
                .iter()
                .map(|disk| disk.0)
                .collect::<Vec<_>>()
        };
        assert_eq!(at(&[], 0), [1]);
        assert_eq!(at(&[], 2), [3, 9]);
        assert_eq!(at(&astray(2, Some(7)), 2), [7, 3, 9]);
        assert_eq!(at(&astray(2, Some(9)), 2), [9, 3]);
        assert_eq!(at(&astray(0, Some(7)), 2), [3, 9]);
        assert!(at(&astray(2, None), 2).is_empty());
    }
}
