//! The writer of one disk: takes requests in their order and makes one batch of the writes that wait together.
//!
//! Place in the picture: `FragmentStore` starts it on a thread of its own, which alone calls the `Core`; answers go back by one-shot
//! channels. Whoever compacts, lists or removes asks here, so no change meets another one half-way.
//! Invariants: an answer is sent after what it says is synced; every request is answered unless the writer ends.
//! Not here: what a request does (`core`, `compact`).

use super::StoreError;
use super::compact::CompactionStep;
use super::core::{Core, Write, Written};
use disk::{Disk, Place};
use kv::seam::Change;
use model::stripe::FragmentName;
use protocol::node::Damage;
use std::sync::Arc;
use std::time::Duration;
use tokio::sync::{mpsc, oneshot};

/// What a batch holds besides payloads: record and fragment headers, and the padding to the next block.
const RECORD_OVERHEAD_BYTES: usize = 4096;

/// What the writer is asked for; each request carries where its answer goes.
pub(super) enum Request {
    Write(Write, oneshot::Sender<Result<Written, StoreError>>),
    Damage(FragmentName, Place, Damage, oneshot::Sender<Result<bool, StoreError>>),
    Whole(FragmentName, Place, oneshot::Sender<Result<(), StoreError>>),
    Rows(Vec<Change>, oneshot::Sender<Result<(), StoreError>>),
    Compact(
        Duration,
        Duration,
        bool,
        oneshot::Sender<Result<CompactionStep, StoreError>>,
    ),
    Stop(oneshot::Sender<()>),
}

/// Where the writer's requests come from: the store's queue, or one that a suite of schedules sees waiting.
pub(super) trait Requests {
    /// The next request, waiting for it; `None` when nobody can ask any more.
    fn wait(&mut self) -> Option<Request>;
    /// The next request if it is there already.
    fn take(&mut self) -> Option<Request>;
}

impl Requests for mpsc::Receiver<Request> {
    fn wait(&mut self) -> Option<Request> {
        self.blocking_recv()
    }

    fn take(&mut self) -> Option<Request> {
        self.try_recv().ok()
    }
}

/// The writer's loop; a reply that nobody waits for any more is dropped.
pub(super) fn run_writer(core: Core, mut queue: impl Requests, batch_bytes_max: usize) {
    let mut writer = Writer::new(core, batch_bytes_max);
    while let Some(first) = writer.carried.take().or_else(|| queue.wait()) {
        if !writer.serve(first, &mut queue) {
            return;
        }
    }
    writer.core.close();
}

/// The same as a task, for a simulated world, where a batch takes what the disk says.
pub(super) async fn drive_writer(
    core: Core,
    mut queue: mpsc::Receiver<Request>,
    batch_bytes_max: usize,
    disk: Arc<dyn Disk>,
) {
    let mut writer = Writer::new(core, batch_bytes_max);
    loop {
        let first = match writer.carried.take() {
            Some(carried) => carried,
            None => match queue.recv().await {
                Some(request) => request,
                None => break,
            },
        };
        daemon::clock::simulated_wait(disk.latency()).await;
        if !writer.serve(first, &mut queue) {
            return;
        }
    }
    writer.core.close();
}

struct Writer {
    core: Core,
    /// Taken from the queue and not fitting the batch before it.
    carried: Option<Request>,
    batch_bytes_max: usize,
}

impl Writer {
    fn new(core: Core, batch_bytes_max: usize) -> Self {
        Self {
            core,
            carried: None,
            batch_bytes_max,
        }
    }

    /// Does `first`, with the writes that wait behind it when it is one; `false` when it was the order to stop.
    fn serve(&mut self, first: Request, queue: &mut impl Requests) -> bool {
        let (mut writes, mut replies, mut len_bytes) = (Vec::new(), Vec::new(), 0);
        let mut next = Some(first);
        while let Some(request) = next.take() {
            match request {
                Request::Write(write, reply) => {
                    let more = write.len_bytes() + RECORD_OVERHEAD_BYTES;
                    if len_bytes + more > self.batch_bytes_max && !writes.is_empty() {
                        self.carried = Some(Request::Write(write, reply));
                        break;
                    }
                    len_bytes += more;
                    writes.push(write);
                    replies.push(reply);
                    next = queue.take();
                }
                other => {
                    self.carried = Some(other);
                    break;
                }
            }
        }
        if writes.is_empty() {
            return match self.carried.take() {
                Some(other) => serve_one(&mut self.core, other),
                None => true,
            };
        }
        for (answer, reply) in self.core.commit(writes).into_iter().zip(replies) {
            let _ = reply.send(answer);
        }
        true
    }
}

/// Does what is no write; `false` when it was the order to stop.
fn serve_one(core: &mut Core, request: Request) -> bool {
    match request {
        Request::Write(write, reply) => {
            let answer = core.commit(vec![write]).pop().expect("one write has one answer");
            let _ = reply.send(answer);
        }
        Request::Damage(name, place, damage, reply) => {
            let _ = reply.send(core.list_damage(&name, place, damage));
        }
        Request::Whole(name, place, reply) => {
            let _ = reply.send(core.clear_damage(&name, place));
        }
        Request::Rows(batch, reply) => {
            let _ = reply.send(core.keep_rows(batch));
        }
        Request::Compact(now, limbo, is_short, reply) => {
            let _ = reply.send(core.compact_step(now, limbo, is_short));
        }
        Request::Stop(reply) => {
            core.close();
            let _ = reply.send(());
            return false;
        }
    }
    true
}
