//! Why a fragment store did not do what was asked.
//!
//! Not here: the failure on the wire; the table from one to the other is `StoreError::failure`.

use disk::JournalError;
use kv::seam::KvError;
use model::error_kind::ErrorKind;
use protocol::node::code;
use protocol::wire_error::Failure;
use thiserror::Error;

/// A refusal or a fault of a disk's fragment store; each variant is another situation for the caller.
#[derive(Clone, Debug, PartialEq, Eq, Error)]
pub enum StoreError {
    /// The name is taken by a fragment of another form or hash.
    #[error("the name is taken by other content; draw a new stripe id")]
    OtherContent,
    /// No such fragment.
    #[error("no such fragment on this disk")]
    NotFound,
    /// The stored bytes fail their check; the fragment is on the damaged list.
    #[error("the stored fragment is damaged; read it elsewhere")]
    Damaged,
    /// No space.
    #[error("the disk is full; store elsewhere")]
    Full,
    /// An earlier write or sync failed.
    #[error("the disk is read-only: {0}")]
    ReadOnly(String),
    /// This very write failed: perhaps it is there after a restart.
    #[error("the write failed: {0}")]
    WriteFailed(String),
    /// The queue is full.
    #[error("the disk's queue is full; try again")]
    Busy,
    /// The store was stopped.
    #[error("the store is stopping")]
    Stopped,
    /// A range lies outside the fragment, or a name outside the cells that are asked for.
    #[error("a range lies outside the fragment, or a name outside the cells that are asked for")]
    BadRange,
    /// A read, or the place index, failed in a way that may pass.
    #[error("the disk failed: {0}")]
    Fault(String),
    /// The place index does not read; it is rebuilt at the next start.
    #[error("the place index is damaged: {0}")]
    IndexDamaged(String),
    /// Must not happen.
    #[error("{0}")]
    Bug(String),
}

impl StoreError {
    /// What it means for the caller.
    #[must_use]
    pub fn kind(&self) -> ErrorKind {
        match self {
            Self::OtherContent => ErrorKind::Conflict,
            Self::NotFound => ErrorKind::NotFound,
            Self::Damaged => ErrorKind::Corrupt,
            Self::Full => ErrorKind::Exhausted,
            Self::ReadOnly(_) | Self::Stopped | Self::Fault(_) | Self::IndexDamaged(_) => ErrorKind::Unavailable,
            Self::WriteFailed(_) => ErrorKind::Ambiguous,
            Self::Busy => ErrorKind::Busy,
            Self::BadRange => ErrorKind::Invalid,
            Self::Bug(_) => ErrorKind::Bug,
        }
    }

    /// The code on the wire.
    #[must_use]
    pub fn code(&self) -> &'static str {
        match self {
            Self::OtherContent => code::OTHER_CONTENT,
            Self::NotFound => code::NO_FRAGMENT,
            Self::Damaged => code::DAMAGED,
            Self::Full => code::DISK_FULL,
            Self::ReadOnly(_) | Self::WriteFailed(_) => code::DISK_READ_ONLY,
            Self::Busy => code::DISK_BUSY,
            Self::BadRange => code::BAD_RANGE,
            Self::Stopped | Self::Fault(_) | Self::IndexDamaged(_) => code::DISK_FAULT,
            Self::Bug(_) => "bug",
        }
    }

    /// The same as it travels.
    #[must_use]
    pub fn failure(&self) -> Failure {
        Failure::new(self.kind(), self.code(), self.to_string())
    }
}

impl From<KvError> for StoreError {
    fn from(error: KvError) -> Self {
        match error {
            KvError::Corrupt(_) => Self::IndexDamaged(error.to_string()),
            // It may pass, or the device is failing: no reason to throw the index away.
            KvError::Io(_) | KvError::ReadOnly(_) | KvError::Locked(_) => Self::Fault(error.to_string()),
        }
    }
}

impl From<JournalError> for StoreError {
    fn from(error: JournalError) -> Self {
        match error {
            JournalError::Full => Self::Full,
            JournalError::Failed { .. } => Self::WriteFailed(error.to_string()),
            JournalError::ReadOnly { .. } => Self::ReadOnly(error.to_string()),
            JournalError::Busy => Self::Busy,
            JournalError::Stopped => Self::Stopped,
            JournalError::NotFound { .. } => Self::NotFound,
            JournalError::Corrupt { .. } => Self::Damaged,
            JournalError::Disk(_) => Self::Fault(error.to_string()),
            JournalError::TooLarge { .. } | JournalError::BadDraft(_) | JournalError::Active { .. } => {
                Self::Bug(error.to_string())
            }
        }
    }
}
