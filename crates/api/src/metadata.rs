//! The tree: listing, creating, changing and restoring entries.
//!
//! Invariant: an entry is named either by its absolute path, or by its parent's id and its name, never by both.

use crate::entry::Entry;
use serde::{Deserialize, Serialize};
use utoipa::{IntoParams, ToSchema};

/// Which entry to list, and which page of it.
#[derive(Clone, Debug, Default, PartialEq, Eq, Serialize, Deserialize, IntoParams, ToSchema)]
#[serde(deny_unknown_fields)]
#[into_params(parameter_in = Query)]
pub struct ListQuery {
    /// An absolute path; this or `id`, and the root when neither is given.
    #[serde(default, skip_serializing_if = "Option::is_none")]
    pub path: Option<String>,
    /// An entry.
    #[serde(default, skip_serializing_if = "Option::is_none")]
    pub id: Option<String>,
    /// Entries of one page, 1 to 1000.
    #[serde(default, skip_serializing_if = "Option::is_none")]
    #[param(minimum = 1, maximum = 1000)]
    pub limit: Option<u32>,
    /// `next_page_token` of the page before.
    #[serde(default, skip_serializing_if = "Option::is_none")]
    pub page_token: Option<String>,
}

/// An entry and, for a folder, one page of its children in name order.
#[derive(Clone, Debug, PartialEq, Eq, Serialize, Deserialize, ToSchema)]
pub struct Listing {
    /// The entry that was asked for.
    pub entry: Entry,
    /// Children of this page.
    pub entries: Vec<Entry>,
    /// Absent on the last page.
    #[serde(default, skip_serializing_if = "Option::is_none")]
    pub next_page_token: Option<String>,
}

/// What can be created without content.
#[derive(Clone, Copy, Debug, PartialEq, Eq, Serialize, Deserialize, ToSchema)]
#[serde(rename_all = "snake_case")]
pub enum Creatable {
    /// A folder.
    Folder,
    /// An empty file of version 1.
    File,
}

/// Makes an entry.
#[derive(Clone, Debug, PartialEq, Eq, Serialize, Deserialize, ToSchema)]
#[serde(deny_unknown_fields)]
pub struct CreateEntry {
    /// Folder or empty file.
    #[serde(rename = "type")]
    pub entry_type: Creatable,
    /// The absolute path of the new entry; this, or `parent` and `name`.
    #[serde(default, skip_serializing_if = "Option::is_none")]
    pub path: Option<String>,
    /// The folder that it shall lie in.
    #[serde(default, skip_serializing_if = "Option::is_none")]
    pub parent: Option<String>,
    /// Its name in that folder.
    #[serde(default, skip_serializing_if = "Option::is_none")]
    pub name: Option<String>,
    /// Whether missing folders of `path` are made.
    #[serde(default)]
    pub parents: bool,
}

/// Renames or moves an entry. What is absent stays as it is.
#[derive(Clone, Debug, Default, PartialEq, Eq, Serialize, Deserialize, ToSchema)]
#[serde(deny_unknown_fields)]
pub struct ChangeEntry {
    /// The new name.
    #[serde(default, skip_serializing_if = "Option::is_none")]
    pub name: Option<String>,
    /// The new folder.
    #[serde(default, skip_serializing_if = "Option::is_none")]
    pub parent: Option<String>,
    /// New folder and name in one, as an absolute path; instead of the two above.
    #[serde(default, skip_serializing_if = "Option::is_none")]
    pub path: Option<String>,
    /// Refuse when the entry's revision is another by now.
    #[serde(default, skip_serializing_if = "Option::is_none")]
    pub base_revision: Option<u64>,
}

/// Where an entry comes back to out of the trash. What is absent is as it was.
#[derive(Clone, Debug, Default, PartialEq, Eq, Serialize, Deserialize, ToSchema)]
#[serde(deny_unknown_fields)]
pub struct RestoreEntry {
    /// Another folder, when the one it was in is gone.
    #[serde(default, skip_serializing_if = "Option::is_none")]
    pub parent: Option<String>,
    /// Another name, when the one it had is taken.
    #[serde(default, skip_serializing_if = "Option::is_none")]
    pub name: Option<String>,
}

/// Where a copy of an entry goes.
#[derive(Clone, Debug, Default, PartialEq, Eq, Serialize, Deserialize, ToSchema)]
#[serde(deny_unknown_fields)]
pub struct CopyEntry {
    /// The absolute path of the copy; this, or `parent` and `name`.
    #[serde(default, skip_serializing_if = "Option::is_none")]
    pub path: Option<String>,
    /// The folder that it shall lie in, of the same drive.
    #[serde(default, skip_serializing_if = "Option::is_none")]
    pub parent: Option<String>,
    /// Its name in that folder.
    #[serde(default, skip_serializing_if = "Option::is_none")]
    pub name: Option<String>,
    /// Whether missing folders of `path` are made.
    #[serde(default)]
    pub parents: bool,
}

/// How to delete.
#[derive(Clone, Debug, Default, PartialEq, Eq, Serialize, Deserialize, IntoParams, ToSchema)]
#[serde(deny_unknown_fields)]
#[into_params(parameter_in = Query)]
pub struct DeleteQuery {
    /// For good instead of into the trash.
    #[serde(default)]
    pub permanent: bool,
    /// Refuse when the entry's revision is another by now.
    #[serde(default, skip_serializing_if = "Option::is_none")]
    pub base_revision: Option<u64>,
}

#[cfg(test)]
mod tests {
    use super::{ChangeEntry, CreateEntry};

    #[test]
    fn unknown_fields_of_requests_are_refused() {
        assert!(serde_json::from_str::<CreateEntry>(r#"{"type":"folder","path":"/a"}"#).is_ok());
        assert!(serde_json::from_str::<CreateEntry>(r#"{"type":"folder","path":"/a","owner":"x"}"#).is_err());
        assert!(serde_json::from_str::<CreateEntry>(r#"{"type":"mount","path":"/a"}"#).is_err());
        assert!(serde_json::from_str::<ChangeEntry>(r#"{"nmae":"x"}"#).is_err());
    }
}
