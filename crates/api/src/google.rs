//! The change feed in the shapes of Google's drive, for programs that know those.
//!
//! Invariants: a file appears once in a page with its present state; trashing is no removal; exactly one of the two tokens is there.
//! Not here: our own shapes (`change`).

use crate::entry::{Entry, Kind};
use crate::timestamp::Timestamp;
use serde::{Deserialize, Serialize};
use utoipa::{IntoParams, ToSchema};

/// Where to begin following.
#[derive(Clone, Debug, PartialEq, Eq, Serialize, Deserialize, ToSchema)]
#[serde(rename_all = "camelCase")]
pub struct StartPageToken {
    /// `drive#startPageToken`.
    pub kind: String,
    /// Stands at the present end.
    pub start_page_token: String,
}

/// Which changes. What Google's clients say more is about other drives than there are here.
#[derive(Clone, Debug, Default, PartialEq, Eq, Serialize, Deserialize, IntoParams, ToSchema)]
#[serde(rename_all = "camelCase")]
#[into_params(parameter_in = Query)]
pub struct DriveChangesQuery {
    /// A token of an answer.
    #[serde(default, skip_serializing_if = "Option::is_none")]
    #[param(required = true)]
    pub page_token: Option<String>,
    /// Changes of one page, 1 to 1000; 100 when it is left out.
    #[serde(default, skip_serializing_if = "Option::is_none")]
    #[param(minimum = 1, maximum = 1000)]
    pub page_size: Option<u32>,
}

/// A file or folder.
#[derive(Clone, Debug, PartialEq, Eq, Serialize, Deserialize, ToSchema)]
#[serde(rename_all = "camelCase")]
pub struct DriveFile {
    /// `drive#file`.
    pub kind: String,
    /// The entry's id.
    pub id: String,
    /// Its name.
    pub name: String,
    /// Its content type, or `application/vnd.google-apps.folder`.
    pub mime_type: String,
    /// The folder that it lies in.
    pub parents: Vec<String>,
    /// Bytes, in decimal; absent for folders.
    #[serde(default, skip_serializing_if = "Option::is_none")]
    pub size: Option<String>,
    /// Counts every change, in decimal.
    pub version: String,
    /// Whether it went into the trash itself.
    pub trashed: bool,
    /// When it was made.
    pub created_time: Timestamp,
    /// When it last changed.
    pub modified_time: Timestamp,
}

impl From<&Entry> for DriveFile {
    fn from(entry: &Entry) -> Self {
        let is_file = entry.entry_type == Kind::File;
        let content_type = entry.content_type.as_deref().unwrap_or("application/octet-stream");
        Self {
            kind: "drive#file".to_owned(),
            id: entry.id.clone(),
            name: entry.name.clone(),
            mime_type: if is_file {
                content_type
            } else {
                "application/vnd.google-apps.folder"
            }
            .to_owned(),
            parents: entry.parent.iter().cloned().collect(),
            size: is_file.then(|| entry.size.to_string()),
            version: entry.revision.to_string(),
            trashed: entry.trashed_at.is_some(),
            created_time: entry.created_at,
            modified_time: entry.modified_at,
        }
    }
}

/// A change.
#[derive(Clone, Debug, PartialEq, Eq, Serialize, Deserialize, ToSchema)]
#[serde(rename_all = "camelCase")]
pub struct DriveChange {
    /// `drive#change`.
    pub kind: String,
    /// `file`.
    pub change_type: String,
    /// When.
    pub time: Timestamp,
    /// Whether it is gone for good.
    pub removed: bool,
    /// The entry.
    pub file_id: String,
    /// As it is now; absent when it is gone.
    #[serde(default, skip_serializing_if = "Option::is_none")]
    pub file: Option<DriveFile>,
}

/// A page of changes.
#[derive(Clone, Debug, PartialEq, Eq, Serialize, Deserialize, ToSchema)]
#[serde(rename_all = "camelCase")]
pub struct DriveChangeList {
    /// `drive#changeList`.
    pub kind: String,
    /// One for each file that changed.
    pub changes: Vec<DriveChange>,
    /// While there is more.
    #[serde(default, skip_serializing_if = "Option::is_none")]
    pub next_page_token: Option<String>,
    /// Once there is no more.
    #[serde(default, skip_serializing_if = "Option::is_none")]
    pub new_start_page_token: Option<String>,
}
