//! Numbers as a monitor reads them: names, what they mean, labels, values, in the text format of OpenMetrics.

use std::borrow::Cow;
use std::fmt;

use anchorlog_engine::HistogramCounts;
use prometheus_client::collector::Collector;
use prometheus_client::encoding::text::encode;
use prometheus_client::encoding::{DescriptorEncoder, MetricEncoder};
use prometheus_client::metrics::MetricType;
use prometheus_client::metrics::exemplar::Exemplar;
use prometheus_client::registry::Registry;

/// What answers with a page say of their kind.
pub(super) const CONTENT_TYPE: &str = "application/openmetrics-text; version=1.0.0; charset=utf-8";

/// Tells the rows of a family apart.
pub(super) type Labels = Vec<(&'static str, String)>;

#[derive(Clone, Debug)]
enum Value {
    Count(u64),
    Number(f64),
    /// With how many of its units are one of those that its name tells.
    Histogram(HistogramCounts, f64),
}

#[derive(Debug)]
struct Family {
    name: Cow<'static, str>,
    help: Cow<'static, str>,
    kind: MetricType,
    rows: Vec<(Labels, Value)>,
}

/// A page that is being filled.
#[derive(Debug, Default)]
pub(super) struct Page(Vec<Family>);

impl Page {
    fn put(
        &mut self,
        kind: MetricType,
        name: impl Into<Cow<'static, str>>,
        help: impl Into<Cow<'static, str>>,
        rows: Vec<(Labels, Value)>,
    ) {
        self.0.push(Family { name: name.into(), help: help.into(), kind, rows });
    }

    /// Something that only grows. The suffix `_total` comes by itself.
    pub(super) fn counter(
        &mut self,
        name: impl Into<Cow<'static, str>>,
        help: impl Into<Cow<'static, str>>,
        value: u64,
    ) {
        self.put(MetricType::Counter, name, help, vec![(Labels::new(), Value::Count(value))]);
    }

    /// The same in parts of one.
    pub(super) fn counter_of_seconds(&mut self, name: &'static str, help: &'static str, value: f64) {
        self.put(MetricType::Counter, name, help, vec![(Labels::new(), Value::Number(value))]);
    }

    /// Several of one name.
    pub(super) fn counters(
        &mut self,
        name: &'static str,
        help: &'static str,
        rows: impl IntoIterator<Item = (Labels, u64)>,
    ) {
        let rows = rows.into_iter().map(|(labels, value)| (labels, Value::Count(value))).collect();
        self.put(MetricType::Counter, name, help, rows);
    }

    /// Something that goes up and down.
    pub(super) fn gauge(&mut self, name: &'static str, help: &'static str, value: f64) {
        self.put(MetricType::Gauge, name, help, vec![(Labels::new(), Value::Number(value))]);
    }

    /// Several of one name.
    pub(super) fn gauges(
        &mut self,
        name: &'static str,
        help: &'static str,
        rows: impl IntoIterator<Item = (Labels, f64)>,
    ) {
        let rows = rows.into_iter().map(|(labels, value)| (labels, Value::Number(value))).collect();
        self.put(MetricType::Gauge, name, help, rows);
    }

    /// How often something took how long, or was how large; so many of its units are one of those that
    /// its name tells.
    pub(super) fn histogram(&mut self, name: &'static str, help: &'static str, counts: HistogramCounts, units: f64) {
        self.put(MetricType::Histogram, name, help, vec![(Labels::new(), Value::Histogram(counts, units))]);
    }

    /// The page.
    pub(super) fn text(self) -> String {
        let mut registry = Registry::default();
        registry.register_collector(Box::new(self));
        let mut text = String::new();
        encode(&mut text, &registry).expect("a string takes everything");
        text
    }

    #[cfg(test)]
    pub(super) fn names(&self) -> Vec<(String, bool)> {
        self.0.iter().map(|family| (family.name.to_string(), matches!(family.kind, MetricType::Counter))).collect()
    }
}

impl Collector for Page {
    fn encode(&self, mut encoder: DescriptorEncoder<'_>) -> Result<(), fmt::Error> {
        for family in &self.0 {
            let mut family_encoder = encoder.encode_descriptor(&family.name, &family.help, None, family.kind)?;
            for (labels, value) in &family.rows {
                if labels.is_empty() {
                    put_value(&mut family_encoder, family.kind, value)?;
                } else {
                    put_value(&mut family_encoder.encode_family(labels)?, family.kind, value)?;
                }
            }
        }
        Ok(())
    }
}

const NO_EXEMPLAR: Option<&Exemplar<Labels, f64>> = None;

#[expect(clippy::cast_precision_loss, reason = "the format knows floating point alone where it knows buckets")]
fn put_value(encoder: &mut MetricEncoder<'_>, kind: MetricType, value: &Value) -> Result<(), fmt::Error> {
    match (kind, value) {
        (MetricType::Counter, Value::Count(count)) => encoder.encode_counter(count, NO_EXEMPLAR),
        (MetricType::Counter, Value::Number(number)) => encoder.encode_counter(number, NO_EXEMPLAR),
        (_, Value::Count(count)) => encoder.encode_gauge(&(*count as f64)),
        (_, Value::Number(number)) => encoder.encode_gauge(number),
        (_, Value::Histogram(counts, units)) => {
            let bounds = counts.bounds.iter().map(|bound| *bound as f64 / units).chain([f64::INFINITY]);
            let buckets: Vec<(f64, u64)> = bounds.zip(counts.counts.iter().copied()).collect();
            encoder.encode_histogram::<Labels>(counts.sum as f64 / units, counts.count(), &buckets, None)
        }
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn a_page_is_what_a_monitor_reads() {
        let mut page = Page::default();
        page.counter("a_things", "Things.", 3);
        page.gauges("a_lag_seconds", "Lag.", [(vec![("group", "g\"1\\".to_owned())], 1.5)]);
        page.gauges("a_nothing", "Nobody has one.", []);
        let counts = HistogramCounts { bounds: &[100, 1_000_000], counts: vec![2, 1, 1], sum: 5_000_000 };
        page.histogram("a_flush_seconds", "Flushes.", counts, 1e6);
        let wanted = "# HELP a_things Things.\n# TYPE a_things counter\na_things_total 3\n\
                      # HELP a_lag_seconds Lag.\n# TYPE a_lag_seconds gauge\na_lag_seconds{group=\"g\\\"1\\\\\"} 1.5\n\
                      # HELP a_nothing Nobody has one.\n# TYPE a_nothing gauge\n\
                      # HELP a_flush_seconds Flushes.\n# TYPE a_flush_seconds histogram\na_flush_seconds_sum 5.0\n\
                      a_flush_seconds_count 4\na_flush_seconds_bucket{le=\"0.0001\"} 2\na_flush_seconds_bucket{le=\"1.0\"} 3\n\
                      a_flush_seconds_bucket{le=\"+Inf\"} 4\n# EOF\n";
        assert_eq!(page.text(), wanted);
    }
}
