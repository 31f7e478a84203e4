//! Signing in: the password grant of RFC 6749.
//!
//! Not here: how tokens are stored (`gateway::auth`); secrets of these types are never logged, so none has `Debug`.

use serde::{Deserialize, Serialize};
use utoipa::ToSchema;

/// The form of `POST /api/v1/auth/token`. Fields that a grant does not know are ignored, as RFC 6749 section 3.2 demands.
#[derive(Clone, Deserialize, Serialize, ToSchema)]
pub struct TokenRequest {
    /// `password` or `refresh_token`.
    pub grant_type: String,
    /// For `password`.
    #[serde(default, skip_serializing_if = "Option::is_none")]
    pub username: Option<String>,
    /// For `password`.
    #[serde(default, skip_serializing_if = "Option::is_none")]
    pub password: Option<String>,
    /// For `refresh_token`.
    #[serde(default, skip_serializing_if = "Option::is_none")]
    pub refresh_token: Option<String>,
    /// Only `drive`, which is also the default.
    #[serde(default, skip_serializing_if = "Option::is_none")]
    pub scope: Option<String>,
}

/// The tokens of a session.
#[derive(Clone, Serialize, Deserialize, ToSchema)]
pub struct TokenAnswer {
    /// Goes into `Authorization: Bearer`.
    pub access_token: String,
    /// Always `Bearer`.
    pub token_type: String,
    /// Seconds that the access token lives.
    pub expires_in: u64,
    /// Buys the next pair of tokens, once; absent where rotation is not offered.
    #[serde(default, skip_serializing_if = "Option::is_none")]
    pub refresh_token: Option<String>,
    /// `drive`.
    pub scope: String,
}
