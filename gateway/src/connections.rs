//! How many connections a gateway holds, and who goes when somebody new comes.
//!
//! A connection costs memory and a descriptor before anything is known of whoever opened it, so their number has a bound. At the
//! bound a newcomer takes the place of the connection that has said nothing for the longest; where every one has made a request,
//! the newcomer is closed instead.
//! Invariants: a connection that has made a request is never closed for another one; places are given back when a seat is dropped.
//! Not here: how long a connection may be silent or idle (`serve`), when it is parked (`serve::parking`), how much a request may take (`drive::budget`).

use crate::metrics;
use daemon::metrics::Metrics;
use daemon::resources;
use model::limits::HTTP2_WINDOW_BYTES;
use prometheus::{IntCounter, IntGauge};
use std::collections::{BTreeMap, BTreeSet};
use std::sync::{Arc, Mutex, MutexGuard, PoisonError};
use tokio::sync::{Notify, Semaphore};

/// Reckoned for a connection: more than one takes whose poll waits (docs/polls.md), less than one with TLS in the middle of a request.
const CONNECTION_BYTES: u64 = 32 << 10;
/// Connections of clients may take one in so many of the bytes of memory, and as much again what they send ahead by HTTP/2.
const MEMORY_PARTS: u64 = 8;
/// One in so many of the process's descriptors is left for disks, peers and logs.
const DESCRIPTOR_PARTS: u64 = 5;
/// Most connections where the kernel tells neither.
const CONNECTIONS_UNKNOWN: u64 = 10_000;
/// Most wide windows where the kernel does not tell the memory: 256 MiB.
const WIDE_WINDOWS_UNKNOWN: u64 = 128;

/// Most connections that this process should hold, by its memory and its descriptors.
#[must_use]
pub fn connections_max() -> usize {
    let by_memory = resources::memory_bytes().map(|bytes| bytes / MEMORY_PARTS / CONNECTION_BYTES);
    let by_descriptors = resources::descriptors()
        .ok()
        .map(|descriptors| descriptors.max - descriptors.max / DESCRIPTOR_PARTS);
    let known = [by_memory, by_descriptors].into_iter().flatten().min();
    usize::try_from(known.unwrap_or(CONNECTIONS_UNKNOWN)).map_or(usize::MAX, |most| most.max(1))
}

/// Most connections of HTTP/2 that should have a wide window, by the memory of this process: each may hold as much as one is wide, of
/// bodies of which nobody has read anything yet. Bodies behind narrow ones are bounded by the requests that the gates hold.
#[must_use]
pub fn wide_windows_max() -> usize {
    let by_memory = resources::memory_bytes().map(|bytes| bytes / MEMORY_PARTS / u64::from(HTTP2_WINDOW_BYTES));
    let most = usize::try_from(by_memory.unwrap_or(WIDE_WINDOWS_UNKNOWN)).unwrap_or(usize::MAX);
    most.clamp(1, Semaphore::MAX_PERMITS)
}

/// Who sits where, by number; one that was displaced stands nowhere any more.
#[derive(Default)]
struct Seats {
    next: u64,
    /// Who has not made a request yet, the longest first, with how it is told to go.
    silent: BTreeMap<u64, Arc<Notify>>,
    asked: BTreeSet<u64>,
}

/// The connections of a gateway.
pub struct Connections {
    max: usize,
    seats: Mutex<Seats>,
    open: IntGauge,
    parked: IntGauge,
    refused: IntCounter,
    displaced: IntCounter,
}

/// The place of one connection; dropping it gives the place back.
pub struct Seat {
    connections: Arc<Connections>,
    number: u64,
    go: Arc<Notify>,
}

/// Says of a connection that it is parked; dropping it says that it is no longer.
pub struct Parked(IntGauge);

impl Connections {
    /// None yet, at most `max` of them.
    #[must_use]
    pub fn new(max: usize, metrics: &Metrics) -> Arc<Self> {
        Arc::new(Self {
            max,
            seats: Mutex::default(),
            open: metrics.gauge(&metrics::CONNECTIONS).with_label_values::<&str>(&[]),
            parked: metrics
                .gauge(&metrics::CONNECTIONS_PARKED)
                .with_label_values::<&str>(&[]),
            refused: metrics
                .counter(&metrics::CONNECTIONS_TURNED_AWAY)
                .with_label_values(&["new"]),
            displaced: metrics
                .counter(&metrics::CONNECTIONS_TURNED_AWAY)
                .with_label_values(&["silent"]),
        })
    }

    fn seats(&self) -> MutexGuard<'_, Seats> {
        // Each change under the lock is complete on its own, so a panic elsewhere leaves nothing half done.
        self.seats.lock().unwrap_or_else(PoisonError::into_inner)
    }

    /// A place for a newcomer, perhaps that of a silent connection, which is told to go; `None` when everybody has made a request.
    #[must_use]
    pub fn enter(self: &Arc<Self>) -> Option<Seat> {
        let mut seats = self.seats();
        if seats.silent.len() + seats.asked.len() >= self.max {
            let Some((_, longest_silent)) = seats.silent.pop_first() else {
                self.refused.inc();
                return None;
            };
            longest_silent.notify_one();
            self.displaced.inc();
        }
        let (number, go) = (seats.next, Arc::new(Notify::new()));
        seats.next += 1;
        seats.silent.insert(number, Arc::clone(&go));
        self.open.inc();
        Some(Seat {
            connections: Arc::clone(self),
            number,
            go,
        })
    }
}

impl Seat {
    /// The connection has made a request, so it stays.
    pub fn asked(&self) {
        let mut seats = self.connections.seats();
        if seats.silent.remove(&self.number).is_some() {
            seats.asked.insert(self.number);
        }
    }

    /// The connection is parked, until what is returned is dropped.
    #[must_use]
    pub fn parked(&self) -> Parked {
        self.connections.parked.inc();
        Parked(self.connections.parked.clone())
    }

    /// Returns when the connection must go; never once it has made a request. May be dropped midway.
    pub async fn displaced(&self) {
        self.go.notified().await;
    }
}

impl Drop for Seat {
    fn drop(&mut self) {
        self.connections.open.dec();
        let mut seats = self.connections.seats();
        seats.silent.remove(&self.number);
        seats.asked.remove(&self.number);
    }
}

impl Drop for Parked {
    fn drop(&mut self) {
        self.0.dec();
    }
}

#[cfg(test)]
mod tests {
    use super::Connections;
    use daemon::metrics::Metrics;
    use futures_util::FutureExt as _;

    #[test]
    fn a_newcomer_takes_the_place_of_the_longest_silent_and_of_nobody_who_asked() {
        let metrics = Metrics::new();
        let connections = Connections::new(3, &metrics);
        let [first, second, third] = [(); 3].map(|()| connections.enter().unwrap());
        first.asked();
        let fourth = connections.enter().unwrap();
        assert!(second.displaced().now_or_never().is_some());
        assert!(first.displaced().now_or_never().is_none() && third.displaced().now_or_never().is_none());
        // What asks after it was told to go goes all the same.
        second.asked();
        third.asked();
        fourth.asked();
        assert!(connections.enter().is_none(), "all three have asked");
        drop(second);
        assert!(connections.enter().is_none(), "that place was taken already");
        drop(first);
        let fifth = connections.enter().unwrap();
        assert!(fifth.displaced().now_or_never().is_none());
        let page = metrics.encode();
        for line in [
            "gateway_connections 3",
            "gateway_connections_turned_away_total{kind=\"new\"} 2",
            "gateway_connections_turned_away_total{kind=\"silent\"} 1",
        ] {
            assert!(page.contains(line), "{line} is missing in {page}");
        }
    }
}
