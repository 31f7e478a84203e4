//! Putting many small files in one request.
//!
//! Invariant: the answer has one result for each file, in the order of the list.

use crate::entry::Entry;
use crate::problem::Problem;
use crate::receipt::Receipt;
use serde::{Deserialize, Serialize};
use utoipa::ToSchema;

/// The JSON part of a batch; the contents follow in its second part, one behind the other.
#[derive(Clone, Debug, Default, PartialEq, Eq, Serialize, Deserialize, ToSchema)]
#[serde(deny_unknown_fields)]
pub struct FileBatch {
    /// Whether one refused file refuses them all.
    #[serde(default)]
    pub atomic: bool,
    /// 1 to 1,000 files of one drive, in the order of their contents.
    #[schema(min_items = 1, max_items = 1000)]
    pub files: Vec<BatchFile>,
}

/// One file of a batch.
#[derive(Clone, Debug, Default, PartialEq, Eq, Serialize, Deserialize, ToSchema)]
#[serde(deny_unknown_fields)]
pub struct BatchFile {
    /// The absolute path of the file; this, or `parent` and `name`.
    #[serde(default, skip_serializing_if = "Option::is_none")]
    pub path: Option<String>,
    /// The folder that it shall lie in.
    #[serde(default, skip_serializing_if = "Option::is_none")]
    pub parent: Option<String>,
    /// Its name in that folder.
    #[serde(default, skip_serializing_if = "Option::is_none")]
    pub name: Option<String>,
    /// Bytes of its content.
    pub size: u64,
    /// The version that this content replaces; absent for a new file.
    #[serde(default, skip_serializing_if = "Option::is_none")]
    pub base_version: Option<u64>,
    /// Whether missing folders of `path` are made.
    #[serde(default, skip_serializing_if = "std::ops::Not::not")]
    pub parents: bool,
    /// Media type of the content.
    #[serde(default, skip_serializing_if = "Option::is_none")]
    pub content_type: Option<String>,
}

/// The answer to a batch.
#[derive(Clone, Debug, PartialEq, Serialize, Deserialize, ToSchema)]
pub struct BatchAnswer {
    /// What became of each file, in the order of the list.
    pub results: Vec<FileResult>,
}

/// What became of one file.
#[derive(Clone, Debug, PartialEq, Serialize, Deserialize, ToSchema)]
#[serde(untagged)]
pub enum FileResult {
    /// Its content is there.
    Stored(Box<StoredFile>),
    /// It was refused, and nothing of it is there.
    Refused(Box<RefusedFile>),
}

/// A file as its upload alone would have been answered.
#[derive(Clone, Debug, PartialEq, Eq, Serialize, Deserialize, ToSchema)]
pub struct StoredFile {
    /// 201 for a new file, 200 for a new version, or for a content that was there already.
    pub status: u16,
    /// The file after the commit.
    pub entry: Entry,
    /// What the write survives.
    pub receipt: Receipt,
}

/// Why a file was refused.
#[derive(Clone, Debug, PartialEq, Serialize, Deserialize, ToSchema)]
pub struct RefusedFile {
    /// The status that its upload alone would have had.
    pub status: u16,
    /// The error; the entry that stands in the way is named by `existing_id`.
    pub problem: Problem,
}
