//! An entry's JSON form.

use api::entry::{Entry, Held, Kind};
use model::entry::Entry as Stored;
use protocol::metadata::drive::EntryView;

/// The form of an entry at `path`.
///
/// Grants come with a later issue: until then whoever reads an entry owns its drive, and nothing is shared.
pub fn entry(stored: &Stored, path: String) -> Entry {
    Entry {
        id: stored.id.to_string(),
        drive: stored.id.drive.to_string(),
        parent: stored.parent.map(|parent| parent.to_string()),
        name: stored.name.clone(),
        path,
        entry_type: Kind::from(stored.entry_type),
        size: stored.size,
        version: stored.version,
        revision: stored.revision,
        digest: stored.digest.map(|digest| digest.to_hex()),
        content_type: stored.content_type.clone(),
        created_at: stored.created_at.into(),
        modified_at: stored.modified_at.into(),
        modified_by: stored.modified_by.to_string(),
        trashed_at: stored.trashed_at.map(Into::into),
        shared: false,
        permission: Held::Owner,
    }
}

/// The form of an entry with its path.
pub fn view(view: &EntryView) -> Entry {
    entry(&view.entry, view.path.clone())
}

/// The form of a child of a listed folder.
pub fn child(folder: &EntryView, stored: &Stored) -> Entry {
    let path = format!("{}/{}", folder.path.trim_end_matches('/'), stored.name);
    entry(stored, path)
}
