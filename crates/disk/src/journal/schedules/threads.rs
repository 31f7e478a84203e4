//! Shuttle's threads, lock and queue in the shape that `group_commit` asks for, each with a fault that can be planted.
//!
//! Invariants: without a plant they do what those of `std` do; whether a time-out comes is drawn, as on a slow machine.
//! Not here: what must hold under them (`schedules`).

use shuttle::rand::Rng as _;
use shuttle::sync::mpsc;
use std::cell::Cell;
use std::sync::mpsc::{RecvError, SendError, TryRecvError};
use std::sync::{Arc, PoisonError};
use std::time::Duration;

pub(super) use shuttle::sync::Mutex;
pub(super) use shuttle::thread::{Builder, JoinHandle, current};
pub(super) use std::sync::mpsc::RecvTimeoutError;

/// A bug made on purpose, so that the suite can show that it would see it.
#[derive(Clone, Copy, Debug, Default, PartialEq, Eq)]
pub(super) enum Plant {
    /// None.
    #[default]
    None,
    /// The disk answers a sync without doing it.
    AnswerBeforeSync,
    /// Whoever sees an empty queue goes to sleep without looking again.
    LostWakeUp,
    /// A command is handed over after the sender was told that it is, so one may come behind the order to stop.
    LateCommand,
}

thread_local! {
    /// All threads of a schedule are one to the system, so this holds for a schedule.
    static PLANTED: Cell<Plant> = const { Cell::new(Plant::None) };
}

/// From now on this bug is in.
pub(super) fn plant(plant: Plant) {
    PLANTED.set(plant);
}

fn is_planted(plant: Plant) -> bool {
    PLANTED.get() == plant
}

/// Whoever sleeps before an empty queue, with the plant.
type Sleeper = Arc<std::sync::Mutex<Option<shuttle::thread::Thread>>>;

pub(super) struct Sender<T> {
    queue: mpsc::Sender<T>,
    sleeper: Sleeper,
}

pub(super) struct Receiver<T> {
    queue: mpsc::Receiver<T>,
    sleeper: Sleeper,
}

pub(super) fn channel<T>() -> (Sender<T>, Receiver<T>) {
    let (sender, receiver) = mpsc::channel();
    let sleeper = Sleeper::default();
    let sending = Sender {
        queue: sender,
        sleeper: Arc::clone(&sleeper),
    };
    (
        sending,
        Receiver {
            queue: receiver,
            sleeper,
        },
    )
}

impl<T: Send + 'static> Sender<T> {
    pub(super) fn send(&self, command: T) -> Result<(), SendError<T>> {
        if is_planted(Plant::LateCommand) {
            let queue = self.queue.clone();
            shuttle::thread::spawn(move || drop(queue.send(command)));
            return Ok(());
        }
        self.queue.send(command)?;
        if is_planted(Plant::LostWakeUp) {
            let sleeper = self.sleeper.lock().unwrap_or_else(PoisonError::into_inner).take();
            if let Some(sleeper) = sleeper {
                sleeper.unpark();
            }
        }
        Ok(())
    }
}

impl<T> Receiver<T> {
    pub(super) fn recv(&self) -> Result<T, RecvError> {
        if !is_planted(Plant::LostWakeUp) {
            return self.queue.recv();
        }
        loop {
            match self.queue.try_recv() {
                Ok(command) => return Ok(command),
                Err(TryRecvError::Disconnected) => return Err(RecvError),
                Err(TryRecvError::Empty) => {}
            }
            // Here lies the bug: what is sent now finds nobody asleep.
            shuttle::thread::yield_now();
            *self.sleeper.lock().unwrap_or_else(PoisonError::into_inner) = Some(current());
            shuttle::thread::park();
        }
    }

    pub(super) fn try_recv(&self) -> Result<T, TryRecvError> {
        self.queue.try_recv()
    }

    pub(super) fn recv_timeout(&self, _: Duration) -> Result<T, RecvTimeoutError> {
        match self.queue.try_recv() {
            Ok(command) => Ok(command),
            Err(TryRecvError::Disconnected) => Err(RecvTimeoutError::Disconnected),
            Err(TryRecvError::Empty) if shuttle::rand::thread_rng().r#gen() => Err(RecvTimeoutError::Timeout),
            Err(TryRecvError::Empty) => self.recv().map_err(|_| RecvTimeoutError::Disconnected),
        }
    }
}
