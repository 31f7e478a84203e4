//! One at a time goes on with a resumable upload in this gateway, and it is the newest: a client that comes again has given its
//! earlier request up, whatever that one's connection still looks like.
//!
//! Invariants: whoever has the turn is asked to stop as soon as somebody else wants it, and is waited for; a turn ends with its value.
//! Not here: other gateways, whose commands the group refuses by their position.

use model::id::UploadId;
use std::collections::BTreeMap;
use std::sync::{Arc, Mutex, PoisonError};
use tokio::sync::OwnedMutexGuard;
use tokio_util::sync::CancellationToken;

/// Who goes on with which upload.
#[derive(Default)]
pub struct Turns {
    uploads: Mutex<BTreeMap<UploadId, Queue>>,
}

struct Queue {
    turn: Arc<tokio::sync::Mutex<()>>,
    /// Of the one that has the turn, or waits for it last.
    newest: CancellationToken,
    /// How many have it or wait for it.
    count: usize,
}

/// The turn of one request.
pub struct Turn {
    /// Somebody else wants it.
    pub wanted: CancellationToken,
    // Dropped before the place, which takes an empty queue away: the next one may make a queue of its own only when the turn is free.
    _turn: OwnedMutexGuard<()>,
    place: Place,
}

/// A place in the queue, given up when dropped.
struct Place {
    turns: Arc<Turns>,
    upload: UploadId,
}

impl Turns {
    /// Takes the turn over from whoever has it, once that one has stopped.
    pub async fn take(self: &Arc<Self>, upload: UploadId) -> Turn {
        let wanted = CancellationToken::new();
        let turn = {
            let mut uploads = self.uploads.lock().unwrap_or_else(PoisonError::into_inner);
            let queue = uploads.entry(upload).or_insert_with(|| Queue {
                turn: Arc::default(),
                newest: wanted.clone(),
                count: 0,
            });
            queue.count += 1;
            if queue.count > 1 {
                std::mem::replace(&mut queue.newest, wanted.clone()).cancel();
            }
            Arc::clone(&queue.turn)
        };
        let turns = Arc::clone(self);
        let place = Place { turns, upload };
        Turn {
            _turn: turn.lock_owned().await,
            wanted,
            place,
        }
    }
}

impl Turn {
    /// Whose turn it is.
    #[must_use]
    pub fn upload(&self) -> UploadId {
        self.place.upload
    }
}

impl Drop for Place {
    fn drop(&mut self) {
        let mut uploads = self.turns.uploads.lock().unwrap_or_else(PoisonError::into_inner);
        if let Some(queue) = uploads.get_mut(&self.upload) {
            queue.count -= 1;
            if queue.count == 0 {
                uploads.remove(&self.upload);
            }
        }
    }
}

#[cfg(test)]
mod tests {
    use super::Turns;
    use futures_util::FutureExt;
    use model::id::{DriveId, UploadId};
    use std::sync::Arc;

    #[tokio::test]
    async fn the_newest_gets_the_turn_once_the_others_have_stopped() {
        let turns = Arc::new(Turns::default());
        let upload = |number| UploadId {
            drive: DriveId(1),
            number,
        };
        let first = turns.take(upload(1)).await;
        assert!(!first.wanted.is_cancelled());
        let mut second = Box::pin(turns.take(upload(1)));
        assert!(second.as_mut().now_or_never().is_none(), "the first has not stopped");
        assert!(first.wanted.is_cancelled());
        let mut third = Box::pin(turns.take(upload(1)));
        assert!(third.as_mut().now_or_never().is_none());
        assert!(!turns.take(upload(2)).await.wanted.is_cancelled(), "another upload");
        drop(first);
        let second = second.await;
        assert!(second.wanted.is_cancelled(), "it stops at once, since the third waits");
        drop(second);
        let third = third.await;
        assert!(!third.wanted.is_cancelled());
        // One that gives up before its turn leaves nothing behind.
        let mut fourth = Box::pin(turns.take(upload(1)));
        assert!(fourth.as_mut().now_or_never().is_none());
        drop((fourth, third));
        assert!(turns.uploads.lock().unwrap().is_empty());
    }
}
