//! Group commit: one thread owns a journal, and what arrives while one sync runs is the next batch.
//!
//! Place in the picture: between async code and the blocking journal; decisions 0009 and 0010.
//! Invariants: completions come in the order of submission; nobody waits for company; the queue is bounded in bytes; a submission
//! lies in one batch; closures run between batches, in order with them.
//! Not here: what the records mean. `schedules` compiles this very file once more, over threads whose schedules it chooses; so
//! threads, locks and queues are named through `super::threads`.

use super::threads::{self, JoinHandle, Mutex, Receiver, RecvTimeoutError, Sender, channel};
use crate::journal::append::{Journal, batch_bytes, check_limits};
use crate::journal::read::JournalReader;
use crate::journal::types::{Draft, JournalError, Place, Purpose};
use std::panic::{AssertUnwindSafe, catch_unwind};
use std::sync::{Arc, PoisonError};
use std::time::Duration;
use tokio::sync::{Notify, OwnedSemaphorePermit, Semaphore, oneshot};

/// Bytes that may wait in the queue, payloads and headers: four full batches, about what a disk takes in a quarter of a second (guess).
const QUEUE_BYTES_MAX: usize = 32 << 20;
/// The queue's bytes are counted in units of this; also the least that a submission or closure counts for.
const QUEUE_UNIT_BYTES: usize = 1024;
/// A segment without new batches for so long gets its mark (guess).
const IDLE: Duration = Duration::from_secs(1);

/// Told once what became of a submission: its places, synced, or why not. Runs on the journal's thread, so it must be short and
/// must not wait for the journal.
pub type Completion = Box<dyn FnOnce(Result<Vec<Place>, JournalError>) + Send>;

/// Drafts that are appended together.
pub struct Submission {
    /// In their order; with headers at most a batch.
    pub drafts: Vec<Draft>,
    /// Whether the reserve may be used.
    pub purpose: Purpose,
    /// Called exactly once, unless submitting answers an error.
    pub done: Completion,
}

type Task = Box<dyn FnOnce(&mut Journal) + Send>;

enum Command {
    Append(Submission, OwnedSemaphorePermit),
    With(Task, OwnedSemaphorePermit),
    Stop,
}

/// A journal behind its own thread; shared through an `Arc`.
pub struct GroupCommit {
    queue: Mutex<Option<Sender<Command>>>,
    /// Told of each command, where no thread waits for one.
    arrived: Option<Arc<Notify>>,
    room: Arc<Semaphore>,
    thread: Mutex<Option<JoinHandle<Result<(), JournalError>>>>,
    reader: JournalReader,
    batch_bytes_max: usize,
}

impl GroupCommit {
    /// Starts the thread, named `name`. `Disk` when the system gives none.
    pub fn start(journal: Journal, name: &str) -> Result<Self, JournalError> {
        let (sender, receiver) = channel();
        let reader = journal.reader();
        let batch_bytes_max = journal.batch_bytes_max();
        let thread = threads::Builder::new()
            .name(name.to_owned())
            .spawn(move || {
                Committer {
                    journal,
                    receiver,
                    next: None,
                }
                .run()
            })
            .map_err(|error| crate::seam::DiskError::Io(format!("start thread {name}: {error}")))?;
        Ok(Self {
            queue: Mutex::new(Some(sender)),
            arrived: None,
            room: Arc::new(Semaphore::new(QUEUE_BYTES_MAX / QUEUE_UNIT_BYTES)),
            thread: Mutex::new(Some(thread)),
            reader,
            batch_bytes_max,
        })
    }

    /// As `start`, but without a thread: whoever holds the second part does the work, when it says so. For simulations, in which
    /// one thread does everything in an order that a seed decides.
    #[must_use]
    pub fn driven(journal: Journal) -> (Self, DrivenCommit) {
        let (sender, receiver) = channel();
        let (reader, batch_bytes_max) = (journal.reader(), journal.batch_bytes_max());
        let arrived = Arc::new(Notify::new());
        let commit = Self {
            queue: Mutex::new(Some(sender)),
            arrived: Some(Arc::clone(&arrived)),
            room: Arc::new(Semaphore::new(QUEUE_BYTES_MAX / QUEUE_UNIT_BYTES)),
            thread: Mutex::new(None),
            reader,
            batch_bytes_max,
        };
        let committer = Committer {
            journal,
            receiver,
            next: None,
        };
        (commit, DrivenCommit { committer, arrived })
    }

    /// Hands drafts over, waiting while the queue is full. Submissions of one caller that awaits each keep their order.
    ///
    /// `Stopped`, `TooLarge`, `BadDraft`: nothing is written and `done` is dropped uncalled. May be dropped: then nothing is written.
    pub async fn submit(&self, submission: Submission) -> Result<(), JournalError> {
        check_limits(&submission.drafts, self.batch_bytes_max)?;
        let units = units(&submission.drafts);
        let permit = Arc::clone(&self.room)
            .acquire_many_owned(units)
            .await
            .map_err(|_| JournalError::Stopped)?;
        self.send(Command::Append(submission, permit))
    }

    /// As `submit`, but answers `Busy` instead of waiting; needs no async context.
    pub fn try_submit(&self, submission: Submission) -> Result<(), JournalError> {
        check_limits(&submission.drafts, self.batch_bytes_max)?;
        let permit = match Arc::clone(&self.room).try_acquire_many_owned(units(&submission.drafts)) {
            Ok(permit) => permit,
            Err(tokio::sync::TryAcquireError::NoPermits) => return Err(JournalError::Busy),
            Err(tokio::sync::TryAcquireError::Closed) => return Err(JournalError::Stopped),
        };
        self.send(Command::Append(submission, permit))
    }

    /// Appends and waits until it is synced. Errors as for `Journal::append`, and `Stopped`.
    ///
    /// Dropped while it waits for room nothing is written; dropped later the append goes on, unseen.
    pub async fn append(&self, drafts: Vec<Draft>, purpose: Purpose) -> Result<Vec<Place>, JournalError> {
        let (sender, receiver) = oneshot::channel();
        // Whoever does not wait any more does not want the answer.
        let done: Completion = Box::new(move |answer| drop(sender.send(answer)));
        self.submit(Submission { drafts, purpose, done }).await?;
        receiver.await.map_err(|_| JournalError::Stopped)?
    }

    /// Runs `task` on the journal's thread, after everything submitted before it and before everything after it.
    ///
    /// `Stopped` when it was not run. Dropped while it waits for its answer the task runs all the same.
    pub async fn with<T: Send + 'static>(
        &self,
        task: impl FnOnce(&mut Journal) -> T + Send + 'static,
    ) -> Result<T, JournalError> {
        let (sender, receiver) = oneshot::channel();
        let permit = Arc::clone(&self.room)
            .acquire_many_owned(1)
            .await
            .map_err(|_| JournalError::Stopped)?;
        // Whoever does not wait any more does not want the answer.
        let task: Task = Box::new(move |journal| drop(sender.send(task(journal))));
        self.send(Command::With(task, permit))?;
        receiver.await.map_err(|_| JournalError::Stopped)
    }

    /// A view for reading from any thread.
    #[must_use]
    pub fn reader(&self) -> &JournalReader {
        &self.reader
    }

    /// Refuses new work, does what was submitted, marks the segment and ends the thread. Blocks; again: no error and nothing done.
    pub fn stop(&self) -> Result<(), JournalError> {
        self.room.close();
        if let Some(sender) = self.queue.lock().unwrap_or_else(PoisonError::into_inner).take() {
            // When the thread is gone there is nothing to stop; joining tells why.
            let _ = sender.send(Command::Stop);
            if let Some(arrived) = &self.arrived {
                arrived.notify_one();
            }
        }
        let handle = self.thread.lock().unwrap_or_else(PoisonError::into_inner).take();
        // The last owner may go with a completion, on this very thread, which cannot wait for its own end: that comes by itself.
        let other = handle.filter(|handle| handle.thread().id() != threads::current().id());
        match other.map(JoinHandle::join) {
            None => Ok(()),
            Some(Ok(answer)) => answer,
            Some(Err(_)) => Err(JournalError::Stopped),
        }
    }

    fn send(&self, command: Command) -> Result<(), JournalError> {
        match self.queue.lock().unwrap_or_else(PoisonError::into_inner).as_ref() {
            Some(sender) => sender.send(command).map_err(|_| JournalError::Stopped)?,
            None => return Err(JournalError::Stopped),
        }
        if let Some(arrived) = &self.arrived {
            arrived.notify_one();
        }
        Ok(())
    }
}

impl Drop for GroupCommit {
    fn drop(&mut self) {
        if let Err(error) = self.stop() {
            tracing::warn!(%error, "journal was not stopped in order");
        }
    }
}

/// The working half of a driven group commit.
pub struct DrivenCommit {
    committer: Committer,
    arrived: Arc<Notify>,
}

impl DrivenCommit {
    /// Waits until there may be something to do. May be dropped midway.
    pub async fn arrived(&mut self) {
        self.arrived.notified().await;
    }

    /// Does everything that has come in, batch by batch, and tells each submitter; `false` once it was stopped, or failed to stop.
    pub fn work_off(&mut self) -> bool {
        loop {
            let next = self.committer.next.take();
            match next.or_else(|| self.committer.receiver.try_recv().ok()) {
                None => return true,
                Some(Command::Stop) => {
                    if let Err(error) = self.committer.close() {
                        tracing::warn!(%error, "journal was not stopped in order");
                    }
                    return false;
                }
                Some(command) => self.committer.serve(command),
            }
        }
    }
}

struct Committer {
    journal: Journal,
    receiver: Receiver<Command>,
    /// Taken from the queue and not fitting the batch before it.
    next: Option<Command>,
}

impl Committer {
    fn run(mut self) -> Result<(), JournalError> {
        loop {
            match self.take() {
                // Dropped behind it, the journal is closed.
                Some(Command::Stop) | None => return self.close(),
                Some(command) => self.serve(command),
            }
        }
    }

    fn serve(&mut self, command: Command) {
        match command {
            Command::Append(first, permit) => self.commit(first, permit),
            Command::With(task, _permit) => {
                if catch_unwind(AssertUnwindSafe(|| task(&mut self.journal))).is_err() {
                    tracing::error!("a task on the journal's thread panicked");
                }
            }
            // Whoever takes commands ends by it, and hands none on.
            Command::Stop => {}
        }
    }

    fn take(&mut self) -> Option<Command> {
        if let Some(command) = self.next.take() {
            return Some(command);
        }
        if !self.journal.is_marked() {
            match self.receiver.recv_timeout(IDLE) {
                Ok(command) => return Some(command),
                Err(RecvTimeoutError::Disconnected) => return None,
                Err(RecvTimeoutError::Timeout) => {
                    // A failure has made the journal read-only and was logged; the next append answers it.
                    let _ = self.journal.mark_idle();
                }
            }
        }
        self.receiver.recv().ok()
    }

    /// Appends `first` and whatever else waits already and fits, then tells each in order.
    fn commit(&mut self, first: Submission, permit: OwnedSemaphorePermit) {
        let purpose = first.purpose;
        let limit = self.journal.batch_bytes_max() as u64;
        let mut length = batch_bytes(&first.drafts);
        let mut waiting = vec![(first.drafts.len(), first.done)];
        let mut drafts = first.drafts;
        let mut permits = vec![permit];
        // Drafts that the journal will refuse go alone, so that nobody else's fail with them.
        let is_alone = self.journal.check_drafts(&drafts).is_err();
        while !is_alone && let Ok(command) = self.receiver.try_recv() {
            match command {
                Command::Append(submission, permit)
                    if submission.purpose == purpose
                        && length + batch_bytes(&submission.drafts) <= limit
                        && self.journal.check_drafts(&submission.drafts).is_ok() =>
                {
                    length += batch_bytes(&submission.drafts);
                    waiting.push((submission.drafts.len(), submission.done));
                    drafts.extend(submission.drafts);
                    permits.push(permit);
                }
                other => {
                    self.next = Some(other);
                    break;
                }
            }
        }
        let mut answer = self.journal.append(&drafts, purpose);
        drop(drafts);
        drop(permits);
        for (count, done) in waiting {
            let own = match &mut answer {
                Ok(places) => Ok(places.drain(..count).collect()),
                Err(error) => Err(error.clone()),
            };
            if catch_unwind(AssertUnwindSafe(|| done(own))).is_err() {
                tracing::error!("a completion on the journal's thread panicked");
            }
        }
    }

    fn close(&mut self) -> Result<(), JournalError> {
        match self.journal.mark_idle() {
            // Nothing that was acknowledged depends on the mark, and the failure was reported when it happened.
            Err(JournalError::ReadOnly { .. }) => Ok(()),
            answer => answer,
        }
    }
}

fn units(drafts: &[Draft]) -> u32 {
    let units = (batch_bytes(drafts) as usize)
        .div_ceil(QUEUE_UNIT_BYTES)
        .min(QUEUE_BYTES_MAX / QUEUE_UNIT_BYTES);
    u32::try_from(units).expect("the queue has fewer units than 2^32")
}
