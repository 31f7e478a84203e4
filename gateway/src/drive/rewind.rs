//! Rewinding a folder or a file to an instant, and the job that does it; twins of a folder.
//!
//! Invariant: everything is decided and done by the drive's group; a job belongs to whoever asked for it.

use crate::drive::{Caller, Core, expect};
use model::id::{DriveId, EntryId};
use protocol::codes as group_codes;
use protocol::metadata::drive::DriveCommand;
use protocol::metadata::query::{DriveAsk, TwinListing};
use protocol::metadata::rewind::{RewindFacts, RewindOrder, RewindPage};
use protocol::metadata::{Command, CommandAnswer, QueryAnswer, RequestKey};
use protocol::wire_error::Failure;

/// Begins the place in a page token, so that a token of another list is none of this.
const ITEMS_WORD: &str = "rewind ";
const TWINS_WORD: &str = "twins ";

impl Core {
    /// Begins a rewind.
    ///
    /// Errors: `rewind_in_future`, `rewind_too_old`, `rewind_running`, `in_trash`, and those of finding the entry.
    pub async fn begin_rewind(
        &self,
        caller: &Caller,
        order: RewindOrder,
        key: Option<RequestKey>,
    ) -> Result<RewindFacts, Failure> {
        let (principal, job) = (caller.principal, self.seams.random.u64());
        let command = DriveCommand::BeginRewind { principal, order, job };
        self.rewind_command(caller, command, key).await
    }

    /// Has what a dry run has listed carried out.
    ///
    /// Errors: `job_not_found`, `rewind_not_planned`, `rewind_running`.
    pub async fn run_rewind(
        &self,
        caller: &Caller,
        (drive, job): (DriveId, u64),
        key: Option<RequestKey>,
    ) -> Result<RewindFacts, Failure> {
        let principal = caller.principal;
        let command = DriveCommand::RunRewind { principal, drive, job };
        self.rewind_command(caller, command, key).await.map_err(unknown)
    }

    async fn rewind_command(
        &self,
        caller: &Caller,
        command: DriveCommand,
        key: Option<RequestKey>,
    ) -> Result<RewindFacts, Failure> {
        match self.command(caller, Command::Drive(command), key).await? {
            CommandAnswer::Rewind(facts) => Ok(facts),
            _ => expect(None),
        }
    }

    /// A rewind with a page of its list, and the token of the next.
    ///
    /// Errors: `job_not_found`, `bad_limit`, `bad_page_token`.
    pub async fn rewind(
        &self,
        caller: &Caller,
        job: EntryId,
        limit: u16,
        page_token: Option<&str>,
    ) -> Result<(RewindPage, Option<String>), Failure> {
        let place = self.place_of(caller, job, ITEMS_WORD, page_token)?;
        let first = place.as_deref().map_or(Some(0), |place| place.parse().ok());
        let first = first.ok_or_else(|| group_codes::BAD_PAGE_TOKEN.failure())?;
        let number = job.number;
        let ask = DriveAsk::Rewind {
            job: number,
            first,
            limit,
        };
        let QueryAnswer::Rewind(page) = self.ask(caller, job.drive, ask).await.map_err(unknown)? else {
            return expect(None);
        };
        let last = page.items.last().filter(|_| page.has_more);
        let token = last.map(|last| {
            let place = format!("{ITEMS_WORD}{}", last.index.saturating_add(1));
            self.receipts.page_token(caller.principal.user, job, &place)
        });
        Ok((page, token))
    }

    /// A page of a folder's twins, and the token of the next.
    ///
    /// Errors: `not_a_folder`, `bad_limit`, `bad_page_token`, and those of finding the folder.
    pub async fn twins(
        &self,
        caller: &Caller,
        folder: EntryId,
        limit: u16,
        page_token: Option<&str>,
    ) -> Result<(TwinListing, Option<String>), Failure> {
        let read = |place: String| {
            let (number, folded) = place.split_once(' ')?;
            Some((folded.to_owned(), number.parse::<u64>().ok()?))
        };
        let read = |place| read(place).ok_or_else(|| group_codes::BAD_PAGE_TOKEN.failure());
        let after = self.place_of(caller, folder, TWINS_WORD, page_token)?;
        let after = after.map(read).transpose()?;
        let ask = DriveAsk::Twins { folder, after, limit };
        let QueryAnswer::Twins(listing) = self.ask(caller, folder.drive, ask).await? else {
            return expect(None);
        };
        let token = listing.next.as_ref().map(|(folded, number)| {
            let place = format!("{TWINS_WORD}{number} {folded}");
            self.receipts.page_token(caller.principal.user, folder, &place)
        });
        Ok((listing, token))
    }

    /// What stands behind the word in a page token of this caller and this list.
    fn place_of(
        &self,
        caller: &Caller,
        list: EntryId,
        word: &str,
        page_token: Option<&str>,
    ) -> Result<Option<String>, Failure> {
        let read = |token| {
            let (begun_in, place) = self.receipts.read_page_token(caller.principal.user, token)?;
            let place = place.strip_prefix(word)?.to_owned();
            (begun_in == list).then_some(place)
        };
        let read = |token| read(token).ok_or_else(|| group_codes::BAD_PAGE_TOKEN.failure());
        page_token.map(read).transpose()
    }
}

/// Whoever may not know of a drive may not know of its jobs either: one that is there and one that is not are answered alike.
pub(super) fn unknown(failure: Failure) -> Failure {
    if group_codes::NOT_FOUND.is(&failure) {
        return group_codes::JOB_NOT_FOUND.failure();
    }
    failure
}
