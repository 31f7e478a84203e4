//! The clock seam: wall time for showing, monotonic time for measuring, and sleeping.
//!
//! `SystemClock` is the machine's, `ManualClock` stands still until a test or a simulation moves it.
//! Invariant: monotonic time never goes back; wall time may jump either way, and nothing but links and tokens expires by it.
//! Not here: a slot's age (metadata-raft), which is what destroys.

use async_trait::async_trait;
use model::time::WallTime;
use rustix::time::{ClockId, Timespec, clock_gettime};
use std::collections::BTreeMap;
use std::sync::{Arc, Mutex, MutexGuard, PoisonError};
use std::time::{Duration, Instant, SystemTime, UNIX_EPOCH};
use tokio::sync::oneshot;

/// Where a process gets its time from.
#[async_trait]
pub trait Clock: Send + Sync + 'static {
    /// The wall clock, in milliseconds since 1970; a clock set before 1970 reads as 0.
    fn wall(&self) -> WallTime;

    /// Time since some fixed moment of this clock; never goes back. Only differences mean anything. Stands still while the machine
    /// is suspended.
    fn monotonic(&self) -> Duration;

    /// How long the machine was suspended since some fixed moment, which monotonic time does not tell. Only differences mean
    /// anything; they may be off by as long as a thread is kept from running.
    fn suspended(&self) -> Duration;

    /// Returns once monotonic time has advanced by `span`. May be dropped midway.
    async fn sleep(&self, span: Duration);
}

/// The machine's own clock.
#[derive(Clone, Copy, Debug)]
pub struct SystemClock {
    origin: Instant,
}

#[allow(
    clippy::disallowed_methods,
    reason = "the one place that reads the system's clocks and waits by them"
)]
impl SystemClock {
    /// A clock whose monotonic time starts at zero now.
    #[must_use]
    pub fn new() -> Self {
        Self { origin: Instant::now() }
    }
}

impl Default for SystemClock {
    fn default() -> Self {
        Self::new()
    }
}

#[allow(
    clippy::disallowed_methods,
    reason = "the one place that reads the system's clocks and waits by them"
)]
#[async_trait]
impl Clock for SystemClock {
    fn wall(&self) -> WallTime {
        let since_epoch = SystemTime::now().duration_since(UNIX_EPOCH).unwrap_or_default();
        WallTime(u64::try_from(since_epoch.as_millis()).unwrap_or(u64::MAX))
    }

    fn monotonic(&self) -> Duration {
        self.origin.elapsed()
    }

    fn suspended(&self) -> Duration {
        // A pause between the two looks like a suspend, never the other way round.
        let running = clock_gettime(ClockId::Monotonic);
        let all = clock_gettime(ClockId::Boottime);
        let nanos = |time: Timespec| i128::from(time.tv_sec) * 1_000_000_000 + i128::from(time.tv_nsec);
        Duration::from_nanos(u64::try_from(nanos(all) - nanos(running)).unwrap_or(0))
    }

    async fn sleep(&self, span: Duration) {
        tokio::time::sleep(span).await;
    }
}

/// A clock that moves only when told; clones share one time.
#[derive(Clone, Debug)]
pub struct ManualClock {
    inner: Arc<Mutex<ManualTime>>,
}

#[derive(Debug)]
struct ManualTime {
    wall_ms: u64,
    monotonic: Duration,
    suspended: Duration,
    /// Who sleeps, by the time to wake at and the order of falling asleep.
    sleepers: BTreeMap<(Duration, u64), oneshot::Sender<()>>,
    sleepers_ever: u64,
}

impl ManualClock {
    /// A clock that shows `wall` and whose monotonic time is zero.
    #[must_use]
    pub fn new(wall: WallTime) -> Self {
        let time = ManualTime {
            wall_ms: wall.0,
            monotonic: Duration::ZERO,
            suspended: Duration::ZERO,
            sleepers: BTreeMap::new(),
            sleepers_ever: 0,
        };
        Self {
            inner: Arc::new(Mutex::new(time)),
        }
    }

    /// Moves both times forward by `span` and wakes, in order of their times, those whose sleep is over.
    pub fn advance(&self, span: Duration) {
        let mut time = self.time();
        time.monotonic = time.monotonic.saturating_add(span);
        time.wall_ms = time
            .wall_ms
            .saturating_add(u64::try_from(span.as_millis()).unwrap_or(u64::MAX));
        let first_later = (time.monotonic.saturating_add(Duration::from_nanos(1)), 0);
        let later = time.sleepers.split_off(&first_later);
        let due = std::mem::replace(&mut time.sleepers, later);
        drop(time);
        for sleeper in due.into_values() {
            // A sleeper that was dropped in the meantime has nobody left to wake.
            let _ = sleeper.send(());
        }
    }

    /// Sets the wall clock, forwards or backwards, and leaves monotonic time alone.
    pub fn set_wall(&self, wall: WallTime) {
        self.time().wall_ms = wall.0;
    }

    /// Lets `span` pass as a suspended machine does: wall time moves on, monotonic time stands still, nobody wakes.
    pub fn suspend(&self, span: Duration) {
        let mut time = self.time();
        time.suspended = time.suspended.saturating_add(span);
        time.wall_ms = time
            .wall_ms
            .saturating_add(u64::try_from(span.as_millis()).unwrap_or(u64::MAX));
    }

    /// How many sleep at this moment, those dropped since included until their time comes.
    #[must_use]
    pub fn sleepers(&self) -> usize {
        self.time().sleepers.len()
    }

    fn time(&self) -> MutexGuard<'_, ManualTime> {
        // Each change under the lock is complete on its own, so a panic elsewhere leaves nothing half done.
        self.inner.lock().unwrap_or_else(PoisonError::into_inner)
    }
}

#[async_trait]
impl Clock for ManualClock {
    fn wall(&self) -> WallTime {
        WallTime(self.time().wall_ms)
    }

    fn monotonic(&self) -> Duration {
        self.time().monotonic
    }

    fn suspended(&self) -> Duration {
        self.time().suspended
    }

    async fn sleep(&self, span: Duration) {
        let woken = {
            let mut time = self.time();
            if span.is_zero() {
                return;
            }
            let (wake, woken) = oneshot::channel();
            let key = (time.monotonic.saturating_add(span), time.sleepers_ever);
            time.sleepers_ever += 1;
            time.sleepers.insert(key, wake);
            woken
        };
        if woken.await.is_err() {
            // The clock itself is gone, so its time will never come.
            std::future::pending::<()>().await;
        }
    }
}

/// Waits `span` of a simulated runtime's own time: what a disk takes there. Zero returns at once.
#[allow(
    clippy::disallowed_methods,
    reason = "the one place that reads the system's clocks and waits by them"
)]
pub async fn simulated_wait(span: Duration) {
    if !span.is_zero() {
        tokio::time::sleep(span).await;
    }
}

/// How long until the next whole multiple of `period` by the wall clock: whoever waits so, in all processes whose clocks agree, wakes at
/// the same moment, and an idle machine once for all of them. Never longer than a period, nor shorter than half of one, whatever the
/// clock shows.
#[must_use]
pub fn until_multiple(wall: WallTime, period: Duration) -> Duration {
    let period_ms = u64::try_from(period.as_millis()).unwrap_or(u64::MAX).max(1);
    let past = Duration::from_millis(wall.0 % period_ms);
    period.saturating_sub(past).max(period / 2)
}

#[cfg(test)]
mod tests {
    use super::{Clock, ManualClock, SystemClock, until_multiple};
    use model::time::WallTime;
    use std::time::Duration;

    #[tokio::test]
    async fn sleepers_wake_when_their_time_has_come_and_not_before() {
        let clock = ManualClock::new(WallTime(1_000));
        let short = tokio::spawn({
            let clock = clock.clone();
            async move { clock.sleep(Duration::from_secs(1)).await }
        });
        let long = tokio::spawn({
            let clock = clock.clone();
            async move { clock.sleep(Duration::from_secs(2)).await }
        });
        while clock.sleepers() < 2 {
            tokio::task::yield_now().await;
        }
        clock.advance(Duration::from_secs(1));
        short.await.unwrap();
        assert!(!long.is_finished());
        assert_eq!(clock.sleepers(), 1);
        clock.advance(Duration::from_secs(1));
        long.await.unwrap();
        assert_eq!(
            (clock.monotonic(), clock.wall()),
            (Duration::from_secs(2), WallTime(3_000))
        );
    }

    #[test]
    fn two_who_wait_so_meet_after_two_periods_and_no_clock_makes_them_late() {
        let period = Duration::from_millis(180);
        for began in 0..400 {
            let mut at = began;
            for _ in 0..2 {
                let wait = until_multiple(WallTime(at), period);
                assert!(wait >= period / 2 && wait <= period, "{at}: {wait:?}");
                at += u64::try_from(wait.as_millis()).unwrap();
            }
            assert_eq!(at % 180, 0, "begun at {began}");
        }
        assert_eq!(until_multiple(WallTime(u64::MAX), Duration::ZERO), Duration::ZERO);
    }

    #[test]
    fn a_wall_clock_that_jumps_back_leaves_monotonic_time_alone() {
        let clock = ManualClock::new(WallTime(10_000));
        clock.advance(Duration::from_millis(5));
        clock.set_wall(WallTime(3));
        assert_eq!(
            (clock.monotonic(), clock.wall()),
            (Duration::from_millis(5), WallTime(3))
        );
    }

    #[test]
    fn a_suspend_is_seen_beside_a_monotonic_time_that_stood_still() {
        let clock = ManualClock::new(WallTime(1_000));
        clock.advance(Duration::from_secs(1));
        clock.suspend(Duration::from_secs(60));
        assert_eq!(
            (clock.monotonic(), clock.suspended(), clock.wall()),
            (Duration::from_secs(1), Duration::from_secs(60), WallTime(62_000))
        );
    }

    /// Machines of tests are not suspended, so both looks tell the same but for pauses between the two clocks.
    #[test]
    fn the_system_tells_for_how_long_it_was_suspended() {
        let clock = SystemClock::new();
        let least = |looks: usize| (0..looks).map(|_| clock.suspended()).min().unwrap();
        let off = least(1_000).abs_diff(least(1_000));
        assert!(off < Duration::from_secs(1), "{off:?}");
    }

    #[test]
    fn the_system_clock_never_goes_back() {
        let clock = SystemClock::new();
        let first = clock.monotonic();
        assert!(clock.monotonic() >= first);
        assert!(clock.wall() > WallTime(1_600_000_000_000));
    }
}
