//! Completions of log I/O that come late and out of order.
//!
//! openraft before alpha.34 took the completion reported last for the newest one, so a leader whose appends were told out of order
//! never saw its own log flushed and hung, a single voter already while it was made (openraft issue 1960).

use super::{PATIENCE, World, commands, voters};
use crate::group::Group;
use crate::raft::log_store::GroupLogStore;
use crate::raft::types::{Entry, LogId, TypeConfig, Vote};
use bytes::Bytes;
use futures_util::future::join_all;
use openraft::storage::{IOFlushed, LogState, RaftLogStorage};
use openraft::type_config::TypeConfigExt;
use openraft::{OptionalSend, RaftLogReader};
use std::fmt::Debug;
use std::io;
use std::ops::RangeBounds;
use std::sync::atomic::{AtomicUsize, Ordering};
use std::sync::{Arc, Mutex};
use std::time::Duration;

/// How long a completion is held back: longer than an append in memory takes, so that several come together.
const HELD: Duration = Duration::from_millis(4);

#[derive(Default)]
struct Held {
    /// With the place in the order of submission.
    completions: Vec<(usize, io::Result<()>, IOFlushed<TypeConfig>)>,
    submitted: usize,
}

/// A log whose appends are durable in order and told in another: all that came within `HELD` together, the newest first.
#[derive(Clone)]
struct Unordered {
    inner: GroupLogStore,
    held: Arc<Mutex<Held>>,
    /// Completions that were told behind a newer one.
    overtaken: Arc<AtomicUsize>,
}

impl Unordered {
    fn new(inner: GroupLogStore) -> Self {
        let store = Self {
            inner,
            held: Arc::default(),
            overtaken: Arc::default(),
        };
        let (held, overtaken) = (Arc::downgrade(&store.held), store.overtaken.clone());
        tokio::spawn(async move {
            let mut greatest = None;
            while let Some(held) = held.upgrade() {
                let mut together = std::mem::take(&mut held.lock().unwrap().completions);
                drop(held);
                together.sort_by_key(|(place, _, _)| std::cmp::Reverse(*place));
                for (place, result, completion) in together {
                    if greatest.is_some_and(|greatest| place < greatest) {
                        overtaken.fetch_add(1, Ordering::Relaxed);
                    }
                    greatest = greatest.max(Some(place));
                    completion.io_completed(result);
                }
                tokio::time::sleep(HELD).await;
            }
        });
        store
    }
}

impl RaftLogReader<TypeConfig> for Unordered {
    async fn try_get_log_entries<RB: RangeBounds<u64> + Clone + Debug + OptionalSend>(
        &mut self,
        range: RB,
    ) -> Result<Vec<Entry>, io::Error> {
        self.inner.try_get_log_entries(range).await
    }

    async fn read_vote(&mut self) -> Result<Option<Vote>, io::Error> {
        self.inner.read_vote().await
    }
}

impl RaftLogStorage<TypeConfig> for Unordered {
    type LogReader = Self;

    async fn get_log_state(&mut self) -> Result<LogState<TypeConfig>, io::Error> {
        self.inner.get_log_state().await
    }

    async fn get_log_reader(&mut self) -> Self {
        self.clone()
    }

    async fn save_vote(&mut self, vote: &Vote) -> Result<(), io::Error> {
        self.inner.save_vote(vote).await
    }

    async fn append<I>(&mut self, entries: I, callback: IOFlushed<TypeConfig>) -> Result<(), io::Error>
    where
        I: IntoIterator<Item = Entry> + OptionalSend,
        I::IntoIter: OptionalSend,
    {
        let (sender, flushed) = TypeConfig::oneshot::<io::Result<()>>();
        let entries: Vec<Entry> = entries.into_iter().collect();
        self.inner.append(entries, IOFlushed::signal(sender)).await?;
        let place = {
            let mut held = self.held.lock().unwrap();
            held.submitted += 1;
            held.submitted
        };
        let held = self.held.clone();
        tokio::spawn(async move {
            let result = flushed
                .await
                .unwrap_or_else(|_| Err(io::Error::other("the log has ended")));
            held.lock().unwrap().completions.push((place, result, callback));
        });
        Ok(())
    }

    async fn truncate_after(&mut self, last: Option<LogId>) -> Result<(), io::Error> {
        self.inner.truncate_after(last).await
    }

    async fn purge(&mut self, upto: LogId) -> Result<(), io::Error> {
        self.inner.purge(upto).await
    }
}

async fn check(replicas: u64) {
    let mut world = World::calm(replicas);
    let mut overtaken = Vec::new();
    for id in 1..=replicas {
        let parts = world.parts(id).unwrap();
        let store = Unordered::new(parts.log.store_of(parts.group));
        overtaken.push(store.overtaken.clone());
        world.run(Group::start_on(parts, store).await.unwrap());
    }
    world.replica(1).bootstrap(voters(replicas)).await.unwrap();
    world.put("first").await;
    let leader = world.leader().await;
    // At once, so that appends of the leader are under way together.
    let puts = (0..200).map(|number| leader.propose(Bytes::from(format!("put {number}"))));
    let answers = tokio::time::timeout(PATIENCE, join_all(puts)).await.unwrap();
    assert!(answers.iter().all(Result::is_ok), "{answers:?}");
    world.put("last").await;
    let found = commands(&leader);
    assert_eq!(found.len(), 202, "every acknowledged command is there, once");
    let overtaken: usize = overtaken.iter().map(|count| count.load(Ordering::Relaxed)).sum();
    assert!(overtaken > 0, "some completion must have been told behind a newer one");
}

/// shows: F2
#[tokio::test(flavor = "multi_thread")]
async fn a_single_voter_is_made_and_commits_when_completions_come_late_and_out_of_order() {
    check(1).await;
}

/// shows: F2
#[tokio::test(flavor = "multi_thread")]
async fn three_voters_are_made_and_commit_when_completions_come_late_and_out_of_order() {
    check(3).await;
}
