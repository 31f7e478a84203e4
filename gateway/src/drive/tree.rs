//! The tree of a drive: list, create, rename and move, trash, restore, remove for good.
//!
//! Thin on purpose: names and ids are checked here, everything else is decided by the drive's group.

use crate::codes;
use crate::drive::{Caller, Core, expect};
use model::base32;
use model::id::{DriveId, EntryId};
use model::name::{DrivePath, EntryName, NameError};
use protocol::codes as group_codes;
use protocol::metadata::drive::{DriveCommand, EntryRef, EntryView, PatchTo, Place};
use protocol::metadata::query::{DriveAsk, Listing};
use protocol::metadata::{Command, CommandAnswer, QueryAnswer, RequestKey};
use protocol::wire_error::Failure;

/// A path as a client gave it.
pub fn path(text: &str) -> Result<DrivePath, Failure> {
    DrivePath::parse(text).map_err(bad_name)
}

/// A name as a client gave it.
pub fn name(text: &str) -> Result<EntryName, Failure> {
    EntryName::new(text).map_err(bad_name)
}

/// An entry's id as a client gave it.
pub fn entry_id(text: &str) -> Result<EntryId, Failure> {
    EntryId::parse(text).ok_or_else(|| codes::BAD_ID.failure())
}

fn bad_name(error: NameError) -> Failure {
    codes::BAD_NAME.because(format!("{}.", error.advice()))
}

/// A place, given as a path or as folder and name.
pub fn place(path_text: Option<&str>, parent: Option<&str>, name_text: Option<&str>) -> Result<Place, Failure> {
    match (path_text, parent, name_text) {
        (Some(text), None, None) => Ok(Place::Path(path(text)?)),
        (None, Some(parent), Some(text)) => Ok(Place::In {
            parent: entry_id(parent)?,
            name: name(text)?,
        }),
        _ => Err(codes::BAD_JSON.because("give either `path`, or `parent` and `name`")),
    }
}

/// The drive that a place lies in.
pub fn drive_of(place: &Place, home: DriveId) -> DriveId {
    match place {
        Place::Path(_) => home,
        Place::In { parent, .. } => parent.drive,
    }
}

/// A short name of an answer's bytes: two different answers of one entry have two.
pub fn fingerprint(answer: &[u8]) -> String {
    base32::encode(&codec::digest::request_digest(answer)[..10])
}

/// How many entries a creation may make.
pub fn entries_made(place: &Place, with_parents: bool) -> usize {
    match place {
        Place::Path(path) if with_parents => path.names().len(),
        _ => 1,
    }
}

impl Core {
    /// One entry.
    pub async fn entry(&self, caller: &Caller, entry: EntryRef) -> Result<EntryView, Failure> {
        let drive = drive_of_ref(&entry, caller.home);
        match self.ask_kept(caller, drive, DriveAsk::Get(entry)).await? {
            QueryAnswer::Entry(view) => Ok(view),
            _ => expect(None),
        }
    }

    /// A page of a folder.
    pub async fn list(
        &self,
        caller: &Caller,
        folder: EntryRef,
        limit: u16,
        page_token: Option<&str>,
    ) -> Result<Listing, Failure> {
        let drive = drive_of_ref(&folder, caller.home);
        let user = caller.principal.user;
        let read = |token| {
            let read = self.receipts.read_page_token(user, token);
            read.ok_or_else(|| group_codes::BAD_PAGE_TOKEN.failure())
        };
        let (begun_in, last) = page_token.map(read).transpose()?.unzip();
        let ask = DriveAsk::List {
            folder,
            limit,
            page_token: last,
        };
        let QueryAnswer::Listing(mut listing) = self.ask_kept(caller, drive, ask).await? else {
            return expect(None);
        };
        // A path may lead to another folder by now; its listing does not continue the one that was begun.
        let id = listing.folder.entry.id;
        if begun_in.is_some_and(|begun_in| begun_in != id) {
            return Err(group_codes::BAD_PAGE_TOKEN.failure());
        }
        let last = listing.next_page_token.take();
        listing.next_page_token = last.map(|last| self.receipts.page_token(user, id, &last));
        Ok(listing)
    }

    /// Makes a folder.
    pub async fn create_folder(
        &self,
        caller: &Caller,
        place: Place,
        with_parents: bool,
        key: Option<RequestKey>,
    ) -> Result<EntryView, Failure> {
        let fresh = self.fresh(entries_made(&place, with_parents));
        let (principal, drive) = (caller.principal, drive_of(&place, caller.home));
        self.change(
            caller,
            DriveCommand::CreateFolder {
                principal,
                drive,
                place,
                with_parents,
                fresh,
            },
            key,
        )
        .await
    }

    /// Renames or moves an entry.
    pub async fn patch(
        &self,
        caller: &Caller,
        entry: EntryId,
        to: PatchTo,
        base_revision: Option<u64>,
    ) -> Result<EntryView, Failure> {
        let principal = caller.principal;
        self.change(
            caller,
            DriveCommand::PatchEntry {
                principal,
                entry,
                base_revision,
                to,
            },
            None,
        )
        .await
    }

    /// Puts an entry into the trash.
    pub async fn trash(&self, caller: &Caller, entry: EntryId, base_revision: Option<u64>) -> Result<(), Failure> {
        let principal = caller.principal;
        self.change(
            caller,
            DriveCommand::TrashEntry {
                principal,
                entry,
                base_revision,
            },
            None,
        )
        .await
        .map(drop)
    }

    /// Takes an entry out of the trash, to where it was or where it is told.
    pub async fn restore(
        &self,
        caller: &Caller,
        entry: EntryId,
        parent: Option<EntryId>,
        name: Option<EntryName>,
    ) -> Result<EntryView, Failure> {
        let principal = caller.principal;
        self.change(
            caller,
            DriveCommand::RestoreEntry {
                principal,
                entry,
                parent,
                name,
            },
            None,
        )
        .await
    }

    /// Removes an entry for good.
    pub async fn purge(&self, caller: &Caller, entry: EntryId, base_revision: Option<u64>) -> Result<(), Failure> {
        let (principal, job) = (caller.principal, self.seams.random.u64());
        let command = Command::Drive(DriveCommand::PurgeEntry {
            principal,
            entry,
            base_revision,
            job,
        });
        match self.command(caller, command, None).await? {
            CommandAnswer::Purged(_) => Ok(()),
            _ => expect(None),
        }
    }

    async fn change(
        &self,
        caller: &Caller,
        command: DriveCommand,
        key: Option<RequestKey>,
    ) -> Result<EntryView, Failure> {
        match self.command(caller, Command::Drive(command), key).await? {
            CommandAnswer::Entry(changed) => Ok(changed.view),
            _ => expect(None),
        }
    }
}

fn drive_of_ref(entry: &EntryRef, home: DriveId) -> DriveId {
    match entry {
        EntryRef::Id(entry) => entry.drive,
        EntryRef::Path(_) => home,
    }
}
