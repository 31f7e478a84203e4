//! Copies of files and folders inside their drive, which move no data.

use crate::client::{Client, read};
use crate::error::ClientError;
use api::copy::{CopyJob, CopyReport};
use api::entry::Entry;
use api::metadata::CopyEntry;
use reqwest::{Method, StatusCode};

/// What became of a wish for a copy.
#[derive(Clone, Debug, PartialEq)]
pub enum Copied {
    /// It is there.
    There(Box<Entry>),
    /// A job makes it; `Client::copy_job` tells how far it is.
    Begun(Box<CopyJob>),
}

impl Client {
    /// Copies a file or a folder inside its drive.
    pub async fn copy(&self, id: &str, to: &CopyEntry) -> Result<Copied, ClientError> {
        let request = self.request(Method::POST, &format!("/api/v1/metadata/{id}/copy"));
        let answer = self.send(request.json(to)).await?;
        if answer.status() == StatusCode::ACCEPTED {
            return Ok(Copied::Begun(Box::new(read(answer).await?)));
        }
        Ok(Copied::There(Box::new(read(answer).await?)))
    }

    /// A copy that a job makes.
    pub async fn copy_job(&self, id: &str) -> Result<CopyJob, ClientError> {
        let request = self.request(Method::GET, &format!("/api/v1/jobs/{id}"));
        let report: CopyReport = read(self.send(request).await?).await?;
        Ok(report.job)
    }

    /// Ends a copy that is under way; one that has ended stays as it is.
    pub async fn cancel_copy(&self, id: &str) -> Result<CopyJob, ClientError> {
        let request = self.request(Method::DELETE, &format!("/api/v1/jobs/{id}"));
        read(self.send(request).await?).await
    }
}
