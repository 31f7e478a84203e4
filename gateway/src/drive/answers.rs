//! Answers about drives that are kept, and used again only when the drive's group has just said that they hold.
//!
//! Each question goes to the group, with the mark that the drive had when the answer was made; the group authorises whoever asks and
//! answers in full, or says that the drive has this mark still (decision 0043). Who asks the same while such a call is under way waits
//! for the next one and shares it: the present one may have looked before he came. Who asks alone makes the call himself, without a
//! task, and the next one does not wait for it: he may have stopped to listen in the middle of it.
//! Invariants: an answer is given only after a linearizable read that began after it was asked for; to nobody but the principal who
//! may ask for it, device and all; no clock decides whether an answer holds.
//! Not here: which questions a mark covers (`metadata-raft`), how much is kept (`kept`).

use crate::drive::expect;
use crate::drive::kept::{Kept, Shown};
use crate::drive::metadata_client::MetadataClient;
use crate::seams::Seams;
use bytes::Bytes;
use daemon::clock::Clock;
use protocol::frame::{decode, encode};
use protocol::metadata::query::{DriveMark, DriveQuery};
use protocol::metadata::{Query, QueryAnswer};
use protocol::wire_error::Failure;
use std::collections::BTreeMap;
use std::sync::atomic::{AtomicU64, Ordering};
use std::sync::{Arc, Mutex, MutexGuard, PoisonError};
use std::time::Duration;
use tokio::sync::oneshot;
use tracing::Instrument;

/// How long an answer is kept at most: it holds names, and what was removed must not stay in memory for long.
pub const ANSWER_LIFE: Duration = Duration::from_secs(60);

type Told = Result<Arc<QueryAnswer>, Failure>;

/// Questions about which calls are under way.
type Waiting = BTreeMap<Bytes, UnderWay>;

enum UnderWay {
    /// Of one who asks alone, with his number.
    Alone(u64),
    /// Of a task, and who waits for its next one.
    Shared(Vec<oneshot::Sender<Told>>),
}

/// How a question is asked.
enum Joined {
    /// By a call of the asker's own, with his number: none was under way.
    Alone(u64),
    /// By the next call for all who came meanwhile, whose answer is told here; and whether the task of such calls is to be begun.
    Shared(oneshot::Receiver<Told>, bool),
}

/// A call by one who asks alone, until it ends or is dropped midway. Others may have shared calls since, and another may ask alone now.
struct Alone<'a>(&'a Answers, &'a Bytes, u64);

impl Drop for Alone<'_> {
    fn drop(&mut self) {
        let mut waiting = self.0.waiting();
        if matches!(waiting.get(self.1), Some(UnderWay::Alone(number)) if *number == self.2) {
            waiting.remove(self.1);
        }
    }
}

/// Should a shared call panic, whoever waits for the next one is told, and who comes then begins anew.
struct Unwound<'a>(&'a Answers, &'a Bytes);

impl Drop for Unwound<'_> {
    fn drop(&mut self) {
        if std::thread::panicking() {
            self.0.waiting().remove(self.1);
        }
    }
}

/// Returns once all of them have left.
async fn gone(askers: &mut [oneshot::Sender<Told>]) {
    for asker in askers {
        asker.closed().await;
    }
}

/// The answers of one gateway.
pub struct Answers {
    metadata: Arc<MetadataClient>,
    clock: Arc<dyn Clock>,
    kept: Kept<Bytes, (DriveMark, Arc<QueryAnswer>)>,
    waiting: Mutex<Waiting>,
    /// How many have asked alone.
    alone: AtomicU64,
}

impl Answers {
    /// Asks by `metadata` and keeps answers of `bytes_max`; 0 asks for each answer in full.
    pub fn new(metadata: Arc<MetadataClient>, seams: &Seams, bytes_max: u64) -> Self {
        let shown = Shown::new(&seams.metrics, "answers");
        Self {
            metadata,
            clock: Arc::clone(&seams.clock),
            kept: Kept::new(bytes_max, ANSWER_LIFE, shown),
            waiting: Mutex::default(),
            alone: AtomicU64::default(),
        }
    }

    /// The answer to a question that a mark covers. May be dropped midway; others who ask the same do not notice.
    ///
    /// Errors: as `MetadataClient::query`.
    pub async fn ask(self: &Arc<Self>, query: DriveQuery, trace: u128) -> Result<QueryAnswer, Failure> {
        if !self.kept.is_on() {
            return self
                .metadata
                .query(&Query::Drive(query), trace)
                .await
                .map(|told| told.0);
        }
        // The principal is in it.
        let key = encode(&query)?;
        let told = match self.join(&key) {
            Joined::Alone(number) => {
                let _alone = Alone(self, &key, number);
                self.once(&key, &query, trace).await
            }
            Joined::Shared(told, begins) => {
                if begins {
                    // Its own task: who begins may be dropped, and others still wait.
                    tokio::spawn(Arc::clone(self).run(key, query, trace).in_current_span());
                }
                told.await
                    .map_err(|_| Failure::bug("a question ended without an answer"))?
            }
        };
        told.map(Arc::unwrap_or_clone)
    }

    fn join(&self, key: &Bytes) -> Joined {
        let mut waiting = self.waiting();
        let Some(under_way) = waiting.get_mut(key) else {
            let number = self.alone.fetch_add(1, Ordering::Relaxed);
            waiting.insert(key.clone(), UnderWay::Alone(number));
            return Joined::Alone(number);
        };
        let (sender, told) = oneshot::channel();
        let begins = match under_way {
            UnderWay::Shared(askers) => {
                askers.push(sender);
                false
            }
            UnderWay::Alone(_) => {
                *under_way = UnderWay::Shared(vec![sender]);
                true
            }
        };
        Joined::Shared(told, begins)
    }

    /// Questions about which a call is under way, or about to be.
    pub fn under_way(&self) -> usize {
        self.waiting().len()
    }

    /// Lets go of what is too old.
    pub fn let_go(&self) {
        self.kept.let_go(self.clock.monotonic());
    }

    async fn run(self: Arc<Self>, key: Bytes, query: DriveQuery, trace: u128) {
        let _unwound = Unwound(&self, &key);
        while let Some(mut askers) = self.next(&key) {
            let told = tokio::select! {
                told = self.once(&key, &query, trace) => told,
                // Nobody waits for it any more: whoever asks and leaves, over and over, has no more under way than the gates let in.
                () = gone(&mut askers) => continue,
            };
            for asker in askers {
                // Some may not wait any more.
                drop(asker.send(told.clone()));
            }
        }
    }

    /// Those who came before this call begins; the calls rest when there are none.
    fn next(&self, key: &Bytes) -> Option<Vec<oneshot::Sender<Told>>> {
        let mut waiting = self.waiting();
        let askers = match waiting.get_mut(key) {
            Some(UnderWay::Shared(askers)) => std::mem::take(askers),
            _ => Vec::new(),
        };
        if askers.is_empty() {
            waiting.remove(key);
            return None;
        }
        Some(askers)
    }

    async fn once(&self, key: &Bytes, query: &DriveQuery, trace: u128) -> Told {
        let known = self.kept.get(key, self.clock.monotonic());
        let seen = known.as_ref().map(|(mark, _)| *mark);
        let told = self
            .metadata
            .query(&Query::DriveSince(query.clone(), seen), trace)
            .await;
        let QueryAnswer::Since(mark, answer) = told?.0 else {
            return expect(None);
        };
        self.kept.count(answer.is_none());
        let Some(bytes) = answer else {
            let holds = known.filter(|(seen, _)| *seen == mark);
            return expect(holds.map(|(_, answer)| answer));
        };
        let answer: Arc<QueryAnswer> = Arc::new(decode(&bytes)?);
        // Decoded, names and digests lie in allocations of their own.
        let cost = key.len() + 2 * bytes.len();
        self.kept
            .put(key.clone(), (mark, Arc::clone(&answer)), cost, self.clock.monotonic());
        Ok(answer)
    }

    fn waiting(&self) -> MutexGuard<'_, Waiting> {
        // Each change under the lock is complete on its own, so a panic elsewhere leaves nothing half done.
        self.waiting.lock().unwrap_or_else(PoisonError::into_inner)
    }
}
