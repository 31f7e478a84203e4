//! Layouts: for each profile a table of rows, one per placement group, naming the disks that hold its stripes.
//!
//! Invariants: a row has exactly k+m disks, none twice; position i of a row holds fragment index i; a row's version grows with
//! every change of that row and with nothing else.
//! Not here: how rows are planned (`placement::layout`).

use crate::id::{DiskId, MapVersion, RowVersion};
use crate::profile::ProfileId;
use crate::stripe::StripeId;
use serde::{Deserialize, Serialize};
use std::collections::BTreeMap;

/// Fewest and most bits that name a placement group.
pub const PG_BITS_MIN: u8 = 8;
/// See `PG_BITS_MIN`.
pub const PG_BITS_MAX: u8 = 18;

/// The ordered disks that hold the stripes of one placement group.
#[derive(Clone, Debug, PartialEq, Eq, Serialize, Deserialize)]
pub struct Row {
    /// Counts changes of this row.
    pub version: RowVersion,
    /// k+m disks; position i holds fragment index i.
    pub disks: Vec<DiskId>,
    /// While a change of this row is being filled: where the changed indices were before, by fragment index.
    pub filling_from: BTreeMap<u8, DiskId>,
}

/// The rows of one profile.
#[derive(Clone, Debug, PartialEq, Eq, Serialize, Deserialize)]
pub struct LayoutTable {
    /// The profile that it serves.
    pub profile: ProfileId,
    /// `rows.len() == 2^pg_bits`.
    pub pg_bits: u8,
    /// By placement group.
    pub rows: Vec<Row>,
}

/// All tables in use, planned from one cluster map.
#[derive(Clone, Debug, Default, PartialEq, Eq, Serialize, Deserialize)]
pub struct Layout {
    /// The map from which it was last planned.
    pub planned_from: MapVersion,
    /// By profile.
    pub tables: BTreeMap<ProfileId, LayoutTable>,
}

impl LayoutTable {
    /// The row of `stripe`; `None` when the table is malformed.
    #[must_use]
    pub fn row(&self, stripe: StripeId) -> Option<&Row> {
        self.rows.get(stripe.pg(self.pg_bits) as usize)
    }
}

impl Layout {
    /// The row of `stripe` under `profile`; `None` when the profile is not in use.
    #[must_use]
    pub fn row(&self, profile: ProfileId, stripe: StripeId) -> Option<&Row> {
        self.tables.get(&profile)?.row(stripe)
    }
}
