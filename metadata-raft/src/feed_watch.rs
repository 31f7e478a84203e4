//! What each replica tells of feeds that went on: a short memory of which scope was moved by which entry of the log.
//!
//! Filled while commands are applied, told once their batch is written. A gateway asks behind the index that it knows and is told all
//! that came after, by whichever replica it asks: indexes mean the same everywhere. What this memory has lost it says it has lost, and
//! the gateway compares.
//! Invariants: the commit path never waits for whoever is told; memory is bounded; between `begin` and `index` nothing is missing.
//! Not here: the changes themselves (`state::feed`), whom they concern (gateway).

use protocol::metadata::watch::{MovedScope, WatchAnswer};
use std::collections::VecDeque;
use std::sync::{Mutex, MutexGuard, PoisonError};
use tokio::sync::watch;

/// Movements kept. A guess: whoever is further behind than this compares, which costs a query for each thousand of its scopes.
const KEPT_MAX: usize = 4_096;

struct Memory {
    /// Everything above this index and up to `index` is kept.
    begin: u64,
    /// Up to where batches were written.
    index: u64,
    moved: VecDeque<(u64, MovedScope)>,
    /// Of the batch that is being applied.
    pending: Vec<(u64, MovedScope)>,
}

/// The memory of one group's replica.
pub struct FeedWatch {
    memory: Mutex<Memory>,
    news: watch::Sender<u64>,
}

impl FeedWatch {
    /// A memory that begins behind `index`, up to which the state is applied.
    #[must_use]
    pub fn new(index: u64) -> Self {
        Self {
            memory: Mutex::new(Memory {
                begin: index,
                index,
                moved: VecDeque::new(),
                pending: Vec::new(),
            }),
            news: watch::Sender::new(index),
        }
    }

    fn memory(&self) -> MutexGuard<'_, Memory> {
        // Each change under the lock is complete on its own, so a panic elsewhere leaves nothing half done.
        self.memory.lock().unwrap_or_else(PoisonError::into_inner)
    }

    /// Entry `index` moves these scopes once its batch is written.
    pub fn moves(&self, index: u64, moved: Vec<MovedScope>) {
        let rows = moved.into_iter().map(|scope| (index, scope));
        self.memory().pending.extend(rows);
    }

    /// The batch up to `index` is written.
    pub fn written(&self, index: u64) {
        let mut memory = self.memory();
        let memory = &mut *memory;
        memory.index = index.max(memory.index);
        if memory.pending.is_empty() {
            return;
        }
        memory.moved.extend(memory.pending.drain(..));
        while memory.moved.len() > KEPT_MAX {
            if let Some((lost, _)) = memory.moved.pop_front() {
                memory.begin = lost;
            }
        }
        self.news.send_replace(memory.index);
    }

    /// The state is another one, applied up to `index`: what moved on the way there is not known.
    pub fn jumped(&self, index: u64) {
        let mut memory = self.memory();
        memory.pending.clear();
        memory.moved.clear();
        memory.begin = index.max(memory.index);
        memory.index = memory.begin;
        self.news.send_replace(memory.index);
    }

    /// Told when something moves or is lost.
    #[must_use]
    pub fn news(&self) -> watch::Receiver<u64> {
        self.news.subscribe()
    }

    /// What moved behind `after`, each scope once.
    #[must_use]
    pub fn behind(&self, after: u64) -> WatchAnswer {
        let memory = self.memory();
        let from = memory.moved.partition_point(|(index, _)| *index <= after);
        // Of several movements of a scope the last one tells all.
        let mut moved: Vec<MovedScope> = Vec::new();
        for (_, scope) in memory.moved.iter().skip(from) {
            moved.push(*scope);
        }
        moved.sort_unstable_by_key(|moved| (moved.scope, std::cmp::Reverse(moved.sequence)));
        moved.dedup_by_key(|moved| moved.scope);
        WatchAnswer {
            index: memory.index.max(after),
            is_whole: after >= memory.begin,
            moved,
        }
    }

    /// Up to where batches were written.
    #[must_use]
    pub fn index(&self) -> u64 {
        self.memory().index
    }
}

#[cfg(test)]
mod tests {
    use super::{FeedWatch, KEPT_MAX};
    use model::id::DriveId;
    use protocol::metadata::watch::MovedScope;

    fn moved(drive: u64, sequence: u64) -> MovedScope {
        MovedScope {
            scope: DriveId(drive).root(),
            sequence,
        }
    }

    #[test]
    fn whoever_asks_behind_an_index_is_told_all_that_moved_after_it_once() {
        let watch = FeedWatch::new(10);
        watch.moves(11, vec![moved(1, 1)]);
        watch.moves(12, vec![moved(2, 5)]);
        assert!(watch.behind(10).moved.is_empty(), "the batch is not written yet");
        watch.written(12);
        watch.moves(14, vec![moved(1, 2)]);
        watch.written(15);
        let told = watch.behind(10);
        assert_eq!((told.index, told.is_whole), (15, true));
        assert_eq!(told.moved, [moved(1, 2), moved(2, 5)]);
        assert_eq!(watch.behind(12).moved, [moved(1, 2)]);
        assert!(watch.behind(14).moved.is_empty());
        // One that was further: this replica is behind another one.
        let ahead = watch.behind(20);
        assert_eq!((ahead.index, ahead.is_whole, ahead.moved.len()), (20, true, 0));
        assert!(!watch.behind(9).is_whole, "what was before the start is not known");
    }

    #[test]
    fn what_the_memory_has_lost_it_says_it_has_lost() {
        let watch = FeedWatch::new(0);
        for index in 1..=KEPT_MAX as u64 + 1 {
            watch.moves(index, vec![moved(index, 1)]);
            watch.written(index);
        }
        assert!(!watch.behind(0).is_whole);
        assert!(watch.behind(1).is_whole);
        assert_eq!(watch.behind(1).moved.len(), KEPT_MAX);
        watch.jumped(9_000);
        let told = watch.behind(8_999);
        assert_eq!((told.is_whole, told.index, told.moved.len()), (false, 9_000, 0));
        assert!(watch.behind(9_000).is_whole);
    }

    #[tokio::test]
    async fn whoever_waits_is_told_when_a_batch_is_written_that_moved_something() {
        let watch = FeedWatch::new(0);
        let mut news = watch.news();
        watch.written(1);
        assert!(!news.has_changed().unwrap(), "nothing moved");
        watch.moves(2, vec![moved(1, 1)]);
        assert!(!news.has_changed().unwrap());
        watch.written(2);
        news.changed().await.unwrap();
    }
}
