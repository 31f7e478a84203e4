//! The breaker of one peer: after two missed deadlines in a row its callers are refused at once, but for a probe each second.
//!
//! Pure: the time comes in. Invariants: at most one probe is under way; any answer, a refusal too, closes the breaker.
//! Not here: which errors count as missed (`RpcError`, in `PeerBreakers`); a breaker for each disk (gateway).

use crate::transport::{Peer, RpcError};
use model::process::ProcessId;
use protocol::frame::Method;
use std::collections::BTreeMap;
use std::sync::{Mutex, MutexGuard, PoisonError};
use std::time::Duration;

/// Missed deadlines in a row that open a breaker.
pub const MISSES_TO_OPEN: u32 = 2;
/// How often an open breaker lets a probe through.
pub const PROBE_INTERVAL: Duration = Duration::from_secs(1);

/// The breaker of one peer.
#[derive(Clone, Copy, Debug, Default, PartialEq, Eq)]
pub struct Breaker {
    state: State,
}

#[derive(Clone, Copy, Debug, PartialEq, Eq)]
enum State {
    Closed {
        misses: u32,
    },
    /// `probe_at`: when the next probe is due. A probe under way moves it on, so a lost probe is replaced by the next.
    Open {
        probe_at: Duration,
    },
}

impl Default for State {
    fn default() -> Self {
        Self::Closed { misses: 0 }
    }
}

/// What a breaker says to a call.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub enum Verdict {
    /// Make it.
    Go,
    /// Do not; a probe is due after this time.
    Refuse {
        /// Time until then, above zero.
        probe_in: Duration,
    },
}

impl Breaker {
    /// Whether a call may be made at `now`; the answer `Go` of an open breaker makes the call its probe.
    pub fn ask(&mut self, now: Duration) -> Verdict {
        match &mut self.state {
            State::Closed { .. } => Verdict::Go,
            State::Open { probe_at } if now >= *probe_at => {
                *probe_at = now.saturating_add(PROBE_INTERVAL);
                Verdict::Go
            }
            State::Open { probe_at } => Verdict::Refuse {
                probe_in: probe_at.saturating_sub(now),
            },
        }
    }

    /// The peer answered.
    pub fn answered(&mut self) {
        self.state = State::Closed { misses: 0 };
    }

    /// The peer missed a deadline at `now`, or could not be reached.
    pub fn missed(&mut self, now: Duration) {
        self.state = match self.state {
            State::Closed { misses } if misses + 1 < MISSES_TO_OPEN => State::Closed { misses: misses + 1 },
            State::Closed { .. } => State::Open {
                probe_at: now.saturating_add(PROBE_INTERVAL),
            },
            open @ State::Open { .. } => open,
        };
    }

    /// Whether calls are refused.
    #[must_use]
    pub fn is_open(&self) -> bool {
        matches!(self.state, State::Open { .. })
    }
}

/// The breakers of all peers of a transport.
#[derive(Debug, Default)]
pub(crate) struct PeerBreakers {
    breakers: Mutex<BTreeMap<ProcessId, Breaker>>,
}

impl PeerBreakers {
    /// Asks the peer's breaker; Raft's calls always pass.
    ///
    /// Raft paces itself, its deadlines are shorter than an election, and a second of silence would cost one.
    pub(crate) fn ask(&self, peer: &Peer, method: Method, now: Duration) -> Result<(), RpcError> {
        if is_raft(method) {
            return Ok(());
        }
        match self.breakers().entry(peer.process).or_default().ask(now) {
            Verdict::Go => Ok(()),
            Verdict::Refuse { probe_in } => Err(RpcError::BreakerOpen {
                peer: peer.process,
                probe_in,
            }),
        }
    }

    /// Tells the peer's breaker what became of a call. A lost connection says nothing: the next dial will tell.
    pub(crate) fn tell<T>(&self, peer: &Peer, method: Method, now: Duration, result: &Result<T, RpcError>) {
        match result {
            Ok(_) | Err(RpcError::Refused(_)) => {
                self.breakers().entry(peer.process).or_default().answered();
            }
            Err(RpcError::DeadlineMissed { .. } | RpcError::Unreachable { .. }) if !is_raft(method) => {
                let mut breakers = self.breakers();
                let breaker = breakers.entry(peer.process).or_default();
                let was_open = breaker.is_open();
                breaker.missed(now);
                if breaker.is_open() && !was_open {
                    tracing::warn!(peer = %peer.process, "breaker opened");
                }
            }
            Err(_) => {}
        }
    }

    /// The peers whose breaker is open, ordered.
    pub(crate) fn open(&self) -> Vec<ProcessId> {
        self.breakers()
            .iter()
            .filter(|(_, breaker)| breaker.is_open())
            .map(|(process, _)| *process)
            .collect()
    }

    fn breakers(&self) -> MutexGuard<'_, BTreeMap<ProcessId, Breaker>> {
        // A breaker is one plain value, changed in one assignment.
        self.breakers.lock().unwrap_or_else(PoisonError::into_inner)
    }
}

fn is_raft(method: Method) -> bool {
    matches!(
        method,
        Method::RaftAppend
            | Method::RaftVote
            | Method::RaftPreVote
            | Method::RaftTransfer
            | Method::RaftSnapshot
            | Method::RaftReadIndex
            | Method::RaftHeartbeats
    )
}

#[cfg(test)]
mod tests {
    use super::{Breaker, PROBE_INTERVAL, Verdict};
    use proptest::prelude::{any, prop, proptest};
    use std::time::Duration;

    const fn ms(ms: u64) -> Duration {
        Duration::from_millis(ms)
    }

    #[test]
    fn two_missed_deadlines_open_it_and_a_probe_passes_each_second() {
        let mut breaker = Breaker::default();
        breaker.missed(ms(0));
        assert_eq!(breaker.ask(ms(1)), Verdict::Go);
        breaker.missed(ms(10));
        assert_eq!(breaker.ask(ms(11)), Verdict::Refuse { probe_in: ms(999) });
        assert_eq!(breaker.ask(ms(1_010)), Verdict::Go);
        assert_eq!(breaker.ask(ms(1_011)), Verdict::Refuse { probe_in: ms(999) });
        assert_eq!(breaker.ask(ms(2_010)), Verdict::Go);
        breaker.answered();
        assert_eq!(breaker.ask(ms(2_011)), Verdict::Go);
    }

    #[test]
    fn an_answer_between_two_missed_deadlines_keeps_it_closed() {
        let mut breaker = Breaker::default();
        for _ in 0..10 {
            breaker.missed(ms(0));
            breaker.answered();
        }
        assert!(!breaker.is_open());
    }

    #[derive(Clone, Copy, Debug)]
    enum Event {
        Ask,
        Answered,
        Missed,
    }

    proptest! {
        #[test]
        fn an_open_breaker_lets_at_most_one_call_a_second_through(
            events in prop::collection::vec((0_u64..700, 0_u8..3), 0..200), start in any::<u32>(),
        ) {
            let mut breaker = Breaker::default();
            let mut now = ms(u64::from(start));
            let mut last_probe: Option<Duration> = None;
            for (step, event) in events {
                now += ms(step);
                match [Event::Ask, Event::Answered, Event::Missed][usize::from(event)] {
                    Event::Ask if breaker.is_open() => {
                        if breaker.ask(now) == Verdict::Go {
                            assert!(last_probe.is_none_or(|last| now - last >= PROBE_INTERVAL));
                            last_probe = Some(now);
                        }
                    }
                    Event::Ask => assert_eq!(breaker.ask(now), Verdict::Go),
                    Event::Answered => {
                        breaker.answered();
                        last_probe = None;
                    }
                    Event::Missed => breaker.missed(now),
                }
            }
        }
    }
}
