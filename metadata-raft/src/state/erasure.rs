//! Deleting accounts, in two steps as deleting entries: out of use at once, gone after the trash's age.
//!
//! A deleted account is a disabled one whose home drive's root lies in the trash; enabling it again takes the root out. When the
//! root's age is over, the drive's key is destroyed with the account's name, password, tokens and devices, and a job empties the drive.
//! Invariants: nothing of an account goes before the trash's age has passed in age, never by a clock; once the key is gone no
//! content of the drive can be opened, however long its blocks still lie somewhere.
//! Not here: the age itself (`job::sweep_trash`) and the death of blocks.

use crate::state::change::Actor;
use crate::state::drive;
use crate::state::entry::{self, EntryRecord, Standing};
use crate::state::job;
use crate::state::keys;
use crate::state::store::{Outcome, broken};
use crate::state::user::{self, Patch};
use bytes::Bytes;
use kv::overlay::Overlay;
use kv::seam::KvRead;
use model::id::{DriveId, ROOT_ENTRY, UserId};
use protocol::metadata::user::UserRecord;

fn root(kv: &dyn KvRead, drive: DriveId) -> Outcome<EntryRecord> {
    entry::find(kv, drive, ROOT_ENTRY)?.ok_or_else(|| broken("a drive has no root"))
}

/// `DeleteUser`. A repeat changes nothing: the age counts from the first time.
pub(crate) fn delete(tx: &mut Overlay<'_>, actor: Actor<'_>, user: UserId) -> Outcome<UserRecord> {
    let disable = Patch {
        quota_bytes: None,
        is_disabled: Some(true),
        password_hash: None,
    };
    let record = user::patch(tx, actor.principal, user, &disable)?;
    let mut root = root(&*tx, record.home)?;
    if root.standing == Standing::Attached {
        let age = actor.now.age();
        root.standing = Standing::Trashed {
            age,
            wall: actor.now.wall,
        };
        entry::put(tx, record.home, &root)?;
        tx.put(keys::trash(record.home, age.0, ROOT_ENTRY), Bytes::new());
        job::note_trash(tx, record.home, age)?;
    }
    Ok(record)
}

/// Takes a deletion back, if there is one: the account was enabled again.
pub(crate) fn cancel(tx: &mut Overlay<'_>, home: DriveId) -> Outcome<()> {
    attach(tx, home).map(drop)
}

/// Hangs the root back; false when it was not in the trash.
fn attach(tx: &mut Overlay<'_>, drive: DriveId) -> Outcome<bool> {
    let mut root = root(&*tx, drive)?;
    let Standing::Trashed { age, .. } = root.standing else {
        return Ok(false);
    };
    tx.delete(keys::trash(drive, age.0, ROOT_ENTRY));
    root.standing = Standing::Attached;
    entry::put(tx, drive, &root)?;
    Ok(true)
}

/// Erases the account of a home drive whose root was in the trash for its age. The root stays, empty in the end: the drive's
/// record and what its blocks are counted by need it.
pub(crate) fn erase(tx: &mut Overlay<'_>, home: DriveId, job: u64) -> Outcome<()> {
    if !attach(tx, home)? {
        return Err(broken("an account is erased that was not deleted"));
    }
    let mut record = drive::get(&*tx, home)?;
    record.wrapped_key = Bytes::new();
    record.kek_id = String::new();
    drive::put(tx, &record)?;
    user::forget(tx, record.owner)?;
    job::begin_emptying(tx, home, job)
}
