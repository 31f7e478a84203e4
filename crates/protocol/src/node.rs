//! What is said to a storage node: store, confirm, read and remove fragments, take rows, tell the state of its disks.
//!
//! Place in the picture: gateways write and read by these, nodes rebuild by `ReadFragment`, metadata pushes rows and tombstones.
//! Invariants: payloads travel beside the message; a positive answer to a store or a confirmation means durable under the row
//! version of the request; `StaleRow` is an answer, not a failure, so it opens no breaker and causes no hand-off.
//! Not here: the form of a fragment on a disk (`codec::fragment`), how a node keeps it (package `node`).

use model::digest::DIGEST_BYTES;
use model::id::{DiskId, NodeId, RowVersion, Slot};
use model::inventory::{CellName, IdSum};
use model::layout::Row;
use model::profile::ProfileId;
use model::stripe::{FragmentName, StripeForm, StripeId};
use model::time::BirthEpoch;
use serde::{Deserialize, Serialize};

/// The codes of a node's failures, each with the kind it comes with.
pub mod code {
    /// `Conflict`: the name is taken by bytes with another hash; the gateway draws a new `StripeId`.
    pub const OTHER_CONTENT: &str = "other_content";
    /// `Exhausted`: the disk has no room for this fragment; the gateway hands off.
    pub const DISK_FULL: &str = "disk_full";
    /// `Unavailable`: a sync of the disk failed once, so it takes nothing any more; the gateway hands off.
    pub const DISK_READ_ONLY: &str = "disk_read_only";
    /// `Unavailable`: the disk belongs to this node and could not be opened.
    pub const DISK_MISSING: &str = "disk_missing";
    /// `NotFound`: the disk does not belong to this node.
    pub const UNKNOWN_DISK: &str = "unknown_disk";
    /// `NotFound`: the disk does not hold this fragment.
    pub const NO_FRAGMENT: &str = "no_fragment";
    /// `Corrupt`: the stored fragment fails its check; it is on the disk's damaged list, read it elsewhere.
    pub const DAMAGED: &str = "damaged";
    /// `Corrupt`: the payload does not have the hash that the request names; nothing was stored, send it again.
    pub const PAYLOAD_MISMATCH: &str = "payload_mismatch";
    /// `Invalid`: the fragment's name, form and payload do not belong together.
    pub const MALFORMED_FRAGMENT: &str = "malformed_fragment";
    /// `Invalid`: a range lies outside the fragment or the cells that are asked for, or there are too many.
    pub const BAD_RANGE: &str = "bad_range";
    /// `Invalid`: rows that fit neither the known table nor make a whole one.
    pub const BAD_ROWS: &str = "bad_rows";
    /// `Unavailable`: the node knows no row as new as the request names and cannot get one at present.
    pub const ROW_UNKNOWN: &str = "row_unknown";
    /// `Unavailable`: the disk's input or output failed; perhaps another time.
    pub const DISK_FAULT: &str = "disk_fault";
    /// `Busy`: as many stores as the disk queues at once are waiting.
    pub const DISK_BUSY: &str = "disk_busy";
}

/// The most ranges of one `ReadFragment`: more than blocks of a stripe that one fragment can touch in one reading.
pub const READ_RANGES_MAX: usize = 1024;
/// The most rows of one `PushRows`, which keeps it under a frame's head.
pub const PUSH_ROWS_MAX: usize = 4096;
/// The most damaged fragments that one `NodeStatusAnswer` lists for a disk; their number is told in full.
pub const DAMAGED_LISTED_MAX: usize = 100;

/// The most names of one `FragmentNames`: as many stripes as one `Query::Orphans` may name.
pub const FRAGMENTS_LISTED_MAX: usize = 1000;

/// The most cells of one `FragmentSums`, which keeps it under a frame's head.
pub const CELLS_SUMMED_MAX: usize = 16_384;

/// BLAKE3 of a fragment's payload.
#[derive(Clone, Copy, Debug, PartialEq, Eq, PartialOrd, Ord, Hash, Serialize, Deserialize)]
pub struct PayloadHash(pub [u8; DIGEST_BYTES]);

/// Store one fragment durably; the payload is exactly `form.fragment_bytes()` bytes. Answered by `StoreAnswer`.
///
/// The same name with the same form and payload hash is done again without a second record; with others it is refused
/// (`other_content`).
#[derive(Clone, Debug, PartialEq, Eq, Serialize, Deserialize)]
pub struct StoreFragment {
    /// Under which name.
    pub name: FragmentName,
    /// What it says of its stripe.
    pub form: StripeForm,
    /// BLAKE3 of the payload; checked before anything is stored.
    pub payload_hash: PayloadHash,
    /// On which disk of the node: the row's, or a hand-off.
    pub disk: DiskId,
    /// The row version under which the caller counts.
    pub row_version: RowVersion,
}

/// A fragment is durable.
#[derive(Clone, Copy, Debug, PartialEq, Eq, Serialize, Deserialize)]
pub struct Stored {
    /// On this disk.
    pub disk: DiskId,
    /// Under this row version, the newest that the node knows.
    pub row_version: RowVersion,
}

/// A row as the node knows it, newer than the one the caller counted under.
#[derive(Clone, Debug, PartialEq, Eq, Serialize, Deserialize)]
pub struct KnownRow {
    /// Whose table.
    pub profile: ProfileId,
    /// The table has `2^pg_bits` rows.
    pub pg_bits: u8,
    /// Which of them.
    pub pg: u32,
    /// The row, with its version.
    pub row: Row,
}

/// The answer to `StoreFragment`.
#[derive(Clone, Debug, PartialEq, Eq, Serialize, Deserialize)]
pub enum StoreAnswer {
    /// Durable, counted under the request's row version.
    Stored(Stored),
    /// Nothing was stored: the caller's row is old; count again under this one.
    StaleRow(KnownRow),
}

/// Does the disk hold this fragment durably. Answered by `ConfirmAnswer`; carries no bytes either way.
#[derive(Clone, Debug, PartialEq, Eq, Serialize, Deserialize)]
pub struct ConfirmFragment {
    /// Which.
    pub name: FragmentName,
    /// What it must say of its stripe (its hash with it); a fragment of another form is refused with `other_content`.
    pub form: StripeForm,
    /// On which disk.
    pub disk: DiskId,
    /// The row version under which the caller counts.
    pub row_version: RowVersion,
}

/// The answer to `ConfirmFragment`.
#[derive(Clone, Debug, PartialEq, Eq, Serialize, Deserialize)]
pub enum ConfirmAnswer {
    /// It does, durably; counted under the request's row version.
    Held(Stored),
    /// It does not, or what it holds is damaged; send the bytes.
    Absent,
    /// The caller's row is old; count again under this one.
    StaleRow(KnownRow),
}

/// Bytes of a fragment's payload, from `offset` on.
#[derive(Clone, Copy, Debug, PartialEq, Eq, PartialOrd, Ord, Serialize, Deserialize)]
pub struct ByteRange {
    /// First byte, from 0.
    pub offset: u32,
    /// How many; at least 1.
    pub len: u32,
}

impl ByteRange {
    /// The whole payload of a fragment of `form`.
    #[must_use]
    pub fn whole(form: &StripeForm) -> Self {
        Self {
            offset: 0,
            len: u32::try_from(form.fragment_bytes()).expect("a fragment is no longer than a stripe's u32"),
        }
    }
}

/// Read ranges of a fragment's payload. Answered by `FragmentRead` with the ranges' bytes laid end to end in the order asked.
///
/// Every byte of the answer was checked against its 64 KiB checksum.
#[derive(Clone, Debug, PartialEq, Eq, Serialize, Deserialize)]
pub struct ReadFragment {
    /// Which.
    pub name: FragmentName,
    /// On which disk.
    pub disk: DiskId,
    /// Which bytes; none: only the facts.
    pub ranges: Vec<ByteRange>,
}

/// What a node says of a fragment that it read.
#[derive(Clone, Copy, Debug, PartialEq, Eq, Serialize, Deserialize)]
pub struct FragmentRead {
    /// What it carries about its stripe: decode only fragments of equal form.
    pub form: StripeForm,
    /// BLAKE3 of its whole payload.
    pub payload_hash: PayloadHash,
}

/// Remove all fragments of a stripe from all disks of the node by tombstones. Answered by `StripeRemoved`.
///
/// Sent only after the command that made the stripe dead. Idempotent.
#[derive(Clone, Copy, Debug, PartialEq, Eq, Serialize, Deserialize)]
pub struct RemoveStripe {
    /// Its profile.
    pub profile: ProfileId,
    /// Which.
    pub stripe: StripeId,
}

/// The answer to `RemoveStripe`: the tombstones are durable.
#[derive(Clone, Debug, PartialEq, Eq, Serialize, Deserialize)]
pub struct StripeRemoved {
    /// Fragments that were there.
    pub fragments: u32,
    /// Disks of the node that could not be asked or written; send it again when they are back.
    pub disks_failed: Vec<DiskId>,
}

/// Tell names of fragments that a disk holds, in their order. Answered by `FragmentNames`.
#[derive(Clone, Copy, Debug, PartialEq, Eq, Serialize, Deserialize)]
pub struct ListFragments {
    /// On which disk.
    pub disk: DiskId,
    /// Only names behind this one.
    pub after: Option<FragmentName>,
}

/// The answer to `ListFragments`.
#[derive(Clone, Debug, PartialEq, Eq, Serialize, Deserialize)]
pub struct FragmentNames {
    /// Ascending, at most `FRAGMENTS_LISTED_MAX`; none: there are no more.
    pub names: Vec<FragmentName>,
}

/// Tell sums of the fragments on a disk, by cell. Answered by `FragmentSums`.
#[derive(Clone, Debug, PartialEq, Eq, Serialize, Deserialize)]
pub struct SumFragments {
    /// On which disk.
    pub disk: DiskId,
    /// Of stripes of these slots, each born in this epoch or before it; a slot that is named twice counts once.
    pub slots: Vec<(Slot, BirthEpoch)>,
    /// Only cells behind this one.
    pub after: Option<CellName>,
}

/// What a disk holds of a cell.
#[derive(Clone, Copy, Debug, PartialEq, Eq, Serialize, Deserialize)]
pub struct CellSum {
    /// Which cell.
    pub cell: CellName,
    /// Its fragments; `None` when they were not counted apart by so old an epoch, so that only their names tell.
    pub sum: Option<IdSum>,
}

/// The answer to `SumFragments`.
#[derive(Clone, Debug, PartialEq, Eq, Serialize, Deserialize)]
pub struct FragmentSums {
    /// Ascending, at most `CELLS_SUMMED_MAX`; a cell without a fragment of those epochs is left out, so perhaps none.
    pub sums: Vec<CellSum>,
    /// The cell behind which there may be more; `None`: there is none.
    pub next: Option<CellName>,
}

/// Tell names of the fragments in cells of a disk that differ in slot and index only. Answered by `CellFragments`.
#[derive(Clone, Debug, PartialEq, Eq, Serialize, Deserialize)]
pub struct ListCells {
    /// On which disk.
    pub disk: DiskId,
    /// Of which profile.
    pub profile: ProfileId,
    /// The first bits of the stripes' ids, as in `CellName`.
    pub leading: u8,
    /// As in `SumFragments`.
    pub slots: Vec<(Slot, BirthEpoch)>,
    /// Only names behind this one, which is of the same profile and leading bits.
    pub after: Option<FragmentName>,
}

/// The answer to `ListCells`.
#[derive(Clone, Debug, PartialEq, Eq, Serialize, Deserialize)]
pub struct CellFragments {
    /// Ascending, at most `FRAGMENTS_LISTED_MAX`; perhaps none where many others lie between.
    pub names: Vec<FragmentName>,
    /// The name behind which there may be more; `None`: there is none.
    pub next: Option<FragmentName>,
}

/// Some rows of one table.
#[derive(Clone, Debug, PartialEq, Eq, Serialize, Deserialize)]
pub struct RowsUpdate {
    /// Whose table.
    pub profile: ProfileId,
    /// The table has `2^pg_bits` rows.
    pub pg_bits: u8,
    /// Rows by placement group, in any order; a table of another `pg_bits` than the known one must come whole.
    pub rows: Vec<(u32, Row)>,
}

/// Take these rows where they are newer. Answered by `RowsTaken`; durable on every working disk of the node by then.
#[derive(Clone, Debug, PartialEq, Eq, Serialize, Deserialize)]
pub struct PushRows {
    /// Differences or whole tables, at most `PUSH_ROWS_MAX` rows together unless a table is new.
    pub updates: Vec<RowsUpdate>,
}

/// The answer to `PushRows`: from now on the node knows at least the versions pushed.
#[derive(Clone, Debug, PartialEq, Eq, Serialize, Deserialize)]
pub struct RowsTaken {
    /// Rows that were newer than the known ones.
    pub rows_taken: u32,
    /// Disks that acknowledge them.
    pub disks: Vec<DiskId>,
}

/// Tell the state of the node. Answered by `NodeStatusAnswer`.
#[derive(Clone, Copy, Debug, Default, PartialEq, Eq, Serialize, Deserialize)]
pub struct NodeStatus {}

/// The answer to `NodeStatus`.
#[derive(Clone, Debug, PartialEq, Eq, Serialize, Deserialize)]
pub struct NodeStatusAnswer {
    /// Who answers.
    pub node: NodeId,
    /// Every disk of its configuration, in the order of ids.
    pub disks: Vec<DiskStatus>,
    /// Tables of rows that it knows: profile, `pg_bits`, sum of the row versions.
    pub tables: Vec<(ProfileId, u8, u64)>,
}

/// What a disk can do at present.
#[derive(Clone, Debug, PartialEq, Eq, Serialize, Deserialize)]
pub enum DiskState {
    /// Stores and gives.
    Ready,
    /// Gives and removes; stores when compaction has made room.
    Full,
    /// Gives only; a sync failed. Holds what was said.
    ReadOnly(String),
    /// Could not be opened, or is not the disk it should be. Holds what was said.
    Missing(String),
}

/// One disk.
#[derive(Clone, Debug, PartialEq, Eq, Serialize, Deserialize)]
pub struct DiskStatus {
    /// Which.
    pub disk: DiskId,
    /// What it can do.
    pub state: DiskState,
    /// Its capacity as configured or found; 0 when missing.
    pub total_bytes: u64,
    /// What may still be written; 0 when missing.
    pub free_bytes: u64,
    /// Bytes of all segments, dead ones too.
    pub used_bytes: u64,
    /// Bytes of living records.
    pub living_bytes: u64,
    /// Living fragments.
    pub fragments: u64,
    /// Damaged fragments known.
    pub damaged_total: u64,
    /// The first `DAMAGED_LISTED_MAX` of them.
    pub damaged: Vec<DamagedFragment>,
    /// Since the process started.
    pub counters: DiskCounters,
}

/// How a fragment is damaged.
#[derive(Clone, Copy, Debug, PartialEq, Eq, PartialOrd, Ord, Serialize, Deserialize)]
pub enum Damage {
    /// Its record's header or its own does not check.
    Header,
    /// A 64 KiB piece of the payload does not check.
    Payload,
    /// The disk gives an error for its bytes.
    Unreadable,
}

/// An entry of a disk's persistent list; it leaves the list when the fragment is stored anew or removed.
#[derive(Clone, Copy, Debug, PartialEq, Eq, Serialize, Deserialize)]
pub struct DamagedFragment {
    /// Which.
    pub name: FragmentName,
    /// What was found first.
    pub damage: Damage,
}

/// Counts since the process started.
#[derive(Clone, Copy, Debug, Default, PartialEq, Eq, Serialize, Deserialize)]
pub struct DiskCounters {
    /// Fragments stored.
    pub stores: u64,
    /// Stores that found the same fragment there.
    pub repeats: u64,
    /// Reads answered.
    pub reads: u64,
    /// Reads, confirmations and scrubs that found damage.
    pub corrupt: u64,
    /// Fragments removed.
    pub removes: u64,
    /// Segments compacted.
    pub compactions: u64,
    /// Fragments that a scrub checked.
    pub scrubbed: u64,
    /// Fragments rebuilt from others.
    pub repairs: u64,
}
