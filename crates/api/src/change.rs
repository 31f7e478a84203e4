//! The change feed: pages of changes, and polls that wait for the next ones.
//!
//! Invariants: exactly one of `next_page_token` and `new_start_page_token` is there; the cursor stands behind what the answer holds.
//! Not here: the shapes of Google's drive (`google`).

use crate::entry::Entry;
use crate::timestamp::Timestamp;
use serde::{Deserialize, Serialize};
use utoipa::{IntoParams, ToSchema};

/// What happened to an entry.
#[derive(Clone, Copy, Debug, PartialEq, Eq, PartialOrd, Ord, Serialize, Deserialize, ToSchema)]
#[serde(rename_all = "snake_case")]
pub enum ChangeKind {
    /// It came into being, or into the scope.
    Created,
    /// It has another content.
    Updated,
    /// It has another name or folder.
    Moved,
    /// It went into the trash, with all below it.
    Trashed,
    /// It came out of the trash, with all below it.
    Restored,
    /// It is gone for good, or out of the scope, with all below it.
    Deleted,
}

/// A change of a scope.
#[derive(Clone, Debug, PartialEq, Eq, Serialize, Deserialize, ToSchema)]
pub struct Change {
    /// Counts the scope's changes from 1 without holes.
    pub sequence: u64,
    /// The scope: the entry at its top.
    pub scope: String,
    /// What happened.
    #[serde(rename = "type")]
    pub kind: ChangeKind,
    /// The entry that changed.
    pub file_id: String,
    /// The entry as it is now, which may be later than the change; absent when it is gone.
    #[serde(default, skip_serializing_if = "Option::is_none")]
    pub entry: Option<Entry>,
    /// When it happened, for showing.
    pub time: Timestamp,
    /// The device that did it, if it is known as one.
    #[serde(default, skip_serializing_if = "Option::is_none")]
    pub device: Option<String>,
}

/// Which changes.
#[derive(Clone, Debug, Default, PartialEq, Eq, Serialize, Deserialize, IntoParams, ToSchema)]
#[serde(deny_unknown_fields)]
#[into_params(parameter_in = Query)]
pub struct ChangesQuery {
    /// A cursor or a page token of an answer; the present end when it is left out.
    #[serde(default, skip_serializing_if = "Option::is_none")]
    pub since_token: Option<String>,
    /// Changes of one page, 1 to 1000; 100 when it is left out.
    #[serde(default, skip_serializing_if = "Option::is_none")]
    #[param(minimum = 1, maximum = 1000)]
    pub limit: Option<u32>,
    /// Whether of several changes of an entry in a page only the last is told; `true` when it is left out.
    #[serde(default, skip_serializing_if = "Option::is_none")]
    pub fold: Option<bool>,
}

/// A page of changes.
#[derive(Clone, Debug, PartialEq, Eq, Serialize, Deserialize, ToSchema)]
pub struct ChangesPage {
    /// Ascending in each scope.
    pub changes: Vec<Change>,
    /// Stands behind them; for polls, and for the next page.
    pub cursor: String,
    /// The same, while there is more.
    #[serde(default, skip_serializing_if = "Option::is_none")]
    pub next_page_token: Option<String>,
    /// The same, once there is no more: where to go on later.
    #[serde(default, skip_serializing_if = "Option::is_none")]
    pub new_start_page_token: Option<String>,
    /// Whether there is more.
    pub has_more: bool,
}

/// What to wait for.
#[derive(Clone, Debug, Default, PartialEq, Eq, Serialize, Deserialize, IntoParams, ToSchema)]
#[serde(deny_unknown_fields)]
#[into_params(parameter_in = Query)]
pub struct PollRequest {
    /// Behind which the first change is awaited; the present end when it is left out.
    #[serde(default, skip_serializing_if = "Option::is_none")]
    pub cursor: Option<String>,
    /// Seconds to wait, from 1 to 480; less and more are taken for these. 55 when it is left out.
    #[serde(default, skip_serializing_if = "Option::is_none")]
    pub timeout: Option<u64>,
}

/// What came of waiting.
#[derive(Clone, Debug, PartialEq, Eq, Serialize, Deserialize, ToSchema)]
pub struct PollAnswer {
    /// Whether something changed.
    pub changes: bool,
    /// Stands behind `events`; whoever ignores them keeps the own one and asks for changes by it.
    pub cursor: String,
    /// The first changes behind the cursor that was given, at most 100, each entry's folded into its last.
    pub events: Vec<Change>,
    /// Of the last of the events.
    #[serde(default, skip_serializing_if = "Option::is_none")]
    pub event_type: Option<ChangeKind>,
    /// The same.
    #[serde(default, skip_serializing_if = "Option::is_none")]
    pub file_id: Option<String>,
    /// The same.
    #[serde(default, skip_serializing_if = "Option::is_none")]
    pub timestamp: Option<Timestamp>,
    /// Seconds to leave pass before the next call, where many follow the same scope.
    #[serde(default, skip_serializing_if = "Option::is_none")]
    pub backoff: Option<u64>,
}

#[cfg(test)]
mod tests {
    use super::{ChangesQuery, PollRequest};

    #[test]
    fn unknown_fields_of_requests_are_refused() {
        assert!(serde_json::from_str::<PollRequest>(r#"{"cursor":"x","timeout":1}"#).is_ok());
        assert!(serde_json::from_str::<PollRequest>(r#"{"cursors":"x"}"#).is_err());
        assert!(serde_json::from_str::<PollRequest>(r#"{"timeout":-1}"#).is_err());
        assert!(serde_json::from_str::<ChangesQuery>(r#"{"since":"x"}"#).is_err());
    }
}
