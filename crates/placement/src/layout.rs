//! The planner: from a cluster map and the table so far to the next table of a profile.
//!
//! Pure: the same arguments give the same plan in every process and release of this format.
//! Invariants: every row has k+m disks, none twice; a row that changes gets the next version, others keep theirs; a row changes at
//! most m indices at a time, and while it is being filled only lost disks are replaced; margins are kept (margins.rs); places are
//! moved only to keep a margin, to leave a lost or draining disk, or to bring a disk within its bounds.
//! Not here: carrying a plan out (control group, node), choosing another disk for one write (handoff.rs).

use crate::ack::cut_domains;
use crate::margins::{self, Margins};
use disk_table::DiskTable;
use model::cluster::ClusterMap;
use model::error_kind::ErrorKind;
use model::id::{DiskId, RowVersion};
use model::layout::{LayoutTable, PG_BITS_MAX, PG_BITS_MIN, Row};
use model::profile::{Domain, Profile, ProfileId};
use rearrangement::Rearrangement;
use std::collections::{BTreeMap, BTreeSet};
use std::fmt;

pub(crate) mod disk_table;
pub(crate) mod quota;
mod rearrangement;
mod spread;
#[cfg(test)]
mod tests;

/// Places a disk that there are at least, while the number of placement groups allows: enough that a lost disk is rebuilt from
/// and to many, and that one place more or less is 2 % of a disk.
pub const PLACES_PER_DISK: usize = 50;

/// The next table of a profile and what is different in it.
#[derive(Clone, Debug, PartialEq, Eq)]
pub struct LayoutPlan {
    /// The table that follows.
    pub table: LayoutTable,
    /// Placement groups whose row has a new version, in order; in a new or split table all of them.
    pub changed: Vec<u32>,
    /// Fragment indices whose disk is another than before, over all rows; 0 for a new table.
    pub moves: usize,
    /// Whether more is to be done once rows are filled (or right away, after a split): plan again then.
    pub is_waiting: bool,
    /// The largest domain, up to the target, whose loss every row survives once nothing is waiting.
    pub reach: Domain,
}

/// Why there is no plan.
#[derive(Clone, Debug, PartialEq, Eq)]
pub enum PlanError {
    /// The active disks cannot hold the profile down to its floor.
    Unplaceable {
        /// The profile that was asked for.
        profile: ProfileId,
        /// Fragments of a row.
        needed: usize,
        /// Fragments that could be placed with at most m in one floor domain and one on a disk.
        found: usize,
        /// The profiles that this cluster can hold up to their target.
        fitting: Vec<ProfileId>,
    },
    /// The table so far is not one of this profile with 2^bits rows of k+m distinct disks.
    Malformed {
        /// The first bad placement group.
        pg: u32,
    },
}

impl PlanError {
    /// What it means for the caller.
    #[must_use]
    pub fn kind(&self) -> ErrorKind {
        match self {
            Self::Unplaceable { .. } => ErrorKind::Exhausted,
            Self::Malformed { .. } => ErrorKind::Bug,
        }
    }
}

impl fmt::Display for PlanError {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        match self {
            Self::Unplaceable {
                profile,
                needed,
                found,
                fitting,
            } => {
                write!(
                    f,
                    "place {profile}: {needed} fragments needed, room for {found}; fitting:"
                )?;
                if fitting.is_empty() {
                    f.write_str(" none")?;
                }
                fitting.iter().try_for_each(|id| write!(f, " {id}"))
            }
            Self::Malformed { pg } => write!(f, "plan layout: row {pg} is malformed"),
        }
    }
}

impl std::error::Error for PlanError {}

/// Plans the table of `profile` that follows `previous` in the cluster `map`.
///
/// A new table is dealt out whole. When the cluster has outgrown its placement groups the plan only splits them, in place; the
/// next one moves. A plan without changes has an empty `changed`. Cost O(places log disks), plus O(places) for each place that
/// can be moved only by a chain of moves (bounded, see rearrangement.rs).
///
/// # Errors
/// `Unplaceable` when rows that survive the floor cannot be made of the active disks; `Malformed` when `previous` is.
pub fn plan(map: &ClusterMap, previous: Option<&LayoutTable>, profile: ProfileId) -> Result<LayoutPlan, PlanError> {
    let bits = pg_bits_for(DiskTable::of(map).usable(), profile.profile());
    plan_with_bits(map, previous, profile, bits)
}

/// The fewest bits that give `PLACES_PER_DISK` places to each of `disks` disks, within what a table may have.
#[must_use]
pub fn pg_bits_for(disks: usize, profile: Profile) -> u8 {
    let wanted = disks.saturating_mul(PLACES_PER_DISK);
    (PG_BITS_MIN..PG_BITS_MAX)
        .find(|bits| profile.fragments() << bits >= wanted)
        .unwrap_or(PG_BITS_MAX)
}

/// As `plan`, with the wished number of placement groups given; a table never shrinks.
pub(crate) fn plan_with_bits(
    map: &ClusterMap,
    previous: Option<&LayoutTable>,
    id: ProfileId,
    bits: u8,
) -> Result<LayoutPlan, PlanError> {
    let profile = id.profile();
    let table = DiskTable::of(map);
    let (target, floor) = cut_domains(profile, map);
    let margins = Margins::of(&table, profile, target)
        .filter(|margins| margins.reach >= floor)
        .ok_or_else(|| PlanError::Unplaceable {
            profile: id,
            needed: profile.fragments(),
            found: margins::places_found(profile, map),
            fitting: margins::fitting(map),
        })?;
    let Some(previous) = previous else {
        return Ok(deal_out(&table, &margins, profile, bits));
    };
    check(previous, id)?;
    if previous.pg_bits < bits {
        return Ok(split(previous, bits, margins.reach));
    }
    let quota = quota::share_out(&table, &margins, previous.rows.len(), profile.fragments());
    let mut rearrangement = Rearrangement::new(&table, &margins, &quota, previous, usize::from(profile.m));
    rearrangement.mend();
    rearrangement.balance();
    Ok(rearrangement.into_plan(previous))
}

/// Whether the change of `row` is filled: each disk of the old and the new row acknowledged the row's version or is declared out.
///
/// `acknowledged` are the disks that did. The groups' acknowledgement and the copied fragments are the caller's to check as well.
#[must_use]
pub fn is_acknowledged(row: &Row, acknowledged: &BTreeSet<DiskId>, map: &ClusterMap) -> bool {
    let lost = |disk: &DiskId| !map.holds(*disk);
    row.disks
        .iter()
        .chain(row.filling_from.values())
        .all(|disk| acknowledged.contains(disk) || lost(disk))
}

/// The row as it was before its unfinished change: where readers look second. Equal to `row.disks` when nothing is being filled.
#[must_use]
pub fn old_disks(row: &Row) -> Vec<DiskId> {
    let old = |(index, disk): (usize, &DiskId)| {
        u8::try_from(index)
            .ok()
            .and_then(|index| row.filling_from.get(&index))
            .copied()
            .unwrap_or(*disk)
    };
    row.disks.iter().enumerate().map(old).collect()
}

fn check(table: &LayoutTable, id: ProfileId) -> Result<(), PlanError> {
    let fragments = id.profile().fragments();
    let is_whole = |row: &Row| {
        row.disks.len() == fragments
            && row.disks.iter().collect::<BTreeSet<_>>().len() == fragments
            && row.filling_from.keys().all(|index| usize::from(*index) < fragments)
    };
    if table.profile != id || table.pg_bits > PG_BITS_MAX || table.rows.len() != 1 << table.pg_bits {
        return Err(PlanError::Malformed { pg: 0 });
    }
    match table.rows.iter().position(|row| !is_whole(row)) {
        Some(pg) => Err(PlanError::Malformed { pg: pg as u32 }),
        None => Ok(()),
    }
}

fn deal_out(table: &DiskTable, margins: &Margins, profile: Profile, bits: u8) -> LayoutPlan {
    let rows = 1_usize << bits;
    let quota = quota::share_out(table, margins, rows, profile.fragments());
    let places = spread::spread(table, &quota, rows, profile.fragments(), u64::from(profile.id.number()));
    let row = |places: &[usize]| Row {
        version: RowVersion(1),
        disks: places.iter().map(|place| table.disks[*place].id).collect(),
        filling_from: BTreeMap::new(),
    };
    LayoutPlan {
        table: LayoutTable {
            profile: profile.id,
            pg_bits: bits,
            rows: places.chunks(profile.fragments()).map(row).collect(),
        },
        changed: (0..rows as u32).collect(),
        moves: 0,
        is_waiting: false,
        reach: margins.reach,
    }
}

/// Splits each placement group until there are 2^bits; all halves keep the disks and what is being filled.
fn split(previous: &LayoutTable, bits: u8, reach: Domain) -> LayoutPlan {
    let halves = 1_usize << (bits - previous.pg_bits);
    let half = |row: &Row| Row {
        version: RowVersion(row.version.0 + 1),
        ..row.clone()
    };
    let rows: Vec<Row> = previous
        .rows
        .iter()
        .flat_map(|row| std::iter::repeat_n(half(row), halves))
        .collect();
    LayoutPlan {
        changed: (0..rows.len() as u32).collect(),
        table: LayoutTable {
            profile: previous.profile,
            pg_bits: bits,
            rows,
        },
        moves: 0,
        is_waiting: true,
        reach,
    }
}
