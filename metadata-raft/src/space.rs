//! What is left of the disk under the log, and what a replica still does with that.
//!
//! A log that cannot be written holds its replicas up, so a replica never writes to the last byte by itself: with little left it hands
//! its leadership over, refuses commands where it leads all the same, and with less still it lets what must be written wait, so
//! that a follower falls behind instead of ending; nor does it take parts of a snapshot. With space again everything goes on by itself.
//! Where the disk is full all the same, since something else took the last bytes faster than anybody looked, or since a quota shows
//! more than it gives, the journal holds what it could not write and tries again, and here it counts as nothing left.
//! The state's store lies on the same disk or on another one: the smaller of what the two have left is what counts.
//! Invariants: nothing is acknowledged that waits; reads go on; the flags change at a `look`, which each write does where little is
//! left, and a worker now and then, so what may be written between two of those is part of the bounds; and when the journal meets a
//! full disk, or is past it.
//! Not here: who looks (`worker::space_keeper`), who holds what could not be written (the journal's group commit).

use disk::{Disk, DiskError};
use kv::seam::Kv;
use std::sync::atomic::{AtomicBool, Ordering};
use std::sync::{Arc, OnceLock, Weak};
use tokio::sync::Notify;

/// The journal refuses below two segments; what its queue holds at that moment must still fit, and as much again between two looks.
const JOURNAL_SEGMENTS: u64 = 2;
const IN_FLIGHT_BYTES: u64 = 64 << 20;

/// The space of a process's log, and of its state.
pub struct Space {
    disk: Arc<dyn Disk>,
    /// The store of the state, once it is known.
    state: OnceLock<Weak<dyn Kv>>,
    short_below_bytes: u64,
    held_below_bytes: u64,
    is_short: AtomicBool,
    is_held: AtomicBool,
    /// A write has met a full disk and none was done since.
    is_full: AtomicBool,
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
            state: OnceLock::new(),
            is_short: AtomicBool::new(false),
            is_held: AtomicBool::new(false),
            is_full: AtomicBool::new(false),
            refuses: AtomicBool::new(false),
            has_ended: AtomicBool::new(false),
            freed: Notify::new(),
        })
    }

    /// Looks at what is left under `state` too from now on, as long as somebody has it open; a second call changes nothing.
    pub fn watch(&self, state: &Arc<dyn Kv>) {
        // Set once, at the start of the process.
        drop(self.state.set(Arc::downgrade(state)));
    }

    /// Asks the disks and brings the flags up to date; answers the bytes that are left on the one with less. Costs a system call each.
    ///
    /// Errors: the log's disk's, and those of the state's.
    pub fn look(&self) -> Result<u64, DiskError> {
        let of_log = self.disk.space()?.free_bytes;
        let of_state = match self.state.get().and_then(Weak::upgrade) {
            Some(state) => state.free_bytes().map_err(|error| DiskError::Io(error.to_string()))?,
            None => None,
        };
        let free_bytes = of_state.map_or(of_log, |of_state| of_state.min(of_log));
        let is_short = free_bytes < self.short_below_bytes;
        self.is_short.store(is_short, Ordering::Release);
        if !is_short && !self.is_full() {
            self.refuses.store(false, Ordering::Release);
        }
        let is_held = free_bytes < self.held_below_bytes;
        if self.is_held.swap(is_held, Ordering::AcqRel) && !is_held {
            self.freed.notify_waiters();
        }
        Ok(free_bytes)
    }

    /// The journal has met a full disk and holds what it could not write, or, with `false`, the disk has taken that. Answers whether it
    /// is to be tried again: until the process stops.
    pub fn met_full(&self, is_full: bool) -> bool {
        let has_changed = self.is_full.swap(is_full, Ordering::AcqRel) != is_full;
        match (has_changed, is_full) {
            (true, true) => {
                tracing::warn!("the disk of the metadata log is full: what was to be written waits for room")
            }
            (true, false) => {
                tracing::info!("the disk of the metadata log takes writes again");
                self.freed.notify_waiters();
            }
            (false, _) => {}
        }
        !self.has_ended.load(Ordering::Acquire)
    }

    fn is_full(&self) -> bool {
        self.is_full.load(Ordering::Acquire)
    }

    /// Whether this replica should not lead.
    #[must_use]
    pub fn is_short(&self) -> bool {
        self.is_short.load(Ordering::Acquire) || self.is_full()
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
        (self.is_held.load(Ordering::Acquire) || self.is_full()) && !self.has_ended.load(Ordering::Acquire)
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
    use bytes::Bytes;
    use disk::SimDisk;
    use futures_util::FutureExt as _;
    use kv::seam::{Batch, Kv, KvError, KvRead, Scan};
    use std::sync::Arc;
    use std::sync::atomic::{AtomicU64, Ordering};

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
    fn a_full_disk_counts_as_nothing_left_whatever_it_shows() {
        let space = Space::new(Arc::new(SimDisk::new(1 << 30)), 8 * MIB);
        space.look().unwrap();
        assert!(space.met_full(true), "it is tried again");
        space.look().unwrap();
        assert!(space.is_short() && space.refuses() && space.is_held() && space.must_wait());
        space.refuse();
        let waiting = space.writable();
        let mut waiting = std::pin::pin!(waiting);
        assert!(waiting.as_mut().now_or_never().is_none());
        space.met_full(false);
        assert!(waiting.as_mut().now_or_never().is_some());
        space.look().unwrap();
        assert!(!space.is_short() && !space.refuses() && !space.is_held());
        space.end();
        assert!(!space.met_full(true), "a process that stops waits for nothing");
        assert!(!space.is_held());
    }

    /// A store of which only the free space is asked.
    struct Little(AtomicU64);

    impl KvRead for Little {
        fn get(&self, _: &[u8]) -> Result<Option<Bytes>, KvError> {
            Ok(None)
        }
        fn scan(&self, _: &Scan) -> Result<Vec<(Bytes, Bytes)>, KvError> {
            Ok(Vec::new())
        }
    }

    impl Kv for Little {
        fn write(&self, _: Batch) -> Result<(), KvError> {
            Ok(())
        }
        fn sync(&self) -> Result<(), KvError> {
            Ok(())
        }
        fn snapshot(&self) -> Box<dyn KvRead + '_> {
            Box::new(Self(AtomicU64::new(0)))
        }
        fn free_bytes(&self) -> Result<Option<u64>, KvError> {
            Ok(Some(self.0.load(Ordering::Relaxed)))
        }
    }

    #[test]
    fn the_states_disk_counts_where_it_has_less() {
        let space = Space::new(Arc::new(SimDisk::new(1 << 30)), 8 * MIB);
        let state = Arc::new(Little(AtomicU64::new(80 * MIB - 1)));
        let watched: Arc<dyn Kv> = state.clone();
        space.watch(&watched);
        assert_eq!(space.look().unwrap(), 80 * MIB - 1);
        assert!(space.is_short() && space.is_held());
        state.0.store(u64::MAX, Ordering::Relaxed);
        assert_eq!(space.look().unwrap(), 1 << 30);
        assert!(!space.is_short() && !space.is_held());
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
