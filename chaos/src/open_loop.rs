//! Load that does not care for answers: uploads begin at their times, however many are under way.
//!
//! A client that waits for one answer before it asks again slows down with the server, and so hides what overload does. Here times
//! are drawn beforehand (exponential gaps), and each upload has until the deadline after its time, whenever it was really sent.
//! Invariants: every upload that was due is counted once; the seed and its number decide an upload's bytes.
//! Not here: what is made of it (`overload`, `surge`).

mod line;
pub(crate) mod orders;
pub(crate) mod senders;
pub(crate) mod usage;

use crate::percentile::percentile;
use line::{Answer, Lines};
use rand_chacha::ChaCha8Rng;
use rand_core::{RngCore, SeedableRng};
use std::sync::Arc;
use std::sync::atomic::{AtomicU64, Ordering};
use std::time::{Duration, Instant};
use tokio::task::{JoinError, JoinSet};

/// QAS-006: uploads of 4 to 64 KiB.
const LENGTH_BYTES_MIN: usize = 4 << 10;
/// So many times as long as the shortest is the longest.
const LENGTH_TIMES: f64 = 16.0;
const LENGTHS_IN_TURN: [usize; 5] = [4 << 10, 8 << 10, 16 << 10, 32 << 10, 64 << 10];
const NOISE_BYTES: usize = 8 << 20;

/// How long uploads are.
#[derive(Clone, Copy, Debug)]
pub(crate) enum Lengths {
    /// Five lengths in turn.
    InTurn,
    /// Drawn; of twice the length there are as many as of the length.
    EvenInLog,
}

/// How a request ended.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub(crate) enum End {
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

/// One upload.
#[derive(Clone, Copy, Debug)]
pub(crate) struct Shot {
    pub(crate) number: u64,
    /// After the start of its run.
    pub(crate) due: Duration,
    /// From when it was due until the load maker came to it: its own fault, and nobody else's.
    pub(crate) delay: Duration,
    /// From when it was due.
    pub(crate) took: Duration,
    pub(crate) end: End,
}

/// What is sent.
#[derive(Clone, Copy, Debug)]
pub(crate) struct Uploads {
    /// Of each sender, where the files go.
    pub(crate) folder: &'static str,
    pub(crate) lengths: Lengths,
    /// From when it was due; then the connection is cut.
    pub(crate) deadline: Duration,
    /// Decides lengths and bytes.
    pub(crate) seed: u64,
}

/// What is sent, to whom and by whom.
pub(crate) struct Load {
    lines: Lines,
    host: String,
    tokens: Vec<String>,
    uploads: Uploads,
    noise: Vec<u8>,
    next: AtomicU64,
}

impl Load {
    /// Uploads to the gateway at `host` in the name of whoever `tokens` belong to, in turn.
    pub(crate) fn new(host: &str, tokens: Vec<String>, uploads: Uploads) -> anyhow::Result<Self> {
        let mut noise = vec![0; NOISE_BYTES];
        ChaCha8Rng::seed_from_u64(uploads.seed).fill_bytes(&mut noise);
        Ok(Self {
            lines: Lines::new(host.parse()?),
            host: host.to_owned(),
            tokens,
            uploads,
            noise,
            next: AtomicU64::new(0),
        })
    }

    /// Of the senders, in the order in which they take turns.
    pub(crate) fn tokens(&self) -> &[String] {
        &self.tokens
    }

    /// How long the upload of a number is.
    pub(crate) fn length_bytes(&self, number: u64) -> usize {
        match self.uploads.lengths {
            Lengths::InTurn => LENGTHS_IN_TURN[index(number) % LENGTHS_IN_TURN.len()],
            Lengths::EvenInLog => even_in_log(self.uploads.seed, number),
        }
    }

    /// The bytes of the upload of a number: those of no other begin alike.
    pub(crate) fn content(&self, number: u64) -> Vec<u8> {
        let mut bytes = Vec::with_capacity(self.length_bytes(number));
        self.push_content(number, &mut bytes);
        bytes
    }

    fn push_content(&self, number: u64, bytes: &mut Vec<u8>) {
        let length_bytes = self.length_bytes(number);
        let from = index(number).wrapping_mul(4099) % (self.noise.len() - length_bytes);
        bytes.extend_from_slice(&number.to_le_bytes());
        bytes.extend_from_slice(&self.noise[from..from + length_bytes - size_of::<u64>()]);
    }

    /// A new file with bytes that nobody sent before.
    fn request(&self, number: u64) -> Vec<u8> {
        let (length_bytes, token) = (
            self.length_bytes(number),
            &self.tokens[index(number) % self.tokens.len()],
        );
        let head = format!(
            "POST /api/v1/files/upload?uploadType=media&path={}/{number} HTTP/1.1\r\nHost: {}\r\n\
             Authorization: Bearer {token}\r\nContent-Length: {length_bytes}\r\n\r\n",
            self.uploads.folder, self.host
        );
        let mut bytes = Vec::with_capacity(head.len() + length_bytes);
        bytes.extend_from_slice(head.as_bytes());
        self.push_content(number, &mut bytes);
        bytes
    }

    async fn shoot(self: Arc<Self>, number: u64, start: Instant, due: Duration) -> Shot {
        let request = self.request(number);
        let delay = start.elapsed().saturating_sub(due);
        let left = self.uploads.deadline.saturating_sub(delay);
        let end = match tokio::time::timeout(left, self.lines.exchange(&request)).await {
            Err(_) => End::Late,
            Ok(Err(_)) => End::Broken,
            Ok(Ok(answer)) => end_of(answer),
        };
        let took = start.elapsed().saturating_sub(due);
        Shot {
            number,
            due,
            delay,
            took,
            end,
        }
    }
}

/// Uploads of one run are never more than a word of the machine can count.
fn index(number: u64) -> usize {
    usize::try_from(number).unwrap_or(0)
}

/// Between the shortest and the longest, by the seed and the number alone.
fn even_in_log(seed: u64, number: u64) -> usize {
    let mut random = ChaCha8Rng::seed_from_u64(seed);
    // Of the same seed the first stream has the noise.
    random.set_stream(number.wrapping_add(1));
    (LENGTH_BYTES_MIN as f64 * LENGTH_TIMES.powf(uniform(&mut random))) as usize
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

/// Sends `per_s` uploads a second for `span`, shows each as it has ended, and returns when the last has.
pub(crate) async fn run(
    load: &Arc<Load>,
    per_s: f64,
    span: Duration,
    seed: u64,
    mut seen: impl FnMut(&Shot),
) -> Vec<Shot> {
    let mut random = ChaCha8Rng::seed_from_u64(seed);
    let start = Instant::now();
    let (mut due, mut under_way, mut shots) = (Duration::ZERO, JoinSet::new(), Vec::new());
    let mut take = |ended: Result<Shot, JoinError>| {
        let shot = ended.expect("nobody ends an upload from outside, and it does not panic");
        seen(&shot);
        shots.push(shot);
    };
    while due < span {
        let left = due.saturating_sub(start.elapsed());
        if !left.is_zero() {
            tokio::time::sleep(left).await;
        }
        while due < span && due <= start.elapsed() {
            let number = load.next.fetch_add(1, Ordering::Relaxed);
            under_way.spawn(Arc::clone(load).shoot(number, start, due));
            due += gap(&mut random, per_s);
        }
        while let Some(ended) = under_way.try_join_next() {
            take(ended);
        }
    }
    while let Some(ended) = under_way.join_next().await {
        take(ended);
    }
    shots
}

/// An exponential gap of `1 / per_s` in the mean.
fn gap(random: &mut ChaCha8Rng, per_s: f64) -> Duration {
    Duration::from_secs_f64(-(1.0 - uniform(random)).ln() / per_s)
}

/// From 0 to below 1.
fn uniform(random: &mut ChaCha8Rng) -> f64 {
    (random.next_u64() >> 11) as f64 / (1_u64 << 53) as f64
}

/// `percentile` in milliseconds.
pub(crate) fn percentile_ms(sorted: &[Duration], percent: usize) -> f64 {
    percentile(sorted, percent).as_secs_f64() * 1e3
}

#[cfg(test)]
mod tests {
    use super::line::Answer;
    use super::{End, Lengths, Load, Uploads, end_of, even_in_log, gap};
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
    fn drawn_lengths_are_within_their_bounds_and_as_many_above_each_doubling_as_below() {
        let lengths: Vec<usize> = (0..40_000).map(|number| even_in_log(5, number)).collect();
        assert!(lengths.iter().all(|length| (4 << 10..64 << 10).contains(length)));
        for (number, bound) in [(1, 8 << 10), (2, 16 << 10), (3, 32 << 10)] {
            let below = lengths.iter().filter(|length| **length < bound).count();
            assert!(
                below.abs_diff(10_000 * number) < 500,
                "{below} of 40,000 are below {bound}"
            );
        }
    }

    #[test]
    fn a_number_has_the_same_bytes_each_time_and_those_of_no_other_number_or_seed() {
        let load = |seed| {
            let uploads = Uploads {
                folder: "/x",
                lengths: Lengths::EvenInLog,
                deadline: Duration::ZERO,
                seed,
            };
            Load::new("127.0.0.1:1", vec!["of one".to_owned(), "of two".to_owned()], uploads).unwrap()
        };
        let (one, same, other) = (load(1), load(1), load(2));
        assert_eq!(one.content(7), same.content(7));
        assert_ne!(one.content(7), one.content(8));
        assert_ne!(one.content(7), other.content(7));
        let (content, request) = (one.content(7), one.request(7));
        assert_eq!(content.len(), one.length_bytes(7));
        let (head, body) = request.split_at(request.len() - content.len());
        assert_eq!(body, content);
        let head = std::str::from_utf8(head).unwrap();
        assert!(head.contains("path=/x/7 ") && head.contains("Bearer of two"), "{head}");
        assert!(head.contains(&format!("Content-Length: {}\r\n\r\n", content.len())));
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
