//! Rows for a node that runs without a control group: one row, the same for every stripe of every profile.
//!
//! Place in the picture: measurements and tests of a single node; the processes of a cluster ask the control group.
//! Invariant: a version that was set is what every later fetch answers.

use crate::rows::RowSource;
use async_trait::async_trait;
use model::id::{DiskId, RowVersion};
use model::layout::Row;
use model::profile::ProfileId;
use protocol::node::RowsUpdate;
use protocol::wire_error::Failure;
use std::collections::BTreeMap;
use std::sync::atomic::{AtomicU64, Ordering};

/// Placement groups of a table, as a power of two: the least that a table may have.
const PG_BITS: u8 = model::layout::PG_BITS_MIN;

/// One row of these disks everywhere.
pub struct UniformRows {
    disks: Vec<DiskId>,
    version: AtomicU64,
}

impl UniformRows {
    /// A row of these disks, in version 1; a profile's row has as many of them as the profile has fragments.
    #[must_use]
    pub fn new(disks: impl IntoIterator<Item = u32>) -> Self {
        Self {
            disks: disks.into_iter().map(DiskId).collect(),
            version: AtomicU64::new(1),
        }
    }

    /// From now on the row has this version.
    pub fn set_version(&self, version: RowVersion) {
        self.version.store(version.0, Ordering::Relaxed);
    }

    /// The row of `profile` as it would be in `version`.
    #[must_use]
    pub fn row(&self, profile: ProfileId, version: RowVersion) -> Row {
        let fragments = profile.profile().fragments();
        Row {
            version,
            disks: self.disks.iter().take(fragments).copied().collect(),
            filling_from: BTreeMap::new(),
        }
    }

    /// The whole table of `profile` as it would be in `version`.
    #[must_use]
    pub fn table(&self, profile: ProfileId, version: RowVersion) -> RowsUpdate {
        RowsUpdate {
            profile,
            pg_bits: PG_BITS,
            rows: (0..1 << PG_BITS).map(|pg| (pg, self.row(profile, version))).collect(),
        }
    }
}

#[async_trait]
impl RowSource for UniformRows {
    async fn fetch(&self, profile: ProfileId) -> Result<RowsUpdate, Failure> {
        Ok(self.table(profile, RowVersion(self.version.load(Ordering::Relaxed))))
    }
}
