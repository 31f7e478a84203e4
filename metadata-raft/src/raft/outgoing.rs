//! Views of a group's state that are being sent, one for each receiver, kept until the state is installed there.
//!
//! A transfer that breaks goes on behind the last key that the receiver has, which needs the same view again: a later one holds
//! other rows. While a view is kept the group makes no new mark, so that its log still reaches back to what the view holds: else
//! a receiver that takes longer than the log would be sent one snapshot after another.
//! Invariants: a view is used for a snapshot only when it is at least as new, since the leader takes the receiver to be there
//! afterwards; one that makes no progress, or lasts too long, is given up.
//! Not here: the calls (`network`), what a part is (`snapshot`).

use crate::raft::snapshot::{Rows, StateView};
use crate::raft::stored_state::Applied;
use bytes::Bytes;
use kv::seam::{Kv, KvError, KvRead};
use model::id::{GroupId, RaftId};
use std::collections::BTreeMap;
use std::sync::atomic::{AtomicBool, AtomicU64, Ordering};
use std::sync::{Arc, Mutex, MutexGuard, PoisonError};
use tokio::sync::{mpsc, oneshot};

/// Looks without progress after which a view is given up: two minutes of the log keeper's. A guess: a restart of the receiver fits.
pub const IDLE_LOOKS_MAX: u32 = 12;
/// Looks after which it is given up anyhow: an hour, in which the log only grows. A guess: 100 GB over a slow link.
pub const LOOKS_MAX: u32 = 360;

struct Request {
    after: Option<Bytes>,
    answer: oneshot::Sender<Result<Rows, KvError>>,
}

impl Request {
    fn answer_from(self, view: &StateView<'_>) {
        // Whoever asked may be gone; the next one asks again.
        drop(self.answer.send(view.rows_after(self.after.as_ref())));
    }
}

/// One view with the thread that holds it, or the task where one thread is the whole world; that ends with the last reference.
pub struct View {
    /// Tells it from all other views of this and earlier lives of the process.
    pub transfer: u64,
    /// What its rows are the state of.
    pub applied: Applied,
    requests: mpsc::UnboundedSender<Request>,
    has_progressed: AtomicBool,
}

fn ended() -> KvError {
    KvError::Io("whoever holds the view has ended".to_owned())
}

impl View {
    async fn open(kv: Arc<dyn Kv>, group: GroupId, transfer: u64) -> Result<Arc<Self>, KvError> {
        let (opened, is_open) = oneshot::channel();
        // A sender asks for one run of rows ahead of the one that it sends, so no more wait here than it has transfers.
        let (requests, queue) = mpsc::unbounded_channel();
        if daemon::blocking::is_inline() {
            tokio::spawn(hold_inline(kv, group, opened, queue));
        } else {
            // Its own thread, since a view borrows the store, and one of the runtime's would keep the process from stopping.
            std::thread::Builder::new()
                .name(format!("snapshot-{group}"))
                .spawn(move || hold(kv.as_ref(), group, opened, queue))
                .map_err(|error| KvError::Io(error.to_string()))?;
        }
        let applied = is_open.await.map_err(|_| ended())??;
        Ok(Arc::new(Self {
            transfer,
            applied,
            requests,
            has_progressed: AtomicBool::new(true),
        }))
    }

    /// Asks for the rows behind `after`; the answer comes through the channel, so that it can be read while others are sent.
    pub fn rows_after(&self, after: Option<Bytes>) -> oneshot::Receiver<Result<Rows, KvError>> {
        let (answer, rows) = oneshot::channel();
        // Whoever has ended drops the request, and its receiver says so.
        drop(self.requests.send(Request { after, answer }));
        rows
    }

    /// Notes that the receiver has more than before.
    pub fn progressed(&self) {
        self.has_progressed.store(true, Ordering::Relaxed);
    }
}

/// Holds a view and answers from it until nobody can ask any more.
fn hold(
    kv: &dyn Kv,
    group: GroupId,
    opened: oneshot::Sender<Result<Applied, KvError>>,
    mut requests: mpsc::UnboundedReceiver<Request>,
) {
    let snapshot = kv.snapshot();
    let Some(view) = open_view(snapshot.as_ref(), group, opened) else {
        return;
    };
    while let Some(request) = requests.blocking_recv() {
        request.answer_from(&view);
    }
}

/// The same as a task, where nothing may be given to another thread.
async fn hold_inline(
    kv: Arc<dyn Kv>,
    group: GroupId,
    opened: oneshot::Sender<Result<Applied, KvError>>,
    mut requests: mpsc::UnboundedReceiver<Request>,
) {
    let snapshot = kv.snapshot();
    let Some(view) = open_view(snapshot.as_ref(), group, opened) else {
        return;
    };
    while let Some(request) = requests.recv().await {
        request.answer_from(&view);
    }
}

/// The group's state in `snapshot`, told to whoever waits for it; `None` when there is none or nobody waits any more.
fn open_view<'a>(
    snapshot: &'a dyn KvRead,
    group: GroupId,
    opened: oneshot::Sender<Result<Applied, KvError>>,
) -> Option<StateView<'a>> {
    match StateView::open(snapshot, group) {
        Ok(view) => opened.send(Ok(view.applied.clone())).is_ok().then_some(view),
        Err(error) => {
            drop(opened.send(Err(error)));
            None
        }
    }
}

struct Kept {
    view: Arc<View>,
    idle_looks: u32,
    looks: u32,
}

/// The views of one group, by receiver.
pub struct Outgoing {
    views: Mutex<BTreeMap<RaftId, Kept>>,
    next_transfer: AtomicU64,
}

impl Outgoing {
    /// No views yet. `first_transfer` is random, so that transfers of two lives of a process differ.
    #[must_use]
    pub fn new(first_transfer: u64) -> Self {
        Self {
            views: Mutex::default(),
            next_transfer: AtomicU64::new(first_transfer),
        }
    }

    fn views(&self) -> MutexGuard<'_, BTreeMap<RaftId, Kept>> {
        self.views.lock().unwrap_or_else(PoisonError::into_inner)
    }

    /// The view that `receiver` is sent, or a new one when it has none that is as new as `wanted`.
    ///
    /// # Errors
    /// When the store fails.
    pub async fn view_for(
        &self,
        receiver: RaftId,
        kv: Arc<dyn Kv>,
        group: GroupId,
        wanted: &Applied,
    ) -> Result<Arc<View>, KvError> {
        if let Some(kept) = self.views().get(&receiver)
            && kept.view.applied.last >= wanted.last
        {
            return Ok(Arc::clone(&kept.view));
        }
        let transfer = self.next_transfer.fetch_add(1, Ordering::Relaxed);
        let view = View::open(kv, group, transfer).await?;
        let kept = Kept {
            view: Arc::clone(&view),
            idle_looks: 0,
            looks: 0,
        };
        self.views().insert(receiver, kept);
        Ok(view)
    }

    /// Lets the view of `receiver` go.
    pub fn finished(&self, receiver: RaftId) {
        self.views().remove(&receiver);
    }

    /// Lets all go, as a replica that stops does.
    pub fn clear(&self) {
        self.views().clear();
    }

    /// Looks at all views, which is what their patience is counted in; true while any is kept.
    pub fn look(&self) -> bool {
        let mut views = self.views();
        views.retain(|receiver, kept| {
            kept.looks += 1;
            kept.idle_looks += 1;
            if kept.view.has_progressed.swap(false, Ordering::Relaxed) {
                kept.idle_looks = 0;
            }
            let is_kept = kept.idle_looks < IDLE_LOOKS_MAX && kept.looks < LOOKS_MAX;
            if !is_kept {
                tracing::warn!(%receiver, rows_of = ?kept.view.applied.last, "snapshot given up: its receiver makes no progress");
            }
            is_kept
        });
        !views.is_empty()
    }
}

#[cfg(test)]
mod tests {
    use super::{IDLE_LOOKS_MAX, LOOKS_MAX, Outgoing};
    use crate::raft::record::StoredLogId;
    use crate::raft::stored_state::{Applied, FIRST_INSTALL, prefix_of, put_applied};
    use bytes::Bytes;
    use daemon::random::Random;
    use kv::memory::MemoryKv;
    use kv::seam::{Change, Kv};
    use model::id::{GroupId, RaftId};
    use std::sync::Arc;

    const GROUP: GroupId = GroupId(1);

    fn applied(index: u64) -> Applied {
        Applied {
            last: Some(StoredLogId { term: 1, index }),
            ..Applied::default()
        }
    }

    fn write(kv: &MemoryKv, index: u64, row: &[u8]) {
        let key = Bytes::from([prefix_of(GROUP, FIRST_INSTALL).as_ref(), row].concat());
        let position = put_applied(GROUP, FIRST_INSTALL, &applied(index)).unwrap();
        kv.write(vec![Change::Put(key, Bytes::new()), position]).unwrap();
    }

    #[tokio::test]
    async fn a_view_is_kept_for_its_receiver_until_a_newer_state_is_wanted() {
        let (kv, outgoing) = (Arc::new(MemoryKv::new()), Outgoing::new(7));
        write(&kv, 5, b"a");
        let view = async |receiver, index| {
            let (kv, wanted) = (kv.clone(), applied(index));
            outgoing.view_for(RaftId(receiver), kv, GROUP, &wanted).await.unwrap()
        };
        let first = view(2, 3).await;
        write(&kv, 6, b"b");
        assert_eq!(view(2, 5).await.transfer, first.transfer, "as new as wanted");
        assert_eq!(
            first.rows_after(None).await.unwrap().unwrap().len(),
            2,
            "what was written later is not in it"
        );
        assert_ne!(view(3, 5).await.transfer, first.transfer, "another receiver's");
        let second = view(2, 6).await;
        assert_ne!(second.transfer, first.transfer, "older than wanted");
        let rows = second
            .rows_after(Some(Bytes::from_static(b"a")))
            .await
            .unwrap()
            .unwrap();
        assert_eq!(rows[0].0, Bytes::from_static(b"b"));
        outgoing.finished(RaftId(2));
        assert_ne!(view(2, 6).await.transfer, second.transfer);
    }

    #[tokio::test]
    async fn where_one_thread_is_the_world_a_view_is_held_by_a_task_and_stays_what_it_was() {
        daemon::blocking::inline_on_this_thread(Random::seeded(1));
        let (kv, outgoing) = (Arc::new(MemoryKv::new()), Outgoing::new(7));
        write(&kv, 5, b"a");
        let first = applied(5);
        let opened = outgoing.view_for(RaftId(2), kv.clone(), GROUP, &first);
        let view = opened.await.unwrap();
        write(&kv, 6, b"b");
        assert_eq!(view.applied, first);
        let rows = view.rows_after(None).await.unwrap().unwrap();
        assert_eq!(rows.len(), 2, "the row and what was applied");
        let held = Arc::downgrade(&kv);
        drop((kv, view));
        outgoing.clear();
        while held.strong_count() > 0 {
            tokio::task::yield_now().await;
        }
    }

    #[tokio::test]
    async fn a_view_without_progress_and_one_that_lasts_for_ever_are_given_up() {
        let (kv, outgoing) = (Arc::new(MemoryKv::new()), Outgoing::new(7));
        write(&kv, 5, b"a");
        let open = async || {
            outgoing
                .view_for(RaftId(2), kv.clone(), GROUP, &applied(5))
                .await
                .unwrap()
        };
        let looks = |progresses: bool, view: Arc<super::View>| {
            let mut looks = 1;
            while outgoing.look() {
                looks += 1;
                if progresses {
                    view.progressed();
                }
            }
            looks
        };
        assert_eq!(looks(false, open().await), IDLE_LOOKS_MAX + 1);
        assert_eq!(looks(true, open().await), LOOKS_MAX);
    }
}
