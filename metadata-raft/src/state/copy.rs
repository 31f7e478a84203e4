//! Copying inside a drive: new entries whose versions hold the pages that are there.
//!
//! Invariants: no block is read, written or charged; a copy is there as a whole or not at all, and the feed is told of its root alone,
//! as of a folder that is moved; what is copied of a file is its current version.
//! Not here: folders that pass one command (they are refused here, and `copy_job` takes them), copies between drives.

use crate::state::change::{self, Actor};
use crate::state::children;
use crate::state::drive::{self, DriveRecord};
use crate::state::entry::{self, EntryRecord, Shown, Walk, stored_name};
use crate::state::keys;
use crate::state::page;
use crate::state::store::{Outcome, broken, list, require};
use crate::state::tree::{self, AtPlace, NewEntry, NewPlace};
use crate::state::version::{self, VersionRecord};
use kv::overlay::Overlay;
use kv::seam::KvRead;
use model::authorize::Action;
use model::entry::EntryType;
use model::hash::stable_hash;
use model::id::{DriveId, EntryId, ROOT_ENTRY};
use model::limits::COMMAND_OPERATIONS_MAX;
use protocol::codes;
use protocol::metadata::drive::{EntryChanged, Place};
use protocol::metadata::query::ChangeType;

/// Children read at a time.
const CHILDREN_RUN: usize = 64;

/// Where a copy goes, and the numbers of what is made.
pub(crate) struct CopyTo<'a> {
    pub(crate) place: &'a Place,
    pub(crate) with_parents: bool,
    pub(crate) fresh: &'a [u64],
    pub(crate) seed: u64,
}

/// `CopyEntry`.
pub(crate) fn copy(tx: &mut Overlay<'_>, actor: Actor<'_>, id: EntryId, to: &CopyTo<'_>) -> Outcome<EntryChanged> {
    let mut drive = drive::authorised(&*tx, id.drive, actor.principal, Action::Write)?;
    let (source, place) = ends(&*tx, id, to)?;
    let new = new_entry(&source.shown);
    let made = tree::create(tx, &mut drive, actor, place, to.fresh, &new)?;
    let number = made.shown.number;
    let mut copying = Copying {
        tx,
        drive: &drive,
        actor,
        seed: to.seed,
        drawn: 0,
        left: COMMAND_OPERATIONS_MAX,
    };
    copying.fill(&source.shown, made)?;
    let walk = entry::walk(&*tx, EntryId { number, ..id })?;
    let scopes = walk.scopes();
    let shown = &walk.record().shown;
    change::record(tx, &mut drive, actor, ChangeType::Created, shown, (&[], &scopes))?;
    tree::answer(&*tx, &drive, number)
}

/// What is copied and where to, both as they must be for a copy to begin.
pub(crate) fn ends(kv: &dyn KvRead, id: EntryId, to: &CopyTo<'_>) -> Outcome<(EntryRecord, NewPlace)> {
    let source = entry::walk(kv, id)?;
    require(id.number != ROOT_ENTRY, &codes::ROOT_FIXED)?;
    require(!source.is_in_trash(), &codes::IN_TRASH)?;
    let place = match tree::at_place(kv, id.drive, to.place, to.with_parents)? {
        AtPlace::Free(place) => place,
        AtPlace::Taken(walk) => {
            let number = walk.record().shown.number;
            let existing = EntryId { number, ..id };
            return Err(codes::NAME_TAKEN.failure().with("existing", existing).into());
        }
    };
    require(!place.folder.holds(id.number), &codes::CYCLE)?;
    let source = source.into_record();
    let above = u16::try_from(place.parents.len()).unwrap_or(u16::MAX);
    children::require_room(&place.folder, &place.name, source.height.saturating_add(above))?;
    Ok((source, place))
}

/// The current version of a file.
pub(crate) fn current(kv: &dyn KvRead, drive: DriveId, shown: &Shown) -> Outcome<VersionRecord> {
    let version = version::find(kv, drive, shown.number, shown.version)?;
    version.ok_or_else(|| broken("a file has no current version"))
}

/// Gives a file that was made by a copy this content, as its first and only version.
pub(crate) fn give(
    tx: &mut Overlay<'_>,
    drive: DriveId,
    actor: Actor<'_>,
    content: VersionRecord,
    mut made: EntryRecord,
) -> Outcome<()> {
    for page in &content.pages {
        page::hold_known(tx, drive, page.digest)?;
    }
    let first = VersionRecord {
        number: 1,
        created_at: actor.now.wall,
        created_by: actor.principal.user,
        device: actor.principal.device,
        ..content
    };
    made.shown.version = first.number;
    made.shown.size = first.size;
    made.shown.digest = Some(first.digest);
    version::put(tx, drive, made.shown.number, &first)?;
    entry::put(tx, drive, &made)?;
    children::show(tx, drive, &made.shown)
}

/// As what the copy of an entry is made.
pub(crate) fn new_entry(source: &Shown) -> NewEntry {
    NewEntry {
        entry_type: source.entry_type,
        content_type: source.content_type.clone(),
    }
}

/// A copy under way in one command.
struct Copying<'t, 'o, 'a> {
    tx: &'t mut Overlay<'o>,
    drive: &'a DriveRecord,
    actor: Actor<'a>,
    seed: u64,
    drawn: u64,
    left: usize,
}

impl Copying<'_, '_, '_> {
    /// Gives an entry that was just made the content of `source`, with all below it.
    fn fill(&mut self, source: &Shown, made: EntryRecord) -> Outcome<()> {
        let mut folders = Vec::new();
        self.fill_one(source, made, &mut folders)?;
        while let Some((from, to)) = folders.pop() {
            self.fill_folder(from, to, &mut folders)?;
        }
        Ok(())
    }

    /// `folders` gets those that are still empty: the number of the one to be copied and of its copy.
    fn fill_one(&mut self, source: &Shown, made: EntryRecord, folders: &mut Vec<(u64, u64)>) -> Outcome<()> {
        match source.entry_type {
            EntryType::File => self.fill_file(source, made),
            EntryType::Folder => {
                self.spend(1)?;
                folders.push((source.number, made.shown.number));
                Ok(())
            }
        }
    }

    fn fill_folder(&mut self, from: u64, to: u64, folders: &mut Vec<(u64, u64)>) -> Outcome<()> {
        let id = self.drive.drive;
        let folder = Walk::new(&*self.tx, id, to)?.ok_or_else(|| broken("a new folder is not there"))?;
        let prefix = keys::children(id, from).done();
        let mut after = None;
        loop {
            let run = list::<Shown>(&*self.tx, &prefix, after.as_deref(), CHILDREN_RUN)?;
            let Some((last, _)) = run.last() else {
                return Ok(());
            };
            after = Some(last.clone());
            for (_, child) in &run {
                let (name, number, new) = (stored_name(&child.name)?, self.draw(), new_entry(child));
                let made = tree::create_one(self.tx, self.drive, self.actor, &folder, &name, number, &new)?;
                self.fill_one(child, made, folders)?;
            }
        }
    }

    fn fill_file(&mut self, source: &Shown, made: EntryRecord) -> Outcome<()> {
        let id = self.drive.drive;
        let content = current(&*self.tx, id, source)?;
        self.spend(1 + content.pages.len())?;
        give(self.tx, id, self.actor, content, made)
    }

    fn spend(&mut self, operations: usize) -> Outcome<()> {
        self.left = self.left.checked_sub(operations).ok_or(&codes::COPY_TOO_LARGE)?;
        Ok(())
    }

    /// A number for the next entry; one that is taken is refused, and another seed draws others.
    fn draw(&mut self) -> u64 {
        self.drawn += 1;
        stable_hash(&[self.seed.to_le_bytes(), self.drawn.to_le_bytes()].concat()).max(ROOT_ENTRY + 1)
    }
}
