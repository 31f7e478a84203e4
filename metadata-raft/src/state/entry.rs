//! Entries: their records and the walk from one up to the root.
//!
//! Invariants: a walk ends at the root within `DEPTH_MAX` steps; what lies below a trashed or detached entry is in the trash or gone
//! with it, without a write of its own.

use crate::state::keys;
use crate::state::store::{Outcome, broken, load, require, save};
use kv::overlay::Overlay;
use kv::seam::KvRead;
use model::digest::Digest;
use model::entry::{Entry, EntryType};
use model::id::{DriveId, EntryId, ROOT_ENTRY, UserId};
use model::limits::DEPTH_MAX;
use model::name::{DrivePath, EntryName};
use model::time::{Age, WallTime};
use protocol::codes;
use protocol::metadata::drive::{EntryRef, EntryView};
use serde::{Deserialize, Serialize};

/// What a listing shows; the same in the entry's record and in its folder's row.
#[derive(Clone, Debug, PartialEq, Eq, Serialize, Deserialize)]
pub(crate) struct Shown {
    pub(crate) number: u64,
    /// 0 for the root.
    pub(crate) parent: u64,
    pub(crate) name: String,
    pub(crate) entry_type: EntryType,
    pub(crate) size: u64,
    pub(crate) version: u64,
    pub(crate) revision: u64,
    pub(crate) digest: Option<Digest>,
    pub(crate) content_type: Option<String>,
    pub(crate) created_at: WallTime,
    pub(crate) modified_at: WallTime,
    pub(crate) modified_by: UserId,
}

/// How an entry hangs in the tree.
#[derive(Clone, Copy, Debug, PartialEq, Eq, Serialize, Deserialize)]
pub(crate) enum Standing {
    /// Its folder lists it.
    Attached,
    /// In the trash itself, since this age.
    Trashed { age: Age, wall: WallTime },
    /// Out of everybody's sight: being purged by this job, or the root of a copy that it builds.
    Detached { job: u64 },
}

/// One entry.
#[derive(Clone, Debug, PartialEq, Eq, Serialize, Deserialize)]
pub(crate) struct EntryRecord {
    pub(crate) shown: Shown,
    /// Upper bound of the height of what lies below.
    pub(crate) height: u16,
    pub(crate) is_scope: bool,
    pub(crate) standing: Standing,
}

impl EntryRecord {
    pub(crate) fn is_folder(&self) -> bool {
        self.shown.entry_type == EntryType::Folder
    }
}

impl Shown {
    pub(crate) fn entry(&self, drive: DriveId, trashed_at: Option<WallTime>) -> Entry {
        let parent = (self.number != ROOT_ENTRY).then_some(EntryId {
            drive,
            number: self.parent,
        });
        Entry {
            id: EntryId {
                drive,
                number: self.number,
            },
            parent,
            name: self.name.clone(),
            entry_type: self.entry_type,
            size: self.size,
            version: self.version,
            revision: self.revision,
            digest: self.digest,
            content_type: self.content_type.clone(),
            created_at: self.created_at,
            modified_at: self.modified_at,
            modified_by: self.modified_by,
            trashed_at,
        }
    }
}

/// A stored name, checked when it came in.
pub(crate) fn stored_name(name: &str) -> Outcome<EntryName> {
    EntryName::new(name).map_err(|_| broken("a stored name is none"))
}

pub(crate) fn find(kv: &dyn KvRead, drive: DriveId, number: u64) -> Outcome<Option<EntryRecord>> {
    load(kv, &keys::entry(drive, number))
}

pub(crate) fn put(tx: &mut Overlay<'_>, drive: DriveId, record: &EntryRecord) -> Outcome<()> {
    save(tx, keys::entry(drive, record.shown.number), record)
}

/// An entry and all folders above it, the entry first and the root last.
#[derive(Clone, Debug)]
pub(crate) struct Walk {
    drive: DriveId,
    path: Vec<EntryRecord>,
}

impl Walk {
    pub(crate) fn new(kv: &dyn KvRead, drive: DriveId, number: u64) -> Outcome<Option<Self>> {
        let Some(first) = find(kv, drive, number)? else {
            return Ok(None);
        };
        let mut path = vec![first];
        while let Some(last) = path.last() {
            if last.shown.number == ROOT_ENTRY {
                break;
            }
            // A trashed entry outlives its folder, which may be gone or lie deeper by now: it hangs in the trash and nowhere else.
            let is_alone = path.iter().any(|record| record.standing != Standing::Attached);
            if path.len() > usize::from(DEPTH_MAX) {
                if is_alone {
                    break;
                }
                return Err(broken("a walk to the root is too long"));
            }
            match find(kv, drive, last.shown.parent)? {
                Some(above) => path.push(above),
                None if is_alone => break,
                None => return Err(broken("an entry has no parent")),
            }
        }
        Ok(Some(Self { drive, path }))
    }

    pub(crate) fn record(&self) -> &EntryRecord {
        // `new` puts the entry first and nothing takes it away.
        &self.path[0]
    }

    pub(crate) fn into_record(mut self) -> EntryRecord {
        self.path.swap_remove(0)
    }

    /// What was trashed or detached first on the way up decides: the rest is only where it once was.
    fn standing(&self) -> Standing {
        let mut standings = self.path.iter().map(|record| record.standing);
        standings
            .find(|standing| *standing != Standing::Attached)
            .unwrap_or(Standing::Attached)
    }

    pub(crate) fn is_in_trash(&self) -> bool {
        matches!(self.standing(), Standing::Trashed { .. })
    }

    pub(crate) fn is_detached(&self) -> bool {
        matches!(self.standing(), Standing::Detached { .. })
    }

    pub(crate) fn holds(&self, number: u64) -> bool {
        self.path.iter().any(|record| record.shown.number == number)
    }

    /// Folders above the entry.
    pub(crate) fn depth(&self) -> u16 {
        u16::try_from(self.path.len().saturating_sub(1)).unwrap_or(u16::MAX)
    }

    /// The entry and the folders above it, upwards.
    pub(crate) fn upwards(&self) -> &[EntryRecord] {
        &self.path
    }

    /// The scopes that hold the entry, itself included.
    pub(crate) fn scopes(&self) -> Vec<u64> {
        self.path
            .iter()
            .filter(|record| record.is_scope)
            .map(|record| record.shown.number)
            .collect()
    }

    /// The absolute path; of what outlived its folder, as much of it as is known.
    pub(crate) fn path_text(&self) -> String {
        let names: Vec<&str> = self
            .path
            .iter()
            .rev()
            .filter(|record| record.shown.number != ROOT_ENTRY)
            .map(|record| record.shown.name.as_str())
            .collect();
        format!("/{}", names.join("/"))
    }

    pub(crate) fn view(&self) -> EntryView {
        let record = self.record();
        let trashed_at = match record.standing {
            Standing::Trashed { wall, .. } => Some(wall),
            Standing::Attached | Standing::Detached { .. } => None,
        };
        EntryView {
            entry: record.shown.entry(self.drive, trashed_at),
            path: self.path_text(),
            is_in_trash: self.is_in_trash(),
        }
    }
}

/// The walk from an entry that exists for users, in the trash too; `not_found` otherwise.
pub(crate) fn walk(kv: &dyn KvRead, entry: EntryId) -> Outcome<Walk> {
    let walk = Walk::new(kv, entry.drive, entry.number)?.ok_or(&codes::NOT_FOUND)?;
    require(!walk.is_detached(), &codes::NOT_FOUND)?;
    Ok(walk)
}

/// The walk from a folder that takes new children: there, not in the trash, a folder.
pub(crate) fn walk_folder(kv: &dyn KvRead, folder: EntryId) -> Outcome<Walk> {
    let walk = Walk::new(kv, folder.drive, folder.number)?.ok_or(&codes::PARENT_NOT_FOUND)?;
    require(!walk.is_detached(), &codes::PARENT_NOT_FOUND)?;
    require(walk.record().is_folder(), &codes::PARENT_NOT_FOLDER)?;
    require(!walk.is_in_trash(), &codes::IN_TRASH)?;
    Ok(walk)
}

/// How far a path leads: the number of the last entry that is there, and the names that are not.
pub(crate) struct Found<'p> {
    pub(crate) last: u64,
    pub(crate) is_folder: bool,
    pub(crate) missing: &'p [EntryName],
}

/// Walks a path downwards as far as it is there.
pub(crate) fn follow<'p>(kv: &dyn KvRead, drive: DriveId, path: &'p DrivePath) -> Outcome<Found<'p>> {
    let mut found = Found {
        last: ROOT_ENTRY,
        is_folder: true,
        missing: path.names(),
    };
    while let [name, rest @ ..] = found.missing {
        if !found.is_folder {
            break;
        }
        let Some(child) = load::<Shown>(kv, &keys::child(drive, found.last, &name.key()))? else {
            break;
        };
        found = Found {
            last: child.number,
            is_folder: child.entry_type == EntryType::Folder,
            missing: rest,
        };
    }
    Ok(found)
}

/// The walk from an entry by id or path; `not_found` when there is none.
pub(crate) fn resolve(kv: &dyn KvRead, drive: DriveId, entry: &EntryRef) -> Outcome<Walk> {
    match entry {
        EntryRef::Id(id) => {
            require(id.drive == drive, &codes::NOT_FOUND)?;
            walk(kv, *id)
        }
        EntryRef::Path(path) => {
            let found = follow(kv, drive, path)?;
            require(found.missing.is_empty(), &codes::NOT_FOUND)?;
            walk(
                kv,
                EntryId {
                    drive,
                    number: found.last,
                },
            )
        }
    }
}
