//! Puts one content into a drive: body -> cutter -> batches of a stripe's worth -> sealed, coded, durable -> rows -> commit.
//!
//! Batches run side by side, as many as the byte budget gives, and are taken up in order. Up to 12 MiB that end within 5 s go in
//! with their commit; what is longer opens a session and names its rows as its stripes become durable, one command at a time, while
//! the body is read on and further batches are written.
//! Invariants: at most `STRIPES_IN_FLIGHT_MAX` batches in memory; a row is named only after its block is durable or known to the
//! drive; nothing is visible before the commit; a body that ends early commits nothing and its session is ended.
//! Not here: what happens to one batch (`batch`), the commit (`commit`), retries of commands (`metadata_client`).

pub(in crate::drive) mod batch;
mod commit;
pub mod file_batch;
mod overtaken;
pub mod resume;
pub(in crate::drive) mod session;
pub mod single;
pub mod source;
pub mod turns;

use crate::codes;
use crate::drive::account::CUT;
use crate::drive::budget::{STRIPES_IN_FLIGHT_MAX, Share};
use crate::drive::tree::drive_of;
use crate::drive::upload::batch::{Batch, Done};
use crate::drive::upload::overtaken::Passed;
use crate::drive::upload::resume::{RESUMABLE_STRIPES_IN_FLIGHT_MAX, Resuming};
use crate::drive::upload::session::{Naming, Unnamed};
use crate::drive::{Caller, Core, expect};
use crate::metrics;
use api::receipt::Receipt;
use bytes::Bytes;
use codec::cut::Cutter;
use codec::digest::{FileDigest, PageCutter};
use codec::seal::DriveSeal;
use futures_util::StreamExt;
use futures_util::stream::{BoxStream, FuturesOrdered};
use model::digest::Digest;
use model::entry::BlockRow;
use model::id::{DriveId, UploadId, UserId};
use model::limits::{DIRECT_COMMIT_AFTER, DIRECT_COMMIT_BYTES, INLINE_BYTES_MAX};
use protocol::codes as group_codes;
use protocol::metadata::query::{DriveAsk, DriveFacts};
use protocol::metadata::upload::{Committed, PageRows, Survival, UploadTarget};
use protocol::metadata::{QueryAnswer, RequestKey};
use protocol::wire_error::Failure;
use std::sync::Arc;
use std::time::Duration;
use tokio::task::JoinError;
use tokio_util::task::AbortOnDropHandle;
use tracing::Instrument;

/// A body as it comes in; an error ends the upload.
pub type Body = BoxStream<'static, Result<Bytes, Failure>>;

/// What is to be uploaded where.
#[derive(Clone, Debug)]
pub struct UploadOrder {
    /// To what.
    pub target: UploadTarget,
    /// The version that the content follows.
    pub base_version: Option<u64>,
    /// Bytes that the client declared.
    pub declared_bytes: Option<u64>,
    /// Whether the client waits for a word before it sends the body, so that a refusal must come first, however short the body is.
    pub is_body_held_back: bool,
    /// As the client gave it.
    pub content_type: Option<String>,
    /// The client's own request id.
    pub key: Option<RequestKey>,
}

impl UploadOrder {
    fn drive(&self, caller: &Caller) -> DriveId {
        match &self.target {
            UploadTarget::Entry(entry) => entry.drive,
            UploadTarget::Place { place, .. } => drive_of(place, caller.home),
        }
    }
}

/// A finished upload.
pub struct UploadDone {
    /// The group's answer.
    pub committed: Committed,
    /// What the write survives, signed.
    pub receipt: Receipt,
}

/// An admitted upload: it holds its first share of the budget, so its body may be read.
pub struct Admitted(Share);

impl Core {
    /// Refuses a content that is known to have at least `bytes` when no file may: `file_too_large`.
    pub fn require_file_size(&self, bytes: Option<u64>) -> Result<(), Failure> {
        match bytes {
            Some(bytes) if bytes > self.limits.file_bytes_max => Err(group_codes::FILE_TOO_LARGE.failure()),
            _ => Ok(()),
        }
    }

    /// Admits an upload of at most `bytes_max`, or of unknown length, before any byte of its body is read.
    ///
    /// Errors: `too_busy` for want of budget.
    pub fn admit(&self, bytes_max: Option<u64>) -> Result<Admitted, Failure> {
        self.budget.admit(bytes_max).map(Admitted)
    }

    /// As `admit`, for an upload of which `bytes` are held before the first of them goes in.
    ///
    /// Errors: `too_busy` for want of budget.
    pub fn admit_held(&self, bytes: u64) -> Result<Admitted, Failure> {
        self.budget.admit_held(bytes).map(Admitted)
    }

    /// Takes the body in and commits it. Dropped midway it commits nothing and its session is ended behind it.
    ///
    /// Errors: those of the commit; `body_cut`, `file_too_large`, `storage_full`, `too_few_disks`, `outcome_unknown`.
    pub async fn upload(
        self: &Arc<Self>,
        caller: &Caller,
        admitted: Admitted,
        order: UploadOrder,
        body: Body,
    ) -> Result<UploadDone, Failure> {
        let facts = self.facts_for(caller, order.drive(caller), &order).await?;
        let stage = self.stage(caller, facts)?;
        let mut upload = Upload::new(stage, order, admitted);
        let result = upload.run(body).await;
        if result.is_err() {
            upload.abort().await;
        }
        let committed = result?;
        let bytes = self.seams.metrics.counter(&metrics::UPLOADED_BYTES);
        bytes.with_label_values::<&str>(&[]).inc_by(committed.version.size);
        Ok(self.done(caller.principal.user, &upload.stage.facts, committed))
    }

    fn done(&self, user: UserId, facts: &DriveFacts, committed: Committed) -> UploadDone {
        UploadDone {
            receipt: self.receipts.receipt(user, facts.profile, &committed),
            committed,
        }
    }

    fn stage(self: &Arc<Self>, caller: &Caller, facts: DriveFacts) -> Result<Stage, Failure> {
        if facts.cut != CUT {
            return Err(Failure::bug(
                "the drive is cut by another table than this release knows",
            ));
        }
        Ok(Stage {
            core: Arc::clone(self),
            caller: *caller,
            seal: self.seals.of(&facts)?,
            facts: Arc::new(facts),
        })
    }
}

impl Core {
    /// What the upload needs of its drive. What goes in with one command anyway is refused by that command; anything larger is
    /// refused before its body is read.
    async fn facts_for(&self, caller: &Caller, drive: DriveId, order: &UploadOrder) -> Result<DriveFacts, Failure> {
        let is_inline = order
            .declared_bytes
            .is_some_and(|bytes| bytes <= INLINE_BYTES_MAX as u64);
        match self.drives.get(&drive, self.seams.clock.monotonic()) {
            Ok(facts) if is_inline && !order.is_body_held_back => Ok(facts),
            Ok(_) => self.foreseen(caller, drive, order).await,
            Err(asking) => {
                let facts = self.foreseen(caller, drive, order).await?;
                self.drives.put(drive, facts.clone(), asking);
                Ok(facts)
            }
        }
    }

    /// What the upload needs of its drive, or the refusal that its commit would surely get: asked before the body is read, so that
    /// nobody sends 10 GiB for a name that is taken, and no data is written for a version that has passed.
    async fn foreseen(&self, caller: &Caller, drive: DriveId, order: &UploadOrder) -> Result<DriveFacts, Failure> {
        let ask = DriveAsk::Upload {
            target: order.target.clone(),
            base_version: order.base_version,
            declared_bytes: order.declared_bytes,
            request: order.key,
        };
        match self.ask(caller, drive, ask).await? {
            QueryAnswer::Drive(facts) => Ok(facts),
            _ => expect(None),
        }
    }
}

/// Batches on their way, in the order of the content. Each is a task of its own: it goes on while the body is read and cut and while
/// rows are being named, and ends when the upload is dropped.
type Flights = FuturesOrdered<AbortOnDropHandle<Result<Done, Failure>>>;

/// Whose blocks these are and where they go.
#[derive(Clone)]
struct Stage {
    core: Arc<Core>,
    caller: Caller,
    facts: Arc<DriveFacts>,
    seal: Arc<DriveSeal>,
}

struct Upload {
    stage: Stage,
    order: UploadOrder,
    shares: Vec<Share>,
    started_at: Duration,
    size: u64,
    survival: Option<Survival>,
    waiting: Unnamed,
    waiting_since: Duration,
    /// Rows of the page that has not ended, and pages that ended while there is no session.
    open_rows: Vec<BlockRow>,
    pages: Vec<PageRows>,
    file: FileDigest,
    /// The session with the rows that it has named.
    session: Option<(UploadId, u64)>,
    /// The command under way that names more.
    naming: Option<Naming>,
    /// Rows that another gateway has named, as far as they could not be compared.
    passed: Passed,
    /// Of an upload that may be gone on with later: what it holds stays when this part of it ends.
    resuming: Option<Resuming>,
}

/// A content on its way from the body to batches that are written.
#[derive(Default)]
struct Intake {
    cutter: Cutter,
    batch: Batch,
    flights: Flights,
}

impl Intake {
    /// Bytes that no batch under way has.
    fn pending_bytes(&self) -> u64 {
        (self.batch.plain_bytes() + self.cutter.held_bytes()) as u64
    }
}

impl Upload {
    fn new(stage: Stage, order: UploadOrder, admitted: Admitted) -> Self {
        let started_at = stage.core.seams.clock.monotonic();
        let file = FileDigest::new(stage.seal.digest_key());
        Self {
            stage,
            order,
            shares: vec![admitted.0],
            started_at,
            size: 0,
            survival: None,
            waiting: Unnamed::default(),
            waiting_since: started_at,
            open_rows: Vec::new(),
            pages: Vec::new(),
            file,
            session: None,
            naming: None,
            passed: Passed::default(),
            resuming: None,
        }
    }

    fn drive(&self) -> DriveId {
        self.stage.facts.drive
    }

    fn now(&self) -> Duration {
        self.stage.core.seams.clock.monotonic()
    }

    async fn run(&mut self, body: Body) -> Result<Committed, Failure> {
        let mut intake = Intake::default();
        if let Some(cut) = self.take_in(&mut intake, body).await? {
            return Err(cut);
        }
        if let Some(declared) = self.order.declared_bytes.filter(|declared| *declared != self.size) {
            let detail = format!(
                "the body has {} of {declared} declared bytes; nothing was kept, send it again",
                self.size
            );
            return Err(codes::BODY_CUT.because(detail));
        }
        self.finish(intake).await
    }

    /// Takes the body in until its end; answers why it ended early, if it did.
    async fn take_in(&mut self, intake: &mut Intake, mut body: Body) -> Result<Option<Failure>, Failure> {
        let clock = Arc::clone(&self.stage.core.seams.clock);
        loop {
            let (unnamed_for, may_name) = (self.unnamed_for(), !self.waiting.is_empty() && self.naming.is_none());
            let unsaved_for = self.unsaved_for(intake);
            let chunk = tokio::select! {
                biased;
                named = Naming::ended(&mut self.naming) => {
                    self.named(named?);
                    continue;
                }
                Some(done) = intake.flights.next() => {
                    self.take(landed(done)?);
                    continue;
                }
                // A body that trickles must not keep acknowledged stripes unnamed.
                () = clock.sleep(unnamed_for), if may_name => {
                    self.name();
                    continue;
                }
                () = clock.sleep(unsaved_for.unwrap_or_default()), if unsaved_for.is_some() => {
                    self.save(intake).await?;
                    continue;
                }
                chunk = body.next() => chunk,
            };
            let chunk = match chunk {
                None => return Ok(None),
                Some(Err(cut)) => return Ok(Some(cut)),
                Some(Ok(chunk)) => chunk,
            };
            self.size += chunk.len() as u64;
            if self.size > self.stage.core.limits.file_bytes_max {
                return Err(group_codes::FILE_TOO_LARGE.failure());
            }
            for block in intake.cutter.push(chunk) {
                self.batch(intake, block).await?;
            }
        }
    }

    /// Lays a block into the batch; a batch that it does not fit any more is written.
    async fn batch(&mut self, intake: &mut Intake, block: Bytes) -> Result<(), Failure> {
        match intake.batch.push(block) {
            Some(full) => self.write(intake, full).await,
            None => Ok(()),
        }
    }

    async fn write(&mut self, intake: &mut Intake, batch: Batch) -> Result<(), Failure> {
        self.make_room(&mut intake.flights).await?;
        intake.flights.push_back(self.start(batch));
        Ok(())
    }

    /// Waits until all blocks that were cut are durable.
    async fn land(&mut self, intake: &mut Intake) -> Result<(), Failure> {
        if !intake.batch.is_empty() {
            let batch = std::mem::take(&mut intake.batch);
            self.write(intake, batch).await?;
        }
        while let Some(done) = intake.flights.next().await {
            self.take(landed(done)?);
        }
        Ok(())
    }

    /// Commits a content that came in whole.
    async fn finish(&mut self, mut intake: Intake) -> Result<Committed, Failure> {
        let last = intake.cutter.finish();
        if self.size <= INLINE_BYTES_MAX as u64 && self.session.is_none() {
            return self.commit_inline(last).await;
        }
        if let Some(block) = last {
            self.batch(&mut intake, block).await?;
        }
        self.land(&mut intake).await?;
        self.commit().await
    }

    /// How long the stripes that wait may still stay unnamed.
    fn unnamed_for(&self) -> Duration {
        (self.waiting_since + DIRECT_COMMIT_AFTER).saturating_sub(self.now())
    }

    fn start(&self, batch: Batch) -> AbortOnDropHandle<Result<Done, Failure>> {
        let stage = self.stage.clone();
        let store = async move { batch.store(&stage).await };
        AbortOnDropHandle::new(tokio::spawn(store.in_current_span()))
    }

    /// Waits until one more batch fits: what flies, what waits for its rows and what is being named together stay within the shares.
    async fn make_room(&mut self, flights: &mut Flights) -> Result<(), Failure> {
        let shares_max = match self.resuming {
            Some(_) => RESUMABLE_STRIPES_IN_FLIGHT_MAX,
            None => STRIPES_IN_FLIGHT_MAX,
        };
        if self.held(flights) >= self.shares.len()
            && self.shares.len() < shares_max
            && let Some(share) = self.stage.core.budget.extend()
        {
            self.shares.push(share);
        }
        while self.held(flights) >= self.shares.len() {
            if flights.is_empty() && self.naming.is_none() {
                self.name();
            }
            tokio::select! {
                biased;
                named = Naming::ended(&mut self.naming) => self.named(named?),
                Some(done) = flights.next() => self.take(landed(done)?),
            }
        }
        Ok(())
    }

    /// Batches in memory.
    fn held(&self, flights: &Flights) -> usize {
        let named = self.naming.as_ref().map_or(0, Naming::batches);
        flights.len() + self.waiting.batches() + named
    }

    /// Takes up a batch whose blocks are durable: its rows follow those before.
    fn take(&mut self, done: Done) {
        self.survival = Some(match self.survival {
            Some(before) => before.least(done.survival),
            None => done.survival,
        });
        let seal = Arc::clone(&self.stage.seal);
        for row in &done.rows {
            // The page cutter of codec decides where a page ends; its rows live here, since it borrows the key.
            let mut pages = PageCutter::resume(seal.digest_key(), std::mem::take(&mut self.open_rows));
            match pages.push(*row) {
                Some(page) => self.end_page(page.digest, page.rows, Some(*row)),
                None => {
                    self.open_rows = pages.open_rows().to_vec();
                    self.waiting.push_row(*row);
                }
            }
        }
        if self.waiting.batches() == 0 {
            self.waiting_since = self.now();
        }
        self.waiting.push(done);
        let is_late = self.now() >= self.started_at + DIRECT_COMMIT_AFTER;
        let needs_session = self.session.is_some() || is_late || self.waiting.plain_bytes() > DIRECT_COMMIT_BYTES;
        if needs_session && self.naming.is_none() {
            self.name();
        }
    }

    fn end_page(&mut self, digest: Digest, rows: Vec<BlockRow>, last: Option<BlockRow>) {
        if let Some(row) = last {
            self.waiting.push_row(row);
        }
        self.waiting.end_page(digest);
        self.file.push(&digest);
        if self.session.is_none() {
            self.pages.push(PageRows { digest, rows });
        }
    }

    fn end_last_page(&mut self) {
        let seal = Arc::clone(&self.stage.seal);
        let mut pages = PageCutter::resume(seal.digest_key(), std::mem::take(&mut self.open_rows));
        if let Some(page) = pages.finish() {
            self.end_page(page.digest, page.rows, None);
        }
    }
}

/// What a batch came to.
fn landed(done: Result<Result<Done, Failure>, JoinError>) -> Result<Done, Failure> {
    done.unwrap_or_else(|error| Err(Failure::bug(format!("store a batch: {error}"))))
}
