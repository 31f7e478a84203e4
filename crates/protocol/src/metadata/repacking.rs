//! Repacking: what a gateway finds to be moved out of stripes that are less than half alive, and the command that switches it.
//!
//! Invariant: an answer has the content of one stripe at most, and so has a command.
//! Not here: the lease (`group`), stripes without a living byte (`query::Collection`).

use crate::metadata::group::Lease;
use crate::metadata::query::StripeFacts;
use crate::metadata::upload::NewStripe;
use model::entry::BlockRow;
use model::id::{BlockId, DriveId};
use model::profile::ProfileId;
use model::stripe::StripeId;
use serde::{Deserialize, Serialize};

/// Most blocks that one `UploadCommand::RepackBlocks` switches, and most of one `Query::Repackable`'s answer.
pub const REPACKED_BLOCKS_MAX: usize = 500;

/// What a gateway finds to be repacked in a group: at most the content of one stripe.
#[derive(Clone, Debug, PartialEq, Eq, Serialize, Deserialize)]
pub struct Repackable {
    /// Who may do that at present.
    pub lease: Option<Lease>,
    /// Stripes of one drive, those that have waited longest first.
    pub stripes: Vec<SparseStripe>,
}

/// A stripe less than half alive, whose birth epoch is closed.
#[derive(Clone, Debug, PartialEq, Eq, Serialize, Deserialize)]
pub struct SparseStripe {
    /// The stripe.
    pub facts: StripeFacts,
    /// Its living blocks, ascending by offset; of the only stripe of an answer perhaps not all.
    pub blocks: Vec<LivingBlock>,
}

/// A block that lives in a stripe.
#[derive(Clone, Copy, Debug, PartialEq, Eq, Serialize, Deserialize)]
pub struct LivingBlock {
    /// Its number in the drive.
    pub id: BlockId,
    /// Digest and plain length.
    pub row: BlockRow,
    /// First byte in the stripe.
    pub offset: u32,
    /// Sealed bytes.
    pub sealed_bytes: u32,
}

/// Blocks that were read from stripes less than half alive and written into a new one.
#[derive(Clone, Debug, PartialEq, Eq, Serialize, Deserialize)]
pub struct Repacking {
    /// Whose blocks.
    pub drive: DriveId,
    /// The sender's lease of the group; another is `lease_lost`.
    pub lease: u64,
    /// The new stripe with 1 to `REPACKED_BLOCKS_MAX` blocks.
    pub stripe: NewStripe,
    /// Where each of its blocks was read, in the same order; only stripes whose birth epoch is closed.
    pub from: Vec<OldPlace>,
}

/// Where a block lay when it was read to be repacked.
#[derive(Clone, Copy, Debug, PartialEq, Eq, Serialize, Deserialize)]
pub struct OldPlace {
    /// The block.
    pub block: BlockId,
    /// Its stripe's scheme.
    pub profile: ProfileId,
    /// Its stripe.
    pub stripe: StripeId,
    /// First byte in that stripe.
    pub offset: u32,
}

/// What a repacking has switched.
#[derive(Clone, Copy, Debug, Default, PartialEq, Eq, Serialize, Deserialize)]
pub struct Repacked {
    /// Blocks that lie in the new stripe now.
    pub blocks: u32,
    /// Their sealed bytes.
    pub bytes: u32,
}
