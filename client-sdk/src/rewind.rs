//! Rewinding a folder or a file to an instant, and the job that does it.

use crate::client::{Client, read};
use crate::error::ClientError;
use api::rewind::{JobQuery, JobReport, Rewind, RewindJob};
use reqwest::Method;

impl Client {
    /// Begins to rewind a folder or a file.
    pub async fn rewind(&self, id: &str, wanted: &Rewind) -> Result<RewindJob, ClientError> {
        let request = self.request(Method::POST, &format!("/api/v1/metadata/{id}/rewind"));
        read(self.send(request.json(wanted)).await?).await
    }

    /// A job with a page of its list.
    pub async fn job(&self, id: &str, query: &JobQuery) -> Result<JobReport, ClientError> {
        let request = self.request(Method::GET, &format!("/api/v1/jobs/{id}"));
        read(self.send(request.query(query)).await?).await
    }

    /// Has what a dry run has listed carried out.
    pub async fn run_job(&self, id: &str) -> Result<RewindJob, ClientError> {
        let request = self.request(Method::POST, &format!("/api/v1/jobs/{id}/run"));
        read(self.send(request).await?).await
    }
}
