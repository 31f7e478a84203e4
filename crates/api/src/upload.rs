//! Putting a whole file in one request.

use crate::entry::Entry;
use crate::receipt::Receipt;
use serde::{Deserialize, Serialize};
use utoipa::{IntoParams, ToSchema};

/// How the body of an upload is made up.
#[derive(Clone, Copy, Debug, PartialEq, Eq, Serialize, Deserialize, ToSchema)]
#[serde(rename_all = "snake_case")]
pub enum UploadType {
    /// The body is the bytes.
    Media,
    /// multipart/related: a JSON part, then the bytes.
    Multipart,
}

/// Where an upload goes.
#[derive(Clone, Debug, PartialEq, Eq, Serialize, Deserialize, IntoParams, ToSchema)]
#[serde(deny_unknown_fields)]
#[into_params(parameter_in = Query)]
pub struct UploadQuery {
    /// How the body is made up.
    #[serde(rename = "uploadType")]
    pub upload_type: UploadType,
    /// The absolute path of the file; required for `media`, instead of the JSON part's for `multipart`.
    #[serde(default, skip_serializing_if = "Option::is_none")]
    pub path: Option<String>,
    /// The version that this content replaces; absent for a new file.
    #[serde(default, skip_serializing_if = "Option::is_none")]
    pub base_version: Option<u64>,
    /// Whether missing folders of `path` are made.
    #[serde(default)]
    pub parents: bool,
}

/// The JSON part of a multipart upload.
#[derive(Clone, Debug, Default, PartialEq, Eq, Serialize, Deserialize, ToSchema)]
#[serde(deny_unknown_fields)]
pub struct UploadMetadata {
    /// The absolute path of the file; this, or `parent` and `name`.
    #[serde(default, skip_serializing_if = "Option::is_none")]
    pub path: Option<String>,
    /// The folder that it shall lie in.
    #[serde(default, skip_serializing_if = "Option::is_none")]
    pub parent: Option<String>,
    /// Its name in that folder.
    #[serde(default, skip_serializing_if = "Option::is_none")]
    pub name: Option<String>,
    /// The version that this content replaces; absent for a new file.
    #[serde(default, skip_serializing_if = "Option::is_none")]
    pub base_version: Option<u64>,
    /// Whether missing folders of `path` are made.
    #[serde(default)]
    pub parents: bool,
    /// Media type of the content; the second part's `Content-Type` when absent.
    #[serde(default, skip_serializing_if = "Option::is_none")]
    pub content_type: Option<String>,
}

/// The answer to a finished upload.
#[derive(Clone, Debug, PartialEq, Eq, Serialize, Deserialize, ToSchema)]
pub struct Uploaded {
    /// The file after the commit.
    pub entry: Entry,
    /// What the write survives.
    pub receipt: Receipt,
}
