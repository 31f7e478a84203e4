//! Changes a table that exists, with as few moves as it takes.
//!
//! First each row is mended (lost disks, then draining ones, then what breaks a margin), then disks that hold too little are fed
//! and disks that hold too much are relieved: by one move where a row allows it, else along a shortest chain of moves.
//! Invariants: a step never puts a disk twice into a row, nor into a row that it is leaving; a row changes at most m indices; a row
//! that is being filled changes only where its disk is lost; each step of balancing brings some disk nearer its bounds and pushes
//! none out of them, so it ends.
//! Not here: the bounds themselves (quota.rs) and new tables (spread.rs).

use crate::layout::LayoutPlan;
use crate::layout::disk_table::DiskTable;
use crate::layout::quota::Quota;
use crate::margins::Margins;
use model::id::{DiskId, RowVersion};
use model::layout::{LayoutTable, Row};
use std::collections::{BTreeMap, BTreeSet, VecDeque};

/// Stands for a disk that is lost.
const LOST: usize = usize::MAX;
/// A disk may be this much off its share, or one place if that is more.
const TOLERANCE: f64 = 0.02;
/// Looks at a place of a row that chains of one plan may cost: about a second. What is not balanced then waits.
const CHAIN_LOOKS_MAX: usize = 50_000_000;
/// Counts every position of a row against the margins.
const ALL: u64 = u64::MAX;

/// One step: in this row, this index goes to this disk.
#[derive(Clone, Copy, Debug)]
struct Step {
    row: usize,
    index: usize,
    to: usize,
}

/// A table being changed; disks are numbers of the `DiskTable`, places are flat: row after row.
pub(super) struct Rearrangement<'a> {
    table: &'a DiskTable,
    margins: &'a Margins,
    width: usize,
    moves_max: usize,
    before: Vec<usize>,
    places: Vec<usize>,
    /// Of rows that are being filled, the disks before and whether each index is part of the change.
    filling: BTreeMap<usize, (Vec<usize>, Vec<bool>)>,
    ideal: Vec<f64>,
    least: Vec<usize>,
    most: Vec<usize>,
    load: Vec<usize>,
    rows_of: Vec<BTreeSet<usize>>,
    /// Usable disks of each region by how full one more place would make them.
    by_fill: Vec<BTreeSet<(u64, usize)>>,
    over: BTreeSet<usize>,
    looks: usize,
    is_waiting: bool,
}

impl<'a> Rearrangement<'a> {
    pub(super) fn new(
        table: &'a DiskTable,
        margins: &'a Margins,
        quota: &Quota,
        previous: &LayoutTable,
        moves_max: usize,
    ) -> Self {
        let number = |disk: &DiskId| table.number_of(*disk).unwrap_or(LOST);
        let before: Vec<usize> = previous
            .rows
            .iter()
            .flat_map(|row| row.disks.iter().map(number))
            .collect();
        let width = before.len() / previous.rows.len();
        let filling = previous
            .rows
            .iter()
            .enumerate()
            .filter(|(_, row)| !row.filling_from.is_empty())
            .map(|(at, row)| {
                let changes = (0..width)
                    .map(|index| row.filling_from.contains_key(&(index as u8)))
                    .collect();
                (at, (row.filling_from.values().map(number).collect(), changes))
            });
        let slack = |ideal: f64| (ideal * TOLERANCE).max(1.0);
        let bounds = |low: bool| {
            quota.ideal.iter().zip(&quota.places).map(move |(ideal, places)| {
                let places = *places as usize;
                if low {
                    places.min((ideal - slack(*ideal)).ceil().max(0.0) as usize)
                } else {
                    places.max((ideal + slack(*ideal)).floor() as usize)
                }
            })
        };
        let disks = table.disks.len();
        let mut new = Self {
            table,
            margins,
            width,
            moves_max,
            places: before.clone(),
            filling: filling.collect(),
            ideal: quota.ideal.clone(),
            least: bounds(true).collect(),
            most: bounds(false).collect(),
            load: vec![0; disks],
            rows_of: vec![BTreeSet::new(); disks],
            by_fill: vec![BTreeSet::new(); table.regions],
            over: BTreeSet::new(),
            looks: 0,
            is_waiting: false,
            before,
        };
        for (at, disk) in new.before.iter().enumerate().filter(|(_, disk)| **disk != LOST) {
            new.load[*disk] += 1;
            new.rows_of[*disk].insert(at / width);
        }
        (0..disks).for_each(|disk| new.enlist(disk));
        new
    }

    /// Replaces lost and draining disks and what breaks a margin, row by row, as far as each row may change.
    pub(super) fn mend(&mut self) {
        for row in 0..self.places.len() / self.width {
            self.mend_row(row);
        }
    }

    /// Brings every disk within its bounds, as far as the rows may change.
    pub(super) fn balance(&mut self) {
        let usable: Vec<usize> = (0..self.load.len())
            .filter(|disk| self.table.disks[*disk].is_usable)
            .collect();
        for disk in &usable {
            while self.load[*disk] < self.least[*disk] && self.feed(*disk) {}
        }
        for disk in &usable {
            while self.load[*disk] > self.most[*disk] && self.relieve(*disk) {}
        }
        let is_out = |disk: &usize| self.load[*disk] < self.least[*disk] || self.load[*disk] > self.most[*disk];
        let may_move_later = !self.filling.is_empty() || self.places != self.before;
        self.is_waiting |= may_move_later && usable.iter().any(is_out);
    }

    /// The table that came of it.
    pub(super) fn into_plan(self, previous: &LayoutTable) -> LayoutPlan {
        let mut table = previous.clone();
        let mut changed = Vec::new();
        let mut moves = 0;
        for (at, row) in table.rows.iter_mut().enumerate() {
            let range = at * self.width..(at + 1) * self.width;
            if self.places[range.clone()] == self.before[range.clone()] {
                continue;
            }
            for (index, place) in range.enumerate() {
                if self.places[place] != self.before[place] {
                    row.filling_from.entry(index as u8).or_insert(row.disks[index]);
                    row.disks[index] = self.table.disks[self.places[place]].id;
                    moves += 1;
                }
            }
            *row = Row {
                version: RowVersion(row.version.0 + 1),
                ..row.clone()
            };
            changed.push(at as u32);
        }
        LayoutPlan {
            table,
            changed,
            moves,
            is_waiting: self.is_waiting,
            reach: self.margins.reach,
        }
    }

    fn mend_row(&mut self, row: usize) {
        let (mut kept, leaving) = self.sort_out(row);
        for (rank, index) in leaving {
            let may_move = if rank == 0 {
                self.has_moves_left(row, index)
            } else {
                self.may_move(row, index)
            };
            let chosen = may_move.then(|| {
                let within = self.choose(row, index, ALL).or_else(|| self.choose(row, index, kept));
                // Better a row that breaks a margin than one that keeps a place on a disk that is gone or going.
                if rank < 2 {
                    within.or_else(|| self.choose(row, index, 0))
                } else {
                    within
                }
            });
            match chosen.flatten() {
                Some(to) => {
                    kept |= 1 << index;
                    self.apply(Step { row, index, to });
                }
                None => self.is_waiting = true,
            }
        }
    }

    /// The indices that stay, as bits, and those that should leave: lost (0), draining (1), breaking a margin (2), in this order.
    fn sort_out(&self, row: usize) -> (u64, Vec<(u8, usize)>) {
        let disks = &self.places[row * self.width..(row + 1) * self.width];
        let mut by_fill: Vec<(u64, usize)> = Vec::with_capacity(self.width);
        let mut leaving = Vec::new();
        for (index, disk) in disks.iter().enumerate() {
            if *disk == LOST {
                leaving.push((0, index));
            } else if self.table.disks[*disk].is_usable {
                by_fill.push((self.fill(*disk), index));
            } else {
                leaving.push((1, index));
            }
        }
        by_fill.sort_unstable();
        let mut kept = 0;
        for (_, index) in by_fill {
            if self.is_within_margins(row, index, disks[index], kept) {
                kept |= 1 << index;
            } else {
                leaving.push((2, index));
            }
        }
        leaving.sort_unstable();
        (kept, leaving)
    }

    /// The emptiest disk that may take this index when the positions in `counted` count against the margins.
    fn choose(&self, row: usize, index: usize, counted: u64) -> Option<usize> {
        let first_fit = |disks: &BTreeSet<(u64, usize)>| {
            disks
                .iter()
                .find(|(_, disk)| self.fits(row, index, *disk, counted))
                .copied()
        };
        let has_room = |region: &usize| self.room_in_region(row, index, *region, counted);
        (0..self.by_fill.len())
            .filter(has_room)
            .filter_map(|region| first_fit(&self.by_fill[region]))
            .min()
            .map(|(_, disk)| disk)
    }

    fn room_in_region(&self, row: usize, index: usize, region: usize, counted: u64) -> bool {
        self.others(row, index, counted)
            .filter(|disk| self.table.disks[*disk].region == region)
            .count()
            < self.margins.region_max
    }

    /// Disks of the row at other positions that count, without lost ones.
    fn others(&self, row: usize, index: usize, counted: u64) -> impl Iterator<Item = usize> + '_ {
        let disks = &self.places[row * self.width..(row + 1) * self.width];
        let is_other = move |at: usize| at != index && counted >> at & 1 == 1;
        disks
            .iter()
            .enumerate()
            .filter(move |(at, disk)| is_other(*at) && **disk != LOST)
            .map(|(_, disk)| *disk)
    }

    fn is_within_margins(&self, row: usize, index: usize, disk: usize, counted: u64) -> bool {
        let taker = &self.table.disks[disk];
        let (mut region, mut zone, mut node) = (0, 0, 0);
        for other in self.others(row, index, counted).map(|other| &self.table.disks[other]) {
            region += usize::from(other.region == taker.region);
            zone += usize::from(other.zone == taker.zone);
            node += usize::from(other.node == taker.node);
        }
        region < self.margins.region_max && zone < self.margins.zone_max && node < self.margins.node_max[taker.region]
    }

    /// Whether `disk` may take this index: it is neither in the row nor leaving it, and the margins hold.
    fn fits(&self, row: usize, index: usize, disk: usize, counted: u64) -> bool {
        let is_in_row = (0..self.width).any(|at| {
            let place = row * self.width + at;
            self.places[place] == disk || (at != index && self.before[place] == disk)
        });
        let is_leaving = self.filling.get(&row).is_some_and(|(old, _)| old.contains(&disk));
        !is_in_row && !is_leaving && self.is_within_margins(row, index, disk, counted)
    }

    /// Whether one more index, this one, may change within the row's m.
    fn has_moves_left(&self, row: usize, index: usize) -> bool {
        let filling = self.filling.get(&row).map(|(_, changes)| changes);
        let is_changed = |at: usize| {
            let place = row * self.width + at;
            self.places[place] != self.before[place] || filling.is_some_and(|changes| changes[at])
        };
        is_changed(index) || (0..self.width).filter(|at| is_changed(*at)).count() < self.moves_max
    }

    /// As `has_moves_left`, for a disk that is not lost: a row that is being filled keeps it.
    fn may_move(&self, row: usize, index: usize) -> bool {
        !self.filling.contains_key(&row) && self.has_moves_left(row, index)
    }

    /// Gives `taker` one place more, from a disk that can spare it; false when nobody can.
    fn feed(&mut self, taker: usize) -> bool {
        let from_over = self.over.iter().find_map(|giver| self.step_between(*giver, taker));
        let home = self.table.disks[taker].region;
        let regions = || std::iter::once(home).chain((0..self.by_fill.len()).filter(move |region| *region != home));
        let found = from_over.or_else(|| {
            regions()
                .flat_map(|region| self.by_fill[region].iter().rev())
                .filter(|(_, giver)| self.load[*giver] > self.least[*giver])
                .find_map(|(_, giver)| self.step_between(*giver, taker))
        });
        match found {
            Some(step) => {
                self.apply(step);
                true
            }
            None => {
                let over = self.chain_to(taker, |this, giver| this.load[giver] > this.most[giver]);
                let chain = over.or_else(|| self.chain_to(taker, |this, giver| this.load[giver] > this.least[giver]));
                self.apply_chain(chain)
            }
        }
    }

    /// Takes one place from `giver`, to a disk that has room; false when there is none.
    fn relieve(&mut self, giver: usize) -> bool {
        let has_room = |disk: usize| self.load[disk] < self.most[disk];
        let home = self.table.disks[giver].region;
        let regions = || std::iter::once(home).chain((0..self.by_fill.len()).filter(move |region| *region != home));
        let takers = || {
            regions()
                .flat_map(|region| self.by_fill[region].iter())
                .map(|(_, disk)| *disk)
        };
        if let Some(step) = takers()
            .filter(|taker| has_room(*taker))
            .find_map(|taker| self.step_between(giver, taker))
        {
            self.apply(step);
            return true;
        }
        let takers: Vec<usize> = takers().filter(|taker| has_room(*taker)).collect();
        let chain = takers
            .into_iter()
            .find_map(|taker| self.chain_to(taker, |_, disk| disk == giver));
        self.apply_chain(chain)
    }

    fn step_between(&self, giver: usize, taker: usize) -> Option<Step> {
        self.rows_of[giver].iter().find_map(|row| {
            let index = (0..self.width).find(|at| self.places[row * self.width + at] == giver)?;
            let step = Step {
                row: *row,
                index,
                to: taker,
            };
            (self.may_move(*row, index) && self.fits(*row, index, taker, ALL)).then_some(step)
        })
    }

    /// A shortest chain of steps that ends at `taker` and begins at a disk that `is_giver`: breadth first, from the end.
    ///
    /// The steps are in different rows, so none disturbs another.
    fn chain_to(&mut self, taker: usize, is_giver: impl Fn(&Self, usize) -> bool) -> Option<Vec<Step>> {
        let mut next: BTreeMap<usize, Step> = BTreeMap::new();
        let mut queue = VecDeque::from([taker]);
        while let Some(to) = queue.pop_front() {
            for place in 0..self.places.len() {
                self.looks += 1;
                if self.looks > CHAIN_LOOKS_MAX {
                    return None;
                }
                let (row, index, from) = (place / self.width, place % self.width, self.places[place]);
                if from == LOST || from == taker || next.contains_key(&from) || !self.table.disks[from].is_usable {
                    continue;
                }
                if !self.may_move(row, index) || !self.fits(row, index, to, ALL) {
                    continue;
                }
                let rest = self.follow(&next, to);
                if rest.iter().any(|step| step.row == row) {
                    continue;
                }
                let step = Step { row, index, to };
                if is_giver(self, from) {
                    return Some(std::iter::once(step).chain(rest).collect());
                }
                next.insert(from, step);
                queue.push_back(from);
            }
        }
        None
    }

    fn follow(&self, next: &BTreeMap<usize, Step>, from: usize) -> Vec<Step> {
        std::iter::successors(next.get(&from), |step| next.get(&step.to))
            .copied()
            .collect()
    }

    fn apply_chain(&mut self, chain: Option<Vec<Step>>) -> bool {
        let Some(chain) = chain else { return false };
        chain.into_iter().for_each(|step| self.apply(step));
        true
    }

    fn apply(&mut self, step: Step) {
        let place = step.row * self.width + step.index;
        let from = std::mem::replace(&mut self.places[place], step.to);
        if from != LOST {
            self.strike(from);
            self.load[from] -= 1;
            self.rows_of[from].remove(&step.row);
            self.enlist(from);
        }
        self.strike(step.to);
        self.load[step.to] += 1;
        self.rows_of[step.to].insert(step.row);
        self.enlist(step.to);
    }

    /// How full the disk would be with one place more, in units of 2^-20 of its share.
    fn fill(&self, disk: usize) -> u64 {
        let fill = (self.load[disk] + 1) as f64 / self.ideal[disk].max(f64::MIN_POSITIVE);
        (fill * f64::from(1 << 20)) as u64
    }

    fn enlist(&mut self, disk: usize) {
        if self.table.disks[disk].is_usable {
            let key = (self.fill(disk), disk);
            self.by_fill[self.table.disks[disk].region].insert(key);
            if self.load[disk] > self.most[disk] {
                self.over.insert(disk);
            }
        }
    }

    fn strike(&mut self, disk: usize) {
        let key = (self.fill(disk), disk);
        self.by_fill[self.table.disks[disk].region].remove(&key);
        self.over.remove(&disk);
    }
}
