//! One signed-in connection to a cluster's gateway.
//!
//! Place in the picture: what `hf`, the demo and the bench stand on. Streams both ways; nothing is held whole in memory.
//! Invariants: the token is sent in the Authorization header only; no call is repeated here, callers decide by
//! `ClientError::is_retryable`.
//! Not here: cutting and blocks (`delta`), retries, the local database.

use crate::error::ClientError;
use crate::http::{self, Authorities};
use crate::request_id::told;
use api::entry::Entry;
use api::me::Me;
use api::metadata::Listing;
use api::token::TokenAnswer;
use api::upload::Uploaded;
use bytes::Bytes;
use futures_util::Stream;
use reqwest::{Method, RequestBuilder, Response};
use serde::de::DeserializeOwned;
use serde_json::{Value, json};
use std::sync::{Arc, Mutex, MutexGuard, PoisonError};
use std::time::Duration;

/// A dead peer is noticed this fast while connecting; a guess that fits loopback and WAN.
const CONNECT_TIMEOUT: Duration = Duration::from_secs(10);

/// A client of one cluster under one account. Cheap to clone; clones share connections.
#[derive(Clone)]
pub struct Client {
    http: reqwest::Client,
    url: String,
    token: Option<String>,
    /// The aged hour that the last answer to this token told.
    hour: Arc<Mutex<Option<u32>>>,
}

/// Where an upload goes and what it expects to find there.
#[derive(Clone, Debug)]
pub struct Target {
    /// Absolute path in the home drive.
    pub path: String,
    /// The version that the bytes replace; `None` makes a new file.
    pub base_version: Option<u64>,
    /// Makes the folders above that are missing.
    pub parents: bool,
}

impl Target {
    /// A new file at `path`, with the folders above it.
    #[must_use]
    pub fn new_file(path: impl Into<String>) -> Self {
        Self {
            path: path.into(),
            base_version: None,
            parents: true,
        }
    }
}

impl Client {
    /// A client that is not signed in yet. `url` is scheme, host and port.
    pub fn new(url: &str) -> Result<Self, ClientError> {
        Self::trusting(url, &Authorities::for_url(url))
    }

    /// The same, with the say of who may have signed the gateway's certificate.
    ///
    /// Errors: the authorities cannot be read.
    pub fn trusting(url: &str, authorities: &Authorities) -> Result<Self, ClientError> {
        let http = http::builder(authorities)?
            .connect_timeout(CONNECT_TIMEOUT)
            .tcp_nodelay(true)
            .build()?;
        Ok(Self {
            http,
            url: url.trim_end_matches('/').to_owned(),
            token: None,
            hour: Arc::default(),
        })
    }

    /// The same client with an access token that the caller already has.
    #[must_use]
    pub fn with_token(mut self, token: &str) -> Self {
        self.token = Some(token.to_owned());
        // Another account's drive is of another age. And no token lives for as long as an id counts, so no hour is kept for too long.
        self.hour = Arc::default();
        self
    }

    /// The access token that it sends, for another gateway of the same cluster.
    #[must_use]
    pub fn token(&self) -> Option<&str> {
        self.token.as_deref()
    }

    /// Signs in by password; the access token lives an hour.
    pub async fn login(&self, username: &str, password: &str) -> Result<Self, ClientError> {
        let form = [
            ("grant_type", "password"),
            ("username", username),
            ("password", password),
        ];
        let answer = self
            .http
            .post(format!("{}/api/v1/auth/token", self.url))
            .form(&form)
            .send()
            .await?;
        let token: TokenAnswer = read(answer).await?;
        Ok(self.clone().with_token(&token.access_token))
    }

    /// A request below the server's address, with the token.
    pub fn request(&self, method: Method, path: &str) -> RequestBuilder {
        let request = self.http.request(method, format!("{}{path}", self.url));
        match &self.token {
            Some(token) => request.bearer_auth(token),
            None => request,
        }
    }

    /// The same without the token.
    pub(crate) fn anonymous(&self, method: Method, path: &str) -> RequestBuilder {
        self.http.request(method, format!("{}{path}", self.url))
    }

    /// Sends a request, and notes what its answer tells by the way.
    pub(crate) async fn send(&self, request: RequestBuilder) -> Result<Response, ClientError> {
        let answer = request.send().await?;
        if let Some(hour) = told(&answer) {
            *self.hour() = Some(hour);
        }
        Ok(answer)
    }

    fn hour(&self) -> MutexGuard<'_, Option<u32>> {
        // Each change under the lock is one assignment.
        self.hour.lock().unwrap_or_else(PoisonError::into_inner)
    }

    /// The aged hour of the account's drive, as the last answer told it.
    pub(crate) fn age_hour(&self) -> Option<u32> {
        *self.hour()
    }

    /// Puts bytes that are in memory.
    pub async fn put(&self, target: &Target, bytes: Bytes) -> Result<Uploaded, ClientError> {
        read(self.send(self.upload(target).body(bytes)).await?).await
    }

    /// Puts a stream whose length is known; the server refuses another length.
    pub async fn put_stream<S>(&self, target: &Target, length_bytes: u64, stream: S) -> Result<Uploaded, ClientError>
    where
        S: Stream<Item = Result<Bytes, std::io::Error>> + Send + 'static,
    {
        let body = reqwest::Body::wrap_stream(stream);
        let request = self.upload(target);
        let request = request.header(reqwest::header::CONTENT_LENGTH, length_bytes);
        read(self.send(request.body(body)).await?).await
    }

    pub(crate) fn upload(&self, target: &Target) -> RequestBuilder {
        let mut query = vec![("uploadType", "media".to_owned()), ("path", target.path.clone())];
        if let Some(version) = target.base_version {
            query.push(("base_version", version.to_string()));
        }
        if target.parents {
            query.push(("parents", "true".to_owned()));
        }
        self.request(Method::POST, "/api/v1/files/upload")
            .query(&query)
            .header(reqwest::header::CONTENT_TYPE, "application/octet-stream")
    }

    /// Opens a file's content for streaming; `range` is first and last byte, both included.
    pub async fn get(&self, id: &str, range: Option<(u64, u64)>) -> Result<Response, ClientError> {
        let mut request = self.request(Method::GET, &format!("/api/v1/files/{id}/content"));
        if let Some((first, last)) = range {
            request = request.header(reqwest::header::RANGE, format!("bytes={first}-{last}"));
        }
        accept(self.send(request).await?).await
    }

    /// One page of a folder's listing, in name order.
    pub async fn list(&self, path: &str, limit: usize, page_token: Option<&str>) -> Result<Listing, ClientError> {
        let mut query = vec![("path", path.to_owned()), ("limit", limit.to_string())];
        if let Some(token) = page_token {
            query.push(("page_token", token.to_owned()));
        }
        let request = self.request(Method::GET, "/api/v1/metadata").query(&query);
        read(self.send(request).await?).await
    }

    /// Makes a folder and the missing ones above it.
    pub async fn make_folder(&self, path: &str) -> Result<Entry, ClientError> {
        read(self.send(self.folder(path)).await?).await
    }

    pub(crate) fn folder(&self, path: &str) -> RequestBuilder {
        let body = json!({"type": "folder", "path": path, "parents": true});
        self.request(Method::POST, "/api/v1/metadata").json(&body)
    }

    /// Puts an entry into the trash.
    pub async fn trash(&self, id: &str) -> Result<(), ClientError> {
        let request = self.request(Method::DELETE, &format!("/api/v1/metadata/{id}"));
        accept(self.send(request).await?).await.map(drop)
    }

    /// The account, its drive and its usage.
    pub async fn me(&self) -> Result<Me, ClientError> {
        read(self.send(self.request(Method::GET, "/api/v1/me")).await?).await
    }

    /// Any call with a JSON answer.
    pub async fn json(&self, method: Method, path: &str, body: Option<&Value>) -> Result<Value, ClientError> {
        let request = self.request(method, path);
        let request = match body {
            Some(body) => request.json(body),
            None => request,
        };
        let answer = accept(self.send(request).await?).await?.bytes().await?;
        if answer.is_empty() {
            Ok(Value::Null)
        } else {
            Ok(serde_json::from_slice(&answer)?)
        }
    }

    /// The text of an unauthenticated page such as `/metrics`.
    pub async fn text(&self, path: &str) -> Result<String, ClientError> {
        Ok(accept(self.http.get(format!("{}{path}", self.url)).send().await?)
            .await?
            .text()
            .await?)
    }
}

pub(crate) async fn read<T: DeserializeOwned>(answer: Response) -> Result<T, ClientError> {
    let bytes = accept(answer).await?.bytes().await?;
    Ok(serde_json::from_slice(&bytes)?)
}

pub(crate) async fn accept(answer: Response) -> Result<Response, ClientError> {
    let status = answer.status();
    if status.is_success() {
        return Ok(answer);
    }
    let bytes = answer.bytes().await.unwrap_or_default();
    let problem: Value = serde_json::from_slice(&bytes).unwrap_or_default();
    let word = |field: &str, other: &str| {
        problem
            .get(field)
            .or_else(|| problem.get(other))
            .and_then(Value::as_str)
            .unwrap_or("unknown")
            .to_owned()
    };
    Err(ClientError::Refused {
        status: status.as_u16(),
        code: word("code", "error"),
        detail: word("detail", "error_description"),
    })
}
