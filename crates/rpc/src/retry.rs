//! Retries: only of what surely may be asked again, few, and spread out in time.
//!
//! Invariant: a call of kind `Ambiguous` is never repeated here; whoever can tell a repeat from a second request does that.

use crate::transport::{Peer, RpcError, Transport};
use daemon::clock::Clock;
use daemon::random::Random;
use protocol::frame::{Answer, Call};
use std::time::Duration;

/// How often and how far apart.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub struct RetryPolicy {
    /// Attempts in all, the first included; at least 1.
    pub attempts_max: u32,
    /// The longest pause after the first attempt; doubles with each further one.
    pub pause_first: Duration,
    /// The longest pause of all.
    pub pause_max: Duration,
}

impl Default for RetryPolicy {
    /// Four attempts within about 0.7 s at most: a leader's hand-over is bridged, an outage is not hidden. A guess.
    fn default() -> Self {
        Self {
            attempts_max: 4,
            pause_first: Duration::from_millis(100),
            pause_max: Duration::from_secs(2),
        }
    }
}

impl RetryPolicy {
    /// The pause after `attempts` attempts (counted from 1): uniform up to the doubled bound, so that many callers of one
    /// peer spread out (full jitter, Brooker 2015); `None` when no further attempt is due.
    #[must_use]
    pub fn pause(&self, attempts: u32, random: &Random) -> Option<Duration> {
        if attempts >= self.attempts_max {
            return None;
        }
        let doublings = attempts.saturating_sub(1).min(16);
        Some(random.up_to(self.pause_first.saturating_mul(1 << doublings).min(self.pause_max)))
    }
}

/// Calls `peer`, again when the error's kind is `Busy` or `Unavailable`, until an answer, `policy` or `deadline` ends it.
///
/// `deadline` covers all attempts and pauses. May be dropped midway.
/// Errors: the last attempt's.
pub async fn call_with_retry(
    transport: &dyn Transport,
    clock: &dyn Clock,
    random: &Random,
    policy: &RetryPolicy,
    peer: &Peer,
    call: Call,
    deadline: Duration,
) -> Result<Answer, RpcError> {
    let end = clock.monotonic().saturating_add(deadline);
    let mut attempts = 0;
    loop {
        attempts += 1;
        // A clone of a call copies no bytes.
        let left = end.saturating_sub(clock.monotonic());
        let error = match transport.call(peer, call.clone(), left).await {
            Err(error) if error.kind().is_retryable() => error,
            result => return result,
        };
        match policy.pause(attempts, random) {
            Some(pause) if clock.monotonic().saturating_add(pause) < end => clock.sleep(pause).await,
            _ => return Err(error),
        }
    }
}

#[cfg(test)]
mod tests {
    use super::{RetryPolicy, call_with_retry};
    use crate::transport::{Peer, RpcError, Transport};
    use async_trait::async_trait;
    use bytes::Bytes;
    use daemon::clock::SystemClock;
    use daemon::random::Random;
    use model::error_kind::ErrorKind;
    use model::process::{ProcessId, Role};
    use protocol::frame::{Answer, Call, Method};
    use protocol::wire_error::Failure;
    use std::sync::Mutex;
    use std::time::Duration;

    /// Answers with the given errors in turn, then with success.
    struct Scripted(Mutex<Vec<ErrorKind>>);

    #[async_trait]
    impl Transport for Scripted {
        async fn call(&self, _peer: &Peer, call: Call, _deadline: Duration) -> Result<Answer, RpcError> {
            match self.0.lock().unwrap().pop() {
                Some(kind) => Err(RpcError::Refused(Failure::new(kind, "planted", "planted"))),
                None => Ok(Answer {
                    message: call.message,
                    payload: Bytes::new(),
                }),
            }
        }
    }

    async fn check(errors: &[ErrorKind]) -> (Option<ErrorKind>, usize) {
        let transport = Scripted(Mutex::new(errors.iter().rev().copied().collect()));
        let peer = Peer {
            process: ProcessId {
                role: Role::Node,
                number: 1,
            },
            address: ([127, 0, 0, 1], 1).into(),
        };
        let call = Call {
            method: Method::Ping,
            request_id: 0,
            message: Bytes::new(),
            payload: Bytes::new(),
        };
        let policy = RetryPolicy {
            attempts_max: 3,
            pause_first: Duration::from_micros(10),
            pause_max: Duration::from_micros(20),
        };
        let (clock, random) = (SystemClock::new(), Random::seeded(4));
        let result = call_with_retry(
            &transport,
            &clock,
            &random,
            &policy,
            &peer,
            call,
            Duration::from_secs(30),
        )
        .await;
        (
            result.err().map(|error| error.kind()),
            transport.0.into_inner().unwrap().len(),
        )
    }

    #[tokio::test]
    async fn only_busy_and_unavailable_are_tried_again_and_not_for_ever() {
        assert_eq!(check(&[ErrorKind::Busy, ErrorKind::Unavailable]).await, (None, 0));
        assert_eq!(check(&[ErrorKind::Busy; 5]).await, (Some(ErrorKind::Busy), 2));
        for kind in ErrorKind::ALL.into_iter().filter(|kind| !kind.is_retryable()) {
            assert_eq!(check(&[kind, kind]).await, (Some(kind), 1));
        }
    }

    #[test]
    fn pauses_grow_and_stay_below_their_bound() {
        let policy = RetryPolicy {
            attempts_max: 100,
            ..RetryPolicy::default()
        };
        let random = Random::seeded(9);
        for attempts in 1..100 {
            assert!(policy.pause(attempts, &random).unwrap() <= policy.pause_max);
        }
        assert!(policy.pause(1, &random).unwrap() <= policy.pause_first);
        assert_eq!(policy.pause(100, &random), None);
    }
}
