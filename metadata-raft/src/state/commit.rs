//! The commit: a content becomes a version.
//!
//! Invariants: the first of two commits on one base version wins, whatever their clocks say; equal content is no conflict and makes no
//! version; a refused commit leaves neither entry nor version nor reference.

use crate::state::block;
use crate::state::change::{self, Actor};
use crate::state::children;
use crate::state::drive::{self, DriveRecord};
use crate::state::entry::{self, EntryRecord, Walk};
use crate::state::page;
use crate::state::retention;
use crate::state::store::{Outcome, Stop, broken, require};
use crate::state::stripe;
use crate::state::tree::{self, AtPlace, NewEntry, NewPlace};
use crate::state::usage;
use crate::state::version::{self, PageRef, VersionRecord};
use kv::overlay::Overlay;
use kv::seam::KvRead;
use model::authorize::Action;
use model::digest::Digest;
use model::entry::{BlockRow, EntryType};
use model::id::{DriveId, EntryId, ROOT_ENTRY};
use model::limits::{COMMAND_OPERATIONS_MAX, CONTENT_TYPE_BYTES_MAX, FILE_BYTES_MAX};
use protocol::codes;
use protocol::metadata::query::ChangeType;
use protocol::metadata::upload::{Committed, DirectContent, PageRows, Survival, UploadTarget};

/// What a content becomes a version of.
pub(crate) enum Goal {
    /// A file that is there; its base version is the present one or its content is equal.
    Known(Walk),
    /// A file to be made.
    New(NewPlace),
}

/// Everything about a commit but its pages.
pub(crate) struct Intent<'a> {
    pub(crate) drive: DriveId,
    pub(crate) target: &'a UploadTarget,
    pub(crate) base_version: Option<u64>,
    pub(crate) fresh: &'a [u64],
    pub(crate) content_type: Option<&'a str>,
    pub(crate) survival: Survival,
    pub(crate) size: u64,
    pub(crate) digest: Digest,
}

/// Refuses a content type that passes its limit.
pub(crate) fn require_content_type(content_type: Option<&str>) -> Outcome<()> {
    require(
        content_type.is_none_or(|text| text.len() <= CONTENT_TYPE_BYTES_MAX),
        &codes::MALFORMED_COMMAND,
    )
}

/// Finds what a content is for and refuses a stale base version, unless the content equals the present one.
pub(crate) fn goal(
    kv: &dyn KvRead,
    drive: DriveId,
    target: &UploadTarget,
    base_version: Option<u64>,
    digest: Option<Digest>,
) -> Outcome<Goal> {
    let walk = match target {
        UploadTarget::Entry(id) => {
            require(id.drive == drive, &codes::CROSS_DRIVE)?;
            require(base_version.is_some(), &codes::BASE_VERSION_MISSING)?;
            entry::walk(kv, *id)?
        }
        UploadTarget::Place { place, with_parents } => match tree::at_place(kv, drive, place, *with_parents)? {
            AtPlace::Taken(walk) => walk,
            AtPlace::Free(_) if base_version.is_some_and(|base| base > 0) => return Err((&codes::NOT_FOUND).into()),
            AtPlace::Free(place) => return Ok(Goal::New(place)),
        },
    };
    let existing = EntryId {
        drive,
        number: walk.record().shown.number,
    };
    let Some(base) = base_version.filter(|base| *base > 0) else {
        return Err(codes::NAME_TAKEN.failure().with("existing", existing).into());
    };
    require(!walk.record().is_folder(), &codes::NOT_A_FILE)?;
    require(!walk.is_in_trash(), &codes::IN_TRASH)?;
    let shown = &walk.record().shown;
    if base != shown.version && (digest.is_none() || digest != shown.digest) {
        return Err(codes::VERSION_CONFLICT
            .failure()
            .with("existing", existing)
            .with("version", shown.version)
            .into());
    }
    Ok(Goal::Known(walk))
}

/// Refuses a content before its first byte when its commit would surely be refused.
///
/// A stale base version is such a refusal only where the declared length shows that the content is another than the present one.
/// The quota is judged against the declared length alone: how much of a content the drive has already is not known yet.
pub(crate) fn foresee(
    kv: &dyn KvRead,
    drive: &DriveRecord,
    target: &UploadTarget,
    base_version: Option<u64>,
    declared_bytes: Option<u64>,
) -> Outcome<()> {
    if let Some(declared) = declared_bytes {
        require(declared <= FILE_BYTES_MAX, &codes::FILE_TOO_LARGE)?;
        usage::require_declared(kv, drive, declared)?;
    }
    let refusal = match goal(kv, drive.drive, target, base_version, None) {
        Ok(_) => return Ok(()),
        Err(Stop::Refused(refusal)) => refusal,
        Err(stop @ Stop::Store(_)) => return Err(stop),
    };
    if codes::VERSION_CONFLICT.is(&refusal) {
        let size = present_size(kv, drive.drive, target)?;
        if declared_bytes.is_none() || size.is_none() || declared_bytes == size {
            return Ok(());
        }
    }
    Err(Stop::Refused(refusal))
}

/// The length of what a target holds at present; `None` when nothing is there.
fn present_size(kv: &dyn KvRead, drive: DriveId, target: &UploadTarget) -> Outcome<Option<u64>> {
    let walk = match target {
        UploadTarget::Entry(id) => entry::walk(kv, *id)?,
        UploadTarget::Place { place, with_parents } => match tree::at_place(kv, drive, place, *with_parents)? {
            AtPlace::Taken(walk) => walk,
            AtPlace::Free(_) => return Ok(None),
        },
    };
    Ok(Some(walk.record().shown.size))
}

/// `CommitUpload`.
pub(crate) fn direct(
    tx: &mut Overlay<'_>,
    actor: Actor<'_>,
    intent: &Intent<'_>,
    content: &DirectContent,
) -> Outcome<Committed> {
    let mut drive = drive::authorised(&*tx, intent.drive, actor.principal, Action::Write)?;
    require_content_type(intent.content_type)?;
    require_sums(content)?;
    let goal = goal(
        &*tx,
        intent.drive,
        intent.target,
        intent.base_version,
        Some(intent.digest),
    )?;
    if let Goal::Known(walk) = &goal
        && walk.record().shown.digest == Some(intent.digest)
    {
        return unchanged(&*tx, &drive, actor, intent, walk);
    }
    let before = usage::get(&*tx, intent.drive)?;
    for new in &content.stripes {
        stripe::enter(tx, actor.now, &mut drive, new)?;
    }
    if let Some(inline) = &content.inline {
        block::enter_inline(tx, actor.now, &mut drive, inline)?;
    }
    let all: Vec<BlockRow> = content
        .pages
        .iter()
        .flat_map(|page| page.rows.iter().copied())
        .collect();
    let mut found = page::find_blocks(&*tx, intent.drive, &all)?;
    let mut pages = Vec::with_capacity(content.pages.len());
    for page in &content.pages {
        let rest = found.split_off(page.rows.len());
        pages.push(page::hold(tx, actor.now, intent.drive, page.digest, &found, false)?);
        found = rest;
    }
    let committed = finish(tx, &mut drive, actor, intent, goal, pages)?;
    usage::require_quota(&*tx, &drive, &before)?;
    Ok(committed)
}

fn require_sums(content: &DirectContent) -> Outcome<()> {
    let rows = require_rows(content.size, &content.pages)?;
    let blocks: usize = content.stripes.iter().map(|stripe| 1 + stripe.blocks.len()).sum();
    let operations = blocks + rows + usize::from(content.inline.is_some());
    require(operations <= COMMAND_OPERATIONS_MAX, &codes::COMMAND_TOO_LARGE)
}

/// Refuses rows that are not `size` bytes together; answers how many there are.
pub(crate) fn require_rows(size: u64, pages: &[PageRows]) -> Outcome<usize> {
    require(size <= FILE_BYTES_MAX, &codes::FILE_TOO_LARGE)?;
    let rows = pages.iter().flat_map(|page| &page.rows);
    let bytes: u64 = rows.clone().map(|row| u64::from(row.size)).sum();
    require(
        bytes == size && rows.clone().all(|row| row.size > 0),
        &codes::SIZE_MISMATCH,
    )?;
    Ok(rows.count())
}

/// The answer when the content is there already.
pub(crate) fn unchanged(
    kv: &dyn KvRead,
    drive: &DriveRecord,
    actor: Actor<'_>,
    intent: &Intent<'_>,
    walk: &Walk,
) -> Outcome<Committed> {
    let shown = &walk.record().shown;
    let record = version::find(kv, drive.drive, shown.number, shown.version)?
        .ok_or_else(|| broken("a file has no current version"))?;
    Ok(Committed {
        view: walk.view(),
        version: record.version(),
        is_new_entry: false,
        is_new_version: false,
        position: change::position(kv, drive, ROOT_ENTRY)?,
        survival: intent.survival,
        time: actor.now.wall,
    })
}

/// Makes the version and, if need be, the file. The pages are held already.
pub(crate) fn finish(
    tx: &mut Overlay<'_>,
    drive: &mut DriveRecord,
    actor: Actor<'_>,
    intent: &Intent<'_>,
    goal: Goal,
    pages: Vec<PageRef>,
) -> Outcome<Committed> {
    let (mut record, is_new_entry) = match goal {
        Goal::Known(walk) => (walk.into_record(), false),
        Goal::New(place) => {
            let content_type = intent.content_type.map(str::to_owned);
            let new = NewEntry {
                entry_type: EntryType::File,
                content_type,
            };
            (tree::create(tx, drive, actor, place, intent.fresh, &new)?, true)
        }
    };
    let version = write_version(tx, intent, actor, &mut record, pages)?;
    let entry_id = EntryId {
        drive: drive.drive,
        number: record.shown.number,
    };
    if !is_new_entry {
        record.shown.revision = record.shown.revision.saturating_add(1);
    }
    entry::put(tx, drive.drive, &record)?;
    children::show(tx, drive.drive, &record.shown)?;
    let walk = entry::walk(&*tx, entry_id)?;
    let scopes = walk.scopes();
    let (change, before) = if is_new_entry {
        (ChangeType::Created, &[][..])
    } else {
        (ChangeType::Updated, scopes.as_slice())
    };
    change::record(tx, drive, actor, change, &record.shown, (before, &scopes))?;
    Ok(Committed {
        view: walk.view(),
        version: version.version(),
        is_new_entry,
        is_new_version: true,
        position: change::position(&*tx, drive, ROOT_ENTRY)?,
        survival: intent.survival,
        time: actor.now.wall,
    })
}

fn write_version(
    tx: &mut Overlay<'_>,
    intent: &Intent<'_>,
    actor: Actor<'_>,
    record: &mut EntryRecord,
    pages: Vec<PageRef>,
) -> Outcome<VersionRecord> {
    let shown = &mut record.shown;
    if shown.version > 0 {
        retention::supersede(tx, actor.now, intent.drive, shown.number, shown.version)?;
    }
    shown.version = shown
        .version
        .checked_add(1)
        .ok_or_else(|| broken("version numbers are used up"))?;
    shown.size = intent.size;
    shown.digest = Some(intent.digest);
    shown.modified_at = actor.now.wall;
    shown.modified_by = actor.principal.user;
    if intent.content_type.is_some() {
        shown.content_type = intent.content_type.map(str::to_owned);
    }
    let taken = version::find(&*tx, intent.drive, shown.number, shown.version)?;
    if taken.is_some() {
        return Err(broken("a version number is taken"));
    }
    let version = VersionRecord {
        number: shown.version,
        size: intent.size,
        digest: intent.digest,
        created_at: actor.now.wall,
        created_by: actor.principal.user,
        device: actor.principal.device,
        pages,
    };
    version::put(tx, intent.drive, shown.number, &version)?;
    Ok(version)
}
