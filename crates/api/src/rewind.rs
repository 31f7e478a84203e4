//! Rewinding a folder or a file to an instant: what is asked for, the job, and its list.
//!
//! Not here: how long old versions and the trash are kept, which bounds what a rewind finds.

use crate::timestamp::Timestamp;
use serde::{Deserialize, Serialize};
use utoipa::{IntoParams, ToSchema};

/// What becomes of files and folders that were made after the instant.
#[derive(Clone, Copy, Debug, Default, PartialEq, Eq, Serialize, Deserialize, ToSchema)]
#[serde(rename_all = "snake_case")]
pub enum CreatedSince {
    /// They go into the trash; a folder only when nothing in it stays.
    #[default]
    Trash,
    /// They stay.
    Keep,
}

/// To which instant, and how.
#[derive(Clone, Debug, PartialEq, Eq, Serialize, Deserialize, ToSchema)]
#[serde(deny_unknown_fields)]
pub struct Rewind {
    /// The instant.
    pub to: Timestamp,
    /// What becomes of what was made since.
    #[serde(default)]
    pub created: CreatedSince,
    /// Whether the job only lists what it would change; it can be run afterwards.
    #[serde(default)]
    pub dry_run: bool,
}

/// How far a job is.
#[derive(Clone, Copy, Debug, PartialEq, Eq, Serialize, Deserialize, ToSchema)]
#[serde(rename_all = "snake_case")]
pub enum JobState {
    /// It looks for what to change.
    Looking,
    /// A dry run that has listed everything.
    Planned,
    /// It changes what it has listed.
    Working,
    /// Everything listed was changed or left alone.
    Done,
    /// It ended before; `reason` says why.
    Stopped,
}

/// A rewind.
#[derive(Clone, Debug, PartialEq, Eq, Serialize, Deserialize, ToSchema)]
pub struct RewindJob {
    /// Of `/api/v1/jobs/{id}`.
    pub id: String,
    /// The folder or file that is rewound.
    pub entry: String,
    /// To when.
    pub to: Timestamp,
    /// What becomes of what was made since.
    pub created: CreatedSince,
    /// Whether it only lists.
    pub dry_run: bool,
    /// When it was asked for, or a dry run was run. Rewinding to then takes back what it changed.
    pub begun_at: Timestamp,
    /// How far it is.
    pub state: JobState,
    /// Why it stopped: a code of docs/errors.md.
    #[serde(default, skip_serializing_if = "Option::is_none")]
    pub reason: Option<String>,
    /// Files and folders looked at.
    pub looked_at: u64,
    /// Entries listed.
    pub listed: u64,
    /// Of these, changed.
    pub done: u64,
    /// Of these, left alone.
    pub left: u64,
}

/// What a rewind does to an entry.
#[derive(Clone, Copy, Debug, PartialEq, Eq, Serialize, Deserialize, ToSchema)]
#[serde(rename_all = "snake_case")]
pub enum RewindAction {
    /// The content of `version` becomes the current one again, as a new version.
    RestoreContent,
    /// It was made since and goes into the trash.
    MoveToTrash,
    /// It was trashed since and comes back to where it was.
    TakeOutOfTrash,
    /// Nothing: its content of that instant is not kept any more.
    Nothing,
}

/// What became of it.
#[derive(Clone, Copy, Debug, PartialEq, Eq, Serialize, Deserialize, ToSchema)]
#[serde(rename_all = "snake_case")]
pub enum RewindOutcome {
    /// Listed.
    Planned,
    /// Changed.
    Done,
    /// Left alone; `reason` says why.
    Left,
}

/// One entry of a rewind's list.
#[derive(Clone, Debug, PartialEq, Eq, Serialize, Deserialize, ToSchema)]
pub struct RewindItem {
    /// Which.
    pub entry: String,
    /// Where it is by now; absent when it is gone.
    #[serde(default, skip_serializing_if = "Option::is_none")]
    pub path: Option<String>,
    /// What is to be done.
    pub action: RewindAction,
    /// Which version, for `restore_content`.
    #[serde(default, skip_serializing_if = "Option::is_none")]
    pub version: Option<u64>,
    /// What became of it.
    pub outcome: RewindOutcome,
    /// Why it was left alone: a code of docs/errors.md, `revision_conflict` when somebody changed it after it was listed.
    #[serde(default, skip_serializing_if = "Option::is_none")]
    pub reason: Option<String>,
}

/// Which part of a job's list is wanted.
#[derive(Clone, Debug, Default, PartialEq, Eq, Serialize, Deserialize, IntoParams, ToSchema)]
#[serde(deny_unknown_fields)]
#[into_params(parameter_in = Query)]
pub struct JobQuery {
    /// Items of one page, 1 to 1000.
    #[serde(default, skip_serializing_if = "Option::is_none")]
    #[param(minimum = 1, maximum = 1000)]
    pub limit: Option<u32>,
    /// The `next_page_token` of the page before.
    #[serde(default, skip_serializing_if = "Option::is_none")]
    pub page_token: Option<String>,
}

/// A job with a page of its list.
#[derive(Clone, Debug, PartialEq, Eq, Serialize, Deserialize, ToSchema)]
pub struct JobReport {
    /// The job.
    pub job: RewindJob,
    /// In the order of work.
    pub items: Vec<RewindItem>,
    /// Absent on the last page of what is listed so far.
    #[serde(default, skip_serializing_if = "Option::is_none")]
    pub next_page_token: Option<String>,
}

#[cfg(test)]
mod tests {
    use super::{CreatedSince, Rewind};

    #[test]
    fn a_rewind_needs_its_instant_and_refuses_unknown_fields() {
        let read = serde_json::from_str::<Rewind>;
        let plain = read(r#"{"to":"2026-11-21T14:43:41.000Z"}"#).unwrap();
        assert_eq!((plain.created, plain.dry_run), (CreatedSince::Trash, false));
        for wrong in [
            "{}",
            r#"{"to":"yesterday"}"#,
            r#"{"to":"2026-11-21T14:43:41.000Z","dryrun":true}"#,
            r#"{"to":"2026-11-21T14:43:41.000Z","created":"delete"}"#,
        ] {
            assert!(read(wrong).is_err(), "{wrong}");
        }
    }
}
