//! Resumable uploads: a content that comes in over many requests, by any gateway.
//!
//! A request loads where the upload stands from the drive's group, goes on with cutter and page where the last one stopped, and
//! before its end makes everything that came in durable: whole blocks as rows, the rest as a sealed tail. The same is done within a
//! request when 1 MiB has waited for 1 s.
//! Invariants: what is answered as stored is durable and named; what came in before a connection broke is kept; at most 16 MiB of
//! what came in are lost with the gateway; a session is ended by its client, its age or a commit that can never succeed, never by a
//! request that breaks off.
//! Not here: the states of a session (the drive's group), `Content-Range` (`http::resumable`).

use crate::codes;
use crate::drive::stripe_reader::{Found, StripeReading};
use crate::drive::upload::batch::write_named;
use crate::drive::upload::session::end;
use crate::drive::upload::single::of_upload;
use crate::drive::upload::source::Source;
use crate::drive::upload::turns::Turn;
use crate::drive::upload::{Admitted, Body, Intake, Stage, Upload, UploadDone, UploadOrder};
use crate::drive::{Caller, Core, expect};
use bytes::Bytes;
use codec::seal::RecordId;
use daemon::pool::Urgency;
use futures_util::{StreamExt, stream};
use model::entry::PlacedStripe;
use model::error_kind::ErrorKind;
use model::id::UploadId;
use model::limits::RESUMABLE_SESSION_AGE;
use model::stripe::StripeId;
use protocol::codes as group_codes;
use protocol::metadata::group::AGE_STEP_MS_MAX;
use protocol::metadata::query::DriveAsk;
use protocol::metadata::upload::{ResumableState, SessionState, Survival, Tail, UploadCommand};
use protocol::metadata::{Command, CommandAnswer, QueryAnswer};
use protocol::wire_error::Failure;
use std::sync::Arc;
use std::time::Duration;
use tracing::Instrument;

/// Fewer than of other uploads: with the batch that is being filled, its next block and what is being cut, 16 MiB.
pub(super) const RESUMABLE_STRIPES_IN_FLIGHT_MAX: usize = 2;
/// What may be lost with the gateway for longer than `SAVE_AFTER`.
const UNSAVED_BYTES: u64 = 1 << 20;
const SAVE_AFTER: Duration = Duration::from_secs(1);
/// Time that has passed and that a group's age may still make up for at once: what one age command adds.
const AGE_BEHIND: Duration = Duration::from_millis(AGE_STEP_MS_MAX);
/// How often a commit is tried again that another gateway was ahead of: it names the last rows, ends their page, and commits.
const OVERTAKEN_MAX: u32 = 4;
/// How often a tail is written again because the layout changed meanwhile.
const TAIL_TRIES_MAX: u32 = 4;

/// What an upload that may be gone on with has beside others.
#[derive(Default)]
pub(super) struct Resuming {
    /// Bytes of the content up to which a tail or nothing but rows reaches.
    saved_bytes: u64,
    /// Since when so much is not saved.
    unsaved_since: Option<Duration>,
}

impl Resuming {
    /// How long so much may still wait to be saved; `None` when it is too little.
    fn waits(&mut self, unsaved_bytes: u64, now: Duration) -> Option<Duration> {
        if unsaved_bytes < UNSAVED_BYTES {
            self.unsaved_since = None;
            return None;
        }
        let since = *self.unsaved_since.get_or_insert(now);
        Some((since + SAVE_AFTER).saturating_sub(now))
    }
}

/// What one request brings.
#[derive(Clone, Copy, Debug, Default, PartialEq, Eq)]
pub struct Chunk {
    /// Its first byte in the content; `None` when it brings none and asks.
    pub first: Option<u64>,
    /// How many bytes it was declared to bring.
    pub declared_bytes: Option<u64>,
    /// Bytes of the whole content.
    pub total: Total,
}

/// What a request says of the whole content's length.
#[derive(Clone, Copy, Debug, Default, PartialEq, Eq)]
pub enum Total {
    /// It does not say.
    #[default]
    Unknown,
    /// So many bytes.
    Known(u64),
    /// The content ends with this request's body.
    Here,
}

/// Where an upload stands.
pub enum Standing {
    /// It needs more.
    Open {
        /// Bytes that need not be sent again.
        stored_bytes: u64,
        /// Bytes that the client said it will have.
        declared_bytes: Option<u64>,
    },
    /// It was committed.
    Finished(Box<UploadDone>),
}

impl Standing {
    /// Whether nothing is missing but the commit.
    fn is_uncommitted(&self) -> bool {
        match self {
            Self::Open {
                stored_bytes,
                declared_bytes,
            } => *declared_bytes == Some(*stored_bytes),
            Self::Finished(_) => false,
        }
    }
}

impl Core {
    /// Opens a resumable upload, or refuses what its commit would surely refuse.
    pub async fn open_resumable(self: &Arc<Self>, caller: &Caller, order: UploadOrder) -> Result<UploadId, Failure> {
        let drive = order.drive(caller);
        self.foreseen(caller, drive, &order).await?;
        let command = UploadCommand::OpenSession {
            principal: caller.principal,
            upload: UploadId {
                drive,
                number: self.seams.random.u64(),
            },
            target: order.target,
            base_version: order.base_version,
            declared_bytes: order.declared_bytes,
            is_resumable: true,
            content_type: order.content_type,
        };
        match self.command(caller, Command::Upload(command), order.key).await? {
            CommandAnswer::Session(session) => Ok(session.upload),
            _ => expect(None),
        }
    }

    /// Where an upload of the caller stands, without disturbing whoever goes on with it.
    pub async fn standing(self: &Arc<Self>, caller: &Caller, upload: UploadId) -> Result<Standing, Failure> {
        match self.resumable(caller, upload).await? {
            ResumableState::Open { session, .. } => Ok(open(&session)),
            ResumableState::Committed(committed) => {
                let facts = self.drive_facts(caller, upload.drive).await?;
                Ok(Standing::Finished(Box::new(self.done(
                    caller.principal.user,
                    &facts,
                    committed,
                ))))
            }
        }
    }

    /// The same once whoever goes on with it at this gateway has kept what came in, and does so no more: for a client that lost its
    /// connection, and must not send again what was received.
    pub async fn settled(self: &Arc<Self>, caller: &Caller, upload: UploadId) -> Result<Standing, Failure> {
        let _turn = self.turns.take(upload).await;
        self.standing(caller, upload).await
    }

    pub(super) async fn resumable(&self, caller: &Caller, upload: UploadId) -> Result<ResumableState, Failure> {
        let asked = self.ask(caller, upload.drive, DriveAsk::Resumable(upload)).await;
        match asked.map_err(of_upload)? {
            QueryAnswer::Resumable(state) => Ok(state),
            _ => expect(None),
        }
    }

    /// How long an upload of the caller, or the answer to its commit, is surely there from now on when nothing is sent to it.
    ///
    /// Errors: `session_not_found`.
    pub async fn life(&self, caller: &Caller, upload: UploadId) -> Result<Duration, Failure> {
        let asked = self.ask(caller, upload.drive, DriveAsk::SessionLife(upload)).await;
        match asked.map_err(of_upload)? {
            QueryAnswer::SessionLife(left_ms) => Ok(sure_of(Duration::from_millis(left_ms))),
            _ => expect(None),
        }
    }

    /// Ends an upload; no error when there is none.
    pub async fn abandon(self: &Arc<Self>, caller: &Caller, upload: UploadId) -> Result<(), Failure> {
        let _turn = self.turns.take(upload).await;
        let principal = caller.principal;
        let command = Command::Upload(UploadCommand::AbortSession { principal, upload });
        self.command(caller, command, None).await.map(|_| ())
    }

    /// Takes a chunk in, as far as it follows what is stored, and commits the content when it is whole. Goes on to keep what came
    /// in when it is dropped.
    ///
    /// Errors: `session_not_found`, `bad_content_range` when the lengths disagree, and those of an upload.
    pub async fn resume(
        self: &Arc<Self>,
        caller: &Caller,
        admitted: Admitted,
        upload: UploadId,
        chunk: Chunk,
        source: Source,
    ) -> Result<Standing, Failure> {
        let (core, caller) = (Arc::clone(self), *caller);
        let work = async move {
            let turn = core.turns.take(upload).await;
            let mut outcome = core.go_on(&caller, admitted, &turn, chunk, source).await;
            for _ in 0..OVERTAKEN_MAX {
                if !outcome.as_ref().is_err_and(is_overtaken) {
                    break;
                }
                // Another gateway goes on with it, or has finished it meanwhile: the client is told how far it came.
                let standing = core.standing(&caller, upload).await?;
                if !standing.is_uncommitted() {
                    return Ok(standing);
                }
                // All of it is there, and the other gateway may die before it commits it.
                let nothing = Source::new(stream::empty().boxed(), None);
                outcome = core
                    .go_on(&caller, core.admit(None)?, &turn, Chunk::default(), nothing)
                    .await;
            }
            outcome
        };
        let ended = tokio::spawn(work.in_current_span()).await;
        ended.unwrap_or_else(|error| Err(Failure::bug(format!("go on with an upload: {error}"))))
    }

    async fn go_on(
        self: &Arc<Self>,
        caller: &Caller,
        admitted: Admitted,
        turn: &Turn,
        chunk: Chunk,
        source: Source,
    ) -> Result<Standing, Failure> {
        let (mut session, survival, tail) = match self.resumable(caller, turn.upload()).await? {
            ResumableState::Open {
                session,
                survival,
                tail,
            } => (session, survival, tail),
            ResumableState::Committed(_) => return self.standing(caller, turn.upload()).await,
        };
        let total = total_of(&session, chunk.total)?;
        if let (None, Some(bytes)) = (session.declared_bytes, total) {
            self.declare_length(caller, session.upload, bytes).await?;
            session.declared_bytes = total;
        }
        let stored = session.stored_bytes();
        let first = chunk.first.unwrap_or(stored);
        let is_whole = total == Some(stored);
        if first > stored || (chunk.first.is_none() && !is_whole) {
            return Ok(open(&session));
        }
        let is_past = |(total, bytes): (u64, u64)| first.saturating_add(bytes) > total;
        if total.zip(chunk.declared_bytes).is_some_and(is_past) {
            return Err(too_long());
        }
        let facts = self.drive_facts(caller, session.upload.drive).await?;
        let stage = self.stage(caller, facts)?;
        let begun = match &tail {
            Some(stripe) => read_tail(&stage, &session, stripe).await?,
            None => Bytes::new(),
        };
        let mut upload = Upload::resumed(stage, admitted, (session, survival));
        let mut intake = Intake::default();
        for block in intake.cutter.push(begun) {
            upload.batch(&mut intake, block).await?;
        }
        // One byte more than the whole shows that there are too many; what is behind it would be taken in for nothing.
        let left = total.map(|total| total.saturating_sub(first).saturating_add(1));
        let wanted = [chunk.declared_bytes, left].into_iter().flatten().min();
        let body = source.until(turn.wanted.clone(), Arc::clone(&self.seams.clock));
        let body = pass_by(body, stored - first, wanted);
        let cut = upload.take_in(&mut intake, body).await?;
        let ends_here = chunk.total == Total::Here && cut.is_none() && !turn.wanted.is_cancelled();
        if ends_here || total == Some(upload.size) {
            return upload.finish_resumed(intake).await;
        }
        if total.is_some_and(|total| upload.size > total) {
            return Err(too_long());
        }
        upload.save(&mut intake).await?;
        if !upload.passed.is_empty() {
            // Another gateway is further.
            return self.standing(caller, turn.upload()).await;
        }
        Ok(Standing::Open {
            stored_bytes: upload.size,
            declared_bytes: total,
        })
    }

    /// Keeps a length that was not told at the start: from now on it is the upload's.
    async fn declare_length(&self, caller: &Caller, upload: UploadId, bytes: u64) -> Result<(), Failure> {
        let command = UploadCommand::DeclareLength {
            principal: caller.principal,
            upload,
            bytes,
        };
        match self.command(caller, Command::Upload(command), None).await {
            Ok(_) => Ok(()),
            // By another gateway, since this one looked.
            Err(failure) if group_codes::LENGTH_DECLARED.is(&failure) => {
                let declared = failure.fields.get("declared_bytes").map_or("other", String::as_str);
                Err(other_length(declared, bytes))
            }
            Err(failure) => Err(failure),
        }
    }
}

/// Whether somebody else moved the upload on, or to its end, since it was looked at. One that is gone is not found again.
fn is_overtaken(failure: &Failure) -> bool {
    group_codes::WRONG_POSITION.is(failure) || group_codes::SESSION_NOT_FOUND.is(failure)
}

/// What is surely left of a session with so much left of its age, which may lag the world and make that up at once. Of one that was
/// just used as little is told as may be told a moment later: the end that was told then is never followed by an earlier one.
fn sure_of(left: Duration) -> Duration {
    let told_max = RESUMABLE_SESSION_AGE.saturating_sub(AGE_BEHIND);
    left.min(told_max).saturating_sub(AGE_BEHIND)
}

fn too_long() -> Failure {
    codes::BAD_CONTENT_RANGE.because("the body is longer than the content that was announced")
}

fn other_length(declared: impl std::fmt::Display, told: u64) -> Failure {
    let detail = format!("the upload is for {declared} bytes, and this request says {told}");
    codes::BAD_CONTENT_RANGE.because(detail)
}

fn open(session: &SessionState) -> Standing {
    Standing::Open {
        stored_bytes: session.stored_bytes(),
        declared_bytes: session.declared_bytes,
    }
}

/// The length of the whole content, when it is known.
fn total_of(session: &SessionState, told: Total) -> Result<Option<u64>, Failure> {
    match (session.declared_bytes, told) {
        (Some(declared), Total::Known(total)) if declared != total => Err(other_length(declared, total)),
        (Some(declared), _) => Ok(Some(declared)),
        (None, Total::Known(total)) if total < session.stored_bytes() => {
            let detail = format!("{} bytes are stored, more than the total says", session.stored_bytes());
            Err(codes::BAD_CONTENT_RANGE.because(detail))
        }
        (None, Total::Known(total)) => Ok(Some(total)),
        (None, Total::Unknown | Total::Here) => Ok(None),
    }
}

/// The bytes behind the first `skipped`, up to `wanted` with these; what is behind them is not asked for.
fn pass_by(body: Body, skipped: u64, wanted: Option<u64>) -> Body {
    let begun = (body, skipped, wanted.unwrap_or(u64::MAX));
    let next = |(mut body, mut skipped, mut wanted): (Body, u64, u64)| async move {
        while wanted > 0 {
            let mut chunk = match body.next().await? {
                Ok(chunk) => chunk,
                Err(cut) => return Some((Err(cut), (body, skipped, 0))),
            };
            chunk.truncate(usize::try_from(wanted).unwrap_or(usize::MAX));
            wanted -= chunk.len() as u64;
            let passed = skipped.min(chunk.len() as u64);
            skipped -= passed;
            drop(chunk.split_to(passed as usize));
            if !chunk.is_empty() {
                return Some((Ok(chunk), (body, skipped, wanted)));
            }
        }
        None
    };
    stream::unfold(begun, next).boxed()
}

/// Opens the tail of a session.
async fn read_tail(stage: &Stage, session: &SessionState, stripe: &PlacedStripe) -> Result<Bytes, Failure> {
    let tail = session
        .tail
        .as_ref()
        .ok_or_else(|| Failure::bug("a session's tail has a stripe and is none"))?;
    let mut reading = StripeReading::new(&stage.core, stripe, (0, tail.sealed_bytes), stage.caller.trace).await?;
    loop {
        let (sealed, is_direct) = match reading.next().await? {
            Found::Direct(bytes) => (bytes, true),
            Found::Decoded(bytes) => (bytes, false),
        };
        let (seal, record, plain_bytes) = (
            Arc::clone(&stage.seal),
            RecordId(tail.record.to_be_bytes()),
            tail.plain_bytes,
        );
        let opening = move || seal.open_tail(&record, plain_bytes, &sealed);
        match stage.core.seams.pool.run(Urgency::Foreground, opening).await {
            Ok(plain) => return Ok(plain),
            Err(_) if is_direct => reading.refuse_direct(),
            Err(_) => return Err(codes::CONTENT_CORRUPT.failure().with("stripe", stripe.id)),
        }
    }
}

impl Upload {
    /// Goes on where a session stands; the tail is still to be cut.
    fn resumed(stage: Stage, admitted: Admitted, (session, survival): (SessionState, Option<Survival>)) -> Self {
        let stored_bytes = session.stored_bytes();
        // What the session tells itself is in the session, not here: its commit checks target and version.
        let order = UploadOrder {
            target: session.target,
            base_version: session.base_version,
            declared_bytes: session.declared_bytes,
            is_body_held_back: false,
            content_type: session.content_type,
            key: None,
        };
        let mut upload = Self::new(stage, order, admitted);
        upload.size = stored_bytes;
        upload.survival = survival;
        upload.open_rows = session.open_rows;
        for page in &session.page_digests {
            upload.file.push(page);
        }
        upload.session = Some((session.upload, session.rows));
        upload.stage.caller.principal = session.principal;
        upload.resuming = Some(Resuming {
            saved_bytes: stored_bytes,
            unsaved_since: None,
        });
        upload
    }

    async fn finish_resumed(&mut self, intake: Intake) -> Result<Standing, Failure> {
        if self.size == 0 {
            self.survival = Some(self.stage.core.inline_survival(self.drive().slot()));
        }
        let session = self.session;
        match self.finish(intake).await {
            Ok(committed) => {
                let Stage {
                    core, facts, caller, ..
                } = &self.stage;
                let done = core.done(caller.principal.user, facts, committed);
                Ok(Standing::Finished(Box::new(done)))
            }
            Err(failure) => {
                let is_lost = failure.kind == ErrorKind::Conflict && !group_codes::WRONG_POSITION.is(&failure);
                if let (true, Some((upload, _))) = (is_lost, session) {
                    // No repeat would be taken; what it holds must not count for its age.
                    end(&self.stage.core, &self.stage.caller, upload).await;
                }
                Err(failure)
            }
        }
    }

    /// How long what came in may still wait to be saved; `None` when there is too little.
    pub(super) fn unsaved_for(&mut self, intake: &Intake) -> Option<Duration> {
        let (now, size) = (self.now(), self.size);
        let resuming = self.resuming.as_mut()?;
        resuming.waits(intake.pending_bytes().min(size - resuming.saved_bytes), now)
    }

    /// Makes everything that came in durable and names it: blocks that were cut, and the beginning of the next one.
    pub(super) async fn save(&mut self, intake: &mut Intake) -> Result<(), Failure> {
        self.land(intake).await?;
        self.name_all().await?;
        let size = self.size;
        let is_saved = |resuming: &Resuming| resuming.saved_bytes == size;
        // A row that another gateway has named behind the last one here covers all of the tail.
        let is_covered = !self.passed.is_empty();
        if intake.cutter.held_bytes() > 0 && !is_covered && !self.resuming.as_ref().is_some_and(is_saved) {
            self.keep_tail(intake.cutter.held()).await?;
        }
        self.resuming = Some(Resuming {
            saved_bytes: size,
            unsaved_since: None,
        });
        Ok(())
    }

    async fn keep_tail(&mut self, plain: Bytes) -> Result<(), Failure> {
        let Some((upload, position)) = self.session else {
            return Err(Failure::bug("a tail is kept for no session"));
        };
        let Stage {
            core, caller, facts, ..
        } = &self.stage;
        let (seal, random) = (Arc::clone(&self.stage.seal), core.seams.random.clone());
        let plain_bytes = plain.len() as u32;
        let sealing = move || seal.seal_tail(&plain, &mut |bytes: &mut [u8]| random.fill(bytes));
        let (record, sealed) = core.seams.pool.run(Urgency::Foreground, sealing).await;
        let sealed_bytes = sealed.len() as u32;
        let profile = core.profile_for(facts, sealed.len(), caller.trace).await?;
        let coded = core.code_stripe(sealed, profile).await?;
        let mut name: Option<StripeId> = None;
        for _ in 0..TAIL_TRIES_MAX {
            let (stripe, _) = write_named(&self.stage, &coded, Vec::new(), (name, None)).await?;
            let tail = Tail {
                stripe: stripe.id,
                record: u128::from_be_bytes(record.0),
                sealed_bytes,
                plain_bytes,
            };
            name = Some(stripe.id);
            let command = UploadCommand::KeepTail {
                upload,
                position,
                tail,
                stripe,
            };
            match core.command(caller, Command::Upload(command), None).await {
                Ok(_) => return Ok(()),
                Err(failure) if group_codes::STALE_ROW.is(&failure) => {
                    core.directory.refresh(caller.trace).await?;
                }
                Err(failure) if group_codes::BIRTH_EPOCH_CLOSED.is(&failure) => name = None,
                Err(failure) => return Err(failure),
            }
        }
        Err(codes::ROW_CHANGED.failure())
    }
}

#[cfg(test)]
mod tests;
