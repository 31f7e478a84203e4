//! How much may wait at a metadata process: commands and queries beyond it are refused at the door.
//!
//! Everything behind the door is bounded by it: openraft's queues, the hand-over to the journal, the threads that read. A refusal
//! is immediate and tells nothing was done, so the caller's pause spares the process instead of filling it.
//! Invariant: what entered leaves when its work has ended, also when nobody waits for the answer any more.
//! Not here: which caller is served first; the byte budget of uploads (gateway).

use crate::metrics;
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
        }
    }

    /// A place for a command of so many bytes; `None` when the room is full.
    #[must_use]
    pub fn enter_command(&self, bytes: usize) -> Option<Place> {
        let units = u32::try_from(bytes.div_ceil(UNIT_BYTES).max(1)).ok()?;
        self.commands.enter(Some((&self.command_bytes, units)))
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
    use daemon::metrics::Metrics;

    #[test]
    fn a_full_room_refuses_and_takes_again_when_somebody_left() {
        let metrics = Metrics::new();
        let room = Room::of(2, 4 << 10, 1, &metrics);
        let first = room.enter_command(1).unwrap();
        let second = room.enter_command(2_000).unwrap();
        assert!(room.enter_command(1).is_none(), "two are inside");
        drop(first);
        assert!(room.enter_command(3_000).is_none(), "too many bytes would be inside");
        let third = room.enter_command(2_048).unwrap();
        drop((second, third));
        assert!(room.enter_command(4_096).is_some());
        assert!(room.enter_command(4_097).is_none(), "larger than the room");
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
}
