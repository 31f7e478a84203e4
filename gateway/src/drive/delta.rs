//! Delta sync: a client says of which blocks its new content consists, sends those that the drive lacks, and commits.
//!
//! The list is kept with the session in the drive's group, so any gateway commits what another one began. A commit takes its rows
//! from the list; pages that the drive has are taken by their digest alone.
//! Invariants: what is missing is looked up in the drive of the target and nowhere else, in the name of the caller; a commit names
//! nothing that the drive does not have at that moment; a repeated commit gets the first answer.
//! Not here: the blocks' bytes (`upload::single`), lists of versions (`delta::list`).

mod commit;
mod list;

use crate::codes;
use crate::drive::account::CUT;
use crate::drive::tree::drive_of;
use crate::drive::upload::batch::NOTHING_LOST;
use crate::drive::upload::session::end;
use crate::drive::upload::single::require_block_size;
use crate::drive::{Caller, Core, expect};
use api::sync::{Block, Splice as WireSplice, SyncRequest};
use codec::delta::{Splice, SpliceError, applied};
use futures_util::stream::{self, StreamExt, TryStreamExt};
use model::digest::Digest;
use model::entry::BlockRow;
use model::id::{DriveId, EntryId, UploadId};
use model::limits::FILE_BLOCKS_MAX;
use protocol::codes as group_codes;
use protocol::metadata::drive::EntryRef;
use protocol::metadata::query::{DriveAsk, DriveFacts, FIND_BLOCKS_MAX};
use protocol::metadata::upload::{ANNOUNCED_ROWS_MAX, Survival, UploadCommand, UploadTarget};
use protocol::metadata::{Command, CommandAnswer, QueryAnswer, RequestKey};
use protocol::wire_error::Failure;
use std::collections::{BTreeMap, BTreeSet};

/// Questions about one list that are under way at once: they keep a replica's threads busy and not the whole of it.
const QUESTIONS_AT_ONCE: usize = 4;

/// What a new content consists of and what it is for.
pub struct SyncOrder {
    /// To what.
    pub target: UploadTarget,
    /// The version that the content follows.
    pub base_version: Option<u64>,
    /// All blocks by digest, or splices of the base version's list.
    pub wanted: Wanted,
    /// As the client gave it.
    pub content_type: Option<String>,
    /// The client's own request id.
    pub key: Option<RequestKey>,
}

/// A list of blocks as a client tells it.
pub enum Wanted {
    /// Every digest, in order; lengths are not known.
    Hashes(Vec<Digest>),
    /// Against the list of the base version.
    Splices(Vec<Splice>),
}

/// An upload that was begun.
pub struct Synced {
    /// Which.
    pub upload: UploadId,
    /// Blocks that the drive lacks, each once, in the order of the content.
    pub missing: Vec<Digest>,
}

/// What a look into a drive gave.
struct Found {
    sizes: BTreeMap<Digest, u32>,
    survival: Survival,
}

/// A digest as a client gave it.
pub fn digest(text: &str) -> Result<Digest, Failure> {
    Digest::from_hex(text).ok_or_else(|| codes::BAD_DIGEST.failure())
}

/// The list that a request tells.
///
/// Errors: `bad_json` when it tells none or two, `bad_digest`, `bad_splices`, `block_too_large`, `file_too_large`.
pub fn wanted(request: &SyncRequest) -> Result<Wanted, Failure> {
    match (&request.new_block_hashes, &request.splices) {
        (Some(hashes), None) => {
            require_count(hashes.len())?;
            let hashes: Result<_, Failure> = hashes.iter().map(|text| digest(text)).collect();
            hashes.map(Wanted::Hashes)
        }
        (None, Some(splices)) => {
            let splices: Result<_, Failure> = splices.iter().map(splice).collect();
            splices.map(Wanted::Splices)
        }
        _ => Err(codes::BAD_JSON.because("give either `new_block_hashes` or `splices`")),
    }
}

fn require_count(blocks: usize) -> Result<(), Failure> {
    if blocks <= FILE_BLOCKS_MAX {
        return Ok(());
    }
    Err(group_codes::FILE_TOO_LARGE.because(format!("A file has at most {FILE_BLOCKS_MAX} blocks.")))
}

fn splice(splice: &WireSplice) -> Result<Splice, Failure> {
    let row = |block: &Block| {
        require_block_size(u64::from(block.size))?;
        if block.size == 0 {
            return Err(codes::BAD_SPLICES.because("a block has at least one byte"));
        }
        let digest = digest(&block.digest)?;
        Ok(BlockRow {
            digest,
            size: block.size,
        })
    };
    Ok(match splice {
        WireSplice::Keep([first, count]) => Splice::Keep {
            first: *first,
            count: *count,
        },
        WireSplice::Blocks(blocks) => Splice::Blocks(blocks.iter().map(row).collect::<Result<_, Failure>>()?),
    })
}

impl Core {
    /// Begins an upload and says which blocks it lacks.
    ///
    /// Errors: what the commit would surely refuse (`version_conflict` as soon as the base version has passed, whatever the content),
    /// `bad_splices`, `size_mismatch`, `file_too_large`, `quota_exceeded`, `lists_full`, `sessions_full`.
    pub async fn sync(&self, caller: &Caller, order: SyncOrder) -> Result<Synced, Failure> {
        let drive = match &order.target {
            UploadTarget::Entry(entry) => entry.drive,
            UploadTarget::Place { place, .. } => drive_of(place, caller.home),
        };
        let facts = self.foresee_sync(caller, drive, &order).await?;
        let (mut rows, named) = self.rows_of(caller, &order).await?;
        let found = self.look_up(caller, &facts, &named).await?;
        let missing = lacking(&named, &found);
        fill(&mut rows, &found)?;
        let is_told = rows.iter().all(|row| row.size > 0);
        let declared_bytes = is_told.then(|| rows.iter().map(|row| u64::from(row.size)).sum());
        self.require_file_size(declared_bytes)?;
        let upload = UploadId {
            drive,
            number: self.seams.random.u64(),
        };
        let opening = UploadCommand::OpenSession {
            principal: caller.principal,
            upload,
            target: order.target,
            base_version: order.base_version,
            declared_bytes,
            is_resumable: true,
            content_type: order.content_type,
        };
        let may_repeat = order.key.is_some();
        let opened = match self.command(caller, Command::Upload(opening), order.key).await? {
            // A repeat is answered with the upload that the first request opened.
            CommandAnswer::Session(state) => state.upload,
            _ => return expect(None),
        };
        match self.announce(caller, opened, &rows).await {
            // The first request's upload was committed meanwhile: a repeated commit gets its answer.
            Err(failure) if opened != upload && group_codes::SESSION_NOT_FOUND.is(&failure) => {}
            Err(failure) if group_codes::LISTS_FULL.is(&failure) && !may_repeat => {
                // Nobody knows this upload, and the part of its list that went in would take room from others for its age.
                end(self, caller, opened).await;
                return Err(failure);
            }
            done => done?,
        }
        Ok(Synced {
            upload: opened,
            missing,
        })
    }

    async fn foresee_sync(&self, caller: &Caller, drive: DriveId, order: &SyncOrder) -> Result<DriveFacts, Failure> {
        let ask = DriveAsk::Upload {
            target: order.target.clone(),
            base_version: order.base_version,
            declared_bytes: None,
            request: order.key,
        };
        let QueryAnswer::Drive(facts) = self.ask(caller, drive, ask).await? else {
            return expect(None);
        };
        if facts.cut != CUT {
            return Err(Failure::bug(
                "the drive is cut by another table than this release knows",
            ));
        }
        if let UploadTarget::Entry(entry) = order.target {
            let present = self.entry(caller, EntryRef::Id(entry)).await?.entry.version;
            if order.base_version != Some(present) && !self.is_repeat(caller, drive, order).await? {
                return Err(group_codes::VERSION_CONFLICT
                    .failure()
                    .with("existing", entry)
                    .with("version", present));
            }
        }
        Ok(facts)
    }

    /// Whether the first answer to this request is kept. What no file may hold is foreseen to be refused, except to a repeat.
    async fn is_repeat(&self, caller: &Caller, drive: DriveId, order: &SyncOrder) -> Result<bool, Failure> {
        let ask = DriveAsk::Upload {
            target: order.target.clone(),
            base_version: order.base_version,
            declared_bytes: Some(u64::MAX),
            request: order.key,
        };
        match self.ask(caller, drive, ask).await {
            Ok(_) => Ok(true),
            Err(failure) if group_codes::FILE_TOO_LARGE.is(&failure) => Ok(false),
            Err(failure) => Err(failure),
        }
    }

    /// The whole list, and those digests of it that the client named, which may be missing.
    async fn rows_of(&self, caller: &Caller, order: &SyncOrder) -> Result<(Vec<BlockRow>, Vec<Digest>), Failure> {
        let splices = match &order.wanted {
            Wanted::Hashes(hashes) => {
                let row = |digest: &Digest| BlockRow {
                    digest: *digest,
                    size: 0,
                };
                return Ok((hashes.iter().map(row).collect(), hashes.clone()));
            }
            Wanted::Splices(splices) => splices,
        };
        let keeps = splices.iter().any(|splice| matches!(splice, Splice::Keep { .. }));
        let old = match (&order.target, order.base_version) {
            (UploadTarget::Entry(entry), Some(version)) if keeps => self.all_rows(caller, *entry, version).await?,
            _ => Vec::new(),
        };
        let rows = match applied(&old, splices, FILE_BLOCKS_MAX) {
            Ok(rows) => rows,
            Err(SpliceError::TooMany) => {
                require_count(usize::MAX)?;
                Vec::new()
            }
            Err(error @ SpliceError::OutOfRange(_)) => {
                return Err(codes::BAD_SPLICES.because(format!("{error}; it has {}", old.len())));
            }
        };
        let named = splices.iter().filter_map(|splice| match splice {
            Splice::Blocks(rows) => Some(rows.iter().map(|row| row.digest)),
            Splice::Keep { .. } => None,
        });
        Ok((rows, named.flatten().collect()))
    }

    /// Every block of a version.
    async fn all_rows(&self, caller: &Caller, entry: EntryId, version: u64) -> Result<Vec<BlockRow>, Failure> {
        let mut rows = Vec::new();
        loop {
            let part = self.rows_from(caller, entry, Some(version), rows.len() as u64).await?;
            let is_last = part.rows.is_empty();
            rows.extend(part.rows);
            if is_last || rows.len() as u64 >= part.count {
                return Ok(rows);
            }
        }
    }

    /// Looks for blocks in a drive, as its caller.
    async fn look_up(&self, caller: &Caller, facts: &DriveFacts, digests: &[Digest]) -> Result<Found, Failure> {
        let distinct: BTreeSet<Digest> = digests.iter().copied().collect();
        let distinct: Vec<Digest> = distinct.into_iter().collect();
        let questions: Vec<Vec<Digest>> = distinct.chunks(FIND_BLOCKS_MAX).map(<[Digest]>::to_vec).collect();
        let asked = stream::iter(questions).map(|digests| async move {
            match self.ask(caller, facts.drive, DriveAsk::FindBlocks(digests)).await? {
                QueryAnswer::Blocks(found) => {
                    let survival = self.found_survival(caller, facts, &found).await?;
                    Ok::<_, Failure>((found, survival))
                }
                _ => expect(None),
            }
        });
        let answers: Vec<_> = asked.buffer_unordered(QUESTIONS_AT_ONCE).try_collect().await?;
        let mut all = Found {
            sizes: BTreeMap::new(),
            survival: NOTHING_LOST,
        };
        for (found, survival) in answers {
            all.survival = all.survival.least(survival);
            let rows = found.found.into_iter().map(|block| (block.row.digest, block.row.size));
            all.sizes.extend(rows);
        }
        Ok(all)
    }

    async fn announce(&self, caller: &Caller, upload: UploadId, rows: &[BlockRow]) -> Result<(), Failure> {
        let mut at = 0;
        while at < rows.len() {
            let part = &rows[at..rows.len().min(at + ANNOUNCED_ROWS_MAX)];
            let command = UploadCommand::AnnounceRows {
                upload,
                position: at as u64,
                rows: part.to_vec(),
            };
            at = match self.command(caller, Command::Upload(command), None).await {
                Ok(_) => at + part.len(),
                // The repeat of a request whose first try got so far: it told the same list.
                Err(failure) if group_codes::WRONG_POSITION.is(&failure) => {
                    let known = failure.fields.get("position").and_then(|text| text.parse().ok());
                    known.filter(|known| *known > at).ok_or(failure)?
                }
                Err(failure) => return Err(failure),
            };
        }
        Ok(())
    }
}

/// Those that were not found, each once, in order.
fn lacking(named: &[Digest], found: &Found) -> Vec<Digest> {
    let mut seen = BTreeSet::new();
    let is_new = |digest: &&Digest| !found.sizes.contains_key(*digest) && seen.insert(**digest);
    named.iter().filter(is_new).copied().collect()
}

/// Enters the lengths of blocks that the drive has.
///
/// Errors: `size_mismatch` where a client told another one.
fn fill(rows: &mut [BlockRow], found: &Found) -> Result<(), Failure> {
    for row in rows {
        let Some(size) = found.sizes.get(&row.digest).copied() else {
            continue;
        };
        if row.size != 0 && row.size != size {
            let detail = format!("the block {} has {size} bytes, not {}", row.digest.to_hex(), row.size);
            return Err(group_codes::SIZE_MISMATCH.because(detail));
        }
        row.size = size;
    }
    Ok(())
}
