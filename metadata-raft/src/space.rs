//! What is left of the disk under the log, and what a replica still does with that.
//!
//! A log that cannot be written ends its replicas for good, so a replica never writes to the last byte: with little left it hands
//! its leadership over, refuses commands where it leads all the same, and with less still it lets what must be written wait, so
//! that a follower falls behind instead of ending. With space again everything goes on by itself.
//! Invariants: nothing is acknowledged that waits; reads go on; the flags change at a `look` alone, which each write does where little
//! is left, and a worker now and then, so what may be written between two of those is part of the bounds.
//! Not here: who looks (`worker::space_keeper`), the journal's own refusal at its reserve, which ends the replicas as any failure does.

use disk::{Disk, DiskError};
use std::sync::Arc;
use std::sync::atomic::{AtomicBool, Ordering};
use tokio::sync::Notify;

/// The journal refuses below two segments; what its queue holds at that moment must still fit, and as much again between two looks.
const JOURNAL_SEGMENTS: u64 = 2;
const IN_FLIGHT_BYTES: u64 = 64 << 20;

/// The space of a process's log.
pub struct Space {
    disk: Arc<dyn Disk>,
    short_below_bytes: u64,
    held_below_bytes: u64,
    is_short: AtomicBool,
    is_held: AtomicBool,
    refuses: AtomicBool,
    has_ended: AtomicBool,
    /// Told when the log may be written again.
    freed: Notify,
}

impl Space {
    /// Of a log with segments of `segment_bytes` on `disk`; taken for roomy until the first look.
    #[must_use]
    pub fn new(disk: Arc<dyn Disk>, segment_bytes: u64) -> Arc<Self> {
        let held_below_bytes = segment_bytes
            .saturating_mul(JOURNAL_SEGMENTS)
            .saturating_add(IN_FLIGHT_BYTES);
        Arc::new(Self {
            disk,
            short_below_bytes: held_below_bytes.saturating_add(segment_bytes),
            held_below_bytes,
            is_short: AtomicBool::new(false),
            is_held: AtomicBool::new(false),
            refuses: AtomicBool::new(false),
            has_ended: AtomicBool::new(false),
            freed: Notify::new(),
        })
    }

    /// Asks the disk and brings the flags up to date; answers the bytes that are left. Costs one system call.
    ///
    /// Errors: the disk's.
    pub fn look(&self) -> Result<u64, DiskError> {
        let free_bytes = self.disk.space()?.free_bytes;
        let is_short = free_bytes < self.short_below_bytes;
        self.is_short.store(is_short, Ordering::Release);
        if !is_short {
            self.refuses.store(false, Ordering::Release);
        }
        let is_held = free_bytes < self.held_below_bytes;
        if self.is_held.swap(is_held, Ordering::AcqRel) && !is_held {
            self.freed.notify_waiters();
        }
        Ok(free_bytes)
    }

    /// Whether this replica should not lead.
    #[must_use]
    pub fn is_short(&self) -> bool {
        self.is_short.load(Ordering::Acquire)
    }

    /// Whether commands are refused where this replica leads.
    #[must_use]
    pub fn refuses(&self) -> bool {
        self.refuses.load(Ordering::Acquire) || self.is_held()
    }

    /// Nobody took the leadership over: commands are refused until there is space.
    pub fn refuse(&self) {
        self.refuses.store(self.is_short(), Ordering::Release);
    }

    /// Whether what must be written waits.
    #[must_use]
    pub fn is_held(&self) -> bool {
        self.is_held.load(Ordering::Acquire) && !self.has_ended.load(Ordering::Acquire)
    }

    /// As `is_held`, after a look of its own where little is left: others may fill the disk faster than somebody looks.
    #[must_use]
    pub fn must_wait(&self) -> bool {
        if self.is_short() && self.look().is_err() {
            // A disk that does not tell fails the write as well, and that is told.
            return false;
        }
        self.is_held()
    }

    /// Returns once the log may be written. May be dropped midway.
    pub async fn writable(&self) {
        loop {
            // Asked for before the look, so that nothing told in between is missed.
            let freed = self.freed.notified();
            if !self.must_wait() {
                return;
            }
            freed.await;
        }
    }

    /// Nothing waits any more: the process stops, and what the journal refuses was never acknowledged.
    pub fn end(&self) {
        self.has_ended.store(true, Ordering::Release);
        self.freed.notify_waiters();
    }
}

#[cfg(test)]
mod tests {
    use super::Space;
    use disk::SimDisk;
    use futures_util::FutureExt as _;
    use std::sync::Arc;

    const MIB: u64 = 1 << 20;

    #[test]
    fn a_replica_gives_up_leading_then_commands_then_writing_and_takes_all_up_again() {
        let disk = SimDisk::new(1 << 30);
        let space = Space::new(Arc::new(disk.clone()), 8 * MIB);
        let states = |capacity: u64| {
            disk.set_capacity_bytes(capacity);
            assert_eq!(space.look().unwrap(), capacity);
            (space.is_short(), space.refuses(), space.is_held())
        };
        assert_eq!(states(88 * MIB), (false, false, false));
        assert_eq!(states(88 * MIB - 1), (true, false, false));
        space.refuse();
        assert_eq!(states(80 * MIB), (true, true, false));
        assert_eq!(states(80 * MIB - 1), (true, true, true));
        let waiting = space.writable();
        let mut waiting = std::pin::pin!(waiting);
        assert!(waiting.as_mut().now_or_never().is_none());
        assert_eq!(states(88 * MIB), (false, false, false));
        assert!(waiting.as_mut().now_or_never().is_some());
        space.refuse();
        assert!(!space.refuses(), "there is room");
    }

    #[test]
    fn a_process_that_stops_waits_for_no_space() {
        let disk = SimDisk::new(0);
        let space = Space::new(Arc::new(disk), 8 * MIB);
        space.look().unwrap();
        assert!(space.writable().now_or_never().is_none());
        space.end();
        assert!(space.writable().now_or_never().is_some());
    }
}
