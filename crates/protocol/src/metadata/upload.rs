//! Commands and answers about contents: blocks in stripes, pages, sessions and the commit.
//!
//! Invariants: a stripe is named once, with all of its blocks; a page takes one reference on each of its blocks in the command that
//! writes it; rows of a session take theirs in the command that appends them and hand them over at the page's end.
//! Not here: cutting, sealing and digests (`codec`): this side believes the gateway's digests and checks only that equal ones mean
//! equal rows.

use crate::metadata::drive::{EntryView, FeedPosition, Place};
use crate::metadata::file_batch::FileBatch;
use crate::metadata::repacking::Repacking;
use bytes::Bytes;
use model::authorize::Principal;
use model::digest::Digest;
use model::entry::{BlockRow, PlacedStripe, Version};
use model::id::{DriveId, EntryId, RowVersion, UploadId};
use model::profile::{Domain, ProfileId};
use model::stripe::{Astray, StripeForm, StripeId};
use model::time::WallTime;
use serde::{Deserialize, Serialize};

/// What a content is written to.
#[derive(Clone, Debug, PartialEq, Eq, Serialize, Deserialize)]
pub enum UploadTarget {
    /// A place; without base version it must be free (`name_taken`), with one a file must be there.
    Place {
        /// Where.
        place: Place,
        /// Whether missing folders of a path are made too.
        with_parents: bool,
    },
    /// A file by its id; needs a base version.
    Entry(EntryId),
}

/// A stripe that is named for the first time, durable by the ack rule.
#[derive(Clone, Debug, PartialEq, Eq, Serialize, Deserialize)]
pub struct NewStripe {
    /// Its name, in the drive's slot.
    pub id: StripeId,
    /// Its scheme.
    pub profile: ProfileId,
    /// Lengths and hash.
    pub form: StripeForm,
    /// The row version under which its fragments were counted.
    pub row_version: RowVersion,
    /// Fragments that are missing or lie outside the row.
    pub astray: Vec<Astray>,
    /// Its blocks, end to end, ascending by offset.
    pub blocks: Vec<NewBlock>,
}

/// A block in a new stripe.
#[derive(Clone, Copy, Debug, PartialEq, Eq, Serialize, Deserialize)]
pub struct NewBlock {
    /// Digest and plain length.
    pub row: BlockRow,
    /// First byte in the stripe.
    pub offset: u32,
    /// Sealed bytes.
    pub sealed_bytes: u32,
}

/// A block whose sealed bytes lie in the metadata.
#[derive(Clone, Debug, PartialEq, Eq, Serialize, Deserialize)]
pub struct InlineBlock {
    /// Digest and plain length.
    pub row: BlockRow,
    /// The sealed block.
    pub sealed: Bytes,
}

/// A whole page: its digest and its rows.
#[derive(Clone, Debug, PartialEq, Eq, Serialize, Deserialize)]
pub struct PageRows {
    /// Keyed digest over the rows.
    pub digest: Digest,
    /// 1 to 512 rows.
    pub rows: Vec<BlockRow>,
}

/// A content that needs no session.
#[derive(Clone, Debug, PartialEq, Eq, Serialize, Deserialize)]
pub struct DirectContent {
    /// Plain bytes; the sum of all rows.
    pub size: u64,
    /// Keyed digest over the page digests.
    pub digest: Digest,
    /// In order; empty for an empty file.
    pub pages: Vec<PageRows>,
    /// Stripes that this command names first.
    pub stripes: Vec<NewStripe>,
    /// The block of a file of at most 4 KiB.
    pub inline: Option<InlineBlock>,
}

/// What a write survives, as the gateway counted it for the receipt; kept with the request id.
#[derive(Clone, Copy, Debug, PartialEq, Eq, Serialize, Deserialize)]
pub struct Survival {
    /// The largest domain whose loss, any one of it, every stripe of the content survives.
    pub survives: Domain,
    /// Whether a fragment is missing or shares a node against the profile.
    pub is_degraded: bool,
}

impl Survival {
    /// The lesser of two promises.
    #[must_use]
    pub fn least(self, other: Self) -> Self {
        Self {
            survives: self.survives.min(other.survives),
            is_degraded: self.is_degraded || other.is_degraded,
        }
    }
}

/// A run of rows, perhaps ending a page. Without rows, behind a page's end, it stands for a page that the drive has already.
#[derive(Clone, Debug, PartialEq, Eq, Serialize, Deserialize)]
pub struct RowRun {
    /// Rows that follow those already in the session.
    pub rows: Vec<BlockRow>,
    /// Digest of the page that ends behind these rows.
    pub page_end: Option<Digest>,
}

/// Most rows of one `AnnounceRows`, and of one answer that lists rows: about 300 KiB.
pub const ANNOUNCED_ROWS_MAX: usize = 8192;

/// The uncut end of a resumable upload, sealed as a stripe without a block: how the block behind the last row begins.
#[derive(Clone, Debug, PartialEq, Eq, Serialize, Deserialize)]
pub struct Tail {
    /// Its stripe.
    pub stripe: StripeId,
    /// The random id from which its key is derived.
    pub record: u128,
    /// Sealed bytes.
    pub sealed_bytes: u32,
    /// Plain bytes.
    pub plain_bytes: u32,
}

/// Contents that leave the metadata for a stripe: those of its blocks that still lie there as they were read, and that somebody holds.
/// Bytes of the others are dead in it. A repeat changes nothing.
#[derive(Clone, Debug, PartialEq, Eq, Serialize, Deserialize)]
pub struct PackedContents {
    /// Of which drive.
    pub drive: DriveId,
    /// The sender's lease of the group; another is `lease_lost`.
    pub lease: u64,
    /// The stripe; `None` when what is due is too little, or could not be written as its profile asks: then the drive is looked at
    /// again when more is due, or much later.
    pub stripe: Option<NewStripe>,
}

/// A command about contents.
#[derive(Clone, Debug, PartialEq, Eq, Serialize, Deserialize)]
pub enum UploadCommand {
    /// Commits a content of at most 12 MiB in one command.
    CommitUpload {
        /// Who asks.
        principal: Principal,
        /// In which drive.
        drive: DriveId,
        /// To what.
        target: UploadTarget,
        /// The version that the content follows; another present one is `version_conflict`, or success when the content is equal.
        base_version: Option<u64>,
        /// Random numbers for new entries: one, or as many as the path has names with `with_parents`.
        fresh: Vec<u64>,
        /// The content.
        content: DirectContent,
        /// As the client gave it.
        content_type: Option<String>,
        /// For the receipt.
        survival: Survival,
    },
    /// Opens a session; checks permission and the declared length. Target and base version are the commit's to check, so that a
    /// repeat under a client's request id can bring its content in again (`DriveAsk::Upload` refuses early what is no repeat).
    OpenSession {
        /// Who asks.
        principal: Principal,
        /// Its id, drawn by the gateway.
        upload: UploadId,
        /// To what.
        target: UploadTarget,
        /// The version that the content follows.
        base_version: Option<u64>,
        /// Plain bytes, when the client said so.
        declared_bytes: Option<u64>,
        /// Seven aged days instead of one aged hour.
        is_resumable: bool,
        /// As the client gave it.
        content_type: Option<String>,
    },
    /// Names stripes and appends rows; every row's block must be in the drive or in these stripes.
    AppendRows {
        /// Which session.
        upload: UploadId,
        /// Rows already in the session (all pages together); another count is `wrong_position` with the true one.
        position: u64,
        /// Stripes that this command names first.
        stripes: Vec<NewStripe>,
        /// Runs of rows, in order.
        runs: Vec<RowRun>,
    },
    /// Replaces the tail (`None` drops it); a new one's stripe comes along, without blocks. Gateways say `KeepTail`, which names the
    /// place too.
    SetTail {
        /// Which session.
        upload: UploadId,
        /// The tail with its stripe.
        tail: Option<(Tail, NewStripe)>,
    },
    /// Commits what the session holds; its open page must have been ended. A resumable session keeps the answer for its age, and
    /// whoever commits it again gets that.
    CommitSession {
        /// Who asks: the one who opened it.
        principal: Principal,
        /// Which session.
        upload: UploadId,
        /// Plain bytes; must be the sum of all rows.
        size: u64,
        /// Keyed digest over the page digests.
        digest: Digest,
        /// Random numbers for new entries, as in `CommitUpload`.
        fresh: Vec<u64>,
        /// For the receipt.
        survival: Survival,
    },
    /// Ends a session and gives up what it holds; no error when it is not there.
    AbortSession {
        /// Who asks: the one who opened it.
        principal: Principal,
        /// Which session.
        upload: UploadId,
    },
    /// Ends sessions whose age is over, by at most 1,000 sub-operations.
    SweepSessions {
        /// In which drive.
        drive: DriveId,
    },
    /// Says where the fragments of a stripe are after a repair, or that it is damaged.
    SetStripe {
        /// The drive whose stripe it is.
        drive: DriveId,
        /// Its scheme.
        profile: ProfileId,
        /// Which.
        stripe: StripeId,
        /// The row version under which it was counted; an older one is `stale_row`.
        row_version: RowVersion,
        /// Fragments that are missing or lie outside the row; empty after a full repair.
        astray: Vec<Astray>,
        /// Whether fewer than k fragments are left, so that a new copy of its blocks replaces the old.
        is_damaged: bool,
    },
    /// `AppendRows` of a resumable session, which may be gone on with by another gateway: what the rows survive is kept for the
    /// receipt, and the tail, whose block the first row is, is dropped.
    NameRows {
        /// Which session.
        upload: UploadId,
        /// Rows already in the session (all pages together); another count is `wrong_position` with the true one.
        position: u64,
        /// Stripes that this command names first.
        stripes: Vec<NewStripe>,
        /// Runs of rows, in order. None stands for a page that the drive has: a first one without rows, where no page is open, is
        /// `wrong_position` too.
        runs: Vec<RowRun>,
        /// The least that their blocks survive; `None` when there is no row.
        survival: Option<Survival>,
    },
    /// Replaces the tail of a resumable session; its stripe comes along, without blocks.
    KeepTail {
        /// Which session.
        upload: UploadId,
        /// Rows before the tail; another count is `wrong_position` with the true one, and so is a tail that is shorter than the present.
        position: u64,
        /// The tail.
        tail: Tail,
        /// Its stripe.
        stripe: NewStripe,
    },
    /// Keeps a part of the list of blocks that a session's content will consist of. Takes no references: the list says what the
    /// client meant, and only the commit needs the blocks.
    AnnounceRows {
        /// Which session.
        upload: UploadId,
        /// Rows announced before these; another count is `wrong_position` with the true one.
        position: u64,
        /// 1 to `ANNOUNCED_ROWS_MAX`, in the order of the content; a size of 0 where the client did not say it.
        rows: Vec<BlockRow>,
    },
    /// Names stripes of blocks that were sent singly: they have no reference, and their grace runs until a commit takes one.
    StageStripes {
        /// The session for which they were sent.
        upload: UploadId,
        /// Stripes that this command names first.
        stripes: Vec<NewStripe>,
    },
    /// Makes the content of an old version the current one: a new version that shares the old one's pages.
    RestoreVersion {
        /// Who asks.
        principal: Principal,
        /// The file.
        entry: EntryId,
        /// The version whose content is wanted.
        version: u64,
        /// The version that the content follows; another present one is `version_conflict`, or success when the content is equal.
        /// `None` for whatever is current.
        base_version: Option<u64>,
    },
    /// Commits many small files at once, each a sub-operation with all of its records.
    CommitBatch(FileBatch),
    /// Says how long the content of a resumable session will be, for one that was opened without a length. It is said once and for
    /// all: the same again gives the same answer, behind the commit too, and another length is `length_declared`.
    DeclareLength {
        /// Who asks: the one who opened it.
        principal: Principal,
        /// Which session.
        upload: UploadId,
        /// Plain bytes.
        bytes: u64,
    },
    /// Switches living blocks from stripes that are less than half alive to a new one, which this command names first. A block that
    /// died meanwhile, or lies elsewhere by now, stays as it is and is dead weight of the new stripe.
    RepackBlocks(Repacking),
    /// Has small contents of a drive lie in a stripe from now on.
    PackInline(PackedContents),
}

impl UploadCommand {
    /// The drive that it is about.
    #[must_use]
    pub fn drive(&self) -> DriveId {
        match self {
            Self::CommitUpload { drive, .. }
            | Self::SweepSessions { drive }
            | Self::SetStripe { drive, .. }
            | Self::PackInline(PackedContents { drive, .. }) => *drive,
            Self::OpenSession { upload, .. }
            | Self::AppendRows { upload, .. }
            | Self::SetTail { upload, .. }
            | Self::CommitSession { upload, .. }
            | Self::AbortSession { upload, .. }
            | Self::NameRows { upload, .. }
            | Self::KeepTail { upload, .. }
            | Self::AnnounceRows { upload, .. }
            | Self::StageStripes { upload, .. }
            | Self::DeclareLength { upload, .. } => upload.drive,
            Self::RestoreVersion { entry, .. } => entry.drive,
            Self::CommitBatch(batch) => batch.drive,
            Self::RepackBlocks(repacking) => repacking.drive,
        }
    }
}

/// The answer to a commit.
#[derive(Clone, Debug, PartialEq, Eq, Serialize, Deserialize)]
pub struct Committed {
    /// The file after the commit.
    pub view: EntryView,
    /// The version that holds the content.
    pub version: Version,
    /// Whether the command made the file.
    pub is_new_entry: bool,
    /// Whether the command made the version; not when the content was there already.
    pub is_new_version: bool,
    /// Where the root scope's feed stands after it.
    pub position: FeedPosition,
    /// As counted by the gateway that was first.
    pub survival: Survival,
    /// The wall time of the first application, for the receipt.
    pub time: WallTime,
}

/// A session as the group knows it.
#[derive(Clone, Debug, PartialEq, Eq, Serialize, Deserialize)]
pub struct SessionState {
    /// Which.
    pub upload: UploadId,
    /// Who opened it.
    pub principal: Principal,
    /// To what.
    pub target: UploadTarget,
    /// The version that the content follows.
    pub base_version: Option<u64>,
    /// Plain bytes, when the client said so.
    pub declared_bytes: Option<u64>,
    /// Seven aged days instead of one aged hour.
    pub is_resumable: bool,
    /// As the client gave it.
    pub content_type: Option<String>,
    /// Rows so far, all pages together.
    pub rows: u64,
    /// Plain bytes of those rows.
    pub row_bytes: u64,
    /// Ended pages so far.
    pub pages: u32,
    /// Rows of the open page (the gateway goes on cutting from here); only in answer to a query.
    pub open_rows: Vec<BlockRow>,
    /// Digests of the ended pages, in order; only in answer to a query.
    pub page_digests: Vec<Digest>,
    /// The uncut end.
    pub tail: Option<Tail>,
}

/// A resumable session, or what is left of it.
#[derive(Clone, Debug, PartialEq, Eq, Serialize, Deserialize)]
pub enum ResumableState {
    /// It takes more in.
    Open {
        /// What it holds, with rows and digests.
        session: SessionState,
        /// The least that its rows' blocks survive; `None` without rows.
        survival: Option<Survival>,
        /// The tail's stripe.
        tail: Option<PlacedStripe>,
    },
    /// It was committed with this answer.
    Committed(Committed),
}

impl SessionState {
    /// Bytes of the content that need not be sent again.
    #[must_use]
    pub fn stored_bytes(&self) -> u64 {
        let tail = self.tail.as_ref().map_or(0, |tail| u64::from(tail.plain_bytes));
        self.row_bytes.saturating_add(tail)
    }
}
