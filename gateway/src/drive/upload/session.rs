//! The part of an upload that needs a session: opening it, naming rows, committing and ending it; and what can be mended when a
//! group refuses stripes or rows.
//!
//! Invariants: rows are named in the order of the content, one command at a time; what a command names is kept until the command
//! succeeded, so that every refusal that asks for bytes can be served.

use crate::codes;
use crate::drive::upload::batch::Done;
use crate::drive::upload::overtaken::Passed;
use crate::drive::upload::{Stage, Upload};
use crate::drive::{Caller, Core, expect};
use model::digest::Digest;
use model::entry::BlockRow;
use model::id::UploadId;
use protocol::codes as group_codes;
use protocol::metadata::upload::{Committed, NewStripe, RowRun, Survival, UploadCommand};
use protocol::metadata::{Command, CommandAnswer};
use protocol::wire_error::Failure;
use tokio_util::task::AbortOnDropHandle;
use tracing::Instrument;

/// How often one command is mended before the client is asked to send the content again.
const MENDS_MAX: u32 = 4;

/// Batches whose rows are not named yet, in order, with the rows.
#[derive(Default)]
pub(super) struct Unnamed {
    done: Vec<Done>,
    runs: Vec<RowRun>,
}

impl Unnamed {
    pub(super) fn push(&mut self, done: Done) {
        self.done.push(done);
    }

    pub(super) fn push_row(&mut self, row: BlockRow) {
        match self.runs.last_mut() {
            Some(run) if run.page_end.is_none() => run.rows.push(row),
            _ => self.runs.push(RowRun {
                rows: vec![row],
                page_end: None,
            }),
        }
    }

    /// The page of the rows before ends here.
    pub(super) fn end_page(&mut self, digest: Digest) {
        match self.runs.last_mut() {
            Some(run) if run.page_end.is_none() => run.page_end = Some(digest),
            _ => self.runs.push(RowRun {
                rows: Vec::new(),
                page_end: Some(digest),
            }),
        }
    }

    pub(super) fn runs_mut(&mut self) -> &mut Vec<RowRun> {
        &mut self.runs
    }

    pub(super) fn is_empty(&self) -> bool {
        self.done.is_empty() && self.runs.is_empty()
    }

    pub(super) fn batches(&self) -> usize {
        self.done.len()
    }

    pub(super) fn plain_bytes(&self) -> usize {
        self.done.iter().map(|done| done.plain_bytes).sum()
    }

    pub(super) fn stripes(&self) -> Vec<NewStripe> {
        let written = self.done.iter().flat_map(|done| &done.stripes);
        written.map(|written| written.named.clone()).collect()
    }

    /// The least that any of its blocks survives.
    pub(super) fn survival(&self) -> Option<Survival> {
        self.done.iter().map(|done| done.survival).reduce(Survival::least)
    }
}

/// A command under way that names rows.
pub(super) struct Naming {
    task: AbortOnDropHandle<Result<Named, Failure>>,
    batches: usize,
}

/// What it came to.
pub(super) struct Named {
    /// The rows that the session has named now.
    position: u64,
    survival: Option<Survival>,
    passed: Passed,
}

impl Naming {
    /// Batches that it keeps.
    pub(super) fn batches(&self) -> usize {
        self.batches
    }

    /// How it ended, and then there is none any more; without one, never. Dropped before, it goes on.
    pub(super) async fn ended(slot: &mut Option<Self>) -> Result<Named, Failure> {
        let Some(naming) = slot else {
            return std::future::pending().await;
        };
        let named = (&mut naming.task).await;
        *slot = None;
        named.unwrap_or_else(|error| Err(Failure::bug(format!("name rows: {error}"))))
    }
}

impl Upload {
    /// Begins to name the stripes and rows that wait; opens the session first when there is none. Nothing else is being named.
    pub(super) fn name(&mut self) {
        let opening = match self.session {
            Some(_) => None,
            None => {
                let upload = UploadId {
                    drive: self.drive(),
                    number: self.stage.core.seams.random.u64(),
                };
                // Noted before it is asked for: whoever drops this upload meanwhile ends it all the same.
                self.session = Some((upload, 0));
                self.pages.clear();
                Some(self.opening(upload))
            }
        };
        let Some((upload, position)) = self.session else { return };
        let unnamed = (std::mem::take(&mut self.waiting), std::mem::take(&mut self.passed));
        let (batches, stage, is_resumable) = (unnamed.0.batches(), self.stage.clone(), self.resuming.is_some());
        let task = async move {
            if let Some(opening) = opening {
                match stage
                    .core
                    .command(&stage.caller, Command::Upload(opening), None)
                    .await?
                {
                    CommandAnswer::Session(_) => {}
                    _ => return expect(None),
                }
            }
            stage.name_rows((upload, is_resumable), position, unnamed).await
        };
        let task = AbortOnDropHandle::new(tokio::spawn(task.in_current_span()));
        self.naming = Some(Naming { task, batches });
    }

    /// Takes up what was named; what became durable meanwhile goes with the next command.
    pub(super) fn named(&mut self, named: Named) {
        if let Some((_, position)) = &mut self.session {
            *position = named.position;
        }
        self.survival = self.survival.into_iter().chain(named.survival).reduce(Survival::least);
        self.passed = named.passed;
        if self.waiting.batches() > 0 {
            self.name();
        }
    }

    /// Names everything that is durable.
    pub(super) async fn name_all(&mut self) -> Result<(), Failure> {
        loop {
            if self.naming.is_some() {
                let named = Naming::ended(&mut self.naming).await?;
                self.named(named);
            } else if self.waiting.is_empty() {
                return Ok(());
            } else {
                self.name();
            }
        }
    }

    fn opening(&self, upload: UploadId) -> UploadCommand {
        UploadCommand::OpenSession {
            principal: self.stage.caller.principal,
            upload,
            target: self.order.target.clone(),
            base_version: self.order.base_version,
            declared_bytes: self.order.declared_bytes,
            is_resumable: false,
            content_type: self.order.content_type.clone(),
        }
    }

    pub(super) async fn commit_session(&mut self) -> Result<Committed, Failure> {
        let Some((upload, _)) = self.session else {
            return Err(Failure::bug("a session is committed that was not opened"));
        };
        if !self.passed.is_empty() {
            // The session has rows of which nothing is known here.
            return Err(group_codes::WRONG_POSITION.failure());
        }
        let command = UploadCommand::CommitSession {
            principal: self.stage.caller.principal,
            upload,
            size: self.size,
            digest: self.file.finish(),
            fresh: self.fresh(),
            survival: self.survival()?,
        };
        let Stage { core, caller, .. } = &self.stage;
        match core
            .command(caller, Command::Upload(command), self.commit_key())
            .await?
        {
            CommandAnswer::Committed(committed) => {
                self.session = None;
                Ok(committed)
            }
            _ => expect(None),
        }
    }

    /// Ends the session, if any, so that it holds nothing until its age is over. Goes on when it is dropped.
    pub(super) async fn abort(&mut self) {
        if let Some(ending) = self.ending() {
            drop(tokio::spawn(ending.in_current_span()).await);
        }
    }

    /// Ends the session behind whatever names its rows: the command that opens it must not come after the one that ends it.
    ///
    /// Nothing of an upload that may be gone on with.
    fn ending(&mut self) -> Option<impl Future<Output = ()> + Send + 'static> {
        let (upload, _) = self.session.take().filter(|_| self.resuming.is_none())?;
        let (stage, naming) = (self.stage.clone(), self.naming.take());
        Some(async move {
            if let Some(naming) = naming {
                drop(naming.task.await);
            }
            end(&stage.core, &stage.caller, upload).await;
        })
    }
}

impl Stage {
    /// Names stripes and rows behind the first `position` ones of a session.
    async fn name_rows(
        &self,
        (upload, is_resumable): (UploadId, bool),
        mut position: u64,
        (mut unnamed, mut passed): (Unnamed, Passed),
    ) -> Result<Named, Failure> {
        // What others' rows survive that were passed by: the commit promises it with what is named here.
        let (mut mends, mut of_passed) = (0, None);
        let least = |of_passed: Option<Survival>, unnamed: &Unnamed| {
            of_passed.into_iter().chain(unnamed.survival()).reduce(Survival::least)
        };
        loop {
            let (stripes, runs) = (unnamed.stripes(), unnamed.runs.clone());
            let command = if is_resumable {
                UploadCommand::NameRows {
                    upload,
                    position,
                    stripes,
                    runs,
                    survival: unnamed.survival(),
                }
            } else {
                UploadCommand::AppendRows {
                    upload,
                    position,
                    stripes,
                    runs,
                }
            };
            match self.core.command(&self.caller, Command::Upload(command), None).await {
                Ok(CommandAnswer::Session(state)) => {
                    return Ok(Named {
                        position: state.rows,
                        survival: least(of_passed, &unnamed),
                        passed,
                    });
                }
                Ok(_) => return expect(None),
                Err(failure) if is_resumable && group_codes::WRONG_POSITION.is(&failure) => {
                    let both = (&mut unnamed, &mut passed);
                    let (behind, told) = self.pass_by(upload, position, both, failure).await?;
                    position = behind;
                    of_passed = of_passed.into_iter().chain(told).reduce(Survival::least);
                    if unnamed.runs.is_empty() {
                        // Stripes of rows that were named by another gateway are named by nobody, and go as orphans do.
                        return Ok(Named {
                            position,
                            survival: least(of_passed, &unnamed),
                            passed,
                        });
                    }
                }
                Err(failure) => self.mend(&mut unnamed, failure, &mut mends).await?,
            }
        }
    }

    /// Makes good what a group refused and can be made good: stripes counted under an old row, blocks that went away meanwhile,
    /// stripe ids that are taken or too old. Everything else is the upload's failure.
    pub(super) async fn mend(&self, unnamed: &mut Unnamed, failure: Failure, mends: &mut u32) -> Result<(), Failure> {
        let is_stale = group_codes::STALE_ROW.is(&failure);
        let is_id = group_codes::BIRTH_EPOCH_CLOSED.is(&failure) || group_codes::STRIPE_EXISTS.is(&failure);
        let needs_blocks = group_codes::NEED_BLOCKS.is(&failure);
        if !(is_stale || is_id || needs_blocks || group_codes::ID_TAKEN.is(&failure)) {
            return Err(failure);
        }
        *mends += 1;
        if *mends > MENDS_MAX {
            return Err(codes::ROW_CHANGED.because(format!(
                "the content could not be placed: {}; send it again",
                failure.code
            )));
        }
        if is_stale {
            self.core.directory.refresh(self.caller.trace).await?;
        }
        for done in &mut unnamed.done {
            if is_stale || is_id {
                done.write_again(self, is_id).await?;
            }
            if needs_blocks {
                done.write_known(self).await?;
            }
        }
        Ok(())
    }
}

/// A client that goes away takes its request with it wherever that stood: what the session holds must not wait for its age, since
/// it counts against the quota.
impl Drop for Upload {
    fn drop(&mut self) {
        let Some(ending) = self.ending() else { return };
        if let Ok(runtime) = tokio::runtime::Handle::try_current() {
            runtime.spawn(ending);
        }
    }
}

/// Ends a session. A failure changes nothing: age ends it too.
pub(in crate::drive) async fn end(core: &Core, caller: &Caller, upload: UploadId) {
    let command = UploadCommand::AbortSession {
        principal: caller.principal,
        upload,
    };
    if let Err(failure) = core.command(caller, Command::Upload(command), None).await {
        tracing::warn!(%upload, %failure, "upload session left to its age");
    }
}
