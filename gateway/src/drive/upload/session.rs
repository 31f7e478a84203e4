//! The part of an upload that needs a session: opening it, appending rows, committing and ending it; and what can be mended when
//! a group refuses stripes or rows.
//!
//! Invariants: what a command names is kept until the command succeeded, so that every refusal that asks for bytes can be served.

use crate::codes;
use crate::drive::upload::Upload;
use crate::drive::{Caller, Core, expect};
use model::id::UploadId;
use protocol::codes as group_codes;
use protocol::metadata::upload::{Committed, UploadCommand};
use protocol::metadata::{Command, CommandAnswer};
use protocol::wire_error::Failure;
use std::sync::Arc;

/// How often one command is mended before the client is asked to send the content again.
const MENDS_MAX: u32 = 4;

impl Upload {
    /// Names the stripes and rows that wait; opens the session first when there is none.
    pub(super) async fn append(&mut self) -> Result<(), Failure> {
        let (upload, mut position) = match self.session {
            Some(session) => session,
            None => {
                let upload = UploadId {
                    drive: self.drive(),
                    number: self.core.seams.random.u64(),
                };
                // Noted before it is asked for: whoever drops this upload meanwhile ends it all the same.
                self.session = Some((upload, 0));
                self.open(upload).await?;
                self.pages.clear();
                (upload, 0)
            }
        };
        if self.waiting.is_empty() && self.runs.is_empty() {
            return Ok(());
        }
        let mut mends = 0;
        loop {
            let (stripes, runs) = (self.new_stripes(), self.runs.clone());
            let command = UploadCommand::AppendRows {
                upload,
                position,
                stripes,
                runs,
            };
            match self.core.command(&self.caller, Command::Upload(command), None).await {
                Ok(CommandAnswer::Session(state)) => {
                    position = state.rows;
                    break;
                }
                Ok(_) => return expect(None),
                Err(failure) => self.mend(failure, &mut mends).await?,
            }
        }
        self.session = Some((upload, position));
        self.waiting.clear();
        self.waiting_bytes = 0;
        self.runs.clear();
        Ok(())
    }

    async fn open(&mut self, upload: UploadId) -> Result<(), Failure> {
        let command = UploadCommand::OpenSession {
            principal: self.caller.principal,
            upload,
            target: self.order.target.clone(),
            base_version: self.order.base_version,
            declared_bytes: self.order.declared_bytes,
            is_resumable: false,
            content_type: self.order.content_type.clone(),
        };
        match self.core.command(&self.caller, Command::Upload(command), None).await? {
            CommandAnswer::Session(_) => Ok(()),
            _ => expect(None),
        }
    }

    pub(super) async fn commit_session(&mut self) -> Result<Committed, Failure> {
        let Some((upload, _)) = self.session else {
            return Err(Failure::bug("a session is committed that was not opened"));
        };
        let command = UploadCommand::CommitSession {
            principal: self.caller.principal,
            upload,
            size: self.size,
            digest: self.file.finish(),
            fresh: self.fresh(),
            survival: self.survival()?,
        };
        match self
            .core
            .command(&self.caller, Command::Upload(command), self.commit_key())
            .await?
        {
            CommandAnswer::Committed(committed) => {
                self.session = None;
                Ok(committed)
            }
            _ => expect(None),
        }
    }

    /// Ends the session, if any, so that it holds nothing until its age is over.
    pub(super) async fn abort(&mut self) {
        if let Some((upload, _)) = self.session.take() {
            end(&self.core, &self.caller, upload).await;
        }
    }

    /// Makes good what a group refused and can be made good: stripes counted under an old row, blocks that went away meanwhile,
    /// stripe ids that are taken or too old. Everything else is the upload's failure.
    pub(super) async fn mend(&mut self, failure: Failure, mends: &mut u32) -> Result<(), Failure> {
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
        for done in &mut self.waiting {
            if is_stale || is_id {
                done.write_again(&self.core, &self.caller, &self.facts, is_id).await?;
            }
            if needs_blocks {
                done.write_known(&self.core, &self.caller, &self.facts, &self.seal)
                    .await?;
            }
        }
        Ok(())
    }
}

/// A client that goes away takes its request with it wherever that stood: what the session holds must not wait for its age, since
/// it counts against the quota.
impl Drop for Upload {
    fn drop(&mut self) {
        let Some((upload, _)) = self.session.take() else { return };
        let Ok(runtime) = tokio::runtime::Handle::try_current() else {
            return;
        };
        let (core, caller) = (Arc::clone(&self.core), self.caller);
        runtime.spawn(async move { end(&core, &caller, upload).await });
    }
}

/// Ends a session. A failure changes nothing: age ends it too.
async fn end(core: &Core, caller: &Caller, upload: UploadId) {
    let command = UploadCommand::AbortSession {
        principal: caller.principal,
        upload,
    };
    if let Err(failure) = core.command(caller, Command::Upload(command), None).await {
        tracing::warn!(%upload, %failure, "upload session left to its age");
    }
}
