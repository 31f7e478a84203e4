//! What the nemesis and wear change and processes feel: lost datagrams, slow disks, disks that refuse reads, clocks that are wrong.
//!
//! Not here: cuts and deaths, which turmoil does; when anything happens (`nemesis`).

use async_trait::async_trait;
use daemon::clock::Clock;
use daemon::random::Random;
use model::id::DiskId;
use model::process::ProcessId;
use model::time::WallTime;
use std::collections::{BTreeMap, BTreeSet};
use std::sync::{Arc, Mutex, MutexGuard, PoisonError};
use std::time::Duration;
use tokio::time::Instant;

/// What every clock of the world shows at its beginning, unless it is wrong.
const BEGINNING: i64 = 1_800_000_000_000;
/// What a batch takes at most on a disk that is well.
const SYNC_MAX: Duration = Duration::from_millis(4);

/// The present faults; clones are the same.
#[derive(Clone, Default)]
pub struct Faults {
    inner: Arc<Mutex<Inner>>,
}

#[derive(Default)]
struct Inner {
    lost_permille: u64,
    slow: BTreeMap<ProcessId, Duration>,
    wrong_ms: BTreeMap<ProcessId, i64>,
    /// Nodes that have opened their disks.
    serving: BTreeSet<ProcessId>,
    unreadable: BTreeSet<(ProcessId, u32)>,
}

impl Faults {
    fn inner(&self) -> MutexGuard<'_, Inner> {
        // Single assignments.
        self.inner.lock().unwrap_or_else(PoisonError::into_inner)
    }

    /// Of a thousand datagrams so many are lost from now on.
    pub fn lose(&self, permille: u64) {
        self.inner().lost_permille = permille;
    }

    /// Whether the next datagram is lost.
    #[must_use]
    pub fn is_lost(&self, random: &Random) -> bool {
        let permille = self.inner().lost_permille;
        permille > 0 && random.below(1_000) < permille
    }

    /// A batch takes up to `span` more on the disks of `process` from now on.
    pub fn slow(&self, process: ProcessId, span: Duration) {
        self.inner().slow.insert(process, span);
    }

    /// Draws what the next batch takes on a disk of `process`.
    #[must_use]
    pub fn latency(&self, process: ProcessId, random: &Random) -> Duration {
        let slow = self.inner().slow.get(&process).copied().unwrap_or_default();
        random.up_to(SYNC_MAX) + random.up_to(slow)
    }

    /// `process` has opened its disks: a device that fails at a start is replaced, and what fails later is found by who reads.
    pub fn serves(&self, process: ProcessId) {
        self.inner().serving.insert(process);
    }

    /// A disk of `process` refuses reads from now on, while its process serves.
    pub fn refuse_reads(&self, process: ProcessId, disk: DiskId) {
        self.inner().unreadable.insert((process, disk.0));
    }

    /// The disks of `process` give what they hold again.
    pub fn read_again(&self, process: ProcessId) {
        self.inner().unreadable.retain(|(of, _)| *of != process);
    }

    /// `process` ended.
    pub fn ended(&self, process: ProcessId) {
        self.inner().serving.remove(&process);
    }

    /// Whether a disk of `process` refuses reads now.
    #[must_use]
    pub fn refuses_reads(&self, process: ProcessId, disk: u32) -> bool {
        let inner = self.inner();
        inner.serving.contains(&process) && inner.unreadable.contains(&(process, disk))
    }

    /// The clock of `process` shows so much more, or less, than it should.
    pub fn set_wrong(&self, process: ProcessId, wrong_ms: i64) {
        self.inner().wrong_ms.insert(process, wrong_ms);
    }

    /// Everything is well from now on, but for clocks that stay wrong.
    pub fn end(&self) {
        let mut inner = self.inner();
        inner.lost_permille = 0;
        inner.slow.clear();
        inner.unreadable.clear();
    }
}

/// The clock of one life of a process: monotonic time is its runtime's own, wall time the world's plus what it is wrong by.
pub struct SimClock {
    process: ProcessId,
    faults: Faults,
    origin: Instant,
}

impl SimClock {
    /// A clock that begins now; made on the process's own runtime.
    #[must_use]
    pub fn new(process: ProcessId, faults: Faults) -> Self {
        Self {
            process,
            faults,
            origin: Instant::now(),
        }
    }
}

#[async_trait]
impl Clock for SimClock {
    fn wall(&self) -> WallTime {
        let since = turmoil::sim_elapsed().unwrap_or_default().as_millis();
        let wrong = self.faults.inner().wrong_ms.get(&self.process).copied().unwrap_or(0);
        let now = BEGINNING + wrong + i64::try_from(since).unwrap_or(0);
        WallTime(u64::try_from(now).unwrap_or(0))
    }

    fn monotonic(&self) -> Duration {
        self.origin.elapsed()
    }

    fn suspended(&self) -> Duration {
        Duration::ZERO
    }

    async fn sleep(&self, span: Duration) {
        tokio::time::sleep(span).await;
    }
}
