//! Commands and answers about users, their devices and their tokens.
//!
//! Invariants: "the name is free" and "make the user" are one command in the group of the name's slot; tokens are random and only
//! their hashes (32 bytes, computed by the gateway) are sent and stored; tokens expire by wall time and nothing else does.
//! Not here: passwords in the clear, argon2 (gateway).

use bytes::Bytes;
use model::authorize::Principal;
use model::id::{DeviceId, DriveId, Slot, UserId};
use model::name::Username;
use model::profile::ProfileId;
use model::time::WallTime;
use serde::{Deserialize, Serialize};

/// The hash of a token's secret.
#[derive(Clone, Copy, Debug, PartialEq, Eq, PartialOrd, Ord, Hash, Serialize, Deserialize)]
pub struct TokenHash(pub [u8; 32]);

/// How a drive cuts its contents; fixed when the drive is made.
#[derive(Clone, Copy, Debug, PartialEq, Eq, Serialize, Deserialize)]
pub struct CutParameters {
    /// FastCDC 2020's normalization level.
    pub level: u8,
    /// Shortest block in bytes, except a file's last.
    pub min_bytes: u32,
    /// The length aimed for, in bytes.
    pub avg_bytes: u32,
    /// Longest block in bytes.
    pub max_bytes: u32,
    /// A page may end once it has this many blocks.
    pub page_min: u16,
    /// A page ends at this many blocks.
    pub page_max: u16,
    /// A page ends after a block whose digest has this many low bits zero.
    pub page_bits: u8,
}

/// What a drive is made from.
#[derive(Clone, Debug, PartialEq, Eq, Serialize, Deserialize)]
pub struct NewDrive {
    /// Its id; in the slot of its owner when it is the home drive.
    pub drive: DriveId,
    /// Its key, sealed under the KEK.
    pub wrapped_key: Bytes,
    /// The name of that KEK.
    pub kek_id: String,
    /// Its durability scheme.
    pub profile: ProfileId,
    /// Its quota in bytes.
    pub quota_bytes: u64,
    /// How it is cut.
    pub cut: CutParameters,
}

/// A token to be kept.
#[derive(Clone, Copy, Debug, PartialEq, Eq, Serialize, Deserialize)]
pub struct NewToken {
    /// Hash of its secret.
    pub hash: TokenHash,
    /// When it ends.
    pub expires_at: WallTime,
}

/// A command to the group of a user's slot.
#[derive(Clone, Debug, PartialEq, Eq, Serialize, Deserialize)]
pub enum UserCommand {
    /// Makes a user and the home drive; a taken name is `user_exists`.
    CreateUser {
        /// The folded name; its slot is the user's.
        name: Username,
        /// The user's id, drawn by the gateway in that slot.
        user: UserId,
        /// The home drive, in the same slot.
        home: NewDrive,
        /// argon2id in PHC form.
        password_hash: String,
        /// Whether the user administers the cluster.
        is_admin: bool,
    },
    /// Changes what is `Some`. Another password or disabling ends every token of the user.
    PatchUser {
        /// Who asks: an admin, or the user for the password alone.
        principal: Principal,
        /// Whom.
        user: UserId,
        /// Quota of the home drive in bytes.
        quota_bytes: Option<u64>,
        /// Whether the user may do nothing.
        is_disabled: Option<bool>,
        /// argon2id in PHC form.
        password_hash: Option<String>,
    },
    /// Names an installed client.
    RegisterDevice {
        /// Whose.
        user: UserId,
        /// Its id, in the user's slot.
        device: DeviceId,
        /// Shown to the user.
        name: String,
    },
    /// Ends every token of a device, for good.
    RevokeDevice {
        /// Whose.
        user: UserId,
        /// Which.
        device: DeviceId,
    },
    /// Keeps a fresh pair of tokens after a log-in.
    IssueTokens {
        /// Whose.
        user: UserId,
        /// For which client.
        device: Option<DeviceId>,
        /// The short-lived one.
        access: NewToken,
        /// The one that gets the next pair.
        refresh: Option<NewToken>,
        /// What the tokens allow, as OAuth words; empty for everything.
        scope: String,
    },
    /// Trades a refresh token for a new pair; the old one ends with this command.
    RotateTokens {
        /// Whose.
        user: UserId,
        /// Hash of the refresh token that was shown.
        old_refresh: TokenHash,
        /// The next access token.
        access: NewToken,
        /// The next refresh token.
        refresh: NewToken,
    },
    /// Ends one token; no error when it is not there.
    RevokeToken {
        /// Whose.
        user: UserId,
        /// Which.
        hash: TokenHash,
    },
    /// Deletes a user: disabled at once, erased with the home drive's key after the trash's age unless enabled again before.
    DeleteUser {
        /// Who asks: an admin, not about the own account.
        principal: Principal,
        /// Whom.
        user: UserId,
    },
}

impl UserCommand {
    /// The slot that it lies in.
    #[must_use]
    pub fn slot(&self) -> Slot {
        match self {
            Self::CreateUser { name, .. } => Slot::of_username(name.as_str()),
            Self::PatchUser { user, .. }
            | Self::RegisterDevice { user, .. }
            | Self::RevokeDevice { user, .. }
            | Self::IssueTokens { user, .. }
            | Self::RotateTokens { user, .. }
            | Self::RevokeToken { user, .. }
            | Self::DeleteUser { user, .. } => user.slot(),
        }
    }

    /// The user of whom it may end tokens that something which lasts was begun with, for whoever keeps that going. A refresh token, which
    /// `RotateTokens` ends, begins nothing.
    #[must_use]
    pub fn ends_tokens_of(&self) -> Option<UserId> {
        match self {
            Self::PatchUser {
                user,
                is_disabled,
                password_hash,
                ..
            } => (*is_disabled == Some(true) || password_hash.is_some()).then_some(*user),
            Self::RevokeDevice { user, .. } | Self::RevokeToken { user, .. } | Self::DeleteUser { user, .. } => {
                Some(*user)
            }
            Self::CreateUser { .. }
            | Self::RegisterDevice { .. }
            | Self::IssueTokens { .. }
            | Self::RotateTokens { .. } => None,
        }
    }
}

/// A user as the group answers it, without the password's hash.
#[derive(Clone, Debug, PartialEq, Eq, Serialize, Deserialize)]
pub struct UserRecord {
    /// The account.
    pub user: UserId,
    /// Its folded name.
    pub name: Username,
    /// Its home drive.
    pub home: DriveId,
    /// Whether it administers the cluster.
    pub is_admin: bool,
    /// Whether it may do nothing.
    pub is_disabled: bool,
    /// When it was made, for showing.
    pub created_at: WallTime,
}

/// What a log-in needs.
#[derive(Clone, Debug, PartialEq, Eq, Serialize, Deserialize)]
pub struct LoginFacts {
    /// The user.
    pub user: UserRecord,
    /// argon2id in PHC form.
    pub password_hash: String,
}

/// What a token is for.
#[derive(Clone, Copy, Debug, PartialEq, Eq, Serialize, Deserialize)]
pub enum TokenUse {
    /// Calls the API.
    Access,
    /// Gets the next pair.
    Refresh,
}

/// A living token: not expired, not revoked, its user enabled, its device not revoked.
#[derive(Clone, Debug, PartialEq, Eq, Serialize, Deserialize)]
pub struct TokenFacts {
    /// Whose.
    pub principal: Principal,
    /// The user.
    pub user: UserRecord,
    /// For what.
    pub token_use: TokenUse,
    /// What it allows, as OAuth words; empty for everything.
    pub scope: String,
    /// When it ends.
    pub expires_at: WallTime,
}

/// An installed client of a user.
#[derive(Clone, Debug, PartialEq, Eq, Serialize, Deserialize)]
pub struct DeviceRecord {
    /// Its id.
    pub device: DeviceId,
    /// Shown to the user.
    pub name: String,
    /// When it was named, for showing.
    pub created_at: WallTime,
    /// Whether its tokens were ended for good.
    pub is_revoked: bool,
}
