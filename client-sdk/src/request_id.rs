//! Ids of requests: under one id a request is done once, however often it is sent (decision 0052).
//!
//! Invariant: an id says in which aged hour it was made, as the server told it, so a repeat that comes when nobody remembers the first
//! try any more is refused as `outcome_unknown` and not done again.
//! Not here: repeats, which are the caller's; drawing keys.

use crate::client::{Client, Target, read};
use crate::error::ClientError;
use api::entry::Entry;
use api::upload::Uploaded;
use bytes::Bytes;
use reqwest::{RequestBuilder, Response};

/// The header in which the server tells the aged hour, and a client when it made an id.
const AGE_HOUR: &str = "holdfast-age-hour";

/// Names one request over all of its repeats; whoever may have to repeat it keeps it as it is.
#[derive(Clone, Debug, PartialEq, Eq)]
pub struct RequestId {
    /// The caller's own name for the request.
    pub key: String,
    /// The aged hour in which the id was made.
    pub made_hour: u32,
}

impl RequestId {
    /// The same request, under this id.
    pub fn on(&self, request: RequestBuilder) -> RequestBuilder {
        request
            .header("idempotency-key", &self.key)
            .header(AGE_HOUR, self.made_hour)
    }
}

impl Client {
    /// An id for a request that is about to be made; `key` has 1 to 255 printable bytes and is used for no other request. The hour is
    /// that of the last answer; a client that was told none yet asks.
    ///
    /// Errors: as `me`; `Altered` when the server tells no hour.
    pub async fn request_id(&self, key: impl Into<String>) -> Result<RequestId, ClientError> {
        if self.age_hour().is_none() {
            self.me().await?;
        }
        let made_hour = self.age_hour().ok_or(ClientError::Altered("the aged hour"))?;
        let key = key.into();
        Ok(RequestId { key, made_hour })
    }

    /// As `put`, under an id.
    pub async fn put_under(&self, id: &RequestId, target: &Target, bytes: Bytes) -> Result<Uploaded, ClientError> {
        read(self.send(id.on(self.upload(target)).body(bytes)).await?).await
    }

    /// As `make_folder`, under an id.
    pub async fn make_folder_under(&self, id: &RequestId, path: &str) -> Result<Entry, ClientError> {
        read(self.send(id.on(self.folder(path))).await?).await
    }
}

/// The aged hour that an answer tells.
pub(crate) fn told(answer: &Response) -> Option<u32> {
    answer.headers().get(AGE_HOUR)?.to_str().ok()?.parse().ok()
}
