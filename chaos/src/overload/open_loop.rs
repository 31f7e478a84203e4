//! Load that does not care for answers: requests begin at their times, however many are under way.
//!
//! A client that waits for one answer before it asks again slows down with the server, and so hides what overload does. Here times
//! are drawn beforehand (exponential gaps), and each request has until `DEADLINE` after its time, whenever it was really sent.
//! Invariant: every request that was due is counted once. Not here: what is made of it (`phase`).

use super::line::{Answer, Lines};
use rand_chacha::ChaCha8Rng;
use rand_core::{RngCore, SeedableRng};
use std::sync::Arc;
use std::sync::atomic::{AtomicU64, Ordering};
use std::time::{Duration, Instant};
use tokio::task::JoinSet;

/// QAS-006: p99 of an upload.
pub(super) const DEADLINE: Duration = Duration::from_millis(500);
/// QAS-006: uploads of 4 to 64 KiB.
const SIZES: [usize; 5] = [4 << 10, 8 << 10, 16 << 10, 32 << 10, 64 << 10];
const NOISE_BYTES: usize = 8 << 20;

/// How a request ended.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub(super) enum End {
    /// 2xx in time.
    Good,
    /// 429 or 503; whether it says when to come again.
    Refused { status: u16, says_when: bool },
    /// Another answer.
    Wrong(u16),
    /// No answer in time.
    Late,
    /// The connection broke.
    Broken,
}

/// One request.
#[derive(Clone, Copy, Debug)]
pub(super) struct Shot {
    /// After the start of its run.
    pub(super) due: Duration,
    /// From when it was due.
    pub(super) took: Duration,
    pub(super) end: End,
}

/// What is asked, and of whom.
pub(super) struct Load {
    lines: Lines,
    host: String,
    tokens: Vec<String>,
    noise: Vec<u8>,
    next: AtomicU64,
}

impl Load {
    /// Uploads to the gateway at `host` in the name of whoever `tokens` belong to, in turn.
    pub(super) fn new(host: &str, tokens: Vec<String>, seed: u64) -> anyhow::Result<Self> {
        let mut noise = vec![0; NOISE_BYTES];
        ChaCha8Rng::seed_from_u64(seed).fill_bytes(&mut noise);
        Ok(Self {
            lines: Lines::new(host.parse()?),
            host: host.to_owned(),
            tokens,
            noise,
            next: AtomicU64::new(0),
        })
    }

    /// A new file with bytes that nobody sent before.
    fn request(&self) -> Vec<u8> {
        let number = self.next.fetch_add(1, Ordering::Relaxed);
        let at = usize::try_from(number).unwrap_or(0);
        let (size, token) = (SIZES[at % SIZES.len()], &self.tokens[at % self.tokens.len()]);
        let head = format!(
            "POST /api/v1/files/upload?uploadType=media&path=/overload/{number} HTTP/1.1\r\nHost: {}\r\n\
             Authorization: Bearer {token}\r\nContent-Length: {size}\r\n\r\n",
            self.host
        );
        let from = at.wrapping_mul(4099) % (self.noise.len() - size);
        let mut bytes = Vec::with_capacity(head.len() + size);
        bytes.extend_from_slice(head.as_bytes());
        bytes.extend_from_slice(&number.to_le_bytes());
        bytes.extend_from_slice(&self.noise[from..from + size - size_of::<u64>()]);
        bytes
    }

    async fn shoot(self: Arc<Self>, start: Instant, due: Duration) -> Shot {
        let left = (due + DEADLINE).saturating_sub(start.elapsed());
        let request = self.request();
        let end = match tokio::time::timeout(left, self.lines.exchange(&request)).await {
            Err(_) => End::Late,
            Ok(Err(_)) => End::Broken,
            Ok(Ok(answer)) => end_of(answer),
        };
        let took = start.elapsed().saturating_sub(due);
        Shot { due, took, end }
    }
}

fn end_of(answer: Answer) -> End {
    match answer.status {
        200..=299 => End::Good,
        status @ (429 | 503) => End::Refused {
            status,
            says_when: answer.retry_after.is_some(),
        },
        other => End::Wrong(other),
    }
}

/// Sends `per_s` requests a second for `span`, and returns when the last has ended.
pub(super) async fn run(load: &Arc<Load>, per_s: f64, span: Duration, seed: u64) -> Vec<Shot> {
    let mut random = ChaCha8Rng::seed_from_u64(seed);
    let start = Instant::now();
    let (mut due, mut under_way, mut shots) = (Duration::ZERO, JoinSet::new(), Vec::new());
    while due < span {
        let left = due.saturating_sub(start.elapsed());
        if !left.is_zero() {
            tokio::time::sleep(left).await;
        }
        while due < span && due <= start.elapsed() {
            under_way.spawn(Arc::clone(load).shoot(start, due));
            due += gap(&mut random, per_s);
        }
        while let Some(ended) = under_way.try_join_next() {
            shots.extend(ended.ok());
        }
    }
    while let Some(ended) = under_way.join_next().await {
        shots.extend(ended.ok());
    }
    shots
}

/// An exponential gap of `1 / per_s` in the mean.
fn gap(random: &mut ChaCha8Rng, per_s: f64) -> Duration {
    let uniform = (random.next_u64() >> 11) as f64 / (1_u64 << 53) as f64;
    Duration::from_secs_f64(-(1.0 - uniform).ln() / per_s)
}

#[cfg(test)]
mod tests {
    use super::{End, end_of, gap};
    use crate::overload::line::Answer;
    use rand_chacha::ChaCha8Rng;
    use rand_core::SeedableRng;
    use std::time::Duration;

    #[test]
    fn gaps_have_the_mean_that_was_asked_for() {
        let mut random = ChaCha8Rng::seed_from_u64(3);
        let sum: Duration = (0..100_000).map(|_| gap(&mut random, 1000.0)).sum();
        assert!((99.0..101.0).contains(&sum.as_secs_f64()), "{sum:?}");
    }

    #[test]
    fn a_refusal_counts_as_one_only_with_429_or_503() {
        let end = |status, retry_after| end_of(Answer { status, retry_after });
        assert_eq!(end(201, None), End::Good);
        assert_eq!(
            end(429, Some(1)),
            End::Refused {
                status: 429,
                says_when: true
            }
        );
        assert_eq!(
            end(503, None),
            End::Refused {
                status: 503,
                says_when: false
            }
        );
        assert_eq!(end(500, Some(1)), End::Wrong(500));
    }
}
