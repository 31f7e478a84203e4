//! The metrics of a process: constants define them, one registry holds them, `/metrics` shows them as text.
//!
//! Each package keeps its `Definition`s in its own metrics.rs; the same definition asked for twice gives the same metric,
//! so several roles of one process share a registry.
//! Invariants: names are `<service>_<noun>_<unit>[_total]` in base units; label values are few and known.
//! Not here: the HTTP endpoint (gateway, and the status port of each role).

use prometheus::{HistogramOpts, HistogramVec, IntCounterVec, IntGaugeVec, Opts, Registry, TextEncoder};
use std::collections::BTreeMap;
use std::sync::{Arc, Mutex, PoisonError};

/// The content type of `Metrics::encode`'s text.
pub const TEXT_CONTENT_TYPE: &str = "text/plain; version=0.0.4; charset=utf-8";

/// Upper bounds in seconds for latencies, from a hit in memory to a missed deadline, doubling: 0.1 ms to 26 s.
pub const LATENCY_BUCKETS_S: &[f64] = &[
    0.0001, 0.0002, 0.0004, 0.0008, 0.0016, 0.0032, 0.0064, 0.0128, 0.0256, 0.0512, 0.1024, 0.2048, 0.4096, 0.8192,
    1.6384, 3.2768, 6.5536, 13.1072, 26.2144,
];

/// What a metric is.
#[derive(Clone, Copy, Debug, PartialEq)]
pub enum Shape {
    /// Counts up only; its name ends in `_total`.
    Counter,
    /// Goes up and down.
    Gauge,
    /// A distribution over these upper bounds, ascending, in the unit of the name.
    Histogram(&'static [f64]),
}

/// One metric as a constant: name, help and labels.
#[derive(Clone, Copy, Debug, PartialEq)]
pub struct Definition {
    /// `<service>_<noun>_<unit>[_total]`.
    pub name: &'static str,
    /// One sentence for the operator.
    pub help: &'static str,
    /// The names of its labels, in the order in which values are given.
    pub labels: &'static [&'static str],
    /// What it is.
    pub shape: Shape,
}

impl Definition {
    /// A counter.
    #[must_use]
    pub const fn counter(name: &'static str, help: &'static str, labels: &'static [&'static str]) -> Self {
        Self {
            name,
            help,
            labels,
            shape: Shape::Counter,
        }
    }

    /// A gauge.
    #[must_use]
    pub const fn gauge(name: &'static str, help: &'static str, labels: &'static [&'static str]) -> Self {
        Self {
            name,
            help,
            labels,
            shape: Shape::Gauge,
        }
    }

    /// A histogram with the buckets of `LATENCY_BUCKETS_S`.
    #[must_use]
    pub const fn latency(name: &'static str, help: &'static str, labels: &'static [&'static str]) -> Self {
        Self {
            name,
            help,
            labels,
            shape: Shape::Histogram(LATENCY_BUCKETS_S),
        }
    }
}

#[derive(Clone)]
enum Metric {
    Counter(IntCounterVec),
    Gauge(IntGaugeVec),
    Histogram(HistogramVec),
}

/// The metrics of one process; clones are the same registry.
#[derive(Clone, Default)]
pub struct Metrics {
    registry: Registry,
    known: Arc<Mutex<BTreeMap<&'static str, (Definition, Metric)>>>,
}

impl std::fmt::Debug for Metrics {
    fn fmt(&self, f: &mut std::fmt::Formatter<'_>) -> std::fmt::Result {
        f.write_str("Metrics")
    }
}

impl Metrics {
    /// An empty registry.
    #[must_use]
    pub fn new() -> Self {
        Self::default()
    }

    /// The counter of `definition`; use `with_label_values` with its labels in order, `&[]` for none.
    ///
    /// # Panics
    /// When the definition is no counter, malformed, or its name is taken by another definition: a mistake in a constant.
    #[must_use]
    pub fn counter(&self, definition: &Definition) -> IntCounterVec {
        match self.metric(definition) {
            Metric::Counter(counter) => counter,
            _ => panic!("{} is defined as no counter", definition.name),
        }
    }

    /// The gauge of `definition`; panics as `counter` does.
    #[must_use]
    pub fn gauge(&self, definition: &Definition) -> IntGaugeVec {
        match self.metric(definition) {
            Metric::Gauge(gauge) => gauge,
            _ => panic!("{} is defined as no gauge", definition.name),
        }
    }

    /// The histogram of `definition`; panics as `counter` does.
    #[must_use]
    pub fn histogram(&self, definition: &Definition) -> HistogramVec {
        match self.metric(definition) {
            Metric::Histogram(histogram) => histogram,
            _ => panic!("{} is defined as no histogram", definition.name),
        }
    }

    /// Everything measured so far, in the text form that Prometheus reads. Metrics without a value yet do not appear.
    #[must_use]
    pub fn encode(&self) -> String {
        let mut text = String::new();
        TextEncoder::new()
            .encode_utf8(&self.registry.gather(), &mut text)
            .expect("gathered families are well-formed and a String takes every write");
        text
    }

    fn metric(&self, definition: &Definition) -> Metric {
        let mut known = self.known.lock().unwrap_or_else(PoisonError::into_inner);
        if let Some((before, metric)) = known.get(definition.name) {
            assert_eq!(before, definition, "two definitions share the name {}", definition.name);
            return metric.clone();
        }
        let metric = self
            .register(definition)
            .unwrap_or_else(|error| panic!("define {}: {error}", definition.name));
        known.insert(definition.name, (*definition, metric.clone()));
        metric
    }

    fn register(&self, definition: &Definition) -> prometheus::Result<Metric> {
        let Definition {
            name,
            help,
            labels,
            shape,
        } = *definition;
        Ok(match shape {
            Shape::Counter => {
                let counter = IntCounterVec::new(Opts::new(name, help), labels)?;
                self.registry.register(Box::new(counter.clone()))?;
                Metric::Counter(counter)
            }
            Shape::Gauge => {
                let gauge = IntGaugeVec::new(Opts::new(name, help), labels)?;
                self.registry.register(Box::new(gauge.clone()))?;
                Metric::Gauge(gauge)
            }
            Shape::Histogram(buckets) => {
                let options = HistogramOpts::new(name, help).buckets(buckets.to_vec());
                let histogram = HistogramVec::new(options, labels)?;
                self.registry.register(Box::new(histogram.clone()))?;
                Metric::Histogram(histogram)
            }
        })
    }
}

#[cfg(test)]
mod tests {
    use super::{Definition, Metrics};

    const CALLS: Definition = Definition::counter("test_calls_total", "Calls made.", &["method"]);
    const OPEN: Definition = Definition::gauge("test_open_connections", "Connections open.", &[]);
    const LATENCY: Definition = Definition::latency("test_call_seconds", "How long calls take.", &["method"]);

    #[test]
    fn what_is_counted_is_shown_as_text() {
        let metrics = Metrics::new();
        metrics.counter(&CALLS).with_label_values(&["ping"]).inc_by(3);
        metrics.counter(&CALLS).with_label_values(&["ping"]).inc();
        let none: [&str; 0] = [];
        metrics.gauge(&OPEN).with_label_values(&none).set(-2);
        metrics.histogram(&LATENCY).with_label_values(&["ping"]).observe(0.001);
        let text = metrics.encode();
        for line in [
            "# HELP test_calls_total Calls made.",
            "test_calls_total{method=\"ping\"} 4",
            "test_open_connections -2",
            "test_call_seconds_bucket{method=\"ping\",le=\"0.0016\"} 1",
            "test_call_seconds_count{method=\"ping\"} 1",
        ] {
            assert!(text.lines().any(|found| found == line), "{line} is missing in\n{text}");
        }
    }

    #[test]
    #[should_panic(expected = "two definitions share the name")]
    fn a_name_with_two_definitions_is_refused() {
        let metrics = Metrics::new();
        let _ = metrics.counter(&CALLS);
        let _ = metrics.counter(&Definition {
            help: "Something else.",
            ..CALLS
        });
    }
}
