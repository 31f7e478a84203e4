//! Snapshots: the state of a group as runs of rows, read from one view of the store and installed beside the current state.
//!
//! A snapshot is a mark, not a copy: its bytes are read when somebody asks, under the last-applied position of that very view,
//! which may be newer than the mark. Parts are bounded; installing is: clear the next install number, write rows there, sync.
//! Each run of rows is written together with how far the transfer is, so that a receiver that was killed goes on where it was.
//! Invariants: parts of one snapshot come from one view; an install is never read before the group record names it; runs follow
//! each other without a gap.
//! Not here: switching to an install (`state_machine`), keeping a view for its receiver (`outgoing`), taking parts (`incoming`).

use crate::raft::record::StoredMembersAt;
use crate::raft::stored_state::{
    Applied, StagingRecord, drop_staging, prefix_of, put_staging, read_applied, read_group, read_staging,
};
use crate::raft::types::{SnapshotMeta, StoredMembership};
use bytes::Bytes;
use kv::prefixed::{Prefixed, prefixed_batch};
use kv::seam::{Change, Kv, KvError, KvRead, Scan, prefix_end};
use model::id::GroupId;
use serde::{Deserialize, Serialize};
use std::sync::Arc;

/// Rows of a part, in bytes, unless one alone is larger.
const PART_BYTES_MAX: usize = 1 << 20;
/// Rows that are read from the store at a time.
const SCAN_ROWS_MAX: usize = 512;

/// Rows of a state with their keys, in order.
pub type Rows = Vec<(Bytes, Bytes)>;

/// A run of a snapshot.
#[derive(Clone, Debug, PartialEq, Eq, Serialize, Deserialize)]
pub enum Part {
    /// First, and again after a break: what the rows are the state of.
    Begin(Applied),
    /// Rows in the order of their keys, without group and install.
    Rows {
        /// The key that they follow; `None` for the first ones.
        after: Option<Bytes>,
        /// The rows.
        rows: Rows,
    },
    /// Last.
    End {
        /// The greatest key of all rows.
        after: Option<Bytes>,
    },
}

/// What openraft hands around as a snapshot.
#[derive(Clone)]
pub enum SnapshotData {
    /// The state of a group in a store, read when asked.
    Live {
        /// Where.
        kv: Arc<dyn Kv>,
        /// Whose.
        group: GroupId,
    },
    /// A received state, written and synced under this install number and not yet current.
    Staged {
        /// The install.
        install: u32,
        /// What it is the state of.
        applied: Applied,
    },
}

/// The state of a group in one view of a store, with what it is the state of.
pub struct StateView<'a> {
    rows: Prefixed<'a>,
    /// What was applied to it.
    pub applied: Applied,
}

impl<'a> StateView<'a> {
    /// The current state of `group` in `view`.
    ///
    /// # Errors
    /// When the store fails.
    pub fn open(view: &'a dyn KvRead, group: GroupId) -> Result<Self, KvError> {
        let install = read_group(view, group)?.install;
        Ok(Self {
            applied: read_applied(view, group, install)?,
            rows: Prefixed::new(view, prefix_of(group, install)),
        })
    }

    /// The rows behind `after`, about a part's bytes of them; none when there are no more.
    ///
    /// # Errors
    /// When the store fails.
    pub fn rows_after(&self, after: Option<&Bytes>) -> Result<Rows, KvError> {
        let mut scan = Scan::prefix(b"", SCAN_ROWS_MAX);
        if let Some(after) = after {
            scan = scan.after(after);
        }
        let (mut run, mut bytes): (Rows, usize) = (Vec::new(), 0);
        loop {
            let rows = self.rows.scan(&scan)?;
            let is_last = rows.len() < SCAN_ROWS_MAX;
            for (key, value) in rows {
                let len = key.len() + value.len();
                if !run.is_empty() && bytes + len > PART_BYTES_MAX {
                    return Ok(run);
                }
                bytes += len;
                run.push((key, value));
            }
            match run.last() {
                Some((last, _)) if !is_last => scan = scan.after(last),
                _ => return Ok(run),
            }
        }
    }
}

/// Why a part was not taken.
#[derive(Debug, thiserror::Error)]
pub enum StageError {
    /// The store failed.
    #[error(transparent)]
    Store(#[from] KvError),
    /// The parts are not one whole snapshot in order.
    #[error("install snapshot: {0}")]
    Malformed(&'static str),
}

/// A state that is being written beside the current one.
pub struct Staging {
    kv: Arc<dyn Kv>,
    group: GroupId,
    record: StagingRecord,
}

impl Staging {
    /// Goes on with `transfer` where it was, also in an earlier life of the process; or clears the install number behind the current
    /// one and begins there. Blocks.
    ///
    /// # Errors
    /// When the store fails.
    pub fn begin(kv: Arc<dyn Kv>, group: GroupId, transfer: u64, applied: Applied) -> Result<Self, KvError> {
        let install = read_group(kv.as_ref(), group)?.install + 1;
        if let Some(record) = read_staging(kv.as_ref(), group)?
            && record.install == install
            && record.transfer == transfer
            && record.applied == applied
        {
            return Ok(Self { kv, group, record });
        }
        let record = StagingRecord {
            install,
            transfer,
            applied,
            after: None,
        };
        kv.write(vec![clear(group, install, install), put_staging(group, &record)?])?;
        Ok(Self { kv, group, record })
    }

    /// Which transfer this is.
    #[must_use]
    pub fn transfer(&self) -> u64 {
        self.record.transfer
    }

    /// The key behind which rows are missing; `None` when all are.
    #[must_use]
    pub fn after(&self) -> Option<&Bytes> {
        self.record.after.as_ref()
    }

    /// Takes the rows behind `after`. Blocks. What was taken is not durable yet; after a crash an earlier position may be found.
    ///
    /// # Errors
    /// When they do not follow what is there, or the store fails.
    pub fn push(&mut self, after: Option<&Bytes>, rows: Rows) -> Result<(), StageError> {
        if after != self.record.after.as_ref() {
            return Err(StageError::Malformed("rows leave a gap"));
        }
        let Some((last, _)) = rows.last() else { return Ok(()) };
        let mut record = self.record.clone();
        record.after = Some(last.clone());
        let puts = rows.into_iter().map(|(key, value)| Change::Put(key, value)).collect();
        let mut batch = prefixed_batch(&prefix_of(self.group, record.install), puts);
        batch.push(put_staging(self.group, &record)?);
        self.kv.write(batch)?;
        self.record = record;
        Ok(())
    }

    /// Checks that all rows came and makes them durable. Blocks.
    ///
    /// # Errors
    /// When rows are missing or are not the state that was announced, or the store fails.
    pub fn end(&self, after: Option<&Bytes>) -> Result<SnapshotData, StageError> {
        let StagingRecord { install, applied, .. } = &self.record;
        if after != self.record.after.as_ref() {
            return Err(StageError::Malformed("rows are missing"));
        }
        if read_applied(self.kv.as_ref(), self.group, *install)? != *applied {
            return Err(StageError::Malformed("the rows are another state than was announced"));
        }
        self.kv.sync()?;
        Ok(SnapshotData::Staged {
            install: *install,
            applied: applied.clone(),
        })
    }

    /// Removes what was staged, unless it has become current. Blocks.
    ///
    /// # Errors
    /// When the store fails.
    pub fn discard(self) -> Result<(), KvError> {
        let install = self.record.install;
        if read_group(self.kv.as_ref(), self.group)?.install >= install {
            return Ok(());
        }
        self.kv
            .write(vec![clear(self.group, install, install), drop_staging(self.group)])
    }
}

/// The removal of a group's installs from `first` to `last`, both included.
#[must_use]
pub fn clear(group: GroupId, first: u32, last: u32) -> Change {
    let to = prefix_end(&prefix_of(group, last)).unwrap_or_else(|| Bytes::from_static(&[0xff; 16]));
    Change::DeleteRange(prefix_of(group, first), to)
}

/// What openraft calls a snapshot of this position. `Corrupt` when the members break openraft's rules.
///
/// # Errors
/// `Corrupt` as said.
pub fn meta_of(applied: &Applied) -> Result<SnapshotMeta, KvError> {
    let last_membership = membership_of(&applied.members)?;
    Ok(SnapshotMeta {
        last_log_id: applied.last.map(Into::into),
        last_membership,
    })
}

/// The members as openraft has them.
///
/// # Errors
/// `Corrupt` when they break openraft's rules.
pub fn membership_of(members: &StoredMembersAt) -> Result<StoredMembership, KvError> {
    members
        .to_membership()
        .map_err(|error| KvError::Corrupt(error.to_string()))
}
