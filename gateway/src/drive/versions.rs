//! Old versions of a file: the list, restoring one, and how long a drive keeps them.
//!
//! Not here: their bytes, which are read as the current ones are (`download`).

use crate::drive::{Caller, Core, expect};
use model::entry::Version;
use model::id::{DriveId, EntryId};
use protocol::codes as group_codes;
use protocol::metadata::drive::{DriveCommand, EntryView, Retention};
use protocol::metadata::query::DriveAsk;
use protocol::metadata::upload::UploadCommand;
use protocol::metadata::{Command, CommandAnswer, QueryAnswer, RequestKey};
use protocol::wire_error::Failure;

/// Begins the place in a page token, so that a token of another list is none of this.
const TOKEN_WORD: &str = "versions ";

impl Core {
    /// A page of a file's versions, the newest first, and the token of the next.
    ///
    /// Errors: `not_found`, `not_a_file`, `bad_limit`, `bad_page_token`.
    pub async fn versions(
        &self,
        caller: &Caller,
        entry: EntryId,
        limit: u16,
        page_token: Option<&str>,
    ) -> Result<(Vec<Version>, Option<String>), Failure> {
        let user = caller.principal.user;
        let read = |token| {
            let (begun_in, place) = self.receipts.read_page_token(user, token)?;
            let before = place.strip_prefix(TOKEN_WORD)?.parse::<u64>().ok()?;
            (begun_in == entry).then_some(before)
        };
        let read = |token| read(token).ok_or_else(|| group_codes::BAD_PAGE_TOKEN.failure());
        let before = page_token.map(read).transpose()?;
        let ask = DriveAsk::ListVersions { entry, before, limit };
        let QueryAnswer::Versions(mut versions) = self.ask_kept(caller, entry.drive, ask).await? else {
            return expect(None);
        };
        let has_more = versions.len() > usize::from(limit);
        versions.truncate(usize::from(limit));
        let last = versions.last().filter(|_| has_more);
        let token = last.map(|last| {
            let place = format!("{TOKEN_WORD}{}", last.number);
            self.receipts.page_token(user, entry, &place)
        });
        Ok((versions, token))
    }

    /// Makes the content of an old version the current one; moves no data.
    ///
    /// Errors: `version_not_found`, `version_conflict`, `in_trash`, and those of finding the file.
    pub async fn restore_version(
        &self,
        caller: &Caller,
        entry: EntryId,
        (version, base_version): (u64, Option<u64>),
        key: Option<RequestKey>,
    ) -> Result<EntryView, Failure> {
        let principal = caller.principal;
        let command = Command::Upload(UploadCommand::RestoreVersion {
            principal,
            entry,
            version,
            base_version,
        });
        match self.command(caller, command, key).await? {
            CommandAnswer::Entry(changed) => Ok(changed.view),
            _ => expect(None),
        }
    }

    /// How long a drive keeps old versions.
    pub async fn retention(&self, caller: &Caller, drive: DriveId) -> Result<Retention, Failure> {
        match self.ask(caller, drive, DriveAsk::Retention).await? {
            QueryAnswer::Retention(retention) => Ok(retention),
            _ => expect(None),
        }
    }

    /// Changes how long a drive keeps old versions; what is `None` stays.
    ///
    /// Errors: `bad_retention`, `denied`, `not_found`.
    pub async fn set_retention(
        &self,
        caller: &Caller,
        drive: DriveId,
        versions_max: Option<u32>,
        version_age_s: Option<u64>,
    ) -> Result<(), Failure> {
        let (principal, job) = (caller.principal, self.seams.random.u64());
        let command = Command::Drive(DriveCommand::SetRetention {
            principal,
            drive,
            versions_max,
            version_age_s,
            job,
        });
        match self.command(caller, command, None).await? {
            CommandAnswer::Done => Ok(()),
            _ => expect(None),
        }
    }
}
