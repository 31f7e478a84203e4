//! Copying a folder that one command cannot copy: a job that builds the copy out of sight.
//!
//! Invariants: nobody sees anything of the copy before all of it is there; a copy that ended otherwise leaves nothing behind.
//! Not here: the commands themselves (`drive::DriveCommand`), copies of one command (`CopyEntry`).

use model::id::EntryId;
use model::time::WallTime;
use serde::{Deserialize, Serialize};

/// How far a copy is.
#[derive(Clone, Debug, PartialEq, Eq, Serialize, Deserialize)]
pub enum CopyStage {
    /// It is being built.
    Copying,
    /// It is in its place.
    Done,
    /// It ended before, and nothing of it stays: the word of the code.
    Stopped(String),
}

/// A copy that is made by a job.
#[derive(Clone, Debug, PartialEq, Eq, Serialize, Deserialize)]
pub struct CopyFacts {
    /// The number of its job.
    pub job: u64,
    /// The folder that is copied.
    pub source: EntryId,
    /// The copy; it is found from `Done` on.
    pub copy: EntryId,
    /// When it was asked for.
    pub begun: WallTime,
    /// How far it is.
    pub stage: CopyStage,
    /// Files copied so far, each time one is.
    pub files: u64,
    /// Folders made so far, each time one is.
    pub folders: u64,
}
