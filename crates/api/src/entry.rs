//! An entry as clients see it.
//!
//! Invariants: `version` counts contents, `revision` every change; ids are opaque strings.
//! Not here: how it is stored (`model::entry` is what processes speak of).

use crate::timestamp::Timestamp;
use model::authorize::Permission;
use model::entry::EntryType;
use serde::{Deserialize, Serialize};
use utoipa::ToSchema;

/// What an entry is.
#[derive(Clone, Copy, Debug, PartialEq, Eq, Serialize, Deserialize, ToSchema)]
#[serde(rename_all = "snake_case")]
pub enum Kind {
    /// Has versions.
    File,
    /// Has children.
    Folder,
    /// An accepted share in the recipient's drive.
    Mount,
}

impl From<EntryType> for Kind {
    fn from(entry_type: EntryType) -> Self {
        match entry_type {
            EntryType::File => Self::File,
            EntryType::Folder => Self::Folder,
        }
    }
}

/// What the caller may do with an entry.
#[derive(Clone, Copy, Debug, PartialEq, Eq, Serialize, Deserialize, ToSchema)]
#[serde(rename_all = "snake_case")]
pub enum Held {
    /// Read.
    Viewer,
    /// Read and write.
    Editor,
    /// Everything.
    Owner,
}

impl From<Permission> for Held {
    fn from(permission: Permission) -> Self {
        match permission {
            Permission::Viewer => Self::Viewer,
            Permission::Editor => Self::Editor,
            Permission::Owner => Self::Owner,
        }
    }
}

/// A file or a folder.
#[derive(Clone, Debug, PartialEq, Eq, Serialize, Deserialize, ToSchema)]
pub struct Entry {
    /// Survives rename and move.
    pub id: String,
    /// The drive that it lies in.
    pub drive: String,
    /// The folder that it lies in; absent for a root.
    #[serde(default, skip_serializing_if = "Option::is_none")]
    pub parent: Option<String>,
    /// As the user wrote it; empty for a root.
    pub name: String,
    /// From the root, or from the share's root, downwards.
    pub path: String,
    /// File, folder or mount.
    #[serde(rename = "type")]
    pub entry_type: Kind,
    /// Bytes of the current content; 0 for folders.
    pub size: u64,
    /// Counts contents from 1; 0 for folders.
    pub version: u64,
    /// Counts every change of name, place or content from 1.
    pub revision: u64,
    /// Digest of the current content in lower-case hex; absent for folders.
    #[serde(default, skip_serializing_if = "Option::is_none")]
    pub digest: Option<String>,
    /// As given by whoever wrote the content.
    #[serde(default, skip_serializing_if = "Option::is_none")]
    pub content_type: Option<String>,
    /// When it was made.
    pub created_at: Timestamp,
    /// When it last changed.
    pub modified_at: Timestamp,
    /// The user who changed it last.
    pub modified_by: String,
    /// When it went into the trash; absent outside.
    #[serde(default, skip_serializing_if = "Option::is_none")]
    pub trashed_at: Option<Timestamp>,
    /// Whether others have been given access to it.
    pub shared: bool,
    /// What the caller may do with it.
    pub permission: Held,
}
