//! What a failed call says: its kind, a stable code, and what to do about it.
//!
//! Invariants: the kind survives the wire; the code is one of `docs/errors.md`; fields are few and hold ids, never secrets.
//! Not here: the HTTP status (each front has one table from kind and code).

use model::error_kind::ErrorKind;
use serde::{Deserialize, Serialize};
use std::collections::BTreeMap;
use std::fmt;

/// A refusal or fault as it travels between processes and, translated, to a client.
#[derive(Clone, Debug, PartialEq, Eq, Serialize, Deserialize)]
pub struct Failure {
    /// What it means for the caller.
    pub kind: ErrorKind,
    /// A stable word such as `name_taken`.
    pub code: String,
    /// One sentence that says what is wrong and what to do.
    pub detail: String,
    /// Machine-readable additions of the code, such as `existing` or `row_version`.
    pub fields: BTreeMap<String, String>,
}

impl Failure {
    /// A failure without fields.
    #[must_use]
    pub fn new(kind: ErrorKind, code: &str, detail: impl Into<String>) -> Self {
        Self {
            kind,
            code: code.to_owned(),
            detail: detail.into(),
            fields: BTreeMap::new(),
        }
    }

    /// The same with one more field.
    #[must_use]
    pub fn with(mut self, key: &str, value: impl fmt::Display) -> Self {
        self.fields.insert(key.to_owned(), value.to_string());
        self
    }

    /// Our own fault: what must not happen did.
    #[must_use]
    pub fn bug(detail: impl Into<String>) -> Self {
        Self::new(ErrorKind::Bug, "bug", detail)
    }
}

impl fmt::Display for Failure {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        write!(f, "{}: {}", self.code, self.detail)
    }
}

impl std::error::Error for Failure {}
