//! A drive's record and who may do something in it.

use crate::state::change::ScopeRecord;
use crate::state::entry::{EntryRecord, Shown, Standing};
use crate::state::keys;
use crate::state::store::{Outcome, load, require, save};
use crate::state::usage::UsageRecord;
use crate::state::user;
use bytes::Bytes;
use kv::overlay::Overlay;
use kv::seam::KvRead;
use model::authorize::{Action, Principal, authorize};
use model::entry::EntryType;
use model::error_kind::ErrorKind;
use model::id::{BlockId, DriveId, Incarnation, ROOT_ENTRY, UserId};
use model::profile::ProfileId;
use model::time::WallTime;
use protocol::codes;
use protocol::metadata::query::DriveFacts;
use protocol::metadata::user::{CutParameters, NewDrive};
use serde::{Deserialize, Serialize};

/// One drive.
#[derive(Clone, Debug, PartialEq, Eq, Serialize, Deserialize)]
pub(crate) struct DriveRecord {
    pub(crate) drive: DriveId,
    pub(crate) owner: UserId,
    pub(crate) wrapped_key: Bytes,
    pub(crate) kek_id: String,
    pub(crate) profile: ProfileId,
    pub(crate) quota_bytes: u64,
    pub(crate) cut: CutParameters,
    pub(crate) incarnation: Incarnation,
    pub(crate) next_block: BlockId,
    /// Sequence of the last change.
    pub(crate) sequence: u64,
}

impl DriveRecord {
    pub(crate) fn facts(&self) -> DriveFacts {
        DriveFacts {
            drive: self.drive,
            owner: self.owner,
            wrapped_key: self.wrapped_key.clone(),
            kek_id: self.kek_id.clone(),
            profile: self.profile,
            cut: self.cut,
            incarnation: self.incarnation,
        }
    }
}

/// The record of a drive; `not_found` when there is none.
pub(crate) fn get(kv: &dyn KvRead, drive: DriveId) -> Outcome<DriveRecord> {
    load(kv, &keys::drive(drive))?.ok_or_else(|| (&codes::NOT_FOUND).into())
}

pub(crate) fn put(tx: &mut Overlay<'_>, record: &DriveRecord) -> Outcome<()> {
    save(tx, keys::drive(record.drive), record)
}

/// Makes a drive with its root, which is a scope.
pub(crate) fn create(tx: &mut Overlay<'_>, owner: UserId, new: &NewDrive, wall: WallTime) -> Outcome<()> {
    require(tx.get(&keys::drive(new.drive))?.is_none(), &codes::ID_TAKEN)?;
    let record = DriveRecord {
        drive: new.drive,
        owner,
        wrapped_key: new.wrapped_key.clone(),
        kek_id: new.kek_id.clone(),
        profile: new.profile,
        quota_bytes: new.quota_bytes,
        cut: new.cut,
        incarnation: Incarnation(1),
        next_block: BlockId(1),
        sequence: 0,
    };
    let root = EntryRecord {
        shown: Shown {
            number: ROOT_ENTRY,
            parent: 0,
            name: String::new(),
            entry_type: EntryType::Folder,
            size: 0,
            version: 0,
            revision: 1,
            digest: None,
            content_type: None,
            created_at: wall,
            modified_at: wall,
            modified_by: owner,
        },
        height: 0,
        is_scope: true,
        standing: Standing::Attached,
    };
    put(tx, &record)?;
    save(tx, keys::usage(new.drive), &UsageRecord::default())?;
    save(tx, keys::entry(new.drive, ROOT_ENTRY), &root)?;
    save(tx, keys::scope(new.drive, ROOT_ENTRY), &ScopeRecord { sequence: 0 })
}

/// The drive, when `principal` may do `action` in it. Grants are a later issue: only the owner may anything.
pub(crate) fn authorised(
    kv: &dyn KvRead,
    drive: DriveId,
    principal: &Principal,
    action: Action,
) -> Outcome<DriveRecord> {
    let record = get(kv, drive)?;
    match authorize(principal, action, record.owner, &[drive.root()], &[]) {
        Ok(_) => {}
        Err(ErrorKind::Denied) => return Err((&codes::DENIED).into()),
        Err(_) => return Err((&codes::NOT_FOUND).into()),
    }
    // The owner of a home drive lies in the same slot; disabling takes effect at once.
    if let Some(owner) = user::find(kv, record.owner)? {
        require(!owner.is_disabled, &codes::USER_DISABLED)?;
    }
    Ok(record)
}
