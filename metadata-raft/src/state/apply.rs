//! Running one command: decode, find its time, look for a repeat, dispatch, keep the answer.
//!
//! Invariant: a refused command's writes are dropped with their overlay, so nothing of it remains.

use crate::state::State;
use crate::state::age::{self, Now, Times};
use crate::state::change::Actor;
use crate::state::collection;
use crate::state::commit::{self, Intent};
use crate::state::control;
use crate::state::copy::{self, CopyTo};
use crate::state::copy_job;
use crate::state::drive;
use crate::state::erasure;
use crate::state::feed;
use crate::state::file_batch;
use crate::state::job;
use crate::state::packing;
use crate::state::page;
use crate::state::repacking;
use crate::state::request;
use crate::state::restore;
use crate::state::resumable;
use crate::state::retention;
use crate::state::rewind;
use crate::state::session::{self, Ending, Opening};
use crate::state::staging;
use crate::state::store::{Outcome, Stop};
use crate::state::stripe;
use crate::state::token;
use crate::state::touched;
use crate::state::tree;
use crate::state::user::{self, NewUser, Patch};
use crate::state::waiting;
use bytes::Bytes;
use kv::overlay::Overlay;
use kv::seam::{Change, KvError};
use model::authorize::{Action, Principal};
use model::id::{CONTROL_GROUP, DriveId, Slot, UserId};
use model::limits::COMMAND_BYTES_MAX;
use protocol::codes;
use protocol::frame;
use protocol::metadata::drive::DriveCommand;
use protocol::metadata::upload::UploadCommand;
use protocol::metadata::user::{TokenUse, UserCommand};
use protocol::metadata::watch::MovedScope;
use protocol::metadata::{Command, CommandAnswer, Envelope, Reply, RequestKey};
use protocol::wire_error::Failure;

/// What became of a command.
pub(crate) struct Applied {
    /// The encoded `Reply<CommandAnswer>`.
    pub(crate) reply: Bytes,
    /// Whether the queue of waiting work got a row.
    pub(crate) enters_work: bool,
    /// Scopes whose feeds went on, and users of whom tokens may have ended.
    pub(crate) moved: Vec<MovedScope>,
}

/// What running a command gave.
struct Ran {
    reply: Reply<CommandAnswer>,
    /// The drive that it touches.
    drive: Option<DriveId>,
    /// Of whom it may end tokens.
    ended: Option<UserId>,
}

impl Ran {
    /// A command of a group as a whole, or a refused one.
    fn alone(result: Result<CommandAnswer, Failure>) -> Self {
        let reply = Reply { time: None, result };
        Self {
            reply,
            drive: None,
            ended: None,
        }
    }
}

impl State {
    /// Runs an encoded `Envelope` and answers an encoded `Reply<CommandAnswer>`.
    ///
    /// `tx` gets the command's writes and nothing of a refused one. `index` is the command's place in the log; a `Bug` names it.
    /// The error is this replica's own (its store failed or is damaged): it must stop, since others may have gone on.
    pub fn apply(&self, tx: &mut Overlay<'_>, index: u64, envelope: &[u8]) -> Result<Bytes, KvError> {
        self.apply_noting(tx, &mut Times::default(), index, envelope)
            .map(|applied| applied.reply)
    }

    /// As `apply`, and tells whether a leader's sweeper has something new to look at. `times` are those of the state as the commands
    /// before this one left it.
    pub(crate) fn apply_noting(
        &self,
        tx: &mut Overlay<'_>,
        times: &mut Times,
        index: u64,
        envelope: &[u8],
    ) -> Result<Applied, KvError> {
        let mut own = Overlay::new(&*tx);
        let Ran { reply, drive, ended } = match self.run(&mut own, times, envelope) {
            Ok(ran) => ran,
            Err(Stop::Refused(failure)) => Ran::alone(Err(*failure)),
            Err(Stop::Store(error)) => return Err(error),
        };
        let changes = if reply.result.is_ok() {
            own.into_batch()
        } else {
            Vec::new()
        };
        if let Some(drive) = drive.filter(|_| touched::is_touch(&changes)) {
            touched::note(tx, drive, self.group, index)?;
        }
        let mut enters_work = false;
        let mut moved = Vec::new();
        for change in &changes {
            if let Change::Put(key, value) = change {
                enters_work |= waiting::is_due_key(key);
                moved.extend(feed::moved(key, value)?);
            }
        }
        let ended = ended.filter(|_| reply.result.is_ok());
        moved.extend(ended.map(|user| MovedScope::of_tokens(user, index)));
        tx.absorb(changes);
        let reply = Reply {
            result: reply.result.map_err(|failure| at_index(failure, index)),
            ..reply
        };
        Ok(Applied {
            reply: reply.to_bytes(),
            enters_work,
            moved,
        })
    }

    /// What is answered beside the reply holds when the command succeeds.
    fn run(&self, tx: &mut Overlay<'_>, times: &mut Times, envelope: &[u8]) -> Outcome<Ran> {
        if envelope.len() > COMMAND_BYTES_MAX {
            return Err((&codes::COMMAND_TOO_LARGE).into());
        }
        let envelope: Envelope = frame::decode(envelope)?;
        let is_control = self.group == CONTROL_GROUP;
        if is_control != matches!(envelope.command, Command::Control(_)) {
            return Err((&codes::NOT_MINE).into());
        }
        let Some(slot) = envelope.command.slot() else {
            times.forget();
            let answer = match &envelope.command {
                Command::Control(command) => control::apply(tx, command)?,
                Command::Group(command) => age::apply(tx, command).map(|()| CommandAnswer::Done)?,
                _ => return Err(Failure::bug("a command has no slot").into()),
            };
            return Ok(Ran::alone(Ok(answer)));
        };
        let now = times.now(&*tx, slot, envelope.wall)?;
        let drive = touched::drive_of(&*tx, &envelope.command)?;
        let result = match in_slot(tx, &now, slot, &envelope) {
            Ok(answer) => Ok(answer),
            Err(Stop::Refused(failure)) => Err(*failure),
            Err(Stop::Store(error)) => return Err(Stop::Store(error)),
        };
        let time = Some(now.time);
        let ended = match &envelope.command {
            Command::User(command) => command.ends_tokens_of(),
            _ => None,
        };
        Ok(Ran {
            reply: Reply { time, result },
            drive,
            ended,
        })
    }
}

fn at_index(failure: Failure, index: u64) -> Failure {
    if codes::BUG.is(&failure) {
        failure.with("log_index", index)
    } else {
        failure
    }
}

fn in_slot(tx: &mut Overlay<'_>, now: &Now, slot: Slot, envelope: &Envelope) -> Outcome<CommandAnswer> {
    let Some(key) = &envelope.request_id else {
        return dispatch(tx, now, &envelope.command);
    };
    if let Some(answer) = repeat(tx, now, slot, key, &envelope.command)? {
        return Ok(answer);
    }
    let answer = dispatch(tx, now, &envelope.command)?;
    request::remember(tx, now, slot, key, &answer)?;
    Ok(answer)
}

/// The first answer to a repeat: whoever asks again is authorised again, and the session of the second try ends.
fn repeat(
    tx: &mut Overlay<'_>,
    now: &Now,
    slot: Slot,
    key: &RequestKey,
    command: &Command,
) -> Outcome<Option<CommandAnswer>> {
    let Some(answer) = request::repeated(&*tx, now, slot, key)? else {
        return Ok(None);
    };
    if let Some((principal, drive)) = asker(command) {
        drive::authorised(&*tx, drive, principal, Action::Write)?;
    }
    if let Command::Upload(UploadCommand::CommitSession { upload, .. }) = command
        && session::find(&*tx, *upload)?.is_some()
    {
        session::end(tx, now, *upload)?;
    }
    Ok(Some(answer))
}

fn asker(command: &Command) -> Option<(&Principal, DriveId)> {
    match command {
        Command::Drive(command) => match command {
            DriveCommand::CreateFolder { principal, .. }
            | DriveCommand::PatchEntry { principal, .. }
            | DriveCommand::TrashEntry { principal, .. }
            | DriveCommand::RestoreEntry { principal, .. }
            | DriveCommand::PurgeEntry { principal, .. }
            | DriveCommand::CopyEntry { principal, .. }
            | DriveCommand::BeginCopy { principal, .. }
            | DriveCommand::CancelCopy { principal, .. }
            | DriveCommand::BeginRewind { principal, .. }
            | DriveCommand::RunRewind { principal, .. } => Some((principal, command.drive())),
            _ => None,
        },
        Command::Upload(command) => match command {
            UploadCommand::CommitUpload { principal, .. }
            | UploadCommand::OpenSession { principal, .. }
            | UploadCommand::CommitSession { principal, .. }
            | UploadCommand::AbortSession { principal, .. }
            | UploadCommand::RestoreVersion { principal, .. }
            | UploadCommand::DeclareLength { principal, .. } => Some((principal, command.drive())),
            UploadCommand::CommitBatch(batch) => Some((&batch.principal, batch.drive)),
            _ => None,
        },
        Command::Control(_) | Command::Group(_) | Command::User(_) => None,
    }
}

fn dispatch(tx: &mut Overlay<'_>, now: &Now, command: &Command) -> Outcome<CommandAnswer> {
    match command {
        Command::User(command) => on_user(tx, now, command),
        Command::Drive(command) => on_drive(tx, now, command),
        Command::Upload(command) => on_upload(tx, now, command),
        Command::Control(_) | Command::Group(_) => Err(Failure::bug("a command of the whole group has a slot").into()),
    }
}

/// A flat table from command to function.
fn on_user(tx: &mut Overlay<'_>, now: &Now, command: &UserCommand) -> Outcome<CommandAnswer> {
    match command {
        UserCommand::CreateUser {
            name,
            user,
            home,
            password_hash,
            is_admin,
        } => {
            let new = NewUser {
                name,
                user: *user,
                home,
                password_hash,
                is_admin: *is_admin,
            };
            return user::create(tx, now, &new).map(CommandAnswer::User);
        }
        UserCommand::PatchUser {
            principal,
            user,
            quota_bytes,
            is_disabled,
            password_hash,
        } => {
            let password_hash = password_hash.as_deref();
            let patch = Patch {
                quota_bytes: *quota_bytes,
                is_disabled: *is_disabled,
                password_hash,
            };
            return user::patch(tx, principal, *user, &patch).map(CommandAnswer::User);
        }
        UserCommand::DeleteUser { principal, user } => {
            return erasure::delete(tx, Actor { principal, now }, *user).map(CommandAnswer::User);
        }
        UserCommand::RegisterDevice { user, device, name } => token::register_device(tx, now, *user, *device, name)?,
        UserCommand::RevokeDevice { user, device } => token::revoke_device(tx, *user, *device)?,
        UserCommand::IssueTokens {
            user,
            device,
            access,
            refresh,
            scope,
        } => {
            let refresh = refresh.map(|refresh| (TokenUse::Refresh, refresh));
            let tokens: Vec<_> = [Some((TokenUse::Access, *access)), refresh]
                .into_iter()
                .flatten()
                .collect();
            token::issue(tx, now, *user, *device, &tokens, scope)?;
        }
        UserCommand::RotateTokens {
            user,
            old_refresh,
            access,
            refresh,
        } => {
            token::rotate(tx, now, *user, *old_refresh, *access, *refresh)?;
        }
        UserCommand::RevokeToken { user, hash } => token::revoke(tx, *user, *hash),
    }
    Ok(CommandAnswer::Done)
}

/// A flat table from command to function.
fn on_drive(tx: &mut Overlay<'_>, now: &Now, command: &DriveCommand) -> Outcome<CommandAnswer> {
    match command {
        DriveCommand::CreateFolder {
            principal,
            drive,
            place,
            with_parents,
            fresh,
        } => tree::create_folder(tx, now, principal, *drive, (place, *with_parents), fresh).map(CommandAnswer::Entry),
        DriveCommand::PatchEntry {
            principal,
            entry,
            base_revision,
            to,
        } => tree::patch(tx, Actor { principal, now }, *entry, *base_revision, to).map(CommandAnswer::Entry),
        DriveCommand::TrashEntry {
            principal,
            entry,
            base_revision,
        } => tree::trash(tx, Actor { principal, now }, *entry, *base_revision).map(CommandAnswer::Entry),
        DriveCommand::RestoreEntry {
            principal,
            entry,
            parent,
            name,
        } => tree::restore(tx, Actor { principal, now }, *entry, *parent, name.as_ref()).map(CommandAnswer::Entry),
        DriveCommand::PurgeEntry {
            principal,
            entry,
            base_revision,
            job,
        } => tree::purge(tx, Actor { principal, now }, *entry, *base_revision, *job).map(CommandAnswer::Purged),
        DriveCommand::SweepJob { drive, job } => job::sweep(tx, now, *drive, *job).map(CommandAnswer::Swept),
        DriveCommand::SweepTrash { drive, job } => job::sweep_trash(tx, now, *drive, *job).map(CommandAnswer::Swept),
        DriveCommand::ReapPages { drive } => page::reap(tx, now, *drive).map(CommandAnswer::Swept),
        DriveCommand::SweepRequests { drive } => request::sweep(tx, now, drive.slot()).map(CommandAnswer::Swept),
        DriveCommand::CopyEntry {
            principal,
            entry,
            place,
            with_parents,
            fresh,
            seed,
        } => {
            let to = CopyTo {
                place,
                with_parents: *with_parents,
                fresh,
                seed: *seed,
            };
            copy::copy(tx, Actor { principal, now }, *entry, &to).map(CommandAnswer::Entry)
        }
        DriveCommand::SetRetention {
            principal,
            drive,
            versions_max,
            version_age_s,
            job,
        } => retention::set(tx, principal, *drive, (*versions_max, *version_age_s), *job).map(|()| CommandAnswer::Done),
        DriveCommand::SweepVersions { drive } => retention::sweep(tx, now, *drive).map(CommandAnswer::Swept),
        DriveCommand::SweepDropped { drive } => retention::sweep_dropped(tx, *drive).map(CommandAnswer::Swept),
        DriveCommand::SweepBlocks { drive } => collection::sweep_blocks(tx, now, *drive).map(CommandAnswer::Swept),
        DriveCommand::SweepFeed { drive } => feed::sweep(tx, now, *drive).map(CommandAnswer::Swept),
        DriveCommand::BeginRewind { principal, order, job } => {
            rewind::begin(tx, Actor { principal, now }, order, *job).map(CommandAnswer::Rewind)
        }
        DriveCommand::RunRewind { principal, drive, job } => {
            rewind::run(tx, Actor { principal, now }, *drive, *job).map(CommandAnswer::Rewind)
        }
        DriveCommand::SweepRewinds { drive } => rewind::sweep(tx, now, *drive).map(CommandAnswer::Swept),
        DriveCommand::BeginCopy {
            principal,
            entry,
            place,
            with_parents,
            fresh,
            seed,
            job,
        } => {
            let to = CopyTo {
                place,
                with_parents: *with_parents,
                fresh,
                seed: *seed,
            };
            copy_job::begin(tx, Actor { principal, now }, *entry, &to, *job).map(CommandAnswer::Copy)
        }
        DriveCommand::CancelCopy { principal, drive, job } => {
            copy_job::cancel(tx, Actor { principal, now }, *drive, *job).map(CommandAnswer::Copy)
        }
    }
}

/// A flat table from command to function.
fn on_upload(tx: &mut Overlay<'_>, now: &Now, command: &UploadCommand) -> Outcome<CommandAnswer> {
    match command {
        UploadCommand::CommitUpload {
            principal,
            drive,
            target,
            base_version,
            fresh,
            content,
            content_type,
            survival,
        } => {
            let intent = Intent {
                drive: *drive,
                target,
                base_version: *base_version,
                fresh,
                content_type: content_type.as_deref(),
                survival: *survival,
                size: content.size,
                digest: content.digest,
            };
            commit::direct(tx, Actor { principal, now }, &intent, content).map(CommandAnswer::Committed)
        }
        UploadCommand::OpenSession {
            principal,
            upload,
            target,
            base_version,
            declared_bytes,
            is_resumable,
            content_type,
        } => {
            let opening = Opening {
                target,
                base_version: *base_version,
                declared_bytes: *declared_bytes,
                is_resumable: *is_resumable,
                content_type: content_type.as_deref(),
            };
            session::open(tx, Actor { principal, now }, *upload, &opening).map(CommandAnswer::Session)
        }
        UploadCommand::AppendRows {
            upload,
            position,
            stripes,
            runs,
        } => session::append(tx, now, *upload, *position, stripes, runs).map(CommandAnswer::Session),
        UploadCommand::SetTail { upload, tail } => {
            session::set_tail(tx, now, *upload, tail.as_ref()).map(CommandAnswer::Session)
        }
        UploadCommand::NameRows {
            upload,
            position,
            stripes,
            runs,
            survival,
        } => resumable::name_rows(tx, now, *upload, *position, (stripes, runs, *survival)).map(CommandAnswer::Session),
        UploadCommand::KeepTail {
            upload,
            position,
            tail,
            stripe,
        } => {
            let tail = (tail.clone(), stripe.clone());
            resumable::keep_tail(tx, now, *upload, *position, &tail).map(CommandAnswer::Session)
        }
        UploadCommand::CommitSession {
            principal,
            upload,
            size,
            digest,
            fresh,
            survival,
        } => {
            let ending = Ending {
                size: *size,
                digest: *digest,
                fresh,
                survival: *survival,
            };
            session::commit(tx, Actor { principal, now }, *upload, &ending).map(CommandAnswer::Committed)
        }
        UploadCommand::AbortSession { principal, upload } => {
            session::abort(tx, Actor { principal, now }, *upload).map(|()| CommandAnswer::Done)
        }
        UploadCommand::AnnounceRows { upload, position, rows } => {
            staging::announce(tx, now, *upload, *position, rows).map(CommandAnswer::Session)
        }
        UploadCommand::StageStripes { upload, stripes } => {
            staging::stage(tx, now, *upload, stripes).map(CommandAnswer::Session)
        }
        UploadCommand::RestoreVersion {
            principal,
            entry,
            version,
            base_version,
        } => restore::restore(tx, Actor { principal, now }, *entry, *version, *base_version).map(CommandAnswer::Entry),
        UploadCommand::SweepSessions { drive } => session::sweep(tx, now, *drive).map(CommandAnswer::Swept),
        UploadCommand::SetStripe {
            drive,
            profile,
            stripe,
            row_version,
            astray,
            is_damaged,
        } => stripe::set(tx, *drive, (*profile, *stripe), *row_version, astray, *is_damaged)
            .map(|()| CommandAnswer::Done),
        UploadCommand::CommitBatch(batch) => file_batch::commit(tx, now, batch).map(CommandAnswer::Batch),
        UploadCommand::DeclareLength {
            principal,
            upload,
            bytes,
        } => resumable::declare(tx, Actor { principal, now }, *upload, *bytes).map(|()| CommandAnswer::Done),
        UploadCommand::RepackBlocks(blocks) => repacking::switch(tx, now, blocks).map(CommandAnswer::Repacked),
        UploadCommand::PackInline(packed) => packing::pack(tx, now, packed).map(CommandAnswer::Swept),
    }
}
