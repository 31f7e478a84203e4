//! Copies of folders that are made by a job, and what is answered about a job of either sort.
//!
//! Not here: copies that are there at once, which are answered as an entry (`metadata`).

use crate::rewind::JobReport;
use crate::timestamp::Timestamp;
use serde::{Deserialize, Serialize};
use utoipa::ToSchema;

/// How far a copy is.
#[derive(Clone, Copy, Debug, PartialEq, Eq, Serialize, Deserialize, ToSchema)]
#[serde(rename_all = "snake_case")]
pub enum CopyState {
    /// It is being made, and nobody sees anything of it.
    Copying,
    /// All of it is in its place.
    Done,
    /// It ended before, and nothing of it stays; `reason` says why.
    Stopped,
}

/// A copy that a job makes.
#[derive(Clone, Debug, PartialEq, Eq, Serialize, Deserialize, ToSchema)]
pub struct CopyJob {
    /// Of `/api/v1/jobs/{id}`.
    pub id: String,
    /// The folder that is copied.
    pub entry: String,
    /// The copy; it is there when the job is done.
    pub copy: String,
    /// When it was asked for.
    pub begun_at: Timestamp,
    /// How far it is.
    pub state: CopyState,
    /// Why it stopped: a code of docs/errors.md.
    #[serde(default, skip_serializing_if = "Option::is_none")]
    pub reason: Option<String>,
    /// Files copied so far; one that changes meanwhile may be counted again.
    pub files: u64,
    /// Folders made so far.
    pub folders: u64,
}

/// A copy's job.
#[derive(Clone, Debug, PartialEq, Eq, Serialize, Deserialize, ToSchema)]
pub struct CopyReport {
    /// The job.
    pub job: CopyJob,
}

/// A job: a rewind with its list, or a copy, which has none.
#[derive(Clone, Debug, PartialEq, Eq, Serialize, Deserialize, ToSchema)]
#[serde(untagged)]
pub enum JobAnswer {
    /// Of a rewind.
    Rewind(JobReport),
    /// Of a copy.
    Copy(CopyReport),
}

#[cfg(test)]
mod tests {
    use super::{CopyReport, JobAnswer};

    #[test]
    fn a_job_is_read_as_what_it_is() {
        let job = r#"{"job":{"id":"j","entry":"e","copy":"c","begun_at":"2026-11-21T14:43:41.000Z","state":"copying","files":1,"folders":2}}"#;
        let copy: CopyReport = serde_json::from_str(job).unwrap();
        assert_eq!(serde_json::to_string(&copy).unwrap(), job);
        assert_eq!(serde_json::from_str::<JobAnswer>(job).unwrap(), JobAnswer::Copy(copy));
    }
}
