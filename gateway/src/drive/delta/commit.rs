//! The commit of an announced list: rows from the list, pages by digest where the drive has them, then the version.
//!
//! Invariants: a commit that was broken off is gone on with where it stood, by whichever gateway; two at once append the same rows,
//! and who comes late is told so by the group and looks again.

use super::{Found, fill, lacking};
use crate::drive::tree::entries_made;
use crate::drive::upload::UploadDone;
use crate::drive::upload::single::of_upload;
use crate::drive::{Caller, Core, expect};
use codec::digest::{FileDigest, PageCutter, request_digest};
use codec::seal::DriveSeal;
use model::digest::Digest;
use model::entry::BlockRow;
use model::id::{EntryId, UploadId};
use model::limits::COMMAND_OPERATIONS_MAX;
use protocol::codes as group_codes;
use protocol::metadata::query::{DriveAsk, DriveFacts, FIND_BLOCKS_MAX};
use protocol::metadata::upload::{Committed, RowRun, SessionState, Survival, UploadCommand, UploadTarget};
use protocol::metadata::{Command, CommandAnswer, QueryAnswer, RequestKey, RequestLife};
use protocol::wire_error::Failure;
use std::collections::BTreeSet;

/// How often a commit looks again after somebody else moved the session on.
const LOOKS_MAX: u32 = 4;

/// A page of the content that is not in the session yet.
struct NewPage {
    digest: Digest,
    /// Its rows but those that the session has.
    rows: Vec<BlockRow>,
    /// Whether the session has none of them.
    is_whole: bool,
}

impl Core {
    /// Commits the list of an upload. `named` is the file that the caller names, `None` for one that the upload makes.
    ///
    /// Errors: `need_blocks` with those that are missing, `session_not_found`, `size_mismatch`, and those of the commit.
    pub async fn commit_blocks(
        &self,
        caller: &Caller,
        named: Option<EntryId>,
        upload: UploadId,
    ) -> Result<UploadDone, Failure> {
        let facts = self.drive_facts(caller, upload.drive).await.map_err(of_upload)?;
        let mut looks = 0;
        let committed = loop {
            match self.commit_listed(caller, &facts, named, upload).await {
                Err(failure) if group_codes::SESSION_NOT_FOUND.is(&failure) => {
                    break self.committed_before(caller, named, upload).await?;
                }
                Err(failure) if is_overtaken(&failure) && looks < LOOKS_MAX => looks += 1,
                done => break done?.ok_or_else(|| group_codes::SESSION_NOT_FOUND.failure())?,
            }
        };
        Ok(UploadDone {
            receipt: self.receipts.receipt(caller.principal.user, facts.profile, &committed),
            committed,
        })
    }

    /// `None` when the session is another sort of upload, or for another file than `named`; `session_not_found` when there is none.
    async fn commit_listed(
        &self,
        caller: &Caller,
        facts: &DriveFacts,
        named: Option<EntryId>,
        upload: UploadId,
    ) -> Result<Option<Committed>, Failure> {
        let state = match self.ask(caller, upload.drive, DriveAsk::Session(upload)).await? {
            QueryAnswer::Session(state) => state,
            _ => return expect(None),
        };
        let mut rows = self.announced(caller, upload).await?;
        let target = match &state.target {
            UploadTarget::Entry(entry) => Some(*entry),
            UploadTarget::Place { .. } => None,
        };
        let is_listed = state.is_resumable && (!rows.is_empty() || state.declared_bytes == Some(0));
        if target != named || !is_listed || (rows.len() as u64) < state.rows {
            return Ok(None);
        }
        let digests: Vec<Digest> = rows.iter().map(|row| row.digest).collect();
        let found = self.look_up(caller, facts, &digests).await?;
        let missing = lacking(&digests, &found);
        if !missing.is_empty() {
            return Err(need_blocks(&missing));
        }
        fill(&mut rows, &found)?;
        let size = rows.iter().map(|row| u64::from(row.size)).sum();
        let seal = self.seals.of(facts)?;
        let (pages, digest) = pages(&seal, &state, &rows[state.rows as usize..]);
        self.append(caller, &state, pages).await?;
        let fresh = self.fresh(match &state.target {
            UploadTarget::Place { place, with_parents } => entries_made(place, *with_parents),
            UploadTarget::Entry(_) => 1,
        });
        let command = UploadCommand::CommitSession {
            principal: caller.principal,
            upload,
            size,
            digest,
            fresh,
            survival: self.survival_of(upload, &rows, &found),
        };
        self.commit_once(caller, command, upload).await.map(Some)
    }

    fn survival_of(&self, upload: UploadId, rows: &[BlockRow], found: &Found) -> Survival {
        if rows.is_empty() {
            return self.inline_survival(upload.drive.slot());
        }
        found.survival
    }

    /// The first answer to a commit whose session has ended by it.
    async fn committed_before(
        &self,
        caller: &Caller,
        named: Option<EntryId>,
        upload: UploadId,
    ) -> Result<Committed, Failure> {
        let command = UploadCommand::CommitSession {
            principal: caller.principal,
            upload,
            // No session has so many bytes: nothing but a repeat can succeed.
            size: u64::MAX,
            digest: Digest([0; 32]),
            fresh: Vec::new(),
            survival: self.inline_survival(upload.drive.slot()),
        };
        let committed = self.commit_once(caller, command, upload).await.map_err(of_upload)?;
        if named.is_some_and(|named| named != committed.view.entry.id) {
            return Err(group_codes::SESSION_NOT_FOUND.failure());
        }
        Ok(committed)
    }

    /// A session is committed under one request id, whoever asks how often: its content is settled by its list.
    async fn commit_once(
        &self,
        caller: &Caller,
        command: UploadCommand,
        upload: UploadId,
    ) -> Result<Committed, Failure> {
        let asked = request_digest(format!("commit upload {upload}").as_bytes());
        let mut id = [0; 16];
        id.copy_from_slice(&asked[..16]);
        let key = RequestKey {
            source: caller.principal.user.0,
            id: u128::from_le_bytes(id),
            asked,
            life: RequestLife::Day,
            // The session may be open for days before this, and a repeat whose row has gone finds that it has ended.
            made_hour: None,
        };
        match self.command(caller, Command::Upload(command), Some(key)).await? {
            CommandAnswer::Committed(committed) => Ok(committed),
            _ => expect(None),
        }
    }

    async fn announced(&self, caller: &Caller, upload: UploadId) -> Result<Vec<BlockRow>, Failure> {
        let mut rows = Vec::new();
        loop {
            let first = rows.len() as u64;
            let ask = DriveAsk::AnnouncedRows { upload, first };
            let QueryAnswer::AnnouncedRows(part, has_more) = self.ask(caller, upload.drive, ask).await? else {
                return expect(None);
            };
            rows.extend(part);
            if !has_more {
                return Ok(rows);
            }
        }
    }

    /// Appends pages behind the rows that the session has, in commands of as much as one may carry.
    async fn append(&self, caller: &Caller, state: &SessionState, pages: Vec<NewPage>) -> Result<(), Failure> {
        let whole: Vec<Digest> = pages
            .iter()
            .filter(|page| page.is_whole)
            .map(|page| page.digest)
            .collect();
        let mut known = BTreeSet::new();
        for digests in whole.chunks(FIND_BLOCKS_MAX) {
            let ask = DriveAsk::FindPages(digests.to_vec());
            match self.ask(caller, state.upload.drive, ask).await? {
                QueryAnswer::Pages(found) => known.extend(found),
                _ => return expect(None),
            }
        }
        let (mut position, mut runs, mut operations) = (state.rows, Vec::new(), 0);
        for page in pages {
            let is_known = page.is_whole && known.contains(&page.digest);
            let rows = if is_known { Vec::new() } else { page.rows };
            if operations + rows.len() + 1 > COMMAND_OPERATIONS_MAX {
                position = self
                    .append_runs(caller, state.upload, position, std::mem::take(&mut runs))
                    .await?;
                operations = 0;
            }
            operations += rows.len() + 1;
            runs.push(RowRun {
                rows,
                page_end: Some(page.digest),
            });
        }
        if !runs.is_empty() {
            self.append_runs(caller, state.upload, position, runs).await?;
        }
        Ok(())
    }

    async fn append_runs(
        &self,
        caller: &Caller,
        upload: UploadId,
        position: u64,
        runs: Vec<RowRun>,
    ) -> Result<u64, Failure> {
        let command = UploadCommand::AppendRows {
            upload,
            position,
            stripes: Vec::new(),
            runs,
        };
        match self.command(caller, Command::Upload(command), None).await? {
            CommandAnswer::Session(state) => Ok(state.rows),
            _ => expect(None),
        }
    }
}

/// The pages that `rest` makes behind what the session has, and the digest of the whole content.
fn pages(seal: &DriveSeal, state: &SessionState, rest: &[BlockRow]) -> (Vec<NewPage>, Digest) {
    let key = seal.digest_key();
    let mut file = FileDigest::new(key);
    for page in &state.page_digests {
        file.push(page);
    }
    let mut open = state.open_rows.len();
    let mut cutter = PageCutter::resume(key, state.open_rows.clone());
    let mut ended: Vec<_> = rest.iter().filter_map(|row| cutter.push(*row)).collect();
    ended.extend(cutter.finish());
    let pages = ended.into_iter().map(|mut page| {
        file.push(&page.digest);
        let had = std::mem::take(&mut open);
        NewPage {
            digest: page.digest,
            rows: page.rows.split_off(had),
            is_whole: had == 0,
        }
    });
    let pages = pages.collect();
    (pages, file.finish())
}

fn need_blocks(missing: &[Digest]) -> Failure {
    let list: Vec<String> = missing.iter().map(Digest::to_hex).collect();
    group_codes::NEED_BLOCKS.failure().with("blocks", list.join(","))
}

/// Whether somebody else moved the session on, or a page went away, since it was looked at.
fn is_overtaken(failure: &Failure) -> bool {
    [
        group_codes::WRONG_POSITION,
        group_codes::PAGE_NOT_FOUND,
        group_codes::PAGE_OPEN,
    ]
    .iter()
    .any(|code| code.is(failure))
}
