//! Counters and gauges of one machine, shown as Prometheus text.

use std::collections::BTreeMap;
use std::fmt::Write;
use std::sync::Arc;
use std::sync::atomic::{AtomicU64, Ordering};

use parking_lot::Mutex;

/// A number that others read.
#[derive(Debug, Clone, Default)]
pub struct Value(Arc<AtomicU64>);

impl Value {
    /// Counts one more.
    pub fn increment(&self) {
        self.add(1);
    }

    /// Counts `n` more.
    pub fn add(&self, n: u64) {
        self.0.fetch_add(n, Ordering::Relaxed);
    }

    /// Counts `n` fewer; for gauges.
    pub fn subtract(&self, n: u64) {
        self.0.fetch_sub(n, Ordering::Relaxed);
    }

    /// Says how many there are now; for gauges.
    pub fn set(&self, n: u64) {
        self.0.store(n, Ordering::Relaxed);
    }

    /// The number as it is.
    #[must_use]
    pub fn get(&self) -> u64 {
        self.0.load(Ordering::Relaxed)
    }
}

/// Asks for a number at the moment of reading.
type Probe = Box<dyn Fn() -> u64 + Send + Sync>;

enum Source {
    Stored(Value),
    Asked(Probe),
}

/// What a family of numbers does over time.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
enum Kind {
    Counter,
    Gauge,
}

struct Family {
    help: &'static str,
    kind: Kind,
    series: BTreeMap<String, Source>,
}

/// Every number of one machine. Names are Prometheus names without the prefix `caraway_`; labels
/// are name and value.
#[derive(Default)]
pub struct Metrics {
    families: Mutex<BTreeMap<&'static str, Family>>,
}

impl Metrics {
    /// A number that only grows; the same one for the same name and labels.
    pub fn counter(
        &self,
        name: &'static str,
        help: &'static str,
        labels: &[(&str, &str)],
    ) -> Value {
        self.stored(name, help, Kind::Counter, labels)
    }

    /// A number that goes up and down; the same one for the same name and labels.
    pub fn gauge(&self, name: &'static str, help: &'static str, labels: &[(&str, &str)]) -> Value {
        self.stored(name, help, Kind::Gauge, labels)
    }

    /// A gauge whose number `probe` tells whenever it is read.
    pub fn gauge_of(
        &self,
        name: &'static str,
        help: &'static str,
        labels: &[(&str, &str)],
        probe: impl Fn() -> u64 + Send + Sync + 'static,
    ) {
        self.with(name, help, Kind::Gauge, |series| {
            series.insert(shown(labels), Source::Asked(Box::new(probe)));
        });
    }

    /// As [`gauge_of`](Self::gauge_of), for a number that only grows.
    pub fn counter_of(
        &self,
        name: &'static str,
        help: &'static str,
        labels: &[(&str, &str)],
        probe: impl Fn() -> u64 + Send + Sync + 'static,
    ) {
        self.with(name, help, Kind::Counter, |series| {
            series.insert(shown(labels), Source::Asked(Box::new(probe)));
        });
    }

    /// Shows the numbers whose first label is this one no more.
    pub fn forget(&self, label: (&str, &str)) {
        let gone = shown(&[label]);
        let with_others = format!("{},", gone.trim_end_matches('}'));
        for family in self.families.lock().values_mut() {
            let series = &mut family.series;
            series.retain(|labels, _| *labels != gone && !labels.starts_with(&with_others));
        }
    }

    /// All of them in the Prometheus text format, version 0.0.4.
    #[must_use]
    pub fn render(&self) -> String {
        let mut text = String::new();
        for (name, family) in self.families.lock().iter() {
            let kind = match family.kind {
                Kind::Counter => "counter",
                Kind::Gauge => "gauge",
            };
            // Writing to a string can't fail.
            let _ = writeln!(text, "# HELP caraway_{name} {}", family.help);
            let _ = writeln!(text, "# TYPE caraway_{name} {kind}");
            for (labels, source) in &family.series {
                let number = match source {
                    Source::Stored(value) => value.get(),
                    Source::Asked(probe) => probe(),
                };
                let _ = writeln!(text, "caraway_{name}{labels} {number}");
            }
        }
        text
    }

    fn stored(
        &self,
        name: &'static str,
        help: &'static str,
        kind: Kind,
        labels: &[(&str, &str)],
    ) -> Value {
        self.with(name, help, kind, |series| {
            let source = series
                .entry(shown(labels))
                .or_insert_with(|| Source::Stored(Value::default()));
            match source {
                Source::Stored(value) => value.clone(),
                Source::Asked(_) => Value::default(),
            }
        })
    }

    fn with<T>(
        &self,
        name: &'static str,
        help: &'static str,
        kind: Kind,
        act: impl FnOnce(&mut BTreeMap<String, Source>) -> T,
    ) -> T {
        let mut families = self.families.lock();
        let family = families.entry(name).or_insert_with(|| Family {
            help,
            kind,
            series: BTreeMap::new(),
        });
        act(&mut family.series)
    }
}

fn shown(labels: &[(&str, &str)]) -> String {
    if labels.is_empty() {
        return String::new();
    }
    let quoted: Vec<String> = labels
        .iter()
        .map(|(name, value)| {
            let value = value
                .replace('\\', "\\\\")
                .replace('"', "\\\"")
                .replace('\n', "\\n");
            format!("{name}=\"{value}\"")
        })
        .collect();
    format!("{{{}}}", quoted.join(","))
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn a_family_is_shown_with_all_its_series() {
        let metrics = Metrics::default();
        metrics
            .counter("disk_reads_total", "Reads.", &[("disk", "a")])
            .add(3);
        metrics
            .counter("disk_reads_total", "Reads.", &[("disk", "b\"")])
            .increment();

        let text = metrics.render();

        assert_eq!(
            text,
            "# HELP caraway_disk_reads_total Reads.\n\
             # TYPE caraway_disk_reads_total counter\n\
             caraway_disk_reads_total{disk=\"a\"} 3\n\
             caraway_disk_reads_total{disk=\"b\\\"\"} 1\n"
        );
    }

    #[test]
    fn a_probe_is_asked_at_every_reading() {
        let metrics = Metrics::default();
        let value = Value::default();
        let asked = value.clone();
        metrics.gauge_of("sessions", "Viewers.", &[], move || asked.get());

        value.set(2);

        assert!(metrics.render().contains("caraway_sessions 2\n"));
    }

    #[test]
    fn the_same_name_is_the_same_number() {
        let metrics = Metrics::default();
        metrics.gauge("x", "X.", &[]).set(5);

        let again = metrics.gauge("x", "X.", &[]);

        assert_eq!(again.get(), 5);
    }
}
