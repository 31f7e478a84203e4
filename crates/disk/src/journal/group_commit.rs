//! Group commit: one thread owns a journal, and what arrives while one sync runs is the next batch.
//!
//! Place in the picture: between async code and the blocking journal; decisions 0009, 0010 and 0054.
//! Invariants: completions come in the order of submission; nobody waits for company; the queue is bounded in bytes; a submission
//! lies in one batch; closures run between batches, in order with them. Where a full disk is waited for, whatever is to be written
//! behind the batch that it refused waits too, inside the queue's bound, so nothing is written before what came earlier.
//! Not here: what the records mean. `schedules` compiles this very file once more, over threads whose schedules it chooses; so
//! threads, locks and queues are named through `super::threads`.

use super::threads::{self, JoinHandle, Mutex, Receiver, RecvTimeoutError, Sender, channel};
use crate::journal::append::{Journal, batch_bytes, check_limits};
use crate::journal::read::JournalReader;
use crate::journal::types::{Draft, JournalError, Place, Purpose};
use std::collections::VecDeque;
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
/// How often a disk that was full is tried again; each try costs some system calls (guess).
const AGAIN_AFTER: Duration = Duration::from_millis(500);

/// Told once what became of a submission: its places, synced, or why not. Runs on the journal's thread, so it must be short and
/// must not wait for the journal.
pub type Completion = Box<dyn FnOnce(Result<Vec<Place>, JournalError>) + Send>;

/// Told `true` each time that a full disk has refused a batch which is held, and answers whether it is to be tried again; told `false`
/// when the disk has taken it. Runs on the journal's thread, so it must be short and must not wait for the journal.
pub type Held = Arc<dyn Fn(bool) -> bool + Send + Sync>;

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
    /// Starts the thread, named `name`. What a full disk refuses is answered `Full`. `Disk` when the system gives no thread.
    pub fn start(journal: Journal, name: &str) -> Result<Self, JournalError> {
        Self::start_with(journal, name, None)
    }

    /// As `start`, but what a full disk refuses is not answered: it is tried again until the disk takes it, with everything behind it
    /// waiting, as long as `held` says so. For whoever can neither do without a record nor write a later one before it. Closures do not
    /// wait then, since they may be what makes room. Where `held` gives up, or at a stop, what was held is answered `Full`, what waited
    /// behind it and whatever comes later `Stopped`.
    pub fn start_holding(journal: Journal, name: &str, held: Held) -> Result<Self, JournalError> {
        Self::start_with(journal, name, Some(held))
    }

    fn start_with(journal: Journal, name: &str, held: Option<Held>) -> Result<Self, JournalError> {
        let (sender, receiver) = channel();
        let reader = journal.reader();
        let batch_bytes_max = journal.batch_bytes_max();
        let thread = threads::Builder::new()
            .name(name.to_owned())
            .spawn(move || Committer::new(journal, receiver, held).run())
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
        Self::driven_with(journal, None)
    }

    /// As `start_holding`, driven.
    #[must_use]
    pub fn driven_holding(journal: Journal, held: Held) -> (Self, DrivenCommit) {
        Self::driven_with(journal, Some(held))
    }

    fn driven_with(journal: Journal, held: Option<Held>) -> (Self, DrivenCommit) {
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
        let committer = Committer::new(journal, receiver, held);
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

    /// Runs `task` on the journal's thread, after everything submitted before it and before everything after it; while a batch is held
    /// it runs before that.
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
    /// What a full disk holds is tried once more first.
    pub fn work_off(&mut self) -> bool {
        loop {
            match self.committer.release() {
                Release::Held => return true,
                Release::Stopped => return self.close(),
                Release::Free => {}
            }
            match self.committer.arrived() {
                None => return true,
                Some(Command::Stop) => return self.close(),
                Some(command) => self.committer.serve(command),
            }
        }
    }

    /// Whether a full disk holds something back: then `work_off` is due again after a while, also when nothing arrives.
    #[must_use]
    pub fn is_held(&self) -> bool {
        self.committer.batch.is_some()
    }

    fn close(&mut self) -> bool {
        if let Err(error) = self.committer.close() {
            tracing::warn!(%error, "journal was not stopped in order");
        }
        false
    }
}

/// Submissions that are written together.
struct Batch {
    drafts: Vec<Draft>,
    purpose: Purpose,
    /// How many of the drafts are whose.
    waiting: Vec<(usize, Completion)>,
    permits: Vec<OwnedSemaphorePermit>,
}

impl Batch {
    fn tell(self, mut answer: Result<Vec<Place>, JournalError>) {
        drop(self.drafts);
        drop(self.permits);
        for (count, done) in self.waiting {
            let own = match &mut answer {
                Ok(places) => Ok(places.drain(..count).collect()),
                Err(error) => Err(error.clone()),
            };
            if catch_unwind(AssertUnwindSafe(|| done(own))).is_err() {
                tracing::error!("a completion on the journal's thread panicked");
            }
        }
    }
}

/// What became of a held batch.
enum Release {
    /// There is none any more.
    Free,
    /// The disk does not take it yet.
    Held,
    /// It was given up, since the journal stops.
    Stopped,
}

struct Committer {
    journal: Journal,
    receiver: Receiver<Command>,
    /// Taken from the queue and not done yet, in order: what did not fit a batch, or came while one was held.
    behind: VecDeque<Command>,
    /// Asked about batches that a full disk holds back; without it they are answered.
    held: Option<Held>,
    /// The batch that a full disk holds back.
    batch: Option<Batch>,
}

impl Committer {
    fn new(journal: Journal, receiver: Receiver<Command>, held: Option<Held>) -> Self {
        Self {
            journal,
            receiver,
            behind: VecDeque::new(),
            held,
            batch: None,
        }
    }

    fn run(mut self) -> Result<(), JournalError> {
        loop {
            match self.release() {
                Release::Free => {}
                Release::Stopped => return self.close(),
                Release::Held => {
                    // Whatever comes, and the time that passes without, is an occasion to try again.
                    match self.receiver.recv_timeout(AGAIN_AFTER) {
                        Ok(command) => self.behind.push_back(command),
                        Err(RecvTimeoutError::Disconnected) => self.behind.push_back(Command::Stop),
                        Err(RecvTimeoutError::Timeout) => {}
                    }
                    continue;
                }
            }
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

    /// What has come already, in order.
    fn arrived(&mut self) -> Option<Command> {
        self.behind.pop_front().or_else(|| self.receiver.try_recv().ok())
    }

    fn take(&mut self) -> Option<Command> {
        if let Some(command) = self.behind.pop_front() {
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
        let limit = self.journal.batch_bytes_max() as u64;
        let mut length = batch_bytes(&first.drafts);
        let mut batch = Batch {
            purpose: first.purpose,
            waiting: vec![(first.drafts.len(), first.done)],
            drafts: first.drafts,
            permits: vec![permit],
        };
        // Drafts that the journal will refuse go alone, so that nobody else's fail with them.
        let is_alone = self.journal.check_drafts(&batch.drafts).is_err();
        while !is_alone && let Some(command) = self.arrived() {
            match command {
                Command::Append(submission, permit)
                    if submission.purpose == batch.purpose
                        && length + batch_bytes(&submission.drafts) <= limit
                        && self.journal.check_drafts(&submission.drafts).is_ok() =>
                {
                    length += batch_bytes(&submission.drafts);
                    batch.waiting.push((submission.drafts.len(), submission.done));
                    batch.drafts.extend(submission.drafts);
                    batch.permits.push(permit);
                }
                other => {
                    self.behind.push_front(other);
                    break;
                }
            }
        }
        self.write(batch);
    }

    /// Appends a batch and tells its submitters, or holds it.
    fn write(&mut self, batch: Batch) {
        match self.append(&batch) {
            Err(JournalError::Full) if self.held.is_some() => self.batch = Some(batch),
            answer => batch.tell(answer),
        }
    }

    /// Appends a batch. Where a full disk is waited for, nothing may be written behind a batch that failed otherwise, also not when the
    /// disk could just not tell what it has left.
    fn append(&mut self, batch: &Batch) -> Result<Vec<Place>, JournalError> {
        match self.journal.append(&batch.drafts, batch.purpose) {
            Err(JournalError::Disk(cause)) if self.held.is_some() => Err(self.journal.end_writing(cause)),
            answer => answer,
        }
    }

    /// Takes in what comes while a batch is held. Closures do not wait: they may be what makes room.
    fn gather(&mut self) {
        let mut waiting = VecDeque::new();
        while let Some(command) = self.arrived() {
            match command {
                Command::With(..) => self.serve(command),
                other => waiting.push_back(other),
            }
        }
        self.behind = waiting;
    }

    /// Tries a held batch once more. When that fails it may be given up, with all that waits behind it.
    fn release(&mut self) -> Release {
        let Some(batch) = self.batch.take() else {
            return Release::Free;
        };
        self.gather();
        let answer = self.append(&batch);
        let is_refused = answer == Err(JournalError::Full);
        let is_wanted = self.held.as_ref().is_some_and(|held| held(is_refused));
        if !is_refused {
            batch.tell(answer);
            return Release::Free;
        }
        if is_wanted && !self.behind.iter().any(|command| matches!(command, Command::Stop)) {
            self.batch = Some(batch);
            return Release::Held;
        }
        batch.tell(answer);
        // Also what came after the last look: nobody takes commands any more.
        while let Some(command) = self.arrived() {
            // A closure that is dropped tells its caller `Stopped` too.
            if let Command::Append(submission, _permit) = command
                && catch_unwind(AssertUnwindSafe(|| (submission.done)(Err(JournalError::Stopped)))).is_err()
            {
                tracing::error!("a completion on the journal's thread panicked");
            }
        }
        Release::Stopped
    }

    fn close(&mut self) -> Result<(), JournalError> {
        match self.journal.mark_idle() {
            // Nothing that was acknowledged depends on the mark, and the failure was reported when it happened.
            Err(JournalError::ReadOnly { .. }) => Ok(()),
            // Nor does it where a full disk was waited for in vain.
            Err(JournalError::Full) if self.held.is_some() => Ok(()),
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
