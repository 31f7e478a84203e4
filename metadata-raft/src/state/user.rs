//! Users: their names, passwords and home drives.
//!
//! Invariants: a name has one user; both lie in the name's slot; nobody acts for an account that is erased, whose record stays
//! without name and password so that its drive is found until its last block is gone.

use crate::state::age::Now;
use crate::state::drive;
use crate::state::erasure;
use crate::state::keys;
use crate::state::store::{Outcome, broken, list, load, require, save};
use kv::overlay::Overlay;
use kv::seam::{KvRead, prefix_end};
use model::authorize::Principal;
use model::id::{DriveId, Slot, UserId};
use model::name::Username;
use model::time::WallTime;
use protocol::codes;
use protocol::metadata::query::ROWS_MAX;
use protocol::metadata::user::{NewDrive, UserRecord};
use serde::{Deserialize, Serialize};

/// Stands in the record of an erased account; no row of names leads there.
const ERASED_NAME: &str = "erased";

/// One user.
#[derive(Clone, Debug, PartialEq, Eq, Serialize, Deserialize)]
pub(crate) struct StoredUser {
    pub(crate) user: UserId,
    pub(crate) name: Username,
    pub(crate) home: DriveId,
    pub(crate) password_hash: String,
    pub(crate) is_admin: bool,
    pub(crate) is_disabled: bool,
    pub(crate) created_at: WallTime,
    /// Tokens of an older generation are ended: another password or disabling counts it up.
    pub(crate) token_generation: u64,
}

impl StoredUser {
    fn is_erased(&self) -> bool {
        self.password_hash.is_empty()
    }

    pub(crate) fn record(&self) -> UserRecord {
        UserRecord {
            user: self.user,
            name: self.name.clone(),
            home: self.home,
            is_admin: self.is_admin,
            is_disabled: self.is_disabled,
            created_at: self.created_at,
        }
    }
}

pub(crate) fn find(kv: &dyn KvRead, user: UserId) -> Outcome<Option<StoredUser>> {
    load(kv, &keys::user(user))
}

pub(crate) fn get(kv: &dyn KvRead, user: UserId) -> Outcome<StoredUser> {
    let record = find(kv, user)?.filter(|record| !record.is_erased());
    record.ok_or_else(|| (&codes::USER_NOT_FOUND).into())
}

pub(crate) fn by_name(kv: &dyn KvRead, name: &Username) -> Outcome<StoredUser> {
    let user: Option<UserId> = load(kv, &keys::username(name.as_str()))?;
    let user = user.ok_or(&codes::USER_NOT_FOUND)?;
    find(kv, user)?.ok_or_else(|| broken("a username has no user"))
}

/// What a new user is made from.
pub(crate) struct NewUser<'a> {
    pub(crate) name: &'a Username,
    pub(crate) user: UserId,
    pub(crate) home: &'a NewDrive,
    pub(crate) password_hash: &'a str,
    pub(crate) is_admin: bool,
}

/// Makes a user and the home drive.
pub(crate) fn create(tx: &mut Overlay<'_>, now: &Now, new: &NewUser<'_>) -> Outcome<UserRecord> {
    let slot = Slot::of_username(new.name.as_str());
    let is_one_slot = new.user.slot() == slot && new.home.drive.slot() == slot;
    require(is_one_slot, &codes::MALFORMED_COMMAND)?;
    require(
        tx.get(&keys::username(new.name.as_str()))?.is_none(),
        &codes::USER_EXISTS,
    )?;
    require(find(&*tx, new.user)?.is_none(), &codes::ID_TAKEN)?;
    drive::create(tx, new.user, new.home, now.wall)?;
    let user = StoredUser {
        user: new.user,
        name: new.name.clone(),
        home: new.home.drive,
        password_hash: new.password_hash.to_owned(),
        is_admin: new.is_admin,
        is_disabled: false,
        created_at: now.wall,
        token_generation: 0,
    };
    save(tx, keys::username(new.name.as_str()), &new.user)?;
    save(tx, keys::user(new.user), &user)?;
    Ok(user.record())
}

/// What of a user changes.
pub(crate) struct Patch<'a> {
    pub(crate) quota_bytes: Option<u64>,
    pub(crate) is_disabled: Option<bool>,
    pub(crate) password_hash: Option<&'a str>,
}

/// Changes a user: admins anything, users their password.
pub(crate) fn patch(
    tx: &mut Overlay<'_>,
    principal: &Principal,
    user: UserId,
    patch: &Patch<'_>,
) -> Outcome<UserRecord> {
    let is_own_password = principal.user == user && patch.quota_bytes.is_none() && patch.is_disabled.is_none();
    if !principal.is_admin && principal.user != user {
        return Err((&codes::USER_NOT_FOUND).into());
    }
    require(principal.is_admin || is_own_password, &codes::DENIED)?;
    // Whoever disables stays enabled, so a cluster never locks out its last administrator.
    let is_own_end = principal.user == user && patch.is_disabled == Some(true);
    require(!is_own_end, &codes::OWN_ACCOUNT)?;
    let mut record = get(&*tx, user)?;
    require(principal.is_admin || !record.is_disabled, &codes::USER_DISABLED)?;
    if let Some(quota_bytes) = patch.quota_bytes {
        let home = drive::get(&*tx, record.home)?;
        drive::put(tx, &drive::DriveRecord { quota_bytes, ..home })?;
    }
    if let Some(is_disabled) = patch.is_disabled {
        record.is_disabled = is_disabled;
        if !is_disabled {
            erasure::cancel(tx, record.home)?;
        }
    }
    if let Some(password_hash) = patch.password_hash {
        record.password_hash = password_hash.to_owned();
    }
    if patch.password_hash.is_some() || patch.is_disabled == Some(true) {
        record.token_generation = record.token_generation.saturating_add(1);
    }
    save(tx, keys::user(user), &record)?;
    Ok(record.record())
}

/// Takes away everything that an account is known by: name, password, tokens, devices. Its id stays taken.
pub(crate) fn forget(tx: &mut Overlay<'_>, user: UserId) -> Outcome<()> {
    let record = get(&*tx, user)?;
    tx.delete(keys::username(record.name.as_str()));
    for prefix in [keys::tokens(user).done(), keys::devices(user).done()] {
        if let Some(behind) = prefix_end(&prefix) {
            tx.delete_range(prefix, behind);
        }
    }
    let erased = StoredUser {
        name: Username::new(ERASED_NAME).map_err(|_| broken("no name for an erased account"))?,
        password_hash: String::new(),
        is_admin: false,
        is_disabled: true,
        ..record
    };
    save(tx, keys::user(user), &erased)
}

/// Users of a slot, behind `after`, erased ones too.
pub(crate) fn in_slot(kv: &dyn KvRead, slot: Slot, after: Option<UserId>) -> Outcome<Vec<UserRecord>> {
    let prefix = keys::Key::of_slot(slot, keys::USER).done();
    let after = after.map(|user| keys::Key::of_slot(slot, keys::USER).u64(user.0).done());
    let rows = list::<StoredUser>(kv, &prefix, after.as_deref(), ROWS_MAX)?;
    Ok(rows.into_iter().map(|(_, user)| user.record()).collect())
}
