//! `CommitBatch`: many small files by one command, each judged as a commit of its own would be.
//!
//! The stripes come first, for all files together; then file by file, each in an overlay of its own that sees what those before it
//! made and is dropped when the file is refused.
//! Invariants: a refused file leaves nothing, neither entry nor reference nor a block that came with it; the quota is judged as if
//! the files behind had not been sent; what a gateway can mend refuses the whole command, in both ways of asking.
//! Not here: what a commit does (`commit`).

use crate::state::age::Now;
use crate::state::block;
use crate::state::change::{self, Actor};
use crate::state::commit::{self, Goal, Intent};
use crate::state::drive::{self, DriveRecord};
use crate::state::page;
use crate::state::store::{Outcome, Stop, broken, require};
use crate::state::stripe;
use crate::state::usage::{self, UsageRecord};
use kv::overlay::Overlay;
use model::authorize::Action;
use model::digest::Digest;
use model::error_kind::ErrorKind;
use model::id::{EntryId, ROOT_ENTRY};
use model::limits::{COMMAND_BYTES_MAX, COMMAND_OPERATIONS_MAX};
use protocol::codes;
use protocol::metadata::file_batch::{BatchCommitted, BatchedFile, FileBatch, FileOutcome};
use protocol::metadata::upload::{Committed, NewStripe};
use protocol::wire_error::Failure;
use std::collections::BTreeMap;

/// Rows of all files of a batch together: twice as many as files leaves room for those of more than one block.
const ROWS_MAX: usize = 2 * COMMAND_OPERATIONS_MAX;
/// The answer is sent in a frame's head, of at most 2 MiB, and kept for a repeat. Paths of folders make it long: a file may be told
/// by its folder's id, so no bound of the command bounds them.
const ANSWER_BYTES_MAX: usize = COMMAND_BYTES_MAX + COMMAND_BYTES_MAX / 2;
/// What a file takes of it beside its texts, at most.
const OUTCOME_BYTES: usize = 256;

/// What files of one batch know of each other.
struct Turn<'a> {
    batch: &'a FileBatch,
    actor: Actor<'a>,
    /// The usage before the command.
    before: UsageRecord,
    untaken: Untaken,
    folders: Folders,
    /// Folders that were made above files.
    made: usize,
    answer_bytes: usize,
}

/// What a file's commit gave, before it is the command's.
struct Placed {
    committed: Committed,
    made: usize,
    answer_bytes: usize,
}

/// Blocks that came with the command and that no file has taken yet.
#[derive(Default)]
struct Untaken {
    sizes: BTreeMap<Digest, u32>,
    bytes: u64,
}

impl Untaken {
    fn insert(&mut self, digest: Digest, size: u32) {
        if self.sizes.insert(digest, size).is_none() {
            self.bytes += u64::from(size);
        }
    }

    fn remove(&mut self, digest: &Digest) {
        if let Some(size) = self.sizes.remove(digest) {
            self.bytes -= u64::from(size);
        }
    }

    /// Bytes that stay untaken when `file` takes its own.
    fn bytes_without(&self, file: &BatchedFile) -> u64 {
        let rows = file.pages.iter().flat_map(|page| &page.rows);
        let mut taken: Vec<Digest> = rows.map(|row| row.digest).collect();
        taken.sort_unstable();
        taken.dedup();
        let sizes = taken.iter().filter_map(|digest| self.sizes.get(digest));
        self.bytes - sizes.map(|size| u64::from(*size)).sum::<u64>()
    }
}

/// The folders of new files, each once.
#[derive(Default)]
struct Folders {
    places: BTreeMap<u64, u32>,
    listed: Vec<(u64, String)>,
}

impl Folders {
    fn place(&mut self, number: u64, path: impl FnOnce() -> String) -> u32 {
        *self.places.entry(number).or_insert_with(|| {
            let place = u32::try_from(self.listed.len()).unwrap_or(u32::MAX);
            self.listed.push((number, path()));
            place
        })
    }
}

/// `CommitBatch`.
pub(crate) fn commit(tx: &mut Overlay<'_>, now: &Now, batch: &FileBatch) -> Outcome<BatchCommitted> {
    let mut drive = drive::authorised(&*tx, batch.drive, &batch.principal, Action::Write)?;
    require_bounds(batch)?;
    let before = usage::get(&*tx, batch.drive)?;
    let untaken = enter(tx, now, &mut drive, &batch.stripes)?;
    let mut turn = Turn {
        batch,
        actor: Actor {
            principal: &batch.principal,
            now,
        },
        before,
        untaken,
        folders: Folders::default(),
        made: 0,
        answer_bytes: 0,
    };
    let mut files = Vec::with_capacity(batch.files.len());
    for (at, file) in batch.files.iter().enumerate() {
        files.push(match turn.take(tx, &mut drive, file) {
            Ok(outcome) => outcome,
            Err(Stop::Refused(failure)) if !batch.is_atomic && is_its_own(&failure) => FileOutcome::refused(*failure),
            Err(Stop::Refused(failure)) => return Err(failure.with("item", at).into()),
            Err(stop @ Stop::Store(_)) => return Err(stop),
        });
    }
    for digest in turn.untaken.sizes.keys() {
        let (id, record) =
            block::find(&*tx, batch.drive, *digest)?.ok_or_else(|| broken("a block of the command is not there"))?;
        block::die(tx, batch.drive, id, &record)?;
    }
    drive::put(tx, &drive)?;
    usage::require_quota(&*tx, &drive, &turn.before)?;
    Ok(BatchCommitted {
        files,
        folders: turn.folders.listed,
        position: change::position(&*tx, &drive, ROOT_ENTRY)?,
        survival: batch.survival,
        time: now.wall,
    })
}

fn require_bounds(batch: &FileBatch) -> Outcome<()> {
    require(!batch.files.is_empty(), &codes::MALFORMED_COMMAND)?;
    let pages = batch.files.iter().flat_map(|file| &file.pages);
    let rows: usize = pages.map(|page| page.rows.len()).sum();
    let blocks: usize = batch.stripes.iter().map(|stripe| stripe.blocks.len()).sum();
    let is_within = batch.files.len() <= COMMAND_OPERATIONS_MAX && rows <= ROWS_MAX && blocks <= ROWS_MAX;
    require(is_within, &codes::COMMAND_TOO_LARGE)
}

/// Whether a refusal says something about its file alone. What a gateway makes good by sending the command again, and what is
/// nobody's mistake, is about all of them.
fn is_its_own(failure: &Failure) -> bool {
    let is_about_the_file = matches!(
        failure.kind,
        ErrorKind::NotFound
            | ErrorKind::Exists
            | ErrorKind::Conflict
            | ErrorKind::Denied
            | ErrorKind::Invalid
            | ErrorKind::TooLarge
            | ErrorKind::Exhausted
    );
    is_about_the_file && !codes::NEED_BLOCKS.is(failure)
}

/// Names the stripes; answers the blocks that are new with them.
fn enter(tx: &mut Overlay<'_>, now: &Now, drive: &mut DriveRecord, stripes: &[NewStripe]) -> Outcome<Untaken> {
    let mut unknown = Vec::new();
    for new in stripes.iter().flat_map(|stripe| &stripe.blocks) {
        if block::find(&*tx, drive.drive, new.row.digest)?.is_none() {
            unknown.push(new.row);
        }
    }
    for new in stripes {
        stripe::enter(tx, now, drive, new)?;
    }
    let mut untaken = Untaken::default();
    for row in unknown {
        // A stripe that was known already entered nothing.
        if block::find(&*tx, drive.drive, row.digest)?.is_some() {
            untaken.insert(row.digest, row.size);
        }
    }
    Ok(untaken)
}

impl Turn<'_> {
    /// Commits one file; refused, it leaves nothing behind.
    fn take(&mut self, tx: &mut Overlay<'_>, drive: &mut DriveRecord, file: &BatchedFile) -> Outcome<FileOutcome> {
        let mut own_drive = drive.clone();
        let mut own = Overlay::new(&*tx);
        let Placed {
            committed,
            made,
            answer_bytes,
        } = self.place(&mut own, &mut own_drive, file)?;
        tx.absorb(own.into_batch());
        *drive = own_drive;
        self.made += made;
        self.answer_bytes += answer_bytes;
        if committed.is_new_version {
            let rows = file.pages.iter().flat_map(|page| &page.rows);
            rows.for_each(|row| self.untaken.remove(&row.digest));
        }
        self.outcome(committed)
    }

    /// The commit itself, within the bounds of the command.
    fn place(&self, own: &mut Overlay<'_>, drive: &mut DriveRecord, file: &BatchedFile) -> Outcome<Placed> {
        let (committed, made) = self.commit(own, drive, file)?;
        let answer_bytes = self.answer_bytes_of(&committed);
        let is_within = self.answer_bytes + answer_bytes <= ANSWER_BYTES_MAX;
        require(is_within, &codes::COMMAND_TOO_LARGE)?;
        Ok(Placed {
            committed,
            made,
            answer_bytes,
        })
    }

    fn answer_bytes_of(&self, committed: &Committed) -> usize {
        let entry = &committed.view.entry;
        let is_listed = |folder: &EntryId| self.folders.places.contains_key(&folder.number);
        let texts = if !committed.is_new_entry {
            let content_type = entry.content_type.as_ref().map_or(0, String::len);
            committed.view.path.len() + entry.name.len() + content_type
        } else if entry.parent.as_ref().is_some_and(is_listed) {
            0
        } else {
            committed.view.path.len()
        };
        OUTCOME_BYTES + texts
    }

    /// The commit, and how many folders it made.
    fn commit(
        &self,
        own: &mut Overlay<'_>,
        drive: &mut DriveRecord,
        file: &BatchedFile,
    ) -> Outcome<(Committed, usize)> {
        commit::require_content_type(file.content_type.as_deref())?;
        commit::require_rows(file.size, &file.pages)?;
        let intent = Intent {
            drive: drive.drive,
            target: &file.target,
            base_version: file.base_version,
            fresh: &file.fresh,
            content_type: file.content_type.as_deref(),
            survival: self.batch.survival,
            size: file.size,
            digest: file.digest,
        };
        let goal = commit::goal(&*own, drive.drive, &file.target, file.base_version, Some(file.digest))?;
        let made = match &goal {
            Goal::Known(walk) if walk.record().shown.digest == Some(file.digest) => {
                return Ok((commit::unchanged(&*own, drive, self.actor, &intent, walk)?, 0));
            }
            Goal::Known(_) => 0,
            Goal::New(place) => place.parents.len(),
        };
        require(self.made + made <= COMMAND_OPERATIONS_MAX, &codes::COMMAND_TOO_LARGE)?;
        let mut pages = Vec::with_capacity(file.pages.len());
        for page in &file.pages {
            let found = page::find_blocks(&*own, drive.drive, &page.rows)?;
            pages.push(page::hold(
                own,
                self.actor.now,
                drive.drive,
                page.digest,
                &found,
                false,
            )?);
        }
        let committed = commit::finish(own, drive, self.actor, &intent, goal, pages)?;
        let left = self.untaken.bytes_without(file);
        usage::require_quota_without(&*own, drive, &self.before, left)?;
        Ok((committed, made))
    }

    fn outcome(&mut self, committed: Committed) -> Outcome<FileOutcome> {
        let Committed {
            view,
            is_new_entry,
            is_new_version,
            ..
        } = committed;
        if !is_new_entry {
            return Ok(FileOutcome::Known {
                view: Box::new(view),
                is_new_version,
            });
        }
        let entry = &view.entry;
        let parent = entry.parent.ok_or_else(|| broken("a file has no folder"))?;
        let above = view.path.len().saturating_sub(entry.name.len() + 1);
        let folder = self
            .folders
            .place(parent.number, || view.path.get(..above).unwrap_or_default().to_owned());
        Ok(FileOutcome::New {
            number: entry.id.number,
            folder,
        })
    }
}
