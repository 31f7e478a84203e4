//! Copies inside a drive: at once where one command can, and by a job where it cannot.
//!
//! Invariant: everything is decided and done by the drive's group; a job belongs to whoever asked for it.

use crate::codes;
use crate::drive::rewind::unknown;
use crate::drive::tree::{drive_of, entries_made};
use crate::drive::{Caller, Core, expect};
use model::id::EntryId;
use protocol::codes as group_codes;
use protocol::metadata::copy::CopyFacts;
use protocol::metadata::drive::{DriveCommand, EntryRef, EntryView, Place};
use protocol::metadata::query::DriveAsk;
use protocol::metadata::{Command, CommandAnswer, QueryAnswer, RequestKey};
use protocol::wire_error::Failure;

/// What became of a wish for a copy.
#[derive(Debug)]
pub enum Copied {
    /// It is there.
    There(Box<EntryView>),
    /// A job makes it.
    Begun(CopyFacts),
}

impl Core {
    /// Copies an entry with all below it; moves no data.
    ///
    /// Errors: `cross_drive`, `name_taken`, `cycle`, `too_deep`, `in_trash`, `copies_running`, `copy_too_large` for a file of too
    /// many pages, and those of finding the entry and the place.
    pub async fn copy(
        &self,
        caller: &Caller,
        entry: EntryId,
        (place, with_parents): (Place, bool),
        key: Option<RequestKey>,
    ) -> Result<Copied, Failure> {
        if drive_of(&place, caller.home) != entry.drive {
            // Whether the entry is there is the group's to say, to whoever may know.
            self.entry(caller, EntryRef::Id(entry)).await?;
            return Err(group_codes::CROSS_DRIVE.because("a copy stays in the drive of its entry; name a place there"));
        }
        let command = DriveCommand::CopyEntry {
            principal: caller.principal,
            entry,
            place: place.clone(),
            with_parents,
            fresh: self.fresh(entries_made(&place, with_parents)),
            seed: self.seams.random.u64(),
        };
        match self.copy_command(caller, command, key).await {
            Err(failure) if group_codes::COPY_TOO_LARGE.is(&failure) => {
                self.begin_copy(caller, entry, (place, with_parents), key).await
            }
            answered => answered,
        }
    }

    /// Begins a job that copies a folder of any size. A repeat under a key whose first copy was made at once gets that one.
    ///
    /// Errors: as `copy`.
    pub async fn begin_copy(
        &self,
        caller: &Caller,
        entry: EntryId,
        (place, with_parents): (Place, bool),
        key: Option<RequestKey>,
    ) -> Result<Copied, Failure> {
        let fresh = self.fresh(entries_made(&place, with_parents));
        let command = DriveCommand::BeginCopy {
            principal: caller.principal,
            entry,
            place,
            with_parents,
            fresh,
            seed: self.seams.random.u64(),
            job: self.seams.random.u64(),
        };
        self.copy_command(caller, command, key).await
    }

    async fn copy_command(
        &self,
        caller: &Caller,
        command: DriveCommand,
        key: Option<RequestKey>,
    ) -> Result<Copied, Failure> {
        match self.command(caller, Command::Drive(command), key).await? {
            CommandAnswer::Entry(changed) => Ok(Copied::There(Box::new(changed.view))),
            CommandAnswer::Copy(facts) => Ok(Copied::Begun(facts)),
            _ => expect(None),
        }
    }

    /// A copy that is made by a job.
    ///
    /// Errors: `job_not_found`.
    pub async fn copy_job(&self, caller: &Caller, job: EntryId) -> Result<CopyFacts, Failure> {
        let ask = DriveAsk::Copy(job.number);
        match self.ask(caller, job.drive, ask).await.map_err(unknown)? {
            QueryAnswer::Copy(facts) => Ok(facts),
            _ => expect(None),
        }
    }

    /// Ends a copy that is under way; one that has ended stays as it is.
    ///
    /// Errors: `job_not_found`, `job_not_cancellable`.
    pub async fn cancel_copy(&self, caller: &Caller, job: EntryId) -> Result<CopyFacts, Failure> {
        let command = DriveCommand::CancelCopy {
            principal: caller.principal,
            drive: job.drive,
            job: job.number,
        };
        let answer = self.command(caller, Command::Drive(command), None).await;
        match answer.map_err(unknown) {
            Ok(CommandAnswer::Copy(facts)) => Ok(facts),
            Ok(_) => expect(None),
            Err(failure) if group_codes::JOB_NOT_FOUND.is(&failure) => {
                // A job that the caller is told of otherwise is not unknown.
                self.rewind(caller, job, 1, None).await?;
                Err(codes::JOB_NOT_CANCELLABLE.failure())
            }
            Err(failure) => Err(failure),
        }
    }
}
