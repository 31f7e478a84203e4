//! Hanging entries into folders and taking them out: the listing's row, the twin's row, the bound of heights.
//!
//! Invariants: a name key of a folder has one row; the row shows what the entry's record shows; a folder's bound is never below the
//! height of what hangs in it.

use crate::state::entry::{self, EntryRecord, Shown, Walk, stored_name};
use crate::state::keys;
use crate::state::store::{Outcome, load, require, save};
use kv::overlay::Overlay;
use kv::seam::KvRead;
use model::id::{DriveId, EntryId};
use model::limits::{DEPTH_MAX, PATH_BYTES_MAX};
use model::name::EntryName;
use protocol::codes;

/// The child of that name.
pub(crate) fn find(kv: &dyn KvRead, drive: DriveId, parent: u64, name: &EntryName) -> Outcome<Option<Shown>> {
    load(kv, &keys::child(drive, parent, &name.key()))
}

/// Refuses with `name_taken` when another entry than `but` has the name.
pub(crate) fn require_free(
    kv: &dyn KvRead,
    drive: DriveId,
    parent: u64,
    name: &EntryName,
    but: Option<u64>,
) -> Outcome<()> {
    match find(kv, drive, parent, name)? {
        Some(taken) if Some(taken.number) != but => {
            let existing = EntryId {
                drive,
                number: taken.number,
            };
            Err(codes::NAME_TAKEN.failure().with("existing", existing).into())
        }
        _ => Ok(()),
    }
}

/// Refuses an entry that would pass the depth (with `height` below it) or the path's length in `folder`.
pub(crate) fn require_room(folder: &Walk, name: &EntryName, height: u16) -> Outcome<()> {
    let depth = u32::from(folder.depth()) + 1 + u32::from(height);
    require(depth <= u32::from(DEPTH_MAX), &codes::TOO_DEEP)?;
    // What a copy's job hides has no path yet.
    if folder.is_detached() {
        return Ok(());
    }
    let above = folder.path_text();
    let slash = usize::from(!above.ends_with('/'));
    let bytes = above.len() + slash + name.as_str().len();
    require(bytes <= PATH_BYTES_MAX, &codes::PATH_TOO_LONG)
}

/// Writes the row of an entry in its folder anew, after what it shows changed in place.
pub(crate) fn show(tx: &mut Overlay<'_>, drive: DriveId, shown: &Shown) -> Outcome<()> {
    let key = stored_name(&shown.name)?.key();
    save(tx, keys::child(drive, shown.parent, &key), shown)
}

/// Hangs an entry into `folder`, where its name must be free, and raises the bounds above it.
pub(crate) fn attach(tx: &mut Overlay<'_>, drive: DriveId, folder: &Walk, record: &EntryRecord) -> Outcome<()> {
    let name = stored_name(&record.shown.name)?;
    let parent = folder.record().shown.number;
    save(tx, keys::child(drive, parent, &name.key()), &record.shown)?;
    tx.put(
        keys::twin(drive, parent, &name.folded(), record.shown.number),
        bytes::Bytes::new(),
    );
    let mut height = record.height;
    for above in folder.upwards() {
        height = height.saturating_add(1);
        // The walk may be older than a bound raised by this command: read the record that will be written.
        let Some(mut above) = entry::find(&*tx, drive, above.shown.number)? else {
            break;
        };
        if above.height >= height {
            break;
        }
        above.height = height;
        entry::put(tx, drive, &above)?;
    }
    Ok(())
}

/// Takes an entry out of its folder's rows.
pub(crate) fn detach(tx: &mut Overlay<'_>, drive: DriveId, shown: &Shown) -> Outcome<()> {
    let name = stored_name(&shown.name)?;
    tx.delete(keys::child(drive, shown.parent, &name.key()));
    tx.delete(keys::twin(drive, shown.parent, &name.folded(), shown.number));
    Ok(())
}
