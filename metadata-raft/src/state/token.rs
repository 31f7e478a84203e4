//! Devices and tokens.
//!
//! Invariants: only hashes are stored; a token lives while its wall time, its user, its device and its generation allow; ending all
//! of a device's or a user's tokens writes one record.

use crate::state::age::Now;
use crate::state::keys;
use crate::state::store::{Outcome, list, load, require, save};
use crate::state::user::{self, StoredUser};
use kv::overlay::Overlay;
use kv::seam::KvRead;
use model::authorize::Principal;
use model::id::{DeviceId, UserId};
use model::time::WallTime;
use protocol::codes;
use protocol::metadata::query::ROWS_MAX;
use protocol::metadata::user::{DeviceRecord, NewToken, TokenFacts, TokenHash, TokenUse};
use serde::{Deserialize, Serialize};

/// Expired tokens that a log-in looks at and takes away, so that they need no worker. A guess: more than one log-in makes.
const EXPIRED_LOOKED_AT: usize = 16;

/// One token.
#[derive(Clone, Debug, PartialEq, Eq, Serialize, Deserialize)]
pub(crate) struct StoredToken {
    pub(crate) token_use: TokenUse,
    pub(crate) device: Option<DeviceId>,
    pub(crate) scope: String,
    pub(crate) expires_at: WallTime,
    /// The user's generation when it was issued.
    pub(crate) generation: u64,
}

fn token_key(user: UserId, hash: TokenHash) -> bytes::Bytes {
    keys::tokens(user).bytes(&hash.0).done()
}

fn enabled(kv: &dyn KvRead, user: UserId) -> Outcome<StoredUser> {
    let record = user::get(kv, user)?;
    require(!record.is_disabled, &codes::USER_DISABLED)?;
    Ok(record)
}

fn require_device(kv: &dyn KvRead, user: UserId, device: Option<DeviceId>) -> Outcome<()> {
    let Some(device) = device else { return Ok(()) };
    let record: Option<DeviceRecord> = load(kv, &keys::device(user, device))?;
    require(
        !record.ok_or(&codes::DEVICE_NOT_FOUND)?.is_revoked,
        &codes::DEVICE_REVOKED,
    )
}

/// Names a device.
pub(crate) fn register_device(
    tx: &mut Overlay<'_>,
    now: &Now,
    user: UserId,
    device: DeviceId,
    name: &str,
) -> Outcome<()> {
    enabled(&*tx, user)?;
    require(device.slot() == user.slot(), &codes::MALFORMED_COMMAND)?;
    require(tx.get(&keys::device(user, device))?.is_none(), &codes::ID_TAKEN)?;
    let record = DeviceRecord {
        device,
        name: name.to_owned(),
        created_at: now.wall,
        is_revoked: false,
    };
    save(tx, keys::device(user, device), &record)
}

/// Ends every token of a device for good.
pub(crate) fn revoke_device(tx: &mut Overlay<'_>, user: UserId, device: DeviceId) -> Outcome<()> {
    let record: Option<DeviceRecord> = load(&*tx, &keys::device(user, device))?;
    let record = record.ok_or(&codes::DEVICE_NOT_FOUND)?;
    save(
        tx,
        keys::device(user, device),
        &DeviceRecord {
            is_revoked: true,
            ..record
        },
    )
}

/// Keeps the tokens of a log-in.
pub(crate) fn issue(
    tx: &mut Overlay<'_>,
    now: &Now,
    user: UserId,
    device: Option<DeviceId>,
    tokens: &[(TokenUse, NewToken)],
    scope: &str,
) -> Outcome<()> {
    let owner = enabled(&*tx, user)?;
    require_device(&*tx, user, device)?;
    for (_, token) in tokens {
        require(tx.get(&token_key(user, token.hash))?.is_none(), &codes::ID_TAKEN)?;
    }
    let old = list::<StoredToken>(&*tx, &keys::tokens(user).done(), None, EXPIRED_LOOKED_AT)?;
    for (key, token) in old {
        if token.expires_at < now.wall || token.generation < owner.token_generation {
            tx.delete(key);
        }
    }
    for (token_use, token) in tokens {
        let record = StoredToken {
            token_use: *token_use,
            device,
            scope: scope.to_owned(),
            expires_at: token.expires_at,
            generation: owner.token_generation,
        };
        save(tx, token_key(user, token.hash), &record)?;
    }
    Ok(())
}

/// Trades a refresh token for a new pair.
pub(crate) fn rotate(
    tx: &mut Overlay<'_>,
    now: &Now,
    user: UserId,
    old: TokenHash,
    access: NewToken,
    refresh: NewToken,
) -> Outcome<()> {
    let (token, _) = living(&*tx, user, old, now.wall)?;
    require(token.token_use == TokenUse::Refresh, &codes::TOKEN_UNKNOWN)?;
    let pair = [(TokenUse::Access, access), (TokenUse::Refresh, refresh)];
    issue(tx, now, user, token.device, &pair, &token.scope)?;
    revoke(tx, user, old);
    Ok(())
}

/// Ends one token.
pub(crate) fn revoke(tx: &mut Overlay<'_>, user: UserId, hash: TokenHash) {
    tx.delete(token_key(user, hash));
}

fn living(kv: &dyn KvRead, user: UserId, hash: TokenHash, wall: WallTime) -> Outcome<(StoredToken, StoredUser)> {
    let token: Option<StoredToken> = load(kv, &token_key(user, hash))?;
    let token = token.ok_or(&codes::TOKEN_UNKNOWN)?;
    let owner = enabled(kv, user)?;
    require(token.generation == owner.token_generation, &codes::TOKEN_UNKNOWN)?;
    require_device(kv, user, token.device)?;
    require(wall < token.expires_at, &codes::TOKEN_EXPIRED)?;
    Ok((token, owner))
}

/// What a living token is for.
pub(crate) fn facts(kv: &dyn KvRead, user: UserId, hash: TokenHash, wall: WallTime) -> Outcome<TokenFacts> {
    let (token, owner) = living(kv, user, hash, wall)?;
    Ok(TokenFacts {
        principal: Principal {
            user,
            device: token.device,
            is_admin: owner.is_admin,
        },
        user: owner.record(),
        token_use: token.token_use,
        scope: token.scope,
        expires_at: token.expires_at,
    })
}

/// The devices of a user.
pub(crate) fn devices(kv: &dyn KvRead, user: UserId) -> Outcome<Vec<DeviceRecord>> {
    user::get(kv, user)?;
    let rows = list(kv, &keys::devices(user).done(), None, ROWS_MAX)?;
    Ok(rows.into_iter().map(|(_, device)| device).collect())
}
