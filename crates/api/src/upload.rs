//! Putting a whole file in one request.

use crate::entry::Entry;
use crate::receipt::Receipt;
use crate::timestamp::Timestamp;
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
    /// The body is JSON that says where the content goes; the bytes follow at the address that is answered.
    Resumable,
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

/// What begins a resumable upload; unknown fields are passed over, since clients of other drives send many.
#[derive(Clone, Debug, Default, PartialEq, Eq, Serialize, Deserialize, ToSchema)]
pub struct ResumableMetadata {
    /// The absolute path of the file; this, or `parent` and `name`, or the query's `path`.
    #[serde(default, skip_serializing_if = "Option::is_none")]
    pub path: Option<String>,
    /// The folder that it shall lie in; the home drive's root when there is only a name.
    #[serde(default, skip_serializing_if = "Option::is_none")]
    pub parent: Option<String>,
    /// Its name in that folder.
    #[serde(default, skip_serializing_if = "Option::is_none")]
    pub name: Option<String>,
    /// Bytes of the content; `X-Upload-Content-Length` says it too.
    #[serde(default, skip_serializing_if = "Option::is_none")]
    pub size: Option<u64>,
    /// The version that this content replaces; absent for a new file.
    #[serde(default, skip_serializing_if = "Option::is_none")]
    pub base_version: Option<u64>,
    /// Whether missing folders of `path` are made; or, as clients of Google's drive say it, the one folder that it shall lie in.
    #[serde(default)]
    pub parents: Parents,
    /// Media type of the content; `X-Upload-Content-Type` says it too.
    #[serde(
        default,
        rename = "mimeType",
        alias = "content_type",
        skip_serializing_if = "Option::is_none"
    )]
    pub content_type: Option<String>,
}

/// `parents` of a resumable upload, of which the word has two meanings.
#[derive(Clone, Debug, PartialEq, Eq, Serialize, Deserialize, ToSchema)]
#[serde(untagged)]
pub enum Parents {
    /// Whether missing folders are made.
    Made(bool),
    /// Folders by their ids; an entry lies in one alone.
    Folders(Vec<String>),
}

impl Default for Parents {
    fn default() -> Self {
        Self::Made(false)
    }
}

/// Replaces the content of a file by a resumable upload.
#[derive(Clone, Debug, PartialEq, Eq, Serialize, Deserialize, IntoParams, ToSchema)]
#[serde(deny_unknown_fields)]
#[into_params(parameter_in = Query)]
pub struct ReplaceQuery {
    /// Must be `resumable`.
    #[serde(rename = "uploadType")]
    pub upload_type: UploadType,
    /// The version that this content replaces; the one that is there when the upload begins, if it is left out.
    #[serde(default, skip_serializing_if = "Option::is_none")]
    pub base_version: Option<u64>,
}

/// A resumable upload that was begun.
#[derive(Clone, Debug, PartialEq, Eq, Serialize, Deserialize, ToSchema)]
pub struct ResumableStarted {
    /// Where its bytes go, as in `Location`. Whoever has it may go on with the upload, so it is a secret.
    pub upload_url: String,
    /// The last part of that address.
    pub upload_id: String,
    /// Until when it may be gone on with, as in `X-Upload-Expires`; it moves on with every chunk that brings something.
    pub expires: Timestamp,
}

/// How far a resumable upload is.
#[derive(Clone, Debug, PartialEq, Eq, Serialize, Deserialize, ToSchema)]
pub struct UploadProgress {
    /// Bytes that are durable and need not be sent again.
    pub size: u64,
    /// Their range, as `0-5242879`; absent when there are none.
    #[serde(default, skip_serializing_if = "Option::is_none")]
    pub saved_range: Option<String>,
    /// Bytes of the whole content, when they were announced.
    #[serde(default, skip_serializing_if = "Option::is_none")]
    pub total: Option<u64>,
    /// Until when the upload may be gone on with, unless more is sent before; asking does not move it. Absent once it has ended.
    #[serde(default, skip_serializing_if = "Option::is_none")]
    pub expires: Option<Timestamp>,
}

/// The answer to `POST /api/v1/files/upload`.
#[derive(Clone, Debug, PartialEq, Eq, Serialize, Deserialize, ToSchema)]
#[serde(untagged)]
pub enum UploadAnswer {
    /// A content came in.
    Uploaded(Box<Uploaded>),
    /// A resumable upload was begun.
    Started(ResumableStarted),
}

/// The answer to a chunk.
#[derive(Clone, Debug, PartialEq, Eq, Serialize, Deserialize, ToSchema)]
#[serde(untagged)]
pub enum ChunkAnswer {
    /// The content is whole.
    Uploaded(Box<Uploaded>),
    /// More is to come; with 200 for who asked for no 308.
    Progress(UploadProgress),
}

/// Where an upload that is begun by `POST /files/upload` goes.
#[derive(Clone, Debug, PartialEq, Eq, Serialize, Deserialize, IntoParams, ToSchema)]
#[serde(deny_unknown_fields)]
#[into_params(parameter_in = Query)]
pub struct ResumableQuery {
    /// Must be true.
    pub resumable: bool,
    /// The absolute path of the file, when the body does not say where it goes.
    #[serde(default, skip_serializing_if = "Option::is_none")]
    pub path: Option<String>,
    /// The version that this content replaces; absent for a new file.
    #[serde(default, skip_serializing_if = "Option::is_none")]
    pub base_version: Option<u64>,
    /// Whether missing folders of `path` are made.
    #[serde(default)]
    pub parents: bool,
}
