//! Snapshots: the state of a group as runs of rows, read from one view of the store and installed beside the current state.
//!
//! A snapshot is a mark, not a copy: its bytes are read when somebody asks, under the last-applied position of that very view,
//! which may be newer than the mark. Parts are bounded; installing is: clear the next install number, write rows there, sync.
//! Invariants: parts of one snapshot come from one view; an install is never read before the group record names it.
//! Not here: switching to an install (`state_machine`), sending parts (`network`), resuming a broken transfer.

use crate::raft::record::StoredMembersAt;
use crate::raft::stored_state::{Applied, prefix_of, read_applied, read_group};
use crate::raft::types::{SnapshotMeta, StoredMembership};
use bytes::Bytes;
use kv::prefixed::{Prefixed, prefixed_batch};
use kv::seam::{Change, Kv, KvError, KvRead, Scan, prefix_end};
use model::id::GroupId;
use serde::{Deserialize, Serialize};
use std::sync::Arc;
use tokio::sync::mpsc;

/// Rows of a part, in bytes, unless one alone is larger.
const PART_BYTES_MAX: usize = 1 << 20;
/// Rows that are read from the store at a time.
const SCAN_ROWS_MAX: usize = 512;
/// Parts that wait for a slow receiver.
const PARTS_WAITING_MAX: usize = 2;

/// A run of a snapshot.
#[derive(Clone, Debug, PartialEq, Eq, Serialize, Deserialize)]
pub enum Part {
    /// First: what the rows that follow are the state of.
    Begin(Applied),
    /// Rows in the order of their keys, without group and install.
    Rows(Vec<(Bytes, Bytes)>),
    /// Last: how many rows there were.
    End {
        /// In all parts together.
        rows: u64,
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

/// Reads the state of a group as parts, on a thread of its own, which ends when the receiver is dropped.
#[must_use]
pub fn read_parts(kv: Arc<dyn Kv>, group: GroupId) -> mpsc::Receiver<Result<Part, KvError>> {
    let (sender, receiver) = mpsc::channel(PARTS_WAITING_MAX);
    tokio::task::spawn_blocking(move || {
        let view = kv.snapshot();
        if let Err(error) = send_parts(view.as_ref(), group, &sender) {
            // Nobody listening any more is no fault.
            drop(sender.blocking_send(Err(error)));
        }
    });
    receiver
}

fn send_parts(view: &dyn KvRead, group: GroupId, sender: &mpsc::Sender<Result<Part, KvError>>) -> Result<(), KvError> {
    let install = read_group(view, group)?.install;
    let applied = read_applied(view, group, install)?;
    let state = Prefixed::new(view, prefix_of(group, install));
    if sender.blocking_send(Ok(Part::Begin(applied))).is_err() {
        return Ok(());
    }
    let mut scan = Scan::prefix(b"", SCAN_ROWS_MAX);
    let mut rows_sent = 0;
    loop {
        let rows = state.scan(&scan)?;
        let Some((last, _)) = rows.last() else { break };
        scan = scan.after(last);
        rows_sent += rows.len() as u64;
        for run in split(rows) {
            if sender.blocking_send(Ok(Part::Rows(run))).is_err() {
                return Ok(());
            }
        }
    }
    drop(sender.blocking_send(Ok(Part::End { rows: rows_sent })));
    Ok(())
}

fn split(rows: Vec<(Bytes, Bytes)>) -> Vec<Vec<(Bytes, Bytes)>> {
    let mut runs: Vec<Vec<(Bytes, Bytes)>> = Vec::new();
    let mut bytes = PART_BYTES_MAX;
    for (key, value) in rows {
        let len = key.len() + value.len();
        if bytes + len > PART_BYTES_MAX {
            runs.push(Vec::new());
            bytes = 0;
        }
        bytes += len;
        if let Some(run) = runs.last_mut() {
            run.push((key, value));
        }
    }
    runs
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
    install: u32,
    applied: Applied,
    rows: u64,
}

impl Staging {
    /// Clears the install number behind the current one and writes there. Blocks.
    ///
    /// # Errors
    /// When the store fails.
    pub fn begin(kv: Arc<dyn Kv>, group: GroupId, applied: Applied) -> Result<Self, KvError> {
        let install = read_group(kv.as_ref(), group)?.install + 1;
        kv.write(vec![clear(group, install, install)])?;
        Ok(Self {
            kv,
            group,
            install,
            applied,
            rows: 0,
        })
    }

    /// Takes the next rows. Blocks.
    ///
    /// # Errors
    /// When the store fails.
    pub fn push(&mut self, rows: Vec<(Bytes, Bytes)>) -> Result<(), KvError> {
        self.rows += rows.len() as u64;
        let batch = rows.into_iter().map(|(key, value)| Change::Put(key, value)).collect();
        self.kv
            .write(prefixed_batch(&prefix_of(self.group, self.install), batch))
    }

    /// Checks that all rows came and makes them durable. Blocks.
    ///
    /// # Errors
    /// When rows are missing or are not the state that was announced, or the store fails.
    pub fn end(self, rows: u64) -> Result<SnapshotData, StageError> {
        if rows != self.rows {
            return Err(StageError::Malformed("rows are missing"));
        }
        if read_applied(self.kv.as_ref(), self.group, self.install)? != self.applied {
            return Err(StageError::Malformed("the rows are another state than was announced"));
        }
        self.kv.sync()?;
        Ok(SnapshotData::Staged {
            install: self.install,
            applied: self.applied,
        })
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
