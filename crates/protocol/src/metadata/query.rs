//! Queries and their answers: what gateways and workers read from groups, after a read-index.
//!
//! Invariant: a query of a user carries the principal and is authorised where the state lies; answers are bounded.

use crate::metadata::RequestKey;
use crate::metadata::drive::{EntryRef, EntryView, FeedPosition};
use crate::metadata::group::Lease;
use crate::metadata::upload::{InlineBlock, UploadTarget};
use crate::metadata::user::{CutParameters, TokenHash};
use bytes::Bytes;
use model::authorize::Principal;
use model::digest::Digest;
use model::entry::{BlockRow, Entry, EntryType, PlacedBlock, PlacedStripe, Version};
use model::id::{
    BlockId, DeviceId, DiskId, DriveId, EntryId, GroupId, Incarnation, RowVersion, Slot, UploadId, UserId,
};
use model::name::Username;
use model::profile::ProfileId;
use model::stripe::{Astray, StripeForm, StripeId};
use model::time::WallTime;
use serde::{Deserialize, Serialize};

/// Most blocks of one `Manifest`.
pub const MANIFEST_BLOCKS_MAX: usize = 1024;
/// Most digests of one `FindBlocks`.
pub const FIND_BLOCKS_MAX: usize = 1024;
/// Most rows of an answer that lists changes, jobs, stripes, trash, versions or users.
pub const ROWS_MAX: usize = 1000;

/// A query to the control group.
#[derive(Clone, Debug, PartialEq, Eq, Serialize, Deserialize)]
pub enum ControlQuery {
    /// Id, settings and map.
    Cluster,
    /// All tables, or one profile's.
    Layout(Option<ProfileId>),
    /// Which group serves which slot.
    Slots,
    /// Metadata replicas, gateways and admins.
    Processes,
    /// Groups and their voters.
    Groups,
}

/// A query about users; asked by a gateway for itself, so without a principal.
#[derive(Clone, Debug, PartialEq, Eq, Serialize, Deserialize)]
pub enum UserQuery {
    /// By the folded name.
    ByName(Username),
    /// By id.
    ById(UserId),
    /// By the folded name, with the password's hash.
    Login(Username),
    /// The living token of this hash; `token_unknown` or `token_expired` otherwise.
    Token {
        /// Whose.
        user: UserId,
        /// Which.
        hash: TokenHash,
        /// The gateway's wall clock.
        now: WallTime,
    },
    /// The installed clients of a user.
    Devices(UserId),
    /// Users of a slot, ascending by id, behind `after`; at most `ROWS_MAX`.
    List {
        /// Which slot.
        slot: Slot,
        /// Begin behind this user.
        after: Option<UserId>,
    },
}

impl UserQuery {
    /// The slot that it lies in.
    #[must_use]
    pub fn slot(&self) -> Slot {
        match self {
            Self::ByName(name) | Self::Login(name) => Slot::of_username(name.as_str()),
            Self::ById(user) | Self::Token { user, .. } | Self::Devices(user) => user.slot(),
            Self::List { slot, .. } => *slot,
        }
    }
}

/// A query about a drive.
#[derive(Clone, Debug, PartialEq, Eq, Serialize, Deserialize)]
pub struct DriveQuery {
    /// Which.
    pub drive: DriveId,
    /// Who asks; `None` for workers of the cluster, who get answers only to what is not a user's.
    pub principal: Option<Principal>,
    /// What.
    pub ask: DriveAsk,
}

/// How far a drive has come: what `Query::DriveSince` may ask has the same answer wherever the mark is the same.
#[derive(Clone, Copy, Debug, PartialEq, Eq, Serialize, Deserialize)]
pub struct DriveMark {
    /// The drive's incarnation: history of another one may have used the same indexes.
    pub incarnation: Incarnation,
    /// Whose log `index` is of: the group that applied the command.
    pub group: GroupId,
    /// The entry that touched the drive last; 0 before the first.
    pub index: u64,
}

/// What is asked about a drive.
#[derive(Clone, Debug, PartialEq, Eq, Serialize, Deserialize)]
pub enum DriveAsk {
    /// One entry with its path.
    Get(EntryRef),
    /// A page of a folder, in the order of name keys.
    List {
        /// The folder.
        folder: EntryRef,
        /// 1 to 1000.
        limit: u16,
        /// The `next_page_token` of the page before.
        page_token: Option<String>,
    },
    /// What is in the trash itself, oldest first.
    Trash {
        /// 1 to 1000.
        limit: u16,
        /// The last (aged milliseconds, entry) of the page before.
        after: Option<(u64, EntryId)>,
    },
    /// Versions of a file, newest first, below `before`; at most `ROWS_MAX`.
    Versions {
        /// The file.
        entry: EntryId,
        /// Only lower numbers than this.
        before: Option<u64>,
    },
    /// What the drive holds against its quota.
    Usage,
    /// What a gateway needs to cut, seal and open.
    Facts,
    /// Which of these blocks the drive has; at most `FIND_BLOCKS_MAX`.
    FindBlocks(Vec<Digest>),
    /// A version's blocks with their places.
    ReadManifest {
        /// The file.
        entry: EntryId,
        /// Which version; `None` for the current one.
        version: Option<u64>,
        /// First wanted byte and the byte behind the last; `None` for everything.
        range: Option<(u64, u64)>,
    },
    /// An upload session of this principal.
    Session(UploadId),
    /// Changes by the drive's sequence, above `after`; for workers.
    Changes {
        /// Greatest sequence already known.
        after: u64,
        /// 1 to `ROWS_MAX`.
        limit: u16,
    },
    /// Changes of one scope by its own sequence, above `after`.
    ScopeChanges {
        /// The scope's entry.
        scope: EntryId,
        /// Greatest scope sequence already known.
        after: u64,
        /// 1 to `ROWS_MAX`.
        limit: u16,
    },
    /// Jobs of the drive.
    Jobs,
    /// Stripes of the drive's slot with a fragment missing or astray, fewest fragments first.
    DegradedStripes {
        /// 1 to `ROWS_MAX`.
        limit: u16,
    },
    /// Stripes of the drive's slot without a living byte.
    DyingStripes {
        /// 1 to `ROWS_MAX`.
        limit: u16,
    },
    /// `Facts` for a content that is about to come in, or the refusal that its commit would surely get: by its target, its base
    /// version, or a declared length that passes the whole quota. Asked before the first byte is read; the commit decides.
    Upload {
        /// To what.
        target: UploadTarget,
        /// The version that the content follows. A stale one is refused only when the length shows that the content differs.
        base_version: Option<u64>,
        /// Plain bytes, when the client said so.
        declared_bytes: Option<u64>,
        /// The client's request id; when its first answer is kept, nothing is refused, since the commit repeats that answer.
        request: Option<RequestKey>,
    },
    /// What waits to be worked off now, whatever its age; for workers.
    Waiting,
    /// A resumable session of this principal, also after its commit.
    Resumable(UploadId),
    /// A version's list of blocks, from the row `first` on; at most `ANNOUNCED_ROWS_MAX`.
    ReadRows {
        /// The file.
        entry: EntryId,
        /// Which version; `None` for the current one.
        version: Option<u64>,
        /// Counts from 0.
        first: u64,
    },
    /// The list of blocks that was announced for a session of this principal, from the row `first` on.
    AnnouncedRows {
        /// Which session.
        upload: UploadId,
        /// Counts from 0.
        first: u64,
    },
    /// What a gateway needs to take a block of a session in, or why not. Asked for who sends it, or by the gateway for a ticket.
    Staging {
        /// Which session.
        upload: UploadId,
        /// The block.
        row: BlockRow,
    },
    /// Which of these pages the drive has; at most `FIND_BLOCKS_MAX`.
    FindPages(Vec<Digest>),
    /// Versions of a file, newest first, below `before`; one more than `limit` says that more follow.
    ListVersions {
        /// The file.
        entry: EntryId,
        /// Only lower numbers than this.
        before: Option<u64>,
        /// 1 to 1000.
        limit: u16,
    },
    /// How long the drive keeps old versions.
    Retention,
    /// A page of a scope's feed, each change with its entry as it is now. `reset` when the feed does not go on from there.
    Feed {
        /// The scope's entry.
        scope: EntryId,
        /// The drive's incarnation and the greatest scope sequence already known; `None` asks for the present end alone.
        after: Option<(Incarnation, u64)>,
        /// 1 to `ROWS_MAX`.
        limit: u16,
    },
    /// A rewind of this principal with a part of its list.
    Rewind {
        /// Its job.
        job: u64,
        /// The index of the first item wanted.
        first: u64,
        /// 1 to `ROWS_MAX`.
        limit: u16,
    },
    /// Entries of a folder whose names are equal but for case.
    Twins {
        /// The folder.
        folder: EntryId,
        /// Where the page before ended: a folded name and an entry's number.
        after: Option<(String, u64)>,
        /// Names looked at for this page, 1 to `ROWS_MAX`.
        limit: u16,
    },
    /// A copy of this principal that is made by the job of this number.
    Copy(u64),
    /// How long a resumable session of this principal, or the answer to its commit, is still there when nothing uses it.
    SessionLife(UploadId),
}

/// A page of a folder.
#[derive(Clone, Debug, PartialEq, Eq, Serialize, Deserialize)]
pub struct Listing {
    /// The folder.
    pub folder: EntryView,
    /// Its children in the order of name keys; their paths are the folder's and their name.
    pub entries: Vec<Entry>,
    /// Where the next page begins; `None` when this is the last.
    pub next_page_token: Option<String>,
}

/// Entries of one folder whose folded names are equal.
#[derive(Clone, Debug, PartialEq, Eq, Serialize, Deserialize)]
pub struct Twins {
    /// The name in its case-folded form.
    pub folded: String,
    /// Two or more; fewer only where a page had to end between them.
    pub entries: Vec<Entry>,
}

/// A page of a folder's twins.
#[derive(Clone, Debug, PartialEq, Eq, Serialize, Deserialize)]
pub struct TwinListing {
    /// The folder.
    pub folder: EntryView,
    /// In the order of folded names; may be empty although more follow.
    pub twins: Vec<Twins>,
    /// Where to go on; `None` when this is the last.
    pub next: Option<(String, u64)>,
}

/// A page of the trash.
#[derive(Clone, Debug, PartialEq, Eq, Serialize, Deserialize)]
pub struct TrashListing {
    /// Oldest first, each with the aged milliseconds at which it was trashed.
    pub entries: Vec<(u64, EntryView)>,
    /// Whether more follow.
    pub has_more: bool,
}

/// What a drive holds.
#[derive(Clone, Copy, Debug, Default, PartialEq, Eq, Serialize, Deserialize)]
pub struct Usage {
    /// Bytes that count against the quota.
    pub charged_bytes: u64,
    /// Bytes of blocks that lost their last reference and wait their grace.
    pub released_bytes: u64,
    /// The quota.
    pub quota_bytes: u64,
    /// Files, those in the trash or being purged included.
    pub files: u64,
    /// Folders, those in the trash or being purged included; without the root.
    pub folders: u64,
}

/// What a gateway needs of a drive to cut, seal and open.
#[derive(Clone, Debug, PartialEq, Eq, Serialize, Deserialize)]
pub struct DriveFacts {
    /// Which.
    pub drive: DriveId,
    /// Whose.
    pub owner: UserId,
    /// Its key, sealed under the KEK.
    pub wrapped_key: Bytes,
    /// The name of that KEK.
    pub kek_id: String,
    /// Its durability scheme.
    pub profile: ProfileId,
    /// How it is cut.
    pub cut: CutParameters,
    /// Its incarnation.
    pub incarnation: Incarnation,
}

/// Blocks that a drive has.
#[derive(Clone, Debug, PartialEq, Eq, Serialize, Deserialize)]
pub struct FoundBlocks {
    /// One for each block that is there, in the order asked; absent, dead and damaged ones are left out.
    pub found: Vec<FoundBlock>,
    /// The stripes of those blocks, ascending by (profile, id), for the receipt.
    pub stripes: Vec<StripeFacts>,
}

/// A block that a drive has.
#[derive(Clone, Copy, Debug, PartialEq, Eq, Serialize, Deserialize)]
pub struct FoundBlock {
    /// Digest and plain length.
    pub row: BlockRow,
    /// Its stripe; `None` when it lies inline.
    pub stripe: Option<StripeId>,
}

/// A part of a version's list of blocks.
#[derive(Clone, Debug, PartialEq, Eq, Serialize, Deserialize)]
pub struct VersionRows {
    /// The version that was read.
    pub version: Version,
    /// How many rows it has in all.
    pub count: u64,
    /// In order, at most `ANNOUNCED_ROWS_MAX`.
    pub rows: Vec<BlockRow>,
}

/// What a gateway needs to take a block of a session in.
#[derive(Clone, Debug, PartialEq, Eq, Serialize, Deserialize)]
pub struct Staging {
    /// To cut, seal and open.
    pub drive: DriveFacts,
    /// Who opened the session.
    pub principal: Principal,
    /// Whether the drive has the block already, whole.
    pub is_known: bool,
}

/// A stripe as receipts and repair need it.
#[derive(Clone, Debug, PartialEq, Eq, Serialize, Deserialize)]
pub struct StripeFacts {
    /// Its name.
    pub id: StripeId,
    /// Its scheme.
    pub profile: ProfileId,
    /// The drive whose blocks it holds.
    pub drive: DriveId,
    /// Lengths and hash.
    pub form: StripeForm,
    /// The row version under which its fragments were counted.
    pub row_version: RowVersion,
    /// Fragments that are missing or lie outside the row.
    pub astray: Vec<Astray>,
    /// Whether fewer than k fragments are left.
    pub is_damaged: bool,
    /// Sealed bytes of blocks (or a tail) that somebody may still want.
    pub living_bytes: u32,
}

/// How many stripes there are and how they stand.
#[derive(Clone, Copy, Debug, Default, PartialEq, Eq, Serialize, Deserialize)]
pub struct StripeCounts {
    /// Stripes that are known.
    pub total: u64,
    /// Of these, with a fragment that is missing or lies outside its row.
    pub degraded: u64,
    /// Fragments that are missing or lie outside their row.
    pub astray: u64,
    /// Of these, fragments that are missing.
    pub missing: u64,
    /// Stripes with fewer than k fragments left.
    pub damaged: u64,
    /// Stripes without a living byte, which wait to be collected.
    pub dying: u64,
}

impl StripeCounts {
    /// Both together; a sum beyond 64 bits stays at the greatest number.
    #[must_use]
    pub fn plus(self, other: &Self) -> Self {
        Self {
            total: self.total.saturating_add(other.total),
            degraded: self.degraded.saturating_add(other.degraded),
            astray: self.astray.saturating_add(other.astray),
            missing: self.missing.saturating_add(other.missing),
            damaged: self.damaged.saturating_add(other.damaged),
            dying: self.dying.saturating_add(other.dying),
        }
    }

    /// What is left without `other`; `None` when a number would fall below zero.
    #[must_use]
    pub fn minus(self, other: &Self) -> Option<Self> {
        Some(Self {
            total: self.total.checked_sub(other.total)?,
            degraded: self.degraded.checked_sub(other.degraded)?,
            astray: self.astray.checked_sub(other.astray)?,
            missing: self.missing.checked_sub(other.missing)?,
            damaged: self.damaged.checked_sub(other.damaged)?,
            dying: self.dying.checked_sub(other.dying)?,
        })
    }
}

/// Most stripes of one `Query::Collection`'s answer, and most of them for one disk.
pub const COLLECTION_STRIPES_MAX: usize = 64;
/// Most disks of one `Query::Collection`'s answer.
pub const COLLECTION_DISKS_MAX: usize = 16;

/// What a gateway finds to be removed in a group.
#[derive(Clone, Debug, PartialEq, Eq, Serialize, Deserialize)]
pub struct Collection {
    /// Who does that at present.
    pub lease: Option<Lease>,
    /// Stripes without a living byte whose birth epoch is closed, those that have waited longest first.
    pub removable: Vec<StripeFacts>,
    /// Removed stripes of which disks could not be told yet, by disk, behind the disk asked for.
    pub untold: Vec<(DiskId, Vec<(ProfileId, StripeId)>)>,
}

/// Sealed bytes of one `Query::Packing`'s answer, passed by at most one block: an answer fits the head of a frame.
pub const PACKING_BYTES_MAX: usize = 1 << 20;

/// Which small contents are asked for.
#[derive(Clone, Copy, Debug, PartialEq, Eq, Serialize, Deserialize)]
pub struct PackingAsk {
    /// Of which drive.
    pub drive: DriveId,
    /// The `next` of the answer before.
    pub after: Option<(u64, BlockId)>,
}

/// Small contents that have lain in the metadata for long enough to be packed.
#[derive(Clone, Debug, PartialEq, Eq, Serialize, Deserialize)]
pub struct Packing {
    /// Who works on the group at present.
    pub lease: Option<Lease>,
    /// The drive asked for, or that whose contents have waited longest; `None` when nothing is due.
    pub drive: Option<DriveFacts>,
    /// What is due of it, those that have waited longest first; none when no drive was asked for.
    pub contents: Vec<InlineBlock>,
    /// The (aged milliseconds, block) behind which more is due; `None` when nothing is.
    pub next: Option<(u64, BlockId)>,
}

/// A block at its place in a file.
#[derive(Clone, Debug, PartialEq, Eq, Serialize, Deserialize)]
pub struct ManifestBlock {
    /// First byte in the file.
    pub offset: u64,
    /// The block.
    pub block: PlacedBlock,
}

/// A version's blocks with their places.
#[derive(Clone, Debug, PartialEq, Eq, Serialize, Deserialize)]
pub struct Manifest {
    /// The file.
    pub view: EntryView,
    /// The version that was read.
    pub version: Version,
    /// To open the blocks.
    pub drive: DriveFacts,
    /// Those that overlap the range, in order; at most `MANIFEST_BLOCKS_MAX`.
    pub blocks: Vec<ManifestBlock>,
    /// Their stripes, ascending by (profile, id).
    pub stripes: Vec<PlacedStripe>,
    /// The byte at which to ask again; `None` when the range is covered.
    pub next_offset: Option<u64>,
}

/// What happened to an entry.
#[derive(Clone, Copy, Debug, PartialEq, Eq, Serialize, Deserialize)]
pub enum ChangeType {
    /// It came into being, or into the scope.
    Created,
    /// It has another content.
    Updated,
    /// It has another name or folder.
    Moved,
    /// It went into the trash.
    Trashed,
    /// It came out of the trash.
    Restored,
    /// It is gone for good, or out of the scope.
    Deleted,
}

/// A change as a follower is told it.
#[derive(Clone, Debug, PartialEq, Eq, Serialize, Deserialize)]
pub struct Change {
    /// The scope's sequence in answer to `ScopeChanges`, the drive's in answer to `Changes`; both count from 1 without holes.
    pub sequence: u64,
    /// What happened, as seen from the scope.
    pub change: ChangeType,
    /// To which entry.
    pub entry: EntryId,
    /// What it is.
    pub entry_type: EntryType,
    /// Its version then.
    pub version: u64,
    /// Who did it.
    pub actor: UserId,
    /// With which device.
    pub device: Option<DeviceId>,
    /// When, for showing.
    pub time: WallTime,
}

/// A run of changes.
#[derive(Clone, Debug, PartialEq, Eq, Serialize, Deserialize)]
pub struct Changes {
    /// Ascending by sequence.
    pub changes: Vec<Change>,
    /// Where the scope stands at present.
    pub position: FeedPosition,
    /// Whether more follow.
    pub has_more: bool,
}

/// A change with its entry.
#[derive(Clone, Debug, PartialEq, Eq, Serialize, Deserialize)]
pub struct FeedChange {
    /// By the scope's sequence.
    pub change: Change,
    /// The entry as it was when the feed was read; `None` when it is gone.
    pub view: Option<EntryView>,
}

/// A page of a scope's feed.
#[derive(Clone, Debug, PartialEq, Eq, Serialize, Deserialize)]
pub struct FeedPage {
    /// Ascending by sequence, without holes.
    pub changes: Vec<FeedChange>,
    /// Where the scope stands at present.
    pub position: FeedPosition,
    /// Changes up to this sequence were dropped for their age.
    pub dropped: u64,
    /// Whether more follow.
    pub has_more: bool,
}

/// What waits in a drive to be worked off.
#[derive(Clone, Debug, PartialEq, Eq, Serialize, Deserialize)]
pub struct Waiting {
    /// Jobs; at most `ROWS_MAX`.
    pub jobs: Vec<JobFacts>,
    /// Whether pages that nobody counts still hold their blocks' references.
    pub has_released_pages: bool,
}

/// A job of a drive.
#[derive(Clone, Copy, Debug, PartialEq, Eq, Serialize, Deserialize)]
pub struct JobFacts {
    /// Its number.
    pub job: u64,
    /// Sub-operations so far.
    pub operations: u64,
}
