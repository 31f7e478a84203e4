//! Many small files by one command: what is asked, and the answer that a repeat gets again.
//!
//! Invariants: the files share the stripes of their command; each is judged in its turn and sees what those before it made; the
//! answer leaves out what the command says itself, since it is kept for as long as the request id.
//! Not here: contents of one file (`upload`).

use crate::codes;
use crate::metadata::drive::{EntryView, FeedPosition};
use crate::metadata::upload::{NewStripe, PageRows, Survival, UploadTarget};
use crate::wire_error::Failure;
use model::authorize::Principal;
use model::digest::Digest;
use model::id::DriveId;
use model::time::WallTime;
use serde::{Deserialize, Serialize};

/// Files that are committed together.
#[derive(Clone, Debug, PartialEq, Eq, Serialize, Deserialize)]
pub struct FileBatch {
    /// Who asks.
    pub principal: Principal,
    /// In which drive all of them lie.
    pub drive: DriveId,
    /// Whether one refused file refuses them all.
    pub is_atomic: bool,
    /// Stripes that this command names first; a block of theirs that no file takes dies with the command.
    pub stripes: Vec<NewStripe>,
    /// 1 to 1,000 files, in the order in which they are judged.
    pub files: Vec<BatchedFile>,
    /// The least that any block of the files survives.
    pub survival: Survival,
}

/// One file of a batch.
#[derive(Clone, Debug, PartialEq, Eq, Serialize, Deserialize)]
pub struct BatchedFile {
    /// To what.
    pub target: UploadTarget,
    /// The version that the content follows, as in `CommitUpload`.
    pub base_version: Option<u64>,
    /// Random numbers for new entries, as in `CommitUpload`.
    pub fresh: Vec<u64>,
    /// Plain bytes; the sum of all rows.
    pub size: u64,
    /// Keyed digest over the page digests.
    pub digest: Digest,
    /// In order; empty for an empty file.
    pub pages: Vec<PageRows>,
    /// As the client gave it.
    pub content_type: Option<String>,
}

/// The answer to a batch.
#[derive(Clone, Debug, PartialEq, Eq, Serialize, Deserialize)]
pub struct BatchCommitted {
    /// What became of each file, in the order of the command.
    pub files: Vec<FileOutcome>,
    /// The folders of new files: number and path, the root's path empty.
    pub folders: Vec<(u64, String)>,
    /// Where the root scope's feed stands after it.
    pub position: FeedPosition,
    /// As counted by the gateway that was first.
    pub survival: Survival,
    /// The wall time of the first application.
    pub time: WallTime,
}

/// What became of one file of a batch.
#[derive(Clone, Debug, PartialEq, Eq, Serialize, Deserialize)]
pub enum FileOutcome {
    /// It was made, with version 1 and revision 1; all else of it is in the command, and the time in the answer.
    New {
        /// The entry's number.
        number: u64,
        /// Its folder's place in `BatchCommitted::folders`.
        folder: u32,
    },
    /// It was there.
    Known {
        /// The file after the command.
        view: Box<EntryView>,
        /// Whether the command made a version of it; not when the content was there already.
        is_new_version: bool,
    },
    /// It was refused; the detail is left out where it is the code's own sentence.
    Refused(Failure),
}

impl FileOutcome {
    /// A refusal without what its code says anyway.
    #[must_use]
    pub fn refused(mut failure: Failure) -> Self {
        if codes::find(&failure.code).is_some_and(|code| code.sentence == failure.detail) {
            failure.detail.clear();
        }
        Self::Refused(failure)
    }
}

/// A refusal of an answer with its sentence.
#[must_use]
pub fn told(mut failure: Failure) -> Failure {
    if failure.detail.is_empty()
        && let Some(code) = codes::find(&failure.code)
    {
        code.sentence.clone_into(&mut failure.detail);
    }
    failure
}
