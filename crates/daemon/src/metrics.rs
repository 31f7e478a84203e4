//! The metrics of a process: constants define them, each role has a part, `/metrics` shows them as text.
//!
//! Each package keeps its `Definition`s in its own metrics.rs; the same definition asked for twice gives the same metric.
//! Every role has a part of its own, whose series carry the label `process` (`node-3`), so that roles that share a process are
//! told apart; a role's part goes when the role stops.
//! Invariants: names are `<service>_<noun>_<unit>[_total]` in base units; label values are few and known; a metric that is
//! defined is on the page, with its help and type, also before its first series.
//! Not here: the HTTP endpoints (`status_port`, and the gateway's own).

use prometheus::proto::MetricFamily;
use prometheus::{HistogramOpts, HistogramVec, IntCounterVec, IntGaugeVec, Opts, Registry, TextEncoder};
use std::collections::BTreeMap;
use std::sync::{Arc, Mutex, MutexGuard, PoisonError, Weak};

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

impl Shape {
    /// As Prometheus and docs/metrics.md call it.
    #[must_use]
    pub const fn word(self) -> &'static str {
        match self {
            Self::Counter => "counter",
            Self::Gauge => "gauge",
            Self::Histogram(_) => "histogram",
        }
    }
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

/// Brings gauges up to date before they are read.
type Refresh = Box<dyn Fn() + Send + Sync>;

/// The metrics of one role, or of what a process counts beside its roles; clones are the same part.
#[derive(Clone)]
pub struct Metrics {
    part: Arc<Part>,
    process: Arc<Process>,
}

/// All parts of a process. A part is held by its role: what nobody can count any more is not shown any more.
#[derive(Default)]
struct Process {
    parts: Mutex<BTreeMap<String, Weak<Part>>>,
}

struct Part {
    registry: Registry,
    known: Mutex<BTreeMap<&'static str, (Definition, Metric)>>,
    refreshes: Mutex<Vec<Refresh>>,
}

impl std::fmt::Debug for Metrics {
    fn fmt(&self, f: &mut std::fmt::Formatter<'_>) -> std::fmt::Result {
        f.write_str("Metrics")
    }
}

impl Default for Metrics {
    fn default() -> Self {
        Self::new()
    }
}

impl Metrics {
    /// The metrics of a new process; what is counted here carries no label `process`.
    #[must_use]
    pub fn new() -> Self {
        let (part, process) = (Arc::new(Part::new(Registry::new())), Arc::new(Process::default()));
        process.parts().insert(String::new(), Arc::downgrade(&part));
        Self { part, process }
    }

    /// The part of the role `name`, such as `node-3`, whose series carry the label `process` with it. A role that starts again
    /// begins a new part, which takes the place of the old one on the page.
    #[must_use]
    pub fn of_role(&self, name: &str) -> Self {
        let labels = [("process".to_owned(), name.to_owned())].into_iter().collect();
        let registry = Registry::new_custom(None, Some(labels)).expect("no prefix is given, so none can be empty");
        let part = Arc::new(Part::new(registry));
        self.process.parts().insert(name.to_owned(), Arc::downgrade(&part));
        Self {
            part,
            process: Arc::clone(&self.process),
        }
    }

    /// Puts `definitions` on the page before anything is counted; those without labels begin at zero.
    ///
    /// # Panics
    /// As `counter` does.
    pub fn define(&self, definitions: &[Definition]) {
        for definition in definitions {
            drop(self.part.metric(definition));
        }
    }

    /// Has `refresh` run before this part is read, to bring gauges up to date. It may block a little, and must hold what it
    /// looks at weakly: the part lives as long as its role counts.
    pub fn before_reading(&self, refresh: impl Fn() + Send + Sync + 'static) {
        self.part.refreshes().push(Box::new(refresh));
    }

    /// The counter of `definition`; use `with_label_values` with its labels in order, `&[]` for none.
    ///
    /// # Panics
    /// When the definition is no counter, malformed, or its name is taken by another definition: a mistake in a constant.
    #[must_use]
    pub fn counter(&self, definition: &Definition) -> IntCounterVec {
        match self.part.metric(definition) {
            Metric::Counter(counter) => counter,
            _ => panic!("{} is defined as no counter", definition.name),
        }
    }

    /// The gauge of `definition`; panics as `counter` does.
    #[must_use]
    pub fn gauge(&self, definition: &Definition) -> IntGaugeVec {
        match self.part.metric(definition) {
            Metric::Gauge(gauge) => gauge,
            _ => panic!("{} is defined as no gauge", definition.name),
        }
    }

    /// The histogram of `definition`; panics as `counter` does.
    #[must_use]
    pub fn histogram(&self, definition: &Definition) -> HistogramVec {
        match self.part.metric(definition) {
            Metric::Histogram(histogram) => histogram,
            _ => panic!("{} is defined as no histogram", definition.name),
        }
    }

    /// This part in the text form that Prometheus reads. Refreshes first, so it may block a little.
    #[must_use]
    pub fn encode(&self) -> String {
        encode(&[Arc::clone(&self.part)])
    }

    /// All parts of the process in one page, by name of the metric. Refreshes first, so it may block a little.
    #[must_use]
    pub fn encode_process(&self) -> String {
        let parts: Vec<Arc<Part>> = self.process.parts().values().filter_map(Weak::upgrade).collect();
        encode(&parts)
    }
}

impl Process {
    fn parts(&self) -> MutexGuard<'_, BTreeMap<String, Weak<Part>>> {
        // Every change is one map operation.
        self.parts.lock().unwrap_or_else(PoisonError::into_inner)
    }
}

impl Part {
    fn new(registry: Registry) -> Self {
        Self {
            registry,
            known: Mutex::default(),
            refreshes: Mutex::default(),
        }
    }

    fn refreshes(&self) -> MutexGuard<'_, Vec<Refresh>> {
        self.refreshes.lock().unwrap_or_else(PoisonError::into_inner)
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
        // A metric without labels has one series, which is there from the start.
        let none: [&str; 0] = [];
        Ok(match shape {
            Shape::Counter => {
                let counter = IntCounterVec::new(Opts::new(name, help), labels)?;
                self.registry.register(Box::new(counter.clone()))?;
                if labels.is_empty() {
                    drop(counter.with_label_values(&none));
                }
                Metric::Counter(counter)
            }
            Shape::Gauge => {
                let gauge = IntGaugeVec::new(Opts::new(name, help), labels)?;
                self.registry.register(Box::new(gauge.clone()))?;
                if labels.is_empty() {
                    drop(gauge.with_label_values(&none));
                }
                Metric::Gauge(gauge)
            }
            Shape::Histogram(buckets) => {
                let options = HistogramOpts::new(name, help).buckets(buckets.to_vec());
                let histogram = HistogramVec::new(options, labels)?;
                self.registry.register(Box::new(histogram.clone()))?;
                if labels.is_empty() {
                    drop(histogram.with_label_values(&none));
                }
                Metric::Histogram(histogram)
            }
        })
    }
}

/// One page of all parts: a name stands once, with the series of every part below it.
fn encode(parts: &[Arc<Part>]) -> String {
    let mut families: BTreeMap<String, MetricFamily> = BTreeMap::new();
    let mut without_series: BTreeMap<&'static str, Definition> = BTreeMap::new();
    for part in parts {
        for refresh in part.refreshes().iter() {
            refresh();
        }
        for mut family in part.registry.gather() {
            match families.get_mut(family.name()) {
                Some(known) => known.mut_metric().append(family.mut_metric()),
                None => drop(families.insert(family.name().to_owned(), family)),
            }
        }
        let known = part.known.lock().unwrap_or_else(PoisonError::into_inner);
        without_series.extend(known.iter().map(|(name, (definition, _))| (*name, *definition)));
    }
    without_series.retain(|name, _| !families.contains_key(*name));
    let mut text = String::new();
    TextEncoder::new()
        .encode_utf8(&families.into_values().collect::<Vec<_>>(), &mut text)
        .expect("gathered families are well-formed and a String takes every write");
    for Definition { name, help, shape, .. } in without_series.into_values() {
        let word = shape.word();
        text += &format!("# HELP {name} {help}\n# TYPE {name} {word}\n");
    }
    text
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

    #[test]
    fn roles_of_one_process_are_told_apart_and_a_name_stands_once() {
        let process = Metrics::new();
        let (first, second) = (process.of_role("node-1"), process.of_role("node-2"));
        first.counter(&CALLS).with_label_values(&["ping"]).inc();
        second.counter(&CALLS).with_label_values(&["ping"]).inc_by(2);
        let page = process.encode_process();
        assert_eq!(page.matches("# TYPE test_calls_total counter").count(), 1, "{page}");
        for line in [
            "test_calls_total{method=\"ping\",process=\"node-1\"} 1",
            "test_calls_total{method=\"ping\",process=\"node-2\"} 2",
        ] {
            assert!(page.lines().any(|found| found == line), "{line} is missing in\n{page}");
        }
        assert!(!first.encode().contains("node-2"));
        drop(second);
        assert!(
            !process.encode_process().contains("node-2"),
            "a stopped role is still shown"
        );
        let again = process.of_role("node-1");
        again.counter(&CALLS).with_label_values(&["ping"]).inc_by(7);
        let page = process.encode_process();
        assert!(page.contains("process=\"node-1\"} 7") && !page.contains("process=\"node-1\"} 1\n"));
    }

    #[test]
    fn what_is_defined_is_on_the_page_before_it_is_counted_and_gauges_are_refreshed() {
        let metrics = Metrics::new();
        metrics.define(&[CALLS, OPEN]);
        let text = metrics.encode();
        assert!(text.contains("# HELP test_calls_total Calls made.\n# TYPE test_calls_total counter\n"));
        assert!(text.contains("test_open_connections 0\n"), "{text}");
        let open = metrics.gauge(&OPEN);
        let none: [&str; 0] = [];
        metrics.before_reading(move || open.with_label_values(&none).set(5));
        assert!(metrics.encode().contains("test_open_connections 5\n"));
    }
}
