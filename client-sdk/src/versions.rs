//! Old versions of files: listed, read, and restored without moving data.
//!
//! Not here: what a sync client keeps of them (later).

use crate::client::{Client, accept, read};
use crate::error::ClientError;
use api::drive::{ChangeDrive, Drive};
use api::entry::Entry;
use api::version::{RestoreVersion, VersionList, VersionsQuery};
use reqwest::{Method, Response, header};

impl Client {
    /// A page of a file's versions, the newest first.
    pub async fn versions(&self, id: &str, query: &VersionsQuery) -> Result<VersionList, ClientError> {
        let request = self.request(Method::GET, &format!("/api/v1/files/{id}/versions"));
        read(self.send(request.query(query)).await?).await
    }

    /// Opens the content of a version for streaming; `range` is first and last byte, both included.
    pub async fn get_version(
        &self,
        id: &str,
        version: u64,
        range: Option<(u64, u64)>,
    ) -> Result<Response, ClientError> {
        let path = format!("/api/v1/files/{id}/content?version={version}");
        let mut request = self.request(Method::GET, &path);
        if let Some((first, last)) = range {
            request = request.header(header::RANGE, format!("bytes={first}-{last}"));
        }
        accept(self.send(request).await?).await
    }

    /// Makes the content of an old version the current one again. With a base version it is refused when another is current.
    pub async fn restore_version(
        &self,
        id: &str,
        version: u64,
        base_version: Option<u64>,
    ) -> Result<Entry, ClientError> {
        let wanted = RestoreVersion { version, base_version };
        let request = self.request(Method::POST, &format!("/api/v1/files/{id}/restore"));
        read(self.send(request.json(&wanted)).await?).await
    }

    /// A drive, with how long it keeps old versions.
    pub async fn drive(&self, id: &str) -> Result<Drive, ClientError> {
        let request = self.request(Method::GET, &format!("/api/v1/drives/{id}"));
        read(self.send(request).await?).await
    }

    /// Changes how long a drive keeps old versions.
    pub async fn change_drive(&self, id: &str, wanted: &ChangeDrive) -> Result<Drive, ClientError> {
        let request = self.request(Method::PATCH, &format!("/api/v1/drives/{id}"));
        read(self.send(request.json(wanted)).await?).await
    }
}
