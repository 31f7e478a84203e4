//! What can go wrong for a client: the server refused, or the exchange broke.
//!
//! Invariant: a refusal keeps the server's status and stable code, so that callers decide by code, never by text.

/// Why a call gave no answer of its kind.
#[derive(Debug, thiserror::Error)]
pub enum ClientError {
    /// The server answered with a problem.
    #[error("{status} {code}: {detail}")]
    Refused {
        /// HTTP status.
        status: u16,
        /// Stable code of docs/errors.md; `unknown` when the answer was no problem document.
        code: String,
        /// The server's sentence.
        detail: String,
    },
    /// The exchange broke: perhaps it happened.
    #[error("exchange with server: {0}")]
    Broken(#[from] reqwest::Error),
    /// The server told something that cannot be.
    #[error("the server's answer is not what it must be: {0}")]
    Altered(&'static str),
    /// The answer does not have the promised shape.
    #[error("read answer: {0}")]
    Malformed(#[from] serde_json::Error),
}

impl ClientError {
    /// Whether the same call may be sent again as it is.
    #[must_use]
    pub fn is_retryable(&self) -> bool {
        matches!(self, Self::Refused { status: 429 | 503, .. })
    }
}
