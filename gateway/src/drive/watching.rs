//! Being told which feeds go on: one standing call for each group whose scopes polls wait for.
//!
//! Subscribe, compare, wait: the first call tells where the log stands, what is compared after it shows at least that, and each further
//! call goes on from the index that the last one told. A replica that cannot go on from there says so, and all scopes are compared again.
//! Tokens that may have ended are told in the same way: what is remembered of them is forgotten, and their polls look again.
//! Invariants: between two calls nothing is missed, whichever replica is asked; a group without polls costs no call; what was known of
//! tokens before a group was watched without a gap is forgotten.
//! Not here: who waits (`notices`), the call (`metadata_client/watching`).

use crate::drive::Core;
use crate::drive::metadata_client::unexpected;
use model::id::{EntryId, GroupId, UserId};
use protocol::metadata::query::ROWS_MAX;
use protocol::metadata::watch::MovedScope;
use protocol::metadata::{Query, QueryAnswer};
use protocol::wire_error::Failure;
use std::collections::BTreeSet;
use std::sync::Arc;
use std::time::Duration;
use tokio::task::JoinSet;

/// How long a standing call waits when nothing moves: what an idle group costs.
const WATCH_WAIT: Duration = Duration::from_secs(30);
/// Rest after a call that told something: what moves meanwhile is told together. A guess: a tenth of what a poll may take.
const TOLD_REST: Duration = Duration::from_millis(2);
/// Between two looks for scopes that nobody waits for; each goes over all of them, and they linger for longer.
const PRUNE_EVERY: Duration = Duration::from_secs(15);
const PAUSE_MIN: Duration = Duration::from_millis(50);
const PAUSE_MAX: Duration = Duration::from_secs(1);

impl Core {
    /// Watches the groups of the scopes that are waited for, as long as it is polled.
    pub async fn keep_watching(self: &Arc<Self>) {
        let mut watching = JoinSet::new();
        loop {
            tokio::select! {
                group = self.notices.next_group() => {
                    let core = Arc::clone(self);
                    watching.spawn(async move { core.watch_group(group).await });
                }
                Some(_) = watching.join_next() => {}
            }
        }
    }

    async fn watch_group(&self, group: GroupId) {
        let (mut after, mut pause, mut pruned) = (None, PAUSE_MIN, self.seams.clock.monotonic());
        loop {
            match self.watch_once(group, after).await {
                Ok(index) => {
                    (after, pause) = (Some(index), PAUSE_MIN);
                    self.notices.cover(group, true);
                }
                Err(failure) => {
                    tracing::debug!(%group, %failure, "a group does not tell what moves");
                    // Nothing is missed, but it is told later.
                    self.poll_tokens.forget(|_, (home, _)| *home == group);
                    let span = pause / 2 + self.seams.random.up_to(pause / 2);
                    self.seams.clock.sleep(span).await;
                    pause = (pause * 2).min(PAUSE_MAX);
                }
            }
            let now = self.seams.clock.monotonic();
            if now.saturating_sub(pruned) >= PRUNE_EVERY {
                pruned = now;
                if self.notices.prune(group, now) {
                    return;
                }
            }
        }
    }

    /// One call; the index to go on from.
    async fn watch_once(&self, group: GroupId, after: Option<u64>) -> Result<u64, Failure> {
        let told = self.metadata.watch_feed(group, after, WATCH_WAIT).await?;
        if after.is_none() || !told.is_whole {
            self.forget_tokens(|_| true);
        }
        if after.is_some() && !told.is_whole {
            // Behind the call, so that it shows all that the call could not tell. Failing, the call is made again from where it was.
            self.compare(group, self.notices.scopes_of(group)).await?;
            self.notices.doubt_all(group);
        }
        let ended: BTreeSet<UserId> = told.moved.iter().filter_map(MovedScope::user).collect();
        if !ended.is_empty() {
            self.forget_tokens(|facts| ended.contains(&facts.user.user));
            self.notices.doubt(&ended);
        }
        if !told.moved.is_empty() {
            self.notices.moved(&told.moved, self.seams.clock.monotonic());
            self.seams.clock.sleep(TOLD_REST).await;
        }
        Ok(told.index)
    }

    async fn compare(&self, group: GroupId, scopes: Vec<EntryId>) -> Result<(), Failure> {
        for part in scopes.chunks(ROWS_MAX) {
            let query = Query::FeedEnds(part.to_vec());
            match self.metadata.query_group(group, &query, 0).await? {
                QueryAnswer::FeedEnds(ends) => self.notices.compared(&ends, self.seams.clock.monotonic()),
                _ => return Err(unexpected()),
            }
        }
        Ok(())
    }
}
