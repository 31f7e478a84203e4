//! A first table: deals the places of a quota out to rows.
//!
//! Systematic sampling (Madow 1949), row by row: the places that are left lie on a line in an order that keeps every domain
//! together, and a row takes the disks under k+m points that are as far apart as there are rows left. So each row holds of each
//! domain its mean rounded up or down, and what is left can always be dealt out the same way to the end: margins and quota are kept
//! exactly. The order is shuffled again and again by a hash, so that the fragments of a disk's stripes have many peers and its loss
//! is repaired from and to many disks.
//! Not here: changing a table that exists (rearrangement.rs).

use crate::layout::disk_table::DiskTable;
use crate::layout::quota::Quota;
use model::hash::stable_hash;

/// A new order after every disks/64 rows: each row its own in a small cluster, and a disk is taken at most once or twice under one
/// order in a large one. A guess that makes shuffling as cheap as sampling.
const DISKS_PER_ORDERED_ROW: usize = 64;

/// The places of the table, row after row: `fragments` numbers of disks each, no disk twice in a row.
pub(super) fn spread(table: &DiskTable, quota: &Quota, rows: usize, fragments: usize, seed: u64) -> Vec<usize> {
    let mut left = quota.places.clone();
    let mut places = Vec::with_capacity(rows * fragments);
    let orders_every = table.disks.len() / DISKS_PER_ORDERED_ROW + 1;
    let mut line = Line::new(&left, shuffled(table, seed, 0));
    for row in 0..rows {
        if row > 0 && row % orders_every == 0 {
            line = Line::new(&left, shuffled(table, seed, row as u64));
        }
        let rows_left = (rows - row) as u64;
        let start = mix(&[seed, row as u64, 1]) % rows_left;
        let mut taken: Vec<usize> = (0..fragments as u64)
            .map(|step| line.slot_at(start + step * rows_left))
            .collect();
        for slot in &taken {
            line.take(*slot);
            left[line.order[*slot]] -= 1;
        }
        taken.sort_by_cached_key(|slot| mix(&[seed, row as u64, 2, *slot as u64]));
        places.extend(taken.into_iter().map(|slot| line.order[slot]));
    }
    places
}

/// Hashes numbers to 64 bits, the same in every process.
pub(super) fn mix(numbers: &[u64]) -> u64 {
    let bytes: Vec<u8> = numbers.iter().flat_map(|number| number.to_be_bytes()).collect();
    stable_hash(&bytes)
}

/// All disks in an order in which every domain is a run.
fn shuffled(table: &DiskTable, seed: u64, turn: u64) -> Vec<usize> {
    let mut order: Vec<usize> = (0..table.disks.len()).collect();
    order.sort_by_cached_key(|at| {
        let disk = &table.disks[*at];
        let key = |level, number: usize| mix(&[seed, turn, level, number as u64]);
        (key(3, disk.region), key(4, disk.zone), key(5, disk.node), key(6, *at))
    });
    order
}

/// The places that are left, in an order, with sums for finding one by its position (Fenwick 1994).
struct Line {
    order: Vec<usize>,
    sums: Vec<u64>,
}

impl Line {
    fn new(left: &[u32], order: Vec<usize>) -> Self {
        let mut sums = vec![0; order.len() + 1];
        for (slot, disk) in order.iter().enumerate() {
            sums[slot + 1] += u64::from(left[*disk]);
            let parent = (slot + 1) + ((slot + 1) & (slot + 1).wrapping_neg());
            if parent < sums.len() {
                sums[parent] += sums[slot + 1];
            }
        }
        Self { order, sums }
    }

    /// The slot of the order that covers `position`, counted from 0.
    fn slot_at(&self, mut position: u64) -> usize {
        let mut slot = 0;
        let mut step = self.sums.len().next_power_of_two();
        while step > 0 {
            if slot + step < self.sums.len() && self.sums[slot + step] <= position {
                slot += step;
                position -= self.sums[slot];
            }
            step /= 2;
        }
        slot
    }

    fn take(&mut self, slot: usize) {
        let mut at = slot + 1;
        while at < self.sums.len() {
            self.sums[at] -= 1;
            at += at & at.wrapping_neg();
        }
    }
}
