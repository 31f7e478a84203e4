//! Accounts, as an admin makes and changes them, and one's own password.
//!
//! Secrets of these types are never logged, so those that hold one have no `Debug`.

use serde::{Deserialize, Serialize};
use utoipa::ToSchema;

/// Makes an account with a home drive.
#[derive(Clone, Serialize, Deserialize, ToSchema)]
#[serde(deny_unknown_fields)]
pub struct CreateUser {
    /// 1 to 64 of `a-z 0-9 . _ - @`; upper case is folded.
    pub username: String,
    /// 8 to 1024 bytes.
    pub password: String,
    /// Bytes that the home drive may hold; 10 GiB when absent.
    #[serde(default, skip_serializing_if = "Option::is_none")]
    pub quota_bytes: Option<u64>,
    /// Whether the account administers the cluster.
    #[serde(default)]
    pub is_admin: bool,
}

/// Makes the first administrator.
#[derive(Clone, Serialize, Deserialize, ToSchema)]
#[serde(deny_unknown_fields)]
pub struct Setup {
    /// The one-time token that `holdfast init` printed.
    pub setup_token: String,
    /// 1 to 64 of `a-z 0-9 . _ - @`; upper case is folded.
    pub username: String,
    /// 8 to 1024 bytes.
    pub password: String,
}

/// An account.
#[derive(Clone, Debug, PartialEq, Eq, Serialize, Deserialize, ToSchema)]
pub struct User {
    /// Its id.
    pub id: String,
    /// Its folded name.
    pub username: String,
    /// Its home drive.
    pub drive: String,
    /// Whether it administers the cluster.
    pub is_admin: bool,
    /// Whether it may not sign in.
    pub disabled: bool,
}

/// Changes an account. What is absent stays as it is.
#[derive(Clone, Default, Serialize, Deserialize, ToSchema)]
#[serde(deny_unknown_fields)]
pub struct ChangeUser {
    /// The home drive's new quota in bytes.
    #[serde(default, skip_serializing_if = "Option::is_none")]
    pub quota_bytes: Option<u64>,
    /// Whether it may not sign in; disabling revokes its tokens.
    #[serde(default, skip_serializing_if = "Option::is_none")]
    pub disabled: Option<bool>,
    /// A new password.
    #[serde(default, skip_serializing_if = "Option::is_none")]
    pub password: Option<String>,
}

/// Changes one's own password.
#[derive(Clone, Serialize, Deserialize, ToSchema)]
#[serde(deny_unknown_fields)]
pub struct ChangePassword {
    /// The present password.
    pub old_password: String,
    /// The next one, 8 to 1024 bytes.
    pub new_password: String,
}
