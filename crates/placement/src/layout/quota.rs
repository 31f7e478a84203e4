//! How many places each disk gets: shares by weight, cut by the margins.
//!
//! Max-min fair shares down the tree of domains (water filling): every disk is filled to the same level, its weight being its
//! width, until a domain reaches what the margins let it hold; the rest goes on rising.
//! Amounts are fixed-point integers, so that a full domain is full exactly; rounding along the sorted table then gives each disk
//! and each domain its share rounded up or down (the controlled rounding of nested sums).
//! Because the margins are nested counts, any places that respect them in sum can be dealt out to rows that respect each of them
//! (a laminar family has the integer decomposition property), so these shares are the best balance there is.
//! Not here: which row gets which disk (spread.rs, rearrangement.rs).

use crate::layout::disk_table::DiskTable;
use crate::margins::Margins;
use std::ops::Range;

/// One place in fixed point.
const ONE: i64 = 1 << FRACTION_BITS;
/// 2^18 rows of 32 disks fill 23 bits of places, so amounts stay below 2^47 and are exact as f64.
const FRACTION_BITS: u32 = 24;
/// Halvings of the level's interval: finer than f64 can tell.
const HALVINGS: usize = 80;

/// What each disk of a `DiskTable` should hold, by number.
#[derive(Clone, Debug)]
pub(crate) struct Quota {
    /// The exact share, in places.
    pub(crate) ideal: Vec<f64>,
    /// The share rounded up or down so that all of it adds up to the places there are.
    pub(crate) places: Vec<u32>,
}

struct Branch {
    /// For a leaf, its disk; else unused.
    disk: usize,
    weight: f64,
    /// What the margins let it hold, never more than its children can.
    max: i64,
    children: Vec<Branch>,
}

/// Shares `rows * fragments` places out. The margins must be feasible for the table (`Margins::of` found them).
pub(crate) fn share_out(table: &DiskTable, margins: &Margins, rows: usize, fragments: usize) -> Quota {
    let root = grow(table, margins, rows as i64);
    let amount = (rows * fragments) as i64 * ONE;
    assert!(amount <= root.max, "margins that were found feasible hold all places");
    let mut shares = vec![0; table.disks.len()];
    pour(&root, amount, &mut shares);
    let mut before = 0;
    let places = shares
        .iter()
        .map(|share| {
            let after = before + share;
            let count = rounded(after) - rounded(before);
            before = after;
            count as u32
        })
        .collect();
    Quota {
        ideal: shares.iter().map(|share| *share as f64 / ONE as f64).collect(),
        places,
    }
}

fn rounded(amount: i64) -> i64 {
    (amount + ONE / 2) >> FRACTION_BITS
}

fn grow(table: &DiskTable, margins: &Margins, rows: i64) -> Branch {
    let all = 0..table.disks.len();
    let regions = runs(all, |at| table.disks[at].region).into_iter().map(|run| {
        let region = table.disks[run.start].region;
        let zones = runs(run, |at| table.disks[at].zone).into_iter().map(|run| {
            let nodes = runs(run, |at| table.disks[at].node).into_iter().map(|run| {
                let disks = run.map(|at| leaf(table, at, rows)).collect();
                branch(disks, rows * margins.node_max[region] as i64)
            });
            branch(nodes.collect(), rows * margins.zone_max as i64)
        });
        branch(zones.collect(), rows * margins.region_max as i64)
    });
    branch(regions.collect(), i64::MAX / ONE)
}

fn leaf(table: &DiskTable, disk: usize, rows: i64) -> Branch {
    let max = if table.disks[disk].is_usable { rows * ONE } else { 0 };
    Branch {
        disk,
        weight: table.disks[disk].weight as f64,
        max,
        children: Vec::new(),
    }
}

fn branch(children: Vec<Branch>, places_max: i64) -> Branch {
    let below: i64 = children.iter().map(|child| child.max).sum();
    Branch {
        disk: 0,
        weight: 0.0,
        max: below.min(places_max.saturating_mul(ONE)),
        children,
    }
}

/// Cuts `range` into runs of equal `key`.
fn runs(range: Range<usize>, key: impl Fn(usize) -> usize) -> Vec<Range<usize>> {
    let mut runs: Vec<Range<usize>> = Vec::new();
    for at in range {
        match runs.last_mut() {
            Some(run) if key(run.start) == key(at) => run.end = at + 1,
            _ => runs.push(at..at + 1),
        }
    }
    runs
}

/// What `branch` holds when the water stands at `level` places a byte of weight.
fn held_at(branch: &Branch, level: f64) -> f64 {
    let wanted = if branch.children.is_empty() {
        branch.weight * level
    } else {
        branch.children.iter().map(|child| held_at(child, level)).sum()
    };
    wanted.min(branch.max as f64)
}

/// The level at which every disk below is full.
fn full_level(branch: &Branch) -> f64 {
    if branch.children.is_empty() {
        return if branch.max > 0 {
            branch.max as f64 / branch.weight
        } else {
            0.0
        };
    }
    branch.children.iter().map(full_level).fold(0.0, f64::max)
}

fn pour(branch: &Branch, amount: i64, shares: &mut [i64]) {
    if branch.children.is_empty() {
        shares[branch.disk] = amount;
        return;
    }
    let (mut low, mut high) = (0.0, full_level(branch) * 2.0);
    let held = |level: f64| branch.children.iter().map(|child| held_at(child, level)).sum::<f64>();
    for _ in 0..HALVINGS {
        let middle = (low + high) / 2.0;
        if held(middle) < amount as f64 {
            low = middle
        } else {
            high = middle
        }
    }
    let mut parts: Vec<i64> = branch
        .children
        .iter()
        .map(|child| (held_at(child, high).round() as i64).clamp(0, child.max))
        .collect();
    // What rounding left over is a few units of 2^-24 places; it goes wherever there is room.
    let mut left = amount - parts.iter().sum::<i64>();
    for (part, child) in parts.iter_mut().zip(&branch.children) {
        let step = left.clamp(-*part, child.max - *part);
        *part += step;
        left -= step;
    }
    assert_eq!(left, 0, "a branch is never given more than it can hold");
    for (part, child) in parts.iter().zip(&branch.children) {
        pour(child, *part, shares);
    }
}
