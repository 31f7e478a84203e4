//! Many small files in one request: their blocks lie in shared stripes, their entries are made by one command.
//!
//! Each file is cut, named and judged as it would be alone, and packed like the blocks of one file. All of them together are as long
//! as what any upload keeps until it is named, so the whole batch is kept until it is committed and whatever a group refuses and can
//! be made good is made good.
//! Invariants: nothing is named before the body came whole and fits the lengths; the files of one command share no stripe with those
//! of another, so each command stands for itself; memory for the contents is promised before they are read.
//! Not here: which files are refused (the drive's group), the form of the body (`http::file_batch`), how commands are filled (`plan`).

mod plan;

use crate::codes;
use crate::drive::tree::{drive_of, entries_made};
use crate::drive::upload::batch::{Batch, Done};
use crate::drive::upload::file_batch::plan::commands_of;
use crate::drive::upload::session::Unnamed;
use crate::drive::upload::{Admitted, Body, Stage, UploadDone, landed};
use crate::drive::{Caller, ClientKey, Core, expect};
use crate::metrics;
use bytes::Bytes;
use codec::cut::Cutter;
use codec::digest::{FileDigest, PageCutter};
use codec::seal::DriveSeal;
use daemon::pool::Urgency;
use futures_util::StreamExt;
use model::authorize::Principal;
use model::digest::Digest;
use model::entry::{BlockRow, Entry, EntryType, Version};
use model::id::{DriveId, EntryId};
use model::stripe::STRIPE_TARGET_BYTES;
use protocol::codes as group_codes;
use protocol::metadata::drive::{EntryView, Place};
use protocol::metadata::file_batch::{BatchCommitted, BatchedFile, FileBatch, FileOutcome, told};
use protocol::metadata::upload::{Committed, PageRows, UploadCommand, UploadTarget};
use protocol::metadata::{Command, CommandAnswer, RequestKey};
use protocol::wire_error::Failure;
use std::ops::Range;
use std::sync::Arc;
use tokio_util::task::AbortOnDropHandle;
use tracing::Instrument;

/// One file as it is asked for.
#[derive(Clone, Debug)]
pub struct WantedFile {
    /// To what, or why to nothing.
    pub target: Result<UploadTarget, Failure>,
    /// The version that the content follows.
    pub base_version: Option<u64>,
    /// Bytes of its content.
    pub size: u64,
    /// As the client gave it.
    pub content_type: Option<String>,
}

/// Files to be put together.
#[derive(Debug)]
pub struct BatchOrder {
    /// In the order of their contents.
    pub files: Vec<WantedFile>,
    /// Whether one refused file refuses them all.
    pub is_atomic: bool,
    /// The client's own id of the request.
    pub key: Option<ClientKey>,
    /// What was asked, without the contents.
    pub asked: Vec<u8>,
}

/// What became of each file, in order.
pub type BatchDone = Vec<Result<UploadDone, Failure>>;

/// The files of one command on their way from the body to stripes that are written.
struct Part {
    files: Range<usize>,
    flights: Vec<AbortOnDropHandle<Result<Done, Failure>>>,
    /// How many blocks each file has.
    blocks: Vec<usize>,
}

/// The same when all blocks are durable.
struct Landed {
    files: Range<usize>,
    unnamed: Unnamed,
    contents: Vec<FileContent>,
}

/// A content by its names.
struct FileContent {
    digest: Digest,
    pages: Vec<PageRows>,
}

impl Core {
    /// Takes the contents in, one behind the other, and commits them. Dropped before the first command it commits nothing.
    ///
    /// Errors: `batch_too_large`, `size_mismatch`, `too_busy`, those of the body and of writing; of a batch that is all or nothing
    /// the first refusal, with its `item`.
    pub async fn upload_batch(
        self: &Arc<Self>,
        caller: &Caller,
        admitted: Admitted,
        mut order: BatchOrder,
        body: Body,
    ) -> Result<BatchDone, Failure> {
        let drive = one_drive(&mut order.files, caller.home);
        let commands = commands_of(&order.files);
        if order.is_atomic {
            require_whole(&order.files, &commands)?;
        }
        let facts = self.drive_facts(caller, drive).await?;
        let stage = self.stage(caller, facts)?;
        let bytes: u64 = order.files.iter().map(|file| file.size).sum();
        let mut shares = vec![admitted.0];
        for _ in 1..bytes.div_ceil(STRIPE_TARGET_BYTES as u64) {
            let share = self.budget.extend();
            shares.push(share.ok_or_else(|| codes::TOO_BUSY.failure().with("retry_after_s", 1))?);
        }
        let mut parts = Vec::new();
        let mut contents = Contents::new(body);
        for files in commands {
            parts.push(stage.take_part(&mut contents, &order.files, files).await?);
        }
        contents.require_end().await?;
        let mut landed = Vec::new();
        for part in parts {
            landed.push(stage.land(part).await?);
        }
        let done = stage.commit_batch(&order, landed).await;
        drop(shares);
        done
    }
}

/// The drive that the files go to: a file that names another is refused, since one command reaches one drive.
fn one_drive(files: &mut [WantedFile], home: DriveId) -> DriveId {
    let of = |target: &UploadTarget| match target {
        UploadTarget::Entry(entry) => entry.drive,
        UploadTarget::Place { place, .. } => drive_of(place, home),
    };
    let first = files.iter().find_map(|file| file.target.as_ref().ok()).map(of);
    let drive = first.unwrap_or(home);
    for file in files {
        if file.target.as_ref().is_ok_and(|target| of(target) != drive) {
            let refused = group_codes::CROSS_DRIVE.because("the files of a batch lie in one drive; send another batch");
            file.target = Err(refused);
        }
    }
    drive
}

/// Refuses a batch that is all or nothing and cannot be all.
fn require_whole(files: &[WantedFile], commands: &[Range<usize>]) -> Result<(), Failure> {
    let refused = files
        .iter()
        .enumerate()
        .find_map(|(at, file)| Some((at, file.target.as_ref().err()?)));
    if let Some((at, failure)) = refused {
        return Err(failure.clone().with("item", at));
    }
    if commands.len() > 1 {
        let detail =
            "All or nothing is one command of 1 MiB, and the names of these files pass it; send fewer at once.";
        return Err(codes::BATCH_TOO_LARGE.because(detail));
    }
    Ok(())
}

/// The contents of a body, one behind the other.
struct Contents {
    body: Body,
    rest: Bytes,
}

impl Contents {
    fn new(body: Body) -> Self {
        Self {
            body,
            rest: Bytes::new(),
        }
    }

    /// The next bytes, at most `left` of them and at least one.
    async fn next(&mut self, left: u64) -> Result<Bytes, Failure> {
        while self.rest.is_empty() {
            let chunk = self.body.next().await.ok_or_else(|| other_length("shorter"))?;
            self.rest = chunk?;
        }
        let wanted = usize::try_from(left).unwrap_or(usize::MAX).min(self.rest.len());
        Ok(self.rest.split_to(wanted))
    }

    /// The body ends here, and well.
    async fn require_end(&mut self) -> Result<(), Failure> {
        if !self.rest.is_empty() {
            return Err(other_length("longer"));
        }
        while let Some(chunk) = self.body.next().await {
            if !chunk?.is_empty() {
                return Err(other_length("longer"));
            }
        }
        Ok(())
    }
}

/// What is said of contents that are not as long as the list says.
fn other_length(how: &str) -> Failure {
    group_codes::SIZE_MISMATCH.because(format!(
        "The contents are {how} than the sizes of the list together; nothing was kept, send the batch again."
    ))
}

impl Stage {
    /// Cuts the contents of one command's files and begins to write their stripes. Contents of refused files are passed over.
    async fn take_part(
        &self,
        contents: &mut Contents,
        files: &[WantedFile],
        range: Range<usize>,
    ) -> Result<Part, Failure> {
        let mut part = Part {
            files: range.clone(),
            flights: Vec::new(),
            blocks: Vec::new(),
        };
        let (mut cutter, mut batch) = (Cutter::new(), Batch::default());
        for file in &files[range] {
            let (mut left, mut blocks) = (file.size, 0);
            while left > 0 {
                let bytes = contents.next(left).await?;
                left -= bytes.len() as u64;
                if file.target.is_err() {
                    continue;
                }
                for block in cutter.push(bytes) {
                    blocks += 1;
                    part.flights.extend(batch.push(block).map(|full| self.fly(full)));
                }
            }
            if let Some(block) = cutter.finish() {
                blocks += 1;
                part.flights.extend(batch.push(block).map(|full| self.fly(full)));
            }
            part.blocks.push(blocks);
        }
        if !batch.is_empty() {
            part.flights.push(self.fly(batch));
        }
        Ok(part)
    }

    fn fly(&self, batch: Batch) -> AbortOnDropHandle<Result<Done, Failure>> {
        let stage = self.clone();
        let store = async move { batch.store(&stage).await };
        AbortOnDropHandle::new(tokio::spawn(store.in_current_span()))
    }

    /// Waits until the blocks of a part are durable, and names its contents.
    async fn land(&self, part: Part) -> Result<Landed, Failure> {
        let mut unnamed = Unnamed::default();
        let mut rows: Vec<BlockRow> = Vec::new();
        for flight in part.flights {
            let done = landed(flight.await)?;
            rows.extend(&done.rows);
            unnamed.push(done);
        }
        let (seal, blocks) = (Arc::clone(&self.seal), part.blocks);
        let name = move || {
            let mut rest = rows.into_iter();
            let contents = blocks
                .into_iter()
                .map(|count| content(&seal, rest.by_ref().take(count)));
            contents.collect()
        };
        Ok(Landed {
            files: part.files,
            unnamed,
            contents: self.core.seams.pool.run(Urgency::Foreground, name).await,
        })
    }

    /// Commits part by part. Behind the first, what fails as a whole is told of each file of its part, since the files before are in.
    async fn commit_batch(&self, order: &BatchOrder, parts: Vec<Landed>) -> Result<BatchDone, Failure> {
        let contents = parts.iter().flat_map(|part| &part.contents);
        let digests: Vec<u8> = contents.flat_map(|content| content.digest.0).collect();
        let asked = [&order.asked[..], &digests].concat();
        let mut done = Vec::with_capacity(order.files.len());
        for (number, mut part) in parts.into_iter().enumerate() {
            let key = order.key.as_ref().map(|key| self.part_key(key, number, &asked));
            match self.commit_part(order, &mut part, key).await {
                Ok(results) => done.extend(results),
                Err(failure) if number == 0 => return Err(failure),
                Err(failure) => done.extend(part.files.map(|_| Err(failure.clone()))),
            }
        }
        let taken = done
            .iter()
            .flatten()
            .map(|done: &UploadDone| done.committed.version.size);
        let bytes = self.core.seams.metrics.counter(&metrics::UPLOADED_BYTES);
        bytes.with_label_values::<&str>(&[]).inc_by(taken.sum());
        Ok(done)
    }

    /// Each command has a request id of its own. A client's key has no line break, so none of these is another request's.
    fn part_key(&self, key: &ClientKey, number: usize, asked: &[u8]) -> RequestKey {
        if number == 0 {
            return self.core.client_key(&self.caller, key, asked);
        }
        let key = ClientKey {
            text: format!("{}\n{number}", key.text),
            ..key.clone()
        };
        self.core.client_key(&self.caller, &key, asked)
    }

    async fn commit_part(
        &self,
        order: &BatchOrder,
        part: &mut Landed,
        key: Option<RequestKey>,
    ) -> Result<BatchDone, Failure> {
        let wanted = &order.files[part.files.clone()];
        let (mut mends, mut command) = (0, self.command(order, part));
        let answer = loop {
            if command.files.is_empty() {
                break None;
            }
            let asked = Command::Upload(UploadCommand::CommitBatch(command.clone()));
            match self.core.command(&self.caller, asked, key).await {
                Ok(CommandAnswer::Batch(answer)) if answer.files.len() == command.files.len() => break Some(answer),
                Ok(_) => return expect(None),
                Err(failure) => {
                    self.mend(&mut part.unnamed, failure, &mut mends).await?;
                    command = self.command(order, part);
                }
            }
        };
        let asked = &command;
        let mut outcomes = answer.iter().flat_map(|answer| {
            let files = answer.files.iter().zip(&asked.files);
            files.map(move |(outcome, file)| committed(asked, answer, file, outcome))
        });
        let result = |file: &WantedFile| match &file.target {
            Err(refused) => Err(refused.clone()),
            Ok(_) => outcomes.next().unwrap_or_else(|| expect(None)),
        };
        let user = self.caller.principal.user;
        let results = wanted.iter().map(result);
        Ok(results
            .map(|result| result.map(|committed| self.core.done(user, &self.facts, committed)))
            .collect())
    }

    /// The command for the files of a part that are not refused already.
    fn command(&self, order: &BatchOrder, part: &Landed) -> FileBatch {
        let wanted = order.files[part.files.clone()].iter().zip(&part.contents);
        let files = wanted.filter_map(|(file, content)| {
            let target = file.target.as_ref().ok()?;
            let count = match target {
                UploadTarget::Place { place, with_parents } => entries_made(place, *with_parents),
                UploadTarget::Entry(_) => 1,
            };
            Some(BatchedFile {
                target: target.clone(),
                base_version: file.base_version,
                fresh: self.core.fresh(count),
                size: file.size,
                digest: content.digest,
                pages: content.pages.clone(),
                content_type: file.content_type.clone(),
            })
        });
        // Empty files have no block: their entries survive what the group does.
        let survival = part.unnamed.survival();
        FileBatch {
            principal: self.caller.principal,
            drive: self.facts.drive,
            is_atomic: order.is_atomic,
            stripes: part.unnamed.stripes(),
            files: files.collect(),
            survival: survival.unwrap_or_else(|| self.core.inline_survival(self.facts.drive.slot())),
        }
    }
}

/// A content's pages and digest, from the rows of its blocks.
fn content(seal: &DriveSeal, rows: impl Iterator<Item = BlockRow>) -> FileContent {
    let (mut cutter, mut file) = (PageCutter::new(seal.digest_key()), FileDigest::new(seal.digest_key()));
    let mut pages: Vec<_> = Vec::new();
    for row in rows {
        pages.extend(cutter.push(row));
    }
    pages.extend(cutter.finish());
    pages.iter().for_each(|page| file.push(&page.digest));
    let named = pages.into_iter().map(|page| PageRows {
        digest: page.digest,
        rows: page.rows,
    });
    FileContent {
        digest: file.finish(),
        pages: named.collect(),
    }
}

/// A file's own answer, from what the command and the answer say of all.
fn committed(
    command: &FileBatch,
    answer: &BatchCommitted,
    file: &BatchedFile,
    outcome: &FileOutcome,
) -> Result<Committed, Failure> {
    let (view, is_new_entry, is_new_version) = match outcome {
        FileOutcome::Refused(failure) => return Err(told(failure.clone())),
        FileOutcome::Known { view, is_new_version } => ((**view).clone(), false, *is_new_version),
        FileOutcome::New { number, folder } => {
            let above = answer.folders.get(*folder as usize);
            let view = above.and_then(|(parent, path)| new_view(command, answer, file, *number, (*parent, path)));
            (expect(view)?, true, true)
        }
    };
    let Principal { user, device, .. } = command.principal;
    Ok(Committed {
        version: Version {
            number: view.entry.version,
            size: file.size,
            digest: file.digest,
            created_at: answer.time,
            created_by: user,
            device,
        },
        view,
        is_new_entry,
        is_new_version,
        position: answer.position,
        survival: answer.survival,
        time: answer.time,
    })
}

fn new_view(
    command: &FileBatch,
    answer: &BatchCommitted,
    file: &BatchedFile,
    number: u64,
    (parent, path): (u64, &str),
) -> Option<EntryView> {
    let name = match &file.target {
        UploadTarget::Place {
            place: Place::Path(path),
            ..
        } => path.names().last()?,
        UploadTarget::Place {
            place: Place::In { name, .. },
            ..
        } => name,
        UploadTarget::Entry(_) => return None,
    };
    let of_drive = |number| EntryId {
        drive: command.drive,
        number,
    };
    let entry = Entry {
        id: of_drive(number),
        parent: Some(of_drive(parent)),
        name: name.as_str().to_owned(),
        entry_type: EntryType::File,
        size: file.size,
        version: 1,
        revision: 1,
        digest: Some(file.digest),
        content_type: file.content_type.clone(),
        created_at: answer.time,
        modified_at: answer.time,
        modified_by: command.principal.user,
        trashed_at: None,
    };
    Some(EntryView {
        path: format!("{path}/{}", entry.name),
        entry,
        is_in_trash: false,
    })
}
