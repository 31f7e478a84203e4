//! The machine that the figures come from: a figure without it says nothing.

use super::limit;
use crate::proc::field;
use serde::Serialize;
use std::time::{Duration, Instant};

/// What the figures depend on.
#[derive(Clone, Debug, Serialize)]
pub(super) struct Machine {
    pub(super) cores: usize,
    pub(super) processor: String,
    pub(super) memory_bytes: u64,
    /// Processes that ran or waited for a core in the last minute, before the run began; above 0.5 somebody else was at work.
    pub(super) load_before: f64,
}

impl Machine {
    /// Reads /proc; what it does not tell is empty or zero, since it explains figures and decides none. `cores` is what this
    /// process may use.
    pub(super) fn observe() -> Self {
        let read = |path: &str| std::fs::read_to_string(path).unwrap_or_default();
        let memory_kib: u64 = field(&read("/proc/meminfo"), "MemTotal")
            .and_then(|value| value.split_whitespace().next()?.parse().ok())
            .unwrap_or(0);
        Self {
            cores: std::thread::available_parallelism().map_or(1, std::num::NonZero::get),
            processor: field(&read("/proc/cpuinfo"), "model name").unwrap_or_default(),
            memory_bytes: memory_kib << 10,
            load_before: read("/proc/loadavg")
                .split(' ')
                .next()
                .and_then(|value| value.parse().ok())
                .unwrap_or(0.0),
        }
    }

    pub(super) fn text(&self) -> String {
        let memory = crate::table::bytes(self.memory_bytes);
        format!(
            "{} cores of {}, {memory}, load before {:.2}",
            self.cores, self.processor, self.load_before
        )
    }
}

/// Cores that others kept busy since it was begun: what makes a limit smaller than the machine.
pub(super) struct Neighbours {
    begun: Instant,
    all: Option<Duration>,
    own: Duration,
}

impl Neighbours {
    pub(super) fn watch() -> Self {
        Self {
            begun: Instant::now(),
            all: all_cpu(),
            own: limit::process_cpu(),
        }
    }

    /// `None` where /proc/stat cannot be read.
    pub(super) fn cores(&self) -> Option<f64> {
        let all = all_cpu()?.checked_sub(self.all?)?.as_secs_f64();
        let own = (limit::process_cpu() - self.own).as_secs_f64();
        Some((all - own).max(0.0) / self.begun.elapsed().as_secs_f64())
    }
}

fn all_cpu() -> Option<Duration> {
    let ticks = busy_ticks(&std::fs::read_to_string("/proc/stat").ok()?)?;
    Some(Duration::from_secs_f64(
        ticks as f64 / rustix::param::clock_ticks_per_second() as f64,
    ))
}

/// The first line of proc_stat(5) without idle and iowait (fields 4 and 5), and without guests, which user already counts.
fn busy_ticks(stat: &str) -> Option<u64> {
    let fields = stat
        .lines()
        .next()?
        .strip_prefix("cpu ")?
        .split_whitespace()
        .take(8)
        .enumerate();
    fields
        .filter(|(at, _)| !matches!(at, 3 | 4))
        .map(|(_, value)| value.parse::<u64>().ok())
        .sum()
}

#[cfg(test)]
mod tests {
    use super::busy_ticks;

    #[test]
    fn idle_time_waiting_and_guests_are_not_busy() {
        assert_eq!(busy_ticks("cpu  1 2 4 1000 1000 8 16 32 9000 9000\ncpu0 7\n"), Some(63));
        assert_eq!(busy_ticks("intr 7"), None);
        assert_eq!(busy_ticks("cpu  1 x"), None);
    }
}
