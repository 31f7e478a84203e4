//! Why a replica did not do what was asked, and what that means for the caller.
//!
//! Invariant: what may have been done is `Ambiguous`; everything else was not done.
//! Not here: the codes of the wire (`service`).

use crate::raft::log_store::LogError;
use crate::raft::types::ReplicaInfo;
use kv::seam::KvError;
use model::error_kind::ErrorKind;
use model::id::{GroupId, RaftId};
use thiserror::Error;

/// Why a replica did not do what was asked.
#[derive(Clone, Debug, Error)]
pub enum GroupError {
    /// Another replica leads, or none at present; nothing was done.
    #[error("group {group} is not led from here")]
    NotLeader {
        /// Which group.
        group: GroupId,
        /// Who leads, as far as this replica knows, and where that listens.
        leader: Option<(RaftId, ReplicaInfo)>,
    },
    /// Too few replicas answered, or the state has not caught up after a start; nothing was done.
    #[error("group {group} is unavailable: {detail}")]
    Unavailable {
        /// Which group.
        group: GroupId,
        /// What is missing.
        detail: String,
    },
    /// The replica has started and its state is not known to be complete yet; nothing was done. Another one may serve.
    #[error("group {group} has not caught up here yet")]
    Recovering {
        /// Which group.
        group: GroupId,
    },
    /// As much waits at this process as may; nothing was done.
    #[error("group {group} is overloaded here")]
    Overloaded {
        /// Which group.
        group: GroupId,
    },
    /// Too little space is left for the log, and no other replica took the leadership over; nothing was done.
    #[error("group {group}: the disk of its log is nearly full")]
    Full {
        /// Which group.
        group: GroupId,
    },
    /// The command was proposed; whether it is or will be applied is not known.
    #[error("group {group}: outcome unknown: {detail}")]
    Ambiguous {
        /// Which group.
        group: GroupId,
        /// What happened.
        detail: String,
    },
    /// This replica's state is older than its purged log, as after the loss of its store: it must leave and come back as a new one.
    #[error("replica of group {group} is lost: applied {applied:?}, log purged to {purged}")]
    Lost {
        /// Which group.
        group: GroupId,
        /// What its state covers.
        applied: Option<u64>,
        /// Where its log begins.
        purged: u64,
    },
    /// The store failed.
    #[error("group store: {0}")]
    Store(#[from] KvError),
    /// The log failed.
    #[error(transparent)]
    Log(#[from] LogError),
    /// openraft refused what it must not refuse, as a configuration.
    #[error("group {group}: {detail}")]
    Bug {
        /// Which group.
        group: GroupId,
        /// What it said.
        detail: String,
    },
}

impl GroupError {
    /// What it means for the caller.
    #[must_use]
    pub fn kind(&self) -> ErrorKind {
        match self {
            Self::NotLeader { .. } | Self::Unavailable { .. } | Self::Recovering { .. } | Self::Lost { .. } => {
                ErrorKind::Unavailable
            }
            Self::Overloaded { .. } => ErrorKind::Busy,
            Self::Full { .. } => ErrorKind::Exhausted,
            Self::Ambiguous { .. } => ErrorKind::Ambiguous,
            Self::Store(_) | Self::Log(_) => ErrorKind::Unavailable,
            Self::Bug { .. } => ErrorKind::Bug,
        }
    }
}
