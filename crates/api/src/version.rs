//! Contents of a file over time.

use crate::timestamp::Timestamp;
use serde::{Deserialize, Serialize};
use utoipa::{IntoParams, ToSchema};

/// Which content to download.
#[derive(Clone, Debug, Default, PartialEq, Eq, Serialize, Deserialize, IntoParams, ToSchema)]
#[serde(deny_unknown_fields)]
#[into_params(parameter_in = Query)]
pub struct ContentQuery {
    /// A version; the current one when absent.
    #[serde(default, skip_serializing_if = "Option::is_none")]
    pub version: Option<u64>,
}

/// One content of a file.
#[derive(Clone, Debug, PartialEq, Eq, Serialize, Deserialize, ToSchema)]
pub struct FileVersion {
    /// Counts from 1.
    pub version: u64,
    /// Bytes of plaintext.
    pub size: u64,
    /// Digest of the content in lower-case hex.
    pub digest: String,
    /// When it was committed.
    pub created_at: Timestamp,
    /// The user who committed it.
    pub created_by: String,
    /// The device it was committed with, when there was one.
    #[serde(default, skip_serializing_if = "Option::is_none")]
    pub device: Option<String>,
}
