//! One limit of the machine, and the figure of decision 0021 that it is held against.
//!
//! Invariant: a limit is the best of its passes, since it says what the machine can do and not what it did by chance.

use serde::Serialize;
use std::time::Duration;

/// A limit further below its reference than this share is flagged.
const TOLERANCE: f64 = 0.20;

/// What the value of a limit counts.
#[derive(Clone, Copy, Debug, PartialEq, Eq, Serialize)]
#[serde(rename_all = "snake_case")]
pub(super) enum Unit {
    /// More is better.
    BytesPerSecond,
    /// More is better.
    CallsPerSecond,
    /// Less is better.
    Seconds,
}

/// Which limit it is; the bound takes its costs by this name.
#[derive(Clone, Copy, Debug, PartialEq, Eq, Serialize)]
#[serde(rename_all = "snake_case")]
pub(super) enum LimitName {
    Blake3,
    AesGcm,
    ReedSolomon,
    Cutter,
    QuicBytes,
    QuicCalls,
    HttpSink,
    PageCacheCopy,
    SequentialWrite,
    FdatasyncP50,
    FdatasyncP99,
}

/// A measured limit.
#[derive(Clone, Debug, Serialize)]
pub(super) struct Limit {
    pub(super) name: LimitName,
    /// For people.
    pub(super) title: &'static str,
    pub(super) unit: Unit,
    pub(super) value: f64,
    /// What it was measured on.
    pub(super) basis: &'static str,
    /// Core-nanoseconds a byte, where it takes the bound's cores.
    pub(super) core_ns_per_byte: Option<f64>,
    /// Design.md section 16, in the same unit.
    pub(super) reference: Option<f64>,
    pub(super) is_below_reference: bool,
}

impl Limit {
    pub(super) fn new(
        name: LimitName,
        title: &'static str,
        unit: Unit,
        value: f64,
        basis: &'static str,
        reference: Option<f64>,
    ) -> Self {
        let is_below_reference = reference.is_some_and(|reference| is_below(unit, value, reference));
        Self {
            name,
            title,
            unit,
            value,
            basis,
            core_ns_per_byte: None,
            reference,
            is_below_reference,
        }
    }

    /// The same limit with what it costs.
    pub(super) fn costing(mut self, core_ns_per_byte: f64) -> Self {
        self.core_ns_per_byte = Some(core_ns_per_byte);
        self
    }
}

fn is_below(unit: Unit, value: f64, reference: f64) -> bool {
    match unit {
        Unit::BytesPerSecond | Unit::CallsPerSecond => value < reference * (1.0 - TOLERANCE),
        Unit::Seconds => value * (1.0 - TOLERANCE) > reference,
    }
}

/// CPU time of this thread so far.
pub(super) fn thread_cpu() -> Duration {
    cpu(rustix::time::ClockId::ThreadCPUTime)
}

/// CPU time of this process so far, all threads.
pub(super) fn process_cpu() -> Duration {
    cpu(rustix::time::ClockId::ProcessCPUTime)
}

fn cpu(clock: rustix::time::ClockId) -> Duration {
    let time = rustix::time::clock_gettime(clock);
    Duration::new(
        u64::try_from(time.tv_sec).unwrap_or(0),
        u32::try_from(time.tv_nsec).unwrap_or(0),
    )
}

#[cfg(test)]
mod tests {
    use super::{Unit, is_below};

    #[test]
    fn a_limit_is_flagged_only_beyond_a_fifth_below_its_reference() {
        for (unit, value, reference, expected) in [
            (Unit::BytesPerSecond, 81.0, 100.0, false),
            (Unit::BytesPerSecond, 79.0, 100.0, true),
            (Unit::CallsPerSecond, 500.0, 100.0, false),
            (Unit::Seconds, 0.24, 0.2, false),
            (Unit::Seconds, 0.26, 0.2, true),
        ] {
            assert_eq!(
                is_below(unit, value, reference),
                expected,
                "{unit:?} {value} beside {reference}"
            );
        }
    }
}
