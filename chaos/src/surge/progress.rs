//! A line each ten seconds of a surge: how many uploads ended, and how long 99 of 100 took.

use super::P99_MAX_MS;
use crate::open_loop::{End, Shot, percentile_ms};
use std::time::Duration;

const SHOW_EACH_S: u64 = 10;
const BAR_WIDTH: f64 = 24.0;

/// The uploads that have ended since the last line.
#[derive(Default)]
pub(super) struct Progress {
    /// Ten seconds each, since the start.
    windows: u64,
    took: Vec<Duration>,
    failed: usize,
}

impl Progress {
    /// Counts an upload as it ends; a line when the first one after ten seconds does.
    pub(super) fn count(&mut self, shot: &Shot) -> Option<String> {
        let windows = (shot.due + shot.took).as_secs() / SHOW_EACH_S;
        let mut line = None;
        if windows > self.windows {
            line = Some(self.line(windows - self.windows));
            *self = Self {
                windows,
                ..Self::default()
            };
        }
        self.took.push(shot.took);
        self.failed += usize::from(shot.end != End::Good);
        line
    }

    /// Of so many windows, since in some of them nothing may have ended.
    fn line(&mut self, windows: u64) -> String {
        self.took.sort_unstable();
        let (ended, p99_ms) = (self.took.len(), percentile_ms(&self.took, 99));
        let per_s = ended as f64 / (windows * SHOW_EACH_S) as f64;
        let bar = "#".repeat((p99_ms / P99_MAX_MS * BAR_WIDTH).min(BAR_WIDTH).round() as usize);
        let (until_s, failed) = ((self.windows + windows) * SHOW_EACH_S, self.failed);
        format!("{until_s:>4} s  {per_s:>6.1} a second  {failed} failed  p99 {p99_ms:>5.0} ms  {bar}")
    }
}

#[cfg(test)]
mod tests {
    use super::Progress;
    use crate::open_loop::{End, Shot};
    use std::time::Duration;

    #[test]
    fn a_line_has_what_ended_in_its_seconds_even_when_nothing_ended_for_long() {
        let mut progress = Progress::default();
        let mut count = |ended_s: u64, took_ms: u64, end: End| {
            let took = Duration::from_millis(took_ms);
            progress.count(&Shot {
                number: 0,
                due: Duration::from_secs(ended_s) - took,
                delay: Duration::ZERO,
                took,
                end,
            })
        };
        assert_eq!(count(3, 20, End::Good), None);
        assert_eq!(count(9, 250, End::Broken), None);
        let line = count(11, 100, End::Good).unwrap();
        assert!(line.contains("10 s") && line.contains(" 0.2 a second"), "{line}");
        assert!(line.contains("1 failed") && line.contains("250 ms"), "{line}");
        assert!(line.ends_with(&format!("  {}", "#".repeat(12))), "{line}");
        // From 20 to 40 nothing ended.
        let line = count(41, 9_000, End::Good).unwrap();
        assert!(line.contains("40 s") && line.contains(" 0.0 a second"), "{line}");
        let line = count(50, 20, End::Good).unwrap();
        assert!(line.contains("0 failed") && line.ends_with(&"#".repeat(24)), "{line}");
    }
}
