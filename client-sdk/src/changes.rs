//! Following a drive: pages of changes behind a cursor, and the poll that waits for the next ones.
//!
//! Invariant: nothing is remembered here; whoever follows keeps the cursor of what it has taken in, and nothing is lost.
//! Not here: what a sync engine does with a change.

use crate::client::{Client, read};
use crate::error::ClientError;
use api::change::{ChangesPage, PollAnswer};
use reqwest::Method;
use std::time::Duration;

/// An answer is on its way at most so long after the wait that was asked for; a guess.
const ANSWER_WITHIN: Duration = Duration::from_secs(30);

impl Client {
    /// Changes behind a cursor, the present end without one; `is_folded` leaves of several changes of an entry the last one in a page.
    pub async fn changes(
        &self,
        since: Option<&str>,
        limit: usize,
        is_folded: bool,
    ) -> Result<ChangesPage, ClientError> {
        let mut query = vec![("limit", limit.to_string()), ("fold", is_folded.to_string())];
        if let Some(since) = since {
            query.push(("since_token", since.to_owned()));
        }
        let request = self.request(Method::GET, "/api/v1/changes/list").query(&query);
        read(self.send(request).await?).await
    }

    /// Waits until something changes behind `cursor`, in whole seconds and at most so long.
    pub async fn poll(&self, cursor: &str, wait: Duration) -> Result<PollAnswer, ClientError> {
        let query = [("cursor", cursor.to_owned()), ("timeout", wait.as_secs().to_string())];
        let request = self.request(Method::GET, "/api/v1/notifications/poll").query(&query);
        read(self.send(request.timeout(wait + ANSWER_WITHIN)).await?).await
    }
}
