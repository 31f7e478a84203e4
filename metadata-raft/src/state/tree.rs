//! Commands about the tree: create, rename and move, trash, restore, purge.
//!
//! Invariants: names collide by their NFC form; no folder comes to lie below itself; a folder's move writes as much as a file's.

use crate::state::age::Now;
use crate::state::change::{self, Actor};
use crate::state::children;
use crate::state::drive::{self, DriveRecord};
use crate::state::entry::{self, EntryRecord, Shown, Standing, Walk, stored_name};
use crate::state::job;
use crate::state::keys;
use crate::state::store::{Outcome, broken, require};
use crate::state::usage;
use kv::overlay::Overlay;
use kv::seam::KvRead;
use model::authorize::{Action, Principal};
use model::entry::EntryType;
use model::id::{DriveId, EntryId, ROOT_ENTRY};
use model::name::{DrivePath, EntryName};
use protocol::codes;
use protocol::metadata::drive::{EntryChanged, PatchTo, Place, Purged};
use protocol::metadata::query::ChangeType;

/// Where a new entry goes: the folder that is there, the folders to be made below it, the name.
pub(crate) struct NewPlace {
    pub(crate) folder: Walk,
    pub(crate) parents: Vec<EntryName>,
    pub(crate) name: EntryName,
}

/// What is at a place.
pub(crate) enum AtPlace {
    /// An entry.
    Taken(Walk),
    /// Nothing; a new entry goes there.
    Free(NewPlace),
}

/// Looks a place up; missing folders are refused unless `with_parents`.
pub(crate) fn at_place(kv: &dyn KvRead, drive: DriveId, place: &Place, with_parents: bool) -> Outcome<AtPlace> {
    match place {
        Place::In { parent, name } => {
            require(parent.drive == drive, &codes::CROSS_DRIVE)?;
            let folder = entry::walk_folder(kv, *parent)?;
            match children::find(kv, drive, parent.number, name)? {
                Some(child) => Ok(AtPlace::Taken(entry::walk(
                    kv,
                    EntryId {
                        drive,
                        number: child.number,
                    },
                )?)),
                None => Ok(AtPlace::Free(NewPlace {
                    folder,
                    parents: Vec::new(),
                    name: name.clone(),
                })),
            }
        }
        Place::Path(path) => {
            let found = entry::follow(kv, drive, path)?;
            let last = EntryId {
                drive,
                number: found.last,
            };
            let Some((name, parents)) = found.missing.split_last() else {
                return Ok(AtPlace::Taken(entry::walk(kv, last)?));
            };
            let folder = entry::walk_folder(kv, last)?;
            require(parents.is_empty() || with_parents, &codes::PARENT_NOT_FOUND)?;
            Ok(AtPlace::Free(NewPlace {
                folder,
                parents: parents.to_vec(),
                name: name.clone(),
            }))
        }
    }
}

/// What a new entry is made as.
pub(crate) struct NewEntry {
    pub(crate) entry_type: EntryType,
    pub(crate) content_type: Option<String>,
}

/// Makes an entry and the folders missing above it, each with its change. A file gets its version from the caller.
pub(crate) fn create(
    tx: &mut Overlay<'_>,
    drive: &mut DriveRecord,
    actor: Actor<'_>,
    place: NewPlace,
    fresh: &[u64],
    new: &NewEntry,
) -> Outcome<EntryRecord> {
    require(fresh.len() > place.parents.len(), &codes::MALFORMED_COMMAND)?;
    let folder = create_parents(tx, drive, actor, place.folder, (&place.parents, fresh))?;
    create_one(tx, drive, actor, &folder, &place.name, fresh[place.parents.len()], new)
}

/// Makes folders below `folder`, each in the one before and with its change; answers the walk from the last one.
pub(crate) fn create_parents(
    tx: &mut Overlay<'_>,
    drive: &mut DriveRecord,
    actor: Actor<'_>,
    mut folder: Walk,
    (names, fresh): (&[EntryName], &[u64]),
) -> Outcome<Walk> {
    for (name, number) in names.iter().zip(fresh) {
        let as_folder = NewEntry {
            entry_type: EntryType::Folder,
            content_type: None,
        };
        let made = create_one(tx, drive, actor, &folder, name, *number, &as_folder)?;
        let scopes = folder.scopes();
        change::record(tx, drive, actor, ChangeType::Created, &made.shown, (&[], &scopes))?;
        folder = Walk::new(&*tx, drive.drive, *number)?.ok_or_else(|| broken("a new folder is not there"))?;
    }
    Ok(folder)
}

/// Makes one entry in a folder, without its change.
pub(crate) fn create_one(
    tx: &mut Overlay<'_>,
    drive: &DriveRecord,
    actor: Actor<'_>,
    folder: &Walk,
    name: &EntryName,
    number: u64,
    new: &NewEntry,
) -> Outcome<EntryRecord> {
    require(number > ROOT_ENTRY, &codes::MALFORMED_COMMAND)?;
    require(entry::find(&*tx, drive.drive, number)?.is_none(), &codes::ID_TAKEN)?;
    children::require_room(folder, name, 0)?;
    let wall = actor.now.wall;
    let shown = Shown {
        number,
        parent: folder.record().shown.number,
        name: name.as_str().to_owned(),
        entry_type: new.entry_type,
        size: 0,
        version: 0,
        revision: 1,
        digest: None,
        content_type: new.content_type.clone(),
        created_at: wall,
        modified_at: wall,
        modified_by: actor.principal.user,
    };
    let record = EntryRecord {
        shown,
        height: 0,
        is_scope: false,
        standing: Standing::Attached,
    };
    entry::put(tx, drive.drive, &record)?;
    children::attach(tx, drive.drive, folder, &record)?;
    let is_file = new.entry_type == EntryType::File;
    usage::change(tx, drive.drive, |usage| {
        let counter = if is_file { &mut usage.files } else { &mut usage.folders };
        usage::shift(counter, 1)
    })?;
    Ok(record)
}

/// What a command answers that made or changed an entry.
pub(crate) fn answer(kv: &dyn KvRead, drive: &DriveRecord, number: u64) -> Outcome<EntryChanged> {
    let view = entry::walk(
        kv,
        EntryId {
            drive: drive.drive,
            number,
        },
    )?
    .view();
    Ok(EntryChanged {
        view,
        position: change::position(kv, drive, ROOT_ENTRY)?,
    })
}

/// `CreateFolder`.
pub(crate) fn create_folder(
    tx: &mut Overlay<'_>,
    now: &Now,
    principal: &Principal,
    drive: DriveId,
    place: (&Place, bool),
    fresh: &[u64],
) -> Outcome<EntryChanged> {
    let mut record = drive::authorised(&*tx, drive, principal, Action::Write)?;
    let place = match at_place(&*tx, drive, place.0, place.1)? {
        AtPlace::Free(place) => place,
        AtPlace::Taken(walk) => {
            let existing = EntryId {
                drive,
                number: walk.record().shown.number,
            };
            return Err(codes::NAME_TAKEN.failure().with("existing", existing).into());
        }
    };
    let actor = Actor { principal, now };
    let new = NewEntry {
        entry_type: EntryType::Folder,
        content_type: None,
    };
    let made = create(tx, &mut record, actor, place, fresh, &new)?;
    let scopes = Walk::new(&*tx, drive, made.shown.number)?
        .map(|walk| walk.scopes())
        .unwrap_or_default();
    change::record(tx, &mut record, actor, ChangeType::Created, &made.shown, (&[], &scopes))?;
    answer(&*tx, &record, made.shown.number)
}

/// An entry that a command of a user changes: authorised, not the root, at the revision that the user knows.
fn target(
    kv: &dyn KvRead,
    principal: &Principal,
    entry: EntryId,
    base_revision: Option<u64>,
) -> Outcome<(DriveRecord, Walk)> {
    let drive = drive::authorised(kv, entry.drive, principal, Action::Write)?;
    let walk = entry::walk(kv, entry)?;
    require(entry.number != ROOT_ENTRY, &codes::ROOT_FIXED)?;
    let revision = walk.record().shown.revision;
    if base_revision.is_some_and(|base| base != revision) {
        return Err(codes::REVISION_CONFLICT
            .failure()
            .with("entry", entry)
            .with("revision", revision)
            .into());
    }
    Ok((drive, walk))
}

fn touch(shown: &mut Shown, actor: Actor<'_>) {
    shown.revision = shown.revision.saturating_add(1);
    shown.modified_at = actor.now.wall;
    shown.modified_by = actor.principal.user;
}

/// `PatchEntry`: rename, move or both.
pub(crate) fn patch(
    tx: &mut Overlay<'_>,
    actor: Actor<'_>,
    entry: EntryId,
    base_revision: Option<u64>,
    to: &PatchTo,
) -> Outcome<EntryChanged> {
    let (mut drive, walk) = target(&*tx, actor.principal, entry, base_revision)?;
    require(!walk.is_in_trash(), &codes::IN_TRASH)?;
    let (folder, name) = destination(&*tx, &walk, entry, to)?;
    let shown = &walk.record().shown;
    let parent = folder.record().shown.number;
    if parent == shown.parent && name.as_str() == shown.name {
        return answer(&*tx, &drive, entry.number);
    }
    require(!folder.holds(entry.number), &codes::CYCLE)?;
    children::require_free(&*tx, entry.drive, parent, &name, Some(entry.number))?;
    children::require_room(&folder, &name, walk.record().height)?;
    let before = walk.scopes();
    let mut record = walk.into_record();
    children::detach(tx, entry.drive, &record.shown)?;
    record.shown.parent = parent;
    record.shown.name = name.as_str().to_owned();
    touch(&mut record.shown, actor);
    entry::put(tx, entry.drive, &record)?;
    children::attach(tx, entry.drive, &folder, &record)?;
    let after = entry::walk(&*tx, entry)?.scopes();
    change::record(
        tx,
        &mut drive,
        actor,
        ChangeType::Moved,
        &record.shown,
        (&before, &after),
    )?;
    answer(&*tx, &drive, entry.number)
}

fn destination(kv: &dyn KvRead, walk: &Walk, entry: EntryId, to: &PatchTo) -> Outcome<(Walk, EntryName)> {
    match to {
        PatchTo::Parts { name, parent } => {
            let shown = &walk.record().shown;
            let parent = parent.unwrap_or(EntryId {
                drive: entry.drive,
                number: shown.parent,
            });
            require(parent.drive == entry.drive, &codes::CROSS_DRIVE)?;
            let name = match name {
                Some(name) => name.clone(),
                None => stored_name(&shown.name)?,
            };
            Ok((entry::walk_folder(kv, parent)?, name))
        }
        PatchTo::Path(path) => {
            let (above, name) = path.split_last().ok_or(&codes::ROOT_FIXED)?;
            Ok((folder_at(kv, entry.drive, &above)?, name.clone()))
        }
    }
}

fn folder_at(kv: &dyn KvRead, drive: DriveId, path: &DrivePath) -> Outcome<Walk> {
    let found = entry::follow(kv, drive, path)?;
    require(found.is_folder, &codes::PARENT_NOT_FOLDER)?;
    require(found.missing.is_empty(), &codes::PARENT_NOT_FOUND)?;
    entry::walk_folder(
        kv,
        EntryId {
            drive,
            number: found.last,
        },
    )
}

/// `TrashEntry`.
pub(crate) fn trash(
    tx: &mut Overlay<'_>,
    actor: Actor<'_>,
    entry: EntryId,
    base_revision: Option<u64>,
) -> Outcome<EntryChanged> {
    let (mut drive, walk) = target(&*tx, actor.principal, entry, base_revision)?;
    require(!walk.is_in_trash(), &codes::IN_TRASH)?;
    let scopes = walk.scopes();
    let mut record = walk.into_record();
    children::detach(tx, entry.drive, &record.shown)?;
    touch(&mut record.shown, actor);
    record.standing = Standing::Trashed {
        age: actor.now.age(),
        wall: actor.now.wall,
    };
    entry::put(tx, entry.drive, &record)?;
    tx.put(
        keys::trash(entry.drive, actor.now.age().0, entry.number),
        bytes::Bytes::new(),
    );
    job::note_trash(tx, entry.drive, actor.now.age())?;
    change::record(
        tx,
        &mut drive,
        actor,
        ChangeType::Trashed,
        &record.shown,
        (&scopes, &[]),
    )?;
    answer(&*tx, &drive, entry.number)
}

/// `RestoreEntry`.
pub(crate) fn restore(
    tx: &mut Overlay<'_>,
    actor: Actor<'_>,
    entry: EntryId,
    parent: Option<EntryId>,
    name: Option<&EntryName>,
) -> Outcome<EntryChanged> {
    let (mut drive, walk) = target(&*tx, actor.principal, entry, None)?;
    let Standing::Trashed { age, .. } = walk.record().standing else {
        return Err((&codes::NOT_IN_TRASH).into());
    };
    let mut record = walk.into_record();
    let parent = parent.unwrap_or(EntryId {
        drive: entry.drive,
        number: record.shown.parent,
    });
    require(parent.drive == entry.drive, &codes::CROSS_DRIVE)?;
    // A folder below the trashed entry is itself in the trash, so no cycle can arise here.
    let folder = entry::walk_folder(&*tx, parent)?;
    let name = match name {
        Some(name) => name.clone(),
        None => stored_name(&record.shown.name)?,
    };
    children::require_free(&*tx, entry.drive, parent.number, &name, None)?;
    children::require_room(&folder, &name, record.height)?;
    tx.delete(keys::trash(entry.drive, age.0, entry.number));
    record.shown.parent = parent.number;
    record.shown.name = name.as_str().to_owned();
    record.standing = Standing::Attached;
    touch(&mut record.shown, actor);
    entry::put(tx, entry.drive, &record)?;
    children::attach(tx, entry.drive, &folder, &record)?;
    let scopes = entry::walk(&*tx, entry)?.scopes();
    change::record(
        tx,
        &mut drive,
        actor,
        ChangeType::Restored,
        &record.shown,
        (&[], &scopes),
    )?;
    answer(&*tx, &drive, entry.number)
}

/// `PurgeEntry`.
pub(crate) fn purge(
    tx: &mut Overlay<'_>,
    actor: Actor<'_>,
    entry: EntryId,
    base_revision: Option<u64>,
    job: u64,
) -> Outcome<Purged> {
    let (mut drive, walk) = target(&*tx, actor.principal, entry, base_revision)?;
    let job = purge_walk(tx, &mut drive, actor, walk, job)?;
    Ok(Purged {
        job,
        position: change::position(&*tx, &drive, ROOT_ENTRY)?,
    })
}

/// Detaches an entry; what is small is gone at once, the rest is left to a job.
pub(crate) fn purge_walk(
    tx: &mut Overlay<'_>,
    drive: &mut DriveRecord,
    actor: Actor<'_>,
    walk: Walk,
    job: u64,
) -> Outcome<Option<u64>> {
    let scopes = walk.scopes();
    let mut record = walk.into_record();
    let number = record.shown.number;
    match record.standing {
        Standing::Attached => children::detach(tx, drive.drive, &record.shown)?,
        Standing::Trashed { age, .. } => tx.delete(keys::trash(drive.drive, age.0, number)),
        Standing::Detached { .. } => return Err(broken("a detached entry was found")),
    }
    record.standing = Standing::Detached { job };
    entry::put(tx, drive.drive, &record)?;
    change::record(tx, drive, actor, ChangeType::Deleted, &record.shown, (&scopes, &[]))?;
    job::begin_purge(tx, drive.drive, &record, job)
}
