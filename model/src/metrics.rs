//! Counters and gauges that one part of a process changes and any thread reads, and their text for Prometheus.

use std::fmt::{Display, Write};
use std::sync::atomic::{AtomicI64, AtomicU64, Ordering};

use crate::Time;

/// A total that only grows while the process runs.
#[derive(Debug, Default)]
pub struct Counter(AtomicU64);

impl Counter {
    /// Adds to the total.
    pub fn add(&self, by: u64) {
        self.0.fetch_add(by, Ordering::Relaxed);
    }

    /// Raises the total to one that is counted elsewhere. A lower one changes nothing.
    pub fn raise_to(&self, total: u64) {
        self.0.fetch_max(total, Ordering::Relaxed);
    }

    /// The total.
    pub fn get(&self) -> u64 {
        self.0.load(Ordering::Relaxed)
    }
}

/// A number that grows and shrinks.
#[derive(Debug, Default)]
pub struct Gauge(AtomicU64);

impl Gauge {
    /// Replaces the number.
    pub fn set(&self, number: u64) {
        self.0.store(number, Ordering::Relaxed);
    }

    /// The number.
    pub fn get(&self) -> u64 {
        self.0.load(Ordering::Relaxed)
    }
}

/// A time that may be unknown.
#[derive(Debug)]
pub struct TimeGauge(AtomicI64);

/// The number of an unknown time. No clock shows it: it is in the year 1677.
const UNKNOWN: i64 = i64::MIN;

impl Default for TimeGauge {
    fn default() -> Self {
        TimeGauge(AtomicI64::new(UNKNOWN))
    }
}

impl TimeGauge {
    /// Replaces the time.
    pub fn set(&self, time: Time) {
        self.0.store(time.0, Ordering::Relaxed);
    }

    /// Sets the time if it is unknown.
    pub fn set_if_unknown(&self, time: Time) {
        // An error means that it is known.
        let _ = self.0.compare_exchange(UNKNOWN, time.0, Ordering::Relaxed, Ordering::Relaxed);
    }

    /// Makes the time unknown.
    pub fn clear(&self) {
        self.0.store(UNKNOWN, Ordering::Relaxed);
    }

    /// The time, if known.
    pub fn get(&self) -> Option<Time> {
        Some(self.0.load(Ordering::Relaxed)).filter(|nanos| *nanos != UNKNOWN).map(Time)
    }
}

/// The type of a metric.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub enum MetricKind {
    /// A total since the start of the process.
    Counter,
    /// A present value.
    Gauge,
}

impl MetricKind {
    fn name(self) -> &'static str {
        match self {
            MetricKind::Counter => "counter",
            MetricKind::Gauge => "gauge",
        }
    }
}

/// The media type of [`MetricsText`].
pub const METRICS_TYPE: &str = "text/plain; version=0.0.4";

/// Metrics in the text format of Prometheus, version 0.0.4.
#[derive(Debug, Default)]
pub struct MetricsText(String);

impl MetricsText {
    /// Adds a metric with one value.
    pub fn one(&mut self, kind: MetricKind, name: &str, help: &str, value: impl Display) {
        self.head(kind, name, help);
        self.line(format_args!("{name} {value}"));
    }

    /// Adds a metric with a value for each value of a label. Values of labels are plain words: they are not escaped.
    pub fn by_label<V: Display>(
        &mut self,
        kind: MetricKind,
        name: &str,
        help: &str,
        label: &str,
        samples: impl IntoIterator<Item = (&'static str, V)>,
    ) {
        self.head(kind, name, help);
        for (of, value) in samples {
            self.line(format_args!("{name}{{{label}=\"{of}\"}} {value}"));
        }
    }

    /// Adds a time in seconds since 1970. A time that is unknown has no value.
    pub fn time(&mut self, name: &str, help: &str, time: Option<Time>) {
        self.head(MetricKind::Gauge, name, help);
        if let Some(time) = time {
            self.line(format_args!("{name} {}", seconds(time.0)));
        }
    }

    /// Adds a duration in seconds.
    pub fn duration(&mut self, name: &str, help: &str, nanos: i64) {
        self.one(MetricKind::Gauge, name, help, seconds(nanos));
    }

    fn head(&mut self, kind: MetricKind, name: &str, help: &str) {
        self.line(format_args!("# HELP {name} {help}\n# TYPE {name} {}", kind.name()));
    }

    fn line(&mut self, line: std::fmt::Arguments<'_>) {
        // Writing to a string does not fail.
        let _ = writeln!(self.0, "{line}");
    }
}

impl From<MetricsText> for String {
    fn from(text: MetricsText) -> String {
        text.0
    }
}

/// Seconds of nanoseconds, to the millisecond.
fn seconds(nanos: i64) -> String {
    let millis = nanos.div_euclid(1_000_000);
    let sign = if millis < 0 { "-" } else { "" };
    let millis = millis.unsigned_abs();
    format!("{sign}{}.{:03}", millis / 1_000, millis % 1_000)
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn text_has_help_type_and_a_line_per_value() {
        let mut text = MetricsText::default();
        text.one(MetricKind::Counter, "a_total", "All.", 7);
        text.by_label(MetricKind::Gauge, "b", "Each.", "of", [("x", 1), ("y", 2)]);
        text.time("t_seconds", "When.", Some(Time(1_500_000_000)));
        text.time("u_seconds", "Never.", None);
        text.duration("d_seconds", "How long.", -2_001_000_000);
        assert_eq!(
            String::from(text),
            "# HELP a_total All.\n# TYPE a_total counter\na_total 7\n\
             # HELP b Each.\n# TYPE b gauge\nb{of=\"x\"} 1\nb{of=\"y\"} 2\n\
             # HELP t_seconds When.\n# TYPE t_seconds gauge\nt_seconds 1.500\n\
             # HELP u_seconds Never.\n# TYPE u_seconds gauge\n\
             # HELP d_seconds How long.\n# TYPE d_seconds gauge\nd_seconds -2.001\n"
        );
    }

    #[test]
    fn counters_never_shrink_and_times_can_be_unknown() {
        let counter = Counter::default();
        counter.raise_to(5);
        counter.raise_to(3);
        counter.add(1);
        assert_eq!(counter.get(), 6);
        let time = TimeGauge::default();
        assert_eq!(time.get(), None);
        time.set_if_unknown(Time(4));
        time.set_if_unknown(Time(9));
        assert_eq!(time.get(), Some(Time(4)));
        time.clear();
        assert_eq!(time.get(), None);
    }
}
