//! Workers: the long-running jobs of a process, each with a name, a state, a backlog and its last error.
//!
//! A worker is a loop of steps; the framework runs the loop, waits between steps, backs off after errors and stops it.
//! Invariants: a step is never dropped midway; a worker that panics stays in the registry as `Panicked`; names are unique.
//! Not here: what a worker does (its package), and how the registry is shown (the status and metrics endpoints).

use crate::clock::{Clock, until_multiple};
use crate::shutdown::Shutdown;
use async_trait::async_trait;
use model::time::WallTime;
use serde::{Deserialize, Serialize};
use std::collections::BTreeMap;
use std::sync::{Arc, Mutex, MutexGuard, PoisonError};
use std::time::Duration;
use tokio::sync::Notify;
use tokio::task::JoinHandle;

/// What a step fails with: logged by the framework and shown in the status.
pub type StepError = Box<dyn std::error::Error + Send + Sync>;

/// Wait after the first error in a row; doubles with each further one.
pub const BACKOFF_MIN: Duration = Duration::from_millis(500);
/// Longest wait after an error: a repaired cause is noticed within it.
pub const BACKOFF_MAX: Duration = Duration::from_secs(60);

/// When the next step is due.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub enum Next {
    /// At once: there is more to do.
    Now,
    /// After this time, or when woken.
    After(Duration),
    /// After this time at the latest and half of it at least, at the same moment as others that say so (`until_multiple`), or when woken:
    /// for a look that nothing waits for, which would each wake an idle machine for itself.
    Together(Duration),
    /// When woken.
    WhenWoken,
    /// Never: the work is finished.
    Never,
}

/// A long-running job, cut into steps.
#[async_trait]
pub trait Worker: Send + 'static {
    /// Its name in status and logs: short, stable, unique in the process, such as `scrub disk-3`.
    fn name(&self) -> String;

    /// How many units of work wait, in whatever unit fits its name.
    fn backlog(&self) -> u64;

    /// Does one bounded piece of work. Never dropped midway, so a shutdown waits for it: keep it below a second.
    ///
    /// Errors: shown, logged and backed off from; the step is then run again.
    async fn step(&mut self) -> Result<Next, StepError>;
}

/// What a worker does at the moment.
#[derive(Clone, Copy, Debug, PartialEq, Eq, Serialize, Deserialize)]
pub enum WorkerState {
    /// In a step.
    Busy,
    /// Between steps.
    Idle,
    /// Waiting after an error.
    BackingOff,
    /// Finished, or stopped by the shutdown.
    Stopped,
    /// Ended by a panic: a bug, and a person must look.
    Panicked,
}

/// What the registry knows of one worker.
#[derive(Clone, Debug, PartialEq, Eq, Serialize, Deserialize)]
pub struct WorkerStatus {
    /// Its name.
    pub name: String,
    /// What it does.
    pub state: WorkerState,
    /// How many units of work waited after the last step.
    pub backlog: u64,
    /// Steps that succeeded since the start.
    pub steps: u64,
    /// Steps that failed since the start.
    pub errors: u64,
    /// The last error and when it happened; kept after later successes.
    pub last_error: Option<(WallTime, String)>,
}

/// The workers of one process; clones are the same registry.
#[derive(Clone)]
pub struct Workers {
    inner: Arc<Registry>,
}

struct Registry {
    clock: Arc<dyn Clock>,
    shutdown: Shutdown,
    entries: Mutex<BTreeMap<String, Entry>>,
}

struct Entry {
    status: WorkerStatus,
    task: Option<JoinHandle<()>>,
}

/// Wakes a worker that waits; waking one that is in a step makes it run another.
#[derive(Clone, Debug)]
pub struct Waker {
    notify: Arc<Notify>,
}

impl Waker {
    /// Makes the next step due now.
    pub fn wake(&self) {
        self.notify.notify_one();
    }
}

impl Workers {
    /// An empty registry whose workers wait by `clock` and stop with `shutdown`.
    #[must_use]
    pub fn new(clock: Arc<dyn Clock>, shutdown: Shutdown) -> Self {
        Self {
            inner: Arc::new(Registry {
                clock,
                shutdown,
                entries: Mutex::new(BTreeMap::new()),
            }),
        }
    }

    /// Starts `worker` on the current tokio runtime and returns what wakes it.
    ///
    /// # Panics
    /// When a worker of this name runs already, or outside of a tokio runtime.
    pub fn spawn(&self, worker: impl Worker) -> Waker {
        let name = worker.name();
        let notify = Arc::new(Notify::new());
        let status = WorkerStatus {
            name: name.clone(),
            state: WorkerState::Idle,
            backlog: worker.backlog(),
            steps: 0,
            errors: 0,
            last_error: None,
        };
        let mut entries = self.entries();
        let is_running = entries
            .get(&name)
            .is_some_and(|entry| !matches!(entry.status.state, WorkerState::Stopped | WorkerState::Panicked));
        assert!(!is_running, "two workers are named {name}");
        let task = tokio::spawn(self.clone().supervise(name.clone(), worker, Arc::clone(&notify)));
        entries.insert(
            name,
            Entry {
                status,
                task: Some(task),
            },
        );
        Waker { notify }
    }

    /// What they stop with: for a step that waits for others, which nobody needs any more then.
    #[must_use]
    pub fn shutdown(&self) -> &Shutdown {
        &self.inner.shutdown
    }

    /// What is known of every worker, by name.
    #[must_use]
    pub fn statuses(&self) -> Vec<WorkerStatus> {
        self.entries().values().map(|entry| entry.status.clone()).collect()
    }

    /// Returns once every worker has ended; request the shutdown first. Dropping it midway loses nothing but the waiting.
    pub async fn ended(&self) {
        loop {
            let task = self.entries().values_mut().find_map(|entry| entry.task.take());
            let Some(task) = task else { return };
            // A panic was entered in the registry by the supervisor; here only the end matters.
            let _ = task.await;
        }
    }

    async fn supervise(self, name: String, worker: impl Worker, notify: Arc<Notify>) {
        let steps = tokio::spawn(self.clone().run_steps(name.clone(), worker, notify));
        let state = match steps.await {
            Err(error) if error.is_panic() => {
                tracing::error!(worker = %name, "worker panicked and stays down");
                WorkerState::Panicked
            }
            _ => WorkerState::Stopped,
        };
        self.note(&name, |status| status.state = state);
    }

    async fn run_steps(self, name: String, mut worker: impl Worker, notify: Arc<Notify>) {
        let mut errors_in_a_row = 0_u32;
        while !self.inner.shutdown.is_requested() {
            self.note(&name, |status| status.state = WorkerState::Busy);
            let result = worker.step().await;
            let backlog = worker.backlog();
            let wait = match result {
                Ok(next) => {
                    errors_in_a_row = 0;
                    self.note(&name, |status| {
                        status.steps += 1;
                        status.backlog = backlog;
                        status.state = WorkerState::Idle;
                    });
                    match next {
                        Next::Never => return,
                        Next::Now => None,
                        Next::After(wait) => Some(Some(wait)),
                        Next::Together(period) => Some(Some(until_multiple(self.inner.clock.wall(), period))),
                        Next::WhenWoken => Some(None),
                    }
                }
                Err(error) => {
                    let wait = BACKOFF_MIN
                        .saturating_mul(1 << errors_in_a_row.min(16))
                        .min(BACKOFF_MAX);
                    errors_in_a_row = errors_in_a_row.saturating_add(1);
                    tracing::warn!(worker = %name, %error, wait_ms = wait.as_millis(), "worker backs off");
                    let now = self.inner.clock.wall();
                    self.note(&name, |status| {
                        status.errors += 1;
                        status.backlog = backlog;
                        status.last_error = Some((now, error.to_string()));
                        status.state = WorkerState::BackingOff;
                    });
                    Some(Some(wait))
                }
            };
            match wait {
                // A worker that never waits must not starve the others of its thread.
                None => tokio::task::yield_now().await,
                Some(wait) => self.pause(wait, &notify).await,
            }
        }
    }

    /// Waits until `wait` has passed (for ever when `None`), the worker is woken, or the shutdown is requested.
    async fn pause(&self, wait: Option<Duration>, notify: &Notify) {
        let timer = async {
            match wait {
                Some(wait) => self.inner.clock.sleep(wait).await,
                None => std::future::pending().await,
            }
        };
        tokio::select! {
            () = timer => {}
            () = notify.notified() => {}
            () = self.inner.shutdown.requested() => {}
        }
    }

    fn note(&self, name: &str, change: impl FnOnce(&mut WorkerStatus)) {
        if let Some(entry) = self.entries().get_mut(name) {
            change(&mut entry.status);
        }
    }

    fn entries(&self) -> MutexGuard<'_, BTreeMap<String, Entry>> {
        // Every change under the lock is an assignment of plain fields or one map operation.
        self.inner.entries.lock().unwrap_or_else(PoisonError::into_inner)
    }
}

#[cfg(test)]
mod tests;
