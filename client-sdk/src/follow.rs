//! How whoever follows a drive comes again: at which gateway, and after what pause.
//!
//! A poll that was answered is asked again where it was, after the pause that the answer asks for, if any. One that failed is asked
//! again at the next gateway, after a pause that doubles with each failure and is drawn anew: those who lost a gateway together
//! come to the next one apart.
//! Pure: the caller waits, and gives the drawn numbers. Invariant: no pause after a failure is longer than `PAUSE_MAX`, nor shorter
//! than half of its step.
//! Not here: polls themselves (`changes`), who knows the gateways (a balancer, or whoever follows).

use crate::error::ClientError;
use api::change::PollAnswer;
use std::time::Duration;

/// The step of the first pause; a guess: a gateway that restarts is back within some of these.
const PAUSE_MIN: Duration = Duration::from_secs(1);
/// The longest pause: whoever lost a gateway is back within it once another one is there.
pub const PAUSE_MAX: Duration = Duration::from_secs(10);
/// The longest pause that an answer may ask for: gateways ask for at most 61 s, and a word from elsewhere must not silence a follower.
const BACKOFF_MAX: Duration = Duration::from_secs(120);

/// The way of one follower among gateways.
#[derive(Clone, Debug)]
pub struct Course {
    gateways: usize,
    at: usize,
    failures: u32,
}

impl Course {
    /// Begins at a gateway that `drawn` chooses among so many, of which there is at least one.
    #[must_use]
    pub fn new(gateways: usize, drawn: u64) -> Self {
        let gateways = gateways.max(1);
        Self {
            gateways,
            at: usize::try_from(drawn % gateways as u64).unwrap_or(0),
            failures: 0,
        }
    }

    /// The gateway to ask, counted from 0.
    #[must_use]
    pub fn gateway(&self) -> usize {
        self.at
    }

    /// A poll was answered; how long to wait before the next.
    #[must_use]
    pub fn answered(&mut self, answer: &PollAnswer) -> Duration {
        self.failures = 0;
        Duration::from_secs(answer.backoff.unwrap_or(0)).min(BACKOFF_MAX)
    }

    /// A poll failed; how long to wait before it is asked again. `None` where no gateway would answer it otherwise.
    #[must_use]
    pub fn failed(&mut self, error: &ClientError, drawn: u64) -> Option<Duration> {
        let may_pass = match error {
            // 421: this gateway serves no polls; 500 and more may be a balancer's word for one that is dead.
            ClientError::Refused { status, .. } => matches!(*status, 421 | 429) || *status >= 500,
            ClientError::Broken(_) => true,
            ClientError::Altered(_) | ClientError::Malformed(_) => false,
        };
        if !may_pass {
            return None;
        }
        self.at = (self.at + 1) % self.gateways;
        let step = PAUSE_MAX.min(PAUSE_MIN * (1 << self.failures.min(16)));
        self.failures = self.failures.saturating_add(1);
        let part = drawn as f64 / u64::MAX as f64;
        Some((step / 2 + (step / 2).mul_f64(part)).min(PAUSE_MAX))
    }
}

#[cfg(test)]
mod tests {
    use super::{Course, PAUSE_MAX};
    use crate::error::ClientError;
    use api::change::PollAnswer;
    use std::time::Duration;

    fn refused(status: u16) -> ClientError {
        ClientError::Refused {
            status,
            code: "code".to_owned(),
            detail: "detail".to_owned(),
        }
    }

    fn answer(backoff: Option<u64>) -> PollAnswer {
        PollAnswer {
            changes: false,
            cursor: "cursor".to_owned(),
            events: Vec::new(),
            event_type: None,
            file_id: None,
            timestamp: None,
            backoff,
        }
    }

    #[test]
    fn pauses_double_up_to_ten_seconds_and_half_of_each_is_drawn() {
        let mut course = Course::new(3, 7);
        for step_ms in [1_000, 2_000, 4_000, 8_000, 10_000, 10_000] {
            let step = Duration::from_millis(step_ms);
            let least = course.clone().failed(&refused(503), 0).unwrap();
            let half = course.clone().failed(&refused(503), u64::MAX / 2).unwrap();
            let most = course.failed(&refused(503), u64::MAX).unwrap();
            assert_eq!((least, most), (step / 2, step));
            assert!(least < half && half < most, "{half:?}");
        }
        for _ in 0..100 {
            assert!(course.failed(&refused(503), u64::MAX).unwrap() <= PAUSE_MAX);
        }
        assert_eq!(course.answered(&answer(None)), Duration::ZERO);
        let again = course.failed(&refused(503), u64::MAX).unwrap();
        assert_eq!(again, Duration::from_secs(1), "an answer ends the row of failures");
        assert_eq!(course.answered(&answer(Some(17))), Duration::from_secs(17));
    }

    #[test]
    fn a_failure_leads_to_the_next_gateway_and_an_answer_does_not() {
        let mut course = Course::new(3, 7);
        let mut seen = vec![course.gateway()];
        for _ in 0..3 {
            assert_eq!(course.answered(&answer(None)), Duration::ZERO);
            assert_eq!(Some(&course.gateway()), seen.last());
            assert!(course.failed(&refused(421), 0).is_some());
            seen.push(course.gateway());
        }
        assert_eq!(seen, [1, 2, 0, 1]);
        assert_eq!(Course::new(0, 9).gateway(), 0);
    }

    #[test]
    fn what_every_gateway_refuses_is_not_asked_again() {
        let mut course = Course::new(2, 0);
        for status in [400, 401, 403, 404, 410] {
            assert_eq!(course.failed(&refused(status), 0), None, "{status}");
        }
        assert_eq!(course.failed(&ClientError::Altered("it"), 0), None);
        assert_eq!(course.gateway(), 0);
        for status in [429, 500, 502, 503, 504] {
            assert!(course.failed(&refused(status), 0).is_some(), "{status}");
        }
    }
}
