//! A drive: what its contents are named and cut by, and how long it keeps old versions.

use crate::me::Cut;
use serde::{Deserialize, Serialize};
use utoipa::ToSchema;

/// A drive.
#[derive(Clone, Debug, PartialEq, Eq, Serialize, Deserialize, ToSchema)]
pub struct Drive {
    /// Its id.
    pub id: String,
    /// How contents are cut.
    pub cut: Cut,
    /// The key of its digests, 64 letters of lower-case hex.
    pub digest_key: String,
    /// Versions of a file that are kept, the current one counted.
    pub versions_max: u32,
    /// Seconds for which a version is kept after another took its place; counted by the drive's age, which may lag the clock.
    pub version_age_s: u64,
}

/// Changes a drive. What is absent stays as it is.
#[derive(Clone, Debug, Default, PartialEq, Eq, Serialize, Deserialize, ToSchema)]
#[serde(deny_unknown_fields)]
pub struct ChangeDrive {
    /// Versions of a file that are kept, the current one counted: 1 to 10,000.
    #[serde(default, skip_serializing_if = "Option::is_none")]
    pub versions_max: Option<u32>,
    /// Seconds for which a version is kept after another took its place: 1 to 315,360,000, which are ten years.
    #[serde(default, skip_serializing_if = "Option::is_none")]
    pub version_age_s: Option<u64>,
}
