//! How much may wait at a metadata process: commands and queries beyond it are refused at the door.
//!
//! Everything behind the door is bounded by it: openraft's queues, the hand-over to the journal, the threads that read. A refusal
//! is immediate and tells nothing was done, so the caller's pause spares the process instead of filling it. Entries that come from
//! leaders elsewhere wait for their place, in their order, and keep it until they are synced.
//! So what was submitted to the log and is not synced is at most what is let be unsynced where a command enters, the commands inside,
//! and the entries inside; a few votes, marks and one group's log that is carried forward come on top.
//! Invariant: what entered leaves when its work has ended, also when nobody waits for the answer any more.
//! Not here: which caller is served first; the byte budget of uploads (gateway).

use crate::metrics;
use crate::raft::unsynced::Unsynced;
use daemon::metrics::Metrics;
use prometheus::{IntCounter, IntGauge};
use std::sync::Arc;
use tokio::sync::{OwnedSemaphorePermit, Semaphore};

/// Commands that wait at once, over all groups. A guess: about half a second of commits on two cores.
pub const COMMANDS_MAX: usize = 4_096;
/// Their bytes, over all groups: as much as the journal's own queue holds.
pub const COMMAND_BYTES_MAX: usize = 32 << 20;
/// Queries that are being answered at once, over all groups. A guess: as commands.
pub const QUERIES_MAX: usize = 4_096;
/// Entries of leaders elsewhere that are being written, in bytes over all groups: two pipelines to one follower (`network`). What is
/// longer than all of it enters alone.
pub const APPEND_BYTES_MAX: usize = 32 << 20;
/// No command enters while so much of the log is not synced, in bytes over all groups: as much as the journal's own queue holds.
pub const UNSYNCED_BYTES_MAX: usize = 32 << 20;
/// Bytes are counted in units of this, and a command counts for one at least.
const UNIT_BYTES: usize = 1024;

/// What one kind of request may take.
struct Door {
    count: Arc<Semaphore>,
    inside: IntGauge,
    refused: IntCounter,
}

/// The room of a process; shared by its groups.
pub struct Room {
    commands: Door,
    command_bytes: Arc<Semaphore>,
    queries: Door,
    append_bytes: Arc<Semaphore>,
    append_bytes_max: usize,
    unsynced_bytes_max: usize,
}

/// A place of entries; dropping it leaves.
pub struct AppendPlace {
    _permit: OwnedSemaphorePermit,
}

/// A place in the room; dropping it leaves.
pub struct Place {
    _permits: [Option<OwnedSemaphorePermit>; 2],
    inside: IntGauge,
}

impl Drop for Place {
    fn drop(&mut self) {
        self.inside.dec();
    }
}

impl Door {
    fn new(kind: &str, count: usize, metrics: &Metrics) -> Self {
        Self {
            count: Arc::new(Semaphore::new(count)),
            inside: metrics.gauge(&metrics::WAITING).with_label_values(&[kind]),
            refused: metrics.counter(&metrics::REFUSED).with_label_values(&[kind]),
        }
    }

    fn enter(&self, bytes: Option<(&Arc<Semaphore>, u32)>) -> Option<Place> {
        let entered = || {
            let one = Arc::clone(&self.count).try_acquire_owned().ok()?;
            let more = match bytes {
                Some((semaphore, units)) => Some(Arc::clone(semaphore).try_acquire_many_owned(units).ok()?),
                None => None,
            };
            Some([Some(one), more])
        };
        let Some(permits) = entered() else {
            self.refused.inc();
            return None;
        };
        self.inside.inc();
        Some(Place {
            _permits: permits,
            inside: self.inside.clone(),
        })
    }
}

impl Room {
    /// An empty room of the sizes above that reports to `metrics`.
    #[must_use]
    pub fn new(metrics: &Metrics) -> Self {
        Self::of(COMMANDS_MAX, COMMAND_BYTES_MAX, QUERIES_MAX, metrics)
    }

    /// An empty room of other sizes; for tests.
    #[must_use]
    pub fn of(commands: usize, command_bytes: usize, queries: usize, metrics: &Metrics) -> Self {
        Self {
            commands: Door::new("command", commands, metrics),
            command_bytes: Arc::new(Semaphore::new(command_bytes / UNIT_BYTES)),
            queries: Door::new("query", queries, metrics),
            append_bytes: Arc::new(Semaphore::new(APPEND_BYTES_MAX / UNIT_BYTES)),
            append_bytes_max: APPEND_BYTES_MAX,
            unsynced_bytes_max: UNSYNCED_BYTES_MAX,
        }
    }

    /// The same for other amounts of the log; for tests. Both are multiples of a KiB.
    #[must_use]
    pub fn with_log(mut self, append_bytes_max: usize, unsynced_bytes_max: usize) -> Self {
        self.append_bytes = Arc::new(Semaphore::new(append_bytes_max / UNIT_BYTES));
        self.append_bytes_max = append_bytes_max;
        self.unsynced_bytes_max = unsynced_bytes_max;
        self
    }

    /// A place for a command of so many bytes; `None` when the room is full, or when so much of the log is `unsynced` that nothing may
    /// come on top.
    #[must_use]
    pub fn enter_command(&self, bytes: usize, unsynced: &Unsynced) -> Option<Place> {
        if unsynced.bytes() >= self.unsynced_bytes_max {
            self.commands.refused.inc();
            return None;
        }
        let units = u32::try_from(bytes.div_ceil(UNIT_BYTES).max(1)).ok()?;
        self.commands.enter(Some((&self.command_bytes, units)))
    }

    /// Waits for a place for entries of so many bytes; they keep it until they are synced. May be dropped midway.
    pub async fn enter_append(&self, bytes: usize) -> AppendPlace {
        let units = bytes.min(self.append_bytes_max).div_ceil(UNIT_BYTES).max(1);
        let units = u32::try_from(units).expect("the room has fewer units than 2^32");
        let permit = Arc::clone(&self.append_bytes).acquire_many_owned(units).await;
        AppendPlace {
            _permit: permit.expect("the room is never closed"),
        }
    }

    /// A place for a query; `None` when the room is full.
    #[must_use]
    pub fn enter_query(&self) -> Option<Place> {
        self.queries.enter(None)
    }
}

#[cfg(test)]
mod tests {
    use super::Room;
    use crate::raft::unsynced::Unsynced;
    use daemon::metrics::Metrics;
    use futures_util::FutureExt as _;

    #[test]
    fn a_full_room_refuses_and_takes_again_when_somebody_left() {
        let metrics = Metrics::new();
        let room = Room::of(2, 4 << 10, 1, &metrics);
        let unsynced = Unsynced::default();
        let first = room.enter_command(1, &unsynced).unwrap();
        let second = room.enter_command(2_000, &unsynced).unwrap();
        assert!(room.enter_command(1, &unsynced).is_none(), "two are inside");
        drop(first);
        assert!(
            room.enter_command(3_000, &unsynced).is_none(),
            "too many bytes would be inside"
        );
        let third = room.enter_command(2_048, &unsynced).unwrap();
        drop((second, third));
        assert!(room.enter_command(4_096, &unsynced).is_some());
        assert!(room.enter_command(4_097, &unsynced).is_none(), "larger than the room");
        let query = room.enter_query().unwrap();
        assert!(room.enter_query().is_none());
        drop(query);
        assert!(room.enter_query().is_some());
        let text = metrics.encode();
        assert!(
            text.contains("metadata_refused_requests_total{kind=\"command\"} 3"),
            "{text}"
        );
        assert!(text.contains("metadata_waiting_requests{kind=\"command\"} 0"), "{text}");
    }

    #[test]
    fn a_log_that_is_behind_lets_no_command_in() {
        let room = Room::of(2, 4 << 10, 1, &Metrics::new()).with_log(1 << 10, 2_000);
        let unsynced = Unsynced::default();
        unsynced.add(1_999);
        drop(room.enter_command(1, &unsynced).unwrap());
        unsynced.add(1);
        assert!(room.enter_command(1, &unsynced).is_none());
        unsynced.take(1);
        assert!(room.enter_command(1, &unsynced).is_some());
    }

    #[test]
    fn entries_wait_for_their_place_and_one_that_is_longer_than_the_room_enters_alone() {
        let room = Room::of(1, 1 << 10, 1, &Metrics::new()).with_log(4 << 10, 1);
        let long = room.enter_append(1 << 20).now_or_never().unwrap();
        let mut next = std::pin::pin!(room.enter_append(1));
        assert!(next.as_mut().now_or_never().is_none());
        drop(long);
        let next = next.now_or_never().unwrap();
        assert!(room.enter_append(4 << 10).now_or_never().is_none(), "one unit is taken");
        let rest = room.enter_append(3 << 10).now_or_never();
        assert!(rest.is_some());
        drop((next, rest));
    }
}
