//! The order of appends that are in flight together: the receiving side of a pipeline.
//!
//! A leader sends the next run of entries before the last one is answered, each as a call of its own, and calls may overtake each
//! other. Here each waits for its turn, so that the follower's log sees them in order; out of order it would refuse them, which
//! is safe and slow.
//! Invariants: of the newest term, and of each connection of its leader, one stream is followed at a time, the newest; numbers of a
//! stream begin with 0 and pass one by one. A leader has several connections to one follower: its entries go over one, its heartbeats
//! over another, a stream for each heartbeat, and neither may take the other's place. A call that is dropped before its turn stops
//! its stream: the others miss their deadlines, the leader begins anew.
//! Not here: deadlines (the transport), what an append does (openraft).

use std::collections::BTreeMap;
use std::sync::{Arc, Mutex, PoisonError};
use tokio::sync::watch;

/// Connections of one leader that are followed. It has two at a time, and new ones when the members change; older ones are over.
const CONNECTIONS_MAX: usize = 16;

/// Which append of which stream of which leader.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub struct Turn {
    /// The leader's term; there is one leader in it.
    pub term: u64,
    /// Counts the connections of that leader.
    pub connection: u64,
    /// Counts the streams of that leader, so that a newer one of a connection has a greater number.
    pub stream: u64,
    /// Counts the appends of the stream from 0.
    pub number: u64,
}

struct Following {
    stream: u64,
    /// The number whose turn it is.
    next: Arc<watch::Sender<u64>>,
}

/// Lets the appends of one group pass in order.
#[derive(Default)]
pub struct AppendOrder {
    leader: Mutex<Leader>,
}

/// The leader of the newest term that was heard of: the stream that is followed of each of its connections.
#[derive(Default)]
struct Leader {
    term: u64,
    connections: BTreeMap<u64, Following>,
}

/// It is this append's turn; the next one's comes when `passed` is called.
pub struct Pass {
    number: u64,
    next: Arc<watch::Sender<u64>>,
}

impl Pass {
    /// Lets the next append pass.
    pub fn passed(self) {
        self.next.send_replace(self.number + 1);
    }
}

impl AppendOrder {
    /// Waits until it is `turn`'s turn. May be dropped midway: then those behind it wait in vain.
    /// `None` for an append of an older stream, or one that passed already.
    pub async fn wait(&self, turn: Turn) -> Option<Pass> {
        let next = self.follow(turn)?;
        let mut watched = next.subscribe();
        // The sender lives in `next`, so waiting ends only with the turn or when this is dropped.
        let at = *watched.wait_for(|at| *at >= turn.number).await.ok()?;
        (at == turn.number).then_some(Pass {
            number: turn.number,
            next,
        })
    }

    fn follow(&self, turn: Turn) -> Option<Arc<watch::Sender<u64>>> {
        let mut leader = self.leader.lock().unwrap_or_else(PoisonError::into_inner);
        if turn.term < leader.term {
            return None;
        }
        if turn.term > leader.term {
            *leader = Leader {
                term: turn.term,
                connections: BTreeMap::new(),
            };
        }
        match leader.connections.get(&turn.connection) {
            Some(current) if current.stream > turn.stream => return None,
            Some(current) if current.stream == turn.stream => return Some(Arc::clone(&current.next)),
            _ => {}
        }
        let next = Arc::new(watch::Sender::new(0));
        let following = Following {
            stream: turn.stream,
            next: Arc::clone(&next),
        };
        leader.connections.insert(turn.connection, following);
        if leader.connections.len() > CONNECTIONS_MAX {
            leader.connections.pop_first();
        }
        Some(next)
    }
}

#[cfg(test)]
mod tests {
    use super::{AppendOrder, Turn};
    use std::sync::{Arc, Mutex};

    fn turn(term: u64, stream: u64, number: u64) -> Turn {
        of_connection(1, term, stream, number)
    }

    fn of_connection(connection: u64, term: u64, stream: u64, number: u64) -> Turn {
        Turn {
            term,
            connection,
            stream,
            number,
        }
    }

    #[tokio::test]
    async fn heartbeats_over_their_own_connection_do_not_end_the_stream_of_entries() {
        let order = AppendOrder::default();
        order.wait(turn(1, 1, 0)).await.unwrap().passed();
        for stream in 2..100 {
            order.wait(of_connection(2, 1, stream, 0)).await.unwrap().passed();
        }
        assert!(order.wait(turn(1, 1, 1)).await.is_some());
        assert!(order.wait(of_connection(2, 1, 50, 0)).await.is_none());
    }

    #[tokio::test]
    async fn appends_that_overtook_each_other_pass_in_order() {
        let order = Arc::new(AppendOrder::default());
        let passed = Arc::new(Mutex::new(Vec::new()));
        let mut tasks = Vec::new();
        for number in [3, 1, 4, 0, 2] {
            let (order, passed) = (order.clone(), passed.clone());
            tasks.push(tokio::spawn(async move {
                let pass = order.wait(turn(1, 1, number)).await.unwrap();
                passed.lock().unwrap().push(number);
                pass.passed();
            }));
        }
        for task in tasks {
            task.await.unwrap();
        }
        assert_eq!(*passed.lock().unwrap(), [0, 1, 2, 3, 4]);
    }

    #[tokio::test]
    async fn an_older_stream_and_a_number_that_passed_are_refused() {
        let order = AppendOrder::default();
        order.wait(turn(2, 5, 0)).await.unwrap().passed();
        assert!(order.wait(turn(2, 5, 0)).await.is_none(), "it passed already");
        assert!(order.wait(turn(2, 4, 1)).await.is_none(), "an older stream");
        assert!(order.wait(turn(1, 9, 0)).await.is_none(), "an older leader");
        order.wait(turn(2, 6, 0)).await.unwrap().passed();
        assert!(order.wait(turn(2, 5, 1)).await.is_none(), "a newer one took its place");
        assert!(order.wait(turn(3, 0, 0)).await.is_some(), "a newer leader");
    }

    #[tokio::test]
    async fn a_newer_stream_begins_while_the_older_one_waits() {
        let order = Arc::new(AppendOrder::default());
        let waiting = tokio::spawn({
            let order = order.clone();
            async move { order.wait(turn(1, 1, 7)).await.is_some() }
        });
        tokio::task::yield_now().await;
        assert!(order.wait(turn(1, 2, 0)).await.is_some());
        waiting.abort();
        assert!(waiting.await.unwrap_err().is_cancelled());
    }
}
