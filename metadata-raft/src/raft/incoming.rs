//! The receiving side of a snapshot's transfer: parts in, an installed state out.
//!
//! Invariants: a part is answered only once it is written; one transfer a group at a time, a newer one ends an older one; whatever
//! has begun to write or to install ends before the next part is looked at, also when its call was dropped meanwhile.
//! Not here: what a part is and how it is written (`snapshot`), the calls (`network`, `receiver`).

use crate::raft::network::GroupRaft;
use crate::raft::receiver::{refused, stale};
use crate::raft::snapshot::{Part, SnapshotData, Staging, meta_of};
use crate::raft::state_machine::GroupState;
use crate::raft::types::{TypeConfig, Vote};
use bytes::Bytes;
use model::id::GroupId;
use openraft::raft::SnapshotResponse;
use protocol::wire_error::Failure;
use serde::{Deserialize, Serialize};
use std::sync::Arc;
use tokio::sync::{Mutex, OwnedMutexGuard};

/// One part of a snapshot on its way.
#[derive(Debug, Serialize, Deserialize)]
pub struct SnapshotPart {
    /// The sending leader's.
    pub vote: Vote,
    /// Tells two transfers apart.
    pub transfer: u64,
    /// What is sent.
    pub part: Part,
}

/// What a part is answered.
#[derive(Debug, Serialize, Deserialize)]
pub enum PartAnswer {
    /// It is written; go on behind this key.
    Continue {
        /// The greatest key that is here.
        after: Option<Bytes>,
    },
    /// It was the last one.
    Installed(SnapshotResponse<TypeConfig>),
}

/// The receiver of one group.
pub struct Incoming {
    raft: GroupRaft,
    state: GroupState,
    group: GroupId,
    staging: Arc<Mutex<Option<Staging>>>,
}

impl Incoming {
    /// Nothing is being received.
    #[must_use]
    pub fn new(raft: GroupRaft, state: GroupState, group: GroupId) -> Self {
        Self {
            raft,
            state,
            group,
            staging: Arc::default(),
        }
    }

    /// Takes a part.
    ///
    /// # Errors
    /// `Conflict` for a part of another transfer than the present one, or not the next: the sender begins again.
    pub async fn take(&self, message: SnapshotPart) -> Result<PartAnswer, Failure> {
        let SnapshotPart { vote, transfer, part } = message;
        let staging = Arc::clone(&self.staging).lock_owned().await;
        match part {
            // The answer to the last part was lost: nothing is missing, and openraft notes the leader's vote.
            Part::Begin(applied) if self.state.last_applied() >= applied.last => {
                let snapshot = SnapshotData::Live {
                    kv: self.state.kv(),
                    group: self.group,
                };
                let meta = meta_of(&applied).map_err(refused)?;
                let snapshot = openraft::Snapshot { meta, snapshot };
                let answer = self.raft.install_full_snapshot(vote, snapshot).await.map_err(refused)?;
                Ok(PartAnswer::Installed(answer))
            }
            Part::Begin(applied) => {
                let (kv, group) = (self.state.kv(), self.group);
                let begun = blocking(staging, move |staging| {
                    // The one before ends first: what it has in memory is an older position than what is stored.
                    *staging = None;
                    let begun = Staging::begin(kv, group, transfer, applied).map_err(refused)?;
                    Ok(staging.insert(begun).after().cloned())
                });
                Ok(PartAnswer::Continue { after: begun.await? })
            }
            Part::Rows { after, rows } => {
                let pushed = blocking(staging, move |staging| {
                    let current = staging.as_mut().filter(|current| current.transfer() == transfer);
                    let current = current.ok_or_else(stale)?;
                    current.push(after.as_ref(), rows).map_err(refused)?;
                    Ok(current.after().cloned())
                });
                Ok(PartAnswer::Continue { after: pushed.await? })
            }
            Part::End { after } => {
                // Its own task: openraft installs what it was given even when this call is dropped, and until then nobody may
                // clear what is being switched to.
                let installed = tokio::spawn(install(self.raft.clone(), staging, vote, transfer, after));
                installed.await.map_err(refused)?.map(PartAnswer::Installed)
            }
        }
    }
}

async fn install(
    raft: GroupRaft,
    mut staging: OwnedMutexGuard<Option<Staging>>,
    vote: Vote,
    transfer: u64,
    after: Option<Bytes>,
) -> Result<SnapshotResponse<TypeConfig>, Failure> {
    let current = staging.take().filter(|current| current.transfer() == transfer);
    let current = current.ok_or_else(stale)?;
    let ended = daemon::blocking::run(move || current.end(after.as_ref()).map(|data| (current, data)));
    let (current, data) = ended.await.map_err(refused)?.map_err(refused)?;
    let SnapshotData::Staged { applied, .. } = &data else {
        return Err(refused("nothing was staged"));
    };
    let snapshot = openraft::Snapshot {
        meta: meta_of(applied).map_err(refused)?,
        snapshot: data,
    };
    let answer = raft.install_full_snapshot(vote, snapshot).await.map_err(refused)?;
    // openraft passes by what it has already; then the rows are not wanted any more.
    let discarded = daemon::blocking::run(move || current.discard());
    discarded.await.map_err(refused)?.map_err(refused)?;
    drop(staging);
    Ok(answer)
}

/// Runs `work` where it may block, with what is staged. Once begun it ends even when this future is dropped, and holds the guard until
/// then.
async fn blocking<T: Send + 'static>(
    mut staging: OwnedMutexGuard<Option<Staging>>,
    work: impl FnOnce(&mut Option<Staging>) -> Result<T, Failure> + Send + 'static,
) -> Result<T, Failure> {
    let worked = daemon::blocking::run(move || work(&mut staging));
    worked.await.map_err(refused)?
}
