//! The caller's own account: drive, usage, and what a client needs to cut and name blocks as the server does.

use crate::timestamp::Timestamp;
use serde::{Deserialize, Serialize};
use utoipa::ToSchema;

/// The caller.
#[derive(Clone, Debug, PartialEq, Eq, Serialize, Deserialize, ToSchema)]
pub struct Me {
    /// The account.
    pub id: String,
    /// Its folded name.
    pub username: String,
    /// Its home drive.
    pub drive: String,
    /// What the home drive holds.
    pub usage: Usage,
    /// How contents are cut.
    pub cut: Cut,
    /// The key of digests in the home drive, 64 letters of lower-case hex.
    pub digest_key: String,
}

/// What a drive holds.
#[derive(Clone, Copy, Debug, PartialEq, Eq, Serialize, Deserialize, ToSchema)]
pub struct Usage {
    /// Bytes that count against the quota.
    pub bytes: u64,
    /// The quota.
    pub quota_bytes: u64,
    /// Bytes held only by the trash, as a worker last counted them.
    pub trash_bytes: u64,
    /// Bytes held only by older versions, as a worker last counted them.
    pub version_bytes: u64,
    /// When the worker counted; absent before its first run.
    #[serde(default, skip_serializing_if = "Option::is_none")]
    pub as_of: Option<Timestamp>,
}

/// Parameters of the cutter and of pages.
#[derive(Clone, Debug, PartialEq, Eq, Serialize, Deserialize, ToSchema)]
pub struct Cut {
    /// `fastcdc-2020`.
    pub algorithm: String,
    /// The normalization level.
    pub level: u8,
    /// Shortest block but a file's last, in bytes.
    pub min: u64,
    /// The length aimed for, in bytes.
    pub avg: u64,
    /// Longest block, in bytes.
    pub max: u64,
    /// A page may end once it has this many blocks.
    pub page_min: u32,
    /// A page ends at this many blocks.
    pub page_max: u32,
    /// A page ends after a block whose digest has this many low bits zero.
    pub page_bits: u32,
}

impl Cut {
    /// The one fixed table of this release, from the limits of `model`.
    #[must_use]
    pub fn fixed() -> Self {
        Self {
            algorithm: "fastcdc-2020".to_owned(),
            level: 1,
            min: model::limits::BLOCK_BYTES_MIN as u64,
            avg: model::limits::BLOCK_BYTES_AVG as u64,
            max: model::limits::BLOCK_BYTES_MAX as u64,
            page_min: model::limits::PAGE_BLOCKS_MIN as u32,
            page_max: model::limits::PAGE_BLOCKS_MAX as u32,
            page_bits: model::limits::PAGE_END_BITS,
        }
    }
}
